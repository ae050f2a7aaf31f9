//! A headless Chromium and as much of its DevTools protocol as the tests need.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// A page that does not do what is waited for within this time does not do it.
const PATIENCE: Duration = Duration::from_secs(40);

pub struct Browser {
    chromium: Child,
    _profile: tempfile::TempDir,
    socket: WebSocketStream<TcpStream>,
    last_id: u64,
    /// What the page complained about: exceptions, errors on the console, blocked or failed loads.
    pub complaints: Vec<String>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.chromium.kill();
        let _ = self.chromium.wait();
    }
}

impl Browser {
    /// Opens `url` in a window of this size.
    pub async fn open(url: &str, width: u32, height: u32) -> Self {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = names.iter().find(|name| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()));
        let name = found.expect("no Chromium is installed; `apt-get install chromium` brings it");
        let profile = tempfile::tempdir().unwrap();
        let chromium = Command::new(name)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-port=0"])
            // As strict as a visitor's browser: no sound before a click.
            .arg("--autoplay-policy=user-gesture-required")
            // A microphone that beeps, and that pages may hear.
            .args(["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        // Chromium writes its port, then the path of its own end point.
        let (port, path) = loop {
            let file = std::fs::read_to_string(profile.path().join("DevToolsActivePort")).unwrap_or_default();
            if let Some((port, path)) = file.split_once('\n') {
                break (port.parse::<u16>().unwrap(), path.trim().to_owned());
            }
            assert!(began.elapsed() < PATIENCE, "Chromium does not start");
            sleep(Duration::from_millis(20)).await;
        };
        let mut browser = Self {
            chromium,
            _profile: profile,
            socket: connect(port, &path).await,
            last_id: 0,
            complaints: Vec::new(),
        };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        browser.socket = connect(port, &format!("/devtools/page/{}", page["targetId"].as_str().unwrap())).await;
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser.resize(width, height).await;
        browser.call("Page.navigate", json!({ "url": url })).await;
        browser
            .until("document.readyState === 'complete' && document.querySelector('#mix textarea, #studio [aria-selected], #plots canvas, .opblock-tag') !== null")
            .await;
        browser
    }

    /// One command and its result.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let command = json!({ "id": id, "method": method, "params": params }).to_string();
        self.socket.send(Message::text(command)).await.unwrap();
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("Chromium answers").unwrap().unwrap();
            let Message::Text(text) = message else { continue };
            let answer: Value = serde_json::from_str(text.as_str()).unwrap();
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => params["exceptionDetails"].to_string(),
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => params["args"].to_string(),
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => params["entry"].to_string(),
            _ => return,
        };
        self.complaints.push(complaint);
    }

    /// The value of an expression.
    pub async fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", params).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub async fn until(&mut self, expression: &str) {
        let began = Instant::now();
        while self.eval(expression).await != true {
            let state = "document.body?.innerText.slice(0, 600)";
            assert!(began.elapsed() < PATIENCE, "never true: {expression}; the page: {}", self.eval(state).await);
            sleep(Duration::from_millis(30)).await;
        }
    }

    pub async fn resize(&mut self, width: u32, height: u32) {
        let params = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", params).await;
    }

    /// A media feature, such as `prefers-color-scheme`.
    pub async fn prefer(&mut self, feature: &str, value: &str) {
        let features = json!([{ "name": feature, "value": value }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    async fn mouse(&mut self, kind: &str, (x, y): (f64, f64), held: bool) {
        let params = json!({ "type": kind, "x": x, "y": y, "button": "left", "buttons": u8::from(held),
            "clickCount": 1 });
        self.call("Input.dispatchMouseEvent", params).await;
    }

    /// The left upper corner of an element, its width and its height.
    pub async fn place(&mut self, selector: &str) -> [f64; 4] {
        let place = format!(
            "(() => {{ const r = document.querySelector({selector:?}).getBoundingClientRect();
             return [r.x, r.y, r.width, r.height]; }})()"
        );
        let place = self.eval(&place).await;
        std::array::from_fn(|n| place[n].as_f64().unwrap())
    }

    /// Drags over an element, from one part of its width to another.
    pub async fn drag(&mut self, selector: &str, from: f64, to: f64) {
        let [x, y, width, height] = self.place(selector).await;
        let at = |part: f64| (x + part * width, y + height / 2.0);
        self.mouse("mouseMoved", at(from), false).await;
        self.mouse("mousePressed", at(from), true).await;
        for step in 1..=4 {
            self.mouse("mouseMoved", at(from + (to - from) * f64::from(step) / 4.0), true).await;
        }
        self.mouse("mouseReleased", at(to), false).await;
    }

    /// Lets go of a file over an element, as from a folder of the system.
    pub async fn drop_file(&mut self, selector: &str, file: &std::path::Path) {
        let [x, y, width, height] = self.place(selector).await;
        for kind in ["dragEnter", "dragOver", "drop"] {
            let data = json!({ "items": [], "files": [file], "dragOperationsMask": 1 });
            let params = json!({ "type": kind, "x": x + width / 2.0, "y": y + height / 2.0, "data": data });
            self.call("Input.dispatchDragEvent", params).await;
        }
    }

    /// A click of the mouse in the middle of an element.
    pub async fn click(&mut self, selector: &str) {
        let middle = format!(
            "(() => {{ const e = document.querySelector({selector:?}); e.scrollIntoView({{ block: 'center' }});
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        );
        let middle = self.eval(&middle).await;
        for (kind, buttons) in [("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)] {
            let params = json!({ "type": kind, "x": middle[0], "y": middle[1], "button": "left",
                "buttons": buttons, "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", params).await;
        }
    }

    /// A key on the keyboard, for what has the focus.
    pub async fn press(&mut self, key: &str, code: u32) {
        let text = match key {
            " " => " ",
            "Enter" => "\r",
            _ => "",
        };
        let name = if key == " " { "Space" } else { key };
        for kind in [if text.is_empty() { "rawKeyDown" } else { "keyDown" }, "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let params = json!({ "type": kind, "key": key, "code": name, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", params).await;
        }
    }

    /// Replaces the text of a field, as typing would.
    pub async fn write(&mut self, selector: &str, text: &str) {
        self.eval(&format!("document.querySelector({selector:?}).focus(), document.activeElement.select(), 0")).await;
        self.call("Input.insertText", json!({ "text": text })).await;
    }

    /// A picture of the page, if the environment variable `CONTINUO_SCREENSHOTS` names a folder for
    /// it.
    pub async fn picture(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("CONTINUO_SCREENSHOTS").map(PathBuf::from) else { return };
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        let png = base64(answer["data"].as_str().unwrap());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), png).unwrap();
    }
}

async fn connect(port: u16, path: &str) -> WebSocketStream<TcpStream> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tokio_tungstenite::client_async(format!("ws://127.0.0.1:{port}{path}"), tcp).await.unwrap().0
}

/// Standard base64, in which the protocol and the page write files.
pub fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(value).collect();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let word = group.iter().fold(0, |word, digit| word << 6 | u32::from(*digit)) << (6 * (4 - group.len()));
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    bytes
}
