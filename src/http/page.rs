//! The player, the studio, the operators' page and the API's, embedded in the binary: plain files
//! with an entity tag and a strict content policy.
//!
//! The pages need no build step and ask nobody but this server. `/stations.json` is the built-in
//! prompt set, from which the player offers a first choice of styles.

use std::borrow::Cow;

use rust_embed::{EmbeddedFile, RustEmbed};
use warp::filters::path::FullPath;
use warp::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use warp::http::{HeaderValue, StatusCode};
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::Routes;
use super::router::get;

#[derive(RustEmbed)]
#[folder = "web/"]
struct Web;

#[derive(RustEmbed)]
#[folder = "prompts/"]
struct Prompts;

/// Nothing from elsewhere runs or loads; `data:` are the little pictures of a style sheet; `blob:`
/// lets a recording be saved.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'";
/// Where pages are, and their files.
const PAGES: [(&str, &str); 4] = [("", "index.html"), STUDIO, ("status", "status.html"), ("docs", "docs.html")];
const STUDIO: (&str, &str) = ("studio", "studio.html");
/// Stands in the studio's page for a word of each answer: only the style sheets that say it count.
/// The library that draws wave forms writes one.
const NONCE: &str = "STYLE_NONCE";

/// Whether this path is one of the page's static files (these need no token).
pub(super) fn serves(path: &str) -> bool {
    find(path).is_some()
}

/// `GET /` and the page's static files.
pub(super) fn routes() -> Routes {
    get()
        .and(warp::path::full())
        .and(warp::header::optional::<String>(IF_NONE_MATCH.as_str()))
        .and_then(|path: FullPath, known: Option<String>| async move { answer(path.as_str(), known.as_deref()) })
        .boxed()
}

fn find(path: &str) -> Option<EmbeddedFile> {
    let name = path.strip_prefix('/')?;
    if name == "stations.json" {
        return Prompts::get(name);
    }
    Web::get(PAGES.iter().find(|(page, _)| *page == name).map_or(name, |(_, file)| file))
}

fn answer(path: &str, known: Option<&str>) -> Result<Response, Rejection> {
    let file = find(path).ok_or_else(warp::reject::not_found)?;
    if [STUDIO.0, STUDIO.1].contains(&path.trim_start_matches('/')) {
        return Ok(studio(&file));
    }
    let tag = entity_tag(&file);
    let unchanged = known.is_some_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag));
    let kind = content_type(&file);
    let mut response = if unchanged {
        let mut response = Response::new(Vec::new().into());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let bytes = match file.data {
            Cow::Borrowed(bytes) => bytes::Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        Response::new(bytes.into())
    };
    let headers = response.headers_mut();
    for (name, value) in [(CONTENT_TYPE, kind), (ETAG, tag)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    // Asked for again each time, answered with 304: a new version of the server is a new page at
    // once.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    harden(&mut response);
    Ok(response)
}

/// The studio's page, another one each time.
fn studio(file: &EmbeddedFile) -> Response {
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    let page = String::from_utf8_lossy(&file.data).replace(NONCE, &nonce);
    let mut response = Response::new(page.into());
    let policy = format!("{POLICY}; style-src 'self' 'nonce-{nonce}'");
    for (name, value) in [(CONTENT_TYPE, content_type(file)), (CONTENT_SECURITY_POLICY, policy)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    harden(&mut response);
    response
}

/// What every answer here says.
fn harden(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

fn entity_tag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let digits: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}

fn content_type(file: &EmbeddedFile) -> String {
    let kind = file.metadata.mimetype();
    let text = kind.starts_with("text/") || kind == "application/javascript";
    if text { format!("{kind}; charset=utf-8") } else { kind.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_page_and_its_parts_are_served() {
        let html = answer("/", None).unwrap();
        assert_eq!(html.status(), 200);
        assert_eq!(html.headers()["content-type"], "text/html; charset=utf-8");
        let text = find("/").unwrap().data;
        let text = std::str::from_utf8(&text).unwrap();
        let parts: Vec<_> = text
            .split('"')
            .filter(|part| [".js", ".css", ".svg"].iter().any(|extension| part.ends_with(extension)))
            .collect();
        assert!(parts.contains(&"main.js") && parts.contains(&"style.css"), "{parts:?}");
        for part in parts {
            assert!(serves(&format!("/{part}")), "{part}");
        }
        assert_eq!(answer("/main.js", None).unwrap().headers()["content-type"], "text/javascript; charset=utf-8");
    }

    #[test]
    fn the_studio_is_served_with_a_word_for_its_style_sheets_that_is_never_the_same() {
        let nonce = || {
            let response = answer("/studio", None).unwrap();
            let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
            policy.split("'nonce-").nth(1).unwrap().trim_end_matches('\'').to_owned()
        };
        let one = nonce();
        assert!(one.len() >= 32 && one != nonce(), "{one}");
        assert!(serves("/studio/main.js") && serves("/vendor/wavesurfer/LICENSE"));
        assert_eq!(answer("/studio", Some("*")).unwrap().status(), 200);
    }

    #[test]
    fn an_unchanged_file_is_not_sent_again() {
        let first = answer("/style.css", None).unwrap();
        let tag = first.headers()["etag"].to_str().unwrap();
        assert_eq!(answer("/style.css", Some(tag)).unwrap().status(), 304);
        assert_eq!(answer("/style.css", Some(&format!("\"0\", W/{tag}"))).unwrap().status(), 304);
        assert_eq!(answer("/style.css", Some("\"0\"")).unwrap().status(), 200);
    }

    #[test]
    fn nothing_outside_the_page_is_reachable() {
        for path in ["/../Cargo.toml", "/web/index.html", "/prompts/radio.json", "/%2e%2e/Cargo.toml", "/v1/streams"] {
            assert!(answer(path, None).is_err(), "{path}");
            assert!(!serves(path));
        }
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        // Libraries name addresses in licences and in code that is not used; the policy keeps them
        // from asking there.
        for name in Web::iter().filter(|name| !name.starts_with("vendor/")) {
            let file = Web::get(&name).unwrap();
            let text = std::str::from_utf8(&file.data).unwrap();
            let foreign = text
                .match_indices("//")
                .filter(|(at, _)| text[..*at].ends_with("http:") || text[..*at].ends_with("https:"));
            let foreign: Vec<_> = foreign.map(|(at, _)| &text[at..(at + 20).min(text.len())]).collect();
            assert!(foreign.iter().all(|url| url.starts_with("//www.w3.org/")), "{name}: {foreign:?}");
        }
    }

    #[test]
    fn the_built_in_stations_are_a_valid_prompt_set() {
        let file = Prompts::get("stations.json").unwrap();
        let json: serde_json::Value = serde_json::from_slice(&file.data).unwrap();
        assert!(json["stations"].as_array().unwrap().len() >= 8);
    }
}
