//! Texts are read beside the engine's thread.

use std::sync::{Arc, Mutex, mpsc};

use super::*;

#[tokio::test]
async fn streams_play_on_while_a_new_prompt_is_read() {
    let gate = Arc::new(Mutex::new(()));
    let engine =
        Engine::start(Box::new(Standin::default().with_text_gate(gate.clone())), EngineConfig::default()).unwrap();
    let mut playing = engine.join(spec("piano", 1)).await.unwrap();
    let mut steered = engine.join(spec("piano", 2)).await.unwrap();
    let ((open, opened), (shut, is_shut)) = (mpsc::sync_channel::<()>(1), mpsc::sync_channel(1));
    let keeper = std::thread::spawn(move || {
        let _shut = gate.lock().unwrap();
        shut.send(()).unwrap();
        opened.recv().unwrap_err();
    });
    is_shut.recv().unwrap();
    let control = steered.control();
    let steer = tokio::spawn(async move {
        let prompts = Some(vec![WeightedPrompt::from("strings")]);
        control.steer(Steer { prompts, ..Steer::default() }).await
    });
    let newcomer = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.join(spec("drums", 3)).await })
    };
    // Both sound, also the one that is to change; and a text that is known needs nobody to read it.
    read(&mut playing, LONG).await;
    read(&mut steered, LONG).await;
    read(&mut engine.join(spec("piano", 4)).await.unwrap(), 32_000).await;
    assert!(!steer.is_finished() && !newcomer.is_finished());
    drop(open);
    keeper.join().unwrap();
    steer.await.unwrap().unwrap();
    read(&mut newcomer.await.unwrap().unwrap(), 32_000).await;
}

#[tokio::test]
async fn a_voice_that_moves_to_another_model_has_its_texts_read_by_that_one() {
    let engine = engine();
    engine.add_model(Box::new(Standin::new("other", 8))).await.unwrap();
    let mut voice = engine.join(spec("piano", 1)).await.unwrap();
    let other = ModelId("other".into());
    voice.control().set_model(&other).await.unwrap();
    let prompts = Some(vec![WeightedPrompt::from("cannot be encoded")]);
    let refused = voice.control().steer(Steer { prompts, ..Steer::default() }).await.unwrap_err();
    assert!(matches!(refused, EngineError::Invalid(_)), "{refused}");
    read(&mut voice, LONG).await;
}
