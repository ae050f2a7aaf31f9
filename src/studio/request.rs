//! What a request says about how to make a piece; what it leaves out is decided here, once.

use std::time::Duration;

use super::{PIECE_SECONDS, PROMPT_SECONDS, Params};

/// Parameters as requests carry them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClipRequest {
    /// See [`Params::model`]; `None` is the session's, an empty one the server's default.
    pub model: Option<String>,
    /// See [`Params::prompt_seconds`]; `None` is the session's.
    pub prompt_seconds: Option<f64>,
    /// See [`Params::seconds`].
    pub seconds: Option<f64>,
    /// See [`Params::top_k`]; `None` is the default, not the session's: clients clear a value by
    /// leaving it out.
    pub top_k: Option<u32>,
    /// Likewise.
    pub temperature: Option<f32>,
    /// Likewise.
    pub guidance: Option<f32>,
    /// Likewise.
    pub description: Option<String>,
    /// See [`Params::seed`].
    pub seed: Option<u64>,
    /// How long it waits for a place in a queue that is full; zero: it is refused at once.
    pub wait: Duration,
}

impl ClipRequest {
    /// Decides what is left out, from the session's last parameters if there is one.
    #[must_use]
    pub fn resolve(self, session: Option<&Params>) -> Params {
        let default = Params::default();
        Params {
            model: self.model.or_else(|| session.map(|params| params.model.clone())).unwrap_or_default(),
            prompt_seconds: self
                .prompt_seconds
                .or_else(|| session.map(|params| params.prompt_seconds))
                .unwrap_or(PROMPT_SECONDS),
            seconds: self.seconds.unwrap_or(PIECE_SECONDS),
            top_k: self.top_k.unwrap_or(default.top_k),
            temperature: self.temperature.unwrap_or(default.temperature),
            guidance: self.guidance.unwrap_or(default.guidance),
            description: self.description.unwrap_or_default(),
            seed: self.seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_and_prompt_come_from_the_session_the_rest_from_the_defaults() {
        let session = Params {
            model: "a".into(),
            prompt_seconds: 9.0,
            top_k: 7,
            description: "drums".into(),
            ..Params::default()
        };
        let params = ClipRequest { temperature: Some(0.0), ..ClipRequest::default() }.resolve(Some(&session));
        let expected = Params { model: "a".into(), prompt_seconds: 9.0, temperature: 0.0, ..Params::default() };
        assert_eq!(params, expected);
        assert_eq!(
            ClipRequest { model: Some(String::new()), ..ClipRequest::default() }.resolve(Some(&session)).model,
            ""
        );
    }
}
