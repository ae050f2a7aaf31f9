//! Formats: what a file or a stream of sound can be sent as.
//!
//! A format is a file of this folder, behind [`FormatSpec`], and a row of [`Format::ALL`]. Names in
//! requests, paths, media types, bit rates, sentences that list formats and what listeners are sent
//! follow from the row; whoever adds a format writes these two and no more.

mod flac;
mod live;
mod mp3;
mod ogg;
#[cfg(test)]
mod tests;
mod wav;

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::hash::{Hash, Hasher};
use std::path::Path;

use super::{AudioError, Limiter, OPUS_RATE, StreamResampler};
use crate::units::SampleRate;

pub(super) use self::flac::Frame;
pub use self::live::{About, BitRates, Encoded, LiveEncoder, LiveFormat, Packet, PageBody, Received, Span};
#[cfg(feature = "mp3")]
pub use self::mp3::Mp3Encoder;
pub use self::mp3::mp3_file;
pub(super) use self::mp3::mp3_segments;
pub(crate) use self::ogg::checksum;
#[cfg(test)]
pub(super) use self::wav::wav_header;
pub(super) use self::wav::{push_s16, s16, wav_header_of};

/// A format's own file: everything about it that differs from the others.
pub trait FormatSpec: Sync {
    /// Its names in requests. The first one is also what its files end with.
    fn names(&self) -> &'static [&'static str];

    /// The media type.
    fn media_type(&self) -> &'static str;

    /// Channels that it has room for.
    fn most_channels(&self) -> usize {
        2
    }

    /// The feature without which this build cannot encode it.
    fn missing_feature(&self) -> Option<&'static str> {
        None
    }

    /// A whole file of interleaved PCM within full scale. Nobody waits for it: quality goes first.
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    fn file(&self, pcm: &[f32], rate: SampleRate, channels: usize) -> Result<Vec<u8>, AudioError>;

    /// How a file of any length is written piece by piece, its beginning last.
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    fn long(&self, channels: usize) -> Result<Box<dyn LongFile>, AudioError>;

    /// How a file begins that is sent while its sound is still being made.
    fn preview(&self) -> Option<BeginFile> {
        None
    }

    /// How streams are sent.
    fn live(&self) -> Option<&'static dyn LiveFormat> {
        None
    }
}

/// Begins a file of sound at a rate and with so many channels, see [`StreamingFile`].
pub type BeginFile = fn(SampleRate, usize) -> Result<Box<dyn StreamingFile>, AudioError>;

/// Interleaved PCM in, bytes of one file out, in order. Any pieces give the same file.
pub trait StreamingFile: Send {
    /// Takes sound, and gives the bytes that became final.
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    fn push(&mut self, pcm: &[f32]) -> Result<Vec<u8>, AudioError>;

    /// Gives the rest.
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    fn finish(self: Box<Self>) -> Result<Vec<u8>, AudioError>;
}

/// Interleaved PCM of 48 kHz in, bytes of one file out, in order, with a beginning that is known at
/// the end. Any pieces give the same file.
pub trait LongFile: Send {
    /// Takes sound, and gives the next bytes.
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    fn push(&mut self, pcm: &[f32]) -> Result<Vec<u8>, AudioError>;

    /// Gives the last bytes.
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    fn finish(self: Box<Self>) -> Result<LongEnd, AudioError>;
}

/// The end of a [`LongFile`].
#[derive(Debug)]
pub struct LongEnd {
    /// Follows what was given.
    pub rest: Vec<u8>,
    /// Replaces as many bytes at the beginning of the file.
    pub head: Vec<u8>,
}

/// A row of the table.
#[derive(Clone, Copy)]
pub struct Format(&'static dyn FormatSpec);

impl Format {
    /// Ogg Opus, 48 kHz.
    pub const OGG: Self = Self(&ogg::OggOpus);
    /// MP3 (LAME), 48 kHz.
    pub const MP3: Self = Self(&mp3::Mp3);
    /// 16-bit PCM.
    pub const WAV: Self = Self(&wav::Wav);
    /// 16-bit lossless.
    pub const FLAC: Self = Self(&flac::Flac);

    /// The table. Of streams, the first row is what is sent when nobody says otherwise.
    pub const ALL: [Self; 4] = [Self::OGG, Self::MP3, Self::WAV, Self::FLAC];

    /// Those in which streams are sent.
    pub fn all_live() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|format| format.live().is_some())
    }

    /// The format of a name in requests.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.0.names().contains(&name))
    }

    /// The format whose files end with this.
    pub fn of_extension(extension: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.extension() == extension)
    }

    /// The format that a file's name says, if this build can make it.
    ///
    /// # Errors
    /// [`AudioError::UnknownExtension`], [`AudioError::NoEncoder`].
    pub fn of_path(path: &Path) -> Result<Self, AudioError> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let format = extension.and_then(|extension| Self::named(&extension.to_ascii_lowercase()));
        let format = format.ok_or_else(|| AudioError::UnknownExtension(path.to_owned()))?;
        if format.missing_feature().is_some() { Err(AudioError::NoEncoder(format)) } else { Ok(format) }
    }

    /// What its files end with, without the dot; its name.
    pub fn extension(self) -> &'static str {
        self.0.names()[0]
    }

    /// The media type.
    pub fn media_type(self) -> &'static str {
        self.0.media_type()
    }

    /// Channels that it has room for.
    pub fn most_channels(self) -> usize {
        self.0.most_channels()
    }

    /// The feature without which this build cannot encode it.
    pub fn missing_feature(self) -> Option<&'static str> {
        self.0.missing_feature()
    }

    /// How a file begins that is sent while its sound is still being made, if this format can.
    pub fn preview(self) -> Option<BeginFile> {
        self.0.preview()
    }

    /// How a file of any length is written piece by piece, of 48 kHz.
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    pub fn long(self, channels: usize) -> Result<Box<dyn LongFile>, AudioError> {
        self.0.long(channels)
    }

    /// How streams are sent, if this format can.
    pub fn live(self) -> Option<&'static dyn LiveFormat> {
        self.0.live()
    }

    /// Encodes interleaved `pcm` as a whole file's bytes. Sound above full scale is limited, not
    /// clipped; sound within it is not touched. Lossy formats have 48 kHz.
    ///
    /// # Errors
    /// [`AudioError`] of the codec concerned.
    pub fn encode(self, pcm: &[f32], rate: SampleRate, channels: usize) -> Result<Vec<u8>, AudioError> {
        self.0.file(&limited(pcm, channels), rate, channels)
    }
}

/// The names of formats in a sentence: `ogg, mp3 or wav`, each after `mark`.
pub fn list(formats: impl IntoIterator<Item = Format>, mark: &str) -> String {
    let names: Vec<String> = formats.into_iter().map(|format| format!("{mark}{format}")).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

impl Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.extension())
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.extension())
    }
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.extension() == other.extension()
    }
}

impl Eq for Format {}

impl Hash for Format {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.extension().hash(state);
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

/// Writing to memory fails only when a container's size field overflows.
fn in_memory(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AudioError {
    AudioError::Write { path: "the file in memory".into(), source: std::io::Error::other(source) }
}
