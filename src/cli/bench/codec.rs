//! `bench codec`: the streaming decoder, fed as the engine feeds it.

use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::{RandomModel, Row};
use crate::cli::{Failure, load};
use crate::engine::{Backend, CodecState, Decode, KV_BUDGET, MusicGenBackend};
use crate::model::MusicGen;
use crate::units::ModelId;

#[derive(Args)]
pub(super) struct CodecArgs {
    #[command(flatten)]
    random: RandomModel,
    /// A model's codec instead of a random one: a name or a folder
    #[arg(long, value_name = "NAME", conflicts_with = "size")]
    model: Option<String>,
    /// Voices decoded together
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    voices: Vec<usize>,
    /// Frames per pass
    #[arg(long, default_value_t = 10)]
    frames: usize,
    /// Seconds to measure per number of voices
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

impl CodecArgs {
    /// The backend and the name of its number format.
    fn backend(&self) -> Result<(MusicGenBackend, &'static str), Failure> {
        let Some(name) = &self.model else {
            let (backend, dtype, _) = self.random.build()?;
            return Ok((backend, dtype));
        };
        let (target, dtype) = self.random.target()?;
        let model = MusicGen::load(&load::fetch(name)?, &load::fetch, &target)?;
        Ok((MusicGenBackend::new(ModelId(name.clone()), model, KV_BUDGET)?, dtype))
    }
}

pub(super) fn run(args: &CodecArgs) -> Result<Vec<Row>, Failure> {
    let (mut model, dtype) = args.backend()?;
    let info = model.info().clone();
    let codes: Vec<u32> =
        (0..args.frames.max(1) * info.codebooks).map(|i| (i as u32).wrapping_mul(2_654_435_761) % info.card).collect();
    let mut results = Vec::new();
    for &voices in &args.voices {
        let mut states: Vec<Box<dyn CodecState>> = (0..voices.max(1)).map(|_| model.codec_state()).collect();
        let mut pass = |states: &mut Vec<Box<dyn CodecState>>| -> Result<usize, Failure> {
            let mut jobs: Vec<Decode<'_>> =
                states.iter_mut().map(|state| Decode { state: state.as_mut(), codes: &codes, last: false }).collect();
            let pcm = model.decode(&mut jobs).map_err(|lost| Failure(lost.0))?;
            pcm.into_iter().try_fold(0, |sum, pcm| Ok(sum + pcm.map_err(|fault| Failure(fault.0))?.len()))
        };
        pass(&mut states)?;
        let timer = Instant::now();
        let mut samples = 0;
        while timer.elapsed().as_secs_f64() < args.seconds {
            samples += pass(&mut states)?;
        }
        let sound = samples as f64 / info.channels as f64 / f64::from(info.sample_rate.0);
        results.push(vec![
            ("dtype", json!(dtype)),
            ("voices", json!(voices)),
            ("frames", json!(args.frames)),
            ("realtime", json!(sound / timer.elapsed().as_secs_f64())),
        ]);
    }
    Ok(results)
}
