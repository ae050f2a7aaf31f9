//! Forms with files, as browsers and `curl -F` send them.

use bytes::{Bytes, BytesMut};
use multer::Multipart;
use warp::http::HeaderMap;
use warp::http::header::CONTENT_TYPE;

use super::HttpError;
use crate::budget::Budget;

/// Parts that any form here could have.
const MOST_PARTS: usize = 128;
/// Bytes that the parser is given at once.
const PIECE: usize = 64 << 10;

/// One field of a form.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub name: String,
    pub content: Bytes,
    /// Whether it came with the name of a file.
    pub is_file: bool,
}

impl Part {
    /// Its content as text.
    ///
    /// # Errors
    /// [`HttpError::BadRequest`] for what is none.
    pub fn text(&self) -> Result<&str, HttpError> {
        std::str::from_utf8(&self.content)
            .map_err(|_| HttpError::BadRequest(format!("`{}` is no text; send it as UTF-8.", self.name)))
    }
}

/// Whether a body is a form with parts.
pub(super) fn is_multipart(headers: &HeaderMap) -> bool {
    content_type(headers).trim_start().to_ascii_lowercase().starts_with("multipart/")
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The parts of a form.
///
/// # Errors
/// [`HttpError::BadRequest`] that says what is broken.
pub(super) async fn parts(body: Bytes, headers: &HeaderMap, budget: &Budget) -> Result<Vec<Part>, HttpError> {
    let bad = |sentence: String| HttpError::BadRequest(sentence);
    let boundary = multer::parse_boundary(content_type(headers))
        .map_err(|error| bad(format!("The form has no boundary: {error}.")))?;
    let mut share = budget.take(body.len() as u64).await?;
    // Piece by piece, since whatever is handed over is copied.
    let pieces = (0..body.len()).step_by(PIECE).map(move |at| {
        let end = (at + PIECE).min(body.len());
        Ok::<_, std::io::Error>(body.slice(at..end))
    });
    let mut form = Multipart::new(futures_util::stream::iter(pieces), boundary);
    let broken = |error: multer::Error| bad(format!("The form is broken: {error}."));
    let mut parts = Vec::new();
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        if parts.len() >= MOST_PARTS {
            return Err(bad(format!("The form has more than {MOST_PARTS} parts; send what is asked for.")));
        }
        let (name, is_file) = (field.name().unwrap_or_default().to_owned(), field.file_name().is_some());
        let mut content = BytesMut::new();
        while let Some(piece) = field.chunk().await.map_err(broken)? {
            content.extend_from_slice(&piece);
        }
        let content = match share.split(content.len() as u64) {
            Ok(share) => share.hold(content),
            Err(_) => content.freeze(),
        };
        parts.push(Part { name, content, is_file });
    }
    Ok(parts)
}
