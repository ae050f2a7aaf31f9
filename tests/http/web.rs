//! The web app's day: a piece from an address, ending with a bar, more of it, and the crop server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use continuo::audio::decode;
use continuo::engine::standin::Standin;
use continuo::pcm::Pcm;
use continuo::station::StationConfig;
use continuo::units::SampleRate;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::client::{PATIENCE, call, get};
use super::juce::{base64, bytes_of};
use super::server::{Server, start, start_on};

fn wav(seconds: usize) -> Vec<u8> {
    // A click every 0.6 s: 100 beats per minute.
    let pcm =
        (0..seconds * 44_100).map(|n| if n % 26_460 < 400 { (n as f32 * 0.3).sin() * 0.8 } else { 0.0 }).collect();
    Pcm { pcm, channels: 1, rate: SampleRate(44_100) }.wav()
}

/// A web server with one file, and how often it was asked.
async fn somewhere(file: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/loop.wav", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", file.len());
            let _ = socket.write_all(head.as_bytes()).await;
            let _ = socket.write_all(&file).await;
        }
    });
    (url, asked)
}

async fn open() -> Server {
    start_on(Standin::default(), StationConfig::default(), |app| app.limits.private_addresses = true).await
}

async fn post(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let mut answer = call(server.addr, "POST", path, &body.to_string()).await;
    (answer.status, answer.json().await)
}

async fn finished(server: &Server, id: &str) -> Value {
    let began = std::time::Instant::now();
    loop {
        let task = get(server.addr, &format!("/tasks/{id}")).await.json().await;
        if task["status"] != "pending" {
            return task;
        }
        assert!(began.elapsed() < 3 * PATIENCE, "{task}");
        assert!(task["audio"].is_null());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn sound(task: &Value) -> Pcm {
    decode(bytes_of(task["audio"].as_str().unwrap())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_is_made_from_an_address_and_continued() {
    let server = open().await;
    let (url, _) = somewhere(wav(40)).await;
    let body = json!({"url": url, "currentTime": 2.5, "model": "standin", "promptLength": 4, "duration": "9-11"});
    let (status, begun) = post(&server, "/web/generate", &body).await;
    assert_eq!(status, 200, "{begun}");
    let id = begun["task_id"].as_str().unwrap().to_owned();
    assert!(id.len() == 24 && id.chars().all(|c| c.is_ascii_hexdigit()));
    let task = finished(&server, &id).await;
    assert_eq!(
        (&task["status"], &task["_id"]["$oid"], &task["timestamp"]),
        (&json!("completed"), &json!(id), &json!(2.5))
    );
    assert_eq!(task["youtube_url"], url);
    let piece = sound(&task);
    assert_eq!((piece.channels, piece.rate.0), (1, 32_000));
    // Four bars of 2.4 s.
    assert!((piece.seconds() - 9.6).abs() < 0.1, "{} s", piece.seconds());
    assert_eq!(get(server.addr, &format!("/progress/{id}")).await.json().await["progress"], 100.0);
    let fetched = get(server.addr, &format!("/fetch-result/{id}")).await.json().await;
    assert_eq!((&fetched["status"], &fetched["audio"]), (&json!("completed"), &task["audio"]));

    let more = json!({"task_id": id, "model": "standin", "audio": task["audio"]});
    assert_eq!(post(&server, "/continue", &more).await, (200, json!({"task_id": id})));
    let longer = sound(&finished(&server, &id).await);
    assert_eq!(longer.frames(), piece.frames() - 6 * 32_000 + 30 * 32_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_addresses_times_and_tasks_are_refused() {
    let server = open().await;
    let (url, asked) = somewhere(wav(5)).await;
    for (body, word) in [
        (json!({"url": ""}), "Invalid YouTube URL"),
        (json!({"url": "file:///etc/passwd"}), "Invalid YouTube URL"),
        (json!({"url": "https://youtube.com/watch?v=short"}), "Invalid YouTube URL"),
        (json!({"url": url, "currentTime": -1}), "Invalid timestamp"),
        (json!({"url": url, "duration": "long"}), "duration"),
        (json!({"url": url, "promptLength": 17}), "promptLength"),
    ] {
        let (status, answer) = post(&server, "/generate", &body).await;
        assert!(status >= 400 && answer["error"].as_str().unwrap().contains(word), "{body} {answer}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nothing was fetched for what could not work");
    let (status, late) = post(&server, "/generate", &json!({"url": url, "currentTime": 99})).await;
    assert_eq!((status, &late["error"]), (400, &json!("Timestamp is beyond video duration")));
    let (nothing, _) = somewhere(b"no music".to_vec()).await;
    let (status, silent) = post(&server, "/generate", &json!({ "url": nothing })).await;
    assert!(status == 400 && silent["error"].as_str().unwrap().starts_with("Error accessing video: "), "{silent}");
    for (path, status) in [
        ("/tasks/0123456789abcdef01234567", 404),
        ("/tasks/x", 400),
        ("/fetch-result/0123456789abcdef01234567", 404),
        ("/fetch-result/x", 400),
    ] {
        assert_eq!(get(server.addr, path).await.status, status, "{path}");
    }
    assert_eq!(get(server.addr, "/progress/x").await.json().await["progress"], 0.0);
    assert_eq!(post(&server, "/continue", &json!({"task_id": "x", "model": "m", "audio": ""})).await.0, 400);
    assert_eq!(get(server.addr, "/v1/sessions").await.json().await["sessions"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_does_not_fetch_from_its_own_network() {
    let server = start().await;
    let (url, asked) = somewhere(wav(5)).await;
    let (status, answer) = post(&server, "/generate", &json!({ "url": url })).await;
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("private network"), "{answer}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg(feature = "mp3")]
async fn the_crop_server_answers_with_the_bare_text_of_an_mp3() {
    let server = start().await;
    let clip = base64(&wav(4));
    let body = json!({"audioData": clip, "end": "00:00:02"}).to_string();
    let mut answer = call(server.addr, "POST", "/crop-audio", &body).await;
    assert!(answer.header("content-type").unwrap().starts_with("text/html"));
    let cut = decode(bytes_of(&answer.text().await)).unwrap();
    assert!((cut.seconds() - 2.0).abs() < 0.1 && cut.rate.0 == 44_100);
    let body = json!({"audioClips": [clip, clip]}).to_string();
    let both = call(server.addr, "POST", "/combine-audio", &body).await.text().await;
    assert!((decode(bytes_of(&both)).unwrap().seconds() - 8.0).abs() < 0.1);
    for (path, body, status, text) in [
        ("/crop-audio", "{}", 400, "Error cropping audio"),
        ("/combine-audio", r#"{"audioClips": ["x"]}"#, 400, "Server error"),
        ("/crop-audio", "{", 400, "Error cropping audio"),
    ] {
        let mut answer = call(server.addr, "POST", path, body).await;
        assert_eq!(answer.status, status, "{path} {body}");
        assert!(answer.text().await.starts_with(text));
    }
}

/// A stand-in for yt-dlp that writes what it was called with beside itself, then does `script`.
#[cfg(unix)]
fn downloader(folder: &std::path::Path, script: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let program = folder.join("yt-dlp");
    let text = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > '{0}/arguments'\n\
         while [ $# -gt 0 ]; do [ \"$1\" = -o ] && template=$2; shift; done\n\
         file=$(printf %s \"$template\" | sed 's/%(ext)s/wav/')\n{script}\n",
        folder.display()
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// What is left of downloads in the temporary folder.
#[cfg(unix)]
fn scraps(folder: &std::path::Path) -> bool {
    let arguments = std::fs::read_to_string(folder.join("arguments")).unwrap();
    let template = arguments.lines().find(|line| line.ends_with("sound.%(ext)s")).unwrap();
    std::path::Path::new(template).parent().unwrap().exists()
}

#[tokio::test(flavor = "multi_thread")]
#[cfg(unix)]
async fn a_video_is_fetched_by_the_program_for_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("video.wav"), wav(30)).unwrap();
    let copy = format!("cp '{}/video.wav' \"$file\"", folder.path().display());
    let program = downloader(folder.path(), &copy);
    let server = start_on(Standin::default(), StationConfig::default(), |app| app.yt_dlp = program).await;
    // No address of a private network is looked into here, and a video is none.
    let body =
        json!({"url": "https://youtu.be/dQw4w9WgXcQ?t=3", "currentTime": 61.5, "model": "standin", "duration": "9-11"});
    let (status, begun) = post(&server, "/web/generate", &body).await;
    assert_eq!(status, 200, "{begun}");
    let task = finished(&server, begun["task_id"].as_str().unwrap()).await;
    assert_eq!((&task["status"], &task["timestamp"]), (&json!("completed"), &json!(61.5)));
    assert!((sound(&task).seconds() - 9.6).abs() < 0.1);
    let arguments = std::fs::read_to_string(folder.path().join("arguments")).unwrap();
    let arguments: Vec<&str> = arguments.lines().collect();
    assert_eq!(arguments[arguments.len() - 2..], ["--", "https://www.youtube.com/watch?v=dQw4w9WgXcQ"]);
    for wanted in ["--ignore-config", "--no-playlist", "-x", "*61.5-91.5"] {
        assert!(arguments.contains(&wanted), "{wanted}: {arguments:?}");
    }
    assert!(!scraps(folder.path()));
}

#[tokio::test(flavor = "multi_thread")]
#[cfg(unix)]
async fn a_video_that_cannot_be_fetched_is_an_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let url = json!({"url": "https://www.youtube.com/watch?v=dQw4w9WgXcQ"});
    for (script, word) in [
        (
            "echo half > \"$file.part\"; echo 'ERROR: [youtube] dQw4w9WgXcQ: Video unavailable' >&2; exit 1",
            "Video unavailable",
        ),
        ("exit 0", "no sound there"),
        ("echo nonsense > \"$file\"", "Error accessing video"),
        ("exit 7", "7"),
    ] {
        let program = downloader(folder.path(), script);
        let server = start_on(Standin::default(), StationConfig::default(), |app| app.yt_dlp = program).await;
        let (status, answer) = post(&server, "/generate", &url).await;
        let error = answer["error"].as_str().unwrap();
        assert!(status == 400 && error.starts_with("Error accessing video: ") && error.contains(word), "{answer}");
        assert!(!error.contains("ERROR"), "{error}");
        assert!(!scraps(folder.path()));
        assert_eq!(get(server.addr, "/v1/sessions").await.json().await["sessions"], json!([]));
    }
    let missing = folder.path().join("not-there");
    let server = start_on(Standin::default(), StationConfig::default(), |app| app.yt_dlp = missing).await;
    let (status, answer) = post(&server, "/generate", &url).await;
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("not installed"), "{answer}");
}
