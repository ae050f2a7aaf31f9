//! What is asked of a stream's voice, and when it comes to be heard.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use metrics::histogram;
use tokio::time::Instant;

use super::super::event::title;
use super::super::journal::{Cause, Change as Asked};
use super::super::{Event, StationError, StreamInfo, StreamState};
use super::Stream;
use crate::audio::OPUS_RATE;
use crate::engine::{Ack, EngineError, Steer};
use crate::telemetry::STEER_TO_SOUND;
use crate::units::ModelId;

/// A change that is not heard yet.
pub(super) struct Change {
    /// Voice time, in frames.
    pub(super) at: u64,
    /// The new title, if the prompts changed.
    title: Option<String>,
    /// When it was asked for; `None` if a pause came between.
    pub(super) asked: Option<Instant>,
    /// What is in force then, for the journal, and the wall-clock time at which it was asked for.
    change: Asked,
    wall: SystemTime,
}

impl Stream {
    /// Changes prompts or sampling.
    ///
    /// # Errors
    /// [`StationError::Ended`], [`StationError::Engine`].
    pub async fn steer(&self, steer: Steer) -> Result<Ack, StationError> {
        let (prompts, sampling, ramp) = (steer.prompts.clone(), steer.sampling, steer.ramp);
        self.change(Cause::Steer, prompts.is_some().then_some(ramp), self.remote.steer(steer), |info| {
            if let Some(prompts) = prompts {
                info.prompts = prompts;
            }
            info.sampling = info.sampling.patched(sampling);
        })
        .await
    }

    /// Starts the music anew from the prompts.
    ///
    /// # Errors
    /// [`StationError::Ended`], [`StationError::Engine`].
    pub async fn reset(&self) -> Result<Ack, StationError> {
        self.change(Cause::Reset, None, self.remote.reset(), |_| ()).await
    }

    /// Goes on with another loaded model without dropping a listener.
    ///
    /// # Errors
    /// [`StationError::Ended`], [`StationError::Engine`].
    pub async fn set_model(&self, model: &ModelId) -> Result<Ack, StationError> {
        self.change(Cause::Model, None, self.remote.set_model(model), |info| info.model = model.clone()).await
    }

    async fn change(
        &self,
        cause: Cause,
        ramp: Option<f32>,
        ask: impl Future<Output = Result<Ack, EngineError>>,
        apply: impl FnOnce(&mut StreamInfo),
    ) -> Result<Ack, StationError> {
        let asked = Instant::now();
        if self.has_ended() {
            return Err(self.ended_error());
        }
        let ack = ask.await?;
        if self.relayed {
            // Its owner tells what comes of it.
            return Ok(ack);
        }
        let mut state = self.state();
        let before = title(&state.info.prompts);
        apply(&mut state.info);
        let after = title(&state.info.prompts);
        let at = (ack.at * f64::from(OPUS_RATE)).round() as u64;
        // A rewind takes back what was to come from there on; what was asked with it is in force
        // from here on.
        let dropped = state.pending.partition_point(|change| change.at < at);
        let dropped = state.pending.split_off(dropped);
        let cause = dropped.iter().map(|change| change.change.cause).fold(cause, Cause::max);
        let ramp = ramp.or_else(|| dropped.back().map(|change| change.change.ramp)).unwrap_or(0.0);
        let sounds = matches!(state.info.state, StreamState::Playing | StreamState::Buffering);
        let asked = (sounds && !self.silent.load(Ordering::Relaxed)).then_some(asked);
        let named = (before != after || state.title != after).then_some(after);
        let change = Asked::of(cause, &state.info, ramp);
        state.pending.push_back(Change { at, title: named, asked, change, wall: SystemTime::now() });
        let ack = Ack { at: ack.at + state.silence as f64 / f64::from(OPUS_RATE), ..ack };
        let prompts = state.info.prompts.clone();
        drop(state);
        self.send(Event::Steer { at: ack.at, epoch: ack.epoch, prompts });
        Ok(ack)
    }

    /// The sound before frame `voice` (of voice time) has left: titles up to there are in force.
    pub(in crate::station) fn passed(&self, voice: u64) {
        loop {
            let mut state = self.state();
            if state.pending.front().is_none_or(|change| change.at >= voice) {
                return;
            }
            let Some(change) = state.pending.pop_front() else { return };
            if let Some(asked) = change.asked {
                histogram!(STEER_TO_SOUND).record(asked.elapsed().as_secs_f64());
            }
            let at = change.at + state.silence;
            if let Some(title) = &change.title {
                state.title.clone_from(title);
            }
            drop(state);
            self.journal.changed(at, change.wall, change.change);
            let Some(title) = change.title else { continue };
            self.presentation().titled(at, title.clone());
            self.send(Event::Title { title, at: at as f64 / f64::from(OPUS_RATE) });
        }
    }
}
