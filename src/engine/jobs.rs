//! AnyJob that shares the engine's thread with the voices: transforms and loops, one bounded step
//! at a time.
//!
//! A [`Job`] computes on the device that the voices use, so it must not run beside them but between
//! their steps: only while every live voice has enough sound ahead to last through a step twice as
//! long as the job's longest so far, and for half of the time at most while a voice or a clip is
//! hungry. Jobs take turns, so that a short one need not wait for a long one's end. Dropping a
//! [`JobHandle`] ends its job.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use tokio::sync::{oneshot, watch};

use super::EngineError;
use super::loaded_model::LoadedModel;

/// Jobs that may wait, the running one included.
const MOST: usize = 64;
/// Seconds that a job's first step is taken to last.
const UNKNOWN: f64 = 0.5;
/// Seconds that voices must have beyond what a step may take.
const MARGIN: f64 = 0.5;
/// How much longer than the longest so far the next step may take: a guided solver has twice the
/// rows of the one before.
const GROWTH: f64 = 2.0;

/// What a step of a job led to.
pub enum Step<T> {
    /// There is more to do: parts done and to be done.
    Working(usize, usize),
    /// This came out.
    Done(T),
}

/// AnyJob in steps that are short against the lead of a voice. It may hold tensors; all calls come
/// from the engine's thread.
pub trait Job: Send + 'static {
    /// What comes out.
    type Output: Send + 'static;

    /// Does the next bounded piece of work.
    ///
    /// # Errors
    /// A sentence that ends this job; voices and other jobs go on.
    fn step(&mut self) -> Result<Step<Self::Output>, String>;
}

impl<T: Send + 'static> Job for Box<dyn Job<Output = T>> {
    type Output = T;

    fn step(&mut self) -> Result<Step<T>, String> {
        (**self).step()
    }
}

/// A job that was handed to the engine. Dropping it ends the job.
pub struct JobHandle<T> {
    progress: watch::Receiver<(usize, usize)>,
    answer: oneshot::Receiver<Result<T, EngineError>>,
}

impl<T> JobHandle<T> {
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
    /// [`EngineError::Failed`] with the job's own sentence; [`EngineError::Gone`] when the engine
    /// has stopped.
    pub async fn finish(self) -> Result<T, EngineError> {
        self.answer.await.unwrap_or_else(|_| Err(EngineError::Gone("the engine has stopped".into())))
    }
}

/// A job behind a common face.
pub(super) trait AnyJob: Send {
    /// Does a step, with the models if it is theirs; `false` when nothing is left, or nobody waits
    /// any more.
    fn step(&mut self, models: &mut [LoadedModel]) -> bool;
    /// Ends it with an error.
    fn refuse(&mut self, error: EngineError);
}

struct JobSlot<J: Job> {
    job: J,
    progress: watch::Sender<(usize, usize)>,
    answer: Option<oneshot::Sender<Result<J::Output, EngineError>>>,
}

impl<J: Job> AnyJob for JobSlot<J> {
    fn step(&mut self, _: &mut [LoadedModel]) -> bool {
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
pub(super) fn slot<J: Job>(job: J) -> (Box<dyn AnyJob>, JobHandle<J::Output>) {
    let (progress, watched) = watch::channel((0, 0));
    let (answer, awaited) = oneshot::channel();
    (Box::new(JobSlot { job, progress, answer: Some(answer) }), JobHandle { progress: watched, answer: awaited })
}

/// A job between two of its steps.
struct Waiting {
    work: Box<dyn AnyJob>,
    /// Seconds of its longest step.
    longest: f64,
}

/// The jobs of an engine; the one whose turn it is comes first.
pub(super) struct JobQueue {
    queue: VecDeque<Waiting>,
    /// Seconds that hungry voices, clips among them, may take before the next step.
    owed: f64,
    /// Seconds since some moment.
    now: Box<dyn Fn() -> f64 + Send>,
}

impl Default for JobQueue {
    fn default() -> Self {
        let origin = Instant::now();
        Self::with_clock(Box::new(move || origin.elapsed().as_secs_f64()))
    }
}

impl JobQueue {
    fn with_clock(now: Box<dyn Fn() -> f64 + Send>) -> Self {
        Self { queue: VecDeque::new(), owed: 0.0, now }
    }

    pub(super) fn push(&mut self, mut work: Box<dyn AnyJob>) {
        if self.queue.len() >= MOST {
            return work.refuse(EngineError::Failed(format!("{MOST} jobs wait already; try again later")));
        }
        self.queue.push_back(Waiting { work, longest: UNKNOWN });
    }

    /// Does one step if every live voice, the least of which has `lead` seconds of sound, can do
    /// without the device meanwhile, and voices that were hungry had as long as the step before:
    /// `turn` is the seconds that they took just now. With nobody hungry (`None`) waiting would
    /// gain nothing. Says whether it did.
    pub(super) fn work(&mut self, lead: f64, turn: Option<f64>, models: &mut [LoadedModel]) -> bool {
        self.owed -= turn.unwrap_or(self.owed);
        let rested = self.owed <= 0.0;
        let fits = |waiting: &mut Waiting| turn.is_none() || (rested && lead >= GROWTH * waiting.longest + MARGIN);
        let Some(mut waiting) = self.queue.pop_front_if(fits) else { return false };
        let begun = (self.now)();
        let goes_on = waiting.work.step(models);
        self.owed = (self.now)() - begun;
        if goes_on {
            waiting.longest = waiting.longest.max(self.owed);
            self.queue.push_back(waiting);
        }
        true
    }

    pub(super) fn end_all(&mut self, error: &EngineError) {
        for mut waiting in self.queue.drain(..) {
            waiting.work.refuse(error.clone());
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
            // Less than the margin: a step's measured time is next to nothing, what it stands for
            // is 0.4 s.
            let job = Listening { voices, samples: 12_800, left: 150, dry: dry.clone() };
            let voices = engine.submit(job).finish().await.unwrap();
            assert_eq!(*dry.lock().unwrap(), 0, "a voice ran dry during a job of a minute of sound");
            assert_eq!(voices.len(), 2);
        });
    }

    /// Steps of these lengths in seconds, on a clock that only they move.
    struct Phases(Vec<f64>, Arc<Mutex<f64>>);

    impl AnyJob for Phases {
        fn step(&mut self, _: &mut [LoadedModel]) -> bool {
            *self.1.lock().unwrap() += self.0.pop().unwrap();
            !self.0.is_empty()
        }

        fn refuse(&mut self, _: EngineError) {}
    }

    #[test]
    fn live_voices_never_run_dry_when_a_jobs_steps_become_longer() {
        // A transform of thirty seconds on two cores: many pieces for the codec, a walk back, a
        // guided walk forth.
        let phases = [(0.05, 75), (0.6, 1200), (1.2, 600), (0.05, 75)];
        let steps: Vec<f64> = phases.iter().rev().flat_map(|&(seconds, count)| vec![seconds; count]).collect();
        let time = Arc::new(Mutex::new(0.0));
        let clock = Arc::clone(&time);
        let mut jobs = JobQueue::with_clock(Box::new(move || *clock.lock().unwrap()));
        jobs.push(Box::new(Phases(steps, Arc::clone(&time))));
        // A decoder step makes a frame of 20 ms for every voice and takes 8 ms; voices hold eight
        // seconds at most.
        let (most, mut made, mut least) = (8.0, 2.0, f64::INFINITY);
        let now = || *time.lock().unwrap();
        for _ in 0..1_000_000 {
            let hungry = made - now() < most;
            if hungry {
                made += 0.02;
                *time.lock().unwrap() += 0.008;
            }
            jobs.work(made - now(), hungry.then_some(0.008), &mut []);
            least = f64::min(least, made - now());
        }
        assert!(jobs.queue.is_empty(), "the job does not come to its end");
        assert!(least > 0.0, "a voice had {least} s left");
    }

    #[test]
    fn a_clip_has_half_of_the_time_beside_a_job() {
        let time = Arc::new(Mutex::new(0.0));
        let clock = Arc::clone(&time);
        let mut jobs = JobQueue::with_clock(Box::new(move || *clock.lock().unwrap()));
        jobs.push(Box::new(Phases(vec![1.0; 1000], Arc::clone(&time))));
        // Always hungry, never short of anything: 10 ms a step.
        let (mut clip, now) = (0.0, || *time.lock().unwrap());
        while now() < 100.0 {
            *time.lock().unwrap() += 0.01;
            clip += 0.01;
            jobs.work(f64::INFINITY, Some(0.01), &mut []);
        }
        assert!((45.0..55.0).contains(&clip), "{clip} s of a hundred");
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
                (engine.submit(Counting(0, 0)), engine.submit(Counting(0, 1)), engine.submit(Counting(0, 2)));
            let after = engine.submit(Counting(0, 0));
            assert_eq!(good.finish().await.unwrap(), 20);
            assert!(bad.finish().await.unwrap_err().to_string().contains("seven is too much"));
            assert!(worse.finish().await.unwrap_err().to_string().contains("stumbled"));
            assert_eq!(after.finish().await.unwrap(), 20);
            assert!(engine.status().lost.is_none());
        });
    }

    #[test]
    fn a_short_job_does_not_wait_for_a_long_one() {
        wait(async {
            let engine = engine();
            let endless = engine.submit(Counting(100, 3));
            assert_eq!(engine.submit(Counting(0, 0)).finish().await.unwrap(), 20);
            drop(endless);
        });
    }

    #[test]
    fn a_job_that_nobody_waits_for_makes_room_for_the_next() {
        wait(async {
            let engine = engine();
            drop(engine.submit(Counting(usize::MAX / 2, 0)));
            assert_eq!(engine.submit(Counting(0, 0)).finish().await.unwrap(), 20);
        });
    }
}
