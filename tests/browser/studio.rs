//! The studio's page: sounds come in, are heard, cut, gone on from, compared, and go out, in one
//! window or two, with the mouse, with the keyboard, over a restart.

use std::path::Path;
use std::time::Duration;

use continuo::engine::RenderLoader;
use continuo::engine::standin::{Standin, Tones};
use continuo::pcm::Pcm;
use continuo::station::StationConfig;
use continuo::studio::{Presets, RenderModels};
use continuo::units::SampleRate;
use serde_json::{Value, json};

use super::client::{call, get};
use super::devtools::Browser;
use super::probe;
use super::server::{Server, start, start_again, start_on, start_rendering, until};
use super::{LEVEL, fits};

/// Bars of two seconds: a drum on every beat, a tone in between.
fn riff(seconds: u32) -> Vec<u8> {
    let rate = 44_100;
    let pcm = (0..seconds * rate).map(|n| {
        let time = f64::from(n) / f64::from(rate);
        let drum = (-(time % 0.5) * 30.0).exp() * (time * 377.0).sin();
        (0.7 * drum + 0.15 * (time * 1382.0).sin()) as f32
    });
    Pcm { pcm: pcm.collect(), channels: 1, rate: SampleRate(rate) }.wav()
}

/// A folder with a riff in it.
fn folder(seconds: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("riff.wav"), riff(seconds)).unwrap();
    folder
}

async fn page(server: &Server, query: &str, width: u32, height: u32) -> Browser {
    Browser::open(&format!("http://{}/studio{query}", server.addr), width, height).await
}

/// The page with a riff of so many seconds dropped on it.
async fn with_riff(server: &Server, seconds: u32) -> Browser {
    let mut browser = page(server, "", 1280, 900).await;
    let folder = folder(seconds);
    browser.drop_file("#display", &folder.path().join("riff.wav")).await;
    browser.until(&format!("document.getElementById('length').textContent === '/ 0:{seconds:02}.0'")).await;
    browser.until(PRESENT).await;
    browser
}

/// A clip is the present one, and its sound is loaded.
const PRESENT: &str =
    "document.querySelector('#nodes .present') !== null && !document.getElementById('spectrum').disabled";

async fn text(browser: &mut Browser, selector: &str) -> String {
    let found = format!("document.querySelector({selector:?}).textContent");
    browser.eval(&found).await.as_str().unwrap().to_owned()
}

async fn text_is(browser: &mut Browser, selector: &str, wanted: &str) {
    browser.until(&format!("document.querySelector({selector:?}).textContent === {wanted:?}")).await;
}

/// There are so many clips, all made, and the newest is the present one or is not.
async fn clips(browser: &mut Browser, count: usize) {
    browser.until(&format!("document.querySelectorAll('#nodes .completed').length === {count}")).await;
}

/// Moves a slider as its listener would find it.
async fn slide(browser: &mut Browser, selector: &str, value: f64) {
    browser
        .eval(&format!(
            "(() => {{ const range = document.querySelector({selector:?}); range.step = 'any'; range.value = {value};
             range.dispatchEvent(new Event('input', {{ bubbles: true }})); return 0; }})()"
        ))
        .await;
}

/// Asks for a short piece at the end of the present sound.
async fn go_on(browser: &mut Browser, seconds: f64) {
    slide(browser, "#continue [name=prompt_seconds]", 2.0).await;
    slide(browser, "#continue [name=more]", seconds).await;
    browser.click("#continue [type=submit]").await;
}

/// Sound is heard, and the play head moves.
async fn heard(browser: &mut Browser) {
    let time = "document.getElementById('time').textContent";
    let before = text(browser, "#time").await;
    browser.until(&format!("{time} !== {before:?}")).await;
    browser.until(&format!("{LEVEL} > 0.3")).await;
}

/// What axe-core finds serious.
async fn barriers(browser: &mut Browser) -> Value {
    let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/axe-core/axe.min.js");
    let axe = std::fs::read_to_string(axe).unwrap();
    let complaints = browser.complaints.len();
    browser.eval(&format!("(() => {{ {axe}\n; return 0; }})()")).await;
    let found = browser
        .eval(
            "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations
                .filter(({ impact }) => impact === 'serious' || impact === 'critical')
                .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(' | ')}`))",
        )
        .await;
    // It tries styles that the page's policy forbids.
    browser.complaints.truncate(complaints);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_is_dropped_heard_gone_on_from_cut_compared_and_saved() {
    let server = start().await;
    let mut browser = with_riff(&server, 8).await;
    browser.prefer("prefers-color-scheme", "dark").await;
    assert_eq!(browser.eval("document.getElementById('title').value").await, "riff");
    assert_eq!(browser.eval("document.getElementById('bpm').value").await, "120");
    assert!(text(&mut browser, "#facts").await.contains("LUFS"));

    browser.click("#play").await;
    heard(&mut browser).await;
    browser.press(" ", 32).await;

    // A piece at its end.
    browser.write("#continue textarea", "a slow bass").await;
    go_on(&mut browser, 4.0).await;
    clips(&mut browser, 2).await;
    text_is(&mut browser, "#length", "/ 0:12.0").await;
    text_is(&mut browser, "#nodes .present strong", "Continued · a slow bass").await;

    // Two places in the second and in the fourth bar: the selection keeps to bars.
    browser.until(PRESENT).await;
    browser.drag("#display", 2.3 / 12.0, 5.8 / 12.0).await;
    let edges = "[document.getElementById('from').value, document.getElementById('to').value]";
    assert_eq!(browser.eval(edges).await, json!(["2.00", "6.00"]));
    browser.picture("studio-selected-dark").await;
    browser.click("#crop").await;
    clips(&mut browser, 3).await;
    text_is(&mut browser, "#length", "/ 0:04.0").await;

    // Undo, and the same piece with other luck.
    browser.press("z", 90).await;
    text_is(&mut browser, "#length", "/ 0:12.0").await;
    browser.until(PRESENT).await;
    browser.press("r", 82).await;
    clips(&mut browser, 4).await;
    text_is(&mut browser, "#nodes .present strong", "Retried · a slow bass").await;
    browser.until(PRESENT).await;

    // One and the other at the same place.
    browser.drag("#display", 0.5, 0.5).await;
    text_is(&mut browser, "#time", "0:06.0").await;
    for title in ["Continued · a slow bass", "Retried · a slow bass"] {
        browser.press("b", 66).await;
        text_is(&mut browser, "#nodes .present strong", title).await;
        browser.until(PRESENT).await;
        assert_eq!(text(&mut browser, "#time").await, "0:06.0");
    }
    browser.click("#play").await;
    heard(&mut browser).await;
    browser.press("b", 66).await;
    text_is(&mut browser, "#nodes .present strong", "Continued · a slow bass").await;
    heard(&mut browser).await;
    browser.press(" ", 32).await;

    // A name, which the file has as well.
    browser.press("n", 78).await;
    browser.call("Input.insertText", json!({ "text": "Take one" })).await;
    browser.press("Enter", 13).await;
    text_is(&mut browser, "#nodes .present strong", "Take one").await;
    let saved = tempfile::tempdir().unwrap();
    let folder = json!({ "behavior": "allow", "downloadPath": saved.path() });
    browser.call("Page.setDownloadBehavior", folder).await;
    for format in ["flac", "wav"] {
        let file = saved.path().join(format!("take-one.{format}"));
        browser.click(&format!("#files a[download$={format}]")).await;
        // The browser takes the name with an empty file, which the whole one replaces.
        until(|| file.metadata().is_ok_and(|file| file.len() > 0)).await;
        let bytes = std::fs::read(&file).unwrap();
        let sound = probe::decode(bytes).await;
        assert!((sound.seconds - 12.0).abs() < 0.001 && sound.peak > 0.3, "{format}: {} s", sound.seconds);
    }

    browser.press("g", 71).await;
    assert_eq!(barriers(&mut browser).await, json!([]));
    browser.picture("studio-dark").await;
    browser.prefer("prefers-color-scheme", "light").await;
    assert_eq!(barriers(&mut browser).await, json!([]));
    browser.picture("studio-light").await;
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_is_survived_and_two_windows_stay_in_step() {
    let folder = tempfile::tempdir().unwrap();
    // So slow that it never comes to an end.
    let slow = Standin::default().with_step_time(Duration::from_secs(1));
    let mut server = start_again(folder.path(), slow, "127.0.0.1:0".parse().unwrap()).await;
    let addr = server.addr;
    let mut one = with_riff(&server, 4).await;
    let address = one.eval("location.search").await;
    let mut other = page(&server, address.as_str().unwrap(), 1280, 900).await;
    other.until(PRESENT).await;
    go_on(&mut one, 2.0).await;
    for window in [&mut one, &mut other] {
        window.until("document.querySelector('#nodes .give-up:not([hidden])') !== null").await;
    }
    // Named in one, it has the name in the other.
    one.write("#title", "Mine").await;
    one.press("Enter", 13).await;
    other.until("document.querySelector('#nodes .present strong').textContent === 'Mine'").await;

    server.stop();
    server.ended().await;
    server.app.studio().unwrap().stop().await;
    drop(server);
    one.until("document.getElementById('connection').textContent.includes('cannot be reached')").await;
    let server = start_again(folder.path(), Standin::default(), addr).await;
    for window in [&mut one, &mut other] {
        clips(window, 2).await;
        text_is(window, "#length", "/ 0:06.0").await;
        text_is(window, "#connection", "").await;
    }
    // What one goes back to, the other shows.
    one.until(PRESENT).await;
    one.press("z", 90).await;
    other.until("document.querySelector('#nodes .present strong').textContent === 'Mine'").await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_is_heard_while_it_is_made_and_given_up() {
    let slow = Standin::default().with_step_time(Duration::from_millis(60));
    let server = start_on(slow, StationConfig::default(), |_| {}).await;
    let mut browser = page(&server, "", 360, 740).await;
    fits(&mut browser).await;
    browser.picture("studio-phone-begin").await;
    // The keyboard alone: a new piece from words.
    browser.press("4", 52).await;
    browser.call("Input.insertText", json!({ "text": "slow strings" })).await;
    slide(&mut browser, "#generate [name=seconds]", 60.0).await;
    browser.eval("document.querySelector('#generate textarea').form.requestSubmit(), 0").await;
    browser.until("document.querySelector('#nodes .running .listen:not([hidden])') !== null").await;
    browser.click("#nodes .listen").await;
    heard(&mut browser).await;
    fits(&mut browser).await;
    assert_eq!(barriers(&mut browser).await, json!([]));
    browser.picture("studio-phone-listening").await;
    browser.click("#nodes .give-up").await;
    text_is(&mut browser, "#nodes small", "Given up").await;
    server.until_voices(0).await;
    browser.until("document.getElementById('begin').hidden === false").await;
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_microphone_hears_after_the_count_in_becomes_a_sound() {
    let server = start().await;
    let mut browser = page(&server, "", 1280, 900).await;
    browser.press("m", 77).await;
    browser.until("document.getElementById('recorder-go').disabled === false").await;
    browser.write("#count-bpm", "240").await;
    browser.click("#recorder-go").await;
    browser.until("document.getElementById('count').textContent === 'Recording'").await;
    browser.until("document.getElementById('recorder-time').textContent > '0:02.0'").await;
    browser.picture("studio-recording").await;
    browser.click("#recorder-go").await;
    browser.until(PRESENT).await;
    let name = browser.eval("document.getElementById('title').value").await;
    assert!(name.as_str().unwrap().starts_with("Recording "), "{name}");
    let file = browser.eval("document.querySelector('#files a').getAttribute('href')").await;
    let path = file.as_str().unwrap().split(&server.addr.to_string()).nth(1).unwrap().to_owned();
    let sound = probe::decode(get(server.addr, &path).await.body().await).await;
    assert_eq!(sound.codec, "pcm_s24le");
    assert!(sound.seconds > 1.9 && sound.peak > 0.1, "{} s, peak {}", sound.seconds, sound.peak);
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn transforms_and_loops_stand_in_the_same_history_and_a_stream_goes_on() {
    let models = RenderModels::new(
        Presets::default(),
        Some(RenderLoader::new(|| Ok(Tones::model(8000, 9)))),
        Some(RenderLoader::new(|| Ok(Tones::model(8000, 9)))),
    );
    let server = start_rendering(models).await;
    let mut browser = with_riff(&server, 4).await;
    browser.press("2", 50).await;
    browser.until("document.querySelectorAll('#presets li').length > 10").await;
    browser.write("#preset-search", "celtic").await;
    browser.until("document.querySelectorAll('#presets li:not([hidden])').length === 1").await;
    browser.click("#presets li:not([hidden]) button").await;
    browser.click("#transform [type=submit]").await;
    clips(&mut browser, 2).await;
    text_is(&mut browser, "#nodes .present strong", "Transformed · celtic").await;
    browser.click("#tab-loop").await;
    browser.write("#loop textarea", "warm pads").await;
    browser.click("#loop [type=submit]").await;
    clips(&mut browser, 3).await;
    text_is(&mut browser, "#nodes .present strong", "Loop · warm pads").await;
    text_is(&mut browser, "#length", "/ 0:08.0").await;
    browser.click("#stream").await;
    browser.until("document.getElementById('stream-link').hidden === false").await;
    assert_eq!(server.app.station.list().len(), 1);
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_just_heard_of_a_stream_becomes_a_sound() {
    let server = start().await;
    let body = r#"{"prompts": ["slow strings"], "name": "radio"}"#;
    let stream = call(server.addr, "POST", "/v1/streams", body).await.json().await;
    let address = format!("/v1/streams/{}/audio.wav", stream["id"].as_str().unwrap());
    let mut listener = get(server.addr, &address).await;
    // Two seconds and more have been heard.
    listener.some(500_000).await;
    let mut browser = page(&server, "", 1280, 900).await;
    browser.press("t", 84).await;
    browser.until("document.querySelector('#taker-list button') !== null").await;
    browser.picture("studio-take").await;
    browser.click("#taker-list button").await;
    browser.until(PRESENT).await;
    text_is(&mut browser, "#nodes .present strong", "radio").await;
    assert!(text(&mut browser, "#length").await.as_str() > "/ 0:01.0");
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_said_where_it_was_asked() {
    let server = start().await;
    let mut browser = page(&server, "", 1280, 900).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("letter.wav"), "no music").unwrap();
    browser.drop_file("#display", &folder.path().join("letter.wav")).await;
    browser.until("/cannot be read/.test(document.getElementById('alert').textContent)").await;
    // Models that are not there say how to get them.
    browser.click("#tab-loop").await;
    browser.write("#loop textarea", "warm pads").await;
    browser.click("#loop [type=submit]").await;
    browser.until("/--loop-model/.test(document.querySelector('#loop .alert').textContent)").await;
    browser.picture("studio-refused").await;
    // A session that is gone.
    let mut late = page(&server, "?session=nobody", 1280, 900).await;
    late.until("/nobody/.test(document.getElementById('alert').textContent)").await;
    assert_eq!(late.eval("location.search").await, "");
}
