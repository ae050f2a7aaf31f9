#![allow(clippy::unwrap_used)]
mod containers;
mod mpeg;
mod streams;
mod waves;

use std::process::{Command, Stdio};

use super::*;

/// Runs ffmpeg in a folder; gives what it writes to the standard output.
fn ffmpeg(folder: &std::path::Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-y", "-v", "error"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What is heard in a file.
#[derive(Debug, Clone, Copy)]
struct Heard {
    rate: u32,
    channels: usize,
    frames: usize,
    level: f32,
}

impl Heard {
    fn of(sound: &Pcm) -> Self {
        let level = rms(sound.pcm.iter().copied());
        Self { rate: sound.rate.0, channels: sound.channels, frames: sound.frames(), level }
    }

    /// How ffmpeg hears a file.
    fn by_ffmpeg(bytes: &[u8], extension: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("x.{extension}");
        std::fs::write(folder.path().join(&name), bytes).unwrap();
        let wav = ffmpeg(folder.path(), &["-i", &name, "-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "-"]);
        Self::of(&decode(&wav).unwrap())
    }
}

/// Holds what is heard in a file against what ffmpeg hears; `slack` frames may be more or less.
fn heard_alike(name: &str, bytes: &[u8], extension: &str, slack: usize) {
    let theirs = Heard::by_ffmpeg(bytes, extension);
    let ours = decode(bytes).map(|sound| Heard::of(&sound));
    let ours = ours.unwrap_or_else(|error| panic!("{name}: {error} (ffmpeg: {theirs:?})"));
    let told = format!("{name}: {ours:?}, ffmpeg {theirs:?}");
    assert_eq!((ours.rate, ours.channels), (theirs.rate, theirs.channels), "{told}");
    assert!(ours.frames.abs_diff(theirs.frames) <= slack, "{told}");
    assert!((ours.level - theirs.level).abs() <= 0.03 * theirs.level.max(0.01), "{told}");
}

/// Three seconds of a sine per channel, each of its own frequency, in the given format as ffmpeg
/// writes it.
fn file(extension: &str, rate: u32, channels: usize, arguments: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("x.{extension}"));
    let tones: Vec<String> = (1..=channels).map(|n| format!("0.5*sin({}*PI*t)", 2 * 300 * n)).collect();
    let source = format!("aevalsrc={}:s={rate}:d=3", tones.join("|"));
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", &source, "-ar", &rate.to_string()])
        .args(arguments)
        .arg(&path)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read(path).unwrap()
}

fn rms(pcm: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = pcm.fold((0.0, 0), |(sum, count), sample| (sum + sample * sample, count + 1));
    (sum / count as f32).sqrt()
}

#[test]
fn every_format_gives_its_length_rate_and_level() {
    let cases: [(&str, u32, usize, &[&str], usize); 17] = [
        ("wav", 44_100, 1, &["-c:a", "pcm_u8"], 0),
        ("wav", 44_100, 2, &["-c:a", "pcm_s16le"], 0),
        ("wav", 96_000, 2, &["-c:a", "pcm_s24le"], 0),
        ("wav", 8_000, 1, &["-c:a", "pcm_s32le"], 0),
        ("wav", 48_000, 2, &["-c:a", "pcm_f32le"], 0),
        ("wav", 48_000, 1, &["-c:a", "pcm_f64le"], 0),
        ("wav", 48_000, 6, &["-c:a", "pcm_s24le"], 0), // WAVE_FORMAT_EXTENSIBLE
        ("wav", 11_025, 1, &["-c:a", "pcm_mulaw"], 0),
        ("wav", 44_100, 1, &["-c:a", "adpcm_ms"], 2048),
        ("aiff", 44_100, 2, &[], 0),
        ("flac", 44_100, 2, &[], 0),
        ("mp3", 44_100, 2, &["-c:a", "libmp3lame"], 0),
        ("ogg", 44_100, 2, &["-c:a", "libvorbis"], 0),
        ("ogg", 48_000, 2, &["-c:a", "libopus"], 0),
        ("m4a", 44_100, 2, &["-c:a", "aac"], 3000),
        ("m4a", 44_100, 2, &["-c:a", "alac"], 0),
        ("wav", 44_100, 2, &["-c:a", "pcm_s16le", "-metadata", "title=A name"], 0),
    ];
    for (extension, rate, channels, arguments, slack) in cases {
        let name = format!("{extension} {arguments:?}");
        let sound = decode(file(extension, rate, channels, arguments)).unwrap();
        assert_eq!((sound.rate.0, sound.channels), (rate, channels), "{name}");
        assert!(sound.frames().abs_diff(3 * rate as usize) <= slack, "{name}: {} frames", sound.frames());
        for channel in 0..channels.min(2) {
            let level = rms(sound.pcm.iter().skip(channel).step_by(channels).copied());
            assert!((level - 0.3536).abs() < 0.02, "{name}: level {level}");
        }
    }
}

#[test]
fn a_sixteen_bit_file_keeps_its_samples() {
    let samples: Vec<i16> = (0..2000).map(|n| (n * 37 % 65_536 - 32_768) as i16).collect();
    let mut bytes = crate::audio::format::wav_header(44_100, 1).to_vec();
    bytes[40..44].copy_from_slice(&4000u32.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    let sound = decode(&bytes).unwrap();
    let mut back = Vec::new();
    crate::audio::format::push_s16(&sound.pcm, &mut back);
    assert!(back.chunks(2).map(|b| i16::from_le_bytes(b.try_into().unwrap())).eq(samples));
}

#[test]
fn a_file_without_an_end_or_cut_off_gives_what_is_there() {
    let mut endless = crate::audio::format::wav_header(32_000, 1).to_vec();
    endless.extend(std::iter::repeat_n(1, 6400));
    assert_eq!(decode(&endless).unwrap().frames(), 3200);
    let mut cut = file("flac", 44_100, 1, &[]);
    cut.truncate(cut.len() / 2);
    let frames = decode(&cut).unwrap().frames();
    assert!((10_000..132_300).contains(&frames), "{frames}");
}

#[test]
fn what_is_no_sound_is_refused_in_a_sentence() {
    let header = crate::audio::format::wav_header(32_000, 1).to_vec();
    for (bytes, word) in [
        (Vec::new(), "empty"),
        (b"hello, this is no music at all, but text".to_vec(), "cannot be read"),
        (vec![0; 5000], "cannot be read"),
        (header, "no sound"),
    ] {
        let error = decode(&bytes).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let mut rate = crate::audio::format::wav_header(3_999_999, 1).to_vec();
    rate.extend([0; 64]);
    assert!(decode(&rate).is_err());
}

#[test]
fn decoding_stops_at_the_limit() {
    // An hour of silence is a few kilobytes of FLAC, and gigabytes once decoded.
    let silence = file("flac", 48_000, 2, &["-af", "volume=0,apad=whole_dur=120"]);
    assert!(silence.len() < 200_000);
    let mut seconds = 0.0;
    let mut take = |spec: PcmSpec, pcm: &[f32]| {
        seconds += (pcm.len() / spec.channels) as f64 / f64::from(spec.rate);
        Ok(())
    };
    let mut output = Output::new(&mut take, 60.0);
    assert!(matches!(dispatch(&silence, &mut output), Err(AudioError::TooLong { .. })));
    assert!((59.0..=60.1).contains(&seconds), "{seconds}");
}
