//! Sockets that hear the past of a stream of another node.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::nats::Nats;
use crate::node::{Node, PATIENCE, eventually};
use crate::sound::whole_pages;

/// Bytes of a second of one channel, and of the head of a WAV.
const SECOND: usize = 96_000;
const HEAD: usize = 44;

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn open(node: &Node, place: &str, query: &str) -> Result<Self, (u16, Value)> {
        let tcp = TcpStream::connect(node.addr).await.unwrap();
        match tokio_tungstenite::client_async(format!("ws://test{place}/ws?{query}"), tcp).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(refused)) => {
                let body = refused.body().as_deref().unwrap_or_default();
                Err((refused.status().as_u16(), serde_json::from_slice(body).unwrap_or_default()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn next(&mut self) -> Message {
        timeout(PATIENCE, self.0.next()).await.expect("a message in time").unwrap().unwrap()
    }

    /// Sends a command; gives its answer, behind which nothing comes of the sound before.
    async fn ask(&mut self, command: Value) -> Value {
        self.0.send(Message::text(command.to_string())).await.unwrap();
        loop {
            if let Message::Text(text) = self.next().await {
                let told: Value = serde_json::from_str(&text).unwrap();
                if told["id"] == command["id"] {
                    return told;
                }
            }
        }
    }

    async fn sound(&mut self) -> Vec<u8> {
        loop {
            if let Message::Binary(sound) = self.next().await {
                return sound.to_vec();
            }
        }
    }

    /// A WAV without its head, until it has so many bytes.
    async fn wav(&mut self, bytes: usize) -> Vec<u8> {
        let mut sound = Vec::new();
        while sound.len() < HEAD + bytes {
            sound.extend(self.sound().await);
        }
        assert!(sound.starts_with(b"RIFF"));
        sound[HEAD..HEAD + bytes].to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_every_node_hear_the_past_and_seek_in_it() {
    let nats = Nats::start().await;
    let (full, mut free) = crate::pair(&nats, json!({})).await;
    let place = format!("/v1/streams/{}", full.create(r#"{"prompts": ["x"]}"#).await);
    let mut socket = Socket::open(&full, &place, "format=wav").await.ok().unwrap();
    socket.wav(4 * SECOND).await;
    let recording = eventually(async || {
        let mut answer = full.get(&format!("{place}/recording?from=0&to=3&format=wav")).await;
        if answer.status == 200 { Ok(answer.body().await.split_off(HEAD)) } else { Err(answer.text().await) }
    })
    .await;

    // From the beginning on, where it is asked for when the socket is opened.
    let mut past = Socket::open(&full, &place, "format=wav&at=0.5").await.ok().unwrap();
    assert!(past.wav(SECOND).await == recording[SECOND / 2..][..SECOND], "another sound");
    let counted = async || full.get(&place).await.json().await["listeners"].clone();
    assert_eq!(counted().await, 2);

    // In the midst of it.
    let ack = past.ask(json!({ "type": "seek", "id": 1, "at": 1.25 })).await;
    assert_eq!((&ack["type"], &ack["at"]), (&json!("ack"), &json!(1.25)), "{ack}");
    assert!(past.wav(SECOND).await == recording[SECOND * 5 / 4..][..SECOND], "another sound");
    for (at, sentence) in [(json!(99_999), "The journal holds"), (json!("soon"), "`at` is `soon`")] {
        let error = past.ask(json!({ "type": "seek", "id": 2, "at": at })).await;
        assert_eq!(error["type"], "error", "{error}");
        assert!(error["detail"].as_str().unwrap().contains(sentence), "{error}");
    }
    // What cannot be sought leaves the sound as it is.
    assert!(!past.sound().await.is_empty());
    let ack = past.ask(json!({ "type": "seek", "id": 3 })).await;
    assert!(ack["at"].as_f64() > Some(3.0), "{ack}");
    past.wav(SECOND).await;

    // Of Ogg, whole pages.
    let mut ogg = Socket::open(&full, &place, "format=ogg&kbps=64&from=-2").await.ok().unwrap();
    for n in 0..5 {
        let pages = ogg.sound().await;
        assert_eq!(whole_pages(&pages).len(), pages.len());
        assert_eq!(pages.windows(8).any(|bytes| bytes == b"OpusHead"), n == 0);
    }
    let (status, problem) = Socket::open(&full, &place, "at=99999").await.err().unwrap();
    assert!(status == 422 && problem["detail"].as_str().unwrap().contains("The journal holds"), "{status} {problem}");
    let (status, problem) = Socket::open(&full, &place, "at=1&from=-1").await.err().unwrap();
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("send one of them"), "{status} {problem}");
    let mut answer = full.get(&format!("{place}/audio.mp3?at=1.5")).await;
    assert_eq!((answer.status, answer.header("x-media-time")), (200, Some("1.5")));
    answer.some(1).await;

    // Nobody can go on with it.
    free.kill();
    let code = loop {
        if let Message::Close(frame) = ogg.next().await {
            break frame.unwrap().code;
        }
    };
    assert_eq!(code, CloseCode::Again);
}
