//! What operators, proxies and pages of other origins see.

use std::process::Command;
use std::sync::{Arc, Mutex};

use continuo::station::StationConfig;
use continuo::studio::Naming;
use continuo::units::WeightFormat;

use super::client::{call, get, send};
use super::server::{Server, loader, start, start_loading, start_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_server_is_alive_and_ready() {
    let server = start().await;
    for path in ["/healthz", "/readyz"] {
        let mut answer = get(server.addr, path).await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
        assert!(answer.json().await["status"].is_string());
    }
    let mut head = send(server.addr, "HEAD /healthz HTTP/1.1\nConnection: close", b"").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("15")));
    assert!(head.closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_device_is_not_ready_but_alive() {
    let server = start().await;
    let _ = get(server.addr, "/generate?prompt=lose+the+device").await;
    super::server::until(|| server.app.engine().status().lost.is_some()).await;
    let mut ready = get(server.addr, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.problem().await.contains("device"));
    assert_eq!(get(server.addr, "/healthz").await.status, 200);
    let mut refused = get(server.addr, "/generate?prompt=a").await;
    assert_eq!(refused.status, 503);
    refused.problem().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_and_loaded() {
    let server = start_loading(Naming::default(), loader).await;
    let models = get(server.addr, "/v1/models").await.json().await;
    assert_eq!(models["models"][0]["id"], "standin");
    assert_eq!((&models["models"][0]["default"], &models["models"][0]["sample_rate"]), (&true.into(), &32_000.into()));
    assert_eq!(models["models"][0]["window_seconds"], 10.0);
    let mut loaded = call(server.addr, "POST", "/v1/models", r#"{"model": "twin", "default": true}"#).await;
    assert_eq!(loaded.status, 200);
    assert_eq!(loaded.json().await["default"], true);
    let models = get(server.addr, "/v1/models").await.json().await;
    assert_eq!(models["models"][0]["id"], "twin");
    for (body, status, word) in [
        (r#"{"model": "nobody/none"}"#, 422, "nobody/none"),
        (r#"{"model": ""}"#, 422, "`model`"),
        (r#"{"model": 1}"#, 422, "string"),
        ("", 400, "JSON"),
    ] {
        let mut refused = call(server.addr, "POST", "/v1/models", body).await;
        assert_eq!(refused.status, status, "{body}");
        assert!(refused.problem().await.contains(word), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_models_number_format_is_the_one_that_was_asked_for() {
    let loads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&loads);
    let server = start_loading(Naming::default(), |engine| {
        let load = loader(engine);
        Arc::new(move |request| {
            seen.lock().unwrap().push(request.format);
            load(request)
        })
    })
    .await;
    let format = |server: &Server| {
        let models = server.app.engine().models();
        models.iter().find(|model| model.id.0 == "twin").map(|model| model.format)
    };
    let (q8, bf16) = (Some(WeightFormat::Q8), Some(WeightFormat::Bf16));
    for (path, body, then, count) in [
        ("/v1/models", r#"{"model": "twin", "dtype": "q8"}"#, q8, 1),
        // What is there is not loaded again.
        ("/v1/models", r#"{"model": "twin", "dtype": "q8"}"#, q8, 1),
        ("/v1/models", r#"{"model": "twin"}"#, q8, 1),
        ("/v1/models", r#"{"model": "twin", "dtype": "bfloat16"}"#, bf16, 2),
        // The original's words: f32 without a GPU.
        ("/set_model", r#"{"model": "twin", "dtype": "float16"}"#, Some(WeightFormat::F32), 3),
        ("/set_model", r#"{"model": "twin", "dtype": "float"}"#, Some(WeightFormat::F32), 3),
        ("/set_model", r#"{"model": "twin", "dtype": "int4"}"#, Some(WeightFormat::F32), 3),
    ] {
        assert_eq!(call(server.addr, "POST", path, body).await.status, 200, "{path} {body}");
        assert_eq!((format(&server), loads.lock().unwrap().len()), (then, count), "{path} {body}");
    }
    assert_eq!(*loads.lock().unwrap(), [q8, bf16, Some(WeightFormat::F32)]);
    let mut unknown = call(server.addr, "POST", "/v1/models", r#"{"model": "twin", "dtype": "q3"}"#).await;
    assert_eq!(unknown.status, 422);
    let sentence = unknown.problem().await;
    assert!(sentence.contains("`q3`") && sentence.contains("q8"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_loader_says_so() {
    let server = start().await;
    let mut refused = call(server.addr, "POST", "/v1/models", r#"{"model": "other"}"#).await;
    assert_eq!(refused.status, 501);
    assert!(refused.problem().await.contains("--model other"));
    assert_eq!(call(server.addr, "POST", "/v1/models", r#"{"model": "standin"}"#).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_one_500_and_the_server_lives() {
    let server = start_loading(Naming::default(), loader).await;
    let mut broken = call(server.addr, "POST", "/v1/models", r#"{"model": "panic"}"#).await;
    assert_eq!(broken.status, 500);
    assert!(!broken.problem().await.contains("bug"), "the panic's own words stay in the log");
    assert_eq!(call(server.addr, "POST", "/v1/models", r#"{"model": "twin"}"#).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_paths_and_methods_are_problems() {
    let server = start().await;
    for path in ["/nowhere", "/v1", "/v1/streams/x/y/z", "/generate/x", "/%00"] {
        let mut answer = get(server.addr, path).await;
        assert_eq!(answer.status, 404, "{path}");
        answer.problem().await;
    }
    for (method, path, allow) in [
        ("DELETE", "/generate", "GET, HEAD, POST"),
        ("PUT", "/v1/streams", "GET, HEAD, POST"),
        ("POST", "/v1/streams/some-id", "GET, HEAD, PATCH, DELETE"),
        ("GET", "/v1/streams/some-id/pause", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("GET", "/set_prompts", "POST"),
        ("POST", "/", "GET, HEAD"),
        ("OPTIONS", "/generate", "GET, HEAD, POST"),
    ] {
        let mut answer = call(server.addr, method, path, "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
        assert!(answer.problem().await.contains(allow));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_guards_everything_but_the_page_and_the_probes() {
    let server = start_with(StationConfig::default(), |app| app.access.token = Some("s3cret".into())).await;
    for path in ["/generate?prompt=a", "/v1/streams", "/v1/models", "/metrics", "/generate?prompt=a&token=other"] {
        let mut refused = get(server.addr, path).await;
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer"));
        assert!(refused.problem().await.contains("token"));
    }
    for path in ["/", "/healthz", "/readyz"] {
        assert_eq!(get(server.addr, path).await.status, 200, "{path}");
    }
    assert_eq!(get(server.addr, "/generate?prompt=a&token=s3cret").await.status, 200);
    let bearer = "GET /v1/streams HTTP/1.1\nAuthorization: Bearer s3cret";
    assert_eq!(send(server.addr, bearer, b"").await.status, 200);
    let preflight = "OPTIONS /v1/streams HTTP/1.1\nOrigin: null\nAccess-Control-Request-Method: GET";
    assert_eq!(send(server.addr, preflight, b"").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_without_tls_works() {
    let server = start().await;
    let sound = curl(&server, "/generate?prompt=a&seconds=1&format=wav").await;
    assert!(sound.starts_with(b"2 200\n"), "{:?}", &sound[..20.min(sound.len())]);
    assert_eq!(&sound[6..10], b"RIFF");
    let nothing = curl(&server, "/nowhere").await;
    assert!(nothing.starts_with(b"2 404\n"));
    server.until_voices(0).await;
}

/// The version, the status, a line end, and the body, as curl over HTTP/2 sees them.
async fn curl(server: &Server, path: &str) -> Vec<u8> {
    let url = format!("http://{}{path}", server.addr);
    tokio::task::spawn_blocking(move || {
        let body = tempfile::NamedTempFile::new().unwrap();
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "20", "--http2-prior-knowledge", "-w", "%{http_version} %{http_code}\n", "-o"])
            .arg(body.path())
            .arg(url)
            .output()
            .expect("curl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        [output.stdout, std::fs::read(body.path()).unwrap()].concat()
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_of_listeners_and_requests() {
    let server = start().await;
    let mut listener = get(server.addr, "/generate?prompt=a").await;
    listener.some(1000).await;
    let mut answer = get(server.addr, "/metrics").await;
    assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
    let text = answer.text().await;
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(value("continuo_voices ") >= 1.0);
    assert!(value("continuo_listeners ") >= 1.0);
    assert!(value("continuo_bytes_sent_total ") >= 1000.0);
    assert!(value("continuo_http_requests_total{method=\"GET\",status=\"200\"}") >= 1.0);
    assert!(value("continuo_time_to_first_audio_seconds_bucket{le=\"0.15\"}") >= 0.0);
    assert!(text.contains("# HELP continuo_listeners Connected listeners"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_over_http_2_frees_its_voice_too() {
    let server = start().await;
    let url = format!("http://{}/generate?prompt=a", server.addr);
    let mut curl = Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "--http2-prior-knowledge", &url])
        .spawn()
        .expect("curl is installed");
    server.until_voices(1).await;
    curl.kill().unwrap();
    curl.wait().unwrap();
    let took = server.until_voices(0).await;
    assert!(took.as_secs_f64() < 1.0, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_that_is_described_answers() {
    let server = start().await;
    let described = get(server.addr, "/v1/openapi.json").await.json().await;
    assert_eq!(described["info"]["version"], env!("CARGO_PKG_VERSION"));
    for (path, item) in described["paths"].as_object().unwrap() {
        for method in ["get", "head", "post", "patch", "delete"].into_iter().filter(|method| item.get(method).is_some())
        {
            let mut answer =
                call(server.addr, &method.to_uppercase(), &path.replace("{id}", "nobody"), "no json").await;
            // Of models that this server was not given it says how to get them.
            let told =
                answer.status == 503 && (method == "head" || answer.text().await.contains("not part of Continuo"));
            assert!(answer.status != 405 && (answer.status < 500 || told), "{method} {path}: {}", answer.status);
            if answer.status == 404 && method != "head" && path.starts_with("/v1/") {
                assert!(answer.problem().await.contains("`nobody`"), "{method} {path}");
            }
        }
    }
}
