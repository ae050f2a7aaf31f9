//! Decoding in a process of its own, with the real program: what it hears, what it refuses, and
//! that it leaves.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use continuo::audio::{AudioError, decode};
use continuo::sandbox::Sandbox;

fn sandbox(ffmpeg: Option<&str>) -> Sandbox {
    Sandbox::new(PathBuf::from(env!("CARGO_BIN_EXE_continuo")), ffmpeg.map(PathBuf::from))
}

/// Two seconds of a tone as ffmpeg writes them.
fn made(name: &str, arguments: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "aevalsrc=0.3*sin(2765*t)|0.2*sin(4147*t):s=48000:d=2"])
        .args(arguments)
        .arg(folder.path().join(name))
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read(folder.path().join(name)).unwrap()
}

/// An MP4 whose table claims four thousand million samples of one byte.
fn endless_mp4() -> Vec<u8> {
    let mut file = made("x.m4a", &["-c:a", "aac"]);
    let at = file.windows(4).position(|four| four == b"stsz").unwrap() + 8;
    file[at..at + 8].copy_from_slice(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xf0]);
    let at = file.windows(4).position(|four| four == b"stts").unwrap() + 12;
    file[at..at + 4].copy_from_slice(&[0xff, 0xff, 0xff, 0xf0]);
    let at = file.windows(4).position(|four| four == b"stsc").unwrap() + 16;
    file[at..at + 4].copy_from_slice(&[0xff, 0xff, 0xff, 0xf0]);
    file
}

/// Bits, the lowest first, as Vorbis has them.
#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn put(&mut self, value: u32, bits: usize) -> &mut Self {
        self.0.extend((0..bits).map(|bit| value >> bit & 1 == 1));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
        self.0.chunks(8).map(byte).collect()
    }
}

/// Less than 2 kB of Vorbis, with 64 codebooks of eight million entries each.
fn deep_vorbis() -> Vec<u8> {
    let (mut head, mut setup) = (Bits::default(), Bits::default());
    head.put(0, 32).put(1, 8).put(44_100, 32).put(0, 32).put(0, 32).put(0, 32).put(0xb8, 8).put(1, 8);
    setup.put(63, 8);
    for _ in 0..64 {
        // One dimension, all codewords of 23 bits, no values.
        setup.put(0x56_4342, 24).put(1, 16).put(1 << 23, 24).put(1, 1).put(22, 5).put(1 << 23, 24).put(0, 4);
    }
    let packet = |kind: u8, body: &[u8]| [&[kind], &b"vorbis"[..], body].concat();
    let packets =
        [packet(1, &head.bytes()), packet(3, &[0, 0, 0, 0, 0, 0, 0, 0, 1]), packet(5, &setup.bytes()), vec![0; 40]];
    let mut writer = ogg::writing::PacketWriter::new(Vec::new());
    for (n, packet) in packets.into_iter().enumerate() {
        let end = if n == 3 { ogg::PacketWriteEndInfo::EndStream } else { ogg::PacketWriteEndInfo::EndPage };
        writer.write_packet(packet, 1, end, 64 * (n / 3) as u64).unwrap();
    }
    writer.into_inner()
}

#[tokio::test]
async fn a_process_hears_what_the_decoders_hear() {
    let sandbox = sandbox(None);
    for (name, arguments) in [("x.wav", &[][..]), ("x.mp3", &["-b:a", "128k"]), ("x.webm", &["-c:a", "libopus"])] {
        let file = made(name, arguments);
        assert_eq!(sandbox.decode(file.clone().into()).await.unwrap(), decode(&file).unwrap(), "{name}");
    }
    let refused = sandbox.decode("this is no sound at all".into()).await.unwrap_err();
    assert!(matches!(refused, AudioError::Unreadable(_)), "{refused}");
}

#[tokio::test]
async fn an_installed_ffmpeg_reads_what_is_not_known_here() {
    let wma = made("x.wma", &["-c:a", "wmav2"]);
    assert!(sandbox(None).decode(wma.clone().into()).await.is_err());
    assert!(sandbox(Some("no-such-program")).decode(wma.clone().into()).await.is_err());
    let heard = sandbox(Some("ffmpeg")).decode(wma.into()).await.unwrap();
    assert!((heard.seconds() - 2.0).abs() < 0.1 && (heard.rate.0, heard.channels) == (48_000, 2));
    // A playlist names other files; ffmpeg sees none of them.
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret.wav");
    std::fs::write(&secret, made("x.wav", &[])).unwrap();
    for playlist in [
        format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{}\n#EXT-X-ENDLIST\n", secret.display()),
        format!("ffconcat version 1.0\nfile '{}'\n", secret.display()),
    ] {
        assert!(sandbox(Some("ffmpeg")).decode(playlist.into()).await.is_err());
    }
}

#[tokio::test]
async fn small_files_that_ask_for_gigabytes_or_hours_are_refused_in_a_sentence() {
    for (name, file) in [("deep Vorbis", deep_vorbis()), ("endless MP4", endless_mp4())] {
        for ffmpeg in [None, Some("ffmpeg")] {
            let began = Instant::now();
            let refused = sandbox(ffmpeg).decode(file.clone().into()).await;
            if let Err(error) = &refused {
                let sentence = error.to_string();
                assert!(
                    sentence.starts_with("The sound cannot be read: ") && sentence.len() < 300,
                    "{name}: {sentence}"
                );
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{name} took {:?}", began.elapsed());
        }
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn the_process_goes_when_nobody_waits_for_it() {
    // More than a pipe holds, so that the process waits for the rest; and of a length of its own,
    // by which it is known.
    let file = vec![0; (1 << 20) + 4321];
    let length = file.len();
    let sandbox = sandbox(None);
    let mut decoding = Box::pin(sandbox.decode(file.into()));
    // Looked at once: the process is there, and part of the file is on its way.
    assert!(tokio::time::timeout(Duration::ZERO, &mut decoding).await.is_err(), "it answered before it had the file");
    assert!(is_decoding(length), "no process was started");
    drop(decoding);
    for _ in 0..200 {
        if !is_decoding(length) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the process is still there");
}

/// Whether a process decodes a file of this length.
#[cfg(target_os = "linux")]
fn is_decoding(length: usize) -> bool {
    let words = format!("\0decode\0{length}\0");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok())
        .any(|command| command.contains(&words))
}
