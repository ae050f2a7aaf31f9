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
use crate::audio::{FileFormat, GrowingFile};
use crate::pcm::Pcm;
use crate::studio::{ClipId, Preview, Studio, StudioError};

/// Bit rate of Ogg Opus.
const KBPS: u32 = 128;

/// Pieces that may wait for the client.
const AHEAD: usize = 4;

/// A clip from its beginning, as WAV or Ogg; of a complete one the result.
pub(super) async fn response(
    studio: &Arc<Studio>,
    id: ClipId,
    format: FileFormat,
    wanted: &Wanted,
    stopping: CancellationToken,
) -> Result<Response, HttpError> {
    // What is still growing has no ranges, and who asks for its headers does not wait for it.
    let mut response = if wanted.head && studio.job(id).is_some() {
        Response::default()
    } else {
        let Some(preview) = studio.preview(id).await? else {
            return file::sound(studio, studio.output(id).await?, format, &id.to_string(), wanted).await;
        };
        warp::reply::stream(growing(preview, format).take_until(stopping.cancelled_owned())).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
    Ok(response)
}

struct Growing {
    preview: Preview,
    format: FileFormat,
    /// Begun with the first sound, whose shape it has.
    file: Option<GrowingFile>,
}

impl Growing {
    async fn next(&mut self) -> Result<Option<Bytes>, StudioError> {
        let Some(sound) = self.preview.next().await? else {
            return Ok(self.file.take().map(GrowingFile::finish).transpose()?.map(Bytes::from));
        };
        let sound = match self.format {
            FileFormat::Ogg if sound.channels > 2 => sound.stereo(),
            _ => sound,
        };
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(begun(self.format, &sound)?),
        };
        Ok(Some(file.push(&sound.pcm)?.into()))
    }
}

fn begun(format: FileFormat, sound: &Pcm) -> Result<GrowingFile, StudioError> {
    match format {
        FileFormat::Ogg => Ok(GrowingFile::ogg(sound.rate, sound.channels, KBPS)?),
        _ => Ok(GrowingFile::wav(sound.rate, sound.channels)),
    }
}

/// A task that converts as fast as the client takes it; it ends when the client leaves.
fn growing(preview: Preview, format: FileFormat) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + Sync {
    let (pieces, inbox) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let mut growing = Growing { preview, format, file: None };
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
