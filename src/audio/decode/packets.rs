//! Packets of one codec to PCM, whatever container they came in.

use std::sync::LazyLock;

use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::Error;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};

use super::opus::Opus;
use super::output::PcmSpec;
use super::{Trust, unreadable};
use crate::audio::AudioError;

static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut codecs = CodecRegistry::new();
    symphonia::default::register_enabled_codecs(&mut codecs);
    codecs
});

enum Codec {
    Opus(Box<Opus>),
    Other(Box<dyn AudioDecoder>),
}

/// A decoder that goes on behind damaged packets.
pub(super) struct Packets {
    codec: Codec,
    /// The last packet's PCM.
    pub pcm: Vec<f32>,
    /// Whether every packet was understood.
    pub trust: Trust,
}

impl Packets {
    pub(super) fn new(parameters: &AudioCodecParameters) -> Result<Self, AudioError> {
        let codec = if parameters.codec == CODEC_ID_OPUS {
            let head = parameters.extra_data.as_deref().unwrap_or_default();
            Codec::Opus(Box::new(Opus::new(head)?))
        } else {
            let decoder = CODECS.make_audio_decoder(parameters, &AudioDecoderOptions::default());
            Codec::Other(decoder.map_err(unreadable)?)
        };
        Ok(Self { codec, pcm: Vec::new(), trust: Trust::Whole })
    }

    /// Decodes a packet of `duration` frames (which only block codecs look at) into `pcm`; `None`
    /// when it is damaged.
    pub(super) fn decode(&mut self, data: &[u8], duration: u64) -> Result<Option<PcmSpec>, AudioError> {
        let packet = PacketRef::new(0, Timestamp::ZERO, Duration::from(duration), data);
        self.decode_packet(&packet)
    }

    /// Frames of the last packet that were left out because they lie before the sound.
    pub(super) fn skipped(&self) -> usize {
        match &self.codec {
            Codec::Opus(opus) => opus.skipped,
            Codec::Other(_) => 0,
        }
    }

    /// As [`Packets::decode`], of a container that says what is to be trimmed.
    pub(super) fn decode_packet(&mut self, packet: &PacketRef<'_>) -> Result<Option<PcmSpec>, AudioError> {
        self.pcm.clear();
        let spec = match &mut self.codec {
            Codec::Opus(opus) => opus.decode(packet.data, &mut self.pcm).inspect(|spec| {
                let frames = self.pcm.len() / spec.channels;
                let kept = frames.saturating_sub(packet.trim_end.get() as usize);
                self.pcm.truncate(kept * spec.channels);
            }),
            Codec::Other(decoder) => match decoder.decode_ref(packet) {
                Ok(decoded) => {
                    decoded.copy_to_vec_interleaved(&mut self.pcm);
                    let spec = decoded.spec();
                    Some(PcmSpec { rate: spec.rate(), channels: spec.channels().count() })
                }
                Err(Error::DecodeError(_) | Error::IoError(_)) => None,
                Err(error) => return Err(unreadable(error)),
            },
        };
        if spec.is_none() {
            self.trust = Trust::Doubtful;
        }
        Ok(spec)
    }
}
