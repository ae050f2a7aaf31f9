//! hls.js in a real browser on a real server: it plays without a hole, close to what is made now, and knows the titles.

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

use client::call;
use devtools::Browser;
use serde_json::Value;
use server::{Server, start};

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
        // The tag lies where the playlist says that the title begins; packed audio has one at the next segment.
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
