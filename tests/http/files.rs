//! Finished files: parts of them, what a client has already, and the same bytes each time.

use std::time::Duration;

use super::client::{Answer, call, get, send};
use super::server::{Server, start, start_on};
use continuo::audio::decode;
use continuo::engine::standin::Standin;
use continuo::pcm::Pcm;
use continuo::station::StationConfig;
use continuo::units::SampleRate;

/// A session with two seconds of sound; gives the beginning of its files' addresses.
async fn session(server: &Server) -> String {
    let pcm = (0..88_200).map(|n| (n as f32 * 0.02).sin() * 0.3).collect();
    let wav = Pcm { pcm, channels: 1, rate: SampleRate(44_100) }.wav();
    let head = format!("POST /v1/sessions HTTP/1.1\nContent-Type: audio/wav\nContent-Length: {}", wav.len());
    let view = send(server.addr, &head, &wav).await.json().await;
    format!("/v1/sessions/{}/audio.", view["id"].as_str().unwrap())
}

async fn asked(server: &Server, method: &str, path: &str, headers: &str) -> Answer {
    send(server.addr, &format!("{method} {path} HTTP/1.1\n{headers}"), b"").await
}

fn formats() -> impl Iterator<Item = &'static str> {
    ["wav", "flac", "ogg", "mp3"].into_iter().filter(|format| *format != "mp3" || cfg!(feature = "mp3"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_is_sent_in_parts_that_make_up_the_whole() {
    let server = start().await;
    let audio = session(&server).await;
    for format in formats() {
        let path = format!("{audio}{format}");
        // Asked for the first time: converted for two bytes of it.
        let mut probe = asked(&server, "GET", &path, "Range: bytes=0-1").await;
        let (range, two) = (probe.header("content-range").unwrap().to_owned(), probe.body().await);
        let mut answer = get(server.addr, &path).await;
        assert_eq!((answer.status, answer.header("accept-ranges")), (200, Some("bytes")));
        let whole = answer.body().await;
        assert_eq!((probe.status, range, &two[..]), (206, format!("bytes 0-1/{}", whole.len()), &whole[..2]));
        assert_eq!(answer.header("content-length").unwrap(), whole.len().to_string());
        for (range, expected) in [
            ("bytes=100-", &whole[100..]),
            ("bytes=-100", &whole[whole.len() - 100..]),
            ("bytes=10-19", &whole[10..20]),
            ("bytes=-9999999", &whole[..]),
        ] {
            let mut part = asked(&server, "GET", &path, &format!("Range: {range}")).await;
            assert_eq!((part.status, &part.body().await[..]), (206, expected), "{format} {range}");
        }
        for several in ["bytes=0-0,2-2", "bytes=5-4", "seconds=1-2"] {
            let mut all = asked(&server, "GET", &path, &format!("Range: {several}")).await;
            assert_eq!((all.status, all.body().await == whole), (200, true), "{format} {several}");
        }
        let mut beyond = asked(&server, "GET", &path, &format!("Range: bytes={}-", whole.len())).await;
        assert_eq!(
            (beyond.status, beyond.header("content-range").unwrap()),
            (416, &*format!("bytes */{}", whole.len()))
        );
        beyond.problem().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_belongs_to_the_bytes_that_its_tag_names() {
    let server = start().await;
    let path = format!("{}flac", session(&server).await);
    let mut answer = get(server.addr, &path).await;
    let (tag, whole) = (answer.header("etag").unwrap().to_owned(), answer.body().await);
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag} is a strong tag");
    for (condition, status) in [(tag.clone(), 206), (format!("W/{tag}"), 200), ("\"another\"".to_owned(), 200)] {
        let headers = format!("Range: bytes=0-9\nIf-Range: {condition}");
        assert_eq!(asked(&server, "GET", &path, &headers).await.status, status, "{condition}");
    }
    let known = asked(&server, "GET", &path, &format!("If-None-Match: \"x\", {tag}")).await;
    assert_eq!((known.status, known.header("etag")), (304, Some(&*tag)));
    assert_eq!(known.header("content-length"), None);
    for (condition, status) in [(tag.clone(), 200), ("*".to_owned(), 200), ("\"another\"".to_owned(), 412)] {
        assert_eq!(asked(&server, "GET", &path, &format!("If-Match: {condition}")).await.status, status);
    }
    // Another sound of the session has another tag.
    let place = path.trim_end_matches("/audio.flac");
    assert_eq!(call(server.addr, "POST", &format!("{place}/crop"), r#"{"to": 1}"#).await.status, 200);
    let mut shorter = asked(&server, "GET", &path, &format!("If-None-Match: {tag}")).await;
    assert_ne!(shorter.header("etag"), Some(&*tag));
    assert!(shorter.status == 200 && shorter.body().await.len() < whole.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn head_makes_no_conversion_and_tells_the_length_of_what_was_made() {
    let server = start().await;
    let audio = session(&server).await;
    let stored = asked(&server, "HEAD", &format!("{audio}wav"), "").await;
    assert_eq!(stored.header("content-length").unwrap(), (44 + 176_400).to_string());
    let path = format!("{audio}ogg");
    let before = asked(&server, "HEAD", &path, "").await;
    assert_eq!((before.status, before.header("content-length")), (200, None));
    assert_eq!(before.header("content-type"), Some("audio/ogg"));
    let whole = get(server.addr, &path).await.body().await;
    let after = asked(&server, "HEAD", &path, "Range: bytes=0-1").await;
    assert_eq!((after.status, after.header("content-length").unwrap()), (200, &*whole.len().to_string()));
    assert_eq!(after.header("etag"), before.header("etag"));
    assert_eq!(get(server.addr, &path).await.body().await, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_still_grows_has_no_parts_and_its_end_has() {
    let slow = Standin::default().with_step_time(Duration::from_millis(2));
    let server = start_on(slow, StationConfig::default(), |_| {}).await;
    let made = call(server.addr, "POST", "/v1/clips", r#"{"prompt": "a", "seconds": 3}"#).await.json().await;
    let place = format!("/v1/clips/{}", made["id"].as_str().unwrap());
    let live = format!("{place}/live.wav");
    let head = asked(&server, "HEAD", &live, "").await;
    assert_eq!((head.status, head.header("accept-ranges"), head.header("etag")), (200, Some("none"), None));
    let mut growing = asked(&server, "GET", &live, "Range: bytes=0-1").await;
    assert_eq!((growing.status, growing.header("accept-ranges")), (200, Some("none")));
    assert!(growing.body().await.len() > 44 + 3 * 32_000);
    get(server.addr, &format!("{place}/events")).await.text().await;
    let mut finished = asked(&server, "GET", &live, "Range: bytes=0-1").await;
    assert_eq!((finished.status, &finished.body().await[..]), (206, &b"RI"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_an_end_tells_its_length_in_its_wav_header() {
    let server = start().await;
    let file = get(server.addr, "/generate?prompt=a&seconds=2.5&format=wav").await.body().await;
    let size = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((size(40), size(4)), (file.len() - 44, file.len() - 8));
    assert!((decode(file).unwrap().seconds() - 2.5).abs() < 0.001);
    let endless = get(server.addr, "/generate?prompt=a&format=wav").await.some(44).await;
    assert_eq!(endless[40..44], [0xff; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_late_is_told_what_is_left() {
    let server = start().await;
    let made = call(server.addr, "POST", "/v1/streams", r#"{"prompts": ["a"], "seconds": 4}"#).await.json().await;
    let path = format!("/v1/streams/{}/audio.wav", made["id"].as_str().unwrap());
    let mut first = get(server.addr, &path).await;
    first.some(44 + 3 * 96_000).await;
    let late = get(server.addr, &path).await.body().await;
    let told = u32::from_le_bytes(late[40..44].try_into().unwrap()) as usize;
    assert_eq!(told, late.len() - 44);
    assert!(told < 4 * 96_000, "{told} bytes are less than the whole");
}
