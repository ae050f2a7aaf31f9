//! gary: the back end that the Ableton device and its relatives speak to (betweentwomidnights/gary-backend-combined,
//! `g4lwebsockets.py`). Its events and texts are kept; its defects are not: every request is answered, results reach
//! sockets that reconnect, a retried or malformed request leaves nothing behind.

mod chunks;
mod events;
mod juce;
mod models;
mod payload;
mod push;
mod socket;
mod texts;

pub(super) use juce::routes;
pub(super) use payload::{Payload, decode_base64, encode_base64};
pub(super) use socket::Sockets;
