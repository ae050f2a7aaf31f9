//! Attention: over the pool of keys and values, over prepared texts, over all positions of a row.

mod batched;
mod cross;
mod full;
mod fused;
mod pool;
mod simd;

pub use cross::{CrossKeys, CrossPart};
pub use full::{FullAttention, Pairing, Rotary};
pub(super) use fused::Lines;
pub use fused::{Draw, TextSlots};
pub use pool::{AttendRow, KvLayer, Pass};
