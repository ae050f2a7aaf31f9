//! Loops as clips: taken on here, made in `render.rs`.

use std::sync::Arc;
use std::time::Duration;

use super::commands::Work;
use super::{
    Accepted, GivenSound, Kind, LoopParams, Owner, Params, Render, SessionId, SessionRecord, Studio, StudioError,
};
use crate::engine::{FineTune, RenderInfo, RenderKey};

impl Studio {
    /// A loop, or another piece of the loop model's window, in a session that exists or in one of
    /// its own; `given` is the sound that the parameters speak of.
    ///
    /// # Errors
    /// [`StudioError::Absent`] without the model, [`StudioError::Invalid`] for what does not fit
    /// into its window, [`StudioError::NoSession`], [`StudioError::Busy`], and as
    /// [`Studio::generate`].
    pub async fn make_loop(
        self: &Arc<Self>,
        owner: Owner,
        session: Option<SessionId>,
        params: LoopParams,
        given: Option<GivenSound>,
    ) -> Result<Accepted, StudioError> {
        if let Some(tune) = &params.model {
            self.permit_tune(&owner, tune)?;
        }
        let model = self.lease_render(&RenderKey::Loop(params.model.clone())).await?;
        let checked = model.check(&params.spec());
        checked.map_err(|reason| StudioError::Invalid(format!("{reason}.")))?;
        // It waits its turn like anybody else's.
        drop(model);
        let given = self.read_any(given).await?;
        let session = match session {
            Some(id) => self.store.session(&id).await?,
            None => SessionRecord::new(SessionId::random(), "loop", Params::default()),
        };
        self.begin(owner, Kind::Loop, session, Work::Render(Render::Loop(params)), (given, Duration::ZERO)).await
    }

    /// Whether `owner` may name a fine-tune: one that is loaded, or a repository as
    /// [`Studio::permit`] has it.
    ///
    /// # Errors
    /// [`StudioError::NotYours`].
    pub fn permit_tune(&self, owner: &Owner, tune: &FineTune) -> Result<(), StudioError> {
        let held = self.held_loops().unwrap_or_default();
        if held.iter().any(|(which, _)| which.as_ref() == Some(tune)) {
            return Ok(());
        }
        self.permit(owner, &tune.repo).map(drop)
    }

    /// What a loop model is, loaded if need be.
    ///
    /// # Errors
    /// [`StudioError::Absent`], [`StudioError::Invalid`], [`StudioError::Model`].
    pub async fn loop_info(&self, which: Option<&FineTune>) -> Result<RenderInfo, StudioError> {
        Ok(self.lease_render(&RenderKey::Loop(which.cloned())).await?.info())
    }
}
