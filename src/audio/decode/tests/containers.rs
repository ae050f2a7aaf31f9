//! Matroska, MP4 and what else symphonia takes apart.

use super::*;

const TONES: [&str; 4] = ["-f", "lavfi", "-i", "aevalsrc=0.3*sin(2765*t)|0.2*sin(4147*t):s=48000:d=2"];

/// Two seconds, in a file that can be gone back to or not.
fn made(extension: &str, piped: bool, arguments: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("x.{extension}");
    let arguments = [&TONES[..], arguments].concat();
    if piped {
        return ffmpeg(folder.path(), &[&arguments[..], &["-"]].concat());
    }
    ffmpeg(folder.path(), &[&arguments[..], &[&name]].concat());
    std::fs::read(folder.path().join(name)).unwrap()
}

#[test]
fn what_browsers_record_is_read() {
    // MediaRecorder writes clusters of unknown size, no duration and no index.
    let live = ["-f", "webm", "-live", "1", "-cluster_time_limit", "500"];
    for codec in ["libopus", "libvorbis"] {
        heard_alike(codec, &made("webm", false, &["-c:a", codec]), "webm", 700);
        heard_alike(
            &format!("{codec}, live"),
            &made("webm", true, &[&["-c:a", codec], &live[..]].concat()),
            "webm",
            700,
        );
    }
    let file = made("webm", false, &["-c:a", "libopus"]);
    heard_alike("cut off", &file[..file.len() / 2], "webm", 1300);
    for codec in ["flac", "pcm_s16le", "aac", "libmp3lame"] {
        heard_alike(codec, &made("mka", false, &["-c:a", codec]), "mka", 2300);
    }
}

#[test]
fn mp4_is_read_with_its_edits() {
    let folder = tempfile::tempdir().unwrap();
    for (name, arguments) in [
        ("AAC", &["-c:a", "aac"][..]),
        ("index in front", &["-c:a", "aac", "-movflags", "faststart"]),
        ("fragments", &["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov", "-frag_duration", "500000"]),
        ("Opus", &["-f", "mp4", "-c:a", "libopus", "-strict", "-2"]),
        ("ALAC", &["-c:a", "alac"]),
        ("ALAC of 24 bits", &["-c:a", "alac", "-sample_fmt", "s32p"]),
    ] {
        let slack = if name.contains("ALAC") { 0 } else { 2300 };
        heard_alike(name, &made("m4a", false, arguments), "m4a", slack);
    }
    heard_alike("MOV", &made("mov", false, &["-c:a", "pcm_s24le"]), "mov", 0);
    std::fs::write(folder.path().join("x.m4a"), made("m4a", false, &["-c:a", "aac"])).unwrap();
    ffmpeg(folder.path(), &["-ss", "0.7", "-i", "x.m4a", "-c", "copy", "y.m4a"]);
    heard_alike("cut by its edit list", &std::fs::read(folder.path().join("y.m4a")).unwrap(), "m4a", 2300);
}

#[test]
fn adts_is_read_behind_a_tag_too() {
    let file = made("aac", false, &["-c:a", "aac"]);
    heard_alike("ADTS", &file, "aac", 1100);
    let tagged = [&b"ID3\x04\0\0\0\0\0\x3f"[..], &[0; 63], &file].concat();
    assert_eq!(decode(&tagged).unwrap().frames(), decode(&file).unwrap().frames());
}
