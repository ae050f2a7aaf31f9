//! hls.js in a real browser on a real server: it plays without a hole, close to what is made now,
//! and knows the titles.

#![allow(clippy::unwrap_used)]

#[path = "http/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "browser/devtools.rs"]
#[allow(dead_code)]
mod devtools;
#[path = "http/server.rs"]
#[allow(dead_code)]
mod server;

use std::path::Path;
use std::time::{Duration, Instant};

use client::{PATIENCE, call, get};
use continuo::station::{Journals, StationConfig};
use devtools::Browser;
use serde_json::{Value, json};
use server::{Server, start, start_with, until};

/// Seconds that a station has behind it when a player seeks, and frames in each.
const PAST: f64 = 320.0;
const SECOND: f64 = 48_000.0;

/// A player for an address, and what it tells. It plays once its button is pressed.
const PLAYER: &str = r"
    window.audio = document.body.appendChild(document.createElement('audio'));
    const button = document.body.appendChild(document.createElement('button'));
    button.id = 'hear';
    button.onclick = () => audio.play();
    window.fatal = [];
    window.tags = [];
    // What a busy machine made it lose it may catch up with.
    const live = { lowLatencyMode: true, maxLiveSyncPlaybackRate: 1.5, liveSyncOnStallIncrease: 0 };
    window.hls = new Hls({ ...live, enableWorker: false, autoStartLoad: false });
    hls.on(Hls.Events.ERROR, (_, data) => data.fatal && fatal.push(data.details));
    hls.on(Hls.Events.FRAG_PARSING_METADATA, (_, data) => tags.push(...data.samples));
    hls.loadSource(ADDRESS);
    hls.attachMedia(audio);
    hls.once(Hls.Events.MANIFEST_PARSED, (_, data) => {
        window.chosen = data.levels[hls.firstAutoLevel].uri;
        hls.loadLevel = data.levels.findIndex((level) => level.uri.includes(RENDITION));
        hls.startLoad();
    });
    // The title that an ID3 tag has.
    window.titled = (tag) => new TextDecoder().decode(tag.data).split('TIT2')[1]?.slice(7);
    // When what plays at a moment was made, in milliseconds.
    window.made = (moment) => {
        const fragment = hls.latestLevelDetails.fragments.findLast((fragment) => fragment.start <= moment);
        return fragment.programDateTime + 1000 * (moment - fragment.start);
    };
    // The media time of a moment, and the moment of a media time: segments are numbered by it.
    window.media = (moment) => {
        const fragment = hls.latestLevelDetails.fragments.findLast((fragment) => fragment.start <= moment);
        return 3 * fragment.sn + moment - fragment.start;
    };
    window.moment = (media) => {
        const fragment = hls.latestLevelDetails.fragments.find((fragment) => 3 * fragment.sn + 3 > media);
        return fragment.start + media - 3 * fragment.sn;
    };
    0";

async fn player(server: &Server, address: &str, rendition: &str) -> Browser {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/producers/node_modules/hls.js/dist/hls.min.js");
    let library = std::fs::read_to_string(library).expect("hls.js is installed; `scripts/setup test` does it");
    let mut browser = Browser::open(&format!("http://{}/", server.addr), 800, 600).await;
    browser.eval(&format!("{library}; 0")).await;
    let rendition = format!("'/{rendition}/'");
    browser.eval(&PLAYER.replace("ADDRESS", &format!("'{address}'")).replace("RENDITION", &rendition)).await;
    browser.click("#hear").await;
    browser
}

#[tokio::test(flavor = "multi_thread")]
async fn hls_js_plays_close_to_now_and_shows_titles_where_they_begin() {
    let server = start().await;
    for rendition in ["opus", "mp3"] {
        let view = call(server.addr, "POST", "/v1/streams", r#"{"prompts": ["still water"]}"#).await.json().await;
        let place = format!("/v1/streams/{}", view["id"].as_str().unwrap());
        let mut browser = player(&server, view["urls"]["hls"].as_str().unwrap(), rendition).await;
        browser.until("audio.currentTime > 0 && !audio.paused").await;
        let began = browser.eval("audio.currentTime").await.as_f64().unwrap();
        browser.until(&format!("audio.currentTime > {began} + 6")).await;
        let playing = browser.eval("hls.levels[hls.currentLevel].uri").await;
        assert!(playing.as_str().unwrap().contains(&format!("/{rendition}/")), "{playing}");
        let chosen = browser.eval("chosen").await;
        assert!(chosen.as_str().unwrap().contains("/opus/"), "it would choose {chosen}");
        let near = if rendition == "opus" {
            assert_eq!(browser.eval("hls.latestLevelDetails.partTarget").await, 0.6);
            3
        } else {
            12
        };
        browser.until(&format!("hls.latency > 0 && hls.latency < {near}")).await;
        // One piece without a hole, however it was fetched.
        browser.until("audio.buffered.length === 1").await;

        let steer = r#"{"prompts": ["deep rain"]}"#;
        let ack: Value = call(server.addr, "PATCH", &place, steer).await.json().await;
        browser.until("tags.some((tag) => titled(tag) === 'deep rain')").await;
        browser
            .until("Object.values(hls.latestLevelDetails.dateRanges).some((range) => range.attr['X-TITLE'] === 'deep rain')")
            .await;
        assert_eq!(browser.eval("titled(tags.find(titled))").await, "still water");
        // The tag lies where the playlist says that the title begins; packed audio has one at the
        // next segment.
        let late = browser
            .eval(
                "(() => {
                    const ranges = Object.values(hls.latestLevelDetails.dateRanges);
                    const range = ranges.find((range) => range.attr['X-TITLE'] === 'deep rain');
                    const tag = tags.find((tag) => titled(tag) === 'deep rain');
                    return (made(tag.pts) - range.startDate.getTime()) / 1000;
                })()",
            )
            .await
            .as_f64()
            .unwrap();
        let most = if rendition == "opus" { 0.05 } else { 3.05 };
        assert!((-0.05..most).contains(&late), "{rendition}: the tag comes {late} s after the title, {ack}");
        assert_eq!(browser.eval("fatal").await, serde_json::json!([]));
        assert_eq!(browser.eval("audio.error").await, Value::Null);
    }
}

/// A station that begins at once, with a past that a server before this one has left: who heard
/// that was kept more than five minutes ahead. The end of that past, in frames.
async fn with_a_past(folder: &Path) -> (Server, u64) {
    let in_folder = |burst: f64| {
        let journals = Journals::open(folder, 1.0).unwrap();
        StationConfig { burst, journals, ..StationConfig::default() }
    };
    let created = |prompt: &str| json!({"name": "tides", "prompts": [prompt]}).to_string();
    let mut before = start_with(in_folder(PAST), |_| {}).await;
    let view = call(before.addr, "POST", "/v1/streams", &created("still water")).await.json().await;
    let stream = before.app.station.named("tides").unwrap();
    let mut listener = get(before.addr, view["urls"]["wav"].as_str().unwrap()).await;
    tokio::spawn(async move { while listener.piece().await.is_some() {} });
    let began = Instant::now();
    while (stream.journal().kept().end as f64) < (PAST - 2.0) * SECOND {
        assert!(began.elapsed() < 4 * PATIENCE, "{} frames are made", stream.journal().kept().end);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    before.stop();
    before.ended().await;
    let journal = stream.journal();
    let pieces = || std::fs::read_dir(folder.join(stream.id())).into_iter().flatten();
    until(|| pieces().map(|piece| piece.unwrap().metadata().unwrap().len()).sum::<u64>() >= journal.bytes()).await;

    let server = start_with(in_folder(2.0), |_| {}).await;
    call(server.addr, "POST", "/v1/streams", &created("deep rain")).await.json().await;
    let end = server.app.station.named("tides").unwrap().journal().kept().end;
    assert_eq!(end, journal.kept().end);
    (server, end)
}

#[tokio::test(flavor = "multi_thread")]
async fn hls_js_goes_back_five_minutes_and_plays_on_there_with_the_titles_of_that_time() {
    let folder = tempfile::tempdir().unwrap();
    let (server, seam) = with_a_past(folder.path()).await;
    let at = seam as f64 / SECOND;
    for rendition in ["opus", "mp3"] {
        let mut browser = player(&server, "/hls/tides/master.m3u8", rendition).await;
        browser.until("audio.currentTime > 0 && !audio.paused").await;
        browser.eval("window.back = audio.currentTime - 300, audio.currentTime = back, 0").await;
        browser.until("audio.currentTime > back + 2 && !audio.paused && !audio.seeking").await;
        let behind = browser.eval("hls.latestLevelDetails.edge - audio.currentTime").await.as_f64().unwrap();
        assert!(behind > 290.0, "it plays {behind} s before the end");
        browser.until("tags.some((tag) => Math.abs(tag.pts - back) < 6 && titled(tag) === 'still water')").await;

        // On to where the other title begins.
        browser.eval(&format!("window.seam = moment({at}), audio.currentTime = seam - 1, 0")).await;
        browser.until("audio.currentTime > seam + 1 && !audio.seeking").await;
        browser.until("tags.some((tag) => Math.abs(tag.pts - seam) < 3.1 && titled(tag) === 'deep rain')").await;
        let tags = "tags.filter((tag) => titled(tag) === 'deep rain').map((tag) => media(tag.pts))";
        let first = browser.eval(&format!("Math.min(...{tags})")).await.as_f64().unwrap();
        // Packed audio has one at the next segment.
        let most = if rendition == "opus" { 0.05 } else { 3.05 };
        assert!((-0.05..most).contains(&(first - at)), "{rendition}: the tag lies at {first}, the title at {at}");
        let ranges = browser
            .eval("Object.values(hls.latestLevelDetails.dateRanges).map((range) => [range.attr.ID, range.attr['X-TITLE']])")
            .await;
        assert_eq!(ranges, json!([["title-0", "still water"], [format!("title-{seam}"), "deep rain"]]));
        assert_eq!(browser.eval("fatal").await, json!([]));
        assert_eq!(browser.eval("audio.error").await, Value::Null);
    }
}
