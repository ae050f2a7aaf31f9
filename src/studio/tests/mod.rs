//! The studio's promises, on the stand-in engine and a real folder.
#![allow(clippy::unwrap_used)]

mod copies;
mod durable;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::audio::decode;
use crate::engine::standin::{Standin, Tones, transformer};
use crate::engine::{Engine, EngineConfig, RenderKey, RenderLoader};
use crate::pcm::Pcm;
use crate::units::{ModelId, SampleRate};

fn sound(seconds: f64, rate: u32, channels: usize) -> Pcm {
    let frames = (seconds * f64::from(rate)) as usize;
    let pcm = (0..frames * channels).map(|n| ((n / channels) as f32 * 0.03).sin() * 0.25).collect();
    Pcm { pcm, channels, rate: SampleRate(rate) }
}

fn wav(seconds: f64, rate: u32, channels: usize) -> Bytes {
    sound(seconds, rate, channels).wav().into()
}

fn owner() -> Owner {
    // On this machine, where any model may be named.
    Owner("127.0.0.1".into())
}

fn slow() -> Standin {
    Standin::default().with_step_time(Duration::from_millis(2))
}

async fn studio_on(backend: Standin, store: Store) -> Arc<Studio> {
    let engine = Engine::start(Box::new(backend), EngineConfig::default()).unwrap();
    Studio::start(engine, store, None, StudioConfig::default()).await.unwrap()
}

async fn studio() -> Arc<Studio> {
    studio_on(Standin::default(), Store::ephemeral().unwrap()).await
}

/// Waits for the end of a clip.
async fn ended(studio: &Studio, clip: ClipId) -> Status {
    if let Some(task) = studio.task(clip) {
        return task.status().wait_for(Status::is_final).await.unwrap().clone();
    }
    studio.clip(clip).await.unwrap().status
}

/// Waits until a clip is being made.
async fn running(studio: &Studio, clip: ClipId) {
    let task = studio.task(clip).unwrap();
    task.status().wait_for(|status| matches!(status, Status::Running { .. })).await.unwrap();
}

async fn result(studio: &Studio, accepted: &Accepted) -> Pcm {
    assert_eq!(ended(studio, accepted.clip).await, Status::Completed);
    decode(studio.sound_of_clip(accepted.clip).await.unwrap()).unwrap()
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("audio")).unwrap().count()
}

#[tokio::test]
async fn a_bang_gives_thirty_seconds_at_the_inputs_rate_and_tells_the_contracts_counts() {
    let studio = studio().await;
    let mut events = studio.events();
    let accepted = studio.bang(owner(), None, ClipRequest::default(), wav(8.0, 44_100, 2)).await.unwrap();
    let sound = result(&studio, &accepted).await;
    assert_eq!((sound.frames(), sound.channels, sound.rate.0), (30 * 44_100, 1, 44_100));
    let mut percents = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Status::Running { steps, total } = event.status {
            assert_eq!(total, 1203);
            if steps > 0 {
                percents.push(event.status.percent());
            }
        }
    }
    let expected: Vec<u64> = (1..=24).map(|n| n * 5000 / 1203).collect();
    assert_eq!(percents, expected);
    assert_eq!((percents[0], percents[1], percents[22], percents[23]), (4, 8, 95, 99));
}

#[tokio::test]
async fn continue_retry_and_undo_make_a_chain() {
    let studio = studio().await;
    let bang = studio.bang(owner(), None, ClipRequest::default(), wav(8.0, 48_000, 1)).await.unwrap();
    let first = result(&studio, &bang).await;
    let session = bang.session;
    assert!(matches!(studio.retry(owner(), &session, ClipRequest::default()).await, Err(StudioError::NoInput)));
    assert!(matches!(studio.undo(&session).await, Err(StudioError::NothingToUndo)));
    let before = studio.sound_of(&session).await.unwrap();

    let request = ClipRequest { prompt_seconds: Some(9.0), ..ClipRequest::default() };
    let longer = studio.extend(owner(), Some(session.clone()), request.clone(), None).await.unwrap();
    let longer = result(&studio, &longer).await;
    assert_eq!((longer.frames(), longer.channels), ((30 - 9 + 30) * 48_000, 2));
    let head = 21 * 48_000;
    assert!(longer.pcm[..2 * head] == first.clone().stereo().pcm[..2 * head]);

    // The prompt's length comes from the session, the luck does not.
    let again = studio.retry(owner(), &session, ClipRequest::default()).await.unwrap();
    let again = result(&studio, &again).await;
    assert!(again.frames() == longer.frames() && again.pcm[..2 * head] == longer.pcm[..2 * head]);
    assert!(again.pcm[2 * head + 500_000..] != longer.pcm[2 * head + 500_000..]);

    for _ in 0..2 {
        assert_eq!(
            {
                let undone = studio.undo(&session).await.unwrap();
                studio.store().read(undone).await.unwrap()
            },
            before
        );
        assert_eq!(studio.sound_of(&session).await.unwrap(), before);
    }
}

#[tokio::test]
async fn one_generation_per_session_but_any_number_of_bangs() {
    let studio = studio_on(slow(), Store::ephemeral().unwrap()).await;
    let audio = || Some(wav(7.0, 32_000, 2));
    let first = studio.extend(owner(), None, ClipRequest::default(), audio()).await.unwrap();
    let second = studio.extend(owner(), Some(first.session.clone()), ClipRequest::default(), audio()).await;
    assert!(matches!(second, Err(StudioError::Busy)));
    let bang = studio.bang(owner(), None, ClipRequest::default(), wav(7.0, 32_000, 2)).await.unwrap();
    assert_ne!(bang.session, first.session);
    studio.cancel(bang.clip).await.unwrap();
    assert_eq!(studio.cancel(first.clip).await.unwrap(), Status::Cancelled);
    let third = studio.extend(owner(), Some(first.session), ClipRequest::default(), None).await.unwrap();
    studio.cancel(third.clip).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_clip_leaves_the_engine_and_the_queue() {
    let studio = studio_on(slow(), Store::ephemeral().unwrap()).await;
    let mut accepted = Vec::new();
    for _ in 0..4 {
        accepted.push(studio.generate(owner(), ClipRequest::default()).await.unwrap());
    }
    running(&studio, accepted[0].clip).await;
    running(&studio, accepted[1].clip).await;
    assert_eq!(studio.load(Lane::Pieces), (2, 2));
    for clip in [3, 0, 1, 2] {
        assert_eq!(studio.cancel(accepted[clip].clip).await.unwrap(), Status::Cancelled);
    }
    assert_eq!(studio.load(Lane::Pieces), (0, 0));
    while studio.engine().status().voices > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(studio.clip(accepted[0].clip).await.unwrap().status, Status::Cancelled);
    assert!(matches!(studio.sound_of_clip(accepted[0].clip).await, Err(StudioError::NotReady(_))));
}

#[tokio::test]
async fn what_was_accepted_before_a_restart_is_made_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut accepted = Vec::new();
    {
        let studio = studio_on(slow(), Store::open(folder.path()).unwrap()).await;
        assert!(matches!(Store::open(folder.path()), Err(StudioError::Store(_))), "the folder is in use");
        for _ in 0..3 {
            accepted.push(studio.bang(owner(), None, ClipRequest::default(), wav(7.0, 32_000, 1)).await.unwrap());
        }
        running(&studio, accepted[0].clip).await;
        studio.stop().await;
    }
    std::fs::write(folder.path().join("audio").join("0123.part"), b"half a file").unwrap();
    let studio = studio_on(Standin::default(), Store::open(folder.path()).unwrap()).await;
    for accepted in &accepted {
        assert_eq!(result(&studio, accepted).await.frames(), 960_000);
    }
    assert_eq!(files(folder.path()), 6, "an input and an output each, and nothing else");
    // And again: what is finished is there.
    studio.stop().await;
    drop(studio);
    let studio = studio_on(Standin::default(), Store::open(folder.path()).unwrap()).await;
    assert_eq!(studio.clip(accepted[2].clip).await.unwrap().status, Status::Completed);
    let undelivered = studio.undelivered(&accepted[2].session).await.unwrap().unwrap();
    studio.delivered(undelivered.id).await.unwrap();
    assert!(studio.undelivered(&accepted[2].session).await.unwrap().is_none());
}

fn renders() -> RenderModels {
    RenderModels::new(Presets::default(), Some(RenderLoader::new(transformer)), None)
}

async fn rendering_studio(backend: Standin, store: Store) -> Arc<Studio> {
    let engine = Engine::start(Box::new(backend), EngineConfig::default()).unwrap();
    Studio::start(engine, store, None, StudioConfig { renders: renders(), ..StudioConfig::default() }).await.unwrap()
}

fn celtic() -> TransformRequest {
    TransformRequest { variation: Some("celtic".into()), keeps_rate: true, ..TransformRequest::default() }
}

#[tokio::test]
async fn a_transform_reads_and_writes_a_session_as_the_contract_says() {
    let studio = rendering_studio(Standin::default(), Store::ephemeral().unwrap()).await;
    let mut events = studio.events();
    let input = wav(2.0, 44_100, 1);
    let first = studio.transform(owner(), None, celtic(), Some(input.clone())).await.unwrap();
    let session = first.session.clone();
    let busy = studio.transform(owner(), Some(session.clone()), celtic(), None).await;
    assert!(matches!(busy, Err(StudioError::TransformBusy)));
    let accepted = studio.session(&session).await.unwrap();
    assert!(accepted.transform_input.is_some() && accepted.current.is_none() && accepted.input.is_none());
    let sound = result(&studio, &first).await;
    assert_eq!((sound.frames(), sound.channels, sound.rate.0), (2 * 44_100, 2, 44_100));
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        match event.status {
            Status::Running { steps, total } => told.push((steps, total)),
            Status::Loading => assert!(told.is_empty()),
            _ => {}
        }
    }
    assert_eq!(told, (1..=75).map(|step| (step, 75)).collect::<Vec<_>>());
    let done = studio.session(&session).await.unwrap();
    assert_eq!((done.input, done.params), (done.transform_input, Params::default()));
    let undone = studio.undo(&session).await.unwrap();
    assert_eq!(studio.store().read(undone).await.unwrap(), input);
    // From what the session has now; the retry after it goes on from the sound before the
    // transform.
    let second = studio.transform(owner(), Some(session.clone()), celtic(), None).await.unwrap();
    result(&studio, &second).await;
    let request = ClipRequest { prompt_seconds: Some(1.0), ..ClipRequest::default() };
    let retried = studio.retry(owner(), &session, request).await.unwrap();
    let retried = result(&studio, &retried).await;
    assert_eq!(retried.frames(), 31 * 44_100);
    let before = decode(&input).unwrap().stereo();
    assert!(retried.pcm[..44_100] == before.pcm[..44_100]);
    for (session, audio) in [(None, None), (Some(SessionId::random()), None)] {
        let refused = studio.transform(owner(), session, celtic(), audio).await;
        assert!(matches!(refused, Err(StudioError::NoAudio | StudioError::NoSession(_))));
    }
}

#[tokio::test]
async fn a_transform_waits_in_a_lane_of_its_own_and_can_be_given_up() {
    let studio = rendering_studio(slow(), Store::ephemeral().unwrap()).await;
    let piece = studio.generate(owner(), ClipRequest::default()).await.unwrap();
    let long = Some(wav(60.0, 8000, 1));
    let first = studio.transform(owner(), None, celtic(), long.clone()).await.unwrap();
    let second = studio.transform(owner(), None, celtic(), long).await.unwrap();
    running(&studio, piece.clip).await;
    running(&studio, first.clip).await;
    assert_eq!((studio.load(Lane::Pieces), studio.load(Lane::Transforms)), ((0, 1), (1, 1)));
    for clip in [second.clip, first.clip, piece.clip] {
        assert_eq!(studio.cancel(clip).await.unwrap(), Status::Cancelled);
    }
    assert_eq!((studio.load(Lane::Pieces), studio.load(Lane::Transforms)), ((0, 0), (0, 0)));
    // Whoever waits for a sound and leaves gives it up.
    let third = studio.transform(owner(), None, celtic(), Some(wav(60.0, 8000, 1))).await.unwrap();
    let task = studio.task(third.clip).unwrap();
    drop(tokio::time::timeout(Duration::from_millis(1), studio.outcome(third.clip)).await);
    assert_eq!(*task.status().wait_for(Status::is_final).await.unwrap(), Status::Cancelled);
}

#[tokio::test]
async fn a_transform_that_was_accepted_before_a_restart_is_made_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut accepted = Vec::new();
    {
        let studio = rendering_studio(Standin::default(), Store::open(folder.path()).unwrap()).await;
        for seconds in [30.0, 2.0] {
            let request = TransformRequest { seed: Some(9), ..celtic() };
            accepted.push(studio.transform(owner(), None, request, Some(wav(seconds, 8000, 1))).await.unwrap());
        }
        running(&studio, accepted[0].clip).await;
        studio.stop().await;
    }
    let mut made = Vec::new();
    for _ in 0..2 {
        let studio = rendering_studio(Standin::default(), Store::open(folder.path()).unwrap()).await;
        for (accepted, frames) in accepted.iter().zip([30 * 8000, 2 * 8000]) {
            let sound = result(&studio, accepted).await;
            assert_eq!(sound.frames(), frames);
            made.push(sound);
        }
        studio.stop().await;
    }
    // What was made is there after another restart.
    assert!(made[0] == made[2] && made[1] == made[3]);
    assert_eq!(files(folder.path()), 4, "an input and an output each, and nothing else");
}

#[tokio::test]
async fn models_of_transforms_and_loops_share_the_memory_with_the_others() {
    let transforms = RenderLoader::new(|| Ok(Tones::model(8000, 3))).weighed(|| 1000);
    let loops = RenderLoader::new(|| Ok(Tones::model(8000, 8))).weighed(|| 1000);
    let renders = RenderModels::new(Presets::default(), Some(transforms), Some(loops));
    let engine = Engine::start(Box::<Standin>::default(), EngineConfig::default()).unwrap();
    let used: u64 = engine.models().iter().map(|model| model.bytes).sum();
    let start = async |memory: u64| {
        let config = StudioConfig { renders: renders.clone(), model_memory: memory, ..StudioConfig::default() };
        Studio::start(engine.clone(), Store::ephemeral().unwrap(), None, config).await.unwrap()
    };
    let studio = start(used + 1500).await;
    studio.loop_info(None).await.unwrap();
    assert_eq!(studio.held_loops().unwrap().len(), 1);
    // One of them at a time: the loop model gives way.
    let made = studio.transform(owner(), None, celtic(), Some(wav(1.0, 8000, 1))).await.unwrap();
    result(&studio, &made).await;
    assert!(studio.held_loops().unwrap().is_empty());
    assert!(studio.holds(&RenderKey::Transform).unwrap());
    studio.loop_info(None).await.unwrap();
    assert!(!studio.holds(&RenderKey::Transform).unwrap());
    // Never enough: a sentence.
    studio.clear_loops().unwrap();
    let small = start(used + 500).await;
    let refused = small.loop_info(None).await.unwrap_err().to_string();
    assert!(refused.contains("--model-memory"), "{refused}");
}

#[tokio::test]
async fn the_same_seed_makes_the_same_clip() {
    let request = ClipRequest { seed: Some(5), seconds: Some(10.0), ..ClipRequest::default() };
    let mut made = Vec::new();
    for _ in 0..2 {
        let studio = studio().await;
        let accepted = studio.bang(owner(), None, request.clone(), wav(7.0, 44_100, 1)).await.unwrap();
        ended(&studio, accepted.clip).await;
        made.push(studio.sound_of_clip(accepted.clip).await.unwrap());
    }
    assert_eq!(made[0], made[1]);
}

#[tokio::test]
async fn bad_input_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let studio = studio_on(Standin::default(), Store::open(folder.path()).unwrap()).await;
    let unknown = SessionId::random();
    let good = || wav(7.0, 32_000, 1);
    let too_long = ClipRequest { prompt_seconds: Some(30.0), ..ClipRequest::default() };
    for bad in [Bytes::new(), Bytes::from_static(b"no music"), sound(0.0, 32_000, 1).wav().into(), wav(700.0, 8000, 1)]
    {
        assert!(matches!(
            studio.bang(owner(), None, ClipRequest::default(), bad.clone()).await,
            Err(StudioError::Audio(_))
        ));
        assert!(studio.crop(None, bad.clone()).await.is_err());
        assert!(studio.restore(None, None, bad.clone()).await.is_err());
        assert!(studio.extend(owner(), None, ClipRequest::default(), Some(bad)).await.is_err());
    }
    assert!(matches!(studio.bang(owner(), None, too_long, good()).await, Err(StudioError::OutOfBounds { .. })));
    let nobody = studio.extend(owner(), Some(unknown.clone()), ClipRequest::default(), None).await;
    assert!(matches!(nobody, Err(StudioError::NoSession(_))));
    assert!(matches!(studio.extend(owner(), None, ClipRequest::default(), None).await, Err(StudioError::Invalid(_))));
    assert!(matches!(studio.retry(owner(), &unknown, ClipRequest::default()).await, Err(StudioError::NoSession(_))));
    assert!(matches!(studio.undo(&unknown).await, Err(StudioError::NoSession(_))));
    assert!(studio.store().sessions(10).await.unwrap().is_empty());
    assert_eq!((files(folder.path()), studio.load(Lane::Pieces)), (0, (0, 0)));
    // A model that nobody has fails later, with a sentence, and the session can be used again.
    let request = ClipRequest { model: Some("nobody/has-it".into()), ..ClipRequest::default() };
    let accepted = studio.bang(owner(), None, request, good()).await.unwrap();
    let Status::Failed(reason) = ended(&studio, accepted.clip).await else { panic!("it has no model") };
    assert!(reason.contains("nobody/has-it"), "{reason}");
}

#[tokio::test]
async fn crop_and_restore_put_a_sound_in_place() {
    let studio = studio().await;
    let (session, created) = studio.crop(None, wav(10.0, 44_100, 1)).await.unwrap();
    assert!(created);
    let (same, created) = studio.crop(Some(session.clone()), wav(4.0, 44_100, 1)).await.unwrap();
    assert!(same == session && !created);
    let accepted = studio.extend(owner(), Some(session), ClipRequest::default(), None).await.unwrap();
    // Shorter than its prompt: the piece is all there is.
    assert_eq!(result(&studio, &accepted).await.frames(), 30 * 44_100);
    let request = ClipRequest { model: Some("standin".into()), prompt_seconds: Some(3.0), ..ClipRequest::default() };
    let restored = studio.restore(None, Some(request), wav(10.0, 44_100, 1)).await.unwrap();
    assert_eq!(studio.session(&restored).await.unwrap().params.prompt_seconds, 3.0);
    assert_eq!(studio.sound_of(&restored).await.unwrap(), wav(10.0, 44_100, 1));
    // An unknown session comes to life with the sound that a client sends.
    let brought = SessionId::parse("brought-by-a-client").unwrap();
    let audio = Some(wav(10.0, 44_100, 1));
    let accepted = studio.extend(owner(), Some(brought.clone()), ClipRequest::default(), audio).await.unwrap();
    assert_eq!(accepted.session, brought);
    assert_eq!(result(&studio, &accepted).await.frames(), 34 * 44_100);
}

/// A studio whose decodings are counted, within so many bytes for requests.
async fn counted(bytes: u64) -> (Arc<Studio>, crate::sandbox::Sandbox) {
    let engine = Engine::start(Box::new(slow()), EngineConfig::default()).unwrap();
    let (sandbox, budget) = (crate::sandbox::Sandbox::in_process(), crate::budget::Budget::new(bytes));
    let config = StudioConfig { sandbox: sandbox.clone(), budget, ..StudioConfig::default() };
    (Studio::start(engine, Store::ephemeral().unwrap(), None, config).await.unwrap(), sandbox)
}

#[tokio::test]
async fn an_upload_is_decoded_once_for_its_clip_and_whoever_listens_meanwhile() {
    let (studio, sandbox) = counted(256 << 20).await;
    let request =
        || ClipRequest { seconds: Some(4.0), prompt_seconds: Some(1.0), seed: Some(7), ..ClipRequest::default() };
    let accepted = studio.extend(owner(), None, request(), Some(wav(8.0, 44_100, 2))).await.unwrap();
    let mut preview = studio.preview(accepted.clip).await.unwrap().unwrap();
    let mut heard = 0;
    while let Some(part) = preview.next().await.unwrap() {
        heard += part.frames();
    }
    assert_eq!(ended(&studio, accepted.clip).await, Status::Completed);
    let made = result(&studio, &accepted).await;
    assert_eq!((heard, sandbox.decoded()), (made.frames(), 1));
    drop(preview);
    assert_eq!(studio.config.budget.free(), studio.config.budget.bytes(), "nothing is kept after the end");
    // Where it does not fit beside what comes and goes it is read from disk, and the clip is the
    // same.
    let (small, sandbox) = counted(4 << 20).await;
    let accepted = small.extend(owner(), None, request(), Some(wav(8.0, 44_100, 2))).await.unwrap();
    assert_eq!(ended(&small, accepted.clip).await, Status::Completed);
    assert_eq!(sandbox.decoded(), 2);
    assert_eq!(result(&small, &accepted).await, made);
}

#[tokio::test]
async fn a_clip_can_be_heard_while_it_is_made() {
    let studio = studio_on(slow(), Store::ephemeral().unwrap()).await;
    let request = ClipRequest { seconds: Some(4.0), prompt_seconds: Some(1.0), ..ClipRequest::default() };
    let accepted = studio.generate(owner(), request).await.unwrap();
    let task = studio.task(accepted.clip).unwrap();
    let (mut heard, mut parts) = (0, 0);
    while let Some(part) = task.hear(heard).await {
        heard += part.pcm.len();
        parts += 1;
    }
    assert_eq!(heard, 4 * 32_000);
    assert!(parts > 2, "it came in {parts} parts");
    assert_eq!(ended(&studio, accepted.clip).await, Status::Completed);
}

#[tokio::test]
async fn what_is_old_or_too_much_is_removed_but_not_what_is_pinned() {
    let folder = tempfile::tempdir().unwrap();
    let studio = studio_on(Standin::default(), Store::open(folder.path()).unwrap()).await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(studio.crop(None, wav(1.0, 32_000, 1)).await.unwrap().0);
    }
    studio.pin(&sessions[0], true).await.unwrap();
    let size = wav(1.0, 32_000, 1).len() as u64;
    let keep = Retention { age: Some(Duration::from_secs(3600)), bytes: Some(2 * size) };
    assert_eq!(studio.store().sweep(keep).await.unwrap(), 2);
    assert_eq!((studio.store().bytes().await.unwrap(), files(folder.path())), (2 * size, 2));
    assert!(studio.session(&sessions[0]).await.is_ok());
    let all = Retention { age: None, bytes: Some(0) };
    studio.store().sweep(all).await.unwrap();
    assert_eq!(files(folder.path()), 1);
    studio.remove_session(&sessions[0]).await.unwrap();
    assert_eq!(files(folder.path()), 0);
}

/// A loader of stand-ins whose names say how much memory they take.
fn shelves(engine: &Engine) -> VoiceLoader {
    fn bytes(name: &str) -> Result<u64, String> {
        name.rsplit('-').next().and_then(|end| end.parse().ok()).ok_or_else(|| format!("There is no `{name}`."))
    }
    let engine = engine.clone();
    VoiceLoader {
        weigh: Arc::new(|request| Box::pin(async move { bytes(&request.model) })),
        load: Arc::new(move |request| {
            let engine = engine.clone();
            Box::pin(async move {
                let name = request.model;
                let model = Standin::new(&name, 8).with_bytes(bytes(&name)?).with_step_time(Duration::from_micros(500));
                let loaded = engine.add_model(Box::new(model)).await;
                loaded.map(|()| ModelId(name)).map_err(|error| error.to_string())
            })
        }),
    }
}

async fn studio_with_memory(bytes: u64) -> Arc<Studio> {
    // The default model takes 100 of it.
    let engine = Engine::start(Box::<Standin>::default(), EngineConfig::default()).unwrap();
    let config = StudioConfig { model_memory: bytes, ..StudioConfig::default() };
    let loader = shelves(&engine);
    Studio::start(engine, Store::ephemeral().unwrap(), Some(loader), config).await.unwrap()
}

fn short_on(model: &str) -> ClipRequest {
    ClipRequest { model: Some(model.into()), seconds: Some(2.0), prompt_seconds: Some(1.0), ..ClipRequest::default() }
}

fn loaded(studio: &Studio) -> Vec<String> {
    let mut names: Vec<String> = studio.engine().models().iter().map(|model| model.id.0.clone()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn models_stay_while_there_is_memory_and_the_one_unused_for_longest_goes() {
    let studio = studio_with_memory(250).await;
    for (model, then) in [
        ("a-50", vec!["a-50", "standin"]),
        ("b-100", vec!["a-50", "b-100", "standin"]),
        ("a-50", vec!["a-50", "b-100", "standin"]),
        // One must go for it: not the one that was used last.
        ("c-60", vec!["a-50", "c-60", "standin"]),
        // Both must.
        ("d-150", vec!["d-150", "standin"]),
    ] {
        let accepted = studio.generate(owner(), short_on(model)).await.unwrap();
        assert_eq!(ended(&studio, accepted.clip).await, Status::Completed, "{model}");
        assert_eq!(loaded(&studio), then, "{model}");
    }
    // What never fits is said at once, and nothing goes for it.
    for (model, word) in [("e-151", "--model-memory"), ("nonsense", "no `nonsense`")] {
        let accepted = studio.generate(owner(), short_on(model)).await.unwrap();
        let Status::Failed(reason) = ended(&studio, accepted.clip).await else { panic!("{model} cannot be loaded") };
        assert!(reason.contains(word), "{reason}");
        assert_eq!(loaded(&studio), ["d-150", "standin"]);
    }
}

#[tokio::test]
async fn a_model_in_use_is_waited_for_and_one_that_a_stream_plays_on_stays() {
    let studio = studio_with_memory(300).await;
    let long = ClipRequest { seconds: Some(20.0), ..short_on("a-150") };
    let first = studio.generate(owner(), long).await.unwrap();
    running(&studio, first.clip).await;
    let second = studio.generate(owner(), short_on("b-120")).await.unwrap();
    assert_eq!(ended(&studio, second.clip).await, Status::Completed);
    assert_eq!(studio.clip(first.clip).await.unwrap().status, Status::Completed, "it was not disturbed");
    assert_eq!(loaded(&studio), ["b-120", "standin"]);

    let spec =
        crate::engine::VoiceSpec { model: Some(ModelId("b-120".into())), ..crate::engine::VoiceSpec::endless("x") };
    let stream = studio.engine().join(spec).await.unwrap();
    let third = studio.generate(owner(), short_on("c-100")).await.unwrap();
    let Status::Failed(reason) = ended(&studio, third.clip).await else { panic!("there is no memory for it") };
    assert!(reason.contains("cannot be freed now"), "{reason}");
    drop(stream);
    while studio.engine().status().voices > 0 {
        tokio::task::yield_now().await;
    }
    let fourth = studio.generate(owner(), short_on("c-100")).await.unwrap();
    assert_eq!(ended(&studio, fourth.clip).await, Status::Completed);
}
