//! Uploads to PCM: WAV and AIFF of every width, FLAC, MP3, Ogg Vorbis and Opus, MP4 (AAC, ALAC).
//!
//! What comes in is hostile until it is decoded: the work stops at a length and at a size, whatever a header claims,
//! so neither a ten-hour file nor a few bytes that unfold to gigabytes cost more than the bound, and only a few are
//! unfolded at the same time.

use std::io::Cursor;
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};

use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

use super::{AudioError, Sound};
use crate::units::SampleRate;

/// Seconds of an upload at most.
pub const MAX_SECONDS: f64 = 600.0;
/// Samples of all channels at most (half a gigabyte as `f32`).
const MAX_SAMPLES: usize = 128 << 20;
/// Rates that any producer's tool writes.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=384_000;
/// Damaged packets in a row after which the rest is given up.
const MAX_DAMAGE: usize = 64;

/// Files that are decoded at the same time: each may need half a gigabyte on the way.
const AT_ONCE: usize = 3;

static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut codecs = CodecRegistry::new();
    symphonia::default::register_enabled_codecs(&mut codecs);
    codecs.register_audio_decoder::<symphonia_adapter_libopus::OpusDecoder>();
    codecs
});

/// Decodes a whole file, of which the container is found by its content.
///
/// # Errors
/// [`AudioError::Unreadable`], [`AudioError::Silent`] when there is no sample in it, [`AudioError::TooLong`].
pub fn decode(bytes: Vec<u8>) -> Result<Sound, AudioError> {
    static GATE: Gate = Gate::new(AT_ONCE);
    let _place = GATE.enter();
    decode_within(bytes, MAX_SECONDS)
}

/// Lets a few threads through at a time; the others block.
struct Gate {
    free: Mutex<usize>,
    left: Condvar,
}

/// A place behind the gate; dropped, it is free again.
struct Place<'a>(&'a Gate);

impl Gate {
    const fn new(places: usize) -> Self {
        Self { free: Mutex::new(places), left: Condvar::new() }
    }

    fn enter(&self) -> Place<'_> {
        // A count cannot be left half changed.
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.left.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.left.notify_one();
    }
}

fn decode_within(bytes: Vec<u8>, seconds: f64) -> Result<Sound, AudioError> {
    if bytes.is_empty() {
        return Err(AudioError::Unreadable("it is empty".into()));
    }
    let stream = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(|error| unreadable(&error))?;
    let track = format.default_track(TrackType::Audio);
    let track = track.ok_or_else(|| AudioError::Unreadable("there is no sound track in it".into()))?;
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
    let parameters = parameters.ok_or_else(|| AudioError::Unreadable("its codec is not known".into()))?;
    let mut decoder =
        CODECS.make_audio_decoder(parameters, &AudioDecoderOptions::default()).map_err(|error| unreadable(&error))?;
    let id = track.id;
    let (mut sound, mut block, mut damage) =
        (Sound { pcm: Vec::new(), channels: 0, rate: SampleRate(0) }, Vec::new(), 0);
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            // A file that was cut off still has the sound before the cut.
            Err(Error::IoError(_)) => break,
            Err(error) => return Err(unreadable(&error)),
        };
        if packet.track_id != id {
            continue;
        }
        let decoded = match decoder.decode(&packet) {
            Ok(decoded) => decoded,
            Err(Error::DecodeError(_)) if damage < MAX_DAMAGE => {
                damage += 1;
                continue;
            }
            Err(error) => return Err(unreadable(&error)),
        };
        damage = 0;
        let (rate, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
        if sound.channels == 0 {
            if !RATES.contains(&rate) || channels == 0 {
                return Err(AudioError::Unreadable(format!("it claims {channels} channels at {rate} Hz")));
            }
            (sound.channels, sound.rate) = (channels, SampleRate(rate));
        } else if (channels, rate) != (sound.channels, sound.rate.0) {
            return Err(AudioError::Unreadable("its rate or its channels change on the way".into()));
        }
        decoded.copy_to_vec_interleaved::<f32>(&mut block);
        if sound.pcm.len() + block.len() > MAX_SAMPLES {
            return Err(AudioError::TooLong { seconds });
        }
        // Floating-point files may hold anything; one NaN would make all of the music one.
        sound.pcm.extend(block.iter().map(|&sample| if sample.is_finite() { sample.clamp(-64.0, 64.0) } else { 0.0 }));
        if sound.seconds() > seconds {
            return Err(AudioError::TooLong { seconds });
        }
    }
    if sound.pcm.is_empty() { Err(AudioError::Silent) } else { Ok(sound) }
}

fn unreadable(error: &Error) -> AudioError {
    AudioError::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::{Command, Stdio};

    use super::*;

    /// Three seconds of a sine per channel, each of its own frequency, in the given format as ffmpeg writes it.
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
        let mut bytes = super::super::wav_header(44_100, 1).to_vec();
        bytes[40..44].copy_from_slice(&4000u32.to_le_bytes());
        bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        let sound = decode(bytes).unwrap();
        let mut back = Vec::new();
        super::super::push_s16(&sound.pcm, &mut back);
        assert!(back.chunks(2).map(|b| i16::from_le_bytes(b.try_into().unwrap())).eq(samples));
    }

    #[test]
    fn a_file_without_an_end_or_cut_off_gives_what_is_there() {
        let mut endless = super::super::wav_header(32_000, 1).to_vec();
        endless.extend(std::iter::repeat_n(1, 6400));
        assert_eq!(decode(endless).unwrap().frames(), 3200);
        let mut cut = file("flac", 44_100, 1, &[]);
        cut.truncate(cut.len() / 2);
        let frames = decode(cut).unwrap().frames();
        assert!((10_000..132_300).contains(&frames), "{frames}");
    }

    #[test]
    fn what_is_no_sound_is_refused_in_a_sentence() {
        let header = super::super::wav_header(32_000, 1).to_vec();
        for (bytes, word) in [
            (Vec::new(), "empty"),
            (b"hello, this is no music at all, but text".to_vec(), "cannot be read"),
            (vec![0; 5000], "cannot be read"),
            (header, "no sound"),
        ] {
            let error = decode(bytes).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let mut rate = super::super::wav_header(3_999_999, 1).to_vec();
        rate.extend([0; 64]);
        assert!(decode(rate).is_err());
    }

    #[test]
    fn only_a_few_are_behind_the_gate_at_a_time() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static GATE: Gate = Gate::new(2);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _place = GATE.enter();
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((1..=2).contains(&most.into_inner()));
    }

    #[test]
    fn decoding_stops_at_the_limit() {
        // An hour of silence is a few kilobytes of FLAC, and gigabytes once decoded.
        let silence = file("flac", 48_000, 2, &["-af", "volume=0,apad=whole_dur=120"]);
        assert!(silence.len() < 200_000);
        assert!(matches!(decode_within(silence, 60.0), Err(AudioError::TooLong { .. })));
    }
}
