//! Streams that go on when a server starts again. What a killed one leaves is what its folder holds
//! at some moment.

use std::fs;
use std::path::Path;

use super::*;
use crate::engine::Steer;

const SECOND: u64 = 48_000;

fn station_in(folder: &Path) -> Arc<Station> {
    let journals = Journals::open(folder, 1.0).unwrap();
    station_with(StationConfig { burst: 8.0, lead: 10.0, journals, ..StationConfig::default() })
}

/// Copies a folder of folders.
fn copied(from: &Path, to: &Path) {
    for stream in fs::read_dir(from).unwrap() {
        let stream = stream.unwrap();
        fs::create_dir_all(to.join(stream.file_name())).unwrap();
        for file in fs::read_dir(stream.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(stream.file_name()).join(file.file_name())).unwrap();
        }
    }
}

/// All bytes in the folders of streams.
fn bytes_in(folder: &Path) -> u64 {
    let folders = fs::read_dir(folder).unwrap().flat_map(|stream| fs::read_dir(stream.unwrap().path()).unwrap());
    folders.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

async fn until(mut condition: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed().as_secs() < 60, "the condition does not come true");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Takes sound of a listener in WAV until there are so many samples.
async fn samples(listener: &mut Listener, count: usize) -> Vec<i16> {
    let mut bytes = Vec::new();
    while bytes.len() < 44 + 2 * count {
        let piece = tokio::time::timeout(Duration::from_secs(60), listener.next()).await;
        bytes.extend(piece.expect("sound in time").expect("the stream goes on"));
    }
    bytes[44..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).take(count).collect()
}

async fn replayed(stream: &Stream, from: u64, to: u64) -> Vec<i16> {
    let mut replay = Replay::open(stream, from..to).unwrap();
    let mut pcm = Vec::new();
    while let Some(block) = replay.next().await.unwrap() {
        pcm.extend(block.iter().map(|sample| (sample * 32_768.0).round() as i16));
    }
    pcm
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_with_a_name_and_those_to_be_kept_go_on_where_a_killed_server_left_them() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let station = station_in(first.path());
    let named = station.create(StreamSpec { name: Some("dusk".into()), ..spec() }).await.unwrap();
    let kept = station.create(StreamSpec { keep: true, ..spec() }).await.unwrap();
    let forgotten = station.create(spec()).await.unwrap();
    let mut listeners = [&named, &kept, &forgotten].map(|stream| stream.listen(WAV).unwrap());
    for listener in &mut listeners {
        samples(listener, 8 * SECOND as usize).await;
    }
    let rain = Steer { prompts: Some(vec!["rain".into()]), ..Steer::default() };
    let at = named.steer(rain).await.unwrap().at;
    samples(&mut listeners[0], 3 * SECOND as usize).await;
    until(|| named.journal().kept().end as f64 > at * SECOND as f64).await;
    until(|| named.journal().title_at(u64::MAX / 2).as_deref() == Some("rain")).await;
    until(|| bytes_in(first.path()) > 1500).await;
    let written = named.journal().bytes();
    let file = first.path().join(named.id()).join("00000000.journal");
    until(|| fs::metadata(&file).unwrap().len() >= written).await;
    copied(first.path(), second.path());
    // The last record of this one was being written.
    let torn = second.path().join(kept.id()).join("00000000.journal");
    let length = fs::metadata(&torn).unwrap().len();
    fs::OpenOptions::new().append(true).open(&torn).unwrap().set_len(length - 3).unwrap();

    let again = station_in(second.path());
    again.resume().await;
    assert!(again.get(forgotten.id()).is_err(), "nobody expects it");
    let went_on = again.get(kept.id()).unwrap();
    assert_eq!(went_on.info().prompts, ["a sine".into()]);
    until(|| went_on.info().state == StreamState::Idle).await;
    let stream = again.named("dusk").unwrap();
    assert_eq!(stream.id(), named.id());
    assert_eq!(stream.info().prompts, ["rain".into()]);
    assert_eq!(stream.info().sampling, named.info().sampling);
    let end = stream.journal().kept().end;
    assert!(end > 6 * SECOND, "at most what was being gathered is lost: {end}");
    assert_eq!(stream.info().playhead, end as f64 / SECOND as f64);

    let mut listener = stream.listen(WAV).unwrap();
    let heard = samples(&mut listener, 6 * SECOND as usize).await;
    until(|| stream.journal().kept().end >= end + 4 * SECOND).await;
    assert!(replayed(&stream, end, end + 4 * SECOND).await == heard[..4 * SECOND as usize]);
    let across = replayed(&stream, 0, end + SECOND).await;
    assert_eq!(across.len() as u64, end + SECOND);
    assert!(across == [replayed(&named, 0, end).await, heard[..SECOND as usize].to_vec()].concat());
    // From behind the place, and across it.
    assert!(replayed(&stream, end + 100, end + SECOND).await == heard[100..SECOND as usize]);
    let half = SECOND / 2;
    let both = replayed(&stream, end - half, end + half).await;
    assert!(both.len() as u64 == SECOND && both[half as usize..] == heard[..half as usize]);
    let told = stream.journal().history();
    assert!(told.events.len() >= 4 && told.events.iter().all(|event| event.at <= told.to));

    again.delete(stream.id()).await.unwrap();
    until(|| !second.path().join(stream.id()).exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_whose_prompts_were_edited_meanwhile_goes_on_with_the_new_ones() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let entry = |prompt: &str| StreamSpec {
        name: Some("set".into()),
        prompts: vec![prompt.into()],
        idle: Idle::Wait,
        ..spec()
    };
    let station = station_in(first.path());
    let stream = station.create(entry("a")).await.unwrap();
    samples(&mut stream.join(WAV).await.unwrap(), 8 * SECOND as usize).await;
    until(|| stream.journal().kept().end >= 8 * SECOND).await;
    until(|| bytes_in(first.path()) >= stream.journal().bytes()).await;
    copied(first.path(), second.path());
    let again = station_in(second.path());
    let went_on = again.create(entry("b")).await.unwrap();
    assert_eq!((went_on.id(), went_on.info().prompts), (stream.id(), vec!["b".into()]));
    assert!(went_on.info().playhead >= 8.0);
    again.resume().await;
    assert_eq!(again.list().len(), 1);
}
