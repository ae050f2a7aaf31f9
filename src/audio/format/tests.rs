//! What holds for every row of the table. A new format is tested by being there.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};

use super::*;
use crate::audio::decode;

/// The formats that this build can make.
fn formats() -> impl Iterator<Item = Format> {
    Format::ALL.into_iter().filter(|format| format.missing_feature().is_none())
}

fn tone(frames: usize, channels: usize) -> Vec<f32> {
    (0..frames * channels).map(|n| ((n / channels) as f32 * 0.0863).sin() * 0.5).collect()
}

/// Decodes with ffmpeg to 48 kHz f32, mixing nothing; stderr must stay silent.
fn ffmpeg(bytes: &[u8], format: Format, channels: usize) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("x.{format}"));
    std::fs::write(&path, bytes).unwrap();
    let output = Command::new("ffmpeg")
        .args(["-v", "warning", "-i"])
        .arg(&path)
        .args(["-ar", "48000", "-ac", &channels.to_string(), "-f", "f32le", "-"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    // WAV cannot say which channels it has; ffmpeg says that it assumes the usual ones.
    let stderr = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("Guessed Channel Layout")).collect();
    assert!(complaints.is_empty(), "ffmpeg complains about the {format}: {complaints:?}");
    output.stdout.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn names_extensions_and_lists_belong_to_one_row_each() {
    for format in Format::ALL {
        assert_eq!(Format::of_extension(format.extension()), Some(format));
        assert_eq!(Format::ALL.into_iter().filter(|other| *other == format).count(), 1);
        assert!(format.0.names().iter().all(|name| Format::named(name) == Some(format)));
    }
    assert_eq!(list(Format::all_live(), "."), ".ogg, .mp3 or .wav");
}

#[test]
fn ffmpeg_reads_every_format_with_its_exact_length() {
    let pcm = tone(32_000 * 3, 2);
    for format in formats() {
        let decoded = ffmpeg(&format.encode(&pcm, SampleRate(32_000), 2).unwrap(), format, 2);
        let frames = decoded.len() / 2;
        assert!(frames.abs_diff(144_000) <= 16, "{format}: {frames} frames");
        let rms = (decoded[20_000..200_000].iter().map(|s| s * s).sum::<f32>() / 180_000.0).sqrt();
        // LAME lowers the level by up to 3 % so that its own noise does not clip.
        assert!((rms / 0.3536 - 1.0).abs() < 0.035, "{format}: level {rms}");
    }
}

#[test]
fn a_long_file_that_is_written_piece_by_piece_has_its_exact_length() {
    for format in formats() {
        for channels in 1..=2 {
            let pcm = tone(100_001, channels);
            let (mut long, mut file) = (format.long(channels).unwrap(), Vec::new());
            for piece in pcm.chunks(7919 * channels) {
                file.extend(long.push(piece).unwrap());
            }
            let LongEnd { rest, head } = long.finish().unwrap();
            file.extend(rest);
            file[..head.len()].copy_from_slice(&head);
            let heard = ffmpeg(&file, format, channels);
            assert_eq!(heard.len(), pcm.len(), "{format} of {channels} channels");
            assert_eq!(crate::audio::decode(file).unwrap().pcm.len(), pcm.len(), "{format} of {channels} channels");
        }
    }
}

#[test]
fn our_own_decoder_reads_every_format() {
    let pcm = tone(32_000 * 5 / 2, 1);
    for format in formats() {
        let sound = decode(format.encode(&pcm, SampleRate(32_000), 1).unwrap()).unwrap();
        assert!((sound.seconds() - 2.5).abs() < 0.03, "{format}: {} s", sound.seconds());
    }
}

#[test]
fn any_pieces_give_the_same_file_of_the_right_length() {
    let (pcm, rate) = (tone(44_100 * 3, 2), SampleRate(44_100));
    for begin in formats().filter_map(Format::preview) {
        let made = |piece: usize| {
            let mut file = begin(rate, 2).unwrap();
            let mut bytes: Vec<u8> = pcm.chunks(piece).flat_map(|piece| file.push(piece).unwrap()).collect();
            bytes.extend(file.finish().unwrap());
            bytes
        };
        let file = made(pcm.len());
        assert!(made(2) == file && made(5000) == file);
        let sound = decode(&file).unwrap();
        assert!((sound.seconds() - 3.0).abs() < 1e-3 && sound.channels == 2, "{} s", sound.seconds());
    }
}

/// What whoever begins with the packet `from` is sent: its headers, then pages of five packets.
fn heard_from(live: &dyn LiveFormat, packets: &[Packet], from: usize) -> Vec<u8> {
    let about = About { channels: 2, input_rate: SampleRate(32_000), title: "a sine".into(), length: None };
    let (mut listener, mut bytes) = (Received::nothing(7), Vec::new());
    let pages = packets[from..].chunks(5);
    let count = pages.len();
    for (n, page) in pages.enumerate() {
        let (first, last) = (&page[0], &page[page.len() - 1]);
        let at = Span { start: first.start, end: last.start + last.frames, last: n + 1 == count };
        let body = live.page(page, at);
        if n == 0 {
            bytes.extend(body.head(at, &listener, &about).unwrap_or_default());
        }
        let (first, rest) = body.bytes(at, &listener);
        bytes.extend(first);
        bytes.extend(rest.unwrap_or_default());
        listener.count(at);
    }
    bytes
}

#[test]
fn whoever_joins_a_stream_late_hears_whole_frames() {
    const BLOCK: usize = 960 * 2;
    for format in formats() {
        let Some(live) = format.live() else { continue };
        let mut encoder = live.encoder(2, live.bit_rates().usual()).unwrap();
        let (mut packets, mut at) = (Vec::new(), 48_000);
        let mut keep = |encoded: Encoded<'_>| {
            packets.push(Packet::new(encoded, at));
            at += packets.last().unwrap().frames;
        };
        tone(48_000 * 2, 2).chunks(BLOCK).for_each(|block| encoder.push(block, &mut keep).unwrap());
        encoder.finish(&mut keep).unwrap();
        let first = heard_from(live, &packets, 0);
        assert!((decode(&first).unwrap().seconds() - 2.0).abs() < 0.1, "{format}");
        for from in [17, 18, 40] {
            let late = decode(heard_from(live, &packets, from)).unwrap();
            let frames: u64 = packets[from..].iter().map(|packet| packet.frames).sum();
            // What leads a decoder in is dropped, or silent.
            assert!((late.frames() as u64).abs_diff(frames) <= 5000, "{format}: {} of {frames}", late.frames());
            // Until the last packets, which may hold the end.
            let steady = &late.pcm[2 * 3000..late.pcm.len() - 2 * 6000];
            let loudest = |samples: &[f32]| samples.iter().fold(0.0f32, |peak, sample| peak.max(sample.abs()));
            for (n, part) in steady.chunks_exact(BLOCK / 8).enumerate() {
                let peak = loudest(part);
                assert!((0.42..0.58).contains(&peak), "{format} from packet {from}: level {peak} at {n}");
            }
        }
    }
}

#[test]
fn flac_keeps_rates_above_96_khz() {
    let pcm: Vec<f32> = (0..2 * 20_001).map(|n| ((n / 2) as f32 * 0.0163).sin() * 0.5).collect();
    for rate in [44_100, 96_000, 176_400, 192_000, 352_800, 384_000] {
        let file = Format::FLAC.encode(&pcm, SampleRate(rate), 2).unwrap();
        let sound = decode(&file).unwrap();
        assert_eq!((sound.rate.0, sound.frames()), (rate, 20_001));
        assert!(sound.pcm.iter().zip(&pcm).all(|(ours, given)| (ours - given).abs() < 1e-4), "{rate}");
        let at_48k = ffmpeg(&file, Format::FLAC, 2).len() / 2;
        assert!(at_48k.abs_diff((20_001 * 48_000u64 / u64::from(rate)) as usize) < 20, "{rate}: {at_48k}");
    }
}

#[test]
fn sound_above_full_scale_is_limited() {
    let pcm: Vec<f32> = (0..32_000).map(|n| (n as f32 * 0.05).sin() * 3.0).collect();
    let decoded = ffmpeg(&Format::WAV.encode(&pcm, SampleRate(32_000), 1).unwrap(), Format::WAV, 1);
    assert!(decoded.iter().all(|sample| sample.abs() < 0.92));
}

#[test]
fn an_unknown_extension_is_named() {
    let error = Format::of_path(Path::new("song.xyz")).unwrap_err().to_string();
    assert!(error.contains("song.xyz") && error.contains(".flac"), "{error}");
}
