//! Machines that are only just fast enough, as a player hears them that has half a second in store.

use super::player::Player;
use super::tone::Machine;
use super::*;

/// What a player hears of a stream for `seconds`. Checks that it gets full pages only.
async fn played(stream: Arc<Stream>, seconds: f64) -> Player {
    // 200 ms, less the block that did not fit any more.
    const PAGE: std::ops::RangeInclusive<usize> = (9600 - 960) * 2..=9600 * 2;
    let mut listener = stream.listen(WAV).unwrap();
    let mut player = Player::new(0.5);
    let (start, mut bytes) = (Instant::now(), 0);
    let until = start + Duration::from_secs_f64(seconds);
    while let Ok(Some(piece)) = timeout_at(until, listener.next()).await {
        let page = piece.len() - if bytes == 0 { 44 } else { 0 };
        assert!(PAGE.contains(&page), "every page is full: {page}");
        bytes += page;
        player.hears(start.elapsed().as_secs_f64(), bytes as f64 / 96_000.0);
    }
    player.hears(seconds, bytes as f64 / 96_000.0);
    assert!(stream.info().underruns <= u64::from(player.stops), "one underrun per stop: {:?}", stream.info());
    player
}

/// What a player hears of the only stream of a machine.
async fn alone(speed: impl Fn(f64) -> f64 + Send + Sync + 'static, seconds: f64) -> Player {
    let station = station();
    played(play(&station, Tone::on(&Machine::new(speed)), spec()), seconds).await
}

/// Other work takes three quarters of the machine for four seconds of every minute.
fn disturbed(speed: f64) -> impl Fn(f64) -> f64 + Send + Sync {
    move |at| if at % 60.0 < 4.0 && at > 60.0 { 0.25 * speed } else { speed }
}

#[tokio::test(start_paused = true)]
async fn from_three_times_real_time_on_a_stream_begins_at_once() {
    for speed in [3.0, 10.0, f64::INFINITY] {
        let player = alone(move |_| speed, 60.0).await;
        assert!(player.started.unwrap() < 0.3 && player.stops == 0, "{speed}: {player:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn near_real_time_a_stream_begins_with_some_seconds_and_stops_once_at_most() {
    for (speed, wait) in [(1.0, 8.0), (1.1, 6.0), (1.5, 2.0)] {
        let player = alone(move |_| speed, 600.0).await;
        assert!(player.started.unwrap() < wait && player.stops <= 1, "{speed}: {player:?}");
    }
    for speed in [1.1, 1.2, 1.5] {
        let player = alone(disturbed(speed), 600.0).await;
        assert!(player.stops <= 1, "{speed} beside other work: {player:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn below_real_time_stops_are_few_and_no_sound_is_lost() {
    for speed in [0.84, 0.7, 0.95] {
        let player = alone(move |_| speed, 600.0).await;
        let missing = player.missing + player.started.unwrap();
        assert!(f64::from(player.stops) <= missing / 10.0, "{speed}: {player:?}");
        // What is made and not yet played is in a store, of 24 s at most.
        assert!(missing <= 600.0 * (1.0 - speed) + 26.0, "{speed}: {player:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_promise_that_does_not_hold_costs_one_stop() {
    let player = alone(|at| if at < 3.0 { 1.2 } else { 0.84 }, 300.0).await;
    assert!(f64::from(player.stops) <= 1.0 + player.missing / 10.0, "{player:?}");
    // Slower for a while, then fast: the store that the stops made large is given back.
    let station = station();
    let machine = Machine::new(|at| if (60.0..180.0).contains(&at) { 0.7 } else { 2.0 });
    let stream = play(&station, Tone::on(&machine), spec());
    let player = played(stream.clone(), 900.0).await;
    assert!((1..=4).contains(&player.stops), "{player:?}");
    assert!((7.0..9.0).contains(&stream.info().buffered), "{:?}", stream.info());
}

#[tokio::test(start_paused = true)]
async fn several_streams_share_a_slow_machine_fairly() {
    for (speed, count) in [(2.2, 2), (4.5, 3)] {
        let station = station();
        let machine = Machine::new(move |_| speed);
        let streams: Vec<_> = (0..count).map(|_| play(&station, Tone::on(&machine), spec())).collect();
        let players: Vec<_> = streams.into_iter().map(|stream| tokio::spawn(played(stream, 600.0))).collect();
        for player in players {
            let player = player.await.unwrap();
            assert!(player.stops <= 1 && player.started.unwrap() < 12.0, "{count} at {speed}: {player:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn buffering_is_told_with_what_it_waits_for() {
    let station = station();
    let stream = play(&station, Tone::at(1.0), spec());
    let mut events = stream.events();
    let player = tokio::spawn(played(stream.clone(), 20.0));
    let mut told = Vec::new();
    while told.last() != Some(&StreamState::Playing) || told.len() < 2 {
        let Some(Event::Status(info)) = events.recv().await else { continue };
        assert_eq!(info.buffer_target.is_some(), info.state == StreamState::Buffering, "{info:?}");
        if info.state == StreamState::Buffering {
            assert!(info.buffer_target.unwrap() > 5.0 && info.buffered < 7.0, "{info:?}");
        }
        if told.last() != Some(&info.state) {
            told.push(info.state);
        }
    }
    assert_eq!(told[told.len() - 2..], [StreamState::Buffering, StreamState::Playing]);
    assert_eq!(stream.info().underruns, 0, "a start is no stop");
    player.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_steer_while_the_store_fills_changes_all_of_it() {
    let station = station();
    let stream = play(&station, Tone::at(1.0), spec());
    let mut listener = stream.listen(OGG).unwrap();
    assert!(hear(&mut listener, 3.0).await.is_empty());
    let steer = crate::engine::Steer { prompts: Some(vec!["rain".into()]), ..Default::default() };
    assert!(stream.steer(steer).await.unwrap().at < 0.2, "nothing has been read yet");
}

#[tokio::test(start_paused = true)]
async fn a_short_piece_begins_when_all_of_it_is_there() {
    let station = station();
    let stream = play(&station, Tone::at(0.5), StreamSpec { seconds: Some(2.0), ..spec() });
    let mut listener = stream.listen(OGG).unwrap();
    let pieces = hear(&mut listener, 10.0).await;
    assert!(pieces[0].0 < 4.1, "{} s", pieces[0].0);
    assert_eq!(ogg_seconds(&joined(&pieces)), 2.0);
    assert_eq!(stream.info().underruns, 0);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_everybody_waits_begins_with_new_sound() {
    let station = station();
    let stream = play(&station, Tone::on(&Machine::new(|at| if at < 10.0 { 2.0 } else { 0.3 })), spec());
    let mut first = stream.listen(OGG).unwrap();
    let first = tokio::spawn(async move { hear(&mut first, 90.0).await });
    while stream.info().state != StreamState::Buffering || stream.info().underruns == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for low_latency in [false, true] {
        let mut late = stream.listen(Listen { low_latency, ..OGG }).unwrap();
        assert!(hear(&mut late, 1.0).await.is_empty(), "what was played before would be played alone");
    }
    first.await.unwrap();
}
