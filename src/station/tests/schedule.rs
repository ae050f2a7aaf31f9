//! Stations that change by the clock.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::sync::watch;

use super::*;

/// A wall clock that goes with the paused one, and begins at a moment.
fn clock(begin: &str) -> impl Fn() -> Timestamp + Send + Clone + use<> {
    let (begin, began): (Timestamp, _) = (begin.parse().unwrap(), Instant::now());
    move || begin + SignedDuration::try_from(began.elapsed()).unwrap()
}

fn timetable(cues: &[(&str, &str)]) -> Timetable {
    let cue = |(at, prompt): &(&str, &str)| {
        serde_json::from_value(json!({"station": "lofi", "at": at, "prompts": [prompt], "ramp": 30})).unwrap()
    };
    let entry = serde_json::from_value(json!({"name": "lofi", "prompts": ["base"]})).unwrap();
    Timetable { stations: vec![entry], cues: cues.iter().map(cue).collect() }
}

/// The prompt of the next steer.
async fn steered(events: &mut Events) -> String {
    loop {
        if let Event::Steer { prompts, .. } = events.recv().await.unwrap() {
            return prompts[0].text.clone();
        }
    }
}

async fn named(station: &Station) -> Arc<Stream> {
    loop {
        match station.named("lofi") {
            Ok(stream) => return stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_station_changes_its_prompts_at_the_times_of_its_zone() {
    let station = station();
    let cues = [("0 6 * * * Europe/Berlin", "morning"), ("30 22 * * * Europe/Berlin", "night")];
    let (send, timetables) = watch::channel(timetable(&cues));
    // Twelve at noon in Berlin; it is summer.
    let clock = clock("2026-07-10T10:00:00Z");
    tokio::spawn(Lineup::new(Arc::clone(&station)).keep(timetables, clock.clone()));
    let stream = named(&station).await;
    assert_eq!(stream.info().prompts[0].text, "morning", "what began at six plays at noon");
    let mut events = stream.events();
    for (prompt, at) in [("night", "2026-07-10T20:30"), ("morning", "2026-07-11T04:00"), ("night", "2026-07-11T20:30")]
    {
        assert_eq!(steered(&mut events).await, prompt);
        assert!(clock().to_string().starts_with(at), "{prompt} at {}", clock());
    }
    // An edit counts at once, and the clock goes on from there.
    send.send(timetable(&[("0 12 * * * Europe/Berlin", "noon")])).unwrap();
    assert_eq!(steered(&mut events).await, "noon");
    assert!(clock().to_string().starts_with("2026-07-11T20:3"), "{}", clock());
    send.send(timetable(&[])).unwrap();
    assert_eq!(steered(&mut events).await, "base");
}

#[tokio::test(start_paused = true)]
async fn a_cue_comes_back_to_its_prompts_whatever_was_steered_since() {
    let station = station();
    let (_send, timetables) = watch::channel(timetable(&[("0 * * * * UTC", "hour")]));
    let clock = clock("2026-07-10T10:59:00Z");
    tokio::spawn(Lineup::new(Arc::clone(&station)).keep(timetables, clock.clone()));
    let stream = named(&station).await;
    let mut events = stream.events();
    assert_eq!(steered(&mut events).await, "hour");
    stream.steer(Steer { prompts: Some(vec!["by hand".into()]), ..Steer::default() }).await.unwrap();
    assert_eq!(steered(&mut events).await, "by hand");
    assert_eq!(steered(&mut events).await, "hour");
    assert!(clock().to_string().starts_with("2026-07-10T12:00"), "{}", clock());
}
