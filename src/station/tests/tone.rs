//! A source of PCM that plays a sine, as fast as asked for or at a given speed.

use std::f64::consts::TAU;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

use super::super::source::{Remote, Source};
use crate::engine::{Ack, Chunk, DeviceKind, EngineError, InLine, ModelInfo, Place, Read, Sampling, Steer, VoiceEnd};
use crate::units::{ModelId, SampleRate, Samples, WeightFormat};

/// Seconds over which the speed is measured, as the engine does it.
const MEMORY: f64 = 8.0;
/// Real time in steps.
const STEP: Duration = Duration::from_millis(10);

/// What makes the sound of some tones: so many seconds of it per second, in equal parts for those
/// that want some.
pub(super) struct Machine {
    /// Of the seconds since it began.
    speed: Box<dyn Fn(f64) -> f64 + Send + Sync>,
    began: Instant,
    at: Mutex<Instant>,
    tones: Mutex<Vec<(Weak<()>, Arc<Seen>)>>,
}

impl Machine {
    pub(super) fn new(speed: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self { speed: Box::new(speed), began: now, at: Mutex::new(now), tones: Mutex::default() })
    }

    fn hungry(&self) -> Vec<Arc<Seen>> {
        let mut tones = self.tones.lock().unwrap();
        tones.retain(|(alive, _)| alive.strong_count() > 0);
        tones.iter().map(|(_, seen)| seen.clone()).filter(|seen| seen.is_hungry()).collect()
    }

    fn speed(&self, now: Instant) -> f64 {
        (self.speed)(now.duration_since(self.began).as_secs_f64())
    }

    /// Makes what was made up to now.
    fn advance(&self) {
        let (mut at, now) = (self.at.lock().unwrap(), Instant::now());
        while *at < now {
            let hungry = self.hungry();
            if hungry.is_empty() {
                *at = now; // Nobody gets hungry but by reading, and before it reads it comes by here.
                return;
            }
            let step = STEP.min(now - *at);
            *at += step;
            let share = self.speed(*at) / hungry.len() as f64;
            hungry.iter().for_each(|seen| seen.make(step.as_secs_f64(), share));
        }
        if self.speed(now).is_infinite() {
            self.hungry().iter().for_each(|seen| seen.make(0.0, f64::INFINITY));
        }
    }
}

/// The engine's end of a place in its line.
pub(super) type Line = (oneshot::Sender<Result<(), EngineError>>, watch::Sender<Place>);

/// What a test sees of the source.
pub(super) struct Seen {
    pub(super) reads: AtomicUsize,
    pub(super) paused: AtomicBool,
    /// The engine has no room for it.
    pub(super) refused: AtomicBool,
    /// Where it stands in the engine's line.
    pub(super) line: Mutex<Option<Line>>,
    making: Mutex<Making>,
}

/// Seconds.
struct Making {
    given: f64,
    made: f64,
    lead: f64,
    wanted: f64,
    got: f64,
}

impl Seen {
    /// Seconds of sound that were read.
    pub(super) fn seconds(&self) -> f64 {
        self.making.lock().unwrap().given
    }

    fn is_hungry(&self) -> bool {
        let making = self.making.lock().unwrap();
        !self.paused.load(Ordering::Relaxed) && making.made < making.given + making.lead
    }

    fn make(&self, seconds: f64, speed: f64) {
        let mut making = self.making.lock().unwrap();
        let most = making.given + making.lead;
        let before = making.made;
        making.made = if speed.is_infinite() { most } else { (before + seconds * speed).min(most) };
        let kept = (-seconds / MEMORY).exp();
        making.wanted = making.wanted * kept + seconds;
        making.got = making.got * kept + making.made - before;
    }

    /// A steer takes back what was made.
    fn cut(&self) {
        let mut making = self.making.lock().unwrap();
        making.made = making.made.min(making.given + MARGIN);
    }
}

pub(super) struct Tone {
    pub(super) seen: Arc<Seen>,
    pub(super) length: Option<f64>,
    pub(super) fails: Option<f64>,
    pub(super) panics: Option<f64>,
    pub(super) channels: usize,
    /// From this time on it has the other number of channels.
    pub(super) changes_channels: Option<f64>,
    /// Lives as long as the source.
    pub(super) alive: Arc<()>,
    pub(super) machine: Arc<Machine>,
}

/// Pitch of the sine, in Hz.
pub(super) const PITCH: f64 = 440.0;
const RATE: SampleRate = SampleRate(32_000);
/// Later than what was read: what a steer changes.
pub(super) const MARGIN: f64 = 0.1;

impl Tone {
    /// As fast as asked for.
    pub(super) fn new() -> Self {
        Self::at(f64::INFINITY)
    }

    /// At so many seconds per second.
    pub(super) fn at(speed: f64) -> Self {
        Self::on(&Machine::new(move |_| speed))
    }

    /// As one of several.
    pub(super) fn on(machine: &Arc<Machine>) -> Self {
        machine.advance();
        let making = Making { given: 0.0, made: 0.0, lead: 8.0, wanted: 0.0, got: 0.0 };
        let seen = Arc::new(Seen {
            reads: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            line: Mutex::default(),
            making: Mutex::new(making),
        });
        let alive = Arc::default();
        machine.tones.lock().unwrap().push((Arc::downgrade(&alive), seen.clone()));
        Self {
            seen,
            length: None,
            fails: None,
            panics: None,
            channels: 1,
            changes_channels: None,
            alive,
            machine: machine.clone(),
        }
    }

    /// Samples read, and those that could be.
    fn samples(&self) -> (u64, u64) {
        self.machine.advance();
        let making = self.seen.making.lock().unwrap();
        let made = making.made.min(self.length.unwrap_or(f64::INFINITY));
        (RATE.samples(making.given).0, RATE.samples(made).0)
    }
}

impl Source for Tone {
    fn model(&self) -> Arc<ModelInfo> {
        Arc::new(ModelInfo {
            id: ModelId("tone".into()),
            description: String::new(),
            device: DeviceKind::Cpu,
            format: WeightFormat::F32,
            sample_rate: RATE,
            channels: self.channels,
            hop: 640,
            codebooks: 4,
            card: 64,
            delays: vec![0, 1, 2, 3],
            window: 1500,
            keep: 600,
            lookahead: 4,
            sampling: Sampling { temperature: 1.0, top_k: 250, guidance: 3.0, seed: 0 },
            bytes: 0,
            codec_fingerprint: 0,
        })
    }

    fn read(&mut self, max: Samples) -> Read {
        self.seen.reads.fetch_add(1, Ordering::Relaxed);
        let (given, made) = self.samples();
        let start = Samples(given);
        if self.length.is_some_and(|seconds| given >= RATE.samples(seconds).0) {
            return Read::End(VoiceEnd::Finished);
        }
        if self.fails.is_some_and(|at| start.seconds(RATE) >= at) {
            return Read::End(VoiceEnd::Failed("the tone broke".into()));
        }
        assert!(self.panics.is_none_or(|at| start.seconds(RATE) < at), "the tone was told to panic");
        let count = max.0.min(made.saturating_sub(given));
        if count == 0 {
            return Read::Pending;
        }
        let other = self.changes_channels.is_some_and(|at| start.seconds(RATE) >= at);
        let channels = if other { 3 - self.channels } else { self.channels };
        let sample = |n: u64| (TAU * PITCH * n as f64 / f64::from(RATE.0)).sin() as f32 * 0.3;
        let pcm = (given..given + count).flat_map(|n| std::iter::repeat_n(sample(n), channels)).collect();
        self.seen.making.lock().unwrap().given = Samples(given + count).seconds(RATE);
        Read::Chunk(Chunk { start, epoch: 0, sample_rate: RATE, channels, pcm, passage: None })
    }

    fn ready(&self) -> BoxFuture<'static, ()> {
        sleep(Duration::from_millis(20)).boxed()
    }

    fn buffered(&self) -> f64 {
        let (given, made) = self.samples();
        Samples(made.saturating_sub(given)).seconds(RATE)
    }

    fn keep_ahead(&self, lead: Duration) {
        self.machine.advance();
        self.seen.making.lock().unwrap().lead = lead.as_secs_f64();
    }

    fn is_over(&self) -> bool {
        self.length.is_some_and(|seconds| self.samples().1 >= RATE.samples(seconds).0)
    }

    fn remote(&self) -> Arc<dyn Remote> {
        Arc::new(Knob { seen: self.seen.clone(), machine: self.machine.clone() })
    }
}

struct Knob {
    seen: Arc<Seen>,
    machine: Arc<Machine>,
}

impl Knob {
    fn ack(&self) -> BoxFuture<'_, Result<Ack, EngineError>> {
        self.machine.advance();
        self.seen.cut();
        let at = self.seen.seconds() + MARGIN;
        async move { Ok(Ack { at, epoch: 1 }) }.boxed()
    }

    fn set(&self, paused: bool) -> BoxFuture<'_, Result<(), EngineError>> {
        self.machine.advance();
        if !paused && self.seen.refused.load(Ordering::Relaxed) {
            return async { Err(EngineError::Full { voices: 1, load: 120.0, retry_after: 10 }) }.boxed();
        }
        self.seen.paused.store(paused, Ordering::Relaxed);
        async { Ok(()) }.boxed()
    }
}

impl Remote for Knob {
    fn steer(&self, _: Steer) -> BoxFuture<'_, Result<Ack, EngineError>> {
        self.ack()
    }

    fn reset(&self) -> BoxFuture<'_, Result<Ack, EngineError>> {
        self.ack()
    }

    fn set_model<'a>(&'a self, _: &'a ModelId) -> BoxFuture<'a, Result<Ack, EngineError>> {
        self.ack()
    }

    fn pause(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        self.set(true)
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        self.set(false)
    }

    fn resume_when_free(&self) -> Result<InLine, EngineError> {
        let ((reply, admitted), (place, moved)) = (oneshot::channel(), watch::channel(Place::default()));
        *self.seen.line.lock().unwrap() = Some((reply, place));
        Ok(InLine::new(admitted, moved))
    }

    fn realtime_factor(&self) -> f64 {
        let making = self.seen.making.lock().unwrap();
        let measured = (making.wanted > 0.5).then(|| making.got / making.wanted);
        drop(making);
        let now = self.machine.speed(Instant::now());
        measured.unwrap_or_else(|| now / self.machine.hungry().len().max(1) as f64)
    }
}
