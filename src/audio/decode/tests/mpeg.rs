//! MPEG audio as it is found: joined, with counts that lie, behind pictures and zeros.

use super::*;

/// Seconds of a tone as MP3, by ffmpeg with `arguments`.
fn mp3(channels: usize, seconds: f64, arguments: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let tones = ["0.3*sin(2765*t)", "0.2*sin(4147*t)"][..channels].join("|");
    let source = format!("aevalsrc={tones}:s=44100:d={seconds}");
    let bare = ["-id3v2_version", "0", "-f", "mp3", "-"];
    ffmpeg(folder.path(), &[&["-f", "lavfi", "-i", &source], arguments, &bare].concat())
}

/// With its first frame, which only a file that can be gone back to has.
fn with_count() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let source = ["-f", "lavfi", "-i", "aevalsrc=0.3*sin(2765*t):s=44100:d=3"];
    ffmpeg(folder.path(), &[&source[..], &["-b:a", "128k", "x.mp3"]].concat());
    std::fs::read(folder.path().join("x.mp3")).unwrap()
}

const PLAIN: [&str; 2] = ["-write_xing", "0"];

fn plain(channels: usize) -> Vec<u8> {
    mp3(channels, 2.0, &[&PLAIN[..], &["-b:a", "128k"]].concat())
}

/// `"ID3"` with one frame of `size` bytes.
fn tag(size: usize) -> Vec<u8> {
    let length = size as u32;
    let spread = [length >> 21, length >> 14, length >> 7, length].map(|seven| seven as u8 & 127);
    [b"ID3\x04\0\0", &spread[..], &vec![0xff; size]].concat()
}

#[test]
fn a_count_that_is_true_takes_delay_and_padding_away() {
    let file = with_count();
    assert_eq!(decode(&file).unwrap().frames(), 3 * 44_100);
    heard_alike("with a count", &file, "mp3", 0);
}

#[test]
fn a_count_that_is_wrong_cuts_nothing() {
    let file = with_count();
    let at = file.windows(4).position(|four| four == b"Info").unwrap() + 8;
    for count in [0u32, 20, 114, 1000, u32::MAX] {
        let mut file = file.clone();
        file[at..at + 4].copy_from_slice(&count.to_be_bytes());
        let frames = decode(&file).unwrap().frames();
        assert!((3 * 44_100..3 * 44_100 + 1200).contains(&frames), "{count}: {frames}");
        heard_alike(&format!("{count} frames"), &file, "mp3", 1200);
    }
}

#[test]
fn bit_rates_that_change_without_a_count_cut_nothing() {
    for quality in ["0", "2", "9"] {
        let file =
            mp3(2, 4.0, &[&PLAIN[..], &["-q:a", quality, "-af", "volume='if(lt(t,2),1,0)':eval=frame"]].concat());
        heard_alike(quality, &file, "mp3", 0);
    }
}

#[test]
fn files_one_behind_the_other_are_all_heard() {
    let (mono, stereo) = (plain(1), plain(2));
    for (name, file) in [("mono first", [&mono[..], &stereo].concat()), ("stereo first", [&stereo[..], &mono].concat())]
    {
        let sound = decode(&file).unwrap();
        assert_eq!((sound.rate.0, sound.channels), (44_100, 2), "{name}");
        assert!(sound.frames().abs_diff(4 * 44_100) < 4000, "{name}: {}", sound.frames());
        for half in [&sound.pcm[20_000..150_000], &sound.pcm[200_000..330_000]] {
            assert!(rms(half.iter().copied()) > 0.15, "{name}");
        }
    }
    let other_rate = mp3(1, 2.0, &[&PLAIN[..], &["-ar", "22050"]].concat());
    let sound = decode([&mono[..], &other_rate].concat()).unwrap();
    assert!((sound.seconds() - 4.0).abs() < 0.2 && sound.rate.0 == 44_100, "{} s", sound.seconds());
    let counted = with_count();
    heard_alike("two with counts", &counted.repeat(2), "mp3", 1200);
    heard_alike("five with counts", &counted.repeat(5), "mp3", 1200);
}

#[test]
fn what_lies_in_front_and_behind_is_skipped() {
    let file = plain(2);
    let frames = decode(&file).unwrap().frames();
    let ape = [&b"APETAGEX"[..], &[2000u32, 32, 0, 1 << 31].map(u32::to_le_bytes).concat(), &[0; 8]].concat();
    let id3v1 = [&b"TAG"[..], &[b' '; 125]].concat();
    for (name, before, behind) in [
        ("a picture of 3 MB", tag(3_000_000), vec![]),
        ("two tags", [tag(1000), tag(70_000)].concat(), vec![]),
        ("zeros", vec![0; 2_000_000], vec![]),
        ("text", b"this is no sound at all ".repeat(50), vec![]),
        ("tags behind", vec![], [ape, id3v1].concat()),
        ("junk behind", vec![], vec![0x55; 5000]),
    ] {
        let heard = decode([before, file.clone(), behind].concat()).unwrap();
        assert_eq!(heard.frames(), frames, "{name}");
    }
}

#[test]
fn every_rate_and_layer_is_read() {
    for rate in ["8000", "11025", "12000", "16000", "22050", "24000", "32000", "44100", "48000"] {
        heard_alike(rate, &mp3(1, 2.0, &[&PLAIN[..], &["-ar", rate]].concat()), "mp3", 0);
    }
    let folder = tempfile::tempdir().unwrap();
    for rate in ["16000", "44100", "48000"] {
        let source = ["-f", "lavfi", "-i", "aevalsrc=0.3*sin(2765*t)|0.2*sin(4147*t):s=44100:d=2"];
        let file = ffmpeg(folder.path(), &[&source[..], &["-ar", rate, "-c:a", "mp2", "-f", "mp2", "-"]].concat());
        heard_alike(&format!("layer II at {rate}"), &file, "mp2", 0);
    }
}

#[test]
fn joint_stereo_that_joins_nothing_may_mix_block_types() {
    let mut file =
        mp3(2, 3.0, &[&PLAIN[..], &["-b:a", "128k", "-joint_stereo", "0", "-af", "pan=stereo|c0=c0"]].concat());
    let mut at = 0;
    while let Some(frame) = file.get_mut(at..at + 40) {
        let kbps = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0][usize::from(frame[2] >> 4)];
        let length = 144_000 * kbps / 44_100 + usize::from(frame[2] >> 1 & 1);
        frame[3] = frame[3] & 15 | 0x40;
        // The silent right channel of both granules: window switching, with short blocks.
        let mut bits: Vec<bool> =
            frame[4..36].iter().flat_map(|b| (0..8).map(move |n| b >> (7 - n) & 1 == 1)).collect();
        for part in [20 + 59, 20 + 59 * 3] {
            if !bits[part..part + 12].contains(&true) {
                bits[part + 33..part + 56].fill(false);
                (bits[part + 33], bits[part + 34]) = (true, true);
            }
        }
        for (byte, bits) in frame[4..36].iter_mut().zip(bits.chunks(8)) {
            *byte = bits.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
        }
        at += length.max(1);
    }
    heard_alike("mixed blocks", &file, "mp3", 0);
}
