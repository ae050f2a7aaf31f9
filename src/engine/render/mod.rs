//! Models that render whole clips, as jobs for the engine's thread: transforms by MelodyFlow, loops
//! by Stable Audio.
//!
//! [`RenderBackend`] is the seam: above it nobody knows which mathematics makes the sound, and a
//! stand-in takes the place of a model in tests.

mod loops;
mod spec;
pub(super) mod standin;
mod transforms;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
pub use spec::{
    Given, LoopSettings, LoopSpec, Mask, RenderInfo, RenderSpec, Sampler, Shape, TransformMethod, TransformSettings,
    TransformSpec,
};

use super::Job;
use crate::model::ModelError;
use crate::pcm::Pcm;

/// A model that renders; clones share its weights.
pub type RenderModel = Arc<dyn RenderBackend>;
/// Work that ends with a sound.
pub type RenderJob = Box<dyn Job<Output = Pcm>>;

/// What the engine and the studio ask of a model that renders.
pub trait RenderBackend: Send + Sync {
    /// Fixed facts.
    fn info(&self) -> RenderInfo;

    /// Whether it can make this, before anything is computed.
    ///
    /// # Errors
    /// A sentence without its full stop.
    fn check(&self, spec: &RenderSpec) -> Result<(), String>;

    /// The work to be handed to [`super::Engine::submit`]. `given` is interleaved at the model's
    /// rate and channels.
    ///
    /// # Errors
    /// As [`RenderBackend::check`], and for a transform without a recording.
    fn begin(self: Arc<Self>, spec: RenderSpec, given: Option<Vec<f32>>) -> Result<RenderJob, String>;
}

/// A model that renders, by what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RenderKey {
    /// The transform model.
    Transform,
    /// The loop model that the server was started with, or a fine-tune of it.
    Loop(Option<FineTune>),
}

/// Weights of the loop model that somebody has trained further.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FineTune {
    /// Their Hugging Face repository.
    pub repo: String,
    /// The file in it.
    pub checkpoint: String,
}

fn sentence(error: ModelError) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}

/// What a backend says that was asked for the other family's work.
fn other_family(makes: &str) -> String {
    format!("this model makes {makes}, nothing else")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::{Job, Step};

    /// Works on a job to its end; what came out, and after how many steps.
    pub(super) fn run<J: Job>(mut job: J) -> (J::Output, usize) {
        for steps in 1.. {
            if let Step::Done(output) = job.step().unwrap() {
                return (output, steps);
            }
        }
        unreachable!("a job ends")
    }
}
