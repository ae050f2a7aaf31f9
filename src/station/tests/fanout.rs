//! Many listeners, slow listeners.

use proptest::prelude::*;

use super::*;
use crate::telemetry;

#[tokio::test(start_paused = true)]
async fn a_hundred_listeners_cost_one_encoder() {
    let metrics = Metrics::record();
    let station = station();
    let stream = play(&station, Tone::new(), StreamSpec { seconds: Some(10.0), ..spec() });
    let listeners: Vec<_> = (0..100)
        .map(|n| {
            // Half of them with the other latency: the pages differ, the packets do not.
            let mut listener = stream.listen(Listen { low_latency: n % 2 == 0, ..OGG }).unwrap();
            tokio::spawn(async move { joined(&hear(&mut listener, 60.0).await) })
        })
        .collect();
    for listener in listeners {
        assert_eq!(ogg_seconds(&listener.await.unwrap()), 10.0);
    }
    assert_eq!(metrics.value(telemetry::PACKETS_ENCODED), 501.0, "10 s in 20 ms packets, and one for the delay");
    assert!(metrics.value(telemetry::BYTES_SENT) > 100.0 * 90_000.0);
    assert_eq!(metrics.value(telemetry::LISTENERS), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_listener_skips_and_stays_valid_while_others_hear_everything() {
    let metrics = Metrics::record();
    let station = station();
    let stream = play(&station, Tone::new(), spec());
    let mut slow = stream.listen(OGG).unwrap();
    let mut quick = stream.listen(OGG).unwrap();
    let mut file = joined(&hear(&mut slow, 3.0).await);
    let before = ogg_seconds(&file);
    let quick = tokio::spawn(async move { (joined(&hear(&mut quick, 25.0).await), quick.skips()) });
    tokio::time::sleep(Duration::from_secs(20)).await;
    // Asleep for 20 s: of these, the ring kept 12.
    assert_eq!(slow.skips(), 0);
    file.extend(joined(&hear(&mut slow, 5.0).await));
    assert_eq!(slow.skips(), 1);
    let after = ogg_seconds(&file);
    assert!((5.0..=5.4).contains(&(after - before)), "it goes on at the live edge: {before} to {after} s");
    decode(&file);
    let (file, skips) = quick.await.unwrap();
    assert_eq!(skips, 0);
    assert!((27.8..=30.1).contains(&ogg_seconds(&file)));
    assert_eq!(metrics.value(telemetry::LISTENER_SKIPS), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_listener_is_given_up() {
    let metrics = Metrics::record();
    let station = station();
    let stream = play(&station, Tone::new(), spec());
    let mut stuck = stream.listen(OGG).unwrap();
    let mut fine = stream.listen(OGG).unwrap();
    hear(&mut stuck, 1.0).await;
    let given_up = tokio::spawn(stuck.given_up());
    let fine = tokio::spawn(async move { ogg_seconds(&joined(&hear(&mut fine, 40.0).await)) });
    tokio::time::timeout(Duration::from_secs(35), given_up).await.unwrap().unwrap();
    assert_eq!(stream.info().listeners, 1);
    assert!(stuck.next().await.is_none());
    drop(stuck);
    assert_eq!(stream.info().listeners, 1);
    assert!(fine.await.unwrap() > 41.0);
    assert_eq!(metrics.value(telemetry::LISTENERS_GIVEN_UP), 1.0);
}

#[tokio::test(start_paused = true)]
async fn bit_rates_are_rounded_to_what_the_format_has() {
    let metrics = Metrics::record();
    let station = station();
    let stream = play(&station, Tone::new(), StreamSpec { seconds: Some(2.0), ..spec() });
    let mut sizes = Vec::new();
    for kbps in [1, 64, 160, 999] {
        let mut listener = stream.listen(Listen { kbps, ..OGG }).unwrap();
        sizes.push(tokio::spawn(async move { joined(&hear(&mut listener, 9.0).await).len() }));
    }
    let mut bytes = Vec::new();
    for size in sizes {
        bytes.push(size.await.unwrap());
    }
    assert_eq!((bytes[0], bytes[2]), (bytes[1], bytes[3]));
    assert!(bytes[2] > bytes[0]);
    assert_eq!(metrics.value(telemetry::PACKETS_ENCODED), 2.0 * 101.0);
}

/// What one listener does: when it comes, how it wants its pages, how long it reads and sleeps in
/// turn.
type Habit = (f64, bool, Vec<(f64, f64)>);

fn habit() -> impl Strategy<Value = Habit> {
    (0.0..30.0f64, any::<bool>(), prop::collection::vec((0.05..6.0f64, 0.0..18.0f64), 1..4))
}

/// Lives a habit and returns the listener's bytes.
async fn live(stream: Arc<Stream>, (comes, low_latency, rounds): Habit) -> Option<Vec<u8>> {
    tokio::time::sleep(Duration::from_secs_f64(comes)).await;
    let mut listener = stream.listen(Listen { low_latency, ..OGG }).ok()?;
    let mut file = Vec::new();
    for (reads, sleeps) in rounds {
        file.extend(joined(&hear(&mut listener, reads).await));
        tokio::time::sleep(Duration::from_secs_f64(sleeps)).await;
    }
    Some(file)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn whoever_comes_stalls_and_goes_has_a_valid_stream(
        habits in prop::collection::vec(habit(), 1..7), pause in 0.0..30.0f64, speed in 0.7..4.0f64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let files = runtime.block_on(async {
            let station = station_with(StationConfig { grace: 3.0, ..StationConfig::default() });
            let stream = play(&station, Tone::at(speed), spec());
            let listeners: Vec<_> = habits.into_iter().map(|habit| tokio::spawn(live(stream.clone(), habit))).collect();
            tokio::time::sleep(Duration::from_secs_f64(pause)).await;
            stream.pause().await.unwrap();
            tokio::time::sleep(Duration::from_secs(3)).await;
            stream.resume().await.unwrap();
            let mut files = Vec::new();
            for listener in listeners {
                files.extend(listener.await.unwrap());
            }
            files
        });
        for file in files.into_iter().filter(|file| !file.is_empty()) {
            // A listener may leave between a page's head and its body; what is complete must be
            // right.
            let mut granule = 0;
            for (n, (_, page, _)) in packets(&file).1.into_iter().enumerate() {
                prop_assert!(page >= (n as u64 + 1) * 960 && page >= granule && page <= granule + 9600);
                granule = page;
            }
        }
    }
}
