//! What a studio holds on to when clients leave, when work ends the server, and when there is no
//! room.

use futures_util::FutureExt;

use super::*;

fn short() -> ClipRequest {
    ClipRequest { seconds: Some(2.0), prompt_seconds: Some(1.0), ..ClipRequest::default() }
}

async fn studio_at_once(backend: Standin, store: Store) -> Arc<Studio> {
    let engine = Engine::start(Box::new(backend), EngineConfig::default()).unwrap();
    let config = StudioConfig { probation: Duration::ZERO, ..StudioConfig::default() };
    Studio::start(engine, store, None, config).await.unwrap()
}

/// Waits until nothing waits or runs.
async fn quiet(studio: &Studio) {
    while Lane::ALL.into_iter().any(|lane| studio.load(lane) != (0, 0)) || !studio.queue().busy.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Bytes of all files among the sounds.
fn bytes_in(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder.join("audio")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// Whether a client leaves before it is answered; one without patience asks and is gone.
async fn leaves<T>(patience: Duration, answer: impl Future<Output = T>) -> bool {
    if patience.is_zero() {
        return answer.now_or_never().is_none();
    }
    tokio::time::timeout(patience, answer).await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_at_any_moment_leave_no_file_and_no_clip_behind() {
    let folder = tempfile::tempdir().unwrap();
    let studio = studio_on(Standin::default(), Store::open(folder.path()).unwrap()).await;
    let audio = wav(2.0, 8000, 1);
    let kept = studio.crop(None, audio.clone()).await.unwrap().0;
    for n in 0..80 {
        let patience = Duration::from_micros(60 * n);
        let owner = Owner(format!("{n}"));
        let left = [
            leaves(patience, studio.bang(owner.clone(), None, short(), audio.clone())).await,
            leaves(patience, studio.generate(owner.clone(), short())).await,
            leaves(patience, studio.crop(None, audio.clone())).await,
            leaves(patience, studio.crop(Some(kept.clone()), audio.clone())).await,
        ];
        if let Ok(Ok(accepted)) =
            tokio::time::timeout(patience, studio.extend(owner, Some(kept.clone()), short(), None)).await
        {
            // Whoever gives it up leaves as well.
            drop(tokio::time::timeout(patience / 4, studio.cancel(accepted.clip)).await);
        }
        assert!(n > 0 || left == [true; 4]);
    }
    quiet(&studio).await;
    studio.stop().await;
    assert!(studio.store().unfinished().await.unwrap().is_empty(), "a clip is starting for ever");
    assert_eq!(studio.store().bytes().await.unwrap(), bytes_in(folder.path()), "a file has no row");
}

#[tokio::test]
async fn a_clip_over_which_the_server_ended_is_made_last_and_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (suspect, other) = {
        let studio = studio_on(slow(), Store::open(folder.path()).unwrap()).await;
        let suspect = studio.generate(owner(), ClipRequest::default()).await.unwrap().clip;
        let other = studio.generate(owner(), ClipRequest::default()).await.unwrap().clip;
        running(&studio, suspect).await;
        studio.stop().await;
        // An end in order counts for nothing.
        assert!(studio.store().unfinished().await.unwrap().iter().all(|record| record.attempts == 0));
        studio.store().begin(suspect).await.unwrap();
        (suspect, other)
    };
    let studio = studio_at_once(slow(), Store::open(folder.path()).unwrap()).await;
    running(&studio, other).await;
    assert!(matches!(studio.clip(suspect).await.unwrap().status, Status::Queued { position: 1, .. }));
    studio.cancel(other).await.unwrap();
    running(&studio, suspect).await;
    let third = studio.generate(owner(), short()).await.unwrap().clip;
    assert_eq!(studio.load(Lane::Pieces), (1, 1), "there is a place, but not beside the suspect");
    assert_eq!(studio.cancel(suspect).await.unwrap(), Status::Cancelled);
    assert_eq!(ended(&studio, third).await, Status::Completed);
}

#[tokio::test]
async fn a_clip_over_which_two_servers_ended_is_given_up_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let accepted = {
        let studio = studio_on(slow(), Store::open(folder.path()).unwrap()).await;
        let accepted = studio.bang(owner(), None, ClipRequest::default(), wav(7.0, 32_000, 1)).await.unwrap();
        running(&studio, accepted.clip).await;
        studio.stop().await;
        for _ in 0..2 {
            studio.store().begin(accepted.clip).await.unwrap();
        }
        accepted
    };
    let studio = studio_at_once(Standin::default(), Store::open(folder.path()).unwrap()).await;
    let Status::Failed(reason) = studio.clip(accepted.clip).await.unwrap().status else { panic!("it is tried again") };
    assert!(reason.contains("ended twice"), "{reason}");
    // Its session goes on.
    let next = studio.extend(owner(), Some(accepted.session), short(), Some(wav(4.0, 32_000, 1))).await.unwrap();
    assert_eq!(ended(&studio, next.clip).await, Status::Completed);
}

#[tokio::test]
async fn a_clip_whose_making_panics_fails_alone() {
    let engine = Engine::start(Box::<Standin>::default(), EngineConfig::default()).unwrap();
    let loader =
        VoiceLoader { weigh: Arc::new(|asked| panic!("no {asked:?}")), load: Arc::new(|asked| panic!("no {asked:?}")) };
    let store = Store::ephemeral().unwrap();
    let studio = Studio::start(engine, store, Some(loader), StudioConfig::default()).await.unwrap();
    let bad = studio.generate(owner(), ClipRequest { model: Some("nobody/has-it".into()), ..short() }).await.unwrap();
    assert!(matches!(ended(&studio, bad.clip).await, Status::Failed(_)));
    let good = studio.generate(owner(), short()).await.unwrap();
    assert_eq!(ended(&studio, good.clip).await, Status::Completed);
    quiet(&studio).await;
}

#[tokio::test]
async fn a_result_that_there_is_no_room_for_is_a_failure_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(Box::<Standin>::default(), EngineConfig::default()).unwrap();
    let config = StudioConfig { retention: Retention { age: None, bytes: Some(200_000) }, ..StudioConfig::default() };
    let studio = Studio::start(engine, Store::open(folder.path()).unwrap(), None, config).await.unwrap();
    let pinned = studio.crop(None, wav(1.0, 32_000, 1)).await.unwrap().0;
    studio.pin(&pinned, true).await.unwrap();
    let fits = studio.generate(owner(), short()).await.unwrap();
    assert_eq!(ended(&studio, fits.clip).await, Status::Completed);
    // Twice as long: the first would go for it, and that is not enough.
    let large = studio.generate(owner(), ClipRequest { seconds: Some(4.0), ..short() }).await.unwrap();
    let Status::Failed(reason) = ended(&studio, large.clip).await else { panic!("there is no room for it") };
    assert!(reason.contains("--keep-gb"), "{reason}");
    assert!(studio.sound_of_clip(fits.clip).await.is_ok(), "nothing goes for what does not fit");
    assert!(bytes_in(folder.path()) <= 200_000);
}

#[tokio::test]
async fn a_small_file_with_a_large_header_makes_a_result_of_usual_size() {
    let studio = studio().await;
    let accepted = studio.extend(owner(), None, short(), Some(wav(0.1, 384_000, 18))).await.unwrap();
    let made = result(&studio, &accepted).await;
    assert_eq!((made.channels, made.rate.0, made.frames()), (2, 96_000, 2 * 96_000));
    let accepted = studio.bang(owner(), None, short(), wav(0.1, 384_000, 18)).await.unwrap();
    let made = result(&studio, &accepted).await;
    assert_eq!((made.channels, made.rate.0, made.frames()), (1, 96_000, 2 * 96_000));
}

#[tokio::test]
async fn what_another_version_kept_in_an_unknown_shape_is_never_made_as_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let accepted = {
        let studio = studio_on(slow(), Store::open(folder.path()).unwrap()).await;
        let accepted = studio.bang(owner(), None, ClipRequest::default(), wav(7.0, 32_000, 1)).await.unwrap();
        running(&studio, accepted.clip).await;
        studio.stop().await;
        accepted
    };
    {
        let table = rusqlite::Connection::open(folder.path().join("studio.db")).unwrap();
        for rows in ["clips", "sessions"] {
            table.execute(&format!("UPDATE {rows} SET params = ?1"), [r#"{"version":99,"length":3}"#]).unwrap();
        }
    }
    let studio = studio_at_once(Standin::default(), Store::open(folder.path()).unwrap()).await;
    let Status::Failed(reason) = ended(&studio, accepted.clip).await else { panic!("it is made as another") };
    assert!(reason.contains("another version"), "{reason}");
    // Its session goes on, once it is said what cannot be remembered.
    let sound = || Some(wav(4.0, 32_000, 1));
    let request = ClipRequest { model: Some(String::new()), prompt_seconds: None, ..short() };
    let refused = studio.extend(owner(), Some(accepted.session.clone()), request, sound()).await.unwrap_err();
    assert!(refused.to_string().contains("name the model"), "{refused}");
    let request = ClipRequest { model: Some(String::new()), ..short() };
    let next = studio.extend(owner(), Some(accepted.session), request, sound()).await.unwrap();
    assert_eq!(ended(&studio, next.clip).await, Status::Completed);
}
