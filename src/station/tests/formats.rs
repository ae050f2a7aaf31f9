//! What real tools make of a listener's bytes.

use std::f64::consts::TAU;

use super::tone::PITCH;
use super::*;

/// Follows a sine through its decoded samples: in windows of 10 ms, its level and its phase against
/// an ideal one. A gap, a click or a repeated piece shows as a jump of either.
pub(super) fn assert_steady(pcm: &[f32], what: &str) {
    let windows: Vec<(f64, f64)> = pcm
        .chunks_exact(480)
        .enumerate()
        .map(|(window, samples)| {
            let (mut re, mut im) = (0.0, 0.0);
            for (n, &sample) in samples.iter().enumerate() {
                let angle = TAU * PITCH * (window * 480 + n) as f64 / 48_000.0;
                re += f64::from(sample) * angle.cos();
                im -= f64::from(sample) * angle.sin();
            }
            (re.hypot(im) / 240.0, im.atan2(re))
        })
        .collect();
    for (n, pair) in windows.windows(2).enumerate() {
        let [(level, phase), (next_level, next_phase)] = [pair[0], pair[1]];
        let turn = (next_phase - phase + TAU / 2.0).rem_euclid(TAU) - TAU / 2.0;
        let seconds = n as f64 / 100.0;
        assert!(level > 0.1, "{what}: silence at {seconds} s");
        assert!((next_level / level - 1.0).abs() < 0.1, "{what}: level {level} to {next_level} at {seconds} s");
        assert!(turn.abs() < 0.1, "{what}: phase jumps by {turn} at {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_minute_of_every_format_decodes_without_a_complaint_or_a_gap() {
    let station = station();
    let usual = Format::all_live().flat_map(|format| [1, 2].map(|channels| (usual(format), channels)));
    for (listen, channels) in usual.chain([(Listen { low_latency: true, ..OGG }, 1)]) {
        // MP3 cannot tell where the sound ends within a frame.
        let (name, delay) = (listen.format.extension(), if listen.format == Format::MP3 { 3000 } else { 0 });
        let tone = Tone { channels, ..Tone::new() };
        let stream = play(&station, tone, StreamSpec { seconds: Some(60.0), ..spec() });
        if listen.format.missing_feature().is_some() {
            assert!(matches!(stream.listen(listen), Err(StationError::NotSent(_))));
            continue;
        }
        let mut listener = stream.listen(listen).unwrap();
        let file = joined(&hear(&mut listener, 120.0).await);
        let pcm = decode(&file);
        let longer = pcm.len() as i64 - 60 * 48_000;
        assert!((0..=delay).contains(&longer), "{name} with {channels} channels is {longer} samples too long");
        // The codecs' own start and end are left out.
        assert_steady(&pcm[4800..59 * 48_000], name);
        let (report, _) = run(
            "ffprobe",
            &["-v", "error", "-of", "csv=p=0", "-show_entries", "stream=codec_type,sample_rate,channels"],
            &file,
            &[],
        );
        assert_eq!(String::from_utf8_lossy(&report).trim(), format!("audio,48000,{channels}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_joiner_gets_a_valid_stream_of_its_own() {
    let station = station();
    let stream = play(&station, Tone::new(), spec());
    let mut first = stream.listen(OGG).unwrap();
    let early = tokio::spawn(async move { hear(&mut first, 100.0).await });
    tokio::time::sleep(Duration::from_millis(20_130)).await;
    let built = Format::all_live().filter(|format| format.missing_feature().is_none());
    for listen in built.map(usual).flat_map(|listen| [listen, Listen { low_latency: true, ..listen }]) {
        let mut late = stream.listen(listen).unwrap();
        let pieces = hear(&mut late, 5.0).await;
        let file = joined(&pieces);
        let pcm = decode(&file);
        // The codecs' own start is left out.
        assert_steady(&pcm[2880..], listen.format.extension());
        if listen.format == Format::OGG {
            let (_, packets) = packets(&file);
            assert!(packets[0].1 <= 9600, "granule positions begin at 0");
        }
    }
    let mut late = stream.listen(OGG).unwrap();
    let ending = tokio::spawn(async move { hear(&mut late, 60.0).await });
    tokio::time::sleep(Duration::from_millis(3_333)).await;
    station.delete(stream.id()).await.unwrap();
    let file = joined(&ending.await.unwrap());
    let (_, read) = packets(&file);
    assert!(read.last().unwrap().2, "the last page says that it is the last");
    decode(&file);
    let (report, complaints) = run("opusinfo", &[], &file, &[]);
    let report = String::from_utf8_lossy(&report).into_owned() + &complaints;
    assert!(!report.to_lowercase().contains("warning") && !report.contains("ERROR"), "opusinfo says {report}");
    assert!(report.contains("TITLE=a sine") && report.contains("32000"), "opusinfo says {report}");
    assert!(packets(&joined(&early.await.unwrap())).1.last().unwrap().2);
}

#[tokio::test(start_paused = true)]
#[cfg(feature = "mp3")]
async fn an_mp3_listener_hears_its_first_frame_whole_wherever_it_begins() {
    let station = station();
    let stream = play(&station, Tone::new(), spec());
    let mut slow = stream.listen(MP3).unwrap();
    hear(&mut slow, 2.0).await;
    for _ in 0..6 {
        // Others keep the encoder at work: a late listener begins in the middle of its frames.
        tokio::time::sleep(Duration::from_millis(3_137)).await;
        let mut late = stream.listen(MP3).unwrap();
        let pcm = decode(&joined(&hear(&mut late, 1.0).await));
        // A silent frame, and half of one that overlaps with what was not sent.
        assert_steady(&pcm[1152 + 576 + 600..], "a late listener");
    }
    // Left behind, it goes on at the live edge.
    let pcm = decode(&joined(&hear(&mut slow, 1.0).await));
    assert_eq!(slow.skips(), 1);
    assert_steady(&pcm[1152 + 576 + 600..], "a slow listener");
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_exactly_the_length_that_was_asked_for() {
    let station = station();
    for seconds in [0.01, 0.5, 1.0, 3.007] {
        let stream = play(&station, Tone::new(), StreamSpec { seconds: Some(seconds), ..spec() });
        let mut listener = stream.listen(OGG).unwrap();
        let file = joined(&hear(&mut listener, 10.0).await);
        assert_eq!(ogg_seconds(&file), seconds);
        assert_eq!(decode(&file).len() as f64, seconds * 48_000.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_channels_is_not_heard() {
    let station = station();
    for channels in [1, 2] {
        let tone = Tone { channels, changes_channels: Some(2.0), ..Tone::new() };
        let stream = play(&station, tone, StreamSpec { seconds: Some(5.0), ..spec() });
        let mut listener = stream.listen(WAV).unwrap();
        let pcm = decode(&joined(&hear(&mut listener, 20.0).await));
        assert_steady(&pcm, "wav");
    }
}
