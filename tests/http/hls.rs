//! HLS over real sockets: playlists by the rules, the same sound as others hear, listeners that are
//! counted.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use continuo::station::StationConfig;

use super::client::{Answer, PATIENCE, call, get, send};
use super::m3u8::{Playlist, follows, media, variants};
use super::server::{Server, start, start_with, until};

const PLAYLIST_TYPE: Option<&str> = Some("application/vnd.apple.mpegurl");
const FOR_A_YEAR: Option<&str> = Some("public, max-age=31536000, immutable");

async fn created(server: &Server, body: &str) -> String {
    let view = call(server.addr, "POST", "/v1/streams", body).await.json().await;
    format!("/v1/streams/{}", view["id"].as_str().unwrap())
}

/// The address of a rendition's playlist, with a new player's name.
async fn joined(server: &Server, place: &str, rendition: &str) -> String {
    let master = get(server.addr, &format!("{place}/hls/master.m3u8")).await.text().await;
    let listed = variants(&master);
    let most = |at: usize, name: &str| listed[at].0[name].parse::<f64>().unwrap();
    for name in ["SCORE", "BANDWIDTH"] {
        assert!(most(0, name) > most(1, name), "players that can choose take Opus, by {name}");
    }
    let mut addresses = listed.into_iter().map(|(_, address)| address);
    addresses.find(|address| address.contains(&format!("/{rendition}/"))).unwrap()
}

async fn playlist(server: &Server, address: &str) -> Playlist {
    let mut answer = get(server.addr, address).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, PLAYLIST_TYPE));
    assert_eq!(answer.header("cache-control"), Some("max-age=1"));
    media(&answer.text().await)
}

/// What a playlist names, from where it is.
fn beside(address: &str, uri: &str) -> String {
    let (folder, _) = address.split_once("index.m3u8").unwrap();
    format!("{folder}{uri}")
}

async fn fetched(server: &Server, path: &str) -> Answer {
    let answer = get(server.addr, path).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, FOR_A_YEAR), "{path}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn playlists_keep_the_rules_while_they_grow_and_after_the_end() {
    let server = start().await;
    for rendition in ["opus", "mp3"] {
        let place = created(&server, r#"{"prompts": ["rain \"and\" wind"], "seconds": 8.5}"#).await;
        let address = joined(&server, &place, rendition).await;
        let mut before = playlist(&server, &address).await;
        while !before.ended {
            let hint = before.hint.as_deref().and_then(|hint| hint.split_once('.'));
            let next = match hint {
                Some((number, rest)) => {
                    let part = rest.split('.').next().unwrap();
                    let skip = if part == "2" { "&_HLS_skip=YES" } else { "" };
                    format!("_HLS_msn={number}&_HLS_part={part}{skip}")
                }
                None => format!("_HLS_msn={}", before.sequence + before.skipped + before.segments.len() as u64),
            };
            let next = playlist(&server, &format!("{address}&{next}")).await;
            follows(&next, &before);
            for segment in &next.segments {
                for uri in segment.parts.iter().map(|part| &part.uri).chain([&segment.uri]) {
                    fetched(&server, &beside(&address, uri)).await;
                }
            }
            before = next;
        }
        let lengths: Vec<f64> = before.segments.iter().map(|segment| segment.seconds).collect();
        assert_eq!((before.ended, &lengths[..]), (true, &[3.0, 3.0, 2.5][..]));
        let range = &before.ranges[0];
        assert_eq!((range["X-TITLE"].as_str(), before.ranges.len()), ("rain 'and' wind", 1));
        assert_eq!(before.map.is_some(), rendition == "opus");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn players_wait_for_what_comes_next_and_leave_out_what_they_had() {
    let server = start().await;
    let place = created(&server, r#"{"prompts": ["a"]}"#).await;
    let address = joined(&server, &place, "opus").await;
    let mut whole = playlist(&server, &address).await;
    while whole.segments.len() < 8 {
        let next = format!("{address}&_HLS_msn={}", whole.sequence + whole.segments.len() as u64);
        let asked = Instant::now();
        let later = playlist(&server, &next).await;
        assert!(asked.elapsed() < PATIENCE && later.segments.len() > whole.segments.len());
        follows(&later, &whole);
        whole = later;
    }
    let delta = playlist(&server, &format!("{address}&_HLS_skip=YES")).await;
    assert!(delta.skipped >= 1 && delta.segments.len() >= 6, "{} of {}", delta.skipped, delta.segments.len());
    assert_eq!(delta.sequence, whole.sequence);
    follows(&delta, &whole);
    let hint = delta.hint.unwrap();
    let part = fetched(&server, &beside(&address, &hint)).await.body().await;
    assert!(part.windows(4).any(|word| word == b"moof"));

    let too_far = format!("{address}&_HLS_msn={}", delta.sequence + 100);
    for (path, status) in [
        (too_far, 400),
        (format!("{address}&_HLS_part=1"), 400),
        (format!("{address}&_HLS_msn=x"), 400),
        (format!("{place}/hls/opus/index.m3u8?session=%22"), 400),
        (format!("{place}/hls/opus/999.m4s"), 404),
        (format!("{place}/hls/opus/01.m4s"), 404),
        (format!("{place}/hls/opus/1.9.m4s"), 404),
        (format!("{place}/hls/opus/1.mp3"), 404),
        (format!("{place}/hls/mp3/init.mp4"), 404),
        (format!("{place}/hls/midi/index.m3u8"), 404),
        ("/v1/streams/nobody/hls/master.m3u8".into(), 404),
        ("/hls/nobody/master.m3u8".into(), 404),
    ] {
        let mut answer = get(server.addr, &path).await;
        assert_eq!((answer.status, answer.header("cache-control")), (status, Some("no-store")), "{path}");
        answer.problem().await;
    }
    // What will never be known is passed over.
    playlist(&server, &format!("{address}&_HLS_push=1")).await;
    let head = send(server.addr, &format!("HEAD {address} HTTP/1.1"), b"").await;
    assert_eq!((head.status, head.header("content-type")), (200, PLAYLIST_TYPE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_has_an_address_of_its_own_and_credentials_go_along() {
    let server = start_with(StationConfig::default(), |app| app.access.token = Some("open sesame".into())).await;
    let body = r#"{"prompts": ["dub"], "name": "deep dub"}"#;
    let head = format!("POST /v1/streams?token=open+sesame HTTP/1.1\nContent-Length: {}", body.len());
    assert_eq!(send(server.addr, &head, body.as_bytes()).await.status, 201);
    assert_eq!(get(server.addr, "/hls/deep%20dub/master.m3u8").await.status, 401);
    let mut master = get(server.addr, "/hls/deep%20dub/master.m3u8?token=open+sesame").await;
    assert_eq!((master.status, master.header("cache-control")), (200, Some("no-store")));
    let (variant, address) = variants(&master.text().await).remove(0);
    assert_eq!(variant["CODECS"], "Opus");
    assert!(address.starts_with("/v1/streams/") && address.ends_with("&token=open+sesame"), "{address}");
    let playlist = playlist(&server, &address).await;
    let uris = playlist.segments.iter().map(|segment| segment.uri.clone()).chain(playlist.map).chain(playlist.hint);
    for uri in uris {
        assert!(uri.ends_with("?token=open+sesame"), "{uri}");
        fetched(&server, &beside(&address, &uri)).await;
    }
    assert!(playlist.reports[0]["URI"].ends_with("&token=open+sesame"));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_playlists_come_compressed_to_who_takes_that() {
    // What players say to be let in is in every line.
    let token = "x".repeat(1200);
    let access = token.clone();
    let server = start_with(StationConfig::default(), |app| app.access.token = Some(access)).await;
    let body = r#"{"prompts": ["a"], "name": "dub"}"#;
    let head = format!("POST /v1/streams?token={token} HTTP/1.1\nContent-Length: {}", body.len());
    assert_eq!(send(server.addr, &head, body.as_bytes()).await.status, 201);
    let master = get(server.addr, &format!("/hls/dub/master.m3u8?token={token}")).await.text().await;
    let (_, address) = variants(&master).remove(0);
    let whole = format!("GET {address}&_HLS_msn=1 HTTP/1.1");
    let mut packed = send(server.addr, &format!("{whole}\nAccept-Encoding: br, gzip"), b"").await;
    assert_eq!((packed.header("content-encoding"), packed.header("vary")), (Some("gzip"), Some("accept-encoding")));
    assert_eq!((packed.header("content-type"), packed.header("cache-control")), (PLAYLIST_TYPE, Some("max-age=1")));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed.body().await[..]).read_to_string(&mut text).unwrap();
    let packed = media(&text);
    assert!(packed.segments.len() >= 2 && text.len() > 8192, "{} bytes", text.len());
    let mut plain = send(server.addr, &whole, b"").await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
    follows(&media(&plain.text().await), &packed);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_player_is_one_listener() {
    let server = start().await;
    let place = created(&server, r#"{"prompts": ["a"]}"#).await;
    let listeners = || server.app.station.list()[0].listeners;
    let (one, another) = (joined(&server, &place, "opus").await, joined(&server, &place, "mp3").await);
    assert_eq!(listeners(), 0);
    // Without a name it is its address that counts, however often it comes.
    let nameless = ["opus", "mp3"].map(|rendition| format!("{place}/hls/{rendition}/index.m3u8"));
    for (count, players) in [(2, vec![one, another]), (1, nameless.to_vec())] {
        let began = Instant::now();
        while listeners() != count {
            assert!(began.elapsed() < PATIENCE, "{} listeners", listeners());
            for address in &players {
                playlist(&server, address).await;
            }
        }
    }
    until(|| listeners() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_heard_before_anybody_followed_is_there_again() {
    let server = start().await;
    let place = created(&server, r#"{"prompts": ["a"], "seconds": 5}"#).await;
    let mut ogg = get(server.addr, &format!("{place}/audio.ogg")).await;
    // Who follows gets what is made now ...
    let early = joined(&server, &place, "opus").await;
    let listed = playlist(&server, &early).await;
    let first = fetched(&server, &beside(&early, &listed.segments[0].uri)).await.body().await;
    let theirs = decoded(&ogg.body().await);
    let stream = server.app.station.get(place.rsplit('/').next().unwrap()).unwrap();
    until(|| stream.has_ended()).await;
    // ... and who comes for another rendition when all is over what is made again.
    let late = playlist(&server, &joined(&server, &place, "mp3").await).await;
    assert_eq!((late.sequence, late.segments.len(), late.ended), (0, 2, true));
    let address = format!("http://{}{place}/hls/mp3/index.m3u8", server.addr);
    let ours = tokio::task::spawn_blocking(move || ffmpeg(&address, &["-live_start_index", "0"])).await.unwrap();
    let alike = alike(&ours[..5 * 48_000], &theirs);
    assert!(alike.iter().all(|alike| *alike > 0.98), "{alike:?}");
    // What was made then is made now, byte for byte where the stream begins.
    let again = fetched(&server, &beside(&early, "0.m4s")).await.body().await;
    assert!(again == first, "{} and {} bytes", again.len(), first.len());
}

/// Decodes a file.
pub(super) fn decoded(file: &[u8]) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sound");
    std::fs::write(&path, file).unwrap();
    ffmpeg(path.to_str().unwrap(), &[])
}

/// Decodes what an address or a file has, to 48 kHz mono; ffmpeg must not complain.
fn ffmpeg(input: &str, options: &[&str]) -> Vec<f32> {
    let output = Command::new("ffmpeg")
        .args(["-v", "warning"])
        .args(options)
        .args(["-i", input, "-ac", "1", "-ar", "48000", "-f", "f32le", "-"])
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg is installed");
    let complaints = String::from_utf8_lossy(&output.stderr);
    // Packed audio it dates by the segment that it reads, some frames ahead of the one that it
    // decodes.
    let usual = |line: &&str| {
        line.contains("non monotonically increasing dts") || line.contains("Estimating duration from bitrate")
    };
    let complaints: Vec<_> = complaints.lines().filter(|line| !usual(line)).collect();
    assert!(output.status.success() && complaints.is_empty(), "ffmpeg: {complaints:?}");
    output.stdout.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// How alike two sounds are, 0 to 1, within a second each.
pub(super) fn alike(ours: &[f32], theirs: &[f32]) -> Vec<f32> {
    let power = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let seconds = ours.chunks(48_000).zip(theirs.chunks(48_000));
    seconds.map(|(a, b)| power(a, b) / (power(a, a) * power(b, b)).sqrt().max(1e-9)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_hears_the_same_by_hls_as_by_ogg() {
    let server = start().await;
    let place = created(&server, r#"{"prompts": ["a"], "seconds": 13}"#).await;
    // The stream begins with its first listener, who hears all of it.
    let mut ogg = get(server.addr, &format!("{place}/audio.ogg")).await;
    for rendition in ["opus", "mp3"] {
        let (addr, address) = (server.addr, joined(&server, &place, rendition).await);
        tokio::spawn(async move {
            while get(addr, &address).await.status == 200 {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }
    let theirs = decoded(&ogg.body().await);
    assert_eq!(theirs.len(), 13 * 48_000);
    for (address, rendition) in [("opus/index", "opus"), ("mp3/index", "mp3"), ("master", "opus")] {
        // Whoever came a moment later hears it from a later segment on, at the same media time.
        let first = playlist(&server, &format!("{place}/hls/{rendition}/index.m3u8")).await.sequence as usize;
        let theirs = &theirs[first * 144_000..];
        let url = format!("http://{}{place}/hls/{address}.m3u8", server.addr);
        let ours = tokio::task::spawn_blocking(move || ffmpeg(&url, &["-live_start_index", "0"])).await.unwrap();
        let longer = ours.len() as i64 - theirs.len() as i64;
        assert!((0..2400).contains(&longer), "{address} from segment {first} on: {longer} samples too long");
        let alike = alike(&ours[..theirs.len()], theirs);
        assert!(alike.iter().all(|alike| *alike > 0.98), "{address} from segment {first} on: {alike:?}");
    }
}
