//! The handle of a stream: what other rooms see and ask of it. The work is done by its
//! [`super::task`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use metrics::histogram;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::event::title;
use super::hls::{Presentation, Seat};
use super::journal::{Cause, Change as Asked};
use super::sessions::Sessions;
use super::source::Remote;
use super::variants::Variants;
use super::{
    Event, Events, Idle, Journal, Listen, Listener, Session, SessionsInfo, StationError, StreamInfo, StreamState,
};
use crate::audio::OPUS_RATE;
use crate::audio::hls::Rendition;
use crate::engine::{Ack, Engine, EngineError, Freeze, Sampling, Steer, WeightedPrompt};
use crate::telemetry::STEER_TO_SOUND;
use crate::units::{ModelId, SampleRate};

/// Events that a slow receiver may be behind before it misses some.
const EVENTS: usize = 64;

/// What the handle asks of the task.
pub(super) enum Command {
    Pause(oneshot::Sender<Result<(), EngineError>>),
    Resume(oneshot::Sender<Result<(), EngineError>>),
    Wake(oneshot::Sender<Result<(), StationError>>),
    /// Nothing more is given out, and what was is written down; tells which frame players play.
    Stop(oneshot::Sender<Option<u64>>),
    End(String),
}

/// What is known of a stream when it begins.
pub(super) struct Begin {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) model: ModelId,
    pub(super) channels: usize,
    /// Rate of the voice.
    pub(super) rate: SampleRate,
    pub(super) prompts: Vec<WeightedPrompt>,
    pub(super) sampling: Sampling,
    /// Frames that a new listener gets at once.
    pub(super) burst: u64,
    /// Frames that it will have, if it has an end.
    pub(super) length: Option<u64>,
    pub(super) remote: Arc<dyn Remote>,
    pub(super) engine: Engine,
    pub(super) journal: Arc<Journal>,
    /// Where its voice begins, if that goes on from another node's.
    pub(super) joins: Option<u64>,
    /// Places for listeners, over all streams, and how many there are.
    pub(super) places: (Arc<Semaphore>, usize),
    /// It keeps its place however long nobody listens.
    pub(super) kept: bool,
    pub(super) asked: Instant,
    /// Other nodes may want its pages.
    pub(super) shared: bool,
    /// Another node makes it.
    pub(super) relayed: bool,
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

struct Change {
    /// Voice time, in frames.
    at: u64,
    /// The new title, if the prompts changed.
    title: Option<String>,
    /// When it was asked for; `None` if a pause came between.
    asked: Option<Instant>,
    /// What is in force then, for the journal, and the wall-clock time at which it was asked for.
    change: Asked,
    wall: SystemTime,
}

impl Stream {
    pub(super) fn new(begin: Begin) -> (Arc<Self>, mpsc::UnboundedReceiver<Command>) {
        #[expect(clippy::disallowed_methods, reason = "each command is answered before its sender goes on")]
        let (commands, inbox) = mpsc::unbounded_channel();
        let title = title(&begin.prompts);
        let info = StreamInfo {
            id: begin.id.clone(),
            name: begin.name.clone(),
            model: begin.model,
            prompts: begin.prompts,
            sampling: begin.sampling,
            state: StreamState::Playing,
            reason: None,
            listeners: 0,
            playhead: begin.journal.kept().end as f64 / f64::from(OPUS_RATE),
            buffered: 0.0,
            buffer_target: None,
            waiting: None,
            realtime_factor: 0.0,
            underruns: 0,
            freezes: 0,
        };
        let begun = begin.journal.kept().end;
        if begin.joins.is_none() {
            begin.journal.changed(begun, SystemTime::now(), Asked::of(Cause::Begin, &info, 0.0));
        }
        let presentation = Presentation::new(Arc::clone(&begin.journal), title.clone());
        let variants = Arc::new(Variants::new(begin.burst, presentation, begin.shared));
        let state = State {
            info,
            title,
            pending: VecDeque::new(),
            silence: begin.joins.unwrap_or(begun),
            waiting_since: begin.asked,
            ended_at: None,
            idle_since: None,
        };
        let stream = Self {
            id: begin.id,
            name: begin.name,
            channels: begin.channels,
            rate: begin.rate,
            length: begin.length,
            remote: begin.remote,
            engine: begin.engine,
            journal: begin.journal,
            variants,
            sessions: Arc::default(),
            born: Instant::now(),
            places: begin.places,
            kept: begin.kept,
            relayed: begin.relayed,
            commands,
            events: broadcast::channel(EVENTS).0,
            nudged: Notify::new(),
            ended: CancellationToken::new(),
            silent: AtomicBool::new(true),
            gives_way: AtomicBool::new(false),
            state: Mutex::new(state),
        };
        (Arc::new(stream), inbox)
    }

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

    /// Joins as [`Stream::listen`] does, once the machine has room for a stream that was idle or
    /// has not begun.
    ///
    /// # Errors
    /// [`StationError::Waiting`], [`StationError::NoRoom`], [`StationError::Engine`] when it has
    /// none, and those of [`Stream::listen`].
    pub async fn join(self: &Arc<Self>, listen: Listen) -> Result<Listener, StationError> {
        self.wake().await?;
        self.listen(listen)
    }

    /// Somebody is about to join, maybe at another node: makes sure that there will be something to
    /// hear.
    ///
    /// # Errors
    /// Those of [`Stream::join`].
    pub async fn wake(&self) -> Result<(), StationError> {
        let sleeps = {
            let state = self.state();
            matches!(state.info.state, StreamState::Idle | StreamState::Queued) || state.info.waiting.is_some()
        };
        if sleeps {
            let (reply, answer) = oneshot::channel();
            self.command(Command::Wake(reply))?;
            answer.await.map_err(|_| self.ended_error())??;
        }
        Ok(())
    }

    /// Joins at the live edge: headers, a burst of what was just played, then packets as they are
    /// made.
    ///
    /// # Errors
    /// [`StationError::Limit`], [`StationError::Ended`], [`StationError::NotSent`].
    pub fn listen(self: &Arc<Self>, listen: Listen) -> Result<Listener, StationError> {
        let (listen, place) = self.place_for(listen)?;
        let given_up = CancellationToken::new();
        let seat = self.variants.join(listen, given_up.clone()).ok_or_else(|| self.ended_error())?;
        self.heard();
        let session = self.begin_session(listen.format.extension());
        Ok(Listener::new(self.clone(), seat, given_up, place, session))
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, StationError> {
        let (places, limit) = &self.places;
        places.clone().try_acquire_owned().map_err(|_| StationError::Limit {
            what: "listeners",
            limit: *limit,
            retry_after: 10,
            option: "--max-listeners",
        })
    }

    /// Somebody has come.
    pub(super) fn heard(&self) {
        if self.silent.swap(false, Ordering::Relaxed) {
            let mut state = self.state();
            // A request that made the stream listens at once; a station may wait an hour for its
            // first listener.
            let now = Instant::now();
            if now.duration_since(state.waiting_since).as_secs() >= 1 {
                state.waiting_since = now;
            }
        }
        self.nudge();
    }

    /// Notes that somebody begins to listen who is sent this format, until the answer is dropped. A
    /// [`Listener`] does it by itself.
    pub fn begin_session(&self, format: &'static str) -> Session {
        self.sessions.begin(format)
    }

    /// Who listens and has listened.
    pub fn sessions(&self) -> SessionsInfo {
        self.sessions.info()
    }

    /// How long ago it was made.
    pub fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// What players of HLS fetch.
    pub fn presentation(&self) -> &Presentation {
        self.variants.presentation()
    }

    /// A player of HLS came for a playlist, as it does all the while that it listens. `player` is
    /// its name.
    ///
    /// # Errors
    /// Those of [`Stream::join`], but for a stream that has ended: its playlists say so.
    pub async fn follow(&self, player: &str, rendition: Rendition) -> Result<(), StationError> {
        if self.has_ended() {
            return Ok(());
        }
        let sessions = self.presentation().sessions();
        if !sessions.knows(player) {
            self.wake().await?;
        }
        if sessions.came(player, rendition, || self.place().map(|place| Seat::new(place, self.begin_session("hls"))))? {
            self.heard();
        }
        Ok(())
    }

    /// A place for one more listener, and how it is served.
    pub(super) fn place_for(&self, listen: Listen) -> Result<(Listen, OwnedSemaphorePermit), StationError> {
        let Listen { format, .. } = listen;
        if format.live().is_none() || format.missing_feature().is_some() {
            return Err(StationError::NotSent(format));
        }
        Ok((listen.normal(), self.place()?))
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

    /// The sound before frame `voice` (of voice time) has left: titles up to there are in force.
    pub(super) fn passed(&self, voice: u64) {
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
