//! `GET /generate`: what players open.

use continuo::station::{Idle, StreamSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{PATIENCE, get, send};
use super::probe;
use super::server::{start, until};

#[tokio::test(flavor = "multi_thread")]
async fn every_format_decodes_to_the_length_asked_for() {
    let server = start().await;
    for (format, kind, codec, rate) in
        [("ogg", "audio/ogg", "opus", 48_000), ("mp3", "audio/mpeg", "mp3", 0), ("wav", "audio/wav", "pcm_s16le", 0)]
    {
        let mut answer = get(server.addr, &format!("/generate?prompt=a&seconds=1.5&format={format}")).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)));
        let sound = probe::decode(answer.body().await).await;
        assert_eq!(sound.codec, codec);
        assert!(rate == 0 || sound.rate == rate, "{format}: {} Hz", sound.rate);
        assert!((1.4..1.7).contains(&sound.seconds), "{format}: {} s", sound.seconds);
        assert!(sound.peak > 0.01 && sound.peak <= 1.0, "{format}: peak {}", sound.peak);
    }
    server.until_voices(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_not_cached_and_tells_its_id() {
    let server = start().await;
    let mut answer = get(server.addr, "/generate?prompt=lofi%20piano&prompt=r%26b+slow&weight=1&weight=3&seed=5").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), Some("no-store, no-transform"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert!(answer.some(4).await.starts_with(b"OggS"));
    let id = answer.header("x-stream-id").unwrap().to_owned();
    let info = get(server.addr, &format!("/v1/streams/{id}")).await.json().await;
    assert_eq!(info["prompts"][0]["text"], "lofi piano");
    assert_eq!(info["prompts"][1]["text"], "r&b slow");
    assert_eq!(info["prompts"][1]["weight"], 3.0);
    assert_eq!(info["sampling"]["seed"], 5);
    assert_eq!(info["listeners"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_frees_its_voice_within_a_second() {
    let server = start().await;
    let mut answer = get(server.addr, "/generate?prompt=a&format=mp3").await;
    answer.some(1).await;
    assert_eq!(server.voices(), 1);
    drop(answer);
    let took = server.until_voices(0).await;
    assert!(took.as_secs_f64() < 1.0, "{took:?}");
    until(|| server.app.station.list().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_have_two_streams() {
    let server = start().await;
    let mut first = get(server.addr, "/generate?prompt=a").await;
    let mut second = get(server.addr, "/generate?prompt=b").await;
    assert_ne!(first.header("x-stream-id"), second.header("x-stream-id"));
    first.some(2000).await;
    second.some(2000).await;
    assert_eq!(server.voices(), 2);
    drop(first);
    server.until_voices(1).await;
    second.some(2000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_tells_the_type_and_starts_nothing() {
    let server = start().await;
    let mut answer = send(server.addr, "HEAD /generate?prompt=a&format=mp3 HTTP/1.1\nConnection: close", b"").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("audio/mpeg")));
    assert!(answer.closed().await);
    assert_eq!(server.voices(), 0);
    assert_eq!(send(server.addr, "HEAD /generate?prompt=a&format=x HTTP/1.1", b"").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browsers_range_gets_the_whole() {
    let server = start().await;
    let mut answer = send(server.addr, "GET /generate?prompt=a HTTP/1.1\nRange: bytes=0-", b"").await;
    assert_eq!((answer.status, answer.header("accept-ranges")), (200, Some("none")));
    answer.some(100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_is_joined_by_its_name() {
    let server = start().await;
    let spec = StreamSpec {
        name: Some("late night".into()),
        model: None,
        prompts: vec!["jazz".into()],
        sampling: Default::default(),
        seconds: None,
        max_still: None,
        wait: None,
        keep: false,
        idle: Idle::Pause,
    };
    let stream = server.app.station.create(spec).await.unwrap();
    let mut listeners = Vec::new();
    for _ in 0..3 {
        let mut answer = get(server.addr, "/generate?station=late+night").await;
        assert_eq!(answer.header("x-stream-id"), Some(stream.id()));
        answer.some(500).await;
        listeners.push(answer);
    }
    assert_eq!((server.voices(), stream.info().listeners), (1, 3));
    let mut answer = get(server.addr, "/generate?station=nobody").await;
    assert_eq!(answer.status, 404);
    assert!(answer.problem().await.contains("`nobody`"));
    let mut answer = get(server.addr, "/generate?station=late+night&seed=1").await;
    assert_eq!(answer.status, 400);
    assert!(answer.problem().await.contains("`seed`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_answered_with_a_sentence_that_names_them() {
    let server = start().await;
    for (query, status, word) in [
        ("", 400, "prompt="),
        ("?prompt=a&tempo=120", 400, "`tempo`"),
        ("?prompt=a&seed=minus", 400, "`seed`"),
        ("?prompt=a&format=flac", 400, "ogg, mp3 or wav"),
        ("?prompt=a&temperature=99", 422, "`temperature`"),
        ("?prompt=a&guidance=-1", 422, "`guidance`"),
        ("?prompt=a&seconds=0", 422, "`seconds`"),
        ("?prompt=a&kbps=1", 422, "`kbps`"),
        ("?prompt=a&weight=-1", 422, "weight"),
        ("?prompt=a&model=nobody/none", 422, "nobody/none"),
    ] {
        let mut answer = get(server.addr, &format!("/generate{query}")).await;
        let sentence = answer.problem().await;
        assert_eq!(answer.status, status, "{query}: {sentence}");
        assert!(sentence.contains(word) && sentence.ends_with('.'), "{query}: {sentence}");
    }
    assert_eq!(server.voices(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mp3_player_gets_titles_when_it_asks_for_them() {
    let server = start().await;
    let mut answer =
        send(server.addr, "GET /generate?prompt=slow+jazz&format=mp3 HTTP/1.1\nIcy-MetaData: 1", b"").await;
    let interval: usize = answer.header("icy-metaint").unwrap().parse().unwrap();
    assert_eq!(answer.header("icy-br"), Some("128"));
    let bytes = answer.some(interval + 1 + 255 * 16).await;
    let length = usize::from(bytes[interval]) * 16;
    let title = String::from_utf8_lossy(&bytes[interval + 1..interval + 1 + length]).into_owned();
    assert!(title.starts_with("StreamTitle='") && title.contains("slow jazz"), "{title}");
    let plain = get(server.addr, "/generate?prompt=a&format=mp3").await;
    assert_eq!(plain.header("icy-metaint"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_player_that_speaks_http_1_0_gets_plain_bytes() {
    let server = start().await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    socket.write_all(b"GET /generate?prompt=a&seconds=1&format=wav HTTP/1.0\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut bytes))
        .await
        .expect("the end of the stream closes the connection")
        .unwrap();
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&bytes[..split]).to_lowercase();
    assert!(head.starts_with("http/1.0 200") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(&bytes[split + 4..split + 8], b"RIFF");
}
