//! The node that makes a stream, as another one asks it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::super::source::Remote;
use super::super::{Event, Listen, StationError};
#[cfg(doc)]
use super::Stream;
use crate::engine::{Ack, EngineError, InLine, Steer};
use crate::units::ModelId;

/// How one listens here, and how many do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// How.
    pub listen: Listen,
    /// How many.
    pub listeners: usize,
    /// How far they are, if they have heard something.
    pub reached: Option<Reached>,
    /// Pages that were sent behind that have not come: a line was cut.
    pub misses: bool,
}

/// How far listeners are, in media time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Where what they were sent ends.
    pub end: u64,
    /// The frame that they play now.
    pub plays: u64,
}

/// What comes of a stream that another node makes.
#[derive(Debug)]
pub enum Heard {
    /// A page of one way to listen, under this generation of the stream's owners.
    Page(Listen, u64, Bytes),
    /// Something happened, under this generation.
    Event(u64, Box<Event>),
}

/// The node that makes a stream.
pub trait Owner: Send + Sync + 'static {
    /// Asks for what is to be heard here, from now on until it is asked for something else or not
    /// at all any more. Tells under which generation of owners it comes.
    ///
    /// # Errors
    /// [`Lost`].
    fn want(&self, wishes: Vec<Wish>) -> BoxFuture<'static, Result<u64, Lost>>;
    /// Somebody is about to listen, see [`Stream::join`].
    fn wake(&self) -> BoxFuture<'static, Result<(), StationError>>;
    /// See [`Stream::steer`].
    fn steer(&self, steer: Steer) -> BoxFuture<'_, Result<Ack, EngineError>>;
    /// See [`Stream::reset`].
    fn reset(&self) -> BoxFuture<'_, Result<Ack, EngineError>>;
    /// See [`Stream::set_model`].
    fn set_model<'a>(&'a self, model: &'a ModelId) -> BoxFuture<'a, Result<Ack, EngineError>>;
    /// See [`Stream::pause`].
    fn pause(&self) -> BoxFuture<'_, Result<(), EngineError>>;
    /// See [`Stream::resume`].
    fn resume(&self) -> BoxFuture<'_, Result<(), EngineError>>;
}

/// Why nothing more is to be heard of a stream.
#[derive(Debug, Clone)]
pub enum Lost {
    /// It is over, for this reason.
    Over(String),
    /// Its node does not answer: it may come back for so long.
    Silent(Duration),
}

/// An owner as a stream knows the source of its sound.
pub(super) struct Distant(pub(super) Arc<dyn Owner>);

impl Remote for Distant {
    fn steer(&self, steer: Steer) -> BoxFuture<'_, Result<Ack, EngineError>> {
        self.0.steer(steer)
    }

    fn reset(&self) -> BoxFuture<'_, Result<Ack, EngineError>> {
        self.0.reset()
    }

    fn set_model<'a>(&'a self, model: &'a ModelId) -> BoxFuture<'a, Result<Ack, EngineError>> {
        self.0.set_model(model)
    }

    fn resume_when_free(&self) -> Result<InLine, EngineError> {
        Err(EngineError::Gone("another node makes it".into()))
    }

    fn pause(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        self.0.pause()
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        self.0.resume()
    }

    fn realtime_factor(&self) -> f64 {
        0.0
    }
}
