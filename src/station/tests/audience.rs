//! Streams that nobody hears, limits, names, and the end.

use std::sync::atomic::Ordering;

use super::*;
use crate::telemetry;

#[tokio::test(start_paused = true)]
async fn a_station_pauses_when_nobody_hears_it_and_goes_on_for_the_next() {
    let station = station();
    let tone = Tone::new();
    let seen = tone.seen.clone();
    let stream = play(&station, tone, StreamSpec { name: Some("sine".into()), ..spec() });
    let mut listener = stream.listen(OGG).unwrap();
    hear(&mut listener, 5.0).await;
    drop(listener);
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(stream.info().state, StreamState::Playing);
    assert!(seen.seconds() > 34.0, "it plays on during the grace time");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stream.info().state, StreamState::Idle);
    assert!(seen.paused.load(Ordering::Relaxed));
    let (reads, playhead) = (seen.reads.load(Ordering::Relaxed), stream.info().playhead);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(seen.reads.load(Ordering::Relaxed), reads, "an idle stream does nothing");
    let mut listener = stream.listen(OGG).unwrap();
    let heard = hear(&mut listener, 4.0).await;
    assert_eq!(stream.info().state, StreamState::Playing);
    assert!(!seen.paused.load(Ordering::Relaxed));
    assert!((5.7..=6.1).contains(&ogg_seconds(&joined(&heard))), "a burst at once, then real time");
    assert!((stream.info().playhead - playhead - 6.0).abs() < 0.3);
    assert_eq!(stream.info().underruns, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_came_for_pauses_too() {
    let station = station();
    let tone = Tone::new();
    let seen = tone.seen.clone();
    let stream = play(&station, tone, spec());
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(stream.info().state, StreamState::Idle);
    assert!(seen.paused.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_name_is_forgotten_after_an_hour() {
    let station = station();
    let stream = play(&station, Tone::new(), spec());
    tokio::time::sleep(Duration::from_secs(3590)).await;
    assert_eq!(stream.info().state, StreamState::Idle);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(stream.info().state, StreamState::Ended);
    assert_eq!(stream.info().reason.as_deref(), Some("nobody listened for an hour"));
    assert!(station.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_station_can_wait_for_its_first_listener() {
    let station = station();
    let tone = Tone::new();
    let seen = tone.seen.clone();
    // The station asks the engine for a voice that is paused from the beginning.
    seen.paused.store(true, Ordering::Relaxed);
    let stream = play(&station, tone, StreamSpec { idle: Idle::Wait, ..spec() });
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(stream.info().state, StreamState::Idle);
    assert!(seen.paused.load(Ordering::Relaxed));
    let mut listener = stream.listen(OGG).unwrap();
    hear(&mut listener, 1.0).await;
    assert!(!seen.paused.load(Ordering::Relaxed));
    drop(listener);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(stream.info().state, StreamState::Playing, "afterwards it has the usual grace time");
}

#[tokio::test(start_paused = true)]
async fn without_a_burst_there_is_still_sound() {
    let station = station_with(StationConfig { burst: 0.0, ..StationConfig::default() });
    let stream = play(&station, Tone::new(), spec());
    let mut listener = stream.listen(OGG).unwrap();
    let seconds = ogg_seconds(&joined(&hear(&mut listener, 5.0).await));
    assert!((4.8..=5.2).contains(&seconds), "{seconds}");
    assert_eq!(stream.info().underruns, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_one_request_ends_with_its_listener() {
    let station = station();
    let spec = StreamSpec { idle: Idle::End, ..spec() };
    let never = play(&station, Tone::new(), spec.clone());
    let tone = Tone::new();
    let alive = Arc::downgrade(&tone.alive);
    let left = play(&station, tone, spec);
    let mut listener = left.listen(OGG).unwrap();
    hear(&mut listener, 3.0).await;
    drop(listener);
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(alive.upgrade().is_none(), "its voice is free within a second");
    assert_eq!(left.info().state, StreamState::Ended);
    assert!(matches!(left.listen(OGG), Err(StationError::Ended(_))));
    assert_eq!(never.info().state, StreamState::Playing);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(never.info().state, StreamState::Ended);
    assert!(station.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn limits_are_kept_and_places_come_back() {
    let config = StationConfig { max_streams: 2, max_listeners: 2, ..StationConfig::default() };
    let station = station_with(config);
    let one = play(&station, Tone::new(), StreamSpec { name: Some("one".into()), ..spec() });
    let two = play(&station, Tone::new(), spec());
    let full = station.start(Tone::new(), spec(), Instant::now()).err().unwrap();
    assert!(matches!(full, StationError::Limit { what: "streams", limit: 2, .. }), "{full}");
    let (first, _second) = (one.listen(OGG).unwrap(), two.listen(WAV).unwrap());
    let full = one.listen(OGG).err().unwrap();
    assert!(matches!(full, StationError::Limit { what: "listeners", limit: 2, .. }), "{full}");
    drop(first);
    drop(one.listen(OGG).unwrap());
    assert_eq!(station.named("one").unwrap().id(), one.id());
    assert!(matches!(station.named("two"), Err(StationError::NotFound(_))));
    assert_eq!(station.list().iter().map(|info| info.id.as_str()).collect::<Vec<_>>(), [one.id(), two.id()]);
    assert!(one.id().len() == 32 && one.id() != two.id());
    station.delete(one.id()).await.unwrap();
    assert!(matches!(station.get(one.id()), Err(StationError::NotFound(_))));
    assert!(matches!(station.delete(one.id()).await, Err(StationError::NotFound(_))));
    play(&station, Tone::new(), spec());
}

#[tokio::test(start_paused = true)]
async fn the_stream_that_was_idle_for_longest_gives_its_place_to_a_new_one() {
    let station = station_with(StationConfig { max_streams: 4, ..StationConfig::default() });
    let named = |name: &str| StreamSpec { name: Some(name.into()), ..spec() };
    let kept = play(&station, Tone::new(), StreamSpec { idle: Idle::Wait, ..named("kept") });
    let watched = play(&station, Tone::new(), named("watched"));
    let _events = watched.events();
    let old = play(&station, Tone::new(), named("old"));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let heard = play(&station, Tone::new(), named("heard"));
    let mut listener = heard.listen(OGG).unwrap();
    hear(&mut listener, 5.0).await;
    let refused = station.start(Tone::new(), spec(), Instant::now()).err().unwrap();
    assert!(matches!(refused, StationError::Limit { .. }), "nobody is idle yet: {refused}");
    let _taker = tokio::spawn(async move { hear(&mut listener, 100.0).await });
    tokio::time::sleep(Duration::from_secs(30)).await;
    let new = play(&station, Tone::new(), named("new"));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let names: Vec<_> = station.list().into_iter().filter_map(|info| info.name).collect();
    assert_eq!(names, ["kept", "watched", "heard", "new"]);
    assert!(old.info().reason.unwrap().contains("its place was needed"));
    let refused = station.start(Tone::new(), spec(), Instant::now()).err().unwrap();
    assert!(matches!(refused, StationError::Limit { .. }), "{refused}");
    drop((kept, new));
}

#[tokio::test(start_paused = true)]
async fn shutdown_gives_every_listener_its_last_page() {
    let metrics = Metrics::record();
    let station = station();
    let mut listeners = Vec::new();
    for n in 0..3 {
        let stream = play(&station, Tone::new(), spec());
        for _ in 0..=n {
            let mut listener = stream.listen(OGG).unwrap();
            listeners.push(tokio::spawn(async move { joined(&hear(&mut listener, 60.0).await) }));
        }
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(metrics.value(telemetry::STREAMS), 3.0);
    assert_eq!(metrics.value(telemetry::LISTENERS), 6.0);
    let before = Instant::now();
    station.shutdown().await;
    assert!(before.elapsed() < Duration::from_secs(1));
    for listener in listeners {
        assert!(packets(&listener.await.unwrap()).1.last().unwrap().2);
    }
    assert_eq!(metrics.value(telemetry::STREAMS), 0.0);
    assert!(matches!(station.start(Tone::new(), spec(), Instant::now()), Err(StationError::Ended(_))));
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_ever() {
    let station = station();
    let stream = play(&station, Tone::new(), spec());
    let _stuck = stream.listen(OGG).unwrap();
    let before = Instant::now();
    station.shutdown().await;
    assert!(before.elapsed() < Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn a_broken_voice_ends_its_stream_with_the_reason() {
    let station = station();
    let stream = play(&station, Tone { fails: Some(3.0), ..Tone::new() }, spec());
    let mut events = stream.events();
    let mut listener = stream.listen(OGG).unwrap();
    let file = joined(&hear(&mut listener, 20.0).await);
    assert_eq!(ogg_seconds(&file), 3.0);
    assert!(packets(&file).1.last().unwrap().2);
    assert_eq!(stream.info().reason.as_deref(), Some("the tone broke"));
    let mut last = None;
    while let Some(event) = events.recv().await {
        last = Some(event);
    }
    assert!(matches!(last, Some(Event::End { reason }) if reason == "the tone broke"));
    assert!(matches!(station.get(stream.id()).unwrap().listen(OGG), Err(StationError::Ended(_))));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(matches!(station.get(stream.id()), Err(StationError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_one_stream_and_leaves_nobody_waiting() {
    let metrics = Metrics::record();
    let station = station();
    let stream = play(&station, Tone { panics: Some(3.0), ..Tone::new() }, spec());
    let other = play(&station, Tone::new(), spec());
    let mut listener = stream.listen(OGG).unwrap();
    let mut fine = other.listen(OGG).unwrap();
    let file = joined(&hear(&mut listener, 20.0).await);
    assert!(!file.is_empty() && listener.next().await.is_none());
    assert_eq!(stream.info().state, StreamState::Ended);
    assert!(stream.info().reason.is_some());
    assert!(ogg_seconds(&joined(&hear(&mut fine, 1.0).await)) > 0.9, "the other stream plays on");
    assert_eq!(metrics.value(telemetry::STREAMS), 1.0);
}
