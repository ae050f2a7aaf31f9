//! Models on candle tensors: weights in, tensors out.
//!
//! The MusicGen decoder, the EnCodec codec, the T5 text encoder, the delay pattern and the sampler,
//! with readers for the checkpoint layouts that users have. No threads of its own, no sockets, no
//! clocks; the only files it reads are checkpoints. The engine drives it.

mod archive;
pub mod audiocraft;
mod cache;
mod checkpoint;
pub mod config;
pub mod decoder;
pub mod delay;
pub mod encodec;
mod error;
mod files;
pub mod kernels;
pub mod latent;
mod locate;
pub mod melodyflow;
mod musicgen;
mod pickle;
pub mod sampler;
pub mod seanet;
pub mod stable_audio;
pub mod t5;
mod text;
pub mod vae;
pub mod weights;

pub use checkpoint::Checkpoint;
pub use error::{ModelError, Result};
pub use files::Files;
pub use locate::{
    BUNDLED, OnHub, OnProgress, has_bundled, hub_file, hub_files, keep_downloads_in, locate, on_disk, on_hub,
};
pub use musicgen::{MusicGen, TextConditioner, WaveEncoder};
pub use text::TextEncoder;
