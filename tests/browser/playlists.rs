//! The page in a browser that plays playlists by itself, as phones do. hls.js stands in for what
//! those have built in.

use std::path::Path;

use super::devtools::Browser;
use super::server::{Server, start, until};
use super::{TIME, page, texts};

/// A browser whose elements play playlists, and know nothing of Ogg. `element` is the one that does
/// it.
const PHONE: &str = r"
    delete window.AudioDecoder;
    const { prototype } = HTMLMediaElement;
    prototype.canPlayType = (type) => (type.includes('ogg') ? '' : 'maybe');
    const src = Object.getOwnPropertyDescriptor(prototype, 'src');
    const { load } = prototype;
    Object.defineProperty(prototype, 'src', {
        ...src,
        set(value) {
            if (!value.includes('.m3u8')) return void src.set.call(this, window.changed?.(value) || value);
            window.element = this;
            window.player = new Hls({ enableWorker: false, maxLiveSyncPlaybackRate: 1.5 });
            player.loadSource(value);
            player.attachMedia(this);
        },
    });
    prototype.load = function () {
        if (this === window.element) window.player.destroy();
        load.call(this);
    };
    window.title = () => navigator.mediaSession.metadata?.title;
    0";

async fn phone(server: &Server, more: &str) -> Browser {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/producers/node_modules/hls.js/dist/hls.min.js");
    let library = std::fs::read_to_string(library).expect("hls.js is installed; `scripts/setup test` does it");
    let mut browser = page(server, 390, 800).await;
    browser.eval(&format!("{library}; 0")).await;
    browser.eval(PHONE).await;
    browser.eval(more).await;
    browser
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_plays_playlists_with_volume_titles_and_the_past() {
    let server = start().await;
    // Phones have no MediaSource; hls.js finds it under an older name.
    let hide = "window.WebKitMediaSource = MediaSource, delete window.MediaSource, 0";
    let mut browser = phone(&server, hide).await;
    browser.click("#play").await;
    browser.until(&format!("{TIME} > 1 && element === document.getElementById('audio')")).await;
    until(|| server.app.station.list()[0].listeners == 1).await;
    let hidden = "[document.getElementById('meter').hidden, document.getElementById('volume').offsetParent === null]";
    assert_eq!(browser.eval(hidden).await, serde_json::json!([true, false]));
    browser.eval("volume.value = 50, volume.dispatchEvent(new Event('input')), 0").await;
    assert_eq!(browser.eval("element.volume").await, 0.25);

    browser.write("#mix textarea", "slow strings").await;
    browser.press("Enter", 13).await;
    until(|| texts(&server) == ["slow strings"]).await;
    let heard = "[...element.textTracks].some((track) => [...(track.activeCues ?? [])].some(
        ({ value }) => value?.key === 'TIT2' && value.data === 'slow strings'))";
    browser.until(heard).await;
    browser.until("title() === 'slow strings'").await;

    browser.until("time.max - time.min > 10").await;
    browser
        .eval(
            "time.value = time.max - 9, ['input', 'change'].forEach((name) => time.dispatchEvent(new Event(name))), 0",
        )
        .await;
    browser.until("document.getElementById('time-now').textContent.endsWith('ago')").await;
    let behind = "element.seekable.length && element.seekable.end(0) - element.currentTime";
    browser.until(&format!("{behind} > 6 && !element.paused && !element.seeking")).await;
    let before = browser.eval("element.currentTime").await.as_f64().unwrap();
    browser.until(&format!("element.currentTime > {before} + 1")).await;

    browser.click("#play").await;
    browser.until("document.getElementById('play').ariaLabel === 'Play' && element.paused").await;
    // hls.js empties elements with a track that the page's policy does not load.
    let ours: Vec<_> = browser.complaints.iter().filter(|text| !text.contains("data:,WEBVTT")).collect();
    assert_eq!(ours, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn playlists_are_played_where_sound_without_an_end_fails_and_a_fixed_volume_has_no_slider() {
    let server = start().await;
    let fails = "window.changed = (address) => address.includes('/audio.') && 'data:audio/mpeg,nothing';
        Object.defineProperty(HTMLMediaElement.prototype, 'volume', { get: () => 1, set() {} }); 0";
    let mut browser = phone(&server, fails).await;
    browser.click("#play").await;
    browser.until("window.element?.currentTime > 1 && !element.paused").await;
    let state =
        "[element === document.getElementById('audio'), document.getElementById('volume').offsetParent === null,
        document.getElementById('play').ariaLabel]";
    assert_eq!(browser.eval(state).await, serde_json::json!([false, true, "Stop"]));
}
