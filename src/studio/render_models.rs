//! What a server can render with: the ways to its models, the presets of transforms, the riffs of
//! loops.

use std::sync::Arc;

use super::{Presets, Riffs, Studio, StudioError};
use crate::engine::{FineTune, RenderInfo, RenderKey, RenderLease, RenderLoader, RenderModel};

/// Loop models that may be loaded at the same time.
pub const MOST_LOOPS: usize = 3;

const NO_TRANSFORM: &str = "This server has no transform model. Its weights are not part of Continuo: start the server with \
     --transform-model facebook/melodyflow-t24-30secs to let it download them once, or name a folder that holds them.";
const NO_LOOP: &str = "This server has no loop model. Its weights are not part of Continuo: accept their licence on \
     huggingface.co, log in with `hf auth login` and start the server with --loop-model \
     stabilityai/stable-audio-open-small, or name a folder that holds them.";

/// Where fine-tunes come from; all of it blocks, and errors are one sentence.
pub trait FineTunes: Send + Sync {
    /// Loads one.
    ///
    /// # Errors
    /// What is missing or wrong.
    fn load(&self, which: &FineTune) -> Result<RenderModel, String>;

    /// Names of the checkpoints in a repository.
    ///
    /// # Errors
    /// Why the repository cannot be looked into.
    fn checkpoints(&self, repo: &str) -> Result<Vec<String>, String>;

    /// Prompts that a repository proposes, in its own words.
    fn prompts(&self, repo: &str) -> Option<serde_json::Value>;
}

/// The models of transforms and loops that a server offers; clones share them.
#[derive(Clone)]
pub struct RenderModels {
    variations: Arc<Presets>,
    transform: Option<RenderLoader>,
    looper: Option<RenderLoader>,
    tuned: Option<Arc<dyn FineTunes>>,
    source: Arc<str>,
    riffs: Riffs,
}

impl RenderModels {
    /// With the ways to load each model, if there are any.
    pub fn new(variations: Presets, transform: Option<RenderLoader>, looper: Option<RenderLoader>) -> Self {
        let (variations, riffs) = (Arc::new(variations), Riffs::default());
        Self { variations, transform, looper, tuned: None, source: "".into(), riffs }
    }

    /// With the loop model's name, and a way to its fine-tunes.
    #[must_use]
    pub fn with_fine_tunes(self, source: &str, tuned: Arc<dyn FineTunes>) -> Self {
        Self { source: source.into(), tuned: Some(tuned), ..self }
    }

    /// With a folder of riffs.
    #[must_use]
    pub fn with_riffs(self, riffs: Riffs) -> Self {
        Self { riffs, ..self }
    }

    /// The presets of transforms.
    pub fn presets(&self) -> &Presets {
        &self.variations
    }

    /// The user's riffs.
    pub fn riffs(&self) -> &Riffs {
        &self.riffs
    }

    /// Where fine-tunes come from, if from anywhere.
    ///
    /// # Errors
    /// [`StudioError::Absent`] without a loop model, [`StudioError::Invalid`] on a server that
    /// cannot load any.
    pub fn fine_tunes(&self) -> Result<Arc<dyn FineTunes>, StudioError> {
        self.loader(&RenderKey::Loop(None))?;
        self.tuned.clone().ok_or_else(|| StudioError::Invalid("This server loads no fine-tunes.".into()))
    }

    /// The name that the loop model was given.
    pub fn loop_source(&self) -> &str {
        &self.source
    }

    /// The way to a model; a fine-tune takes the memory that the loop model does.
    ///
    /// # Errors
    /// [`StudioError::Absent`], [`StudioError::Invalid`].
    pub(super) fn loader(&self, key: &RenderKey) -> Result<RenderLoader, StudioError> {
        let standard = match key {
            RenderKey::Transform => self.transform.as_ref().ok_or(StudioError::Absent(NO_TRANSFORM)),
            RenderKey::Loop(_) => self.looper.as_ref().ok_or(StudioError::Absent(NO_LOOP)),
        }?;
        let RenderKey::Loop(Some(which)) = key else { return Ok(standard.clone()) };
        let (tuned, which) = (self.fine_tunes()?, which.clone());
        Ok(standard.of_same_weight(move || tuned.load(&which)))
    }
}

impl Studio {
    /// A model of transforms or loops, loaded if need be. A further fine-tune takes the place of
    /// the one that was not wanted for longest.
    ///
    /// # Errors
    /// [`StudioError::Absent`], [`StudioError::Invalid`], [`StudioError::Model`].
    pub(super) async fn lease_render(&self, key: &RenderKey) -> Result<RenderLease, StudioError> {
        let loader = self.renders().loader(key)?;
        let held = self.models.renders();
        let loops = held.iter().map(|(key, _)| key).filter(|key| matches!(key, RenderKey::Loop(_)));
        if matches!(key, RenderKey::Loop(_))
            && !held.iter().any(|(known, _)| known == key)
            && loops.clone().count() >= MOST_LOOPS
            && let Some(oldest) = loops.clone().find(|key| matches!(key, RenderKey::Loop(Some(_))))
        {
            self.models.release(oldest);
        }
        Ok(self.models.lease_render(key, &loader).await?)
    }

    /// Whether a model of transforms or loops is loaded.
    ///
    /// # Errors
    /// [`StudioError::Absent`], [`StudioError::Invalid`] when this server has none.
    pub fn holds(&self, key: &RenderKey) -> Result<bool, StudioError> {
        self.renders().loader(key)?;
        Ok(self.models.renders().iter().any(|(known, _)| known == key))
    }

    /// The loop models that are loaded, the latest wanted last.
    ///
    /// # Errors
    /// [`StudioError::Absent`].
    pub fn held_loops(&self) -> Result<Vec<(Option<FineTune>, RenderInfo)>, StudioError> {
        self.renders().loader(&RenderKey::Loop(None))?;
        let held = self.models.renders().into_iter();
        let loops = held.filter_map(|(key, info)| match key {
            RenderKey::Loop(which) => Some((which, info)),
            RenderKey::Transform => None,
        });
        Ok(loops.collect())
    }

    /// Gives back every loop model that is loaded; work that is being done keeps its own until its
    /// end.
    ///
    /// # Errors
    /// [`StudioError::Absent`].
    pub fn clear_loops(&self) -> Result<(), StudioError> {
        for (which, _) in self.held_loops()? {
            self.models.release(&RenderKey::Loop(which));
        }
        Ok(())
    }
}

impl std::fmt::Debug for RenderModels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RenderModels").field("transform", &self.transform.is_some()).finish_non_exhaustive()
    }
}

impl Default for RenderModels {
    /// The built-in presets and no models.
    fn default() -> Self {
        Self::new(Presets::default(), None, None)
    }
}
