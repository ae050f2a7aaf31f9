//! Fragmented MP4 with Opus (ISO/IEC 14496-12, CMAF, "Encapsulation of Opus in ISO Base Media File
//! Format").

use super::{Part, Title, id3};
use crate::audio::{OPUS_FRAME, OPUS_RATE};

const TRACK: u32 = 1;
/// Packets before a place from which a decoder has converged there: 80 ms.
const ROLL: i16 = -4;
/// Samples of the track depend on no others.
const SYNC: u32 = 0x0200_0000;
const UNITY: [u32; 9] = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000];
/// `und`, three letters of five bits.
const LANGUAGE: u16 = 0x55c4;

/// Boxes in the making.
#[derive(Default)]
struct Boxes(Vec<u8>);

impl Boxes {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    fn zeros(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    fn matrix(&mut self) -> &mut Self {
        UNITY.iter().fold(self, |boxes, value| boxes.u32(*value))
    }

    fn one(&mut self, kind: &[u8; 4], content: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        let at = self.0.len();
        content(self.u32(0).put(kind));
        let size = (self.0.len() - at) as u32;
        self.set(at, size);
        self
    }

    /// A box with a version and flags.
    fn full(
        &mut self,
        kind: &[u8; 4],
        (version, flags): (u8, u32),
        content: impl FnOnce(&mut Self) -> &mut Self,
    ) -> &mut Self {
        self.one(kind, |boxes| content(boxes.u32(u32::from(version) << 24 | flags)))
    }

    fn set(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
}

/// What a player needs before the first fragment.
pub(super) fn init(channels: usize) -> Vec<u8> {
    let mut boxes = Boxes::default();
    boxes.one(b"ftyp", |ftyp| ftyp.put(b"cmfc").u32(0).put(b"iso6cmfc"));
    boxes.one(b"moov", |moov| {
        moov.full(b"mvhd", (0, 0), |mvhd| {
            mvhd.zeros(8).u32(OPUS_RATE).u32(0).u32(0x0001_0000).u16(0x0100).zeros(10).matrix();
            mvhd.zeros(24).u32(TRACK + 1)
        });
        moov.one(b"trak", |trak| track(trak, channels));
        moov.one(b"mvex", |mvex| {
            mvex.full(b"trex", (0, 0), |trex| trex.u32(TRACK).u32(1).u32(OPUS_FRAME as u32).u32(0).u32(SYNC))
        })
    });
    boxes.0
}

fn track(trak: &mut Boxes, channels: usize) -> &mut Boxes {
    trak.full(b"tkhd", (0, 3), |tkhd| {
        tkhd.zeros(8).u32(TRACK).zeros(4).u32(0).zeros(12).u16(0x0100).zeros(2).matrix().zeros(8)
    });
    trak.one(b"mdia", |mdia| {
        mdia.full(b"mdhd", (0, 0), |mdhd| mdhd.zeros(8).u32(OPUS_RATE).u32(0).u16(LANGUAGE).zeros(2));
        mdia.full(b"hdlr", (0, 0), |hdlr| hdlr.zeros(4).put(b"soun").zeros(12).put(b"sound\0"));
        mdia.one(b"minf", |minf| {
            minf.full(b"smhd", (0, 0), |smhd| smhd.zeros(4));
            minf.one(b"dinf", |dinf| dinf.full(b"dref", (0, 0), |dref| dref.u32(1).full(b"url ", (0, 1), |url| url)));
            minf.one(b"stbl", |stbl| sample_table(stbl, channels))
        })
    })
}

fn sample_table(stbl: &mut Boxes, channels: usize) -> &mut Boxes {
    stbl.full(b"stsd", (0, 0), |stsd| {
        stsd.u32(1).one(b"Opus", |entry| {
            entry.zeros(6).u16(1).zeros(8).u16(channels as u16).u16(16).zeros(4).u32(OPUS_RATE << 16);
            // Nothing is to be skipped: packets lie at their media time.
            entry.one(b"dOps", |ops| ops.put(&[0, channels as u8]).u16(0).u32(OPUS_RATE).u16(0).put(&[0]))
        })
    });
    stbl.full(b"stts", (0, 0), |stts| stts.u32(0));
    stbl.full(b"stsc", (0, 0), |stsc| stsc.u32(0));
    stbl.full(b"stsz", (0, 0), |stsz| stsz.u32(0).u32(0));
    stbl.full(b"stco", (0, 0), |stco| stco.u32(0));
    stbl.full(b"sgpd", (1, 0), |sgpd| sgpd.put(b"roll").u32(2).u32(1).put(&ROLL.to_be_bytes()))
}

/// A part as a fragment, with its titles as events before it.
pub(super) fn fragment(part: &Part, titles: &[Title]) -> Vec<u8> {
    let mut boxes = Boxes::default();
    for title in titles {
        event(&mut boxes, title, part.start.max(title.at));
    }
    let (at, count) = (boxes.0.len(), part.packets.len() as u32);
    let mut offset = 0;
    boxes.one(b"moof", |moof| {
        moof.full(b"mfhd", (0, 0), |mfhd| mfhd.u32((part.start / part.packet) as u32 + 1));
        moof.one(b"traf", |traf| {
            // Offsets count from the moof; the duration and the flags of a sample.
            traf.full(b"tfhd", (0, 0x02_0028), |tfhd| tfhd.u32(TRACK).u32(part.packet as u32).u32(SYNC));
            traf.full(b"tfdt", (1, 0), |tfdt| tfdt.u64(part.start));
            // Where the data is, and the duration and the size of each sample.
            traf.full(b"trun", (0, 0x0301), |trun| {
                trun.u32(count);
                offset = trun.0.len();
                trun.u32(0);
                let lasts = |n| part.packet.min(part.frames - n as u64 * part.packet) as u32;
                part.packets
                    .iter()
                    .enumerate()
                    .fold(trun, |trun, (n, packet)| trun.u32(lasts(n)).u32(packet.len() as u32))
            });
            traf.full(b"sbgp", (0, 0), |sbgp| sbgp.put(b"roll").u32(1).u32(count).u32(1))
        })
    });
    let data = (boxes.0.len() - at + 8) as u32;
    boxes.set(offset, data);
    boxes.one(b"mdat", |mdat| part.packets.iter().fold(mdat, |mdat, packet| mdat.put(packet)));
    boxes.0
}

/// A title as an event (ISO/IEC 23009-1 section 5.10.3.3) with an ID3 tag in it. It lasts until the
/// next one. Told again to those who come later, the same title has the same id (FNV-1a).
fn event(boxes: &mut Boxes, title: &Title, at: u64) {
    let id = title.text.bytes().fold(0x811c_9dc5, |id: u32, byte| (id ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    boxes.full(b"emsg", (1, 0), |emsg| {
        emsg.u32(OPUS_RATE).u64(at).u32(u32::MAX).u32(id);
        emsg.put(b"https://aomedia.org/emsg/ID3\0\0").put(&id3::tag(None, Some(&title.text)))
    });
}
