//! Whole files: PCM in, a finished WAV, FLAC, Ogg Opus or MP3 file out.

mod flac;
mod growing;
#[cfg(feature = "mp3")]
mod mp3;
pub mod ogg;
mod wav;

use std::borrow::Cow;
use std::path::Path;
use std::str::FromStr;

use self::growing::in_memory;
use self::wav::s16;
use super::{AudioError, Limiter, OPUS_RATE, StreamResampler};
use crate::units::SampleRate;

pub(super) use self::flac::Frame;
pub use self::growing::GrowingFile;
#[cfg(feature = "mp3")]
pub use self::mp3::{Mp3Encoder, Mp3Frames, Mp3Reservoir, nearest_mp3_kbps};
pub use self::wav::{push_s16, wav_header, wav_header_of};

/// Bit rates of files: nobody waits for them, so quality goes first.
const OPUS_KBPS: u32 = 160;
#[cfg(feature = "mp3")]
const MP3_KBPS: u32 = 192;

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// 16-bit PCM.
    Wav,
    /// 16-bit lossless.
    Flac,
    /// Ogg Opus, 160 kbit/s.
    Ogg,
    /// MP3, 192 kbit/s.
    Mp3,
}

impl FileFormat {
    /// The format that a file's extension names.
    ///
    /// # Errors
    /// [`AudioError::UnknownExtension`], and [`AudioError::NoMp3`] in a build without MP3.
    pub fn of(path: &Path) -> Result<Self, AudioError> {
        path.extension()
            .and_then(|extension| extension.to_str())
            .ok_or_else(|| AudioError::UnknownExtension(path.to_owned()))
            .and_then(|extension| {
                extension.parse().map_err(|error| match error {
                    AudioError::UnknownExtension(_) => AudioError::UnknownExtension(path.to_owned()),
                    error => error,
                })
            })
    }
}

impl FileFormat {
    /// What the names of such files end with.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Flac => "flac",
            Self::Ogg => "ogg",
            Self::Mp3 => "mp3",
        }
    }

    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Flac => "audio/flac",
            Self::Ogg => "audio/ogg",
            Self::Mp3 => "audio/mpeg",
        }
    }
}

impl FromStr for FileFormat {
    type Err = AudioError;

    fn from_str(name: &str) -> Result<Self, AudioError> {
        match name.to_ascii_lowercase().as_str() {
            "wav" => Ok(Self::Wav),
            "flac" => Ok(Self::Flac),
            "ogg" | "opus" => Ok(Self::Ogg),
            "mp3" if cfg!(feature = "mp3") => Ok(Self::Mp3),
            "mp3" => Err(AudioError::NoMp3),
            _ => Err(AudioError::UnknownExtension(name.into())),
        }
    }
}

/// Encodes interleaved `pcm` as a whole file's bytes. WAV and FLAC keep the rate; Ogg and MP3 have 48 kHz. Sound above
/// full scale is limited, not clipped; sound within it is not touched.
///
/// # Errors
/// [`AudioError`] of the codec concerned.
pub fn encode_file(format: FileFormat, pcm: &[f32], rate: SampleRate, channels: usize) -> Result<Vec<u8>, AudioError> {
    let pcm = limited(pcm, channels);
    match format {
        FileFormat::Wav => wav(&pcm, rate, channels),
        FileFormat::Flac => flac::encode(&pcm, rate, channels),
        FileFormat::Ogg => opus(&pcm, rate, channels),
        FileFormat::Mp3 => mp3(&at_48k(&pcm, rate, channels)?, channels),
    }
}

fn limited(pcm: &[f32], channels: usize) -> Cow<'_, [f32]> {
    if pcm.iter().all(|sample| sample.abs() <= 1.0) {
        return Cow::Borrowed(pcm);
    }
    let (mut limiter, mut out) = (Limiter::new(channels), Vec::with_capacity(pcm.len()));
    limiter.push(pcm, &mut out);
    limiter.finish(&mut out);
    Cow::Owned(out)
}

fn at_48k(pcm: &[f32], rate: SampleRate, channels: usize) -> Result<Vec<f32>, AudioError> {
    let (mut resampler, mut out) = (StreamResampler::new(rate, SampleRate(OPUS_RATE), channels)?, Vec::new());
    resampler.push(pcm, &mut out)?;
    resampler.finish(&mut out)?;
    Ok(out)
}

fn wav(pcm: &[f32], rate: SampleRate, channels: usize) -> Result<Vec<u8>, AudioError> {
    let mut file = std::io::Cursor::new(Vec::new());
    let spec = hound::WavSpec {
        channels: channels as u16,
        sample_rate: rate.0,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut write = || {
        let mut writer = hound::WavWriter::new(&mut file, spec)?;
        pcm.iter().try_for_each(|&sample| writer.write_sample(s16(sample)))?;
        writer.finalize()
    };
    write().map_err(|error| in_memory(std::io::Error::other(error)))?;
    Ok(file.into_inner())
}

fn opus(pcm: &[f32], rate: SampleRate, channels: usize) -> Result<Vec<u8>, AudioError> {
    let mut file = GrowingFile::ogg(rate, channels, OPUS_KBPS)?;
    let mut bytes = file.push(pcm)?;
    bytes.append(&mut file.finish()?);
    Ok(bytes)
}

#[cfg(feature = "mp3")]
fn mp3(pcm: &[f32], channels: usize) -> Result<Vec<u8>, AudioError> {
    Mp3Encoder::file(pcm, OPUS_RATE, channels, MP3_KBPS)
}

#[cfg(not(feature = "mp3"))]
fn mp3(_pcm: &[f32], _channels: usize) -> Result<Vec<u8>, AudioError> {
    Err(AudioError::NoMp3)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::{Command, Stdio};

    use super::*;

    /// Decodes with ffmpeg to 48 kHz f32, mixing nothing; stderr must stay silent.
    fn decode(bytes: &[u8], extension: &str, channels: usize) -> Vec<f32> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("x.{extension}"));
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
        assert!(complaints.is_empty(), "ffmpeg complains about the {extension}: {complaints:?}");
        output.stdout.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    #[test]
    fn ffmpeg_reads_every_format_with_its_exact_length() {
        let pcm: Vec<f32> = (0..32_000 * 3 * 2).map(|n| ((n / 2) as f32 * 0.0863).sin() * 0.5).collect();
        for extension in ["wav", "flac", "ogg", "mp3"] {
            let Ok(format) = extension.parse::<FileFormat>() else { continue };
            let file = encode_file(format, &pcm, SampleRate(32_000), 2).unwrap();
            let decoded = decode(&file, extension, 2);
            let frames = decoded.len() / 2;
            assert!(frames.abs_diff(144_000) <= 16, "{extension}: {frames} frames");
            let rms = (decoded[20_000..200_000].iter().map(|s| s * s).sum::<f32>() / 180_000.0).sqrt();
            // LAME lowers the level by up to 3 % so that its own noise does not clip.
            assert!((rms / 0.3536 - 1.0).abs() < 0.035, "{extension}: level {rms}");
        }
    }

    #[test]
    fn flac_keeps_rates_above_96_khz() {
        let pcm: Vec<f32> = (0..2 * 20_001).map(|n| ((n / 2) as f32 * 0.0163).sin() * 0.5).collect();
        for rate in [44_100, 96_000, 176_400, 192_000, 352_800, 384_000] {
            let file = encode_file(FileFormat::Flac, &pcm, SampleRate(rate), 2).unwrap();
            let sound = crate::audio::decode(&file).unwrap();
            assert_eq!((sound.rate.0, sound.frames()), (rate, 20_001));
            assert!(sound.pcm.iter().zip(&pcm).all(|(ours, given)| (ours - given).abs() < 1e-4), "{rate}");
            let at_48k = decode(&file, "flac", 2).len() / 2;
            assert!(at_48k.abs_diff((20_001 * 48_000u64 / u64::from(rate)) as usize) < 20, "{rate}: {at_48k}");
        }
    }

    #[test]
    fn our_own_decoder_reads_every_format() {
        let pcm: Vec<f32> = (0..32_000 * 5 / 2).map(|n| (n as f32 * 0.0863).sin() * 0.5).collect();
        for extension in ["wav", "flac", "ogg", "mp3"] {
            let Ok(format) = extension.parse::<FileFormat>() else { continue };
            let sound = crate::audio::decode(encode_file(format, &pcm, SampleRate(32_000), 1).unwrap()).unwrap();
            assert!((sound.seconds() - 2.5).abs() < 0.03, "{extension}: {} s", sound.seconds());
        }
    }

    #[test]
    fn sound_above_full_scale_is_limited() {
        let pcm: Vec<f32> = (0..32_000).map(|n| (n as f32 * 0.05).sin() * 3.0).collect();
        let file = encode_file(FileFormat::Wav, &pcm, SampleRate(32_000), 1).unwrap();
        let decoded = decode(&file, "wav", 1);
        assert!(decoded.iter().all(|sample| sample.abs() < 0.92));
    }

    #[test]
    fn an_unknown_extension_is_named() {
        let error = FileFormat::of(Path::new("song.xyz")).unwrap_err().to_string();
        assert!(error.contains("song.xyz") && error.contains(".flac"), "{error}");
    }
}
