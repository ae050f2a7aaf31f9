//! More streams than the machine carries.

use std::sync::atomic::Ordering;

use super::tone::Machine;
use super::*;
use crate::engine::{EngineError, Steer};

/// A listener that takes everything for `seconds`.
fn take(stream: &Arc<Stream>, seconds: f64) -> tokio::task::JoinHandle<f64> {
    let mut listener = stream.listen(WAV).unwrap();
    tokio::spawn(async move {
        hear(&mut listener, seconds).await.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() as f64
    })
}

fn underruns(streams: &[Arc<Stream>]) -> Vec<u64> {
    streams.iter().map(|stream| stream.info().underruns).collect()
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_wait_until_the_others_are_whole_and_nobody_else_stops() {
    let station = station();
    let machine = Machine::new(|_| 6.5);
    let streams: Vec<_> = (0..9).map(|_| play(&station, Tone::on(&machine), spec())).collect();
    let takers: Vec<_> = streams.iter().map(|stream| take(stream, 900.0)).collect();
    pass(40).await;
    let first = underruns(&streams);
    assert!(station.load().waiting >= 3, "{:?}", station.load());
    let waiting = streams[8].info().waiting.unwrap();
    assert!(waiting.retry_after > 0 && waiting.reason.contains("fallen behind"), "{waiting:?}");
    for _ in 0..4 {
        pass(60).await;
        assert_eq!(underruns(&streams)[..6], first[..6], "those that play go on without a stop");
    }
    assert!(first[..6].iter().all(|&count| count == 0), "{first:?}");
    assert!(streams[8].info().waiting.is_some());
    // Three leave: there is room for the rest.
    for stream in &streams[..3] {
        station.delete(stream.id()).await.unwrap();
    }
    pass(320).await;
    assert!(streams[3..].iter().all(|stream| stream.info().waiting.is_none()), "{:?}", station.load());
    let settled = underruns(&streams);
    pass(60).await;
    assert_eq!(underruns(&streams), settled);
    drop(takers);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_told_in_events_and_refuses_new_listeners() {
    let station = station();
    let machine = Machine::new(|_| 2.3);
    let streams: Vec<_> = (0..3).map(|_| play(&station, Tone::on(&machine), spec())).collect();
    let mut events = streams[2].events();
    let _takers: Vec<_> = streams.iter().map(|stream| take(stream, 120.0)).collect();
    let told = loop {
        if let Some(Event::Status(info)) = events.recv().await
            && let Some(waiting) = info.waiting
        {
            break waiting;
        }
    };
    assert!(told.retry_after > 0);
    let refused = streams[2].join(OGG).await.err().unwrap();
    assert!(matches!(refused, StationError::Waiting { retry_after: 1.. }), "{refused}");
    assert!(streams[0].join(OGG).await.is_ok(), "the others take listeners as before");
    let newer = station.start(Tone::on(&machine), spec(), Instant::now()).err().unwrap();
    assert!(matches!(newer, StationError::Waiting { retry_after: 1.. }), "nobody overtakes: {newer}");
}

#[tokio::test(start_paused = true)]
async fn a_single_slow_stream_never_waits_and_a_standstill_is_soon_forgotten() {
    let slow = station();
    let stream = play(&slow, Tone::at(0.7), spec());
    let _taker = take(&stream, 300.0);
    pass(300).await;
    assert!(stream.info().underruns > 0 && slow.load().waiting == 0);

    let station = station();
    let machine = Machine::new(|at| if (60.0..75.0).contains(&at) { 0.0 } else { 20.0 });
    let streams: Vec<_> = (0..4).map(|_| play(&station, Tone::on(&machine), spec())).collect();
    let _takers: Vec<_> = streams.iter().map(|stream| take(stream, 200.0)).collect();
    pass(120).await;
    assert!(streams.iter().all(|stream| stream.info().state == StreamState::Playing));
    assert_eq!(station.load().waiting, 0);
    assert!(underruns(&streams).iter().all(|&count| count <= 1), "{:?}", underruns(&streams));
}

#[tokio::test(start_paused = true)]
async fn steering_is_no_sign_of_a_slow_machine() {
    let station = station();
    let machine = Machine::new(|_| 8.0);
    let streams: Vec<_> = (0..4).map(|_| play(&station, Tone::on(&machine), spec())).collect();
    let _takers: Vec<_> = streams.iter().map(|stream| take(stream, 200.0)).collect();
    pass(20).await;
    for _ in 0..100 {
        streams[0].steer(Steer { prompts: Some(vec!["rain".into()]), ..Steer::default() }).await.unwrap();
        pass(1).await;
        assert_eq!(station.load().waiting, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_run_dry_again_and_again_are_told_as_such() {
    let station = station();
    // Slower and slower: every store is too small.
    let machine = Machine::new(|at| 0.5 * 0.97f64.powf(at / 10.0));
    let streams: Vec<_> = (0..2).map(|_| play(&station, Tone::on(&machine), spec())).collect();
    let takers: Vec<_> = streams.iter().map(|stream| take(stream, 400.0)).collect();
    assert_eq!(station.load(), Load { behind: Duration::ZERO, waiting: 0 });
    let mut waited = 0;
    for _ in 0..40 {
        pass(10).await;
        waited = waited.max(station.load().waiting);
    }
    assert_eq!(waited, 1, "one of two waits");
    drop(takers);
}

#[tokio::test(start_paused = true)]
async fn a_refused_resume_tells_its_listener() {
    let station = station();
    for idle in [Idle::Pause, Idle::Wait] {
        let tone = Tone::new();
        let seen = tone.seen.clone();
        seen.paused.store(idle == Idle::Wait, Ordering::Relaxed);
        let stream = play(&station, tone, StreamSpec { idle, ..spec() });
        pass(31).await;
        assert_eq!(stream.info().state, StreamState::Idle);
        seen.refused.store(true, Ordering::Relaxed);
        let refused = stream.join(OGG).await.err().unwrap();
        assert!(matches!(refused, StationError::Engine(EngineError::Full { .. })), "{refused}");
        pass(1).await;
        assert_eq!((stream.info().state, stream.info().listeners), (StreamState::Idle, 0));
        seen.refused.store(false, Ordering::Relaxed);
        let mut listener = stream.join(OGG).await.unwrap();
        assert!(!hear(&mut listener, 1.0).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_came_before_the_refusal_hears_the_stream_when_there_is_room() {
    let station = station();
    let tone = Tone::new();
    let seen = tone.seen.clone();
    let stream = play(&station, tone, spec());
    pass(31).await;
    seen.refused.store(true, Ordering::Relaxed);
    // Without asking first, as one that comes in the same moment as the pause.
    let mut listener = stream.listen(OGG).unwrap();
    hear(&mut listener, 7.9).await;
    let played = stream.info();
    assert!(played.waiting.is_some(), "{played:?}");
    seen.refused.store(false, Ordering::Relaxed);
    assert!(!hear(&mut listener, 20.0).await.is_empty());
    assert!(stream.info().waiting.is_none());
}
