//! What was heard of a stream: its history, recordings, listeners in the past, forks and clips.

use std::path::Path;
use std::sync::Arc;

use continuo::audio::hls::Rendition;
use continuo::audio::{Format, decode};
use continuo::engine::{Engine, EngineConfig, MusicGenBackend, SamplingPatch};
use continuo::model::weights::Target;
use continuo::model::{Files, ModelError, MusicGen};
use continuo::station::hls::Position;
use continuo::station::{Idle, Listen, Replay, Station, StationConfig, Stream, StreamSpec};
use continuo::units::ModelId;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::client::{PATIENCE, call, get, send};
use super::hls::{alike, decoded};
use super::server::{Server, start_with};

const RATE: usize = 48_000;
/// Bytes before the samples of a WAV file.
const HEADER: usize = 44;

/// A server whose streams have eight seconds behind them as soon as somebody listens.
async fn start() -> Server {
    start_with(StationConfig { burst: 8.0, ..StationConfig::default() }, |_| {}).await
}

/// A stream that somebody hears, its path, and the samples of its first eight seconds.
async fn heard(server: &Server, body: &str) -> (String, Vec<i16>, super::client::Answer) {
    let mut created = call(server.addr, "POST", "/v1/streams", body).await;
    assert_eq!(created.status, 201);
    let place = format!("/v1/streams/{}", created.json().await["id"].as_str().unwrap());
    let mut listener = get(server.addr, &format!("{place}/audio.wav")).await;
    let sound = listener.some(HEADER + 8 * RATE * 2).await;
    until_kept(server, &place, 8.0).await;
    (place, samples(&sound[HEADER..]), listener)
}

async fn history(server: &Server, place: &str) -> Value {
    get(server.addr, &format!("{place}/history")).await.json().await
}

/// Waits until so much is written down.
async fn until_kept(server: &Server, place: &str, seconds: f64) {
    let wait = async { while history(server, place).await["to"].as_f64().unwrap() < seconds {} };
    timeout(PATIENCE, wait).await.expect("the journal grows");
}

fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_what_was_heard_to_the_sample_in_every_format() {
    let server = start().await;
    let (place, sound, _listener) = heard(&server, r#"{"name": "Dusk & Dawn", "prompts": ["a"]}"#).await;
    let path = format!("{place}/recording?from=0&to=6.50002");
    let frames = (6.50002 * RATE as f64).round() as usize;
    let mut wav = get(server.addr, &path).await;
    assert_eq!((wav.status, wav.header("content-type").unwrap()), (200, "audio/wav"));
    let name = wav.header("content-disposition").unwrap().to_owned();
    assert!(name.starts_with("attachment; filename=\"Dusk---Dawn-20") && name.ends_with(".wav\""), "{name}");
    let (tag, length) = (wav.header("etag").unwrap().to_owned(), wav.header("content-length").unwrap().to_owned());
    let file = wav.body().await;
    assert_eq!((file.len(), length), (HEADER + 2 * frames, (HEADER + 2 * frames).to_string()));
    assert!(samples(&file[HEADER..]) == sound[..frames], "the recording differs from what was heard");

    let mut part = send(server.addr, &format!("GET {path} HTTP/1.1\nRange: bytes=1000-1999"), b"").await;
    assert_eq!((part.status, part.body().await), (206, file[1000..2000].to_vec()));
    let known = send(server.addr, &format!("GET {path} HTTP/1.1\nIf-None-Match: {tag}"), b"").await;
    assert_eq!(known.status, 304);
    let head = send(server.addr, &format!("HEAD {path} HTTP/1.1"), b"").await;
    assert_eq!(head.header("content-length"), Some(file.len().to_string().as_str()));

    for format in Format::ALL {
        let file = get(server.addr, &format!("{path}&format={format}")).await.body().await;
        let pcm = decode(file).unwrap();
        assert_eq!((pcm.pcm.len(), pcm.rate.0), (frames, 48_000), "{format}");
        if format == Format::FLAC {
            let exact = |sample: &f32| (sample * 32_768.0).round() as i16;
            assert!(pcm.pcm.iter().map(exact).eq(sound[..frames].iter().copied()), "FLAC loses nothing");
        }
    }
    for (query, word) in [
        ("from=3&to=2", "`to`"),
        ("from=0&to=9000", "at most 7200 s"),
        ("from=x", "`from` is `x`"),
        ("format=midi", "`format`"),
        ("from=7&to=3600", "holds the stream from 0.00 to"),
    ] {
        let mut wrong = get(server.addr, &format!("{place}/recording?{query}")).await;
        assert!((400..500).contains(&wrong.status), "{query}");
        let sentence = wrong.problem().await;
        assert!(sentence.contains(word), "{query}: {sentence}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_time_names_the_moment_that_was_played_then() {
    let server = start().await;
    let (place, sound, _listener) = heard(&server, r#"{"prompts": ["a"]}"#).await;
    let told = history(&server, &place).await;
    let plays = told["events"].as_array().unwrap().iter().find(|event| event["type"] == "play").unwrap().clone();
    assert_eq!(plays["at"], 0.0);
    let time = plays["time"].as_str().unwrap();
    let file = get(server.addr, &format!("{place}/recording?from={time}&to=2")).await.body().await;
    let from = sound.len().min(2 * RATE) - (file.len() - HEADER) / 2;
    // The time is told in whole milliseconds.
    assert!(from <= 48, "{from}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_in_the_past_hears_what_was_heard_there() {
    let server = start().await;
    let (place, sound, _listener) = heard(&server, r#"{"name": "dusk", "prompts": ["a"]}"#).await;
    for path in [format!("{place}/audio.wav?at=0"), "/generate?station=dusk&format=wav&from=-3600".into()] {
        let mut shifted = get(server.addr, &path).await;
        assert_eq!(shifted.status, 200, "{path}");
        let bytes = shifted.some(HEADER + 4 * RATE).await;
        let heard = samples(&bytes[HEADER..]);
        assert!(heard[..2 * RATE] == sound[..2 * RATE], "{path} is not what was heard");
    }
    for format in ["ogg", "mp3"] {
        let mut shifted = get(server.addr, &format!("{place}/audio.{format}?from=-5&latency=low")).await;
        assert!(shifted.some(3000).await.len() >= 3000);
    }
    let mut both = get(server.addr, &format!("{place}/audio.ogg?from=-5&at=1")).await;
    assert_eq!(both.status, 400);
    assert!(both.problem().await.contains("`from` and `at`"));
    let mut beyond = get(server.addr, &format!("{place}/audio.ogg?at=5000")).await;
    assert_eq!(beyond.status, 422);
    assert!(beyond.problem().await.contains("The journal holds"));
    let mut own = get(server.addr, "/generate?prompt=a&from=-5").await;
    assert_eq!(own.status, 400);
    assert!(own.problem().await.contains("station=NAME"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_seeks_back_and_to_the_live_edge() {
    let server = start().await;
    let (place, sound, _listener) = heard(&server, r#"{"prompts": ["a"]}"#).await;
    let socket = TcpStream::connect(server.addr).await.unwrap();
    let address = format!("ws://test{place}/ws?format=wav");
    let (mut socket, _) = tokio_tungstenite::client_async(address, socket).await.unwrap();
    let mut past = Vec::new();
    let talk = async {
        socket.send(Message::text(r#"{"type": "seek", "at": 0, "id": "back"}"#)).await.unwrap();
        let mut told = false;
        while past.len() < HEADER + 2 * RATE {
            match socket.next().await.unwrap().unwrap() {
                Message::Binary(bytes) if told => past.extend_from_slice(&bytes),
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(text.as_str()).unwrap();
                    if message["id"] == "back" {
                        assert_eq!((&message["type"], &message["at"]), (&json!("ack"), &json!(0.0)));
                        told = true;
                    }
                }
                _ => {}
            }
        }
        for (command, word) in [
            (r#"{"type": "seek", "at": 99999}"#, "The journal holds"),
            (r#"{"type": "seek", "to": 5}"#, "`to`"),
            (r#"{"type": "seek", "id": 3}"#, "\"type\":\"ack\""),
        ] {
            socket.send(Message::text(command)).await.unwrap();
            loop {
                if let Message::Text(text) = socket.next().await.unwrap().unwrap()
                    && text.as_str().contains(word)
                {
                    break;
                }
            }
        }
    };
    timeout(PATIENCE, talk).await.expect("it answers");
    assert!(past.starts_with(b"RIFF"));
    assert!(samples(&past[HEADER..])[..RATE] == sound[..RATE]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_goes_on_from_a_moment_with_what_was_asked_for_then() {
    let server = start().await;
    let (place, _, mut listener) = heard(&server, r#"{"prompts": ["a"], "guidance": 2.5}"#).await;
    let ack = call(server.addr, "PATCH", &place, r#"{"prompts": ["rain"]}"#).await.json().await;
    let at = ack["at"].as_f64().unwrap();
    listener.some(2 * RATE * 5).await;
    until_kept(&server, &place, at + 1.0).await;
    for (body, prompt) in [
        (json!({ "from": 4.0 }), "a"),
        (json!({ "from": at + 0.5, "name": "other" }), "rain"),
        (json!({ "from": "-1", "prompts": ["sun"] }), "sun"),
    ] {
        let mut fork = call(server.addr, "POST", &format!("{place}/fork"), &body.to_string()).await;
        assert_eq!(fork.status, 201, "{body}");
        let fork = fork.json().await;
        assert_eq!((&fork["prompts"][0]["text"], &fork["sampling"]["guidance"]), (&json!(prompt), &json!(2.5)));
        let mut sound = get(server.addr, fork["urls"]["ogg"].as_str().unwrap()).await;
        assert!(sound.some(3000).await.starts_with(b"OggS"));
    }
    let told = history(&server, &place).await;
    let events = told["events"].as_array().unwrap();
    let asked: Vec<_> = events.iter().filter(|event| event["prompts"].is_array()).collect();
    assert_eq!((&asked[0]["type"], &asked[1]["type"]), (&json!("begin"), &json!("steer")));
    assert_eq!(asked[1]["prompts"][0]["text"], "rain");
    assert!((asked[1]["at"].as_f64().unwrap() - at).abs() < 1e-4);
    let mut early = call(server.addr, "POST", &format!("{place}/fork"), r#"{"from": 99999}"#).await;
    assert_eq!(early.status, 422);
    early.problem().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_stream_becomes_a_session_of_the_studio() {
    let server = start().await;
    let (place, sound, _listener) = heard(&server, r#"{"prompts": ["a"]}"#).await;
    let mut cut = call(server.addr, "POST", &format!("{place}/clip"), r#"{"from": 0, "to": 2.5}"#).await;
    assert_eq!(cut.status, 201);
    let view = cut.json().await;
    assert_eq!((&view["seconds"], &view["title"]), (&json!(2.5), &json!("a")));
    let session = view["url"].as_str().unwrap();
    let file = get(server.addr, &format!("{session}/audio.wav")).await.body().await;
    let pcm = decode(file).unwrap();
    assert!((pcm.seconds() - 2.5).abs() < 1e-3, "{} s", pcm.seconds());
    let power = |pcm: &[f32]| pcm.iter().map(|sample| sample * sample).sum::<f32>() / pcm.len() as f32;
    let theirs: Vec<f32> = sound[..120_000].iter().map(|&sample| f32::from(sample) / 32_768.0).collect();
    assert!((power(&pcm.pcm) / power(&theirs) - 1.0).abs() < 0.02);
    let mut wrong = call(server.addr, "POST", &format!("{place}/clip"), r#"{"from": 0, "to": 0}"#).await;
    assert_eq!(wrong.status, 422);
    wrong.problem().await;
}

/// A stream of a real codec, if a tiny one, with all that a listener got of it.
async fn of_a_tiny_model(seconds: f64, seed: u64) -> (Arc<Station>, Arc<Stream>, Vec<i16>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/musicgen-mono");
    let none = |name: &str| Err(ModelError::NoSuchPlace(name.into()));
    let model = MusicGen::load(&Files::Folder(folder), &none, &Target::new(&candle_core::Device::Cpu)).unwrap();
    let backend = MusicGenBackend::new(ModelId("tiny".into()), model, 1 << 26).unwrap();
    let engine = Engine::start(Box::new(backend), EngineConfig::default()).unwrap();
    let config = StationConfig { burst: seconds, lead: seconds + 2.0, ..StationConfig::default() };
    let station = Station::new(engine, config);
    let spec = StreamSpec {
        name: None,
        model: None,
        prompts: vec!["".into()],
        sampling: SamplingPatch { seed: Some(seed), ..SamplingPatch::default() },
        seconds: None,
        max_still: Some(0.0),
        wait: None,
        keep: false,
        idle: Idle::Pause,
    };
    let stream = station.create(spec).await.unwrap();
    let mut listener = stream.listen(Listen { format: Format::WAV, kbps: 0, low_latency: false }).unwrap();
    let mut sound = Vec::new();
    while sound.len() < HEADER + (seconds * RATE as f64) as usize * 2 {
        sound.extend(timeout(6 * PATIENCE, listener.next()).await.unwrap().unwrap());
    }
    while stream.journal().kept().end < (seconds * RATE as f64) as u64 {
        tokio::task::yield_now().await;
    }
    (station, stream, samples(&sound[HEADER..]))
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_that_is_decoded_from_the_middle_agrees_with_what_was_heard() {
    for seed in [1, 12] {
        let (_station, stream, heard) = of_a_tiny_model(14.0, seed).await;
        for from in [7.0, 9.321, 11.5] {
            let from = (from * RATE as f64) as usize;
            let span = from as u64..(from + 2 * RATE) as u64;
            let mut replay = Replay::open(&stream, span).unwrap();
            let mut again = Vec::new();
            while let Some(block) = replay.next().await.unwrap() {
                again.extend(block);
            }
            assert_eq!(again.len(), 2 * RATE);
            let off = again.iter().zip(&heard[from..]).map(|(a, &b)| (a - f32::from(b) / 32_768.0).abs());
            let off = off.fold(0.0, f32::max);
            // One step, and half a step that comes from the listener's format.
            assert!(off < 1.5 / 32_768.0, "{off} from {from} on, seed {seed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_of_long_ago_is_what_was_heard_then() {
    let (_station, stream, heard) = of_a_tiny_model(14.0, 1).await;
    let heard: Vec<f32> = heard[9 * RATE..12 * RATE].iter().map(|&sample| f32::from(sample) / 32_768.0).collect();
    for rendition in Rendition::built() {
        // Nobody has followed it so far.
        stream.follow("late", rendition).await.unwrap();
        let segment = Position { segment: 3, part: None };
        let segment = stream.presentation().bytes(&stream, rendition, segment).await.unwrap();
        let init = rendition.init(1).unwrap_or_default();
        let sound = decoded(&[&init[..], &segment[..]].concat());
        let alike = alike(&sound[..3 * RATE], &heard);
        // What a codec leaves of noise; of another moment it is nothing alike.
        assert!(alike.iter().all(|alike| *alike > 0.8), "{rendition:?}: {alike:?}");
    }
}
