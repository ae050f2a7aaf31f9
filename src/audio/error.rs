//! The room's one error type: a sentence per variant.

use std::path::PathBuf;

use super::format::{Format, list};

/// Why sound could not be converted or written.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// A rate that cannot be converted.
    #[error("Sound of {from} Hz cannot be converted to {to} Hz: {reason}.")]
    Resample {
        /// Given rate.
        from: u32,
        /// Wanted rate.
        to: u32,
        /// What the resampler says.
        reason: String,
    },
    /// An upload that is no sound, or not in a format that is known.
    #[error("The sound cannot be read: {0}. Send a WAV, AIFF, FLAC, MP3, Ogg, M4A, WebM or CAF file.")]
    Unreadable(String),
    /// An upload without a sample.
    #[error("There is no sound in the file: it has not a single sample.")]
    Silent,
    /// An upload beyond the bound.
    #[error("The sound is longer than {seconds} seconds, or has too many channels for its length; send less.")]
    TooLong {
        /// The bound.
        seconds: f64,
    },
    /// More sounds wait to be decoded than are decoded in a while.
    #[error("Too many sounds are being decoded; try again in some seconds.")]
    Busy,
    /// The process that decodes could not be started, or did not answer.
    #[error("The decoder could not be started: {0}.")]
    NoDecoder(String),
    /// libopus refused its parameters.
    #[error("The Opus encoder could not be used: {0}.")]
    Opus(String),
    /// LAME refused its parameters.
    #[error("The MP3 encoder could not be used: {0}.")]
    Mp3(String),
    /// The FLAC encoder refused the sound.
    #[error("The FLAC encoder could not be used: {0}.")]
    Flac(String),
    /// This build cannot make the format.
    #[error(
        "This build has no {} encoder; choose {}, or build with the feature `{}`.",
        .0.extension().to_uppercase(), list(built(), ""), .0.missing_feature().unwrap_or("default")
    )]
    NoEncoder(Format),
    /// The file's name does not say a format.
    #[error("`{}` names no audio format; end it with {}.", .0.display(), list(Format::ALL, "."))]
    UnknownExtension(PathBuf),
    /// The file cannot be written.
    #[error("`{path}` could not be written: {source}.")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The formats that this build can encode.
fn built() -> impl Iterator<Item = Format> {
    Format::ALL.into_iter().filter(|format| format.missing_feature().is_none())
}
