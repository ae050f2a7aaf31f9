//! One budget of memory for all requests: what does not fit waits a moment and is told to come
//! back.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::client::{answer, call, get, send};
use super::server::{start, start_with, until};
use continuo::budget::Budget;
use continuo::pcm::Pcm;
use continuo::station::StationConfig;
use continuo::units::SampleRate;

const MIB: usize = 1 << 20;

fn wav(seconds: usize) -> Vec<u8> {
    let pcm = (0..seconds * 48_000).map(|n| (n as f32 * 0.02).sin() * 0.3).collect();
    Pcm { pcm, channels: 1, rate: SampleRate(48_000) }.wav()
}

#[tokio::test(flavor = "multi_thread")]
async fn withheld_uploads_take_no_more_than_the_budget_and_others_are_told_to_come_back() {
    let server = start_with(StationConfig::default(), |app| app.budget = Budget::new(8 * MIB as u64)).await;
    let mut listener = get(server.addr, "/generate?prompt=a").await;
    let mut withheld = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        let head = format!("POST /v1/sessions HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", 90 * MIB);
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&vec![0; 7 * MIB / 2]).await.unwrap();
        withheld.push(socket);
    }
    until(|| server.app.budget.free() < 2 * MIB as u64).await;
    // With a length and without, whatever the route.
    let sound = wav(30);
    let head = format!("POST /crop-audio HTTP/1.1\nContent-Length: {}", sound.len());
    let mut refused = send(server.addr, &head, &sound).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert!(refused.text().await.contains("memory"));
    let chunked = [format!("{:x}\r\n", sound.len()).as_bytes(), &sound, b"\r\n0\r\n\r\n"].concat();
    let mut refused = send(server.addr, "POST /v1/sessions HTTP/1.1\nTransfer-Encoding: chunked", &chunked).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    refused.problem().await;
    // However much is still to come: who cannot write to the end does not read the answer.
    let head = format!("POST /v1/sessions HTTP/1.1\nContent-Length: {}", 60 * MIB);
    assert_eq!(send(server.addr, &head, &vec![0; 60 * MIB]).await.status, 503);
    // Small requests and listeners go on.
    assert_eq!(call(server.addr, "POST", "/v1/streams", r#"{"prompts": ["a"]}"#).await.status, 201);
    listener.some(100_000).await;
    drop(withheld);
    until(|| server.app.budget.free() == server.app.budget.bytes()).await;
    let head = format!("POST /v1/sessions HTTP/1.1\nContent-Length: {}", sound.len());
    assert_eq!(send(server.addr, &head, &sound).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_body_has_besides_its_fields_is_read_over() {
    let server = start().await;
    let numbers = "0,".repeat(4 * MIB);
    let nests = format!("{}{}", "[".repeat(MIB), "]".repeat(MIB));
    let fields: String = (0..200_000).map(|n| format!("\"f{n}\":[],")).collect();
    for (path, status) in [
        ("/crop-audio", 500..=500),
        ("/combine-audio", 500..=500),
        ("/api/juce/process_audio", 400..=400),
        ("/transform", 400..=400),
        ("/continue", 400..=400),
        ("/generate/loop", 400..=400),
        ("/v1/clips", 413..=413),
    ] {
        for body in [
            format!(r#"{{"audioData":[{numbers}0]}}"#),
            format!(r#"{{"audio_data":[{numbers}0]}}"#),
            format!(r#"{{"x":{nests}}}"#),
            format!("{{{fields}\"end\":1}}"),
        ] {
            let answer = call(server.addr, "POST", path, &body).await;
            let client = (400..=422).contains(&answer.status);
            assert!(client || status.contains(&answer.status), "{path}: {}", answer.status);
        }
    }
    until(|| server.app.budget.free() == server.app.budget.bytes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_with_thousands_of_parts_is_refused() {
    let server = start().await;
    let part = "--B\r\nContent-Disposition: form-data; name=\"seed\"\r\n\r\n1\r\n";
    let form = format!("{}--B--\r\n", part.repeat(5000));
    for path in ["/v1/clips", "/transform", "/generate/loop"] {
        let head = format!(
            "POST {path} HTTP/1.1\nContent-Type: multipart/form-data; boundary=B\nContent-Length: {}",
            form.len()
        );
        let mut refused = send(server.addr, &head, form.as_bytes()).await;
        let text = refused.text().await;
        assert!(refused.status == 400 && text.contains("128 parts"), "{path}: {} {text}", refused.status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_holds_no_file_in_memory() {
    let server = start().await;
    let sound = wav(120);
    let head = format!("POST /v1/sessions?session=slow HTTP/1.1\nContent-Length: {}", sound.len());
    assert_eq!(send(server.addr, &head, &sound).await.status, 201);
    let free = server.app.budget.free();
    let mut readers = Vec::new();
    for path in ["/v1/sessions/slow/audio.wav", "/api/juce/poll_status/slow", "/api/latest_generated_audio/slow"] {
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await.unwrap();
        let answer = answer(socket).await;
        assert_eq!(answer.status, 200, "{path}");
        readers.push(answer);
    }
    assert_eq!(server.app.budget.free(), free);
    let [file, polled, latest] = &mut readers[..] else { unreachable!() };
    assert!(file.body().await == sound);
    let (polled, latest) = (polled.json().await, latest.json().await);
    assert_eq!(polled["audio_data"], latest["audio_data"]);
    assert_eq!(polled["audio_data"].as_str().unwrap().len(), sound.len().div_ceil(3) * 4);
}
