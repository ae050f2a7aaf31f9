//! A clip while it waits and while it is made: its status for whoever watches, its sound for
//! whoever listens.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{ClipRecord, ClipState};
use crate::pcm::Pcm;
use crate::units::SampleRate;

/// How far a clip is.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// It waits.
    Queued {
        /// 1 is next.
        position: usize,
        /// Clips that wait or are being made.
        total: usize,
        /// Estimated seconds until it starts.
        seconds: f64,
    },
    /// Its turn has come: the model is loaded if need be, the prompt is encoded.
    Starting,
    /// Its model is being loaded, which takes a while.
    Loading,
    /// Steps of the decoder or of a solver are made.
    Running {
        /// So many.
        steps: u64,
        /// Of so many.
        total: u64,
    },
    /// Its sound is there.
    Completed,
    /// It ended without.
    Failed(String),
    /// It was given up.
    Cancelled,
}

impl Status {
    /// Whether nothing follows.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Completed | Self::Failed(_) | Self::Cancelled)
    }

    /// Its name in JSON and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Starting | Self::Loading => "starting",
            Self::Running { .. } => "running",
            Self::Completed => "completed",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Percent done, whole numbers as the original counts them: 100 only once the sound is there.
    pub fn percent(&self) -> u64 {
        match self {
            Self::Running { steps, total } => (100 * steps / (*total).max(1)).min(99),
            Self::Completed => 100,
            _ => 0,
        }
    }

    pub(super) fn at_rest(record: &ClipRecord) -> Self {
        match record.state {
            ClipState::Accepted => Self::Starting,
            ClipState::Completed => Self::Completed,
            ClipState::Cancelled => Self::Cancelled,
            ClipState::Failed => Self::Failed(record.error.clone().unwrap_or_default()),
        }
    }
}

/// Something happened to a clip.
#[derive(Debug, Clone)]
pub struct Event {
    /// To which, as it was accepted.
    pub clip: Arc<ClipRecord>,
    /// How far it is now.
    pub status: Status,
}

/// A clip as it is at this moment.
#[derive(Debug, Clone)]
pub struct ClipSnapshot {
    /// What was asked.
    pub record: Arc<ClipRecord>,
    /// How far it is.
    pub status: Status,
}

/// A clip that waits or is being made.
pub struct ClipTask {
    pub(super) record: Arc<ClipRecord>,
    pub(super) status: watch::Sender<Status>,
    pub(super) cancel: CancellationToken,
    sound: Mutex<Growing>,
    grown: watch::Sender<usize>,
}

/// The piece as far as it is made.
#[derive(Default)]
struct Growing {
    pcm: Vec<f32>,
    channels: usize,
    rate: u32,
}

impl ClipTask {
    pub(super) fn new(record: ClipRecord) -> Arc<Self> {
        Arc::new(Self {
            record: Arc::new(record),
            status: watch::Sender::new(Status::Queued { position: 0, total: 0, seconds: 0.0 }),
            cancel: CancellationToken::new(),
            sound: Mutex::default(),
            grown: watch::Sender::new(0),
        })
    }

    /// What was asked.
    pub fn record(&self) -> &Arc<ClipRecord> {
        &self.record
    }

    /// How far it is, now and whenever that changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) fn grow(&self, pcm: &[f32], channels: usize, rate: SampleRate) {
        let mut sound = self.sound.lock().unwrap_or_else(PoisonError::into_inner);
        (sound.channels, sound.rate) = (channels, rate.0);
        sound.pcm.extend_from_slice(pcm);
        let length = sound.pcm.len();
        drop(sound);
        self.grown.send_replace(length);
    }

    /// All of the piece that is made.
    pub(super) fn copy(&self) -> Pcm {
        let sound = self.sound.lock().unwrap_or_else(PoisonError::into_inner);
        Pcm { pcm: sound.pcm.clone(), channels: sound.channels, rate: SampleRate(sound.rate) }
    }

    /// Waits for samples after the first `from`, the piece's prompt included; `None` when there
    /// will be none.
    pub async fn hear(&self, from: usize) -> Option<Pcm> {
        let (mut grown, mut status) = (self.grown.subscribe(), self.status.subscribe());
        loop {
            {
                grown.borrow_and_update();
                let sound = self.sound.lock().unwrap_or_else(PoisonError::into_inner);
                if sound.pcm.len() > from {
                    let pcm = sound.pcm[from..].to_vec();
                    return Some(Pcm { pcm, channels: sound.channels, rate: SampleRate(sound.rate) });
                }
            }
            if status.borrow_and_update().is_final() {
                return None;
            }
            tokio::select! {
                changed = grown.changed() => changed.ok()?,
                changed = status.changed() => changed.ok()?,
            }
        }
    }
}
