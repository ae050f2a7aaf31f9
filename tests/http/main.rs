//! The server over real sockets, with the stand-in model: every route, every kind of error, every kind of end.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod beside;
mod client;
mod clips;
mod flows;
mod generate;
mod jerry;
mod juce;
mod limits;
mod live;
mod operate;
mod probe;
mod server;
mod steer;
mod surfaces;
mod terry;
mod web;
