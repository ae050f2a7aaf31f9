//! The texts of a model: each is prepared once while it is in use, beside the engine's thread.

use std::sync::{Arc, Mutex};

use hashlink::LruCache;

use super::blend::Part;
use super::shared::lock;
use super::{Condition, Conditioner, EngineError, WeightedPrompt};

/// Prepared texts kept for reuse, at most.
const KEPT: usize = 256;

pub(super) struct Texts {
    conditioner: Arc<dyn Conditioner>,
    kept: Mutex<LruCache<String, Condition>>,
    /// One text is encoded at a time: many of them must not take the processor from the streams.
    encoding: Mutex<()>,
}

impl Texts {
    pub(super) fn new(conditioner: Arc<dyn Conditioner>) -> Arc<Self> {
        Arc::new(Self { conditioner, kept: Mutex::new(LruCache::new(KEPT)), encoding: Mutex::default() })
    }

    /// Has these texts ready for [`Texts::parts`]. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] when the model cannot encode one.
    pub(super) async fn prepare(self: &Arc<Self>, texts: impl IntoIterator<Item = String>) -> Result<(), EngineError> {
        let mut missing: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
        {
            let mut kept = lock(&self.kept);
            missing.retain(|text| kept.get(text).is_none());
        }
        if missing.is_empty() {
            return Ok(());
        }
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || missing.iter().try_for_each(|text| this.condition(text).map(drop)))
            .await
            .map_err(|error| EngineError::Invalid(format!("The prompt cannot be encoded: {error}.")))?
    }

    /// The parts of a blend. Takes no time for texts that are prepared.
    ///
    /// # Errors
    /// As [`Texts::prepare`].
    pub(super) fn parts(&self, prompts: &[WeightedPrompt]) -> Result<Vec<Part>, EngineError> {
        prompts
            .iter()
            .map(|prompt| Ok(Part { prompt: prompt.clone(), condition: self.condition(&prompt.text)? }))
            .collect()
    }

    /// A text as the model takes it; an empty one is nothing.
    ///
    /// # Errors
    /// As [`Texts::prepare`].
    pub(super) fn condition(&self, text: &str) -> Result<Option<Condition>, EngineError> {
        if text.is_empty() {
            return Ok(None);
        }
        if let Some(condition) = lock(&self.kept).get(text) {
            return Ok(Some(condition.clone()));
        }
        let _encoding = lock(&self.encoding);
        // Somebody else may have done it meanwhile.
        if let Some(condition) = lock(&self.kept).get(text) {
            return Ok(Some(condition.clone()));
        }
        let condition = self.conditioner.condition(text).map_err(|fault| {
            EngineError::Invalid(format!("The prompt cannot be encoded: {}. Change its wording.", fault.0))
        })?;
        lock(&self.kept).insert(text.to_owned(), condition.clone());
        Ok(Some(condition))
    }
}

/// The texts that a voice needs, and the model that reads them: what its handles prepare a change
/// with.
pub(super) struct VoiceTexts(Mutex<(Arc<Texts>, Vec<String>)>);

impl VoiceTexts {
    pub(super) fn new(texts: Arc<Texts>, needed: Vec<String>) -> Arc<Self> {
        Arc::new(Self(Mutex::new((texts, needed))))
    }

    pub(super) fn set(&self, texts: Arc<Texts>, needed: Vec<String>) {
        *lock(&self.0) = (texts, needed);
    }

    /// Who reads them.
    pub(super) fn reader(&self) -> Arc<Texts> {
        lock(&self.0).0.clone()
    }

    pub(super) fn needed(&self) -> Vec<String> {
        lock(&self.0).1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Backend;
    use super::super::standin::Standin;
    use super::*;

    #[test]
    fn texts_are_encoded_once_and_the_oldest_is_forgotten() {
        let texts = Texts::new(Standin::default().conditioner());
        let first = texts.condition("piano").ok().flatten();
        let again = texts.condition("piano").ok().flatten();
        assert!(first.zip(again).is_some_and(|(a, b)| Arc::ptr_eq(&a, &b)));
        for i in 0..2 * KEPT {
            assert!(texts.condition(&format!("text {i}")).is_ok());
        }
        assert_eq!(lock(&texts.kept).len(), KEPT);
        assert!(lock(&texts.kept).get("piano").is_none());
    }
}
