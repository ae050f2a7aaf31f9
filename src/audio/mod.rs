//! Sound as numbers and as bytes: resampling, loudness, limiting, and the codecs and containers
//! that players know.
//!
//! Everything here is synchronous and owns no thread, clock or socket. PCM is interleaved `f32`,
//! nominally within -1..1; a *frame* of PCM here is one sample of every channel.

mod decode;
mod error;
mod format;
pub mod hls;
mod limiter;
mod loudness;
mod opus;
mod pcm;
mod peaks;
mod resample;
mod room;
mod stretch;
mod tempo;
mod true_peak;

pub use decode::{MAX_SECONDS, Parts, PcmSpec, Take, Trust, decode, decode_to};
pub use error::AudioError;
#[cfg(feature = "mp3")]
pub use format::Mp3Encoder;
pub(crate) use format::checksum;
pub use format::{
    About, BeginFile, BitRates, Encoded, Format, FormatSpec, LiveEncoder, LiveFormat, LongEnd, LongFile, Packet,
    PageBody, Received, Span, StreamingFile, list, mp3_file,
};
pub use limiter::{CEILING, Limiter};
pub use loudness::{LEVEL_BLOCK, Leveler, TARGET_LUFS};
pub use opus::{OPUS_FRAME, OPUS_RATE, OpusEncoder};
pub use peaks::{Peaks, peaks};
pub use resample::StreamResampler;
pub use room::Room;
pub use tempo::{Pulse, pulse, tempo};

/// Appends `pcm` of `from` channels to `out` with `to` channels; both are 1 or 2.
pub fn remix(pcm: &[f32], from: usize, to: usize, out: &mut Vec<f32>) {
    match (from, to) {
        (1, 2) => out.extend(pcm.iter().flat_map(|&sample| [sample, sample])),
        (2, 1) => out.extend(pcm.chunks_exact(2).map(|pair| 0.5 * (pair[0] + pair[1]))),
        _ => out.extend_from_slice(pcm),
    }
}

#[cfg(test)]
mod tests {
    use super::remix;

    #[test]
    fn remix_keeps_the_level_of_a_centred_sound() {
        let mut stereo = Vec::new();
        remix(&[0.25, -0.5], 1, 2, &mut stereo);
        assert_eq!(stereo, [0.25, 0.25, -0.5, -0.5]);
        let mut mono = Vec::new();
        remix(&stereo, 2, 1, &mut mono);
        assert_eq!(mono, [0.25, -0.5]);
    }
}
