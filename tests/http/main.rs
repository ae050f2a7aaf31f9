//! The server over real sockets, with the stand-in model: every route, every kind of error, every
//! kind of end.

#![allow(clippy::unwrap_used)]

mod access;
mod addresses;
mod bad_input;
mod beside;
mod client;
mod clients;
mod clips;
mod files;
mod full;
mod generate;
mod half_close;
mod hls;
mod jerry;
mod journal;
mod juce;
mod limits;
mod live;
mod m3u8;
mod memory;
mod names;
mod naming;
mod operate;
mod origins;
mod probe;
mod renders;
#[allow(dead_code)]
mod server;
mod sockets;
mod spellings;
mod stats;
mod steer;
mod surfaces;
mod terry;
mod unfinished;
mod web;
