//! Transforms as clips: taken on here, made in `render.rs`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::commands::Work;
use super::{
    Accepted, Kind, Lane, Owner, Params, Render, SessionId, SessionRecord, Studio, StudioError, TransformRequest,
};
use crate::engine::RenderKey;

impl Studio {
    /// The session's sound, or `audio`, turned into another. Without a session there is a new one;
    /// an unknown one is made if there is `audio`.
    ///
    /// # Errors
    /// [`StudioError::Absent`] without the model, [`StudioError::TransformBusy`],
    /// [`StudioError::NoSession`], [`StudioError::NoAudio`], and as [`Studio::generate`].
    pub async fn transform(
        self: &Arc<Self>,
        owner: Owner,
        session: Option<SessionId>,
        request: TransformRequest,
        audio: Option<Bytes>,
    ) -> Result<Accepted, StudioError> {
        let renders = self.renders();
        let params = request.resolve(renders.presets())?;
        renders.loader(&RenderKey::Transform)?;
        if let Some(session) = &session {
            self.is_free(session, Lane::Transforms)?;
        }
        let known = match &session {
            Some(id) => self.known(id).await?,
            None => None,
        };
        let record = match (known, session, &audio) {
            (Some(record), _, Some(_)) => record,
            (Some(record), _, None) if record.current.is_some() => record,
            (_, None, None) | (Some(_), _, None) => return Err(StudioError::NoAudio),
            (None, Some(id), None) => return Err(StudioError::NoSession(id.to_string())),
            (None, id, Some(_)) => {
                SessionRecord::new(id.unwrap_or_else(SessionId::random), "transform", Params::default())
            }
        };
        let audio = self.read_any(audio).await?;
        self.begin(owner, Kind::Transform, record, Work::Render(Render::Transform(params)), (audio, Duration::ZERO))
            .await
    }
}
