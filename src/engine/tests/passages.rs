//! The codes that come with a voice's sound make that sound again, whatever was cut off meanwhile.

use super::*;

/// What was read of a voice.
#[derive(Default)]
struct Taken {
    pcm: Vec<f32>,
    passages: Vec<Passage>,
}

impl Taken {
    async fn read(&mut self, voice: &mut Voice, samples: usize) {
        let end = self.pcm.len() + samples;
        while self.pcm.len() < end {
            match voice.read(Samples((end - self.pcm.len()) as u64)) {
                Read::Chunk(chunk) => {
                    self.pcm.extend(chunk.pcm);
                    self.passages.extend(chunk.passage);
                }
                Read::Pending => voice.ready().await,
                Read::End(_) => return,
            }
        }
    }

    /// The same sound, of the codes alone.
    async fn again(&self, engine: &Engine) -> Vec<f32> {
        let runs = self.passages.chunk_by(|one, next| one.run == next.run);
        let mut pcm: Vec<f32> = Vec::new();
        for run in runs {
            let mut decoding = engine.decoding(run[0].codec.fingerprint);
            let mut sound = Vec::new();
            let mut next = run[0].first;
            for passage in run {
                assert_eq!(passage.first, next, "no frame is missing and none comes twice");
                next = passage.end();
                sound.extend(decoding.push(passage.codes.clone(), false).await.unwrap());
            }
            sound.extend(decoding.push(Vec::new(), true).await.unwrap());
            let from = run[0].origin + (run[0].first * run[0].codec.hop as u64) as i64;
            if from >= 0 {
                pcm.truncate(from as usize);
            }
            pcm.extend(&sound[(-from).max(0) as usize..]);
        }
        pcm
    }
}

#[test]
fn codes_that_were_taken_make_the_sound_that_was_taken() {
    wait(async {
        let engine = engine();
        let mut voice = engine.join(spec("a", 5)).await.unwrap();
        let (control, mut taken) = (voice.control(), Taken::default());
        let steer = |text: &str| Steer { prompts: Some(vec![text.into()]), ..Steer::default() };
        for (round, samples) in [20_001, 3, 64_000, 777, 90_000, 31_999].into_iter().enumerate() {
            control.steer(steer(&format!("steer {round}"))).await.unwrap();
            taken.read(&mut voice, samples).await;
            if round % 2 == 1 {
                control.reset().await.unwrap();
            }
        }
        let again = taken.again(&engine).await;
        assert_eq!(again[..taken.pcm.len()], taken.pcm);
        assert!(again.len() < taken.pcm.len() + 10 * 640, "no more than the sound needs");
    });
}

#[test]
fn a_complete_clip_and_one_behind_a_sound_that_is_not_heard_bring_all_their_codes() {
    wait(async {
        let engine = engine();
        let prefix = engine.encode(None, vec![tune(120)]).await.unwrap();
        for (prefix, frames) in [(None, 90), (Some(prefix), 300)] {
            let length = Some(Frames(frames));
            let mut voice = engine.join(VoiceSpec { length, prefix, ..spec("clip", 6) }).await.unwrap();
            let mut taken = Taken::default();
            // Before anything was heard it is changed.
            voice.control().steer(Steer { prompts: Some(vec!["x".into()]), ..Steer::default() }).await.unwrap();
            taken.read(&mut voice, usize::MAX / 2).await;
            assert_eq!(taken.again(&engine).await, taken.pcm);
        }
    });
}

#[test]
fn a_voice_that_was_taken_back_brings_what_is_heard_of_it() {
    wait(async {
        let engine = Engine::start(Box::new(Standin::default()), EngineConfig { max_still: 4.0, ..Default::default() });
        let engine = engine.unwrap();
        let mut voice = engine.join(spec("stuck from 300 through 2", 8)).await.unwrap();
        let mut taken = Taken::default();
        taken.read(&mut voice, 32_000 * 20).await;
        assert!(!voice.freezes().is_empty());
        let again = taken.again(&engine).await;
        assert_eq!(again[..taken.pcm.len()], taken.pcm);
    });
}

#[test]
fn parts_that_are_decoded_side_by_side_make_the_sound_of_the_whole() {
    wait(async {
        let engine = Engine::start(Box::new(Standin::default().with_whole_waves()), EngineConfig::default()).unwrap();
        let fingerprint = Standin::default().with_whole_waves().info().codec_fingerprint;
        let codes: Vec<u32> = (0..4 * 700u32).map(|n| n * n % 251).collect();
        for (count, cut) in [(1, 100), (4, 0), (3, 101), (8, 680), (400, 30)] {
            let (mut whole, mut cut_up) = (engine.decoding(fingerprint), engine.decoding(fingerprint));
            let (first, rest) = codes.split_at(4 * cut);
            for (codes, last) in [(first, false), (rest, false), (&codes[..4 * 20], true)] {
                let expected = whole.push(codes.to_vec(), last).await.unwrap();
                let heard = match last {
                    // What follows goes on from the last part.
                    true => cut_up.push(codes.to_vec(), true).await,
                    false => cut_up.push_in_parts(codes.to_vec(), Parts { count, warm_up: 3 }).await,
                };
                assert!(heard.unwrap() == expected, "{count} parts from {cut} on");
            }
        }
    });
}
