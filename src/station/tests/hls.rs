//! What players of HLS get.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::formats::assert_steady;
use super::*;
use crate::audio::hls::{PART, Rendition, SEGMENT};
use crate::engine::Steer;
use crate::station::hls::{Listing, Missing, Position};

/// Comes for a playlist, as players do.
async fn fetch(stream: &Stream, player: &str, rendition: Rendition) -> Listing {
    stream.follow(player, rendition).await.unwrap();
    stream.presentation().listing(rendition, None, false).await.unwrap()
}

async fn bytes(stream: &Stream, rendition: Rendition, position: Position) -> Result<Bytes, Missing> {
    stream.presentation().bytes(stream, rendition, position).await
}

async fn segment(stream: &Stream, rendition: Rendition, number: u64) -> Bytes {
    bytes(stream, rendition, Position { segment: number, part: None }).await.unwrap()
}

/// Every segment that a player gets until the stream ends, or for some seconds.
async fn play_on(stream: &Stream, rendition: Rendition, seconds: f64) -> BTreeMap<u64, Bytes> {
    let (until, mut got) = (Instant::now() + Duration::from_secs_f64(seconds), BTreeMap::new());
    loop {
        let listing = fetch(stream, "player", rendition).await;
        for made in listing.segments.iter().filter(|segment| segment.whole) {
            got.insert(made.number, segment(stream, rendition, made.number).await);
        }
        if listing.ended || Instant::now() >= until {
            return got;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Segments as one file. What stands before packed audio is for HLS alone.
fn joined(rendition: Rendition, channels: usize, segments: &BTreeMap<u64, Bytes>) -> Vec<u8> {
    let mut file = rendition.init(channels).unwrap_or_default().to_vec();
    for bytes in segments.values() {
        let tag = if bytes.starts_with(b"ID3") { 10 + 128 * usize::from(bytes[8]) + usize::from(bytes[9]) } else { 0 };
        file.extend_from_slice(&bytes[tag..]);
    }
    file
}

#[tokio::test(start_paused = true)]
async fn segments_are_the_whole_sound_and_end_with_it() {
    let station = station();
    for (rendition, channels) in Rendition::built().flat_map(|rendition| [(rendition, 1), (rendition, 2)]) {
        let tone = Tone { channels, ..Tone::new() };
        let stream = play(&station, tone, StreamSpec { seconds: Some(20.5), ..spec() });
        let got = play_on(&stream, rendition, 100.0).await;
        assert_eq!(got.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
        let pcm = decode(&joined(rendition, channels, &got));
        let longer = pcm.len() as i64 - 20 * 48_000 - 24_000;
        assert!((0..2 * 1152).contains(&longer), "{rendition:?}: {longer} samples too long");
        assert_steady(&pcm[4800..20 * 48_000], rendition.name());
        let listing = fetch(&stream, "late", rendition).await;
        assert!(listing.ended && listing.segments.iter().all(|segment| segment.whole));
        assert_eq!(listing.segments.last().unwrap().frames, 120_000);
        let next = Position { segment: 7, part: None };
        assert!(matches!(bytes(&stream, rendition, next).await, Err(Missing::Never)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_segment_is_the_same_bytes_whenever_somebody_began_to_follow() {
    let station = station();
    for rendition in Rendition::built() {
        let (early, late) = (play(&station, Tone::new(), spec()), play(&station, Tone::new(), spec()));
        let listeners = [early.listen(OGG).unwrap(), late.listen(OGG).unwrap()]
            .map(|mut listener| tokio::spawn(async move { hear(&mut listener, 100.0).await }));
        let early = tokio::spawn({
            let early = early.clone();
            async move { play_on(&early, rendition, 35.0).await }
        });
        tokio::time::sleep(Duration::from_millis(17_300)).await;
        let late = play_on(&late, rendition, 15.0).await;
        let early = early.await.unwrap();
        assert!(late.len() >= 4 && *late.keys().next().unwrap() > 3, "{:?}", late.keys());
        assert!(late.iter().all(|(number, bytes)| early[number] == bytes), "{rendition:?} differs");
        listeners.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_only_hls_players_hear_goes_on_until_they_have_left() {
    let station = station();
    let metrics = Metrics::record();
    let stream = play(&station, Tone::new(), spec());
    for _ in 0..40 {
        fetch(&stream, "one", Rendition::Opus).await;
        fetch(&stream, "another", Rendition::Opus).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    assert_eq!((stream.info().state, stream.info().listeners), (StreamState::Playing, 2));
    assert_eq!((metrics.value("continuo_listeners"), stream.info().underruns), (2.0, 0));
    tokio::time::sleep(Duration::from_secs(5)).await;
    fetch(&stream, "another", Rendition::Opus).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((stream.info().listeners, metrics.value("continuo_listeners")), (1, 1.0));
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!((stream.info().state, stream.info().listeners), (StreamState::Idle, 0));
    // Nothing is kept for nobody.
    let gone = bytes(&stream, Rendition::Opus, Position { segment: 30, part: None }).await;
    assert!(matches!(gone, Err(Missing::Never)));
    let before = stream.info().playhead;
    let listing = fetch(&stream, "back", Rendition::Opus).await;
    assert!(listing.segments[0].number as f64 * 3.0 >= before - 3.0, "it goes on where it was");
}

#[tokio::test(start_paused = true)]
async fn what_is_about_to_be_made_is_waited_for() {
    let station = station();
    let stream = play(&station, Tone::new(), spec());
    let mut last = fetch(&stream, "a", Rendition::Opus).await.segments.pop().unwrap();
    for _ in 0..20 {
        let next = if last.whole { (last.number + 1, 0) } else { (last.number, last.parts) };
        let position = Position { segment: next.0, part: Some(next.1) };
        let hint = bytes(&stream, Rendition::Opus, position);
        stream.follow("a", Rendition::Opus).await.unwrap();
        let asked = Instant::now();
        let listing = stream.presentation().listing(Rendition::Opus, Some(position), false).await.unwrap();
        assert!(asked.elapsed() < Duration::from_millis(900), "a part lasts 0.6 s");
        last = *listing.segments.last().unwrap();
        assert_eq!(last.number * SEGMENT + last.frames, next.0 * SEGMENT + (next.1 + 1) * PART);
        assert!(hint.await.unwrap().windows(4).any(|word| word == b"moof"));
    }
    let far = Position { segment: last.number + 3, part: None };
    let listing = stream.presentation().listing(Rendition::Opus, Some(far), false).await;
    assert!(matches!(listing, Err(Missing::Never)));
    assert!(matches!(bytes(&stream, Rendition::Opus, far).await, Err(Missing::Never)));
}

#[tokio::test(start_paused = true)]
async fn a_title_is_told_where_it_begins() {
    let station = station();
    let stream = play(&station, Tone::new(), spec());
    let player = tokio::spawn({
        let stream = stream.clone();
        async move { play_on(&stream, Rendition::Opus, 20.0).await }
    });
    tokio::time::sleep(Duration::from_secs(7)).await;
    let steer = Steer { prompts: Some(vec!["deep water".into()]), ..Steer::default() };
    let ack = stream.steer(steer).await.unwrap();
    let got = player.await.unwrap();
    let listing = fetch(&stream, "player", Rendition::Opus).await;
    let titles: Vec<_> = listing.titles.iter().map(|(_, title)| (title.at, title.text.as_str())).collect();
    let at = (ack.at * 48_000.0).round() as u64;
    assert_eq!(titles, [(0, "a sine"), (at, "deep water")]);
    let (first, second) = (listing.titles[0].0, listing.titles[1].0);
    let apart = second.duration_since(first).unwrap().as_secs_f64();
    assert!((apart - ack.at).abs() < 0.001, "dates are media time: {apart} s and {} s", ack.at);
    let tells = |number: u64, words: &[u8]| got[&number].windows(words.len()).any(|piece| piece == words);
    let segment = at / SEGMENT;
    assert!(tells(segment - 1, b"a sine") && !tells(segment - 1, b"deep water"));
    assert!(tells(segment, b"a sine") && tells(segment, b"deep water"));
    assert!(tells(segment + 1, b"deep water") && !tells(segment + 1, b"a sine"));
}

#[tokio::test(start_paused = true)]
async fn players_take_places_of_listeners_and_the_stream_ends_for_them() {
    let station = station_with(StationConfig { max_listeners: 1, ..StationConfig::default() });
    let stream = play(&station, Tone::new(), spec());
    fetch(&stream, "one", Rendition::Opus).await;
    let refused = stream.follow("another", Rendition::Opus).await;
    assert!(matches!(refused, Err(StationError::Limit { what: "listeners", .. })));
    tokio::time::sleep(Duration::from_secs(4)).await;
    fetch(&stream, "one", Rendition::Opus).await;
    let ending = stream.presentation().listing(Rendition::Opus, Some(Position { segment: 3, part: None }), false);
    station.delete(stream.id()).await.unwrap();
    let listing = ending.await.unwrap();
    assert!(listing.ended && listing.segments.last().unwrap().frames < SEGMENT);
    assert!(station.get(stream.id()).is_err() && station.presented(stream.id()).is_ok());
    let next = play(&station, Tone::new(), spec());
    fetch(&next, "another", Rendition::Opus).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(station.presented(stream.id()).is_err());
}
