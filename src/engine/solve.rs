//! Work that shares the engine's thread with the voices: transforms and loops, one bounded step at a time.
//!
//! A [`Job`] computes on the device that the voices use, so it must not run beside them but between their steps: only
//! while every live voice has enough sound ahead to last through the job's longest step so far. Jobs run one after the
//! other, in the order in which they came. Dropping a [`Solving`] ends its job.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use tokio::sync::{oneshot, watch};

use super::EngineError;

/// Jobs that may wait, the running one included.
const MOST: usize = 64;
/// Seconds that a step is expected to take before one was measured.
const UNKNOWN: f64 = 1.0;
/// Seconds that voices must have beyond the longest step.
const MARGIN: f64 = 0.5;
/// How quickly a long step is forgotten.
const FADE: f64 = 0.98;

/// What a step of a job led to.
pub enum Step<T> {
    /// There is more to do: parts done and to be done.
    Working(usize, usize),
    /// This came out.
    Done(T),
}

/// Work in steps that are short against the lead of a voice. It may hold tensors; all calls come from the engine's
/// thread.
pub trait Job: Send + 'static {
    /// What comes out.
    type Output: Send + 'static;

    /// Does the next bounded piece of work.
    ///
    /// # Errors
    /// A sentence that ends this job; voices and other jobs go on.
    fn step(&mut self) -> Result<Step<Self::Output>, String>;
}

/// A job that was handed to the engine. Dropping it ends the job.
pub struct Solving<T> {
    progress: watch::Receiver<(usize, usize)>,
    answer: oneshot::Receiver<Result<T, EngineError>>,
}

impl<T> Solving<T> {
    /// Parts done and to be done; `(0, 0)` before the job's first step.
    pub fn progress(&self) -> (usize, usize) {
        *self.progress.borrow()
    }

    /// A second view of the progress, for whoever reports it.
    pub fn watch(&self) -> watch::Receiver<(usize, usize)> {
        self.progress.clone()
    }

    /// Waits for what comes out.
    ///
    /// # Errors
    /// [`EngineError::Failed`] with the job's own sentence; [`EngineError::Gone`] when the engine has stopped.
    pub async fn finish(self) -> Result<T, EngineError> {
        self.answer.await.unwrap_or_else(|_| Err(EngineError::Gone("the engine has stopped".into())))
    }
}

/// A job behind a common face.
pub(super) trait Work: Send {
    /// Does a step; `false` when nothing is left, or nobody waits any more.
    fn step(&mut self) -> bool;
    /// Ends it with an error.
    fn refuse(&mut self, error: EngineError);
}

struct Running<J: Job> {
    job: J,
    progress: watch::Sender<(usize, usize)>,
    answer: Option<oneshot::Sender<Result<J::Output, EngineError>>>,
}

impl<J: Job> Work for Running<J> {
    fn step(&mut self) -> bool {
        if self.answer.as_ref().is_none_or(oneshot::Sender::is_closed) {
            return false;
        }
        let stepped = std::panic::catch_unwind(AssertUnwindSafe(|| self.job.step()));
        let end = match stepped {
            Ok(Ok(Step::Working(done, of))) => {
                self.progress.send_replace((done, of));
                return true;
            }
            Ok(Ok(Step::Done(output))) => Ok(output),
            Ok(Err(reason)) => Err(EngineError::Failed(reason)),
            Err(_) => Err(EngineError::Failed("a step of it stumbled; the server's log says where".into())),
        };
        if let Some(answer) = self.answer.take() {
            // Somebody who has left meanwhile wants no answer.
            let _ = answer.send(end);
        }
        false
    }

    fn refuse(&mut self, error: EngineError) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(Err(error));
        }
    }
}

/// A job made ready for the engine's thread, and the handle to it.
pub(super) fn running<J: Job>(job: J) -> (Box<dyn Work>, Solving<J::Output>) {
    let (progress, watched) = watch::channel((0, 0));
    let (answer, awaited) = oneshot::channel();
    (Box::new(Running { job, progress, answer: Some(answer) }), Solving { progress: watched, answer: awaited })
}

/// The jobs of an engine.
#[derive(Default)]
pub(super) struct Solvers {
    queue: VecDeque<Box<dyn Work>>,
    longest: f64,
}

impl Solvers {
    pub(super) fn push(&mut self, mut work: Box<dyn Work>) {
        if self.queue.len() >= MOST {
            return work.refuse(EngineError::Failed(format!("{MOST} jobs wait already; try again later")));
        }
        if self.queue.is_empty() {
            self.longest = UNKNOWN;
        }
        self.queue.push_back(work);
    }

    /// Does one step if every live voice, the least of which has `lead` seconds of sound, can do without the device
    /// meanwhile; with nobody hungry (`idle`) waiting would gain nothing. Says whether it did.
    pub(super) fn work(&mut self, lead: f64, idle: bool) -> bool {
        let Some(first) = self.queue.front_mut() else { return false };
        if !idle && lead < self.longest + MARGIN {
            return false;
        }
        let begun = Instant::now();
        if !first.step() {
            self.queue.pop_front();
        }
        self.longest = begun.elapsed().as_secs_f64().max(FADE * self.longest);
        true
    }

    pub(super) fn end_all(&mut self, error: &EngineError) {
        for mut work in self.queue.drain(..) {
            work.refuse(error.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::super::{Engine, EngineConfig, Read, Voice, VoiceSpec, standin::Standin};
    use super::*;
    use crate::units::Samples;

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn engine() -> Engine {
        Engine::start(Box::new(Standin::default()), EngineConfig::default()).unwrap()
    }

    /// A job whose every step takes as long as listeners need to hear `samples`: it reads them.
    struct Listening {
        voices: Vec<Voice>,
        samples: u64,
        left: usize,
        dry: Arc<Mutex<usize>>,
    }

    impl Job for Listening {
        type Output = Vec<Voice>;

        fn step(&mut self) -> Result<Step<Vec<Voice>>, String> {
            for voice in &mut self.voices {
                let mut heard = 0;
                while heard < self.samples {
                    match voice.read(Samples(self.samples - heard)) {
                        Read::Chunk(chunk) => heard += chunk.pcm.len() as u64,
                        _ => {
                            *self.dry.lock().unwrap() += 1;
                            break;
                        }
                    }
                }
            }
            self.left -= 1;
            if self.left == 0 {
                Ok(Step::Done(std::mem::take(&mut self.voices)))
            } else {
                Ok(Step::Working(0, self.left))
            }
        }
    }

    #[test]
    fn live_voices_never_run_dry_while_a_job_works() {
        wait(async {
            let engine = engine();
            let spec = |text: &str| VoiceSpec { lead: Duration::from_secs(2), ..VoiceSpec::endless(text) };
            let voices = vec![engine.join(spec("one")).await.unwrap(), engine.join(spec("two")).await.unwrap()];
            let dry = Arc::new(Mutex::new(0));
            // Less than the margin: a step's measured time is next to nothing, what it stands for is 0.4 s.
            let job = Listening { voices, samples: 12_800, left: 150, dry: dry.clone() };
            let voices = engine.solve(job).finish().await.unwrap();
            assert_eq!(*dry.lock().unwrap(), 0, "a voice ran dry during a job of a minute of sound");
            assert_eq!(voices.len(), 2);
        });
    }

    struct Counting(usize, usize);

    impl Job for Counting {
        type Output = usize;

        fn step(&mut self) -> Result<Step<usize>, String> {
            self.0 += 1;
            match (self.0, self.1) {
                (7, 1) => Err("seven is too much".into()),
                (7, 2) => panic!("seven"),
                (20, 0) => Ok(Step::Done(self.0)),
                (done, _) => Ok(Step::Working(done, 20)),
            }
        }
    }

    #[test]
    fn a_job_is_done_without_voices_and_a_bad_one_ends_alone() {
        wait(async {
            let engine = engine();
            let (good, bad, worse) =
                (engine.solve(Counting(0, 0)), engine.solve(Counting(0, 1)), engine.solve(Counting(0, 2)));
            let after = engine.solve(Counting(0, 0));
            assert_eq!(good.finish().await.unwrap(), 20);
            assert!(bad.finish().await.unwrap_err().to_string().contains("seven is too much"));
            assert!(worse.finish().await.unwrap_err().to_string().contains("stumbled"));
            assert_eq!(after.finish().await.unwrap(), 20);
            assert!(engine.status().lost.is_none());
        });
    }

    #[test]
    fn a_job_that_nobody_waits_for_makes_room_for_the_next() {
        wait(async {
            let engine = engine();
            drop(engine.solve(Counting(usize::MAX / 2, 0)));
            assert_eq!(engine.solve(Counting(0, 0)).finish().await.unwrap(), 20);
        });
    }
}
