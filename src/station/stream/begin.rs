//! How a stream begins.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::sync::{Notify, Semaphore, broadcast, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::event::title;
use super::super::hls::Presentation;
use super::super::journal::{Cause, Change as Asked};
use super::super::source::Remote;
use super::super::variants::Variants;
use super::super::{Journal, StreamInfo, StreamState};
use super::{Command, State, Stream};
use crate::audio::OPUS_RATE;
use crate::engine::{Engine, Sampling, WeightedPrompt};
use crate::units::{ModelId, SampleRate};

/// Events that a slow receiver may be behind before it misses some.
const EVENTS: usize = 64;

/// What is known of a stream when it begins.
pub(in crate::station) struct Begin {
    pub(in crate::station) id: String,
    pub(in crate::station) name: Option<String>,
    pub(in crate::station) model: ModelId,
    pub(in crate::station) channels: usize,
    /// Rate of the voice.
    pub(in crate::station) rate: SampleRate,
    pub(in crate::station) prompts: Vec<WeightedPrompt>,
    pub(in crate::station) sampling: Sampling,
    /// Frames that a new listener gets at once.
    pub(in crate::station) burst: u64,
    /// Frames that it will have, if it has an end.
    pub(in crate::station) length: Option<u64>,
    pub(in crate::station) remote: Arc<dyn Remote>,
    pub(in crate::station) engine: Engine,
    pub(in crate::station) journal: Arc<Journal>,
    /// Where its voice begins, if that goes on from another node's.
    pub(in crate::station) joins: Option<u64>,
    /// Places for listeners, over all streams, and how many there are.
    pub(in crate::station) places: (Arc<Semaphore>, usize),
    /// It keeps its place however long nobody listens.
    pub(in crate::station) kept: bool,
    pub(in crate::station) asked: Instant,
    /// Other nodes may want its pages.
    pub(in crate::station) shared: bool,
    /// Another node makes it.
    pub(in crate::station) relayed: bool,
}

impl Stream {
    pub(in crate::station) fn new(begin: Begin) -> (Arc<Self>, mpsc::UnboundedReceiver<Command>) {
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
            handed_over: AtomicBool::new(false),
            state: Mutex::new(state),
        };
        (Arc::new(stream), inbox)
    }
}
