//! The crop server: base64 in, the bare base64 text of an MP3 out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use warp::http::header::CONTENT_TYPE;
use warp::http::{HeaderValue, StatusCode};
use warp::reply::{Response, with_status};
use warp::{Filter, Reply};

use super::super::gary::{decode_base64, encode_base64};
use super::super::router::get;
use super::super::{App, HttpError, Routes, body, json};
use crate::audio::{AudioError, Sound};
use crate::sandbox::Sandbox;
use crate::units::SampleRate;

/// Time for sounds to arrive.
const PATIENCE: Duration = Duration::from_secs(300);
/// As LAME encodes when nothing is said.
#[cfg(feature = "mp3")]
const KBPS: u32 = 128;
/// Sounds of one combination at most.
const CLIPS: usize = 64;

/// `/crop-audio`, `/combine-audio` and a `/health` that the original's own composition asks for in vain.
pub(in crate::http) fn routes(app: &Arc<App>) -> Routes {
    let body = body::bytes_within(app.limits.upload, PATIENCE);
    let (for_crop, for_combine) = (app.sandbox().clone(), app.sandbox().clone());
    let crop = warp::path!("crop-audio").and(warp::post()).and(body.clone()).then(move |body| {
        let sandbox = for_crop.clone();
        async move { answer(body, "Error cropping audio", async |fields| crop(&sandbox, fields).await).await }
    });
    let combine = warp::path!("combine-audio").and(warp::post()).and(body).then(move |body| {
        let sandbox = for_combine.clone();
        async move { answer(body, "Server error", async |fields| combine(&sandbox, fields).await).await }
    });
    let health = warp::path!("health").and(get()).map(|| warp::reply::json(&json!({ "status": "ok" })).into_response());
    crop.or(combine).unify().or(health).unify().boxed()
}

async fn answer(
    body: Result<Bytes, HttpError>,
    failed: &'static str,
    make: impl AsyncFnOnce(Value) -> Result<Sound, String>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(error) => return with_status(error.to_string(), error.status()).into_response(),
    };
    let fields: Value = match json::parse(&body) {
        Ok(fields) => fields,
        Err(error) => {
            let sentence = format!("{failed}: the body is not JSON: {error}.");
            return with_status(sentence, StatusCode::BAD_REQUEST).into_response();
        }
    };
    drop(body);
    let made = match make(fields).await {
        Ok(sound) => {
            let file = work(move || mp3(sound).map_err(|error| error.to_string())).await;
            file.map_err(|reason| (StatusCode::INTERNAL_SERVER_ERROR, reason))
        }
        // What was sent is the client's affair, an encoder that fails is ours.
        Err(reason) => Err((StatusCode::BAD_REQUEST, reason)),
    };
    match made {
        Ok(file) => {
            let mut response = Response::new(encode_base64(&file).into());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            response
        }
        Err((status, reason)) => with_status(format!("{failed}: {reason}"), status).into_response(),
    }
}

async fn sound(sandbox: &Sandbox, text: Option<&Value>) -> Result<Sound, String> {
    let text = text.and_then(Value::as_str).ok_or("a sound is missing; send it as base64.")?;
    sandbox.decode(decode_base64(text)?).await.map_err(|error| error.to_string())
}

async fn crop(sandbox: &Sandbox, fields: Value) -> Result<Sound, String> {
    let sound = sound(sandbox, fields.get("audioData")).await?;
    let end = fields.get("end").and_then(seconds).ok_or("`end` must be seconds, or hh:mm:ss.")?;
    Ok(sound.cut(0, sound.rate.samples(end).0 as usize))
}

/// Work for the processor, off the runtime's threads.
async fn work<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

/// All clips after another, in the shape of the first.
async fn combine(sandbox: &Sandbox, fields: Value) -> Result<Sound, String> {
    let clips = fields.get("audioClips").and_then(Value::as_array).ok_or("`audioClips` must be an array.")?;
    if clips.is_empty() || clips.len() > CLIPS {
        return Err(format!("send 1 to {CLIPS} clips."));
    }
    let mut whole: Option<Sound> = None;
    for clip in clips {
        let next = sound(sandbox, Some(clip)).await?;
        let so_far = whole.take();
        let joined = work(move || match so_far {
            None => Ok(if next.channels > 2 { next.stereo() } else { next }),
            Some(mut whole) => {
                let next = if whole.channels == 2 { next.stereo() } else { next.mono() };
                whole.pcm.extend(next.at(whole.rate).map_err(|error| error.to_string())?.pcm);
                Ok(whole)
            }
        });
        whole = Some(joined.await?);
    }
    whole.ok_or_else(|| "there is no clip.".into())
}

/// Seconds as a number or a text, or `hh:mm:ss`.
fn seconds(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => {
            text.split(':').try_fold(0.0, |sum, part| Some(60.0 * sum + part.trim().parse::<f64>().ok()?))
        }
        _ => None,
    };
    number.filter(|seconds| (0.0..=86_400.0).contains(seconds))
}

#[cfg(feature = "mp3")]
fn mp3(sound: Sound) -> Result<Vec<u8>, AudioError> {
    let sound = if sound.channels > 2 { sound.stereo() } else { sound };
    let rate = if [32_000, 44_100, 48_000].contains(&sound.rate.0) { sound.rate } else { SampleRate(44_100) };
    let sound = sound.at(rate)?.within_full_scale();
    crate::audio::Mp3Encoder::file(&sound.pcm, rate.0, sound.channels, KBPS)
}

#[cfg(not(feature = "mp3"))]
fn mp3(_sound: Sound) -> Result<Vec<u8>, AudioError> {
    Err(AudioError::NoMp3)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn clip(seconds: usize, rate: u32, channels: usize) -> String {
        let pcm = vec![0.1; seconds * rate as usize * channels];
        encode_base64(&Sound { pcm, channels, rate: SampleRate(rate) }.wav())
    }

    #[test]
    fn the_end_is_seconds_or_a_clock() {
        for (value, expected) in [(json!(2.5), 2.5), (json!("2.5"), 2.5), (json!("00:01:02.5"), 62.5)] {
            assert_eq!(seconds(&value), Some(expected));
        }
        for bad in [json!(-1), json!("soon"), json!(null), json!([])] {
            assert_eq!(seconds(&bad), None);
        }
    }

    #[tokio::test]
    async fn clips_are_cut_and_joined() {
        let sandbox = Sandbox::in_process();
        let cut = crop(&sandbox, json!({"audioData": clip(3, 44_100, 2), "end": "1.5"})).await.unwrap();
        assert_eq!((cut.frames(), cut.channels), (66_150, 2));
        let clips = json!({"audioClips": [clip(1, 44_100, 1), clip(2, 48_000, 2)]});
        let both = combine(&sandbox, clips).await.unwrap();
        assert_eq!((both.frames(), both.channels), (3 * 44_100, 1));
        assert!(crop(&sandbox, json!({"end": 1})).await.is_err());
        assert!(combine(&sandbox, json!({"audioClips": []})).await.is_err());
    }

    #[tokio::test]
    #[cfg(feature = "mp3")]
    async fn the_answer_is_an_mp3() {
        let fields = json!({"audioData": clip(3, 22_050, 1), "end": 2});
        let file = mp3(crop(&Sandbox::in_process(), fields).await.unwrap()).unwrap();
        assert!((crate::audio::decode(&file).unwrap().seconds() - 2.0).abs() < 0.1);
    }
}
