//! Ogg pages for live fan-out (RFC 3533, RFC 7845).
//!
//! A [`SharedPage`] holds packets once for all listeners; [`SharedPage::header`] makes the few bytes that differ: each
//! listener's own serial number, page sequence and granule position, with a right checksum for the shared body.

mod crc;
mod page;

pub(crate) use page::opus_tags;
pub use page::{PageBuilder, SharedPage, StreamHead};

/// The checksum of a page in parts, with zeros in its own place.
pub(in crate::audio) fn checksum(parts: &[&[u8]]) -> u32 {
    parts.iter().fold(0, |register, part| crc::update(register, part))
}
