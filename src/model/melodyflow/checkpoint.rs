//! Audiocraft's pair of files: `state_dict.bin` with the transformer, `compression_state_dict.bin`
//! with the codec.

use std::path::Path;

use candle_core::Tensor;

use super::{
    super::{
        Files,
        archive::{Archive, PthSource},
        audiocraft,
        error::Result,
        weights::TensorSource,
    },
    config::FlowConfig,
};

/// Both files, their tensors not yet read.
pub(super) struct FlowCheckpoint {
    pub config: FlowConfig,
    pub flow: PthSource,
    pub codec: HfNames,
}

pub(super) fn open(files: &Files) -> Result<FlowCheckpoint> {
    let folder = audiocraft::folder(files)?;
    let flow = Archive::open(files, folder, audiocraft::LM)?;
    let codec = Archive::open(files, folder, audiocraft::CODEC)?;
    let config = FlowConfig::read(&flow.settings()?, &codec.settings()?).map_err(|reason| flow.wrong(reason))?;
    let tensors = flow.source()?;
    if !tensors.has("latent_mean") || !tensors.has("transformer.rope.frequencies") {
        return Err(flow.wrong("it holds no MelodyFlow but another model; take facebook/melodyflow-t24-30secs"));
    }
    Ok(FlowCheckpoint { config, flow: tensors, codec: HfNames(codec.source()?) })
}

/// Whether the model in a folder is a MelodyFlow.
pub(in super::super) fn is_in(folder: &Path) -> bool {
    let files = Files::Folder(folder.to_owned());
    let source = Archive::open(&files, folder, audiocraft::LM).and_then(|archive| archive.source());
    source.is_ok_and(|tensors| tensors.has("latent_mean"))
}

/// A codec's tensors by the names that the rest of this room uses.
pub(super) struct HfNames(PthSource);

impl HfNames {
    fn stored(&self, name: &str) -> String {
        let name = name.replace(".layers.", ".model.");
        let plain = name.replace(".conv.", ".conv.conv.");
        if self.0.has(&plain) { plain } else { name.replace(".conv.", ".convtr.convtr.") }
    }
}

impl TensorSource for HfNames {
    fn has(&self, name: &str) -> bool {
        self.0.has(name) || self.0.has(&self.stored(name))
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        if self.0.has(name) { self.0.read(name, shape) } else { self.0.read(&self.stored(name), shape) }
    }
}
