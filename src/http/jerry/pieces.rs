//! The five ways to a piece: text, loop, style, guided loop, riff.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};
use warp::Reply;
use warp::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use warp::http::{HeaderValue, StatusCode};
use warp::reply::Response;

use super::super::App;
use super::super::file;
use super::super::sounding::Told;
use super::Failure;
use super::ask::{Ask, brief};
use crate::bars::{BARS, bar_seconds, fitting_bars, tempo};
use crate::engine::{Given, LoopSettings, LoopSpec, Mask, RenderInfo, Shape};
use crate::pcm::Pcm;
use crate::studio::{GivenSound, LoopParams, Owner, StudioError};

/// Seconds that the model is told of a varied sound, as in the original.
const VARIED_SECONDS: f64 = 12.0;
/// Seconds that a loop of a riff may have, as in the original.
const RIFF_SECONDS: f64 = 10.0;
/// Seconds that the original leaves free behind a loop that has no number of bars.
const FREE_SECONDS: f64 = 1.0;

/// A piece that is wanted, and what is told of it.
struct Wanted {
    params: LoopParams,
    given: Option<GivenSound>,
    /// What the client is told besides what is true of every piece.
    metadata: Value,
    /// The file's name.
    name: String,
    base64: bool,
}

/// Makes a piece and answers with it.
async fn deliver(app: &App, owner: Owner, wanted: Wanted) -> Result<Response, Failure> {
    let studio = app.studio()?;
    let began = Instant::now();
    let Wanted { params, given, mut metadata, name, base64 } = wanted;
    let taken = studio.make_loop(owner, None, params.clone(), given).await?;
    let file = studio.store().sound(studio.outcome(taken.clip).await?).await?;
    if !base64 {
        let mut response = file::whole(file)?;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("audio/wav"));
        if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
            headers.insert(CONTENT_DISPOSITION, value);
        }
        return Ok(response);
    }
    let shape = studio.shape_of_clip(taken.clip).await?;
    let seconds = shape.frames as f64 / f64::from(shape.rate.0);
    let (elapsed, hundredths) = (began.elapsed().as_secs_f64().max(0.001), |x: f64| (x * 100.0).round() / 100.0);
    let told = [
        ("negative_prompt", json!(params.spec.avoid)),
        ("seed", json!(params.spec.seed)),
        ("sample_rate", json!(shape.rate.0)),
        ("generation_time", json!(hundredths(elapsed))),
        ("realtime_factor", json!(hundredths(seconds / elapsed))),
        ("detected_bpm", tempo(&params.spec.text).map_or(Value::Null, told_bpm)),
    ];
    for (name, value) in told {
        metadata[name] = value;
    }
    if matches!(params.spec.shape, Shape::Loop { .. }) {
        metadata["loop_duration_seconds"] = json!(seconds);
    } else {
        metadata["duration_seconds"] = match params.spec.shape {
            Shape::First(asked) => json!(asked as u64),
            _ => json!(seconds),
        };
    }
    let told = json!({ "success": true, "metadata": metadata });
    Ok(Told::from(told).with("audio_base64", Some(file)).into_response())
}

/// Work for the processor, off the runtime's threads.
async fn work<T: Send + 'static>(work: impl FnOnce() -> Result<T, StudioError> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| StudioError::Broken(error.to_string()))??)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

/// What the metadata of every piece begin with.
fn common(prompt: &str, settings: &LoopSettings, info: &RenderInfo) -> Value {
    json!({ "prompt": prompt, "steps": settings.steps, "cfg_scale": settings.guidance, "device": info.device })
}

/// `POST /generate`: the first seconds of a window.
pub(super) async fn generate(app: &App, ask: Ask, owner: Owner) -> Result<Response, Failure> {
    let (prompt, model) = (ask.prompt()?, ask.model(app.studio()?, &owner)?);
    let (seed, base64, sampler) = (ask.seed()?, ask.wants_base64()?, ask.sampler()?);
    let guidance = ask.number("cfg_scale", 1.0, (0.0, 20.0))?;
    ask.steps(1, 250)?;
    let wished = ask.whole("seconds_total", (1, i64::MAX))?;
    let info = app.studio()?.loop_info(model.as_ref()).await?;
    let settings = LoopSettings { steps: Some(ask.steps(info.steps, 250)?), guidance: Some(guidance), sampler };
    let most = info.seconds().floor().max(1.0);
    let seconds = wished.map_or(most, |seconds| (seconds as f64).min(most));
    let metadata = common(prompt, &settings, &info);
    let spec = LoopSpec {
        text: prompt.to_owned(),
        avoid: ask.text("negative_prompt")?.unwrap_or_default().to_owned(),
        shape: Shape::First(seconds),
        seconds: Some(seconds),
        given: None,
        seed,
    };
    let name = format!("stable_audio_{seed}_{}.wav", now());
    let params = LoopParams { model, spec, settings };
    deliver(app, owner, Wanted { params, given: None, metadata, name, base64 }).await
}

/// `POST /generate/style-transfer`: a whole window that begins with a given sound.
pub(super) async fn style_transfer(app: &App, ask: Ask, owner: Owner) -> Result<Response, Failure> {
    let (audio, prompt) = (ask.audio()?, ask.prompt()?);
    let (seed, base64) = (ask.seed()?, ask.wants_base64()?);
    let strength = ask.number("style_strength", 0.8, (0.1, 1.0))?;
    let guidance = ask.number("cfg_scale", 6.0, (0.0, 20.0))?;
    let settings = LoopSettings { steps: Some(ask.steps(8, 100)?), guidance: Some(guidance), sampler: None };
    let studio = app.studio()?;
    let info = studio.loop_info(None).await?;
    let mut metadata = common(prompt, &settings, &info);
    metadata["style_strength"] = json!(strength);
    let given = studio.read(audio.clone()).await?;
    let seconds = given.sound().map_or(0.0, |sound| sound.seconds());
    let frames = (seconds * f64::from(info.rate.0)).ceil() as usize;
    metadata["input_audio_shape"] = json!([info.channels, frames]);
    let spec = LoopSpec {
        text: prompt.to_owned(),
        avoid: ask.text("negative_prompt")?.unwrap_or_default().to_owned(),
        shape: Shape::Window,
        seconds: Some(VARIED_SECONDS),
        given: Some(Given::Vary(strength)),
        seed,
    };
    let name = format!("style_transfer_{seed}_{}.wav", now());
    let params = LoopParams { model: None, spec, settings };
    deliver(app, owner, Wanted { params, given: Some(given), metadata, name, base64 }).await
}

/// A tempo as the original's clients know it: a whole number where it is one.
fn told_bpm(bpm: f64) -> Value {
    if bpm.fract() == 0.0 { json!(bpm as u64) } else { json!(bpm) }
}

/// The tempo that a prompt names.
fn bpm(prompt: &str) -> Result<f64, Failure> {
    tempo(prompt).ok_or_else(|| "The prompt names no tempo; add one, as in `128bpm`.".to_owned().into())
}

/// Bars of a loop: those that were asked for, halved until they fit; else the most that leave
/// `most` seconds.
fn bars_of(asked: Option<u32>, bpm: f64, most: f64, info: &RenderInfo) -> u32 {
    let fits = |bars: u32| bar_seconds(bpm) * f64::from(bars) <= info.longest_loop();
    match asked {
        Some(asked) => BARS.into_iter().find(|&bars| bars <= asked && fits(bars)).unwrap_or(1),
        None => fitting_bars(bpm, most),
    }
}

/// What a kind of loop adds to a prompt, and what it keeps away from.
fn kind_of_loop(ask: &Ask, prompt: &str, default: &'static str) -> Result<(String, String, String), Failure> {
    let kind = ask.text("loop_type")?.unwrap_or(default);
    let has_drums = prompt.to_lowercase().contains("drum");
    let (text, avoid) = match kind {
        "drums" if has_drums => (prompt.to_owned(), "melody, harmony, pitched instruments, vocals, singing"),
        "drums" => (format!("{prompt} drum loop"), "melody, harmony, pitched instruments, vocals, singing"),
        "instruments" => (without_drums(prompt), "drums, percussion, kick, snare, hi-hat"),
        "auto" => (prompt.to_owned(), ""),
        other => {
            return Err(format!("loop_type is `{}` but must be auto, drums or instruments.", brief(other)).into());
        }
    };
    let avoid = ask.text("negative_prompt")?.unwrap_or(avoid);
    Ok((kind.to_owned(), text, avoid.to_owned()))
}

/// The prompt without the words `drum` and `drums`.
fn without_drums(prompt: &str) -> String {
    let is_drum = |word: &&str| {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        bare == "drum" || bare == "drums"
    };
    prompt.split_whitespace().filter(|word| !is_drum(word)).collect::<Vec<_>>().join(" ")
}

/// What the metadata of every loop tell.
fn of_loop(metadata: &mut Value, (bpm, bars): (f64, u32), original: &str, kind: &str, info: &RenderInfo) {
    let bar = bar_seconds(bpm);
    let told = [
        ("original_prompt", json!(original)),
        ("loop_type", json!(kind)),
        ("bars", json!(bars)),
        ("calculated_duration_seconds", json!(bar * f64::from(bars))),
        ("available_audio_seconds", json!(info.seconds())),
        ("seconds_per_bar", json!(bar)),
    ];
    for (name, value) in told {
        metadata[name] = value;
    }
}

/// `POST /generate/loop`: whole bars at the prompt's tempo, from text, or from a given sound as
/// well.
pub(super) async fn make_loop(app: &App, ask: Ask, owner: Owner) -> Result<Response, Failure> {
    let prompt = ask.prompt()?;
    let (bpm, model, seed) = (bpm(prompt)?, ask.model(app.studio()?, &owner)?, ask.seed()?);
    let (kind, text, avoid) = kind_of_loop(&ask, prompt, "auto")?;
    let (asked, base64) = (ask.bars()?, ask.text("return_format")?.is_some_and(|format| format != "file"));
    let strength = ask.number("style_strength", 0.8, (0.01, 1.0))?;
    let guidance = ask.number("cfg_scale", 6.0, (0.0, 20.0))?;
    let given = ask.audio.clone();
    let info = app.studio()?.loop_info(model.as_ref()).await?;
    let steps = ask.steps(info.steps, 250)?;
    let bars = bars_of(asked, bpm, info.seconds() - FREE_SECONDS, &info);
    let settings = LoopSettings { steps: Some(steps), guidance: Some(guidance), sampler: None };
    let mut metadata = common(&text, &settings, &info);
    of_loop(&mut metadata, (bpm, bars), prompt, &kind, &info);
    metadata["style_transfer"] = json!(given.is_some());
    metadata["style_strength"] = json!(given.as_ref().map(|_| strength));
    metadata["model_type"] = json!(if model.is_some() { "finetune" } else { "standard" });
    let spec = LoopSpec {
        text: told(&text, bpm),
        avoid,
        shape: Shape::Loop { bpm, bars },
        seconds: None,
        given: given.as_ref().map(|_| Given::Vary(strength)),
        seed,
    };
    let name = format!("loop_{kind}_{bpm}bpm_{bars}bars_{seed}.wav");
    let params = LoopParams { model, spec, settings };
    deliver(app, owner, Wanted { params, given: given.map(GivenSound::from), metadata, name, base64 }).await
}

/// The text with its tempo, should that have gone with a word that was taken out.
fn told(text: &str, bpm: f64) -> String {
    if tempo(text) == Some(bpm) { text.to_owned() } else { format!("{text} {bpm}bpm") }
}

/// `POST /generate/loop-guided`: a loop that a given sound pulls towards itself.
pub(super) async fn guided(app: &App, ask: Ask, owner: Owner) -> Result<Response, Failure> {
    let (audio, prompt) = (ask.audio()?, ask.prompt()?);
    let (bpm, model, seed) = (bpm(prompt)?, ask.model(app.studio()?, &owner)?, ask.seed()?);
    let (asked, base64, sampler) = (ask.bars()?, ask.wants_base64()?, ask.sampler()?);
    let mask = match ask.text("guidance_mask")? {
        None | Some("fade") => Mask::Fade,
        Some("full") => Mask::Full,
        Some("first_bar") => Mask::FirstBar,
        Some(other) => {
            return Err(format!("guidance_mask is `{}` but must be fade, full or first_bar.", brief(other)).into());
        }
    };
    let strength = ask.number("guidance_strength", 1.0, (0.0, 10.0))?;
    let weight = |name| ask.number(name, 1.0, (0.0, 10.0));
    let ramp = (weight("guidance_start_weight")?, weight("guidance_end_weight")?);
    // The original reads this and forgets it; who sends it means it.
    let guidance = ask.number("cfg_scale", 1.0, (0.0, 20.0))?;
    let settings = LoopSettings { steps: Some(ask.steps(50, 250)?), guidance: Some(guidance), sampler };
    let info = app.studio()?.loop_info(model.as_ref()).await?;
    let bars = bars_of(asked, bpm, info.longest_loop(), &info);
    let mut metadata = common(prompt, &settings, &info);
    of_loop(&mut metadata, (bpm, bars), prompt, "guided", &info);
    metadata["guidance_strength"] = json!(strength);
    let spec = LoopSpec {
        text: prompt.to_owned(),
        avoid: ask.text("negative_prompt")?.unwrap_or_default().to_owned(),
        shape: Shape::Loop { bpm, bars },
        seconds: Some(bar_seconds(bpm) * f64::from(bars)),
        given: Some(Given::Pull { mask, strength, ramp }),
        seed,
    };
    let name = format!("guided_loop_{:08x}.wav", seed & 0xffff_ffff);
    let params = LoopParams { model, spec, settings };
    deliver(app, owner, Wanted { params, given: Some(audio.into()), metadata, name, base64 }).await
}

/// `POST /generate/loop-with-riff`: a loop that begins with one of the user's riffs, brought to its
/// tempo.
pub(super) async fn with_riff(app: &App, ask: Ask, owner: Owner) -> Result<Response, Failure> {
    let prompt = ask.prompt()?;
    let (bpm, seed, base64) = (bpm(prompt)?, ask.seed()?, ask.wants_base64()?);
    let key = ask.text("key")?.ok_or_else(|| "key is required: a to g, with sharp or without.".to_owned())?;
    let key = key.to_lowercase().replace('#', "sharp").replace([' ', '_'], "");
    let (kind, text, avoid) = kind_of_loop(&ask, prompt, "instruments")?;
    let strength = ask.number("style_strength", 0.8, (0.01, 1.0))?;
    let guidance = ask.number("cfg_scale", 1.0, (0.0, 20.0))?;
    let (asked, steps) = (ask.bars()?, ask.steps(8, 250)?);
    let studio = Arc::clone(app.studio()?);
    let info = studio.loop_info(None).await?;
    let mut keys = studio.renders().riffs().by_key();
    let Some(of_key) = keys.remove(&key) else {
        let there: Vec<&String> = keys.keys().collect();
        let sentence = match there.is_empty() {
            true => "This server has no riffs; start it with --riffs FOLDER.".to_owned(),
            false => format!("There is no riff in the key `{}`; take one of the keys that there are.", brief(&key)),
        };
        return Err(Failure(StatusCode::BAD_REQUEST, sentence, Some(("available_keys", json!(there)))));
    };
    // By the seed, so that the same request makes the same loop.
    let riff = of_key[(seed % of_key.len() as u64) as usize].clone();
    let given: Pcm = work(move || studio.renders().riffs().sound(&riff, bpm)).await?;
    let bars = bars_of(asked, bpm, RIFF_SECONDS.min(info.longest_loop()), &info);
    let settings = LoopSettings { steps: Some(steps), guidance: Some(guidance), sampler: None };
    let mut metadata = common(&text, &settings, &info);
    of_loop(&mut metadata, (bpm, bars), prompt, &kind, &info);
    metadata["style_transfer"] = json!(true);
    metadata["style_strength"] = json!(strength);
    metadata["model_type"] = json!("standard");
    metadata["key"] = json!(key);
    metadata["source"] = json!("personal_riff_library");
    let spec = LoopSpec {
        text: told(&text, bpm),
        avoid,
        shape: Shape::Loop { bpm, bars },
        seconds: Some(VARIED_SECONDS),
        given: Some(Given::Vary(strength)),
        seed,
    };
    let name = format!("loop_{kind}_{bpm}bpm_{bars}bars_{seed}.wav");
    let params = LoopParams { model: None, spec, settings };
    deliver(app, owner, Wanted { params, given: Some(Bytes::from(given.wav()).into()), metadata, name, base64 }).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::SampleRate;

    fn info(window: usize) -> RenderInfo {
        let rate = SampleRate(44_100);
        RenderInfo {
            rate,
            window,
            channels: 2,
            objective: "rf_denoiser",
            steps: 8,
            device: crate::engine::DeviceKind::Cpu,
        }
    }

    #[test]
    fn bars_fit_the_window_at_every_tempo() {
        let info = info(524_288);
        for (bpm, bars) in [(44, 1), (45, 2), (88, 2), (89, 4), (170, 4), (176, 4), (177, 8)] {
            assert_eq!(bars_of(None, f64::from(bpm), info.seconds() - FREE_SECONDS, &info), bars, "{bpm}");
        }
        // What was asked for and is too long is halved until it fits.
        for (asked, bpm, bars) in [(8, 170, 8), (8, 150, 4), (8, 60, 2), (4, 120, 4), (1, 120, 1)] {
            assert_eq!(bars_of(Some(asked), f64::from(bpm), 0.0, &info), bars, "{asked} at {bpm}");
        }
    }

    #[test]
    fn whole_words_are_taken_out_of_a_prompt() {
        assert_eq!(without_drums("Drums and bass, drum loop 120bpm"), "and bass, loop 120bpm");
        assert_eq!(without_drums("drumless strings"), "drumless strings");
    }
}
