//! Ogg pages for live fan-out (RFC 3533, RFC 7845).
//!
//! A [`SharedPage`] holds packets once for all listeners; [`SharedPage::header`] makes the few bytes that differ: each
//! listener's own serial number, page sequence and granule position, with a right checksum for the shared body.

mod crc;
mod page;

pub(crate) use page::opus_tags;
pub use page::{PageBuilder, SharedPage, StreamHead};
