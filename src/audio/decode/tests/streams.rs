//! Ogg and FLAC as stations, browsers and editors leave them.

use super::*;
use crate::audio::format::checksum;

fn made(extension: &str, channels: usize, seconds: f64, arguments: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let tones: Vec<String> = (1..=channels).map(|n| format!("0.3*sin({}*t)", 2765 * n)).collect();
    let source = format!("aevalsrc={}:s=48000:d={seconds}", tones.join("|"));
    let name = format!("x.{extension}");
    ffmpeg(folder.path(), &[&["-f", "lavfi", "-i", &source], arguments, &[&name]].concat());
    std::fs::read(folder.path().join(name)).unwrap()
}

fn opus(channels: usize) -> Vec<u8> {
    made("ogg", channels, 2.0, &["-c:a", "libopus"])
}

fn vorbis(rate: &str, channels: usize) -> Vec<u8> {
    made("ogg", channels, 2.0, &["-c:a", "libvorbis", "-ar", rate])
}

/// The first page with a changed header, and a checksum that fits.
fn with_head(ogg: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut ogg = ogg.to_vec();
    change(&mut ogg[28..47]);
    let sum = checksum(&[&ogg[..22], &[0; 4], &ogg[26..47]]);
    ogg[22..26].copy_from_slice(&sum.to_le_bytes());
    ogg
}

#[test]
fn every_stream_of_a_chain_is_heard() {
    let (stereo, mono) = (opus(2), opus(1));
    for (name, file, channels) in [
        ("Opus", [&stereo[..], &stereo].concat(), 2),
        ("stereo, then mono", [&stereo[..], &mono].concat(), 2),
        ("mono, then stereo", [&mono[..], &stereo].concat(), 2),
        ("Vorbis", vorbis("48000", 2).repeat(2), 2),
        ("Vorbis, then Opus", [&vorbis("48000", 2)[..], &stereo].concat(), 2),
        ("Vorbis of two rates", [&vorbis("48000", 1)[..], &vorbis("22050", 1)].concat(), 1),
        ("FLAC", made("oga", 1, 2.0, &["-c:a", "flac"]).repeat(2), 1),
    ] {
        let sound = decode(&file).unwrap();
        assert_eq!((sound.rate.0, sound.channels), (48_000, channels), "{name}");
        assert!(sound.frames().abs_diff(4 * 48_000) < 400, "{name}: {}", sound.frames());
        let half = sound.pcm.len() / 2;
        for part in [&sound.pcm[half / 4..half / 2], &sound.pcm[half + half / 4..half + half / 2]] {
            assert!(rms(part.iter().copied()) > 0.15, "{name}");
        }
    }
}

#[test]
fn surround_is_read() {
    for channels in [6, 8] {
        let file = made("ogg", channels, 2.0, &["-c:a", "libopus", "-mapping_family", "1", "-b:a", "400k"]);
        heard_alike(&format!("{channels} channels"), &file, "ogg", 0);
    }
    heard_alike("Vorbis of six", &vorbis("48000", 6), "ogg", 0);
}

#[test]
fn a_pre_skip_may_span_packets_and_a_gain_is_applied() {
    let file = opus(2);
    heard_alike("as it is", &file, "ogg", 0);
    for skip in [0u16, 312, 960, 3840, 40_000] {
        let file = with_head(&file, |head| head[10..12].copy_from_slice(&skip.to_le_bytes()));
        heard_alike(&format!("pre-skip {skip}"), &file, "ogg", 0);
    }
    for gain in [-6i16, 3] {
        let file = with_head(&file, |head| head[16..18].copy_from_slice(&(gain * 256).to_le_bytes()));
        heard_alike(&format!("{gain} dB"), &file, "ogg", 0);
    }
}

#[test]
fn a_recording_that_begins_and_ends_anywhere_is_whole() {
    let file = opus(2);
    // Headers, then pages from the middle on, as who came late has recorded them; then without the
    // last page.
    let pages: Vec<usize> = file.windows(4).enumerate().filter(|(_, four)| four == b"OggS").map(|(at, _)| at).collect();
    let late = [&file[..pages[2]], &file[pages[3]..]].concat();
    heard_alike("from the second page on", &late, "ogg", 0);
    heard_alike("without the last page", &file[..pages[pages.len() - 1]], "ogg", 0);
    heard_alike("cut within a page", &file[..pages[pages.len() - 1] - 100], "ogg", 1000);
}

#[test]
fn other_streams_beside_the_sound_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let inputs =
        ["-f", "lavfi", "-i", "testsrc=s=64x64:d=2", "-f", "lavfi", "-i", "aevalsrc=0.3*sin(2765*t):s=48000:d=2"];
    for codec in ["libvorbis", "libopus", "flac"] {
        ffmpeg(folder.path(), &[&inputs[..], &["-c:v", "libtheora", "-c:a", codec, "x.ogv"]].concat());
        let file = std::fs::read(folder.path().join("x.ogv")).unwrap();
        heard_alike(codec, &file, "ogv", 0);
    }
}

#[test]
fn flac_is_whole_whatever_its_header_and_what_is_behind_say() {
    let file = made("flac", 2, 2.0, &[]);
    let total = |samples: u64| {
        let mut file = file.clone();
        file[21] = file[21] & 0xf0 | (samples >> 32) as u8 & 15;
        file[22..26].copy_from_slice(&(samples as u32).to_be_bytes());
        file
    };
    let id3v1 = [&b"TAG"[..], &[0; 125]].concat();
    let id3v2 = [&b"ID3\x03\0\0\0\0\x10\0"[..], &[0; 2048]].concat();
    for (name, file) in [
        ("as it is", file.clone()),
        ("unknown length", total(0)),
        ("too short", total(1000)),
        ("too long", total(1 << 33)),
        ("ID3v1 behind", [&file[..], &id3v1].concat()),
        ("zeros behind", [&file[..], &[0; 3000]].concat()),
        ("ID3v2 in front", [&id3v2[..], &file].concat()),
    ] {
        let sound = decode(&file).unwrap();
        assert_eq!(sound.frames(), 2 * 48_000, "{name}");
    }
    assert_eq!(decode(file.repeat(2)).unwrap().frames(), 4 * 48_000);
    for arguments in [&["-sample_fmt", "s32"][..], &["-compression_level", "0"], &["-frame_size", "300"]] {
        heard_alike(&format!("{arguments:?}"), &made("flac", 2, 2.0, arguments), "flac", 0);
    }
    heard_alike("in Ogg", &made("oga", 2, 2.0, &["-c:a", "flac"]), "oga", 0);
}
