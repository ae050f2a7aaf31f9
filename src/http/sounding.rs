//! JSON that carries a sound in base64, sent from disk piece by piece: however large the sound and
//! however slow its reader, little of it is in memory.

use std::io;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use warp::Reply;
use warp::http::HeaderValue;
use warp::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use warp::reply::Response;

use super::base64;
use crate::studio::SoundFile;

/// Bytes that are read at once; whole groups of three, so that the texts of pieces make one text.
const PIECE: usize = 48 << 10;

/// A JSON object, of which one field may be a sound.
pub(super) struct Told {
    body: Value,
    sound: Option<(&'static str, SoundFile)>,
}

impl From<Value> for Told {
    fn from(body: Value) -> Self {
        Self { body, sound: None }
    }
}

impl Told {
    /// With a sound in a field of its own.
    pub fn with(mut self, field: &'static str, sound: Option<SoundFile>) -> Self {
        match sound {
            Some(sound) => self.sound = Some((field, sound)),
            None => self.body[field] = Value::Null,
        }
        self
    }
}

impl Reply for Told {
    fn into_response(self) -> Response {
        let Self { mut body, sound } = self;
        let Some((field, sound)) = sound else { return warp::reply::json(&body).into_response() };
        // The text goes where no other text can be found.
        let mark = uuid::Uuid::new_v4().simple().to_string();
        body[field] = mark.clone().into();
        let text = body.to_string();
        let (head, tail) = text.split_once(&mark).unwrap_or((&text, ""));
        let length = head.len() as u64 + sound.bytes.div_ceil(3) * 4 + tail.len() as u64;
        let once = |text: &str| stream::iter([Ok::<_, io::Error>(Bytes::copy_from_slice(text.as_bytes()))]);
        let body = once(head).chain(texts(tokio::fs::File::from_std(sound.file), sound.bytes)).chain(once(tail));
        let mut response = warp::reply::stream(body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, length.into());
        response
    }
}

/// The base64 text of the next `left` bytes of a file.
fn texts(file: tokio::fs::File, left: u64) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync {
    stream::try_unfold((file, left), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
        file.read_exact(&mut piece).await?;
        let text = Bytes::from(base64::encode(&piece));
        Ok(Some((text, (file, left - piece.len() as u64))))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Seek, Write};

    use http_body_util::BodyExt;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn the_text_of_all_pieces_is_the_text_of_the_sound() {
        for length in [0, 1, 2, 3, PIECE, PIECE + 1, 3 * PIECE - 1] {
            let bytes: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            file.rewind().unwrap();
            let sound = SoundFile { file, bytes: length as u64 };
            let told = Told::from(json!({ "success": true, "z": [1] })).with("audio_data", Some(sound));
            let response = told.into_response();
            let announced: usize = response.headers()[CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(announced, body.len());
            let value: Value = serde_json::from_slice(&body).unwrap();
            let expected = json!({ "audio_data": base64::encode(&bytes), "success": true, "z": [1] });
            assert_eq!(value, expected);
        }
    }
}
