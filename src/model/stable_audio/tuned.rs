//! A training's checkpoint (`.ckpt`) over the weights that the training began with.

use std::path::Path;

use candle_core::Tensor;

use super::super::{archive::PthSource, error::Result, weights::TensorSource};

/// The tensors of a model that was trained further: averaged weights before the last ones, the
/// autoencoder always the original's.
pub(super) struct Tuned<'a> {
    pub(super) tuned: &'a dyn TensorSource,
    pub(super) base: &'a dyn TensorSource,
}

impl Tuned<'_> {
    /// Where the training wrote a tensor, if it did.
    fn stored(&self, name: &str) -> Option<String> {
        if name.starts_with("pretransform.") {
            return None;
        }
        let averaged = name.strip_prefix("model.").map(|rest| format!("diffusion_ema.ema_model.{rest}"));
        let places = averaged.into_iter().chain([format!("diffusion.{name}"), name.to_owned()]);
        places.into_iter().find(|place| self.tuned.has(place))
    }
}

impl TensorSource for Tuned<'_> {
    fn has(&self, name: &str) -> bool {
        self.stored(name).is_some() || self.base.has(name)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        match self.stored(name) {
            Some(place) => self.tuned.read(&place, shape),
            None => self.base.read(name, shape),
        }
    }
}

/// Opens a checkpoint; a training's has its tensors below `state_dict`, others are plain.
pub(super) fn open(path: &Path) -> Result<PthSource> {
    match PthSource::open(path, Some("state_dict")) {
        Ok(tensors) if !tensors.is_empty() => Ok(tensors),
        _ => PthSource::open(path, None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashMap;

    use candle_core::Device;

    use super::*;

    fn tensors(names: &[(&str, f32)]) -> HashMap<String, Tensor> {
        let tensor = |value: f32| Tensor::from_vec(vec![value], 1, &Device::Cpu).unwrap();
        names.iter().map(|(name, value)| ((*name).to_owned(), tensor(*value))).collect()
    }

    #[test]
    fn averaged_weights_go_first_and_the_autoencoder_stays() {
        let base = tensors(&[
            ("model.model.a", 0.0),
            ("model.model.b", 0.0),
            ("model.model.c", 0.0),
            ("conditioner.d", 0.0),
            ("pretransform.model.e", 0.0),
        ]);
        let tuned = tensors(&[
            ("diffusion_ema.ema_model.model.a", 2.0),
            ("diffusion.model.model.a", 1.0),
            ("diffusion.model.model.b", 1.0),
            ("conditioner.d", 1.0),
            ("pretransform.model.e", 1.0),
            ("diffusion.pretransform.model.e", 1.0),
        ]);
        let both = Tuned { tuned: &tuned, base: &base };
        for (name, expected) in [
            ("model.model.a", 2.0),
            ("model.model.b", 1.0),
            ("model.model.c", 0.0),
            ("conditioner.d", 1.0),
            ("pretransform.model.e", 0.0),
        ] {
            assert_eq!(both.read(name, &[1]).unwrap().to_vec1::<f32>().unwrap(), [expected], "{name}");
        }
        assert!(!both.has("model.model.none"));
    }
}
