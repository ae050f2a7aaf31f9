//! The studio's promises, on the stand-in engine and a real folder.
#![allow(clippy::unwrap_used)]

mod copies;
mod durable;
mod memory;
mod renders;

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
