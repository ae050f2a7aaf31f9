//! MP3.

mod lame;

pub use lame::{Mp3Encoder, Mp3Frames, Mp3Reservoir, nearest_mp3_kbps};
