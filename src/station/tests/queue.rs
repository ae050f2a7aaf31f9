//! Streams that wait for room on a full machine.

use super::*;
use crate::engine::Place;
use tone::Line;

const PATIENCE: Duration = Duration::from_secs(30);

/// A stream that may wait for [`PATIENCE`], and the engine's end of the line in which it stands.
async fn queued(station: &Station, idle: Idle) -> (Arc<Stream>, Line) {
    let tone = Tone::new();
    let seen = tone.seen.clone();
    let stream = play(station, tone, StreamSpec { wait: Some(PATIENCE), idle, ..spec() });
    assert_eq!(stream.info().state, StreamState::Queued);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let line = seen.line.lock().unwrap().take().unwrap();
    (stream, line)
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_its_place_in_the_line_and_plays_once_there_is_room() {
    let station = station();
    let (stream, (admit, place)) = queued(&station, Idle::Pause).await;
    let mut events = stream.events();
    let joining = tokio::spawn({
        let stream = stream.clone();
        async move { stream.join(OGG).await }
    });
    place.send(Place { before: 2, estimate: Some(7.2) }).unwrap();
    let told = loop {
        if let Some(Event::Status(info)) = events.recv().await
            && let Some(waiting) = info.waiting.filter(|waiting| waiting.before == Some(2))
        {
            assert_eq!(info.state, StreamState::Queued);
            break waiting;
        }
    };
    assert_eq!(told.retry_after, 8);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!joining.is_finished(), "its listeners wait with it");
    admit.send(Ok(())).unwrap();
    let mut listener = joining.await.unwrap().unwrap();
    let heard = hear(&mut listener, 4.0).await;
    assert!(ogg_seconds(&joined(&heard)) > 4.0);
    let info = stream.info();
    assert!(info.state == StreamState::Playing && info.waiting.is_none(), "{info:?}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_ne!(stream.info().state, StreamState::Ended, "its patience is no length");
}

#[tokio::test(start_paused = true)]
async fn patience_that_runs_out_ends_in_a_sentence() {
    let station = station();
    let (stream, (_admit, place)) = queued(&station, Idle::Pause).await;
    place.send(Place { before: 1, estimate: None }).unwrap();
    let began = Instant::now();
    let refused = stream.join(OGG).await.err().unwrap();
    assert!(matches!(refused, StationError::NoRoom { waited: 30, before: 1, retry_after: 10 }), "{refused}");
    assert!((29.0..31.0).contains(&began.elapsed().as_secs_f64()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stream.info().state, StreamState::Ended);
    assert!(stream.info().reason.unwrap().starts_with("No room came free within 30 s; 1 stream"));
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_gives_the_place_in_the_line_up() {
    let station = station();
    let (stream, (admit, _place)) = queued(&station, Idle::End).await;
    let joining = tokio::spawn({
        let stream = stream.clone();
        async move { stream.join(OGG).await }
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(stream.info().state, StreamState::Queued);
    joining.abort();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(stream.has_ended() && admit.is_closed());
}

#[tokio::test(start_paused = true)]
async fn streams_that_were_heard_before_go_on_first() {
    let station = station();
    let machine = tone::Machine::new(|_| 2.3);
    let streams: Vec<_> = (0..3).map(|_| play(&station, Tone::on(&machine), spec())).collect();
    let mut listeners: Vec<_> = streams.iter().map(|stream| stream.listen(WAV).unwrap()).collect();
    let [one, two, three] = &mut listeners[..] else { unreachable!() };
    tokio::join!(hear(one, 40.0), hear(two, 40.0), hear(three, 40.0));
    assert!(station.load().waiting > 0);
    let tone = Tone::new();
    let seen = tone.seen.clone();
    let newcomer = play(&station, tone, StreamSpec { wait: Some(Duration::from_secs(600)), ..spec() });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(seen.line.lock().unwrap().is_none() && newcomer.info().state == StreamState::Queued);
    drop(listeners);
    for stream in &streams {
        station.delete(stream.id()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(seen.line.lock().unwrap().is_some(), "now it stands in the line");
}
