//! Uncompressed samples of every width, as WAV, AIFF, AU and CAF hold them.

use super::output::{Output, PcmSpec};
use crate::audio::AudioError;

/// Frames that are converted at once.
const BLOCK: usize = 8192;

/// How one sample is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// One byte, 128 is silence.
    Unsigned8,
    /// Signed, of 1, 2, 3, 4 or 8 bytes.
    Signed(usize),
    Float32,
    Float64,
    ALaw,
    MuLaw,
}

/// Samples one behind the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pcm {
    pub coding: Coding,
    pub big_endian: bool,
    pub spec: PcmSpec,
}

impl Pcm {
    /// Bytes of a sample.
    fn width(&self) -> usize {
        match self.coding {
            Coding::Unsigned8 | Coding::ALaw | Coding::MuLaw => 1,
            Coding::Signed(bytes) => bytes,
            Coding::Float32 => 4,
            Coding::Float64 => 8,
        }
    }

    /// Converts all whole frames of `data`.
    pub(super) fn decode(&self, data: &[u8], output: &mut Output<'_>) -> Result<(), AudioError> {
        let frame = self.width() * self.spec.channels.max(1);
        let (mut block, whole) = (Vec::new(), data.len() - data.len() % frame);
        for bytes in data[..whole].chunks(frame * BLOCK) {
            block.clear();
            block.extend(bytes.chunks_exact(self.width()).map(|sample| self.sample(sample)));
            output.push(self.spec, &mut block)?;
        }
        Ok(())
    }

    /// One sample, which has as many bytes as the coding says.
    fn sample(&self, bytes: &[u8]) -> f32 {
        // To the top of eight bytes, little end first.
        let mut wide = [0; 8];
        let place = &mut wide[8 - bytes.len()..];
        place.copy_from_slice(bytes);
        if self.big_endian {
            place.reverse();
        }
        let bits = i64::from_le_bytes(wide);
        match self.coding {
            Coding::Unsigned8 => (f32::from(bytes[0]) - 128.0) / 128.0,
            Coding::Signed(_) => (bits as f64 / -(i64::MIN as f64)) as f32,
            Coding::Float32 => f32::from_bits((bits >> 32) as u32),
            Coding::Float64 => f64::from_bits(bits as u64) as f32,
            Coding::ALaw => a_law(bytes[0]),
            Coding::MuLaw => mu_law(bytes[0]),
        }
    }
}

/// ITU-T G.711, 13 bits.
fn a_law(byte: u8) -> f32 {
    let byte = byte ^ 0x55;
    let (segment, step) = (byte >> 4 & 7, i32::from(byte & 15) << 4);
    let size = if segment == 0 { step + 8 } else { (step + 0x108) << (segment - 1) };
    (if byte & 0x80 == 0 { -size } else { size }) as f32 / 32_768.0
}

/// ITU-T G.711, 14 bits.
fn mu_law(byte: u8) -> f32 {
    const BIAS: i32 = 0x84;
    let byte = !byte;
    let size = (((i32::from(byte & 15) << 3) + BIAS) << (byte >> 4 & 7)) - BIAS;
    (if byte & 0x80 == 0 { size } else { -size }) as f32 / 32_768.0
}
