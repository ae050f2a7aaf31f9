//! HLS: a stream as playlists and segments, for players and caches that fetch pieces over plain
//! HTTP.
//!
//! The multivariant playlist gives its player a name, which is in the addresses of the media
//! playlists: whoever fetches those is a listener. Segments have no name in their address. They are
//! the same for everybody and never change, so a cache in front fetches each of them once.

mod compress;
mod playlist;

use std::sync::Arc;

use bytes::Bytes;
use rand_chacha::rand_core::{OsRng, TryRngCore};
use warp::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use warp::http::{HeaderValue, Method};
use warp::reply::Response;
use warp::{Filter, Reply};

use self::compress::{gzip, takes_gzip};
use self::playlist::{Media, media, multivariant};
use super::auth::PARAMETERS;
use super::client::{self, Client};
use super::links::{self, Links};
use super::query::{pairs, raw, segment};
use super::router::get;
use super::{App, HttpError, Routes};
use crate::audio::hls::Rendition;
use crate::station::hls::{Missing, Position};
use crate::station::{StationError, Stream};

/// The name of a media playlist, and of the segment that players must have first.
const PLAYLIST: &str = "index.m3u8";
const INIT: &str = "init.mp4";
/// The media type of playlists (RFC 8216 section 4).
const PLAYLIST_TYPE: &str = "application/vnd.apple.mpegurl";
/// Segments never change.
const FOR_A_YEAR: &str = "public, max-age=31536000, immutable";
const FOR_A_SECOND: &str = "max-age=1";
/// Letters of a player's name at most.
const LONGEST_NAME: usize = 64;

/// Everything below `/hls` and `/v1/streams/{id}/hls`.
pub(super) fn routes(app: &Arc<App>) -> Routes {
    station(app).or(stream(app)).unify().or(files(app)).unify().boxed()
}

fn station(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("hls" / String / "master.m3u8")
        .and(get())
        .and(raw())
        .and(links::of_request())
        .map(move |name: String, query: String, links: Links| {
            let found = app.station.named(&segment(&name)).map_err(HttpError::from);
            answer(found.and_then(|stream| master(&stream, &query, &links)))
        })
        .boxed()
}

fn stream(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("v1" / "streams" / String / "hls" / "master.m3u8")
        .and(get())
        .and(raw())
        .and(links::of_request())
        .map(move |id: String, query: String, links: Links| {
            let found = app.station.get(&id).map_err(HttpError::from);
            answer(found.and_then(|stream| master(&stream, &query, &links)))
        })
        .boxed()
}

fn files(app: &Arc<App>) -> Routes {
    let app = Arc::clone(app);
    warp::path!("v1" / "streams" / String / "hls" / String / String)
        .and(get())
        .and(warp::method())
        .and(raw())
        .and(warp::header::optional(ACCEPT_ENCODING.as_str()))
        .and(client::of_request())
        .then(move |id: String, rendition: String, name: String, method, query, accepts: Option<String>, client| {
            let app = Arc::clone(&app);
            async move {
                let found = async {
                    let stream = app.station.presented(&id)?;
                    let file = Rendition::named(&rendition).and_then(|rendition| File::named(rendition, &name));
                    let file = file.ok_or_else(|| HttpError::NoRoute(format!("{rendition}/{name}")))?;
                    let gzip = accepts.is_some_and(|accepts| takes_gzip(&accepts));
                    file.read(&stream, &Asked { head: method == Method::HEAD, query, client, gzip }).await
                };
                answer(found.await)
            }
        })
        .boxed()
}

/// The playlist of all renditions, with a new name for its player.
fn master(stream: &Stream, query: &str, links: &Links) -> Result<Response, HttpError> {
    // A player without a name of its own is counted by its address.
    let name = OsRng.try_next_u64().map(|number| format!("session={number:016x}")).ok();
    let query = question(name.into_iter().chain(credentials(query)));
    let text = multivariant(|rendition| {
        links.to(&format!("/v1/streams/{}/hls/{}/{PLAYLIST}{query}", stream.id(), rendition.name()))
    });
    Ok(file(text.into(), PLAYLIST_TYPE, "no-store"))
}

/// How a file was asked for.
struct Asked {
    head: bool,
    query: String,
    client: Client,
    /// It may come compressed.
    gzip: bool,
}

/// What lies in a rendition's folder.
enum File {
    Playlist(Rendition),
    Init(Rendition),
    Sound(Rendition, Position),
}

impl File {
    fn named(rendition: Rendition, name: &str) -> Option<Self> {
        match name {
            PLAYLIST => return Some(Self::Playlist(rendition)),
            INIT if rendition.init(1).is_some() => return Some(Self::Init(rendition)),
            _ => {}
        }
        let place = name.strip_suffix(rendition.extension())?.strip_suffix('.')?;
        let (segment, part) = place.split_once('.').map_or((place, None), |(segment, part)| (segment, Some(part)));
        let part = part.map(number).map_or(Some(None), |part| part.map(Some))?;
        Some(Self::Sound(rendition, Position { segment: number(segment)?, part }))
    }

    async fn read(self, stream: &Stream, asked: &Asked) -> Result<Response, HttpError> {
        match self {
            // Who asks for its headers does not listen.
            Self::Playlist(_) if asked.head => Ok(file(Bytes::new(), PLAYLIST_TYPE, FOR_A_SECOND)),
            Self::Playlist(rendition) => {
                let text = listing(stream, rendition, &asked.query, &asked.client).await?;
                Ok(packed(text, asked.gzip).await)
            }
            Self::Init(rendition) => {
                let init = rendition.init(stream.channels()).unwrap_or_default();
                Ok(file(init, rendition.media_type(), FOR_A_YEAR))
            }
            Self::Sound(rendition, position) => {
                let bytes = stream.presentation().bytes(stream, rendition, position).await;
                let bytes = bytes.map_err(|missing| match missing {
                    Missing::NotYet => not_yet(),
                    Missing::Never | Missing::Ended => HttpError::NoSegment,
                    Missing::Lost(error) => error.into(),
                })?;
                Ok(file(bytes, rendition.media_type(), FOR_A_YEAR))
            }
        }
    }
}

async fn listing(stream: &Stream, rendition: Rendition, query: &str, client: &Client) -> Result<String, HttpError> {
    let asked = pairs(query);
    let value = |name: &str| asked.iter().find(|(is, _)| is == name).map(|(_, value)| value.as_str());
    let is_name = |name: &str| name.len() <= LONGEST_NAME && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let session = match value("session") {
        Some(name) if is_name(name) => Some(name),
        Some(_) => return Err(HttpError::BadRequest("`session` is not one that a playlist here names.".into())),
        None => None,
    };
    let until = match (directive("_HLS_msn", value("_HLS_msn"))?, directive("_HLS_part", value("_HLS_part"))?) {
        (Some(segment), part) => Some(Position { segment, part }),
        (None, None) => None,
        (None, Some(_)) => return Err(HttpError::BadRequest("`_HLS_part` goes with `_HLS_msn`; send both.".into())),
    };
    let address = client.address.to_string();
    stream.follow(session.unwrap_or(&address), rendition).await?;
    let presentation = stream.presentation();
    let delta = value("_HLS_skip").is_some();
    let listing = presentation.listing(rendition, until, delta).await.map_err(|missing| match missing {
        Missing::Never => HttpError::BadRequest("`_HLS_msn` is too far ahead; ask for the next one.".into()),
        Missing::NotYet => not_yet(),
        Missing::Ended => ended(stream),
        Missing::Lost(error) => error.into(),
    })?;
    let credentials: Vec<String> = credentials(query).collect();
    let named = session.map(|name| format!("session={name}"));
    let others = Rendition::built().filter(|other| *other != rendition);
    Ok(media(&Media {
        listing: &listing,
        rendition,
        init: rendition.init(1).map(|_| INIT),
        playlist_query: &question(named.into_iter().chain(credentials.iter().cloned())),
        query: &question(credentials.iter().cloned()),
        others: others.map(|other| (other, presentation.edge(other))).collect(),
    }))
}

/// A directive of a player (rfc8216bis section 6.2.5); those that are unknown are passed over.
fn directive(name: &str, value: Option<&str>) -> Result<Option<u64>, HttpError> {
    let read = |value: &str| number(value).ok_or_else(|| HttpError::BadRequest(format!("`{name}` is no number.")));
    value.map(read).transpose()
}

/// Digits and nothing else: a segment has one address.
fn number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|number| is_plain && *number < 1 << 32)
}

/// What a player said to be let in, as it was sent: it has to say it again for everything that a
/// playlist names.
fn credentials(query: &str) -> impl Iterator<Item = String> {
    let is_one = |pair: &&str| pair.split_once('=').is_some_and(|(name, _)| PARAMETERS.contains(&name));
    query.split('&').filter(is_one).map(str::to_owned)
}

/// A query string of these pairs.
fn question(pairs: impl Iterator<Item = String>) -> String {
    let pairs: Vec<String> = pairs.collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

fn file(bytes: Bytes, kind: &'static str, cache: &'static str) -> Response {
    let mut response = Response::new(bytes.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

/// A playlist, compressed where that is worth it.
async fn packed(text: String, may: bool) -> Response {
    let (bytes, is_gzip) = match may {
        true => gzip(text.into()).await,
        false => (text.into(), false),
    };
    let mut response = file(bytes, PLAYLIST_TYPE, FOR_A_SECOND);
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    if is_gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// What is not there now may be there in a moment.
fn answer(result: Result<Response, HttpError>) -> Response {
    result.unwrap_or_else(|error| warp::reply::with_header(error, CACHE_CONTROL, "no-store").into_response())
}

fn not_yet() -> HttpError {
    HttpError::NotReady("The next segment is not made in time; ask again.".into())
}

fn ended(stream: &Stream) -> HttpError {
    StationError::Ended(stream.info().reason.unwrap_or_else(|| "its length is reached".into())).into()
}
