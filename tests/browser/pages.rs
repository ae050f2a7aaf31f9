//! The player's time line, the operators' page and the API's.

use continuo::station::{Idle, StreamSpec};

use super::devtools::Browser;
use super::server::{start, until};
use super::{fits, page, plays};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_played_is_heard_again_kept_and_gone_on_from() {
    let server = start().await;
    let mut browser = page(&server, 1280, 900).await;
    browser.click("#play").await;
    plays(&mut browser).await;
    let text = "document.getElementById('time-now').textContent";
    browser.until("!document.getElementById('timeline').hidden && time.max - time.min > 5").await;
    assert_eq!(browser.eval(text).await, "Live");
    let first = server.app.station.list()[0].id.clone();

    browser
        .eval("time.value = time.min, ['input', 'change'].forEach((name) => time.dispatchEvent(new Event(name))), 0")
        .await;
    browser.until(&format!("{text}.endsWith('ago')")).await;
    plays(&mut browser).await;
    browser.picture("past").await;
    let kept = browser
        .eval(&format!("fetch('v1/streams/{first}/recording?from=-3&to=-1').then((answer) => answer.arrayBuffer()).then((sound) => sound.byteLength)"))
        .await;
    assert!(kept.as_u64().unwrap() > 2 * 2 * 48_000, "{kept} bytes");

    browser.click("#to-live").await;
    browser.until(&format!("{text} === 'Live'")).await;
    plays(&mut browser).await;
    browser.click("#fork").await;
    until(|| server.app.station.list().iter().any(|info| info.id != first && info.listeners > 0)).await;
    plays(&mut browser).await;
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_how_it_goes_and_programmers_what_can_be_asked() {
    let server = start().await;
    let spec = StreamSpec {
        name: Some("dub".into()),
        model: None,
        prompts: vec!["deep dub".into()],
        sampling: Default::default(),
        seconds: None,
        max_still: None,
        wait: None,
        keep: false,
        idle: Idle::Wait,
    };
    server.app.station.create(spec).await.unwrap();
    for width in [1280, 360] {
        let mut status = Browser::open(&format!("http://{}/status", server.addr), width, 900).await;
        status.until("document.querySelectorAll('#streams tr').length === 1").await;
        status.until("document.getElementById('ready').textContent.startsWith('Ready')").await;
        status.until("document.querySelectorAll('.plot canvas').length === 6").await;
        let row = status.eval("document.querySelector('#streams tr').textContent").await;
        assert!(row.as_str().unwrap().contains("dubdeep dub"), "{row}");
        fits(&mut status).await;
        status.picture("status").await;
        assert_eq!(status.complaints, [""; 0]);
    }
    let mut docs = Browser::open(&format!("http://{}/docs", server.addr), 1280, 900).await;
    let tags = docs.eval("[...document.querySelectorAll('.opblock-tag')].map((tag) => tag.dataset.tag)").await;
    for tag in ["streams", "clips", "sessions", "gary", "jerry"] {
        assert!(tags.as_array().unwrap().iter().any(|one| one == tag), "{tags}");
    }
    fits(&mut docs).await;
    docs.picture("docs").await;
    assert_eq!(docs.complaints, [""; 0]);
}
