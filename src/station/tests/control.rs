//! Steering, pausing, events.

use super::tone::MARGIN;
use super::*;
use crate::engine::Steer;

fn steer(prompt: &str) -> Steer {
    Steer { prompts: Some(vec![prompt.into()]), ..Steer::default() }
}

#[tokio::test(start_paused = true)]
async fn a_steer_is_acknowledged_with_its_media_time_and_named_when_it_is_heard() {
    let metrics = Metrics::record();
    let station = station();
    let stream = play(&station, Tone::new(), spec());
    let mut events = stream.events();
    let mut listener = stream.listen(OGG).unwrap();
    hear(&mut listener, 2.0).await;
    assert_eq!(stream.title(), "a sine");
    let ack = stream.steer(steer("rain")).await.unwrap();
    assert!((ack.at - stream.info().playhead - MARGIN).abs() < 0.05, "{} at {}", ack.at, stream.info().playhead);
    assert_eq!(stream.info().prompts, ["rain".into()]);
    assert_eq!(stream.title(), "a sine", "not yet");
    hear(&mut listener, 0.5).await;
    assert_eq!(stream.title(), "rain");
    let mut seen = Vec::new();
    station.delete(stream.id()).await.unwrap();
    while let Some(event) = events.recv().await {
        match event {
            Event::Title { title, at } => seen.push((title, at)),
            Event::Steer { at, epoch: 1, prompts } => seen.push((format!("steer to {}", prompts[0].text), at)),
            Event::End { .. } => seen.push(("end".into(), 0.0)),
            _ => {}
        }
    }
    let seen: Vec<_> = seen.iter().map(|(what, at)| (what.as_str(), *at)).collect();
    let [first, steered, titled, ("end", _)] = seen[..] else { panic!("{seen:?}") };
    assert_eq!(first, ("a sine", 0.0));
    assert_eq!(steered, ("steer to rain", ack.at));
    assert!(titled.0 == "rain" && (titled.1 - ack.at).abs() < 1e-4, "{titled:?}");
    assert_eq!(metrics.value("continuo_steer_to_sound_seconds_count"), 1.0);
    let wait = metrics.value("continuo_steer_to_sound_seconds_sum");
    assert!((0.05..=0.35).contains(&wait), "{wait}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_silence_at_real_time_without_a_click() {
    let station = station();
    let tone = Tone::new();
    let seen = tone.seen.clone();
    let stream = play(&station, tone, spec());
    let mut listener = stream.listen(WAV).unwrap();
    let mut file = joined(&hear(&mut listener, 3.0).await);
    stream.pause().await.unwrap();
    assert_eq!(stream.info().state, StreamState::Paused);
    assert!(seen.paused.load(std::sync::atomic::Ordering::Relaxed));
    let voice = seen.seconds();
    let silence = joined(&hear(&mut listener, 4.0).await);
    assert!((3.8..=4.2).contains(&(silence.len() as f64 / 96_000.0)), "players get bytes all the time");
    assert!(seen.seconds() - voice < 0.03, "the voice stands still");
    file.extend(silence);
    stream.resume().await.unwrap();
    assert_eq!(stream.info().state, StreamState::Playing);
    let ack = stream.steer(steer("rain")).await.unwrap();
    assert!((ack.at - seen.seconds() - MARGIN - 4.0).abs() < 0.3, "media time of the stream counts the silence");
    file.extend(joined(&hear(&mut listener, 3.0).await));
    let pcm = decode(&file);
    let step = pcm.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
    assert!(step < 0.04, "a click of {step}");
    let silent = pcm.iter().filter(|sample| sample.abs() < 1e-4).count() as f64 / 48_000.0;
    assert!((3.8..=4.3).contains(&silent), "{silent} s of silence");
    assert_eq!(stream.info().underruns, 0);
}

#[tokio::test(start_paused = true)]
async fn status_comes_every_second_and_when_the_state_changes() {
    let station = station();
    let stream = play(&station, Tone::new(), spec());
    let mut listener = stream.listen(OGG).unwrap();
    hear(&mut listener, 1.0).await;
    let mut events = stream.events();
    assert!(matches!(events.recv().await, Some(Event::Title { .. })));
    assert!(matches!(events.recv().await, Some(Event::Status(info)) if info.listeners == 1));
    let before = Instant::now();
    for _ in 0..5 {
        assert!(matches!(events.recv().await, Some(Event::Status(info)) if info.state == StreamState::Playing));
    }
    assert!((4.0..=5.1).contains(&before.elapsed().as_secs_f64()));
    let now = Instant::now();
    stream.pause().await.unwrap();
    assert!(matches!(events.recv().await, Some(Event::Status(info)) if info.state == StreamState::Paused));
    assert!(now.elapsed() < Duration::from_millis(300));
}

/// The real engine with a stand-in model, in real time.
#[tokio::test]
async fn a_stream_of_the_engine_plays_steers_and_ends() {
    let station = station();
    // The engine is done with three seconds at once; a voice that is done cannot be steered.
    let stream = station.create(StreamSpec { seconds: Some(10.5), ..spec() }).await.unwrap();
    assert_eq!(stream.info().model.0, "standin");
    let mut listener = stream.listen(OGG).unwrap();
    let first = tokio::time::timeout(Duration::from_secs(5), listener.next()).await.unwrap().unwrap();
    let ack = stream.steer(steer("rain")).await.unwrap();
    assert!(ack.at < 10.0, "{}", ack.at);
    let mut file = first.to_vec();
    while let Some(bytes) = tokio::time::timeout(Duration::from_secs(10), listener.next()).await.unwrap() {
        file.extend_from_slice(&bytes);
    }
    assert_eq!(ogg_seconds(&file), 10.5);
    decode(&file);
    assert!(stream.info().reason.is_none());
    let unknown = StreamSpec { model: Some(crate::units::ModelId("no such".into())), ..spec() };
    assert!(matches!(station.create(unknown).await, Err(StationError::Engine(_))));
}
