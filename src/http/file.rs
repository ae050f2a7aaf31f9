//! Finished files: whole, in part, or not again to those who have them. They are sent from disk,
//! piece by piece, so a client that reads slowly costs next to nothing.
//!
//! A file's bytes never change, so its name is a strong entity tag (RFC 9110, sections 8.8.3 and 13
//! to 14).

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use tokio::io::AsyncReadExt;
use warp::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode};
use warp::reply::Response;
use warp::{Filter, Reply};

use super::HttpError;
use crate::audio::Format;
use crate::studio::{AudioId, PEAKS, SoundFile, Studio, StudioError, tag};

/// Bytes that are read from disk at once.
const PIECE: usize = 64 << 10;

/// What of a request says how much of a file is wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) head: bool,
    range: Option<String>,
    if_range: Option<String>,
    if_match: Option<String>,
    if_none_match: Option<String>,
}

/// See [`Wanted`].
pub(super) fn wanted() -> impl Filter<Extract = (Wanted,), Error = Infallible> + Copy {
    warp::method().and(warp::header::headers_cloned()).map(|method: Method, headers: HeaderMap| {
        let text = |name: HeaderName| {
            let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
            (!values.is_empty()).then(|| values.join(","))
        };
        Wanted {
            head: method == Method::HEAD,
            range: text(RANGE),
            if_range: text(IF_RANGE),
            if_match: text(IF_MATCH),
            if_none_match: text(IF_NONE_MATCH),
        }
    })
}

/// A stored sound in a format, to be saved as `name`. HEAD makes no conversion; what was not made
/// yet has no length.
pub(super) async fn sound(
    studio: &Studio,
    id: AudioId,
    format: Format,
    name: &str,
    wanted: &Wanted,
) -> Result<Response, HttpError> {
    let (at_hand, made) = (studio.file_at_hand(id, format), studio.file(id, format));
    let mut response = kept(&tag(id, format.extension()), format.media_type(), wanted, (at_hand, made)).await?;
    entitle(&mut response, format, name, "inline");
    Ok(response)
}

/// Says under which name a file is saved.
pub(super) fn entitle(response: &mut Response, format: Format, name: &str, disposition: &str) {
    if response.status() != StatusCode::RANGE_NOT_SATISFIABLE
        && let Ok(value) = HeaderValue::from_str(&format!("{disposition}; filename=\"{name}.{}\"", format.extension()))
    {
        response.headers_mut().insert(CONTENT_DISPOSITION, value);
    }
}

/// What is drawn of a stored sound.
pub(super) async fn peaks(studio: &Studio, id: AudioId, wanted: &Wanted) -> Result<Response, HttpError> {
    let (at_hand, made) = (studio.store().converted_before(id, PEAKS), studio.peaks(id));
    kept(&tag(id, PEAKS), "application/json", wanted, (at_hand, made)).await
}

/// The file of this tag: as far as it is there, or made for whoever wants more than its headers.
pub(super) async fn kept<E: Into<HttpError>>(
    tag: &str,
    media_type: &'static str,
    wanted: &Wanted,
    (at_hand, made): (impl Future<Output = Result<Option<SoundFile>, E>>, impl Future<Output = Result<SoundFile, E>>),
) -> Result<Response, HttpError> {
    let tag = format!("\"{tag}\"");
    if wanted.others_than(&tag) {
        return Err(HttpError::OtherBytes);
    }
    let mut response = if wanted.has(&tag) {
        unchanged()
    } else if wanted.head {
        let mut response = Response::default();
        if let Some(SoundFile { bytes, .. }) = at_hand.await.map_err(Into::into)? {
            response.headers_mut().insert(CONTENT_LENGTH, bytes.into());
        }
        response
    } else {
        part(made.await.map_err(Into::into)?, wanted, &tag)?
    };
    describe(&mut response, &tag, media_type);
    Ok(response)
}

/// Says of an answer what it is: these bytes are named by `tag`.
fn describe(response: &mut Response, tag: &str, media_type: &'static str) {
    let is_error = response.status() == StatusCode::RANGE_NOT_SATISFIABLE;
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(ETAG, tag);
    }
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // A session's sound is another one tomorrow; who has this one asks whether it still is.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if !is_error {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
}

/// Who asks has these bytes.
fn unchanged() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// The part that is wanted, or why there is none.
fn part(sound: SoundFile, wanted: &Wanted, tag: &str) -> Result<Response, HttpError> {
    let SoundFile { file, bytes } = sound;
    let (range, code) = match wanted.part_of(bytes, tag) {
        Part::Whole => (0..bytes, StatusCode::OK),
        Part::Range(range) => (range, StatusCode::PARTIAL_CONTENT),
        Part::Beyond => {
            let mut response = HttpError::NoSuchRange(bytes).into_response();
            set(&mut response, CONTENT_RANGE, &format!("bytes */{bytes}"));
            return Ok(response);
        }
    };
    let mut response = slice(file, range.clone())?;
    *response.status_mut() = code;
    if code == StatusCode::PARTIAL_CONTENT {
        set(&mut response, CONTENT_RANGE, &format!("bytes {}-{}/{bytes}", range.start, range.end - 1));
    }
    Ok(response)
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// A response with all of a file as its body.
pub(super) fn whole(sound: SoundFile) -> Result<Response, HttpError> {
    slice(sound.file, 0..sound.bytes)
}

/// A response with a part of a file as its body.
fn slice(mut file: File, range: Range<u64>) -> Result<Response, HttpError> {
    file.seek(SeekFrom::Start(range.start)).map_err(|error| StudioError::Store(error.to_string()))?;
    let length = range.end - range.start;
    let body = pieces(tokio::fs::File::from_std(file), length);
    let mut response = warp::reply::stream(body).into_response();
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(response)
}

/// The next `left` bytes of a file.
fn pieces(file: tokio::fs::File, left: u64) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync {
    stream::try_unfold((file, left), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut piece = BytesMut::with_capacity(PIECE.min(usize::try_from(left).unwrap_or(PIECE)));
        let read = (&mut file).take(left).read_buf(&mut piece).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some((piece.freeze(), (file, left - read as u64))))
    })
}

/// How much of a file is sent.
#[derive(Debug, PartialEq)]
enum Part {
    Whole,
    Range(Range<u64>),
    /// Nothing of it lies in the wanted range.
    Beyond,
}

impl Wanted {
    /// Whether the client has these bytes already.
    fn has(&self, tag: &str) -> bool {
        let listed = self.if_none_match.as_deref().unwrap_or_default();
        listed.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
    }

    /// Whether the client wants other bytes than these or none.
    fn others_than(&self, tag: &str) -> bool {
        let Some(listed) = &self.if_match else { return false };
        !listed.split(',').map(str::trim).any(|one| one == "*" || one == tag)
    }

    /// The range, unless it is for other bytes than these. Several ranges are answered with the
    /// whole, which is allowed and what a list of thousands deserves; so is what is no range.
    fn part_of(&self, bytes: u64, tag: &str) -> Part {
        let Some(range) = self.range.as_deref() else { return Part::Whole };
        // A weak tag or a date does not say that the bytes are the same.
        if self.if_range.as_deref().is_some_and(|wanted| wanted.trim() != tag) {
            return Part::Whole;
        }
        let range = range.trim().split_once('=').filter(|(unit, _)| unit.trim().eq_ignore_ascii_case("bytes"));
        let Some((first, last)) = range.and_then(|(_, range)| range.trim().split_once('-')) else {
            return Part::Whole;
        };
        let number = |text: &str| match text {
            digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                // More than can be counted is beyond every end.
                Some(digits.parse::<u64>().unwrap_or(u64::MAX))
            }
            _ => None,
        };
        match (first.trim(), last.trim()) {
            ("", last) => match number(last) {
                None => Part::Whole,
                Some(0) => Part::Beyond,
                Some(_) if bytes == 0 => Part::Beyond,
                Some(count) => Part::Range(bytes.saturating_sub(count)..bytes),
            },
            (first, last) => {
                let (first, last) = match (number(first), number(last)) {
                    (Some(first), _) if last.is_empty() => (first, u64::MAX),
                    (Some(first), Some(last)) if first <= last => (first, last),
                    _ => return Part::Whole,
                };
                if first >= bytes { Part::Beyond } else { Part::Range(first..last.saturating_add(1).min(bytes)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(range: &str, if_range: Option<&str>) -> Part {
        let wanted = Wanted { range: Some(range.into()), if_range: if_range.map(str::to_owned), ..Wanted::default() };
        wanted.part_of(1000, "\"a\"")
    }

    #[test]
    fn ranges_are_read_as_their_definition_says() {
        for (range, expected) in [
            ("bytes=0-1", Part::Range(0..2)),
            ("bytes=0-", Part::Range(0..1000)),
            ("bytes=999-5000", Part::Range(999..1000)),
            ("bytes=-1", Part::Range(999..1000)),
            ("bytes=-5000", Part::Range(0..1000)),
            ("Bytes = 5 - 6", Part::Range(5..7)),
            ("bytes=5-99999999999999999999999", Part::Range(5..1000)),
            ("bytes=1000-", Part::Beyond),
            ("bytes=99999999999999999999999-", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            // No range, or several: the whole.
            ("bytes=6-5", Part::Whole),
            ("bytes=0-1,5-6", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("items=0-1", Part::Whole),
            ("", Part::Whole),
        ] {
            assert_eq!(part(range, None), expected, "{range}");
        }
    }

    #[test]
    fn a_range_of_other_bytes_is_the_whole() {
        assert_eq!(part("bytes=0-1", Some("\"a\"")), Part::Range(0..2));
        for other in ["\"b\"", "W/\"a\"", "a", "Sat, 28 Nov 2026 12:00:00 GMT", "*"] {
            assert_eq!(part("bytes=0-1", Some(other)), Part::Whole, "{other}");
        }
    }

    #[test]
    fn who_has_the_bytes_is_told_so() {
        let has = |listed: &str| Wanted { if_none_match: Some(listed.into()), ..Wanted::default() }.has("\"a\"");
        assert!(has("\"a\"") && has("W/\"a\"") && has("\"b\", \"a\"") && has("*"));
        assert!(!has("\"b\"") && !has("a") && !has(""));
    }

    #[test]
    fn who_wants_other_bytes_gets_none() {
        let refused = |listed: &str| Wanted { if_match: Some(listed.into()), ..Wanted::default() }.others_than("\"a\"");
        assert!(!refused("\"a\"") && !refused("\"b\", \"a\"") && !refused("*"));
        assert!(refused("\"b\"") && refused("W/\"a\"") && refused(""));
        assert!(!Wanted::default().others_than("\"a\""));
    }
}
