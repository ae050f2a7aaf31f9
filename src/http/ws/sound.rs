//! What a socket sounds of: a stream at its live edge, its past, or its past as the node that makes
//! it plays that.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::{Either, pending};

use super::command::Heard;
use super::session::Goodbye;
use crate::audio::LiveFormat;
use crate::http::forward::{Past, past};
use crate::http::{HttpError, when};
use crate::station::{Listen, Listener};

/// The sound of a socket.
pub(super) enum Sound {
    /// Of this node.
    Here(Listener),
    /// Of another one.
    There(There),
}

/// Sound that another node sends.
pub(super) struct There {
    past: Past,
    live: Option<&'static dyn LiveFormat>,
    /// What has come of a page that is not whole yet.
    part: BytesMut,
}

impl Sound {
    /// From a place of the past on, as a query says it; with the media time in seconds at which it
    /// begins.
    pub(super) async fn of_past(
        heard: &Heard,
        listen: Listen,
        (name, text): (&str, &str),
    ) -> Result<(Self, f64), HttpError> {
        let Heard { app, stream, client, grant, .. } = heard;
        if stream.is_relayed() {
            let past = past(app, (stream.id(), listen), (name, text), (client, grant)).await?;
            let (begins, live) = (past.begins, listen.format.live());
            return Ok((Self::There(There { past, live, part: BytesMut::new() }), begins));
        }
        let frame = when::frame(stream.journal(), name, text)?;
        Ok((Self::Here(stream.listen_from(listen, frame)?), when::seconds(frame)))
    }

    /// The next whole page (or run of packets); `None` behind the last one. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Goodbye> {
        match self {
            Self::Here(listener) => match next(listener).await {
                None if listener.is_given_up() => Err(Goodbye::too_slow()),
                sound => Ok(sound),
            },
            Self::There(there) => there.next().await,
        }
    }

    /// Completes when the station gives up whoever listens.
    pub(super) fn given_up(&self) -> impl Future<Output = ()> + Send + use<> {
        match self {
            Self::Here(listener) => Either::Left(listener.given_up()),
            // The other node ends the sound then.
            Self::There(_) => Either::Right(pending()),
        }
    }
}

/// What completes a page is there already.
async fn next(listener: &mut Listener) -> Option<Bytes> {
    let mut sound = listener.next().await?;
    while listener.mid_page()
        && let Some(rest) = listener.next().await
    {
        sound = [sound, rest].concat().into();
    }
    Some(sound)
}

impl There {
    async fn next(&mut self) -> Result<Option<Bytes>, Goodbye> {
        loop {
            let whole = self.live.map_or(self.part.len(), |live| live.whole(&self.part));
            if whole > 0 {
                return Ok(Some(self.part.split_to(whole).freeze()));
            }
            match self.past.sound.next().await {
                Some(Ok(part)) => self.part.extend_from_slice(&part),
                Some(Err(())) => return Err(Goodbye::gone()),
                None => return Ok(None),
            }
        }
    }
}
