//! Tasks of the web app: a piece from a place in a video or file, ending with a bar; more of it;
//! how far it is.

use std::sync::Arc;

use bytes::Bytes;
use ebur128::{EbuR128, Mode};
use serde_json::{Value, json};
use warp::http::StatusCode;
use warp::reply::{Response, with_status};
use warp::{Filter, Reply};

use super::super::client::owner;
use super::super::error::sentence;
use super::super::gary::Payload;
use super::super::router::get;
use super::super::sounding::Told;
use super::super::{App, HttpError, Routes, body, json};
use super::fetch::{Means, Place};
use crate::audio::tempo;
use crate::pcm::Pcm;
use crate::studio::{
    ClipRequest, ClipSnapshot, Decoded, GivenSound, LEVELLED, Owner, SessionId, SoundFile, Status, Studio, StudioError,
};
use crate::units::SampleRate;

/// Rate of results.
const RATE: SampleRate = SampleRate(32_000);
/// Seconds that the tempo is measured on.
const LISTEN: f64 = 30.0;
/// Tempo of what has none.
const BPM: f64 = 120.0;
const LOUDNESS: f64 = -14.0;
/// How a task's session says where it came from.
const ORIGIN: &str = "web";

/// `/generate`, `/continue`, `/tasks/{id}`, `/fetch-result/{id}`, `/progress/{id}`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    let for_generate = Arc::clone(app);
    let begin = warp::path!("generate").and(warp::post()).and(body::bytes(app)).and(owner()).then(
        move |body: Result<Bytes, HttpError>, owner| {
            let app = Arc::clone(&for_generate);
            async move {
                match body {
                    Ok(body) => generate(&app, &body, owner).await,
                    Err(error) => answer(Err::<Value, _>(error.into())),
                }
            }
        },
    );
    let for_proceed = Arc::clone(app);
    let extend = warp::path!("continue").and(warp::post()).and(body::upload(app)).and(owner()).then(
        move |body: Result<Bytes, HttpError>, owner| {
            let app = Arc::clone(&for_proceed);
            async move { answer(extend(&app, body, owner).await) }
        },
    );
    let for_show = Arc::clone(app);
    let show = warp::path!(String / String)
        .and_then(|what: String, id| async move {
            let known = ["tasks", "fetch-result", "progress"].into_iter().find(|name| *name == what);
            known.map(|what| (what, id)).ok_or_else(warp::reject::not_found)
        })
        .and(get())
        .then(move |(what, id): (&'static str, String)| {
            let app = Arc::clone(&for_show);
            async move {
                match what {
                    "tasks" => answer(task(&app, &id).await),
                    "fetch-result" => answer(result(&app, &id).await),
                    _ => warp::reply::json(&json!({ "progress": progress(&app, &id).await })).into_response(),
                }
            }
        });
    begin.or(extend).unify().or(show).unify().boxed()
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

impl From<StudioError> for Failure {
    fn from(error: StudioError) -> Self {
        match error {
            StudioError::NoSession(_) => Self(StatusCode::NOT_FOUND, "Task not found".into()),
            StudioError::OutOfBounds { field: "prompt_seconds", value, least, most } => {
                let error = StudioError::OutOfBounds { field: "promptLength", value, least, most };
                HttpError::from(error).into()
            }
            error => HttpError::from(error).into(),
        }
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        Self(error.status(), error.to_string())
    }
}

fn answer(result: Result<impl Into<Told>, Failure>) -> Response {
    match result {
        Ok(body) => body.into().into_response(),
        Err(Failure(status, error)) => {
            with_status(warp::reply::json(&json!({ "error": sentence(&error) })), status).into_response()
        }
    }
}

/// Whether a `POST /generate` is meant for this surface: it has an address and no prompts.
pub(in crate::http) fn claims(body: &[u8]) -> bool {
    match json::parse::<Value>(body) {
        Ok(Value::Object(fields)) => fields.contains_key("url") && !fields.contains_key("prompts"),
        _ => false,
    }
}

/// `POST /generate` with an address.
pub(in crate::http) async fn generate(app: &App, body: &[u8], owner: Owner) -> Response {
    answer(begin(app, body, owner).await)
}

async fn begin(app: &App, body: &[u8], owner: Owner) -> Result<Value, Failure> {
    let studio = app.studio()?;
    let payload = Payload::parse(body)?;
    let url = payload.text("url")?.unwrap_or_default().to_owned();
    let place = Place::parse(&url).ok_or("Invalid YouTube URL")?;
    let from = payload.number("currentTime")?.unwrap_or(0.0);
    if !(0.0..=86_400.0).contains(&from) {
        return Err("Invalid timestamp".into());
    }
    let prompt = payload.whole("promptLength")?.unwrap_or(6) as f64;
    let (least, most) = range(payload.text("duration")?.unwrap_or("16-18"))?;
    // The original's default, where it may be had.
    let usual = Some("facebook/musicgen-small").filter(|name| studio.permit(&owner, name).is_ok());
    let request = |seconds: f64| ClipRequest {
        model: payload.text("model").ok().flatten().or(usual).map(str::to_owned),
        prompt_seconds: Some(prompt),
        seconds: Some(seconds),
        top_k: Some(150),
        temperature: Some(1.0),
        guidance: Some(5.0),
        description: Some("drums, percussion".into()),
        ..ClipRequest::default()
    };
    // What cannot work is said before anything is fetched.
    request(least).resolve(None).validate()?;
    let wanted = LISTEN.max(prompt + 5.0);
    let means = Means { yt_dlp: &app.yt_dlp, private_addresses: app.limits.private_addresses };
    let fetched = place.fetch(from, wanted, &means).await;
    let (bytes, from_here) = fetched.map_err(|error| format!("Error accessing video: {error}"))?;
    let sound = studio.decode(bytes.into()).await.map_err(|error| match error {
        StudioError::Audio(reason) => format!("Error accessing video: {reason}").into(),
        error => Failure::from(error),
    })?;
    let part = work(move || {
        let (sound, share) = sound.into_parts();
        if from_here >= sound.seconds() {
            return Err("Timestamp is beyond video duration".to_owned());
        }
        let first = sound.rate.samples(from_here).0 as usize;
        let part = sound.cut(first, first + sound.rate.samples(wanted).0 as usize).mono();
        let bpm = tempo(&part).ok().flatten().unwrap_or(BPM);
        let part = part.at(RATE).map_err(|error| error.to_string())?;
        let part = Decoded::made_of(part.within_full_scale(), share);
        Ok((GivenSound::written(part), bars(bpm, least, most)))
    });
    let (sound, seconds) = part.await?;
    let id = task_id()?;
    let origin = format!("{ORIGIN} {from} {url}");
    studio.bang_of(owner, id.clone(), &origin, request(seconds), sound).await?;
    Ok(json!({ "task_id": id }))
}

async fn work<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// `"min-max"` in seconds.
fn range(text: &str) -> Result<(f64, f64), String> {
    let wrong = || format!("`duration` is `{text}`; send the least and the most seconds, as in `16-18`.");
    let (least, most) = text.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| (1.0..=300.0).contains(number));
    let (least, most) = (number(least).ok_or_else(wrong)?, number(most).ok_or_else(wrong)?);
    if least <= most { Ok((least, most)) } else { Err(wrong()) }
}

/// Whole bars of four beats: the fewest that last `least` seconds, fewer if that is more than
/// `most`. Fast tempos are taken at half, as the original does.
fn bars(bpm: f64, least: f64, most: f64) -> f64 {
    let bpm = if bpm > 120.0 && bpm < 200.0 { bpm / 2.0 } else { bpm };
    let bar = 240.0 / bpm;
    let mut bars = (least / bar).floor().max(1.0);
    while bars * bar < least {
        bars += 1.0;
    }
    while bars * bar > most && bars > 1.0 {
        bars -= 1.0;
    }
    bars * bar
}

fn task_id() -> Result<SessionId, StudioError> {
    SessionId::parse(&uuid::Uuid::new_v4().simple().to_string()[..24])
}

fn parsed(id: &str) -> Result<SessionId, Failure> {
    let fits = id.len() == 24 && id.chars().all(|c| c.is_ascii_hexdigit());
    if fits { Ok(SessionId::parse(id)?) } else { Err("Invalid ObjectId format".into()) }
}

async fn extend(app: &App, body: Result<Bytes, HttpError>, owner: Owner) -> Result<Value, Failure> {
    let studio = app.studio()?;
    let payload = Payload::read(body?, &app.budget).await?;
    let id = parsed(payload.text("task_id")?.unwrap_or_default()).map_err(|_| Failure::from("Invalid task ID"))?;
    studio.session(&id).await?;
    let sound = payload.sound("audio").map_err(|error| format!("audio: {error}"))?;
    let sound = sound.ok_or("`audio` is missing; send the sound as base64.")?;
    let request = ClipRequest {
        model: Some(payload.text("model")?.ok_or("`model` is missing.")?.to_owned()),
        prompt_seconds: Some(payload.number("prompt_duration")?.unwrap_or(6.0)),
        ..ClipRequest::default()
    };
    studio.extend(owner, Some(id.clone()), request, Some(sound)).await?;
    Ok(json!({ "task_id": id }))
}

fn status_of(clip: Option<&ClipSnapshot>) -> (&'static str, Option<String>) {
    match clip.map(|clip| &clip.status) {
        Some(Status::Completed) => ("completed", None),
        Some(Status::Failed(reason)) => ("failed", Some(reason.clone())),
        Some(Status::Cancelled) => ("failed", Some("The clip was cancelled.".into())),
        _ => ("pending", None),
    }
}

/// The result, levelled; of a `/continue` as it is.
async fn sound(studio: &Studio, clip: &ClipSnapshot) -> Result<SoundFile, Failure> {
    let output = studio.output(clip.record.id).await?;
    if clip.record.kind != crate::studio::Kind::Bang {
        return Ok(studio.store().sound(output).await?);
    }
    let level = |sound: Pcm| Ok(levelled(sound, LOUDNESS).wav());
    Ok(studio.converted(output, LEVELLED, level).await?)
}

/// To a loudness, peaks rounded off.
fn levelled(mut sound: Pcm, target: f64) -> Pcm {
    let loudness = || {
        let mut meter = EbuR128::new(sound.channels as u32, sound.rate.0, Mode::I).ok()?;
        meter.add_frames_f32(&sound.pcm).ok()?;
        meter.loudness_global().ok().filter(|loudness| loudness.is_finite())
    };
    let Some(loudness) = loudness() else { return sound };
    let gain = 10f64.powf((target - loudness) / 20.0) as f32;
    sound.pcm.iter_mut().for_each(|sample| *sample = (*sample * gain).tanh());
    sound
}

async fn task(app: &App, id: &str) -> Result<Told, Failure> {
    let (studio, id) = (app.studio()?, parsed(id)?);
    let session = studio.session(&id).await?;
    let clip = studio.latest(&id).await?;
    let (status, error) = status_of(clip.as_ref());
    let audio = match &clip {
        Some(clip) if status == "completed" => Some(sound(studio, clip).await?),
        _ => None,
    };
    let mut origin = session.origin.splitn(3, ' ').skip(1);
    let timestamp = origin.next().and_then(|text| text.parse::<f64>().ok());
    let told = json!({
        "_id": { "$oid": id },
        "rq_job_id": clip.map(|clip| clip.record.id.to_string()),
        "youtube_url": origin.next(),
        "timestamp": timestamp,
        "status": status,
        "output_filename": format!("{id}.wav"),
        "error": error,
    });
    Ok(Told::from(told).with("audio", audio))
}

async fn result(app: &App, id: &str) -> Result<Told, Failure> {
    let (studio, id) = (app.studio()?, parsed(id)?);
    studio.session(&id).await?;
    let clip = studio.latest(&id).await?;
    let (status, _) = status_of(clip.as_ref());
    match clip {
        Some(clip) if status == "completed" => {
            Ok(Told::from(json!({ "status": status })).with("audio", Some(sound(studio, &clip).await?)))
        }
        _ => Ok(json!({ "status": status }).into()),
    }
}

/// Percent; of what is not known 0.
async fn progress(app: &App, id: &str) -> f64 {
    let (Ok(studio), Ok(id)) = (app.studio(), parsed(id)) else { return 0.0 };
    match studio.latest(&id).await {
        Ok(Some(clip)) => match clip.status {
            Status::Running { steps, total } => 100.0 * steps as f64 / total.max(1) as f64,
            Status::Completed => 100.0,
            _ => 0.0,
        },
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_piece_has_whole_bars_within_its_range() {
        // 100 bpm: bars of 2.4 s.
        assert!((bars(100.0, 16.0, 18.0) - 16.8).abs() < 1e-9);
        // 140 is taken at 70: bars of 3.43 s, five of them.
        assert!((bars(140.0, 16.0, 18.0) - 5.0 * 240.0 / 70.0).abs() < 1e-9);
        // No whole number of bars fits: rather less than more.
        assert!((bars(60.0, 16.5, 18.0) - 16.0).abs() < 1e-9);
        assert_eq!(range("16-18").unwrap(), (16.0, 18.0));
        for bad in ["16", "18-16", "a-b", "0-5", "1-9999"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn results_are_levelled_and_never_exceed_full_scale() {
        let pcm = (0..32_000 * 5).map(|n| (n as f32 * 0.1).sin() * 0.02).collect();
        let loud = levelled(Pcm { pcm, channels: 1, rate: RATE }, LOUDNESS);
        let mut meter = EbuR128::new(1, RATE.0, Mode::I).unwrap();
        meter.add_frames_f32(&loud.pcm).unwrap();
        assert!((meter.loudness_global().unwrap() - LOUDNESS).abs() < 1.0);
        assert!(loud.pcm.iter().all(|sample| sample.abs() < 1.0));
        let silence = Pcm { pcm: vec![0.0; 32_000], channels: 1, rate: RATE };
        assert_eq!(levelled(silence.clone(), LOUDNESS), silence);
    }
}
