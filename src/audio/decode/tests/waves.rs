//! WAV and its relatives, AIFF, AU.

use super::*;

const RATE: u32 = 44_100;

/// A second of a sine, 16 bits, one channel.
fn second() -> Vec<u8> {
    let sample = |n: u32| (16_000.0 * (n as f32 * 0.0627).sin()) as i16;
    (0..RATE).flat_map(|n| sample(n).to_le_bytes()).collect()
}

fn format(tag: u16, channels: u16, bits: u16, more: &[u8]) -> Vec<u8> {
    let block = channels * bits / 8;
    let mut format = [tag, channels].map(u16::to_le_bytes).concat();
    format.extend([RATE, RATE * u32::from(block)].map(u32::to_le_bytes).concat());
    format.extend([block, bits].map(u16::to_le_bytes).concat());
    format.extend(more);
    format
}

fn chunk(name: &[u8; 4], size: u32, body: &[u8]) -> Vec<u8> {
    [&name[..], &size.to_le_bytes(), body, &[0][..body.len() % 2]].concat()
}

/// A WAV of 16 bits whose sizes may be any.
fn wav(outer: u32, format: &[u8], size: u32, data: &[u8], behind: &[u8]) -> Vec<u8> {
    let format = chunk(b"fmt ", format.len() as u32, format);
    [b"RIFF", &outer.to_le_bytes()[..], b"WAVE", &format, &chunk(b"data", size, data), behind].concat()
}

#[test]
fn sizes_that_lie_cut_nothing() {
    let (pcm, plain) = (second(), format(1, 1, 16, &[]));
    let (size, all) = (pcm.len() as u32, pcm.len() as u32 + 36);
    for (outer, told) in [
        (0, 0),
        (all, 0),
        (36, size),
        (all - 8, size),
        (u32::MAX, u32::MAX),
        (u32::MAX, size),
        (all, u32::MAX),
        (0x7fff_f024, 0x7fff_f000),
        (2 * size, 2 * size),
    ] {
        let file = wav(outer, &plain, told, &pcm, &[]);
        let sound = decode(&file).unwrap();
        assert_eq!((sound.frames(), sound.rate.0), (RATE as usize, RATE), "{outer} {told}");
        heard_alike(&format!("{outer} {told}"), &file, "wav", 0);
    }
}

#[test]
fn what_lies_behind_the_data_is_no_sound() {
    let (mut pcm, plain) = (second(), format(1, 1, 16, &[]));
    let list = chunk(b"LIST", 12, b"INFOISFT\0\0\0\0");
    assert_eq!(decode(wav(0, &plain, pcm.len() as u32, &pcm, &list)).unwrap().frames(), RATE as usize);
    // A byte short of a frame, with the chunk behind at an even place.
    pcm.pop();
    assert_eq!(decode(wav(0, &plain, pcm.len() as u32, &pcm, &list)).unwrap().frames(), RATE as usize - 1);
}

#[test]
fn format_chunks_have_any_length() {
    let pcm = second();
    for more in [0, 2, 4, 12, 24, 34] {
        let file = wav(0, &format(1, 1, 16, &vec![0; more]), pcm.len() as u32, &pcm, &[]);
        assert_eq!(decode(&file).unwrap().frames(), RATE as usize, "{} bytes", 16 + more);
    }
    let guid = [&[22, 0, 16, 0, 4, 0, 0, 0, 1, 0][..], b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"].concat();
    let file = wav(0, &format(0xfffe, 1, 16, &guid), pcm.len() as u32, &pcm, &[]);
    heard_alike("extensible", &file, "wav", 0);
}

#[test]
fn files_of_more_than_four_gigabytes_have_their_sizes_elsewhere() {
    let (pcm, plain) = (second(), format(1, 1, 16, &[]));
    for name in [b"RF64", b"BW64"] {
        for told in [pcm.len() as u64, 0, u64::MAX] {
            let sizes = [pcm.len() as u64 + 80, told, u64::from(RATE)].map(u64::to_le_bytes).concat();
            let sizes = chunk(b"ds64", 28, &[&sizes[..], &[0; 4]].concat());
            let format = chunk(b"fmt ", 16, &plain);
            let data = chunk(b"data", u32::MAX, &pcm);
            let file = [&name[..], &u32::MAX.to_le_bytes(), b"WAVE", &sizes, &format, &data].concat();
            assert_eq!(decode(&file).unwrap().frames(), RATE as usize, "{told}");
        }
    }
}

#[test]
fn every_width_of_every_relative_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let source = "aevalsrc=0.3*sin(2765*t)|0.2*sin(4147*t):s=44100:d=1";
    for (extension, arguments) in [
        ("wav", "pcm_u8"),
        ("wav", "pcm_s24le"),
        ("wav", "pcm_s32le"),
        ("wav", "pcm_s64le"),
        ("wav", "pcm_f32le"),
        ("wav", "pcm_f64le"),
        ("wav", "pcm_alaw"),
        ("wav", "pcm_mulaw"),
        ("wav", "adpcm_ima_wav"),
        ("wav", "adpcm_ms"),
        ("wav", "libmp3lame"),
        ("w64", "pcm_s16le"),
        ("w64", "pcm_f32le"),
        ("aiff", "pcm_s16be"),
        ("aiff", "pcm_s24be"),
        ("aiff", "pcm_s32be"),
        ("aiff", "pcm_s16le"),
        ("aiff", "pcm_f32be"),
        ("aiff", "pcm_f64be"),
        ("aiff", "pcm_alaw"),
        ("aiff", "pcm_s8"),
        ("au", "pcm_s16be"),
        ("au", "pcm_s24be"),
        ("au", "pcm_f32be"),
        ("au", "pcm_mulaw"),
        ("caf", "pcm_s16le"),
        ("caf", "pcm_s24be"),
        ("caf", "pcm_f32le"),
        ("caf", "alac"),
    ] {
        let name = format!("x.{extension}");
        ffmpeg(folder.path(), &["-f", "lavfi", "-i", source, "-c:a", arguments, &name]);
        let file = std::fs::read(folder.path().join(&name)).unwrap();
        let slack = if arguments.starts_with("adpcm") { 2100 } else { 0 };
        heard_alike(&format!("{extension} {arguments}"), &file, extension, slack);
    }
}

#[test]
fn an_aiff_of_unknown_length_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let source = "aevalsrc=0.3*sin(2765*t):s=44100:d=1";
    let mut file = ffmpeg(folder.path(), &["-f", "lavfi", "-i", source, "-f", "aiff", "-"]);
    assert_eq!(decode(&file).unwrap().frames(), 44_100);
    let at = |name: &[u8]| file.windows(4).position(|four| four == name).unwrap();
    let (common, sound) = (at(b"COMM") + 10, at(b"SSND") + 4);
    for told in [0u32, u32::MAX] {
        file[common..common + 4].copy_from_slice(&told.to_be_bytes());
        file[sound..sound + 4].copy_from_slice(&told.to_be_bytes());
        assert_eq!(decode(&file).unwrap().frames(), 44_100);
    }
}
