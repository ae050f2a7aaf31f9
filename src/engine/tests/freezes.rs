//! Voices that stand still, on a stand-in that does so when asked.

use super::*;

/// Twenty seconds that nobody plays while they are made.
fn clip(prompt: &str) -> VoiceSpec {
    VoiceSpec { length: Some(Frames(1000)), priority: Priority::Spare, ..spec(prompt, 7) }
}

/// All sound of a voice, and what was done about it on the way.
async fn heard(engine: &Engine, spec: VoiceSpec) -> (Vec<f32>, Vec<Freeze>) {
    let mut voice = engine.join(spec).await.unwrap();
    let (mut pcm, mut freezes) = (Vec::new(), Vec::new());
    loop {
        match voice.read(Samples(u64::MAX)) {
            Read::Chunk(chunk) => {
                assert_eq!((chunk.start.0 as usize, chunk.epoch), (pcm.len(), 0));
                pcm.extend(chunk.pcm);
            }
            Read::Pending => voice.ready().await,
            Read::End(end) => {
                assert_eq!(end, VoiceEnd::Finished);
                freezes.extend(voice.freezes());
                return (pcm, freezes);
            }
        }
    }
}

/// Seconds of the longest stretch without anything new.
fn longest_stillness(pcm: &[f32]) -> f64 {
    let mut watch = Stillness::new(SampleRate(32_000), f64::INFINITY);
    let parts = pcm.chunks(640).enumerate();
    parts.fold(0.0, |longest, (n, part)| {
        watch.push(n as u64 * 640, part, 1);
        longest.max(watch.seconds())
    })
}

fn remedies(freezes: &[Freeze]) -> Vec<Remedy> {
    freezes.iter().map(|freeze| freeze.remedy).collect()
}

#[tokio::test]
async fn a_voice_that_stands_still_is_taken_back_before_anybody_hears_it() {
    let engine = engine();
    let stuck = clip("stuck from 300 through 1");
    let (still, nothing) = heard(&engine, VoiceSpec { max_still: Some(0.0), ..stuck.clone() }).await;
    assert!(longest_stillness(&still) > 13.0 && nothing.is_empty());
    let (pcm, freezes) = heard(&engine, stuck).await;
    assert_eq!((pcm.len(), remedies(&freezes)), (1000 * 640, vec![Remedy::Draws]));
    assert!((6.0..7.0).contains(&freezes[0].at), "{freezes:?}");
    assert!(longest_stillness(&pcm) < 1.5, "{}", longest_stillness(&pcm));
    // Up to there it is the same piece.
    let at = (freezes[0].at * 32_000.0) as usize;
    assert!(pcm[..at] == still[..at] && pcm[at..at + 32_000] != still[at..at + 32_000]);
}

#[tokio::test]
async fn other_draws_are_followed_by_a_shorter_context_and_by_a_new_beginning() {
    let engine = engine();
    let ladder: Vec<_> = [Remedy::Draws, Remedy::Context].into_iter().chain([Remedy::Anew; 5]).collect();
    for turns in 1..=ladder.len() {
        let (pcm, freezes) = heard(&engine, clip(&format!("stuck from 300 through {turns}"))).await;
        assert_eq!((pcm.len(), remedies(&freezes)), (1000 * 640, ladder[..turns].to_vec()));
        // The still sound is left under a cross-fade.
        assert!(longest_stillness(&pcm) < 2.0, "{turns}: {}", longest_stillness(&pcm));
    }
}

#[tokio::test]
async fn a_voice_that_stands_still_from_its_beginning_on_is_always_taken_back_to_the_end_of_its_head_start() {
    for turns in [3, 7] {
        let (pcm, freezes) = heard(&engine(), clip(&format!("stuck from 10 through {turns}"))).await;
        assert_eq!(freezes.len(), turns, "{freezes:?}");
        for freeze in &freezes {
            assert!((3.0..3.3).contains(&freeze.at), "{freezes:?}");
        }
        assert!(longest_stillness(&pcm) < 3.5, "{turns}: {}", longest_stillness(&pcm));
    }
}

#[tokio::test]
async fn a_new_beginning_comes_under_a_cross_fade_without_a_click() {
    let (pcm, freezes) = heard(&engine(), clip("stuck from 300 through 3")).await;
    let at = (freezes.last().unwrap().at * 32_000.0) as usize;
    // A sine of the stand-in's highest pitch moves by so much from one sample to the next, two of
    // them by twice that.
    let steepest = 2.0 * 0.4 * std::f32::consts::TAU * 724.0 / 32_000.0;
    let step =
        |range: std::ops::Range<usize>| pcm[range].windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
    assert!(step(at - 3200..at + 64_000) <= steepest, "{}", step(at - 3200..at + 64_000));
}

#[tokio::test]
async fn a_voice_that_nothing_helps_is_left_alone_and_still_has_its_length() {
    let (pcm, freezes) = heard(&engine(), clip("stuck from 300 through 1000")).await;
    assert_eq!(pcm.len(), 1000 * 640);
    assert_eq!(freezes[7].remedy, Remedy::Left);
    // Less and less is tried.
    assert!(freezes.len() < 18, "{freezes:?}");
}

#[tokio::test]
async fn a_piece_that_continues_a_sound_does_not_begin_anew() {
    let engine = engine();
    let prefix = engine.encode(None, vec![tune(150)]).await.unwrap();
    let prefix = Some(Prefix { heard: true, ..prefix });
    let (pcm, freezes) = heard(&engine, VoiceSpec { prefix, ..clip("stuck from 300 through 1000") }).await;
    assert_eq!(
        (pcm.len(), remedies(&freezes)[..3].to_vec()),
        (1000 * 640, vec![Remedy::Draws, Remedy::Context, Remedy::Left])
    );
}

#[tokio::test]
async fn a_prompt_that_asks_for_a_drone_gets_it() {
    let (pcm, freezes) = heard(&engine(), clip("a drone, stuck from 300 through 1")).await;
    assert!(freezes.is_empty() && longest_stillness(&pcm) > 13.0);
}

#[tokio::test]
async fn a_voice_goes_on_alike_whoever_listens_and_whoever_else_plays() {
    let prompt = "stuck from 130 through 3";
    // Taken as fast as it is made.
    let spare = VoiceSpec { priority: Priority::Spare, ..spec(prompt, 7) };
    let mut voice = engine().join(spare).await.unwrap();
    let alone = read(&mut voice, 25 * 32_000).await;
    assert!(remedies(&voice.freezes()).starts_with(&[Remedy::Draws, Remedy::Context, Remedy::Anew]));
    let engine = engine();
    let mut others = Vec::new();
    for seed in 0..4 {
        others.push(engine.join(spec("stuck from 200 through 2", seed)).await.unwrap());
    }
    // Played a second at a time.
    let mut voice = engine.join(spec(prompt, 7)).await.unwrap();
    let mut together = Vec::new();
    while together.len() < 25 * 32_000 {
        until("the lead is there", || voice.buffered() >= 2.0).await;
        together.extend(read(&mut voice, 32_000).await);
        for other in &mut others {
            read(other, 16_000).await;
        }
    }
    assert!(alone == together);
}

#[tokio::test]
async fn a_steer_is_heard_at_once_on_a_voice_that_was_taken_back() {
    let engine = engine();
    let mut voice = engine.join(spec("stuck from 250 through 3", 7)).await.unwrap();
    let mut heard = 0;
    for prompt in ["drums", "stuck from 600 through 3", "piano", "stuck from 0 through 2"] {
        heard += read(&mut voice, 3 * 32_000).await.len();
        until("the lead is there", || voice.buffered() >= 2.0).await;
        let steer = Steer { prompts: Some(vec![prompt.into()]), ..Steer::default() };
        let ack = voice.control().steer(steer).await.unwrap();
        let delay = ack.at - heard as f64 / 32_000.0;
        assert!((0.0..0.5).contains(&delay), "{prompt}: {delay}");
    }
    read(&mut voice, LONG).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Rewinds and pauses at any place of a voice that freezes now and then: its sound stays in one
    /// piece.
    #[test]
    fn rewinds_and_freezes_do_not_get_in_each_others_way(
        steps in proptest::collection::vec((1usize..90_000, 0u8..4), 1..16),
        from in 0u64..600,
        turns in 1u64..6,
    ) {
        wait(async {
            let prompt = format!("stuck from {from} through {turns}");
            let mut voice = engine().join(spec(&prompt, 3)).await.unwrap();
            for (samples, then) in steps {
                assert_eq!(read(&mut voice, samples).await.len(), samples);
                match then {
                    0 => drop(voice.control().steer(Steer::default()).await.unwrap()),
                    1 => drop(voice.control().reset().await.unwrap()),
                    2 => {
                        voice.control().pause().await.unwrap();
                        voice.control().resume().await.unwrap();
                    }
                    _ => {}
                }
            }
            read(&mut voice, 64_000).await;
        });
    }
}
