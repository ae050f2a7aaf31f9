//! Transforms and loops as jobs for the engine's thread, on the models of `model/melodyflow` and `model/stable_audio`.

mod loops;
pub(super) mod standin;
mod transforms;

pub use loops::{
    BARS, Given, LoopInfo, LoopModel, LoopSettings, LoopSpec, MakeLoop, Mask, Sampler, Shape, bar_seconds,
    fitting_bars, tempo,
};
pub use transforms::{Transform, TransformMethod, TransformModel, TransformSettings};

use crate::model::ModelError;

fn sentence(error: ModelError) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::jobs::{Job, Step};

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
