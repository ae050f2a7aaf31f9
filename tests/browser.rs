//! The page in a real browser on a real server: sound advances, changes arrive, nothing is left
//! behind.

#![allow(clippy::unwrap_used)]

#[path = "http/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "browser/devtools.rs"]
mod devtools;
#[path = "browser/pages.rs"]
mod pages;
#[path = "browser/playlists.rs"]
mod playlists;
#[path = "http/probe.rs"]
#[allow(dead_code)]
mod probe;
#[path = "http/server.rs"]
#[allow(dead_code)]
mod server;
#[path = "browser/studio.rs"]
mod studio;

use std::time::Duration;

use continuo::engine::standin::Standin;
use continuo::station::{Idle, StationConfig, StreamSpec};
use devtools::Browser;
use server::{Server, start, start_on, start_with, until};

const TIME: &str = "document.getElementById('audio').currentTime";
/// The level meter shows the analyser's level on a scale from -54 dBFS (0) to full scale (1).
const LEVEL: &str = "Number(/scaleX\\((.*)\\)/.exec(document.getElementById('level').style.transform)?.[1] ?? 0)";

async fn page(server: &Server, width: u32, height: u32) -> Browser {
    page_at(server, "", width, height).await
}

async fn page_at(server: &Server, query: &str, width: u32, height: u32) -> Browser {
    Browser::open(&format!("http://{}/{query}", server.addr), width, height).await
}

/// Sound is heard: time goes on and the analyser is above silence.
async fn plays(browser: &mut Browser) {
    browser.until(&format!("{TIME} > 0.2")).await;
    let before = browser.eval(TIME).await.as_f64().unwrap();
    browser.until(&format!("{TIME} > {before} + 1")).await;
    browser.until(&format!("{LEVEL} > 0.5")).await;
}

fn texts(server: &Server) -> Vec<String> {
    let streams = server.app.station.list();
    streams.first().map(|info| info.prompts.iter().map(|prompt| prompt.text.clone()).collect()).unwrap_or_default()
}

async fn fits(browser: &mut Browser) {
    let widths = browser.eval("[document.documentElement.scrollWidth, innerWidth]").await;
    assert!(widths[0].as_f64() <= widths[1].as_f64(), "the page is wider than its window: {widths}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_click_plays_and_changes_are_heard_while_it_plays() {
    let server = start().await;
    let mut browser = page(&server, 1280, 860).await;
    browser.prefer("prefers-color-scheme", "dark").await;
    browser.picture("stopped").await;
    assert_eq!(browser.eval("document.getElementById('play').ariaLabel").await, "Play");
    browser.click("#play").await;
    plays(&mut browser).await;
    assert_eq!(browser.eval("document.getElementById('play').ariaLabel").await, "Stop");
    assert_eq!((server.voices(), server.app.station.list().len()), (1, 1));

    browser.write("#mix textarea", "slow strings").await;
    browser.press("Enter", 13).await;
    until(|| texts(&server) == ["slow strings"]).await;
    browser.until("document.getElementById('now').textContent.includes('slow strings')").await;

    browser.click("#add").await;
    browser.write("#mix li:nth-child(2) textarea", "a choir").await;
    browser.press("Enter", 13).await;
    until(|| texts(&server) == ["slow strings", "a choir"]).await;
    let weight = || server.app.station.list()[0].prompts[1].weight;
    let before = weight();
    browser.eval("document.querySelector('#mix li:nth-child(2) input').focus()").await;
    for _ in 0..20 {
        browser.press("ArrowRight", 39).await;
    }
    until(|| weight() > before + 0.1).await;
    assert_eq!(browser.eval("document.querySelector('#mix li:nth-child(2) output').textContent").await, "41 %");

    browser.click("details.advanced summary").await;
    browser.eval("document.getElementById('temperature').focus()").await;
    browser.press("ArrowLeft", 37).await;
    until(|| server.app.station.list()[0].sampling.temperature < 1.0).await;
    plays(&mut browser).await;
    browser.picture("playing-dark").await;
    browser.prefer("prefers-color-scheme", "light").await;
    browser.picture("playing-light").await;

    browser.click("#play").await;
    server.until_voices(0).await;
    until(|| server.app.station.list().is_empty()).await;
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_space_bar_plays_and_stops() {
    let server = start().await;
    let mut browser = page(&server, 1280, 860).await;
    browser.press(" ", 32).await;
    plays(&mut browser).await;
    // In a prompt a space is a space.
    browser.write("#mix textarea", "slow").await;
    browser.press(" ", 32).await;
    assert_eq!(browser.eval("document.querySelector('#mix textarea').value").await, "slow ");
    browser.eval("document.activeElement.blur()").await;
    browser.press(" ", 32).await;
    server.until_voices(0).await;
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_is_wide_enough() {
    let server = start().await;
    let mut browser = page(&server, 360, 740).await;
    browser.until("document.querySelectorAll('#stations button').length >= 8").await;
    fits(&mut browser).await;
    browser.click("#play").await;
    plays(&mut browser).await;
    browser.picture("phone").await;
    for opened in ["#add", "details.advanced summary", "details.elsewhere summary"] {
        browser.click(opened).await;
        fits(&mut browser).await;
    }
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_a_file_that_players_know() {
    let server = start().await;
    let mut browser = page(&server, 1280, 860).await;
    browser
        .eval(
            "const make = URL.createObjectURL.bind(URL);
             URL.createObjectURL = (blob) => ((window.saved = blob), make(blob)); 0",
        )
        .await;
    browser.click("#play").await;
    plays(&mut browser).await;
    browser.click("#record").await;
    browser.until("document.getElementById('record').textContent === 'Stop recording'").await;
    until(|| server.app.station.list()[0].listeners == 2).await;
    plays(&mut browser).await;
    browser.click("#record").await;
    browser.until("window.saved instanceof Blob").await;
    let file = browser
        .eval(
            "new Promise((done) => {
                const reader = new FileReader();
                reader.onload = () => done(reader.result.split(',')[1]);
                reader.readAsDataURL(window.saved);
            })",
        )
        .await;
    let sound = probe::decode(devtools::base64(file.as_str().unwrap())).await;
    assert_eq!((sound.codec.as_str(), sound.rate), ("opus", 48_000));
    assert!(sound.seconds > 2.0 && sound.peak > 0.2, "{} s, peak {}", sound.seconds, sound.peak);
    until(|| server.app.station.list()[0].listeners == 1).await;
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_midi_knob_moves_the_slider_that_it_was_taught() {
    let server = start().await;
    let mut browser = page(&server, 1280, 860).await;
    browser.click("#play").await;
    plays(&mut browser).await;
    browser.click("details.advanced summary").await;
    browser
        .eval(
            "import('./midi.js').then(({ Midi }) => {
                window.midi = new Midi({ get: () => null, set: () => {} });
                midi.learning = true;
                document.getElementById('temperature').focus();
                midi.receive([0xb2, 21, 64]);
                midi.learning = false;
                document.activeElement.blur();
            })",
        )
        .await;
    browser.eval("midi.receive([0xb2, 21, 127]), midi.receive([0x92, 21, 0]), midi.receive([0xb2, 22, 0]), 0").await;
    assert_eq!(browser.eval("document.getElementById('temperature').value").await, "2");
    until(|| server.app.station.list()[0].sampling.temperature == 2.0).await;
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_station_is_heard_with_others_and_left_alone() {
    let server = start().await;
    let spec = StreamSpec {
        name: Some("dub".into()),
        model: None,
        prompts: vec!["dub".into()],
        sampling: Default::default(),
        seconds: None,
        max_still: None,
        wait: None,
        keep: false,
        idle: Idle::Pause,
    };
    let station = server.app.station.create(spec).await.unwrap();
    let mut browser = page(&server, 1280, 860).await;
    browser.until("document.querySelector('#stations button strong')?.textContent === 'Dub'").await;
    browser.click("#stations button").await;
    plays(&mut browser).await;
    assert_eq!(station.info().listeners, 1);
    // A change begins a stream of one's own: one, however often a slider moves.
    browser
        .eval("document.querySelector('details.advanced').open = true, document.getElementById('guidance').focus()")
        .await;
    for _ in 0..8 {
        browser.press("ArrowRight", 39).await;
    }
    until(|| station.info().listeners == 0).await;
    plays(&mut browser).await;
    let own = || server.app.station.list().pop().unwrap();
    until(|| own().sampling.guidance > 3.7).await;
    browser.write("#mix textarea", "dub, slower").await;
    browser.press("Enter", 13).await;
    until(|| own().prompts[0].text == "dub, slower").await;
    assert_eq!(server.app.station.list().len(), 2);
    assert_eq!((station.info().prompts[0].text.as_str(), station.info().sampling.guidance), ("dub", 3.0));
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_stream_is_replaced() {
    let server = start().await;
    let mut browser = page(&server, 1280, 860).await;
    browser.click("#play").await;
    plays(&mut browser).await;
    let lost = server.app.station.list()[0].id.clone();
    server.app.station.delete(&lost).await.unwrap();
    until(|| server.app.station.list().first().is_some_and(|info| info.id != lost)).await;
    plays(&mut browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_is_told_in_words_and_tried_again() {
    let full = StationConfig { max_streams: 0, ..StationConfig::default() };
    let server = start_with(full, |_| {}).await;
    let mut browser = page(&server, 1280, 860).await;
    browser.click("#play").await;
    browser.until("/already 0/.test(document.getElementById('alert').textContent)").await;
    browser.until("document.getElementById('status').textContent === 'Trying again soon.'").await;
    browser.until("/^\\d+ s$/.test(document.getElementById('countdown').textContent)").await;
    browser.click("#play").await;
    assert_eq!(browser.eval("document.getElementById('alert').hidden").await, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_why_nothing_is_heard_is_found_out() {
    let full = StationConfig { max_listeners: 0, ..StationConfig::default() };
    let server = start_with(full, |_| {}).await;
    let mut browser = page(&server, 1280, 860).await;
    browser.click("#play").await;
    browser.until("/already 0 listeners/.test(document.getElementById('alert').textContent)").await;
    browser.until("/^\\d+ s$/.test(document.getElementById('countdown').textContent)").await;
    browser.click("#play").await;
    until(|| server.app.station.list().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_below_real_time_says_so() {
    let slow = Standin::default().with_step_time(Duration::from_millis(30));
    let server = start_on(slow, StationConfig::default(), |_| {}).await;
    let mut browser = page(&server, 360, 740).await;
    browser.click("#play").await;
    browser
        .until("/makes music at 0\\.\\d\\d times real time/.test(document.getElementById('alert').textContent)")
        .await;
    fits(&mut browser).await;
    browser.picture("slow").await;
    browser.click("#play").await;
    server.until_voices(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_with_the_token_in_the_address_is_let_in() {
    let server = start_with(StationConfig::default(), |app| app.access.token = Some("open sesame".into())).await;
    let mut stranger = page(&server, 1280, 860).await;
    stranger.click("#play").await;
    stranger.until("document.getElementById('alert').textContent.includes('?token=')").await;
    drop(stranger);
    let mut guest = page_at(&server, "?token=open+sesame", 1280, 860).await;
    guest.click("#play").await;
    plays(&mut guest).await;
    assert_eq!(guest.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_link_plays_along_or_brings_the_mix() {
    let server = start().await;
    let mut host = page(&server, 1280, 860).await;
    host.click("#play").await;
    plays(&mut host).await;
    let id = server.app.station.list()[0].id.clone();
    let link = format!("?p=slow+strings&w=1.00&p=a+choir&w=0.50&stream={id}");
    let mut guest = page_at(&server, &link, 1280, 860).await;
    guest.click("#play").await;
    plays(&mut guest).await;
    assert_eq!((server.app.station.list().len(), server.app.station.list()[0].listeners), (1, 2));
    // The host stops; the guest hears on.
    host.click("#play").await;
    until(|| server.app.station.list()[0].listeners == 1).await;
    plays(&mut guest).await;
    drop(guest);
    // Long after, the link still brings the mix.
    server.app.station.delete(&id).await.unwrap();
    let mut late = page_at(&server, &link, 1280, 860).await;
    late.click("#play").await;
    plays(&mut late).await;
    assert_eq!(texts(&server), ["slow strings", "a choir"]);
}

/// True while the element plays the graph, false while it plays the stream's address itself.
const LIVE: &str = "document.getElementById('audio').srcObject !== null";

#[tokio::test(flavor = "multi_thread")]
async fn sound_comes_with_little_delay_where_the_browser_can_and_plainly_where_not() {
    let server = start().await;
    let mut browser = page(&server, 1280, 860).await;
    browser.click("#play").await;
    plays(&mut browser).await;
    assert_eq!(browser.eval(LIVE).await, true);
    drop(browser);

    let mut old = page(&server, 1280, 860).await;
    old.eval("delete window.AudioDecoder").await;
    old.click("#play").await;
    plays(&mut old).await;
    assert_eq!(old.eval(LIVE).await, false);
    assert_eq!(old.complaints, [""; 0]);
    drop(old);

    // A proxy that lets no WebSocket through.
    let mut walled = page(&server, 1280, 860).await;
    walled
        .eval(
            "window.Worker = class {
                postMessage() { setTimeout(() => this.onmessage({ data: 'over' })); }
                terminate() {}
            }; 0",
        )
        .await;
    walled.click("#play").await;
    walled.until(&format!("!({LIVE})")).await;
    plays(&mut walled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_can_be_chosen_while_it_plays() {
    let server = start().await;
    let engine = server.app.station.engine();
    engine.add_model(Box::new(Standin::new("twin", 4))).await.unwrap();
    let mut browser = page(&server, 1280, 860).await;
    browser.click("#play").await;
    plays(&mut browser).await;
    browser.click("details.advanced summary").await;
    browser.until("document.querySelectorAll('#model option').length === 2").await;
    browser.eval("const list = document.getElementById('model'); list.value = 'twin'; list.dispatchEvent(new Event('change'))").await;
    until(|| server.app.station.list()[0].model.0 == "twin").await;
    plays(&mut browser).await;
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn the_pages_store_grows_when_the_network_stumbles_and_shrinks_again() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let node = std::process::Command::new("node")
        .args([root.join("tests/browser/player.mjs"), root.join("web/live-player.js")])
        .output()
        .unwrap();
    assert!(node.status.success(), "{}", String::from_utf8_lossy(&node.stderr));
}
