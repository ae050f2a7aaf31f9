//! What was heard, looked at.

use std::io::Write;
use std::process::{Command, Stdio};

struct Page<'a> {
    granule: i64,
    sequence: u32,
    lengths: &'a [u8],
    body: &'a [u8],
}

/// The pages of an Ogg stream; one that is cut off at the end is left out.
fn pages(mut bytes: &[u8]) -> Vec<Page<'_>> {
    let mut pages = Vec::new();
    while bytes.len() >= 27 {
        assert_eq!(&bytes[..4], b"OggS");
        let count = usize::from(bytes[26]);
        if bytes.len() < 27 + count {
            break;
        }
        let lengths = &bytes[27..27 + count];
        let size: usize = lengths.iter().map(|length| usize::from(*length)).sum();
        if bytes.len() < 27 + count + size {
            break;
        }
        let granule = i64::from_le_bytes(bytes[6..14].try_into().unwrap());
        let sequence = u32::from_le_bytes(bytes[18..22].try_into().unwrap());
        pages.push(Page { granule, sequence, lengths, body: &bytes[27 + count..27 + count + size] });
        bytes = &bytes[27 + count + size..];
    }
    pages
}

/// The packets of sound of an Ogg stream.
pub fn packets(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut packet = Vec::new();
    for page in pages(bytes) {
        let mut at = 0;
        for length in page.lengths {
            packet.extend_from_slice(&page.body[at..at + usize::from(*length)]);
            at += usize::from(*length);
            if *length < 255 {
                packets.push(std::mem::take(&mut packet));
            }
        }
    }
    // Headers.
    packets.split_off(2)
}

/// Checks that pages follow each other and that each goes on where the one before ended.
pub fn continuous(bytes: &[u8]) {
    let pages = pages(bytes);
    for (page, next) in pages.iter().zip(&pages[1..]) {
        assert_eq!(next.sequence, page.sequence + 1);
        let frames = next.granule - page.granule;
        assert!(page.granule <= 0 || (1..=9600).contains(&frames), "{} to {}", page.granule, next.granule);
    }
}

/// Decodes to 48 kHz mono; ffmpeg must not complain.
pub fn decoded(bytes: &[u8], format: &str) -> Vec<f32> {
    let mut file = tempfile::Builder::new().suffix(&format!(".{format}")).tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let output = Command::new("ffmpeg")
        .args(["-v", "warning", "-i"])
        .arg(file.path())
        .args(["-ac", "1", "-ar", "48000", "-f", "f32le", "-"])
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg is installed");
    let complaints = String::from_utf8_lossy(&output.stderr);
    // Headers of streams say neither how long they are nor where their one channel is.
    let usual = |line: &&str| {
        ["Estimating duration", "Ignoring maximum wav data", "Guessed Channel"].iter().any(|usual| line.contains(usual))
    };
    let complaints: Vec<_> = complaints.lines().filter(|line| !usual(line)).collect();
    assert!(output.status.success() && complaints.is_empty(), "ffmpeg: {complaints:?}");
    output.stdout.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// An Ogg stream without a page that is cut off at its end.
pub fn whole_pages(bytes: &[u8]) -> &[u8] {
    let mut end = 0;
    while let Some(&[.., count]) = bytes.get(end..end + 27) {
        let lengths = bytes.get(end + 27..end + 27 + usize::from(count));
        let Some(lengths) = lengths else { break };
        let size: usize = lengths.iter().map(|length| usize::from(*length)).sum();
        let next = end + 27 + lengths.len() + size;
        if next > bytes.len() {
            break;
        }
        end = next;
    }
    &bytes[..end]
}
