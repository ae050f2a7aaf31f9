//! Containers that symphonia takes apart: Matroska and WebM, MP4, CAF, ADTS.

use std::borrow::Cow;
use std::io::Cursor;
use std::ops::Range;

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_AAC, CODEC_ID_OPUS};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

use super::output::{Output, PcmSpec};
use super::packets::Packets;
use super::{Trust, mp4, unreadable};
use crate::audio::AudioError;

/// The highest rate at which an AAC stream may be HE-AAC, of which only the lower half of the rate
/// and the sound is read.
const HALF_RATE: u32 = 24_000;

pub(super) fn decode(bytes: &[u8], output: &mut Output<'_>) -> Result<Trust, AudioError> {
    decode_parts(bytes, None, output)
}

/// Matroska and WebM. A recording that was cut off ends before its segment does, by the size that
/// this claims: then it is read as one of unknown size and without an index, as browsers write
/// them.
pub(super) fn decode_matroska(bytes: &[u8], output: &mut Output<'_>) -> Result<Trust, AudioError> {
    const SEGMENT: [u8; 4] = [0x18, 0x53, 0x80, 0x67];
    const SEEK_HEAD: [u8; 4] = [0x11, 0x4d, 0x9b, 0x74];
    let place = |name| bytes[..bytes.len().min(4096)].windows(4).position(|four| four == name).map(|at| at + 4);
    let Some(segment) = place(SEGMENT) else { return decode(bytes, output) };
    let told = match number(&bytes[segment..]) {
        Some((size, width)) if size > (bytes.len() - segment - width) as u64 => width,
        _ => return decode(bytes, output),
    };
    let mut open = bytes.to_vec();
    open[segment..segment + told].fill(0xff);
    open[segment] >>= told - 1;
    if let Some(at) = place(SEEK_HEAD)
        && let Some((size, width @ 1..=5)) = number(&bytes[at..])
    {
        // A void of the same length: a name of one byte, and a size that takes the place of both.
        let width = width + 3;
        let size = (1 << (7 * width) | size) << (64 - 8 * width);
        open[at - 4] = 0xec;
        open[at - 3..at - 3 + width].copy_from_slice(&size.to_be_bytes()[..width]);
    }
    decode(&open, output)
}

/// A size, and how many bytes it takes: as many as its first one has zeros in front, and one.
fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let width = bytes.first()?.leading_zeros() as usize + 1;
    let digits = bytes.get(..width).filter(|_| width <= 8)?;
    let value = digits.iter().fold(0, |value: u64, &digit| value << 8 | u64::from(digit));
    let most = (1 << (7 * width)) - 1;
    let size = value & most;
    // All ones say that nobody knows.
    (size != most).then_some((size, width))
}

/// Decodes the default track; of `kept`, if there is such a list, only the given seconds.
pub(super) fn decode_parts(
    bytes: &[u8],
    kept: Option<&[Range<f64>]>,
    output: &mut Output<'_>,
) -> Result<Trust, AudioError> {
    let stream = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(unreadable)?;
    let track = format.default_track(TrackType::Audio);
    let track = track.ok_or_else(|| unreadable("there is no sound track in it"))?;
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
    let parameters = parameters.ok_or_else(|| unreadable("its codec is not known"))?;
    let parameters = if mp4::is_one(bytes) { opus_of_mp4(parameters, kept) } else { Cow::Borrowed(parameters) };
    let (id, mut packets) = (track.id, Packets::new(&parameters)?);
    let (mut trust, mut at) = (Trust::Whole, 0);
    let is_aac = parameters.codec == CODEC_ID_AAC;
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            // A file that was cut off still has the sound before the cut.
            Ok(None) | Err(Error::IoError(_)) => break,
            Err(error) if at == 0 => return Err(unreadable(error)),
            Err(_) => {
                trust = Trust::Doubtful;
                break;
            }
        };
        if packet.track_id != id {
            continue;
        }
        if let Some(spec) = packets.decode_packet(&packet.as_packet_ref())? {
            if is_aac && spec.rate <= HALF_RATE {
                trust = Trust::Doubtful;
            }
            let from = at;
            at += packets.pcm.len() / spec.channels;
            match kept {
                None => output.push(spec, &mut packets.pcm)?,
                Some(kept) => kept.iter().try_for_each(|kept| push_part(kept, from, spec, &mut packets.pcm, output))?,
            }
        }
    }
    Ok(trust.and(packets.trust))
}

/// An Opus header in MP4 has its numbers with the big end first, and its pre-skip again in the edit
/// list.
fn opus_of_mp4<'a>(parameters: &'a AudioCodecParameters, kept: Option<&[Range<f64>]>) -> Cow<'a, AudioCodecParameters> {
    let head = parameters.extra_data.as_deref().filter(|head| head.len() >= 19);
    let Some(head) = head.filter(|_| parameters.codec == CODEC_ID_OPUS) else { return Cow::Borrowed(parameters) };
    let mut head = head.to_vec();
    for field in [10..12, 12..16, 16..18] {
        head[field].reverse();
    }
    if kept.is_some() {
        head[10..12].fill(0);
    }
    let mut parameters = parameters.clone();
    parameters.with_extra_data(head.into());
    Cow::Owned(parameters)
}

/// Hands on what of a block, which begins at the frame `at`, lies within the seconds `kept`.
fn push_part(
    kept: &Range<f64>,
    at: usize,
    spec: PcmSpec,
    pcm: &mut [f32],
    output: &mut Output<'_>,
) -> Result<(), AudioError> {
    let frames = pcm.len() / spec.channels;
    let place = |seconds: f64| ((seconds * f64::from(spec.rate)).round() as usize).saturating_sub(at).min(frames);
    let (from, to) = (place(kept.start), place(kept.end));
    if from < to { output.push(spec, &mut pcm[from * spec.channels..to * spec.channels]) } else { Ok(()) }
}
