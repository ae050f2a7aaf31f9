//! The media clock: pacing, underruns, bounded memory.

use std::sync::atomic::Ordering;

use super::*;
use crate::telemetry;

/// Seconds of a WAV listener's sound (mono, 16 bit).
fn wav_seconds(bytes: usize) -> f64 {
    bytes as f64 / 96_000.0
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_are_paced_exactly_in_bounded_memory() {
    let station = station();
    let stream = play(&station, Tone::new(), spec());
    let mut listener = stream.listen(WAV).unwrap();
    let mut sent = 0;
    let mut held = 0;
    for second in 1..=600 {
        for (at, bytes) in hear(&mut listener, 1.0).await {
            sent += bytes.len();
            let ahead = wav_seconds(sent) - f64::from(second - 1) - at;
            let first = second == 1 && at < 0.01;
            // Three pages of 0.2 s leave together: the first two of them when they are that much
            // older.
            assert!(first || (1.35..=2.03).contains(&ahead), "{ahead} s ahead at {second} s + {at}");
        }
        held = held.max(stream.variants().heard()[0].ring.held());
    }
    let frames = stream.variants().burst(false) + 10 * 48_000;
    assert!(held as u64 <= frames / 9600 + 2, "{held} pages are held");
    assert_eq!(stream.info().underruns, 0);
    assert_eq!(listener.skips(), 0);
    assert!((stream.info().playhead - 602.0).abs() < 0.25);
    station.delete(stream.id()).await.unwrap();
    while let Some(bytes) = listener.next().await {
        sent += bytes.len();
    }
    assert_eq!(wav_seconds(sent - 44), stream.info().playhead, "every sample was sent once, after the header");
    assert!(stream.info().state == StreamState::Ended);
}

#[tokio::test(start_paused = true)]
async fn a_slow_engine_slips_the_clock_and_never_spins() {
    let metrics = Metrics::record();
    let station = station();
    let tone = Tone::at(0.5);
    let seen = tone.seen.clone();
    let stream = play(&station, tone, spec());
    let mut listener = stream.listen(OGG).unwrap();
    let pieces = hear(&mut listener, 60.0).await;
    let seconds = ogg_seconds(&joined(&pieces));
    let made = 30.0 - stream.info().buffered;
    assert!((made - 0.3..=made).contains(&seconds), "everything that was made is heard: {seconds} s");
    assert!(stream.info().underruns > 0);
    assert_eq!(metrics.value(telemetry::UNDERRUNS), stream.info().underruns as f64);
    let reads = seen.reads.load(Ordering::Relaxed);
    assert!(reads < 60 * 150, "{reads} reads in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_fast_engine_is_held_back() {
    let station = station();
    let tone = Tone::new();
    let seen = tone.seen.clone();
    let stream = play(&station, tone, spec());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(seen.seconds(), 0.0, "nothing is read before somebody listens");
    let mut listener = stream.listen(OGG).unwrap();
    hear(&mut listener, 10.0).await;
    assert!((11.9..=12.1).contains(&seen.seconds()), "{}", seen.seconds());
}

#[tokio::test(start_paused = true)]
async fn on_a_fast_machine_the_first_sound_waits_for_one_page() {
    let metrics = Metrics::record();
    let station = station();
    // After 60 ms there is a page of sound, far less than a store.
    let stream = play(&station, Tone::at(4.0), spec());
    let mut listener = stream.listen(OGG).unwrap();
    let pieces = hear(&mut listener, 0.08).await;
    assert!(!packets(&joined(&pieces)).1.is_empty());
    assert!(metrics.value("continuo_time_to_first_audio_seconds_count") == 1.0);
    assert!(metrics.value("continuo_time_to_first_audio_seconds_sum") < 0.08);
}

#[tokio::test(start_paused = true)]
async fn low_latency_means_short_pages_and_a_short_burst() {
    let station = station();
    let stream = play(&station, Tone::new(), spec());
    let mut normal = stream.listen(OGG).unwrap();
    hear(&mut normal, 5.1).await;
    let mut low = stream.listen(Listen { low_latency: true, ..OGG }).unwrap();
    let start = joined(&hear(&mut low, 0.001).await);
    let burst = packets(&start).1;
    // 0.24 s, and what the clock had not sent yet because pages were long until now.
    assert!((12..=22).contains(&burst.len()), "{} packets at once", burst.len());
    assert!(burst.windows(2).all(|pair| pair[1].1 - pair[0].1 == 960), "a page per packet");
    let times: Vec<f64> = hear(&mut low, 2.0).await.into_iter().map(|(at, _)| at).collect();
    // Two pieces per page: header and body.
    assert!((195..=203).contains(&times.len()), "{} pieces in 2 s", times.len());
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] < 0.03));
}
