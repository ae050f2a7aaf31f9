#![allow(clippy::unwrap_used)]

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::poll;

use super::super::standin::{Standin, Tones};
use super::super::{EngineConfig, LoopSettings, LoopSpec, RenderSpec, Shape};
use super::*;

/// A server's models: its first takes 100 bytes, others what the end of their name says.
fn models(budget: u64) -> (Engine, ResidentModels) {
    let engine = Engine::start(Box::<Standin>::default(), EngineConfig::default()).unwrap();
    let bytes = |name: &str| name.rsplit('-').next().and_then(|end| end.parse().ok()).unwrap();
    let (at_work, loads) = (Arc::new(AtomicBool::new(false)), engine.clone());
    let loader = VoiceLoader {
        weigh: Arc::new(move |request| Box::pin(async move { Ok(bytes(&request.model)) })),
        load: Arc::new(move |request| {
            let (engine, at_work) = (loads.clone(), Arc::clone(&at_work));
            Box::pin(async move {
                assert!(!at_work.swap(true, Ordering::SeqCst), "two models are loaded at once");
                let backend = Standin::new(&request.model, 8).with_bytes(bytes(&request.model));
                engine.add_model(Box::new(backend)).await.map_err(|error| error.to_string())?;
                at_work.store(false, Ordering::SeqCst);
                Ok(ModelId(request.model))
            })
        }),
    };
    (engine.clone(), ResidentModels::new(engine, Some(loader), budget))
}

fn named(model: &str) -> ModelRequest {
    ModelRequest { model: model.into(), format: None }
}

fn tones(bytes: u64) -> RenderLoader {
    RenderLoader::new(|| Ok(Tones::model(8000, 2))).weighed(move || bytes)
}

fn loaded(engine: &Engine) -> Vec<String> {
    let mut names: Vec<String> = engine.models().iter().map(|model| model.id.0.clone()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_in_one_after_the_other_and_never_exceed_the_budget() {
    const BUDGET: u64 = 350;
    let (engine, models) = models(BUDGET);
    let within = {
        let (engine, models) = (engine.clone(), models.clone());
        move || {
            let voices: u64 = engine.models().iter().map(|model| model.bytes).sum();
            assert!(voices + models.0.shelf.render_bytes() <= BUDGET);
        }
    };
    let tasks: Vec<_> = (0..24)
        .map(|n| {
            let (models, within) = (models.clone(), within.clone());
            tokio::spawn(async move {
                let _lease: Box<dyn std::any::Any + Send> = match n % 4 {
                    0 => Box::new(models.lease_voices(Some("a-100")).await.unwrap()),
                    1 => Box::new(models.lease_voices(Some("b-120")).await.unwrap()),
                    2 => Box::new(models.lease_render(&RenderKey::Transform, &tones(90)).await.unwrap()),
                    _ => Box::new(models.lease_render(&RenderKey::Loop(None), &tones(130)).await.unwrap()),
                };
                within();
                tokio::task::yield_now().await;
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    within();
}

#[tokio::test]
async fn a_leased_model_is_never_evicted_and_the_end_of_its_lease_wakes_who_waits() {
    let (engine, models) = models(250);
    let first = models.lease_voices(Some("a-100")).await.unwrap();
    // The operator's wish, a clip's and a transform's wait alike.
    let mut second = pin!(models.load_voices(named("b-120")));
    assert!(poll!(&mut second).is_pending());
    assert_eq!(loaded(&engine), ["a-100", "standin"]);
    drop(first);
    second.await.unwrap();
    assert_eq!(loaded(&engine), ["b-120", "standin"]);
    // What the operator loaded stays: there will never be room.
    let Err(ResidentError::Failed(refused)) = models.lease_voices(Some("a-100")).await else { panic!("no room") };
    assert!(refused.contains("--model-memory") && refused.contains("cannot be freed"), "{refused}");
}

#[tokio::test]
async fn a_clips_model_stays_once_its_operator_has_asked_for_it() {
    let (engine, models) = models(250);
    let lease = models.lease_voices(Some("a-100")).await.unwrap();
    models.load_voices(named("a-100")).await.unwrap();
    drop(lease);
    let Err(ResidentError::Failed(refused)) = models.lease_voices(Some("b-120")).await else { panic!("no room") };
    assert!(refused.contains("cannot be freed"), "{refused}");
    assert_eq!(loaded(&engine), ["a-100", "standin"]);
}

#[tokio::test]
async fn the_model_that_was_not_wanted_for_longest_goes_whatever_it_is_for() {
    let (engine, models) = models(400);
    let looper = RenderKey::Loop(None);
    drop(models.lease_voices(Some("a-100")).await.unwrap());
    drop(models.lease_render(&RenderKey::Transform, &tones(100)).await.unwrap());
    drop(models.lease_render(&looper, &tones(100)).await.unwrap());
    drop(models.lease_voices(Some("a-100")).await.unwrap());
    drop(models.lease_voices(Some("b-100")).await.unwrap());
    let renders = || models.renders().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(renders(), std::slice::from_ref(&looper));
    drop(models.lease_voices(Some("c-100")).await.unwrap());
    assert_eq!(renders(), []);
    assert_eq!(loaded(&engine), ["a-100", "b-100", "c-100", "standin"]);
    drop(models.lease_render(&looper, &tones(100)).await.unwrap());
    assert_eq!(loaded(&engine), ["b-100", "c-100", "standin"]);
}

#[tokio::test]
async fn work_on_the_engines_thread_keeps_its_model() {
    let (engine, models) = models(250);
    let looper = RenderKey::Loop(None);
    let lease = models.lease_render(&looper, &tones(150)).await.unwrap();
    let spec = LoopSpec {
        text: "pads".into(),
        avoid: String::new(),
        shape: Shape::Window,
        seconds: None,
        given: None,
        seed: 1,
    };
    let job = lease.begin(RenderSpec::Loop(spec, LoopSettings::default()), None).unwrap();
    // Given back, it is listed no more and still takes its memory.
    models.release(&looper);
    assert!(models.renders().is_empty());
    let mut next = Box::pin(models.lease_voices(Some("a-100")));
    assert!(poll!(&mut next).is_pending());
    assert_eq!(loaded(&engine), ["standin"]);
    let pcm = engine.submit(job).finish().await.unwrap();
    assert_eq!(pcm.frames(), 16_000);
    next.await.unwrap();
    assert_eq!(models.0.shelf.render_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_renders_is_given_back_when_nobody_wants_it_for_a_while() {
    let (_engine, models) = models(1000);
    drop(models.lease_render(&RenderKey::Transform, &tones(1)).await.unwrap());
    tokio::time::sleep(IDLE / 2).await;
    let lease = models.lease_render(&RenderKey::Transform, &tones(1)).await.unwrap();
    tokio::time::sleep(IDLE / 4 * 3).await;
    assert_eq!(models.renders().len(), 1);
    drop(lease);
    tokio::time::sleep(IDLE * 2).await;
    assert!(models.renders().is_empty());
}

#[tokio::test]
async fn a_model_without_a_loader_is_named() {
    let engine = Engine::start(Box::<Standin>::default(), EngineConfig::default()).unwrap();
    let models = ResidentModels::new(engine, None, 1000);
    assert_eq!(models.load_voices(named("standin")).await.unwrap(), ModelId("standin".into()));
    assert_eq!(models.load_voices(named("other")).await, Err(ResidentError::NoLoader("other".into())));
}
