//! Transforms and loops.

use super::*;

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
