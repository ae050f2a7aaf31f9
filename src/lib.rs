//! Continuo: a real-time live-streaming music server. See `ARCHITECTURE.md` for the picture.

pub mod audio;
pub mod budget;
pub mod cli;
pub mod engine;
pub mod http;
pub mod model;
pub mod sandbox;
pub mod station;
pub mod studio;
pub mod telemetry;
pub mod units;
