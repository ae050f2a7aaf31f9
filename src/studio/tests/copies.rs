//! Sessions that go on in another studio, from copies.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, future};

use super::*;

fn short() -> ClipRequest {
    ClipRequest { seconds: Some(2.0), prompt_seconds: Some(1.0), ..ClipRequest::default() }
}

/// Carries a session over, as it is kept.
async fn carry(from: &Studio, to: &Arc<Studio>, session: &SessionId, generation: u64) {
    let copy = from.store().export(session).await.unwrap().unwrap();
    let mut sounds = Vec::new();
    for id in &copy.sounds {
        sounds.push(to.store().keep_as(*id, from.store().read(*id).await.unwrap(), session).await.unwrap());
    }
    to.store().import(SessionCopy { generation, ..copy }, sounds).await.unwrap();
    to.take_up(session).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_in_another_studio_as_if_it_had_always_been_there() {
    let (one, other) = (studio().await, studio().await);
    let taken = one.bang(owner(), None, short(), wav(2.0, 8000, 1)).await.unwrap();
    ended(&one, taken.clip).await;
    let next = one.extend(owner(), Some(taken.session.clone()), short(), None).await.unwrap();
    ended(&one, next.clip).await;
    one.rename(next.clip, Some("second".into())).await.unwrap();
    // The second time it is there already.
    for generation in [2, 3] {
        carry(&one, &other, &taken.session, generation).await;
        let clips = |studio: Arc<Studio>, session: SessionId| async move {
            let clips = studio.store().clips(Some(&session), 10).await.unwrap();
            clips.into_iter().map(|clip| format!("{clip:?}")).collect::<Vec<_>>()
        };
        let session = || taken.session.clone();
        assert_eq!(clips(Arc::clone(&one), session()).await, clips(Arc::clone(&other), session()).await);
        for clip in [taken.clip, next.clip] {
            assert_eq!(one.sound_of_clip(clip).await.unwrap(), other.sound_of_clip(clip).await.unwrap());
        }
        let copy = other.store().export(&taken.session).await.unwrap().unwrap();
        assert_eq!((copy.generation, copy.is_unfinished), (generation, false));
    }
    other.undo(&taken.session).await.unwrap();
    assert_eq!(other.sound_of(&taken.session).await.unwrap(), other.sound_of_clip(taken.clip).await.unwrap());
    let more = other.extend(owner(), Some(taken.session.clone()), short(), None).await.unwrap();
    assert_eq!(ended(&other, more.clip).await, Status::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_in_one_studio_is_made_in_another() {
    let (one, other) = (studio_on(slow(), Store::ephemeral().unwrap()).await, studio().await);
    let request = || ClipRequest { seconds: Some(30.0), seed: Some(5), ..ClipRequest::default() };
    let taken = one.generate(owner(), request()).await.unwrap();
    running(&one, taken.clip).await;
    carry(&one, &other, &taken.session, 2).await;
    one.let_go(&taken.session).await.unwrap();
    assert!(matches!(one.clip(taken.clip).await, Err(StudioError::NoClip(_))));
    assert_eq!(one.load(Lane::Pieces), (0, 0));
    assert_eq!(ended(&other, taken.clip).await, Status::Completed);
    let again = other.generate(owner(), request()).await.unwrap();
    ended(&other, again.clip).await;
    assert_eq!(other.sound_of_clip(taken.clip).await.unwrap(), other.sound_of_clip(again.clip).await.unwrap());
}

/// Says from some moment on that all sessions go on elsewhere.
#[derive(Default)]
struct Gone(AtomicBool);

impl Copies for Gone {
    fn keep<'a>(&'a self, _: &'a Store, _: &'a SessionId) -> BoxFuture<'a, Result<(), StudioError>> {
        let gone = self.0.load(Ordering::SeqCst);
        future::ready(if gone { Err(StudioError::Elsewhere) } else { Ok(()) }).boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_goes_on_elsewhere_is_not_changed_and_its_clip_not_completed_here() {
    let engine = Engine::start(Box::new(slow()), EngineConfig::default()).unwrap();
    let copies = Arc::new(Gone::default());
    let (store, config) = (Store::ephemeral().unwrap(), StudioConfig::default());
    let seam = Some(Arc::clone(&copies) as Arc<dyn Copies>);
    let studio = Studio::start_with(engine, store, None, config, seam).await.unwrap();
    let session = studio.upload(owner(), None, ClipRequest::default(), wav(2.0, 8000, 1)).await.unwrap();
    let taken = studio.extend(owner(), Some(session.clone()), short(), None).await.unwrap();
    let task = studio.task(taken.clip).unwrap();
    copies.0.store(true, Ordering::SeqCst);
    let ended = task.status().wait_for(Status::is_final).await.unwrap().clone();
    assert_eq!(ended, Status::Cancelled);
    assert!(matches!(studio.pin(&session, true).await, Err(StudioError::Elsewhere)));
    assert!(matches!(studio.generate(owner(), short()).await, Err(StudioError::Elsewhere)));
}
