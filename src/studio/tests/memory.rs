//! Which models stay in memory.

use super::*;

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
