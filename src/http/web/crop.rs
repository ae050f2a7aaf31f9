//! The crop server: base64 in, the bare base64 text of an MP3 out.

use std::fmt::Formatter;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use warp::http::header::{CONTENT_TYPE, RETRY_AFTER};
use warp::http::{HeaderValue, StatusCode};
use warp::reply::{Response, with_status};
use warp::{Filter, Reply};

use super::super::base64;
use super::super::router::get;
use super::super::{App, HttpError, Routes, body, json};
use crate::audio::{AudioError, MAX_SECONDS, mp3_file};
use crate::budget::{Exhausted, Share};
use crate::pcm::Pcm;
use crate::studio::StudioError;
use crate::units::SampleRate;

/// As LAME encodes when nothing is said.
const KBPS: u32 = 128;
/// Sounds of one combination at most.
const CLIPS: usize = 64;

/// `/crop-audio`, `/combine-audio` and a `/health` that the original's own composition asks for in
/// vain.
pub(in crate::http) fn routes(app: &Arc<App>) -> Routes {
    let (for_crop, for_combine) = (Arc::clone(app), Arc::clone(app));
    let crop = warp::path!("crop-audio").and(warp::post()).and(body::upload(app)).then(move |body| {
        let app = Arc::clone(&for_crop);
        async move { answer(&app, body, "Error cropping audio", async |ask| crop(&app, ask).await).await }
    });
    let combine = warp::path!("combine-audio").and(warp::post()).and(body::upload(app)).then(move |body| {
        let app = Arc::clone(&for_combine);
        async move { answer(&app, body, "Server error", async |ask| combine(&app, ask).await).await }
    });
    let health = warp::path!("health").and(get()).map(|| warp::reply::json(&json!({ "status": "ok" })).into_response());
    crop.or(combine).unify().or(health).unify().boxed()
}

/// What a request says; whatever else is in it is read over.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Ask {
    audio_data: Option<Sent>,
    audio_clips: Option<Sent>,
    end: Option<End>,
}

/// Sounds in base64, decoded while they are read.
enum Sent {
    One(Result<Bytes, String>),
    /// The first of them, and whether there are more than are taken.
    List(Vec<Result<Bytes, String>>, bool),
    Other,
}

/// A status and a sentence.
struct Failure(StatusCode, String);

impl From<String> for Failure {
    fn from(sentence: String) -> Self {
        Self(StatusCode::BAD_REQUEST, sentence)
    }
}

impl From<&str> for Failure {
    fn from(sentence: &str) -> Self {
        sentence.to_owned().into()
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Studio(StudioError::Audio(reason)) => reason.into(),
            error => Self(error.status(), error.to_string()),
        }
    }
}

impl From<StudioError> for Failure {
    fn from(error: StudioError) -> Self {
        HttpError::from(error).into()
    }
}

impl From<AudioError> for Failure {
    fn from(error: AudioError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl From<Exhausted> for Failure {
    fn from(error: Exhausted) -> Self {
        HttpError::from(error).into()
    }
}

/// A sound, and the memory that it takes.
type Made = (Pcm, Share);

async fn answer(
    app: &App,
    body: Result<Bytes, HttpError>,
    failed: &'static str,
    make: impl AsyncFnOnce(Ask) -> Result<Made, Failure>,
) -> Response {
    let made = async {
        let body = body?;
        // Held until the sounds that were sent are used.
        let _share = app.budget.take(body.len() as u64 / 4 * 3 + json::room(&body)).await?;
        let ask = work(move || read(&body)).await?;
        let (sound, share) = make(ask).await?;
        let file = work(move || Ok(mp3(sound)?)).await?;
        drop(share);
        let held = app.budget.take(file.len() as u64 / 3 * 7).await?;
        Ok::<_, Failure>(held.hold(base64::encode(&file).into_bytes()))
    };
    match made.await {
        Ok(text) => {
            let mut response = Response::new(text.into());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            response
        }
        Err(Failure(status, reason)) => {
            let mut response = with_status(format!("{failed}: {reason}"), status).into_response();
            if status == StatusCode::SERVICE_UNAVAILABLE {
                response.headers_mut().insert(RETRY_AFTER, crate::budget::RETRY_AFTER.into());
            }
            response
        }
    }
}

fn read(body: &[u8]) -> Result<Ask, Failure> {
    Ok(json::parse(body).map_err(|error| format!("the body is not JSON: {error}."))?)
}

/// Work for the processor, off the runtime's threads.
async fn work<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())))
}

const MISSING: &str = "a sound is missing; send it as base64.";

async fn crop(app: &App, ask: Ask) -> Result<Made, Failure> {
    let Some(Sent::One(file)) = ask.audio_data else { return Err(MISSING.into()) };
    let (sound, share) = app.decode(file?).await?.into_parts();
    let end = ask.end.and_then(|End(end)| end).ok_or("`end` must be seconds, or hh:mm:ss.")?;
    Ok((sound.cut(0, sound.rate.samples(end).0 as usize), share))
}

/// All clips after another, with the channels of the first, at a rate that the answer may have.
async fn combine(app: &App, ask: Ask) -> Result<Made, Failure> {
    let Some(Sent::List(files, more)) = ask.audio_clips else { return Err("`audioClips` must be an array.".into()) };
    if files.is_empty() || more {
        return Err(format!("send 1 to {CLIPS} clips.").into());
    }
    let mut whole: Option<Made> = None;
    for file in files {
        let (next, mut share) = app.decode(file?).await?.into_parts();
        let seconds = next.seconds() + whole.as_ref().map_or(0.0, |(whole, _)| whole.seconds());
        if seconds > MAX_SECONDS {
            return Err(
                format!("the clips last more than {MAX_SECONDS} s together; send fewer, or shorter ones.").into()
            );
        }
        let (channels, rate) = match &whole {
            Some((whole, _)) => (whole.channels, whole.rate),
            None => (next.channels.min(2), rate_of(&next)),
        };
        let so_far = whole.take();
        let bytes = (seconds * f64::from(rate.0)) as u64 * channels as u64 * 4;
        // While it is joined, both are there.
        share.grow(bytes + size_of_val(&next.pcm[..]) as u64).await?;
        let joined = work(move || {
            let next = if channels == 2 { next.stereo() } else { next.mono() }.at(rate)?;
            let Some((mut whole, _)) = so_far else { return Ok(next) };
            whole.pcm.extend(next.pcm);
            Ok(whole)
        });
        let joined = joined.await?;
        share.shrink(bytes);
        whole = Some((joined, share));
    }
    whole.ok_or_else(|| "there is no clip.".into())
}

impl<'de> Deserialize<'de> for Sent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnySent)
    }
}

struct AnySent;

impl<'de> Visitor<'de> for AnySent {
    type Value = Sent;

    fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("a sound in base64, or an array of them")
    }

    fn visit_str<E>(self, text: &str) -> Result<Sent, E> {
        Ok(Sent::One(base64::decode(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Sent, A::Error> {
        let mut sounds = Vec::new();
        while sounds.len() < CLIPS
            && let Some(One(sound)) = items.next_element()?
        {
            sounds.push(sound);
        }
        let more = items.next_element::<IgnoredAny>()?.is_some();
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Sent::List(sounds, more))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sent, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Sent::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Sent, E> {
        Ok(Sent::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Sent, E> {
        Ok(Sent::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Sent, E> {
        Ok(Sent::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Sent, E> {
        Ok(Sent::Other)
    }

    fn visit_unit<E>(self) -> Result<Sent, E> {
        Ok(Sent::Other)
    }
}

/// One sound of a list.
struct One(Result<Bytes, String>);

impl<'de> Deserialize<'de> for One {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = One;

            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("a sound in base64")
            }

            fn visit_str<E>(self, text: &str) -> Result<One, E> {
                Ok(One(base64::decode(text)))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Where a sound is cut.
struct End(Option<f64>);

impl<'de> Deserialize<'de> for End {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Place;

        impl Visitor<'_> for Place {
            type Value = End;

            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("seconds, or a text `hh:mm:ss`")
            }

            fn visit_str<E>(self, text: &str) -> Result<End, E> {
                Ok(End(seconds(&text.into())))
            }

            fn visit_u64<E>(self, number: u64) -> Result<End, E> {
                Ok(End(seconds(&number.into())))
            }

            fn visit_i64<E>(self, number: i64) -> Result<End, E> {
                Ok(End(seconds(&number.into())))
            }

            fn visit_f64<E>(self, number: f64) -> Result<End, E> {
                Ok(End(seconds(&number.into())))
            }
        }

        deserializer.deserialize_any(Place)
    }
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

/// The rate of the answer.
fn rate_of(sound: &Pcm) -> SampleRate {
    if [32_000, 44_100, 48_000].contains(&sound.rate.0) { sound.rate } else { SampleRate(44_100) }
}

fn mp3(sound: Pcm) -> Result<Vec<u8>, AudioError> {
    let sound = if sound.channels > 2 { sound.stereo() } else { sound };
    let rate = rate_of(&sound);
    let sound = sound.at(rate)?.within_full_scale();
    mp3_file(&sound.pcm, rate, sound.channels, KBPS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::standin::Standin;
    use crate::engine::{Engine, EngineConfig};
    use crate::station::{Station, StationConfig};

    async fn server() -> Arc<App> {
        let engine = Engine::start(Box::new(Standin::default()), EngineConfig::default()).unwrap();
        Arc::new(App::new(Station::new(engine, StationConfig::default())))
    }

    fn ask(value: &Value) -> Ask {
        read(value.to_string().as_bytes()).ok().unwrap()
    }

    fn clip(seconds: usize, rate: u32, channels: usize) -> String {
        let pcm = vec![0.1; seconds * rate as usize * channels];
        base64::encode(&Pcm { pcm, channels, rate: SampleRate(rate) }.wav())
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
        let app = server().await;
        let cut = crop(&app, ask(&json!({"audioData": clip(3, 44_100, 2), "end": "1.5"}))).await.ok().unwrap().0;
        assert_eq!((cut.frames(), cut.channels), (66_150, 2));
        let clips = json!({"audioClips": [clip(1, 44_100, 1), clip(2, 48_000, 2)], "title": {"a": [1]}});
        let both = combine(&app, ask(&clips)).await.ok().unwrap().0;
        assert_eq!((both.frames(), both.channels), (3 * 44_100, 1));
        for wrong in [json!({"end": 1}), json!({"audioClips": []}), json!({"audioClips": "x"}), json!({"audioData": 1})]
        {
            assert!(crop(&app, ask(&wrong)).await.is_err() && combine(&app, ask(&wrong)).await.is_err());
        }
        assert!(read(br#"{"audioClips": [1]}"#).is_err());
    }

    #[tokio::test]
    async fn clips_are_joined_at_a_rate_that_the_answer_may_have_and_only_so_many_seconds() {
        let app = server().await;
        // At the first one's rate the second would be ninety times as large.
        let clips = json!({"audioClips": [clip(1, 384_000, 2), clip(9, 4000, 1)]});
        let both = combine(&app, ask(&clips)).await.ok().unwrap().0;
        assert_eq!((both.rate.0, both.frames()), (44_100, 441_000));
        let long = clip(301, 4000, 1);
        let Err(Failure(status, reason)) = combine(&app, ask(&json!({"audioClips": [long, long]}))).await else {
            panic!("it is too long")
        };
        assert!(status == 400 && reason.contains("600 s"), "{reason}");
        assert_eq!(app.budget.free(), app.budget.bytes());
    }

    #[tokio::test]
    #[cfg(feature = "mp3")]
    async fn the_answer_is_an_mp3() {
        let app = server().await;
        let cut = crop(&app, ask(&json!({"audioData": clip(3, 22_050, 1), "end": 2}))).await.ok().unwrap().0;
        let file = mp3(cut).unwrap();
        assert!((crate::audio::decode(&file).unwrap().seconds() - 2.0).abs() < 0.1);
    }
}
