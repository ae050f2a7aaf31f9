//! Pages whose body is shared between listeners.

use bytes::{Bytes, BytesMut};

use super::crc;

/// Bytes before the segment table.
const FIXED: usize = 27;
const FLAGS_AT: usize = 5;
const CRC_AT: usize = 22;
const FIRST: u8 = 2;
const LAST: u8 = 4;

/// What identifies one listener's stream and where it begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamHead {
    /// Serial number of the logical stream.
    pub(super) serial: u32,
    /// 1 or 2.
    pub(super) channels: u8,
    /// Frames (48 kHz) that the decoder drops at the start.
    pub(super) pre_skip: u16,
    /// Rate of the sound before it was encoded, for information.
    pub(super) input_rate: u32,
}

impl StreamHead {
    /// The two header pages, sequence 0 and 1: `OpusHead`, and `OpusTags` with `tags` as (name,
    /// value).
    pub(super) fn pages(&self, tags: &[(&str, &str)]) -> Bytes {
        let (head, comments) = (self.packet(), opus_tags(tags));
        let mut pages = BytesMut::new();
        for (sequence, packet, flags) in [(0, &head[..], FIRST), (1, &comments[..], 0)] {
            let mut page = SharedPage::collect();
            page.push(packet);
            let page = page.build();
            pages.extend_from_slice(&page.header_with(flags, 0, self.serial, sequence));
            pages.extend_from_slice(page.body());
        }
        pages.freeze()
    }

    /// The `OpusHead` packet (RFC 7845 section 5.1): no output gain, channel mapping family 0.
    pub(super) fn packet(&self) -> Vec<u8> {
        let mut head = b"OpusHead\x01".to_vec();
        head.push(self.channels);
        head.extend_from_slice(&self.pre_skip.to_le_bytes());
        head.extend_from_slice(&self.input_rate.to_le_bytes());
        head.extend_from_slice(&[0, 0, 0]);
        head
    }
}

/// The packet that RFC 7845 section 5.2 describes. Long values are cut so that it fits one page.
pub(super) fn opus_tags(tags: &[(&str, &str)]) -> Vec<u8> {
    const LONGEST: usize = 8192;
    let mut packet = b"OpusTags".to_vec();
    let text = |packet: &mut Vec<u8>, text: &str| {
        packet.extend_from_slice(&(text.len() as u32).to_le_bytes());
        packet.extend_from_slice(text.as_bytes());
    };
    text(&mut packet, concat!("continuo ", env!("CARGO_PKG_VERSION")));
    packet.extend_from_slice(&(tags.len() as u32).to_le_bytes());
    for (name, value) in tags {
        let cut = value.floor_char_boundary(LONGEST);
        text(&mut packet, &format!("{name}={}", &value[..cut]));
    }
    packet
}

/// Packets of one page while they are collected.
#[derive(Debug)]
pub(super) struct PageBuilder {
    lacing: Vec<u8>,
    body: BytesMut,
}

impl PageBuilder {
    /// Adds a packet. A page holds 255 segments: enough for a second of the largest Opus packets.
    pub(super) fn push(&mut self, packet: &[u8]) {
        self.lacing.extend(std::iter::repeat_n(255, packet.len() / 255));
        self.lacing.push((packet.len() % 255) as u8);
        self.body.extend_from_slice(packet);
        debug_assert!(self.lacing.len() <= 255, "the page is overfull");
    }

    /// The page, ready for any number of listeners.
    pub(super) fn build(self) -> SharedPage {
        let mut tail = [0; 256];
        tail[0] = self.lacing.len() as u8;
        tail[1..=self.lacing.len()].copy_from_slice(&self.lacing);
        let mut register = crc::update(0, b"OggS");
        register = crc::update(register, &[0; FIXED - 1 - 4]);
        register = crc::update(register, &tail[..=self.lacing.len()]);
        register = crc::update(register, &self.body);
        // Bytes that follow the last variable field: the checksum itself, the segment table, the
        // body.
        let after = 4 + 1 + self.lacing.len() + self.body.len();
        SharedPage { lacing: self.lacing.into(), body: self.body.freeze(), crc: register, shift: crc::zeros(after) }
    }
}

/// Bytes of the whole pages with which these bytes begin.
pub(super) fn whole(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(lacing) = bytes.get(at + FIXED - 1).map(|count| usize::from(*count))
        && let Some(lacing) = bytes.get(at + FIXED..at + FIXED + lacing)
    {
        let end = at + FIXED + lacing.len() + lacing.iter().map(|length| usize::from(*length)).sum::<usize>();
        if end > bytes.len() {
            break;
        }
        at = end;
    }
    at
}

/// One page of packets, encoded once for all listeners.
#[derive(Debug, Clone)]
pub(super) struct SharedPage {
    lacing: Box<[u8]>,
    body: Bytes,
    /// Checksum with flags, granule position, serial and sequence at zero.
    crc: u32,
    /// What the bytes after those fields do to a register.
    shift: u32,
}

impl SharedPage {
    /// Begins to collect packets for a page.
    pub(super) fn collect() -> PageBuilder {
        PageBuilder { lacing: Vec::new(), body: BytesMut::new() }
    }

    /// The packets.
    pub(super) fn body(&self) -> &Bytes {
        &self.body
    }

    /// The header for one listener: `granule` is the position after the last frame, on the
    /// listener's time line. Costs well under a microsecond, whatever the length of the body.
    pub(super) fn header(&self, granule: u64, serial: u32, sequence: u32, last: bool) -> Bytes {
        self.header_with(if last { LAST } else { 0 }, granule, serial, sequence)
    }

    fn header_with(&self, flags: u8, granule: u64, serial: u32, sequence: u32) -> Bytes {
        let mut header = [0; FIXED + 255];
        header[..4].copy_from_slice(b"OggS");
        header[FLAGS_AT] = flags;
        header[6..14].copy_from_slice(&granule.to_le_bytes());
        header[14..18].copy_from_slice(&serial.to_le_bytes());
        header[18..CRC_AT].copy_from_slice(&sequence.to_le_bytes());
        let change = crc::multiply(crc::update(0, &header[FLAGS_AT..CRC_AT]), self.shift);
        header[CRC_AT..CRC_AT + 4].copy_from_slice(&(self.crc ^ change).to_le_bytes());
        header[FIXED - 1] = self.lacing.len() as u8;
        let length = FIXED + self.lacing.len();
        header[FIXED..length].copy_from_slice(&self.lacing);
        Bytes::copy_from_slice(&header[..length])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The reader of the `ogg` crate checks sequence and checksum of every page.
        #[test]
        fn another_reader_accepts_every_listeners_pages(
            sizes in prop::collection::vec(0usize..1276, 1..12), granule in any::<u32>(), serial in any::<u32>(),
        ) {
            let packets: Vec<Vec<u8>> = sizes.iter().map(|&size| (0..size).map(|n| (n * 7) as u8).collect()).collect();
            let mut page = SharedPage::collect();
            packets.iter().for_each(|packet| page.push(packet));
            let page = page.build();
            let head = StreamHead { serial, channels: 2, pre_skip: 312, input_rate: 32_000 };
            let mut file = head.pages(&[("TITLE", "klavier über regen")]).to_vec();
            for (sequence, last) in [(2, false), (3, true)] {
                file.extend_from_slice(&page.header(u64::from(granule) + u64::from(sequence), serial, sequence, last));
                file.extend_from_slice(page.body());
            }
            let (length, ends) = (file.len(), [file.len(), file.len() - page.body().len() - 1]);
            prop_assert_eq!(ends.map(|end| whole(&file[..end]) == length), [true, false]);
            let mut reader = ogg::reading::PacketReader::new(Cursor::new(file));
            let first = reader.read_packet_expected().unwrap();
            prop_assert!(first.first_in_stream() && first.data.starts_with(b"OpusHead"));
            prop_assert!(reader.read_packet_expected().unwrap().data.starts_with(b"OpusTags"));
            for sequence in [2, 3] {
                for packet in &packets {
                    let read = reader.read_packet_expected().unwrap();
                    prop_assert_eq!(&read.data, packet);
                    prop_assert_eq!(read.stream_serial(), serial);
                    prop_assert_eq!(read.absgp_page(), u64::from(granule) + sequence);
                }
            }
            prop_assert!(reader.read_packet().unwrap().is_none());
        }
    }
}
