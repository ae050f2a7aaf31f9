//! A source of PCM that plays a sine, as fast as asked for or at a given speed.

use std::f64::consts::TAU;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::super::source::{Remote, Source};
use crate::engine::{Ack, Chunk, EngineError, ModelInfo, Read, Sampling, Steer, VoiceEnd};
use crate::units::{ModelId, SampleRate, Samples};

/// What a test sees of the source.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) reads: AtomicUsize,
    pub(super) paused: AtomicBool,
    /// Media time in samples that was read.
    given: Mutex<u64>,
    /// Media time in samples that was made when it was paused.
    made: Mutex<u64>,
}

impl Seen {
    /// Seconds of sound that were read.
    pub(super) fn seconds(&self) -> f64 {
        *self.given.lock().unwrap() as f64 / 32_000.0
    }
}

pub(super) struct Tone {
    pub(super) seen: Arc<Seen>,
    /// Seconds made per second.
    pub(super) speed: f64,
    pub(super) length: Option<f64>,
    pub(super) fails: Option<f64>,
    pub(super) panics: Option<f64>,
    pub(super) channels: usize,
    /// From this time on it has the other number of channels.
    pub(super) changes_channels: Option<f64>,
    /// Lives as long as the source.
    pub(super) alive: Arc<()>,
    pub(super) began: Instant,
}

/// Pitch of the sine, in Hz.
pub(super) const PITCH: f64 = 440.0;
const RATE: SampleRate = SampleRate(32_000);
/// Later than what was read: what a steer changes.
pub(super) const MARGIN: f64 = 0.1;

impl Tone {
    pub(super) fn new() -> Self {
        Self {
            seen: Arc::default(),
            speed: f64::INFINITY,
            length: None,
            fails: None,
            panics: None,
            channels: 1,
            changes_channels: None,
            alive: Arc::default(),
            began: Instant::now(),
        }
    }

    fn made(&self) -> u64 {
        if self.seen.paused.load(Ordering::Relaxed) {
            return *self.seen.made.lock().unwrap();
        }
        let seconds = if self.speed.is_infinite() { 1e9 } else { self.began.elapsed().as_secs_f64() * self.speed };
        RATE.samples(seconds).0
    }
}

impl Source for Tone {
    fn model(&self) -> Arc<ModelInfo> {
        Arc::new(ModelInfo {
            id: ModelId("tone".into()),
            description: String::new(),
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
        let made = self.made();
        let mut given = self.seen.given.lock().unwrap();
        let end = self.length.map_or(u64::MAX, |seconds| RATE.samples(seconds).0);
        if *given >= end {
            return Read::End(VoiceEnd::Finished);
        }
        if self.fails.is_some_and(|at| Samples(*given).seconds(RATE) >= at) {
            return Read::End(VoiceEnd::Failed("the tone broke".into()));
        }
        assert!(self.panics.is_none_or(|at| Samples(*given).seconds(RATE) < at), "the tone was told to panic");
        let count = max.0.min(made.min(end).saturating_sub(*given));
        if count == 0 {
            return Read::Pending;
        }
        let start = Samples(*given);
        let other = self.changes_channels.is_some_and(|at| start.seconds(RATE) >= at);
        let channels = if other { 3 - self.channels } else { self.channels };
        let sample = |n: u64| (TAU * PITCH * n as f64 / f64::from(RATE.0)).sin() as f32 * 0.3;
        let pcm = (*given..*given + count).flat_map(|n| std::iter::repeat_n(sample(n), channels)).collect();
        *given += count;
        Read::Chunk(Chunk { start, epoch: 0, sample_rate: RATE, channels, pcm })
    }

    fn ready(&self) -> BoxFuture<'static, ()> {
        sleep(Duration::from_millis(20)).boxed()
    }

    fn buffered(&self) -> f64 {
        0.0
    }

    fn remote(&self) -> Arc<dyn Remote> {
        Arc::new(Knob(self.seen.clone()))
    }
}

struct Knob(Arc<Seen>);

impl Knob {
    fn ack(&self) -> BoxFuture<'_, Result<Ack, EngineError>> {
        let at = self.0.seconds() + MARGIN;
        async move { Ok(Ack { at, epoch: 1 }) }.boxed()
    }

    fn set(&self, paused: bool) -> BoxFuture<'_, Result<(), EngineError>> {
        // Like an engine's voice it has a second in store, which can still be read.
        *self.0.made.lock().unwrap() = *self.0.given.lock().unwrap() + u64::from(RATE.0);
        self.0.paused.store(paused, Ordering::Relaxed);
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

    fn realtime_factor(&self) -> f64 {
        1.0
    }
}
