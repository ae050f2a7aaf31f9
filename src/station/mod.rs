//! The station: turns voices into packets and gives them to listeners.
//!
//! A [`Stream`] owns one voice. Its sound is paced to real time, kept loud enough and unclipped,
//! encoded once per format and fanned out as shared bytes; a [`Listener`] is a cursor into those.
//! This room knows nothing of HTTP.
//!
//! ```text
//! voice ─► feed: program (48 kHz, loudness, limiter), pauses ─► task: media clock, audience
//!     ─► fanout: one shared encoder per format and bit rate
//!     ─► a packetizer and a page ring per variant ─► listeners
//! ```

mod abroad;
mod clock;
mod directory;
mod error;
mod event;
mod fanout;
mod feed;
mod fork;
pub mod hls;
mod journal;
mod level;
mod lineup;
mod listener;
mod names;
mod overload;
mod packetizer;
mod page_ring;
#[doc(hidden)]
pub mod player;
mod program;
mod prompt_sets;
mod registry;
mod relay;
mod resume;
mod schedule;
mod sessions;
mod shared_encoder;
mod shift;
mod source;
mod spec;
mod store;
mod stream;
mod takeover;
mod task;
#[cfg(test)]
mod tests;
mod upkeep;
mod variants;
mod watch;

pub use abroad::{Facts, Sent};
pub use directory::Directory;
pub use error::StationError;
pub use event::{Event, Events, StreamInfo, StreamState, Waiting};
pub use fork::Fork;
#[doc(hidden)]
pub use journal::rehearse;
pub use journal::{History, Journal, Journals, Replay, Shelf, parse_rfc3339, rfc3339};
pub use lineup::Lineup;
pub use listener::Listener;
pub use prompt_sets::{Entry, PromptSetError, PromptSets};
pub use registry::{Load, Station};
pub use relay::{Heard, Lost, Owner, Reached, Wish};
pub use schedule::{Airing, Cue, Timetable};
pub use sessions::{Count, Session, SessionInfo, SessionsInfo};
pub use spec::{Idle, Listen, StationConfig, StreamSpec};
pub use stream::Stream;
pub use watch::Watch;
