//! Convolutional networks over time, the same bits piece by piece as in one go.
//!
//! A [`Stack`] is a list of layers with one state each: its `push` takes the next piece of a signal
//! `[batch, time, channels]`, or its end, and gives what became final. Memory is bounded by the
//! length of a piece, and no step is computed twice. EnCodec, MelodyFlow's codec and Stable Audio's
//! autoencoder are lists of these layers.

mod activation;
mod conv;
mod stack;

pub use activation::Activation;
pub(super) use conv::joined;
pub use conv::{
    ConvState, DelayLine, Padding, Shape, StreamingConv1d, StreamingConvTranspose1d, Then, UpsampleState, fused_weight,
};
pub use stack::{Layer, LayerState, Residual, Stack, Tap};
