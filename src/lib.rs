//! Continuo: a real-time live-streaming music server.
//!
//! ```text
//!  request -> http -> station -> engine ----------------> PCM ring -> station -> listeners
//!             routes   streams   voices, batch, step,     per voice   level, encode once,
//!             limits   pacing    sampler, codes, codec                fan out
//! ```
//!
//! Three entry points:
//!
//! - [`engine::Engine`] owns a thread and its models; [`engine::Engine::join`] admits a voice and
//!   gives back its PCM.
//! - [`station::Station`] keeps endless streams: paced, levelled, encoded once per format, for any
//!   number of listeners.
//! - [`http::serve`] puts both, and the [`studio`] that makes clips, behind HTTP, WebSocket and
//!   Socket.IO.
//!
//! With [`cluster`] several processes are nodes of one server.
//!
//! Sound that clients send is decoded by processes of its own ([`sandbox`]), within one [`budget`]
//! of memory.
//!
//! | word | meaning |
//! |---|---|
//! | voice | one generating sequence in the engine |
//! | stream, station | an endless piece with listeners; a stream with a name |
//! | clip | a piece with an end |
//! | frame, codes | one time step of the codec, and its tokens |
//! | column, step | one position of the delay pattern; one decoder pass for a batch |
//! | playhead, lead | media time leaving the server; seconds generated ahead of it |
//! | steer | a change to a running voice, heard from a media time that the answer says |
//!
//! `ARCHITECTURE.md` has the whole picture, `CONTRIBUTING.md` says how to add things.

pub mod audio;
pub mod bars;
pub mod budget;
pub mod cli;
pub mod cluster;
pub mod engine;
mod heap;
pub mod http;
pub mod model;
pub mod pcm;
pub mod sandbox;
pub mod station;
pub mod studio;
pub mod telemetry;
pub mod units;
