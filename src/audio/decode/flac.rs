//! FLAC streams: cut at the frames' own numbers, so that neither counts in the header nor what lies
//! behind matters.

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_FLAC;

use super::output::Output;
use super::packets::Packets;
use super::{Trust, unreadable};
use crate::audio::AudioError;
use crate::audio::format::Frame;

/// Bytes of a STREAMINFO block.
const STREAM_INFO: usize = 34;

/// Decodes one or several streams one behind the other.
pub(super) fn decode(bytes: &[u8], output: &mut Output<'_>) -> Result<Trust, AudioError> {
    let (mut at, mut trust, mut streams) = (0, Trust::Whole, 0);
    while let Some(head) = Head::parse(&bytes[at..]) {
        let mut packets = packets(head.stream_info)?;
        at += head.length;
        let mut frame = Frame::find(bytes, at, None);
        if let Some(first) = &frame
            && first.at > at
        {
            trust = Trust::Doubtful;
        }
        while let Some(this) = frame {
            let next = Frame::find(bytes, this.at + 1, Some(&this));
            let end = next.as_ref().map_or(bytes.len(), |next| next.at);
            // Another stream may begin where this one has no more frames.
            let end = if next.is_some() { end } else { this.at + next_stream(&bytes[this.at..]) };
            if let Some(spec) = packets.decode(&bytes[this.at..end], 0)? {
                output.push(spec, &mut packets.pcm)?;
            }
            at = end;
            frame = next;
        }
        trust = trust.and(packets.trust);
        streams += 1;
    }
    if streams == 0 { Err(unreadable("its FLAC header is damaged")) } else { Ok(trust) }
}

/// A decoder for frames of the stream that a STREAMINFO block describes.
pub(super) fn packets(stream_info: &[u8]) -> Result<Packets, AudioError> {
    let mut parameters = AudioCodecParameters::new();
    parameters.for_codec(CODEC_ID_FLAC).with_extra_data(stream_info.into());
    Packets::new(&parameters)
}

fn next_stream(bytes: &[u8]) -> usize {
    let marker = |window: &[u8]| window.starts_with(b"fLaC") && Head::parse_marker(window);
    bytes.windows(8).position(marker).unwrap_or(bytes.len())
}

/// The marker and all blocks in front of the frames.
struct Head<'a> {
    stream_info: &'a [u8],
    length: usize,
}

impl<'a> Head<'a> {
    /// Whether a marker is followed by STREAMINFO, as it must.
    fn parse_marker(bytes: &[u8]) -> bool {
        matches!(bytes, [b'f', b'L', b'a', b'C', 0 | 0x80, 0, 0, 34, ..])
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if !Self::parse_marker(bytes) {
            return None;
        }
        let stream_info = bytes.get(8..8 + STREAM_INFO)?;
        let mut at = 4;
        while let Some(&[kind, a, b, c]) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
            at += 4 + u32::from_be_bytes([0, a, b, c]) as usize;
            if kind & 0x80 != 0 {
                break;
            }
        }
        Some(Self { stream_info, length: at.min(bytes.len()) })
    }
}
