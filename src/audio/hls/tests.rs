#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};

use super::*;

/// Something to encode in every band: a sweep with overtones, and a beat.
fn music(frames: u64, channels: usize) -> Vec<f32> {
    let sample = |n: usize| {
        let seconds = n as f32 / OPUS_RATE as f32;
        let sweep = 110.0 * seconds + 40.0 * seconds * seconds;
        let tones = (1..6).map(|n| (sweep * n as f32 * std::f32::consts::TAU).sin() / (2 * n) as f32).sum::<f32>();
        // Between the seams, so that what is measured there is the seam.
        let beat = (-12.0 * (seconds + 0.4).fract()).exp() * ((n * n) as u32 as f32 * 0.37).sin();
        0.3 * tones + 0.2 * beat
    };
    let mixed = |n: usize| (0..channels).map(move |channel| sample(n) * (1.0 - 0.4 * channel as f32));
    (0..frames as usize).flat_map(mixed).collect()
}

/// The parts of a segment, encoded from sound that begins at media time `from`, in pieces of so
/// many frames.
fn encoded(rendition: Rendition, channels: usize, segment: u64, pcm: &[f32], from: u64, piece: usize) -> Vec<Part> {
    let mut encoder = SegmentEncoder::new(rendition, channels, segment).unwrap();
    let (mut parts, mut at) = (Vec::new(), from);
    for pcm in pcm[from as usize * channels..].chunks(piece * channels) {
        encoder.push(at, pcm, &mut |part| parts.push(part)).unwrap();
        at += (pcm.len() / channels) as u64;
        if encoder.is_full() {
            return parts;
        }
    }
    encoder.finish(at, &mut |part| parts.push(part)).unwrap();
    parts
}

fn segment(rendition: Rendition, parts: &[Part], title: &str) -> Vec<u8> {
    let titles = [Title { at: 0, text: title.into() }];
    let muxed: Vec<_> =
        parts.iter().map(|part| rendition.mux(part, if part.is_first() { &titles } else { &[] })).collect();
    let bodies = muxed.iter().map(|part| &part.body[..]);
    [&muxed[0].head[..]].into_iter().chain(bodies).collect::<Vec<_>>().concat()
}

/// Runs one of ffmpeg's tools on a file; it must not complain.
fn run(tool: &str, before: &[&str], file: &[u8], after: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sound");
    std::fs::write(&path, file).unwrap();
    let output = Command::new(tool).args(before).arg(&path).args(after).stdin(Stdio::null()).output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    // Frames alone do not say how many there are.
    let complaints: Vec<_> = complaints.lines().filter(|line| !line.contains("Estimating duration")).collect();
    assert!(complaints.is_empty(), "{tool} complains: {complaints:?}");
    output.stdout
}

fn decoded(file: &[u8]) -> Vec<f32> {
    let pcm = run("ffmpeg", &["-v", "warning", "-i"], file, &["-f", "f32le", "-"]);
    pcm.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn a_segment_is_the_same_whoever_makes_it_and_in_whatever_pieces() {
    let pcm = music(3 * SEGMENT, 2);
    for rendition in Rendition::built() {
        let whole = encoded(rendition, 2, 1, &pcm, 0, 960);
        let begins = SegmentEncoder::begins(rendition, 1);
        let late = encoded(rendition, 2, 1, &pcm, begins, 777);
        assert_eq!(SegmentEncoder::first_from(rendition, begins), 1);
        assert_eq!(SegmentEncoder::first_from(rendition, begins + 1), 2);
        assert_eq!(whole.len() as u64, SEGMENT / PART);
        assert!(whole.iter().zip(1..).all(|(part, n)| part.frames == PART && part.end() == SEGMENT + n * PART));
        assert!(segment(rendition, &whole, "a") == segment(rendition, &late, "a"), "{rendition:?} differs");
    }
}

#[test]
fn segments_join_to_the_sound_that_was_encoded() {
    for (rendition, channels) in Rendition::built().flat_map(|rendition| [(rendition, 1), (rendition, 2)]) {
        // It ends in the middle of a packet.
        let end = 3 * SEGMENT + PART + 500;
        let pcm = music(end, channels);
        let mut file = rendition.init(channels).unwrap_or_default().to_vec();
        for number in 0..4 {
            let parts = encoded(rendition, channels, number, &pcm, SegmentEncoder::begins(rendition, number), 960);
            assert_eq!(parts.last().unwrap().end(), end.min((number + 1) * SEGMENT));
            parts.iter().for_each(|part| file.extend_from_slice(&rendition.mux(part, &[]).body));
        }
        let heard = decoded(&file);
        let longer = heard.len() as i64 - pcm.len() as i64;
        assert!((0..2 * 1152 * channels as i64).contains(&longer), "{rendition:?} is {longer} samples longer");
        let noise = |from: u64, to: u64| {
            let range = from as usize * channels..to as usize * channels;
            let power = |differ: &dyn Fn(usize) -> f32| range.clone().map(|n| differ(n).powi(2)).sum::<f32>();
            (power(&|n| heard[n] - pcm[n]) / power(&|n| pcm[n])).sqrt()
        };
        let all = noise(PART, 3 * SEGMENT);
        assert!(all < 0.25, "{rendition:?} with {channels} channels differs by {all}");
        for seam in [1, 2, 3].map(|number| number * SEGMENT) {
            let there = noise(seam - 960, seam + 960);
            assert!(there < 2.0 * all + 0.02, "{rendition:?} differs by {there} at a seam, by {all} elsewhere");
        }
    }
}

#[test]
fn ffprobe_finds_codec_time_and_title() {
    let pcm = music(6 * SEGMENT, 2);
    let parts = encoded(Rendition::Opus, 2, 5, &pcm, 0, 960);
    let file = [Rendition::Opus.init(2).unwrap().to_vec(), segment(Rendition::Opus, &parts, "rain")].concat();
    let shown = "stream=codec_name,sample_rate,channels,start_time:packet=pts_time";
    let report = run("ffprobe", &["-v", "warning", "-of", "csv=p=0", "-show_entries", shown], &file, &[]);
    let report = String::from_utf8(report).unwrap();
    assert!(report.contains("opus,48000,2,15.000000"), "{report}");
    let times: Vec<f64> = report.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(times.len() == 150 && times.windows(2).all(|pair| (pair[1] - pair[0] - 0.02).abs() < 1e-6), "{times:?}");
    let emsg = file.windows(4).position(|word| word == b"emsg").unwrap();
    assert!(file[emsg..emsg + 120].windows(4).any(|word| word == b"rain"));
    if Rendition::named("mp3").is_some() {
        let parts = encoded(Rendition::Mp3, 2, 5, &pcm, 0, 960);
        let file = segment(Rendition::Mp3, &parts, "rain");
        let shown = "stream=codec_name,sample_rate,channels:format_tags";
        let report = run("ffprobe", &["-v", "warning", "-of", "csv=p=0", "-show_entries", shown], &file, &[]);
        let report = String::from_utf8(report).unwrap();
        assert!(report.contains("mp3,48000,2") && report.contains("rain"), "{report}");
        // 15 s of a clock of 90 kHz.
        let owner = b"com.apple.streaming.transportStreamTimestamp\0";
        let at = file.windows(owner.len()).position(|word| word == owner).unwrap() + owner.len();
        assert_eq!(file[at..at + 8], 1_350_000u64.to_be_bytes());
        assert_eq!(&file[..4], b"ID3\x04");
    }
}
