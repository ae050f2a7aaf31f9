//! The handle of a stream: what other rooms see and ask of it. The work is done by its
//! [`super::task`].

mod audience;
mod begin;
mod changes;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) use begin::Begin;
use changes::Change;
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::sessions::Sessions;
use super::source::Remote;
use super::variants::Variants;
use super::{Event, Events, Idle, Journal, StationError, StreamInfo, StreamState};
use crate::audio::OPUS_RATE;
use crate::engine::{Engine, EngineError, Freeze};
use crate::units::SampleRate;

/// What the handle asks of the task.
pub(super) enum Command {
    Pause(oneshot::Sender<Result<(), EngineError>>),
    Resume(oneshot::Sender<Result<(), EngineError>>),
    Wake(oneshot::Sender<Result<(), StationError>>),
    /// Nothing more is given out, and what was is written down; tells which frame players play.
    Stop(oneshot::Sender<Option<u64>>),
    End(String),
}

/// One endless (or `seconds` long) piece of sound with listeners.
pub struct Stream {
    id: String,
    name: Option<String>,
    channels: usize,
    rate: SampleRate,
    length: Option<u64>,
    remote: Arc<dyn Remote>,
    engine: Engine,
    journal: Arc<Journal>,
    variants: Arc<Variants>,
    sessions: Arc<Sessions>,
    born: Instant,
    places: (Arc<Semaphore>, usize),
    kept: bool,
    relayed: bool,
    commands: mpsc::UnboundedSender<Command>,
    events: broadcast::Sender<Event>,
    /// Somebody came or went.
    nudged: Notify,
    ended: CancellationToken,
    /// Nobody was ever here to hear: the first listener starts the clock.
    silent: AtomicBool,
    /// Its place was given to another stream: it is about to end.
    gives_way: AtomicBool,
    /// Another node goes on with it.
    handed_over: AtomicBool,
    state: Mutex<State>,
}

/// The part that changes.
pub(super) struct State {
    pub(super) info: StreamInfo,
    title: String,
    /// Changes that are not heard yet, in order.
    pending: VecDeque<Change>,
    /// Frames that are none of its present voice: stream time is voice time plus this.
    pub(super) silence: u64,
    /// Since when somebody waits for the first sound.
    pub(super) waiting_since: Instant,
    ended_at: Option<Instant>,
    /// Since when nobody listens and nothing is generated.
    idle_since: Option<Instant>,
}

impl Stream {
    /// Identity.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Name for people, and address of a station.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// 1 or 2, for as long as it lives.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Rate of the voice that it began with; listeners always get 48 kHz.
    pub(super) fn voice_rate(&self) -> SampleRate {
        self.rate
    }

    /// Frames that it will have unless it is paused or ended early; none if it is endless.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Everything that may be shown.
    pub fn info(&self) -> StreamInfo {
        let info = self.state().info.clone();
        // Of a relay its owner knows.
        let listeners = if self.relayed { info.listeners } else { self.variants.listeners() };
        StreamInfo { listeners, ..info }
    }

    /// Events from now on; begins with the present title and status.
    pub fn events(&self) -> Events {
        let later = self.events.subscribe();
        let info = self.info();
        let (title, at) = (self.title(), info.playhead);
        let mut first = vec![Event::Title { title, at }];
        let end = (info.state == StreamState::Ended).then(|| Event::End { reason: self.end_reason() });
        first.push(Event::Status(Box::new(info)));
        first.extend(end);
        Events::new(first, later)
    }

    /// What plays now, in words (for ICY and tags).
    pub fn title(&self) -> String {
        self.state().title.clone()
    }

    /// Silence until [`Stream::resume`]; listeners stay connected.
    ///
    /// # Errors
    /// [`StationError::Ended`], [`StationError::Engine`].
    pub async fn pause(&self) -> Result<(), StationError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Pause(reply))?;
        Ok(answer.await.map_err(|_| self.ended_error())??)
    }

    /// Goes on from where it was paused.
    ///
    /// # Errors
    /// [`StationError::Ended`], [`StationError::Engine`].
    pub async fn resume(&self) -> Result<(), StationError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Resume(reply))?;
        Ok(answer.await.map_err(|_| self.ended_error())??)
    }

    fn command(&self, command: Command) -> Result<(), StationError> {
        self.commands.send(command).map_err(|_| self.ended_error())
    }

    /// Takes over what its owner says of it.
    pub(super) fn mirror(&self, info: StreamInfo, title: String) {
        let mut state = self.state();
        (state.info, state.title) = (info, title);
    }

    /// Whether another node makes it.
    pub fn is_relayed(&self) -> bool {
        self.relayed
    }

    /// Whether somebody listens or watches.
    pub(super) fn is_attended(&self) -> bool {
        self.events.receiver_count() > 0 || self.variants.audience().listeners > 0
    }

    /// Gives out nothing more, so that another node may go on; what was given out is written down.
    /// Tells which frame players play now, while they play.
    ///
    /// # Errors
    /// [`StationError::Ended`].
    pub async fn stop(&self) -> Result<Option<u64>, StationError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Stop(reply))?;
        answer.await.map_err(|_| self.ended_error())
    }

    /// Whether it is expected to be there whatever becomes of the process that makes it.
    pub fn stays(&self) -> bool {
        self.journal.keeps() && self.journal.origin().returns
    }

    /// Whether it is one of a prompt set, begun at another node.
    pub(super) fn joins_lineup(&self) -> bool {
        self.journal.is_of_others() && self.journal.origin().idle == Some(Idle::Wait)
    }

    /// Whether somebody listens at another node.
    pub fn is_heard_abroad(&self) -> bool {
        self.variants.is_sent()
    }

    /// Whether another node goes on with it: that it ends here is no news for other nodes.
    pub fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Acquire)
    }

    /// Another node goes on with it: nothing more is sent to others.
    pub(super) fn hand_over(&self) {
        self.handed_over.store(true, Ordering::Release);
    }

    /// Ends the stream and waits for it. Its listeners get a proper last page.
    pub(super) async fn end(&self, reason: &str) {
        // If the task is gone, the stream has ended already.
        let _ = self.command(Command::End(reason.into()));
        self.ended.cancelled().await;
    }

    /// Whether it is over; it may still be asked why.
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Since when its place could be given to another stream: nobody listens, watches or steers,
    /// and nothing is generated.
    pub(super) fn spare_since(&self) -> Option<Instant> {
        let watched = self.kept || self.is_attended();
        self.state().idle_since.filter(|_| !watched && !self.gives_way() && !self.has_ended())
    }

    /// Ends it, soon: its place is needed.
    pub(super) fn give_way(&self) {
        self.gives_way.store(true, Ordering::Relaxed);
        // If the task is gone, the stream has ended already.
        let _ = self.command(Command::End("nobody listened, and its place was needed".into()));
    }

    /// Whether it is about to end for another stream's sake.
    pub(super) fn gives_way(&self) -> bool {
        self.gives_way.load(Ordering::Relaxed)
    }

    /// When it ended.
    pub(super) fn ended_at(&self) -> Option<Instant> {
        self.state().ended_at
    }

    pub(super) fn ended_error(&self) -> StationError {
        StationError::Ended(self.end_reason())
    }

    fn end_reason(&self) -> String {
        self.state().info.reason.clone().unwrap_or_else(|| "its length is reached".into())
    }

    pub(super) fn variants(&self) -> &Arc<Variants> {
        &self.variants
    }

    /// Everything that was heard of it and is kept.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn remote(&self) -> &Arc<dyn Remote> {
        &self.remote
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the task that somebody came or went.
    pub(super) fn nudge(&self) {
        self.nudged.notify_one();
    }

    pub(super) async fn nudged(&self) {
        self.nudged.notified().await;
    }

    pub(super) fn send(&self, event: Event) {
        // Nobody may be interested.
        let _ = self.events.send(event);
    }

    pub(super) fn send_status(&self) {
        if self.events.receiver_count() > 0 {
            self.send(Event::Status(Box::new(self.info())));
        }
    }

    /// Sets the state and tells the world if it is another one, which it says.
    pub(super) fn set_state(&self, to: StreamState) -> bool {
        let changed = {
            let mut state = self.state();
            if !matches!(to, StreamState::Playing | StreamState::Buffering) {
                // Who steered before a pause does not wait for sound now.
                state.pending.iter_mut().for_each(|change| change.asked = None);
            }
            let before = std::mem::replace(&mut state.info.state, to);
            if before != to {
                state.idle_since = (to == StreamState::Idle).then(Instant::now);
            }
            before != to
        };
        if changed {
            self.send_status();
        }
        changed
    }

    /// The voice stood still and was taken back.
    pub(super) fn froze(&self, freeze: Freeze) {
        let silence = {
            let mut state = self.state();
            state.info.freezes += 1;
            state.silence
        };
        let at = freeze.at + silence as f64 / f64::from(OPUS_RATE);
        self.send(Event::Freeze { at, remedy: freeze.remedy });
    }

    /// The task is over.
    pub(super) fn set_ended(&self, reason: Option<String>) {
        self.journal.end(reason.clone());
        let said = reason.clone().unwrap_or_else(|| "finished".into());
        {
            let mut state = self.state();
            state.info.reason = reason;
            state.info.buffered = 0.0;
            (state.info.buffer_target, state.info.waiting) = (None, None);
            state.ended_at = Some(Instant::now());
        }
        self.set_state(StreamState::Ended);
        self.ended.cancel();
        self.send(Event::End { reason: said });
    }
}
