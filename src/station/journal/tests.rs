//! What was heard can be heard again: a feed that plays the engine's stand-in beside the journal
//! that it writes.

#![allow(clippy::unwrap_used)]

use std::ops::Range;

use super::super::feed::Feed;
use super::*;
use crate::engine::standin::Standin;
use crate::engine::{
    Backend, Engine, EngineConfig, Sampling, SamplingPatch, Steer, Voice, VoiceControl, VoiceSpec, WeightedPrompt,
};
use crate::units::ModelId;

const SECOND: u64 = OPUS_RATE as u64;

/// A stream's feed, and all that was heard of it.
struct Heard {
    engine: Engine,
    journal: Arc<Journal>,
    feed: Feed<Voice>,
    control: VoiceControl,
    pcm: Vec<f32>,
}

impl Heard {
    async fn begin(journals: &Journals, backend: Standin) -> Self {
        Self::of(journals.begin("one", Origin::default(), 1), backend).await
    }

    async fn of(journal: Arc<Journal>, backend: Standin) -> Self {
        let engine = Engine::start(Box::new(backend), EngineConfig::default()).unwrap();
        let sampling = SamplingPatch { seed: Some(3), ..SamplingPatch::default() };
        let voice = engine.join(VoiceSpec { sampling, ..VoiceSpec::endless("a") }).await.unwrap();
        let control = voice.control();
        let feed = Feed::new(voice, Scribe::new(Arc::clone(&journal)), journal.channels(), None).unwrap();
        Self { engine, journal, feed, control, pcm: Vec::new() }
    }

    /// Takes sound until so many seconds were heard.
    async fn until(&mut self, seconds: f64) {
        while (self.pcm.len() as f64) < seconds * SECOND as f64 {
            match self.feed.next(false).ok().unwrap() {
                Some(block) => self.pcm.extend(block),
                None => self.feed.ready().await,
            }
        }
    }

    /// The silence of a pause.
    async fn pause(&mut self, blocks: usize) {
        for _ in 0..blocks {
            // With nothing to fade it would be silent at once.
            self.feed.ready().await;
            self.pcm.extend(self.feed.next(true).ok().unwrap().unwrap());
        }
    }

    async fn steer(&self, prompt: &str) -> f64 {
        let steer = Steer { prompts: Some(vec![prompt.into()]), ..Steer::default() };
        self.control.steer(steer).await.unwrap().at
    }

    async fn again(&self, span: Range<u64>) -> Vec<f32> {
        let mut replay = Replay::of(&self.journal, &self.engine, span.start, Some(span.end)).unwrap();
        let mut pcm = Vec::new();
        while let Some(block) = replay.next().await.unwrap() {
            pcm.extend(block);
            assert_eq!(replay.at(), span.start + (pcm.len() / replay.channels()) as u64);
        }
        pcm
    }
}

fn largest_difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn change(prompt: &str) -> Change {
    Change {
        cause: Cause::Steer,
        prompts: vec![WeightedPrompt::from(prompt)],
        sampling: Sampling { temperature: 1.0, top_k: 50, guidance: 3.0, seed: 7 },
        model: ModelId("m".into()),
        ramp: 0.0,
    }
}

#[tokio::test]
async fn what_was_heard_is_heard_again_to_the_sample_with_its_steers_resets_and_pauses() {
    let mut heard = Heard::begin(&Journals::default(), Standin::default()).await;
    heard.until(3.3).await;
    assert!(heard.steer("rain").await > 3.3);
    heard.until(5.1).await;
    heard.pause(70).await;
    heard.until(7.7).await;
    let at = heard.control.reset().await.unwrap().at;
    heard.until(9.0).await;
    // Twice in a row, the first of which nobody hears.
    heard.steer("wind").await;
    heard.steer("sun").await;
    heard.pause(3).await;
    heard.until(14.0).await;
    heard.feed.rests();
    let kept = heard.journal.kept();
    assert_eq!(kept, 0..heard.pcm.len() as u64);
    assert!(at > 5.0);
    let again = heard.again(kept).await;
    assert_eq!(largest_difference(&again, &heard.pcm), 0.0);
}

#[tokio::test]
async fn what_was_heard_in_a_room_is_heard_again_with_it_and_without() {
    let origin = Origin { room: true, ..Origin::default() };
    let mut heard = Heard::of(Journals::default().begin("one", origin, 2), Standin::default()).await;
    heard.until(9.0).await;
    heard.feed.rests();
    let width = |pcm: &[f32]| pcm.chunks_exact(2).map(|frame| (frame[0] - frame[1]).abs()).fold(0.0, f32::max);
    assert!(width(&heard.pcm) > 0.01, "{}", width(&heard.pcm));
    let kept = heard.journal.kept();
    assert_eq!(largest_difference(&heard.again(kept.clone()).await, &heard.pcm), 0.0);
    let mut dry = Replay::in_room(false, &heard.journal, &heard.engine, 0, Some(kept.end)).unwrap();
    while let Some(block) = dry.next().await.unwrap() {
        assert_eq!(width(&block), 0.0);
    }
}

#[tokio::test]
async fn a_part_from_behind_a_new_beginning_is_what_was_heard_there() {
    // The stand-in's codec forgets nothing: only what begins with a run of its own can be the same.
    let mut heard = Heard::begin(&Journals::default(), Standin::default().stereo()).await;
    heard.feed = {
        let voice = heard.engine.join(VoiceSpec::endless("b")).await.unwrap();
        heard.control = voice.control();
        heard.journal = Journals::default().begin("two", Origin::default(), 2);
        Feed::new(voice, Scribe::new(Arc::clone(&heard.journal)), 2, None).unwrap()
    };
    heard.until(8.0).await;
    let at = heard.control.reset().await.unwrap().at;
    heard.until(20.0).await;
    heard.feed.rests();
    let from = ((at + 0.05) * SECOND as f64) as u64;
    let again = heard.again(from..from + 3 * SECOND + 17).await;
    let then = &heard.pcm[2 * from as usize..][..2 * (3 * SECOND as usize + 17)];
    // The limiter may still have been letting go.
    assert!(largest_difference(&again, then) < 1e-4);
}

#[tokio::test]
async fn a_follower_waits_for_sound_that_is_still_to_come_and_ends_with_the_stream() {
    let mut heard = Heard::begin(&Journals::default(), Standin::default()).await;
    heard.until(3.0).await;
    let (journal, engine) = (Arc::clone(&heard.journal), heard.engine.clone());
    let follower = tokio::spawn(async move {
        let mut replay = Replay::of(&journal, &engine, 0, None).unwrap();
        let mut pcm = Vec::new();
        while let Some(block) = replay.next().await.unwrap() {
            pcm.extend(block);
        }
        pcm
    });
    heard.until(6.0).await;
    heard.feed.rests();
    heard.journal.end(None);
    assert_eq!(largest_difference(&follower.await.unwrap(), &heard.pcm), 0.0);
    let beyond = Replay::of(&heard.journal, &heard.engine, 0, Some(7 * SECOND)).err().unwrap().to_string();
    assert!(beyond.contains("from 0.00 to 6.0"), "{beyond}");
}

#[tokio::test]
async fn a_long_span_that_is_decoded_in_parts_is_what_was_heard_over_steers_and_resets() {
    let mut heard = Heard::begin(&Journals::default(), Standin::default().with_whole_waves()).await;
    heard.until(47.0).await;
    heard.steer("rain").await;
    heard.until(50.0).await;
    heard.control.reset().await.unwrap();
    heard.until(91.0).await;
    heard.feed.rests();
    let kept = heard.journal.kept();
    let again = heard.again(kept.clone()).await;
    assert_eq!(largest_difference(&again, &heard.pcm), 0.0);
    // From the middle the resampler and the limiter begin anew.
    let (from, to) = (7 * SECOND, 81 * SECOND + 5);
    let again = heard.again(from..to).await;
    assert!(largest_difference(&again, &heard.pcm[from as usize..to as usize]) < 1.0 / 32_768.0);
}

#[tokio::test]
async fn sound_of_a_model_that_is_gone_is_refused_with_a_sentence() {
    let mut heard = Heard::begin(&Journals::default(), Standin::default()).await;
    heard.until(2.5).await;
    heard.feed.rests();
    let other = Engine::start(Box::new(Standin::default().stereo()), EngineConfig::default()).unwrap();
    assert_ne!(Standin::default().stereo().info().codec_fingerprint, Standin::default().info().codec_fingerprint);
    let mut replay = Replay::of(&heard.journal, &other, 0, Some(SECOND)).unwrap();
    assert!(replay.next().await.err().unwrap().to_string().contains("not loaded any more"));
}

#[tokio::test]
async fn a_seed_has_the_same_codes_again_and_those_before_a_place_are_found() {
    let mut codes = Vec::new();
    for _ in 0..2 {
        let mut heard = Heard::begin(&Journals::default(), Standin::default()).await;
        heard.until(9.0).await;
        heard.feed.rests();
        let before = async |at: u64, most: usize| heard.journal.codes_before(at, |_| most).await.unwrap().codes;
        let (all, late) = (before(6 * SECOND, 300).await, before(7 * SECOND + 5, 250).await);
        assert_eq!((all.len(), late.len()), (4 * 300, 4 * 250));
        // The last 200 frames before six seconds, and the fifty behind them.
        assert_eq!(all[4 * 100..], late[..4 * 200]);
        assert!(heard.journal.codes_before(10 * SECOND, |_| 10).await.is_err());
        codes.push((all, late));
    }
    assert_eq!(codes[0], codes[1]);
}

/// A second of codes that nobody hears.
fn sound(end: u64) -> Record {
    let (codes, levels) = (vec![1; 200], vec![(0, 0)]);
    Record::Sound(record::Sound { end, run: 0, first: end / 960 - 50, codebooks: 4, card: 64, codes, levels })
}

#[test]
fn the_oldest_pieces_go_and_what_is_in_force_stays_known() {
    let folder = tempfile::tempdir().unwrap();
    let (name, files) = ("ab", || std::fs::read_dir(folder.path().join("ab")).unwrap().count());
    let journals = Journals::open(folder.path(), 0.5).unwrap();
    let journal = journals.begin(name, Origin { name: Some("Dusk".into()), ..Origin::default() }, 1);
    journal.changed(0, SystemTime::now(), change("first"));
    for second in 1..=3600 {
        journal.append(&sound(second * SECOND));
        if second == 120 {
            journal.changed(second * SECOND, SystemTime::now(), change("second"));
        }
    }
    let kept = journal.kept();
    assert_eq!(kept.end, 3600 * SECOND);
    let seconds = (kept.end - kept.start) / SECOND;
    assert!((1795..=2105).contains(&seconds), "{seconds} s are kept");
    assert_eq!(journal.title_at(kept.start).as_deref(), Some("second"));
    assert_eq!(journal.history().events.len(), 1);
    let bytes = journal.bytes();
    assert!((180 * seconds..230 * seconds).contains(&bytes), "{bytes}");
    // The thread that writes is behind for a moment.
    let begun = std::time::Instant::now();
    while files() != 7 && begun.elapsed().as_secs() < 60 {
        std::thread::yield_now();
    }
    assert_eq!(files(), 7);
}
