//! The engine's promises, proved on the stand-in backend: it notices every wrong position, and its
//! codes depend on everything that a real decoder's codes depend on.
#![allow(clippy::unwrap_used)]

mod freezes;
mod line;
mod passages;
mod texts;

use std::time::Duration;

use proptest::prelude::*;

use super::standin::Standin;
use super::*;
use crate::units::{Frames, ModelId, SampleRate};

fn engine() -> Engine {
    Engine::start(Box::new(Standin::default()), EngineConfig::default()).unwrap()
}

fn spec(prompt: &str, seed: u64) -> VoiceSpec {
    let sampling = SamplingPatch { seed: Some(seed), ..SamplingPatch::default() };
    VoiceSpec { sampling, lead: Duration::from_secs(2), ..VoiceSpec::endless(prompt) }
}

async fn read(voice: &mut Voice, samples: usize) -> Vec<f32> {
    let mut pcm = Vec::new();
    while pcm.len() < samples {
        match voice.read(Samples((samples - pcm.len()) as u64)) {
            Read::Chunk(chunk) => pcm.extend(chunk.pcm),
            Read::Pending => voice.ready().await,
            Read::End(end) => panic!("the voice ended after {} samples: {end}", pcm.len()),
        }
    }
    pcm
}

async fn read_to_end(voice: &mut Voice) -> (usize, VoiceEnd) {
    let mut samples = 0;
    loop {
        match voice.read(Samples(u64::MAX)) {
            Read::Chunk(chunk) => {
                assert_eq!(chunk.start.0 as usize, samples);
                samples += chunk.pcm.len();
            }
            Read::Pending => voice.ready().await,
            Read::End(end) => return (samples, end),
        }
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what} did not happen");
        tokio::task::yield_now().await;
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Thirty seconds: three windows of the stand-in.
const LONG: usize = 30 * 32_000;

#[tokio::test]
async fn a_voice_alone_equals_the_same_voice_among_eight() {
    let alone = read(&mut engine().join(spec("piano", 7)).await.unwrap(), LONG).await;
    let crowded = engine();
    let mut others = Vec::new();
    for seed in 0..7 {
        others.push(crowded.join(spec("noise", seed)).await.unwrap());
    }
    let mut voice = crowded.join(spec("piano", 7)).await.unwrap();
    let mut together = Vec::new();
    while together.len() < LONG {
        together.extend(read(&mut voice, 32_000).await);
        for other in &mut others {
            read(other, 16_000).await;
        }
    }
    assert!(alone == together[..LONG]);
}

#[tokio::test]
async fn another_seed_prompt_or_guidance_is_another_sound() {
    let engine = engine();
    let first = read(&mut engine.join(spec("piano", 7)).await.unwrap(), 32_000).await;
    assert!(first != read(&mut engine.join(spec("piano", 8)).await.unwrap(), 32_000).await);
    assert!(first != read(&mut engine.join(spec("drums", 7)).await.unwrap(), 32_000).await);
    let mut unguided = spec("piano", 7);
    unguided.sampling.guidance = Some(1.0);
    assert!(first != read(&mut engine.join(unguided).await.unwrap(), 32_000).await);
}

#[tokio::test]
async fn a_clip_has_exactly_its_length() {
    let engine = engine();
    for frames in [1, 3, 50, 1203] {
        let mut voice = engine.join(VoiceSpec { length: Some(Frames(frames)), ..spec("clip", 1) }).await.unwrap();
        assert_eq!(read_to_end(&mut voice).await, (frames as usize * 640, VoiceEnd::Finished));
    }
    until("the places are free", || engine.status().voices == 0).await;
}

#[tokio::test]
async fn a_faulty_voice_is_dropped_with_its_reason_and_the_others_go_on() {
    let engine = engine();
    let mut good = engine.join(spec("piano", 1)).await.unwrap();
    let mut bad = engine.join(spec("fail after 60", 1)).await.unwrap();
    let (samples, end) = read_to_end(&mut bad).await;
    assert!(samples > 0 && samples < 60 * 640);
    assert_eq!(end, VoiceEnd::Failed("the logits are not numbers".into()));
    assert!(matches!(bad.control().pause().await, Err(EngineError::Gone(_))));
    read(&mut good, LONG).await;
}

#[tokio::test]
async fn a_lost_device_ends_every_voice_and_refuses_new_ones() {
    let engine = engine();
    let mut good = engine.join(spec("piano", 1)).await.unwrap();
    read(&mut good, 1000).await;
    let _bad = engine.join(spec("lose the device", 1)).await.unwrap();
    assert!(matches!(read_to_end_of(&mut good).await, VoiceEnd::Failed(_)));
    assert!(engine.status().lost.is_some());
    assert!(matches!(engine.join(spec("piano", 1)).await, Err(EngineError::DeviceLost(_))));
}

async fn read_to_end_of(voice: &mut Voice) -> VoiceEnd {
    loop {
        match voice.read(Samples(u64::MAX)) {
            Read::Chunk(_) => {}
            Read::Pending => voice.ready().await,
            Read::End(end) => return end,
        }
    }
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_sentence() {
    let engine = engine();
    let mut too_hot = spec("piano", 1);
    too_hot.sampling.temperature = Some(9.0);
    for (bad, part) in [
        (VoiceSpec { prompts: Vec::new(), ..spec("", 1) }, "no prompt"),
        (too_hot, "temperature"),
        (spec(&"x".repeat(2000), 1), "2000 characters"),
        (spec("cannot be encoded", 1), "wording"),
        (VoiceSpec { model: Some(ModelId("none".into())), ..spec("", 1) }, "not loaded"),
    ] {
        let sentence = engine.join(bad).await.err().unwrap().to_string();
        assert!(sentence.contains(part), "{sentence}");
    }
    assert_eq!(engine.status().voices, 0);
}

#[tokio::test]
async fn dropping_a_voice_frees_its_place() {
    let engine = engine();
    let voice = engine.join(spec("piano", 1)).await.unwrap();
    until("the voice is there", || engine.status().voices == 1).await;
    drop(voice);
    until("the voice is gone", || engine.status().voices == 0).await;
}

#[tokio::test]
async fn a_voice_stays_its_lead_ahead_and_no_further() {
    let engine = engine();
    let voice = engine.join(spec("piano", 1)).await.unwrap();
    until("the lead is there", || voice.buffered() >= 2.0).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(voice.buffered() < 2.5, "{}", voice.buffered());
}

#[tokio::test]
async fn a_machine_too_slow_for_two_refuses_the_second_and_says_so() {
    let slow = Standin::default().with_step_time(Duration::from_millis(25));
    let engine = Engine::start(Box::new(slow), EngineConfig::default()).unwrap();
    let first = engine.join(spec("piano", 1)).await.unwrap();
    let refused = engine.join(spec("piano", 1)).await.err().unwrap();
    assert!(matches!(refused, EngineError::Full { voices: 1, load, .. } if load > 100.0), "{refused}");
    drop(first);
}

#[tokio::test]
async fn what_the_station_does_for_every_voice_counts_for_admission() {
    let backend = Standin::default().with_step_time(Duration::from_millis(4));
    let engine = Engine::start(Box::new(backend), EngineConfig::default()).unwrap();
    let _first = engine.join(spec("piano", 1)).await.unwrap();
    let _second = engine.join(spec("piano", 2)).await.unwrap();
    engine.set_upkeep(0.3);
    let refused = engine.join(spec("piano", 3)).await.err().unwrap();
    assert!(matches!(refused, EngineError::Full { voices: 2, load, .. } if load > 100.0), "{refused}");
    engine.set_upkeep(0.01);
    let third = engine.join(spec("piano", 3)).await.unwrap();
    third.control().pause().await.unwrap();
    engine.set_upkeep(0.3);
    let refused = third.control().resume().await.unwrap_err();
    assert!(matches!(refused, EngineError::Full { .. }), "a resume is admitted like a join: {refused}");
}

#[tokio::test]
async fn a_paused_voice_holds_nobodys_place() {
    let engine =
        Engine::start(Box::new(Standin::default()), EngineConfig { max_voices: 1, ..EngineConfig::default() }).unwrap();
    let first = engine.join(spec("piano", 1)).await.unwrap();
    first.control().pause().await.unwrap();
    let second = engine.join(spec("piano", 2)).await.unwrap();
    assert!(matches!(first.control().resume().await, Err(EngineError::TooMany { limit: 1, .. })));
    drop(second);
    until("the second has left", || engine.status().voices == 1).await;
    first.control().resume().await.unwrap();
}

#[tokio::test]
async fn the_speed_of_a_model_is_told_while_it_works() {
    let backend = Standin::default().with_step_time(Duration::from_millis(10));
    let engine = Engine::start(Box::new(backend), EngineConfig::default()).unwrap();
    let model = engine.models()[0].id.clone();
    assert!((0.5..2.5).contains(&engine.realtime_factor(&model).unwrap()), "what the first steps promise");
    let voice = engine.join(spec("piano", 1)).await.unwrap();
    assert!((0.5..2.5).contains(&voice.control().realtime_factor()), "the same is promised to a voice");
    until("the lead is there", || voice.buffered() >= 1.5).await;
    let told = engine.realtime_factor(&model).unwrap();
    assert!((0.5..2.0).contains(&told), "{told}");
    assert!(engine.realtime_factor(&ModelId("none".into())).is_none());
}

#[tokio::test]
async fn a_reader_may_want_more_ahead() {
    let engine = engine();
    let voice = engine.join(spec("piano", 1)).await.unwrap();
    until("the lead is there", || voice.buffered() >= 2.0).await;
    voice.keep_ahead(Duration::from_secs(24));
    until("the longer lead is there", || voice.buffered() >= 24.0).await;
    assert!(voice.buffered() < 24.5);
}

#[tokio::test]
async fn the_configured_number_of_voices_is_kept() {
    let engine =
        Engine::start(Box::new(Standin::default()), EngineConfig { max_voices: 2, ..EngineConfig::default() }).unwrap();
    let _two = (engine.join(spec("piano", 1)).await.unwrap(), engine.join(spec("piano", 1)).await.unwrap());
    assert!(matches!(engine.join(spec("piano", 1)).await, Err(EngineError::TooMany { limit: 2, .. })));
}

#[tokio::test]
async fn steering_is_heard_from_the_acknowledged_time_on_and_not_before() {
    let plain = read(&mut engine().join(spec("piano", 7)).await.unwrap(), LONG).await;
    let engine = engine();
    let mut voice = engine.join(spec("piano", 7)).await.unwrap();
    let mut pcm = read(&mut voice, 40_000).await;
    until("the lead is there", || voice.buffered() >= 2.0).await;
    let steer = Steer { prompts: Some(vec!["drums".into()]), ..Steer::default() };
    let ack = voice.control().steer(steer).await.unwrap();
    pcm.extend(read(&mut voice, 200_000).await);
    let at = (ack.at * 32_000.0) as usize;
    assert!((40_000..40_000 + 16_000).contains(&at), "the change comes {} s after the playhead", ack.at - 1.25);
    assert!(pcm[..at] == plain[..at]);
    assert!(pcm[at..at + 3200] != plain[at..at + 3200]);
    assert_eq!(ack.epoch, 1);
}

#[tokio::test]
async fn a_rewind_by_more_than_a_window_keeps_still_has_its_codes() {
    let engine = engine();
    let mut voice = engine.join(VoiceSpec { lead: Duration::from_secs(8), ..spec("piano", 3) }).await.unwrap();
    let control = voice.control();
    for _ in 0..4 {
        read(&mut voice, 3 * 32_000).await;
        until("the lead", || voice.buffered() > 7.9).await;
        // A pause gives the windows up; the new one begins four seconds before the newest frame,
        // eight ahead of us.
        control.pause().await.unwrap();
        control.resume().await.unwrap();
        read(&mut voice, 32_000 / 2).await;
        until("the lead", || voice.buffered() > 7.9).await;
        control.steer(Steer { prompts: Some(vec!["strings".into()]), ..Steer::default() }).await.unwrap();
    }
    read(&mut voice, LONG).await;
}

#[tokio::test]
async fn a_complete_clip_can_be_steered_while_it_is_heard() {
    let engine = engine();
    let clip = VoiceSpec { length: Some(Frames(500)), lead: Duration::from_secs(60), ..spec("piano", 7) };
    let plain = read(&mut engine.join(clip.clone()).await.unwrap(), 320_000).await;
    let mut voice = engine.join(clip).await.unwrap();
    until("all of it is there", || voice.buffered() >= 10.0).await;
    let mut pcm = read(&mut voice, 64_000).await;
    let steer = Steer { prompts: Some(vec!["drums".into()]), ..Steer::default() };
    let ack = voice.control().steer(steer.clone()).await.unwrap();
    until("it is complete again", || voice.buffered() >= 8.0).await;
    pcm.extend(read(&mut voice, 316_000 - 64_000).await);
    let at = (ack.at * 32_000.0) as usize;
    assert!(at < 80_000 && pcm[..at] == plain[..at] && pcm[at..] != plain[at..316_000]);
    // Too late: nothing of it can be changed any more, and it ends as it is.
    assert_eq!(voice.control().steer(steer).await.unwrap().at, 10.0);
    assert_eq!(read(&mut voice, 4000).await.len(), 4000);
    voice.ready().await;
    assert_eq!(voice.read(Samples(1)), Read::End(VoiceEnd::Finished));
}

#[tokio::test]
async fn a_reset_starts_anew_and_a_pause_goes_on() {
    let engine = engine();
    let mut voice = engine.join(spec("piano", 7)).await.unwrap();
    read(&mut voice, LONG).await;
    let control = voice.control();
    let ack = control.reset().await.unwrap();
    assert!(ack.at >= 30.0 && ack.at < 31.0);
    read(&mut voice, LONG).await;
    control.pause().await.unwrap();
    let buffered = (voice.buffered() * 32_000.0) as usize;
    read(&mut voice, buffered).await;
    assert_eq!(voice.read(Samples(1)), Read::Pending);
    control.resume().await.unwrap();
    read(&mut voice, LONG).await;
}

#[tokio::test]
async fn a_voice_moves_between_models() {
    let engine = engine();
    engine.add_model(Box::new(Standin::new("twin", 4))).await.unwrap();
    engine.add_model(Box::new(Standin::new("stereo", 4).stereo())).await.unwrap();
    let mut voice = engine.join(spec("piano", 7)).await.unwrap();
    read(&mut voice, LONG).await;
    voice.control().set_model(&ModelId("twin".into())).await.unwrap();
    read(&mut voice, LONG).await;
    let ack = voice.control().set_model(&ModelId("stereo".into())).await.unwrap();
    let channels = loop {
        match voice.read(Samples(1 << 20)) {
            Read::Chunk(chunk) if chunk.start.0 as f64 / 32_000.0 >= ack.at => break chunk.channels,
            Read::Pending => voice.ready().await,
            Read::End(end) => panic!("{end}"),
            Read::Chunk(_) => {}
        }
    };
    assert_eq!(channels, 2);
    engine.set_default_model(&ModelId("stereo".into())).unwrap();
    assert_eq!(engine.models()[0].id.0, "stereo");
}

fn tune(frames: usize) -> Vec<f32> {
    (0..frames * 640).map(|n| (n as f32 * (0.01 + (n / 640) as f32 * 1e-4)).sin() * 0.5).collect()
}

#[tokio::test]
async fn a_voice_continues_a_sound_and_plays_it_only_if_asked() {
    for (given, length) in [(2, 40), (150, 400), (150, 1500), (700, 1100)] {
        let engine = engine();
        let prefix = engine.encode(None, vec![tune(given)]).await.unwrap();
        assert_eq!(prefix.codes.len(), given * 4);
        let clip = VoiceSpec {
            length: Some(Frames(length)),
            priority: Priority::Spare,
            prefix: Some(Prefix { heard: true, ..prefix.clone() }),
            lead: Duration::from_secs(60),
            ..spec("piano", 7)
        };
        let mut voice = engine.join(clip.clone()).await.unwrap();
        let heard = read(&mut voice, length as usize * 640).await;
        assert_eq!(voice.steps(), length - given as u64 + 3);
        let unheard = VoiceSpec { prefix: Some(prefix), ..clip };
        let mut voice = engine.join(unheard.clone()).await.unwrap();
        let rest = read(&mut voice, (length as usize - given) * 640).await;
        assert!(rest == heard[given * 640..], "{given} of {length}");
        voice.ready().await;
        assert_eq!(voice.read(Samples(1)), Read::End(VoiceEnd::Finished));
        // A steer cannot change what was given, and what follows is new.
        let mut voice = engine
            .join(VoiceSpec { prefix: unheard.prefix.map(|p| Prefix { heard: true, ..p }), ..unheard })
            .await
            .unwrap();
        let steer = Steer { prompts: Some(vec!["drums".into()]), ..Steer::default() };
        voice.control().steer(steer).await.unwrap();
        let other = read(&mut voice, length as usize * 640).await;
        let frame = 640;
        assert!(other[..(given - 1) * frame] == heard[..(given - 1) * frame] && other != heard, "{given} of {length}");
    }
}

#[tokio::test]
async fn a_sound_of_another_model_or_longer_than_the_piece_is_refused() {
    let engine = engine();
    let prefix = engine.encode(None, vec![tune(50)]).await.unwrap();
    let foreign = Prefix { fingerprint: 99, ..prefix.clone() };
    for (prefix, word) in [(foreign, "not encoded for"), (prefix, "no longer than")] {
        let clip = VoiceSpec { length: Some(Frames(50)), prefix: Some(prefix), ..spec("piano", 1) };
        let error = engine.join(clip).await.err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(engine.encode(None, vec![Vec::new()]).await.is_err());
    assert!(engine.encode(Some(&ModelId("none".into())), vec![tune(1)]).await.is_err());
}

#[tokio::test]
async fn spare_voices_give_their_slots_to_live_ones_and_go_on_afterwards() {
    let engine = Engine::start(Box::new(Standin::new("small", 2)), EngineConfig::default()).unwrap();
    let spare = |seed| VoiceSpec { priority: Priority::Spare, ..spec("clip", seed) };
    let mut first = engine.join(spare(1)).await.unwrap();
    let mut second = engine.join(spare(2)).await.unwrap();
    assert!(engine.join(spare(3)).await.is_err(), "there is no slot for a third");
    let mut live = engine.join(spec("live", 3)).await.unwrap();
    read(&mut live, LONG).await;
    drop(live);
    read(&mut first, LONG).await;
    read(&mut second, LONG).await;
    drop((first, second));
    until("cancelled voices leave", || engine.status().voices == 0).await;
}

#[tokio::test]
async fn a_model_can_be_removed_but_not_the_default_one_nor_one_that_plays() {
    let engine = engine();
    engine.add_model(Box::new(Standin::new("twin", 4))).await.unwrap();
    let twin = ModelId("twin".into());
    let mut voice = engine.join(VoiceSpec { model: Some(twin.clone()), ..spec("piano", 7) }).await.unwrap();
    assert!(engine.remove_model(&twin).await.unwrap_err().to_string().contains("playing"));
    read(&mut voice, LONG).await;
    drop(voice);
    until("the voice leaves", || engine.status().voices == 0).await;
    engine.remove_model(&twin).await.unwrap();
    assert_eq!(engine.models().len(), 1);
    assert!(engine.remove_model(&twin).await.is_err());
    assert!(engine.remove_model(&ModelId("standin".into())).await.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// An empty steer is a rewind: what follows is what would have followed. The windows of the
    /// stand-in are crossed several times, and rewinds reach back over those places.
    #[test]
    fn rewinding_and_going_on_equals_never_having_gone_past(
        steps in proptest::collection::vec((1usize..60_000, any::<bool>()), 1..30),
    ) {
        wait(async {
            let mut voice = engine().join(spec("piano", 3)).await.unwrap();
            let mut pcm = Vec::new();
            for (samples, rewind) in steps {
                pcm.extend(read(&mut voice, samples).await);
                if rewind {
                    until("the lead is there", || voice.buffered() >= 2.0).await;
                    voice.control().steer(Steer::default()).await.unwrap();
                }
            }
            pcm.extend(read(&mut voice, 64_000).await);
            let plain = read(&mut engine().join(spec("piano", 3)).await.unwrap(), pcm.len()).await;
            assert!(pcm == plain);
        });
    }

    /// Whoever joins and leaves in whatever order, a voice keeps its tokens.
    #[test]
    fn every_interleaving_of_joins_and_leaves_keeps_the_others_tokens(
        events in proptest::collection::vec((0usize..6, 1usize..40_000), 1..40),
    ) {
        wait(async {
            let engine = engine();
            let mut voice = engine.join(spec("piano", 5)).await.unwrap();
            let mut others: Vec<Option<Voice>> = (0..6).map(|_| None).collect();
            let mut pcm = Vec::new();
            for (other, samples) in events {
                others[other] = match others[other].take() {
                    Some(_) => None,
                    None => Some(engine.join(spec("noise", other as u64)).await.unwrap()),
                };
                pcm.extend(read(&mut voice, samples).await);
            }
            let plain = read(&mut super::tests::engine().join(spec("piano", 5)).await.unwrap(), pcm.len()).await;
            assert!(pcm == plain);
        });
    }
}
