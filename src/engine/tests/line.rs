//! Voices that wait for room.

use super::*;

/// A paused voice of an engine that is full, and its place in the line.
async fn waiting(engine: &Engine, seed: u64) -> (Voice, InLine) {
    let voice = engine.join(VoiceSpec { paused: true, ..spec("piano", seed) }).await.unwrap();
    let line = voice.control().resume_when_free().unwrap();
    (voice, line)
}

fn engine_for(max_voices: usize) -> Engine {
    Engine::start(Box::new(Standin::default()), EngineConfig { max_voices, ..EngineConfig::default() }).unwrap()
}

#[tokio::test]
async fn places_that_come_free_are_given_in_the_order_of_the_line() {
    let engine = engine_for(1);
    let first = engine.join(spec("piano", 1)).await.unwrap();
    let (mut second, mut one) = waiting(&engine, 2).await;
    let (mut third, mut two) = waiting(&engine, 3).await;
    let mut place = two.place();
    place.wait_for(|place| place.before == 1).await.unwrap();
    drop(first);
    one.admitted().await.unwrap();
    read(&mut second, 32_000).await;
    place.wait_for(|place| place.before == 0).await.unwrap();
    assert!(matches!(third.read(Samples(1)), Read::Pending), "it waits for its turn");
    drop(second);
    two.admitted().await.unwrap();
    read(&mut third, 32_000).await;
}

#[tokio::test]
async fn nobody_comes_in_before_those_who_wait() {
    let engine = engine_for(2);
    let (_first, second) = (engine.join(spec("a", 1)).await.unwrap(), engine.join(spec("b", 2)).await.unwrap());
    let (_third, mut line) = waiting(&engine, 3).await;
    second.control().pause().await.unwrap();
    line.admitted().await.unwrap();
    let refused = engine.join(spec("c", 4)).await.map(drop).unwrap_err();
    assert!(matches!(refused, EngineError::TooMany { limit: 2, .. }), "{refused}");
}

#[tokio::test]
async fn leaving_the_line_moves_the_others_up() {
    let engine = engine_for(1);
    let first = engine.join(spec("piano", 1)).await.unwrap();
    let (second, one) = waiting(&engine, 2).await;
    let (_third, mut two) = waiting(&engine, 3).await;
    drop(one);
    // The thread hears of it when it looks at the line next.
    drop(first);
    two.admitted().await.unwrap();
    assert!(second.control().pause().await.is_ok(), "it is still there, and paused");
}

#[tokio::test]
async fn whoever_is_left_while_it_waits_is_told_that_it_is_gone() {
    let engine = engine_for(1);
    let first = engine.join(spec("piano", 1)).await.unwrap();
    let (second, mut line) = waiting(&engine, 2).await;
    drop((second, first));
    let gone = line.admitted().await.unwrap_err();
    assert!(matches!(gone, EngineError::Gone(_)), "{gone}");
}

#[tokio::test]
async fn a_voice_with_an_end_tells_when_its_place_comes_free() {
    let engine = engine_for(1);
    let _first = engine.join(VoiceSpec { length: Some(Frames(500)), ..spec("piano", 1) }).await.unwrap();
    let (_second, line) = waiting(&engine, 2).await;
    let (_third, behind) = waiting(&engine, 3).await;
    let place = *line.place().wait_for(|place| place.estimate.is_some()).await.unwrap();
    assert!(place.before == 0 && place.estimate.is_some_and(|estimate| (1.0..=10.0).contains(&estimate)), "{place:?}");
    let behind = *behind.place().wait_for(|place| place.before == 1).await.unwrap();
    assert_eq!(behind.estimate, None, "nobody knows when the one before it will leave");
}
