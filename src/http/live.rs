//! A clip heard while it is made: the result as far as it is there, sent as it grows.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use warp::Reply;
use warp::http::HeaderValue;
use warp::http::header::{ACCEPT_RANGES, CONTENT_TYPE};
use warp::reply::Response;

use super::HttpError;
use super::file::{self, Wanted};
use super::sound_paths::Sounds;
use crate::audio::{BeginFile, Format, StreamingFile};
use crate::studio::{ClipId, Preview, Studio, StudioError};

/// Pieces that may wait for the client.
const AHEAD: usize = 4;

/// A clip from its beginning, in a format that has previews; of a complete one the result.
pub(super) async fn response(
    studio: &Arc<Studio>,
    id: ClipId,
    format: Format,
    wanted: &Wanted,
    stopping: CancellationToken,
) -> Result<Response, HttpError> {
    let begin = format.preview().ok_or_else(|| HttpError::NoRoute(Sounds::Previews.segment(format)))?;
    // What is still growing has no ranges, and who asks for its headers does not wait for it.
    let mut response = if wanted.head && studio.task(id).is_some() {
        Response::default()
    } else {
        let Some(preview) = studio.preview(id).await? else {
            return file::sound(studio, studio.output(id).await?, format, &id.to_string(), wanted).await;
        };
        warp::reply::stream(growing(preview, (format, begin)).take_until(stopping.cancelled_owned())).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
    Ok(response)
}

struct Growing {
    preview: Preview,
    format: Format,
    begin: BeginFile,
    /// Begun with the first sound, whose shape it has.
    file: Option<Box<dyn StreamingFile>>,
}

impl Growing {
    async fn next(&mut self) -> Result<Option<Bytes>, StudioError> {
        let Some(sound) = self.preview.next().await? else {
            return Ok(self.file.take().map(|file| file.finish()).transpose()?.map(Bytes::from));
        };
        let sound = if sound.channels > self.format.most_channels() { sound.stereo() } else { sound };
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert((self.begin)(sound.rate, sound.channels)?),
        };
        Ok(Some(file.push(&sound.pcm)?.into()))
    }
}

/// A task that converts as fast as the client takes it; it ends when the client leaves.
fn growing(
    preview: Preview,
    (format, begin): (Format, BeginFile),
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + Sync {
    let (pieces, inbox) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let mut growing = Growing { preview, format, begin, file: None };
        loop {
            let next = tokio::select! {
                next = growing.next() => next,
                () = pieces.closed() => return,
            };
            match next {
                // An Ogg page is not finished with every part.
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => {
                    if pieces.send(bytes).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "a clip can no longer be heard while it is made");
                    return;
                }
            }
        }
    });
    stream::unfold(inbox, |mut inbox| async move { Some((Ok(inbox.recv().await?), inbox)) })
}
