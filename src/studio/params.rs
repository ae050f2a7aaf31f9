//! Names and parameters of clip work, parsed and bounded once.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::StudioError;
use crate::engine::{MAX_PROMPT_CHARS, SamplingPatch};

/// Seconds of a generated piece when nothing else is said: the original's fixed length.
pub const PIECE_SECONDS: f64 = 30.0;
/// Seconds of the sound that a piece goes on from, likewise.
pub const PROMPT_SECONDS: f64 = 6.0;
/// Seconds of a generated piece at most.
pub const MAX_PIECE_SECONDS: f64 = 300.0;

/// A producer's chain of clips. Clients may bring their own id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct SessionId(String);

impl SessionId {
    /// A new random one.
    pub fn random() -> Self {
        Self(Uuid::new_v4().to_string())
    }

    /// One that a client sent.
    ///
    /// # Errors
    /// [`StudioError::Invalid`] for what no server ever gave out.
    pub fn parse(text: &str) -> Result<Self, StudioError> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if text.is_empty() || text.len() > 64 || !text.chars().all(fine) {
            return Err(StudioError::Invalid(
                "The session id must have 1 to 64 letters, digits, dashes, dots or underscores.".into(),
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random one.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.simple().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::try_parse(text).map(Self)
            }
        }
    };
}

id!(
    /// One clip: the work and its result.
    ClipId
);
id!(
    /// One stored sound.
    AudioId
);

/// Who asked, for fairness alone: an address, a socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner(pub String);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Verb)]
pub enum Kind {
    /// A new piece from text alone.
    Generate,
    /// A new piece that goes on from the *first* seconds of a sound.
    Bang,
    /// The sound with a piece at its end that goes on from its *last* seconds.
    Continue,
    /// The last continue once more, with other luck.
    Retry,
    /// The sound turned into another, with its tempo and its chords.
    Transform,
    /// A loop, or another piece of the loop model's window.
    Loop,
    /// A sound that somebody brought. It is complete when it is written down.
    Upload,
    /// A part of a sound, likewise.
    Crop,
}

/// What waits in the same line: pieces for places among the voices, transforms and loops each for
/// their solver. A loop of a moment does not wait for a transform of minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Pieces of music.
    Pieces,
    /// Recordings in another sound.
    Transforms,
    /// Loops.
    Loops,
}

impl Lane {
    /// Every lane, in their order.
    pub const ALL: [Self; 3] = [Self::Pieces, Self::Transforms, Self::Loops];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pieces => "pieces",
            Self::Transforms => "transforms",
            Self::Loops => "loops",
        }
    }
}

impl Kind {
    /// Its name in the store and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Bang => "bang",
            Self::Continue => "continue",
            Self::Retry => "retry",
            Self::Transform => "transform",
            Self::Loop => "loop",
            Self::Upload => "upload",
            Self::Crop => "crop",
        }
    }

    /// Every kind.
    const ALL: [Self; 8] = [
        Self::Generate,
        Self::Bang,
        Self::Continue,
        Self::Retry,
        Self::Transform,
        Self::Loop,
        Self::Upload,
        Self::Crop,
    ];

    /// Where it waits, if it does.
    pub fn lane(self) -> Lane {
        match self {
            Self::Transform => Lane::Transforms,
            Self::Loop => Lane::Loops,
            _ => Lane::Pieces,
        }
    }

    /// Whether it is music that a voice makes.
    pub fn is_piece(self) -> bool {
        matches!(self, Self::Generate | Self::Bang | Self::Continue | Self::Retry)
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// How a piece is made. What a request leaves out has its default here, decided by the surface that
/// took the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// A Hugging Face id, a folder or a short name; empty is the server's default model.
    pub model: String,
    /// Seconds of the given sound that the piece goes on from.
    pub prompt_seconds: f64,
    /// Seconds of the piece, the prompt included.
    pub seconds: f64,
    /// See [`SamplingPatch::top_k`].
    pub top_k: u32,
    /// See [`SamplingPatch::temperature`].
    pub temperature: f32,
    /// See [`SamplingPatch::guidance`].
    pub guidance: f32,
    /// What it should sound like; empty is nothing said.
    pub description: String,
    /// The same seed with the same rest makes the same piece; a random one is drawn when absent.
    pub seed: Option<u64>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            model: String::new(),
            prompt_seconds: PROMPT_SECONDS,
            seconds: PIECE_SECONDS,
            top_k: 250,
            temperature: 1.0,
            guidance: 3.0,
            description: String::new(),
            seed: None,
        }
    }
}

impl Params {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`StudioError::Invalid`] with a sentence that says which value to change.
    pub fn validate(&self) -> Result<(), StudioError> {
        let out = |field: &'static str, value: f64, least: f64, most: f64| {
            Err(StudioError::OutOfBounds { field, value, least, most })
        };
        if !(1.0..=MAX_PIECE_SECONDS).contains(&self.seconds) {
            return out("seconds", self.seconds, 1.0, MAX_PIECE_SECONDS);
        }
        let most = (self.seconds - 1.0).max(0.5);
        if !(0.5..=most).contains(&self.prompt_seconds) {
            return out("prompt_seconds", self.prompt_seconds, 0.5, most);
        }
        if !(0.0..=4.0).contains(&self.temperature) {
            return out("temperature", self.temperature.into(), 0.0, 4.0);
        }
        if !(0.0..=20.0).contains(&self.guidance) {
            return out("guidance", self.guidance.into(), 0.0, 20.0);
        }
        let chars = self.description.chars().count();
        if chars > MAX_PROMPT_CHARS {
            return Err(StudioError::Invalid(format!(
                "The description has {chars} characters; shorten it to {MAX_PROMPT_CHARS}."
            )));
        }
        if self.model.len() > 200 || self.model.chars().any(char::is_control) {
            return Err(StudioError::Invalid("The model's name is too long, or holds control characters.".into()));
        }
        Ok(())
    }

    /// The model as the loader knows it: short names are Meta's, an empty one is the default.
    pub fn model_name(&self) -> Option<String> {
        match self.model.trim() {
            "" => None,
            short @ ("small" | "medium" | "large" | "melody" | "style") => Some(format!("facebook/musicgen-{short}")),
            name => Some(name.to_owned()),
        }
    }

    /// The text to play by: what was described; else the two orchestra fine-tunes want the words of
    /// their training.
    pub fn text(&self) -> &str {
        const ORCHESTRA: &str = "violin, epic, film, piano, strings, orchestra";
        match self.description.trim() {
            "" if ["thepatch/gary_orchestra", "thepatch/gary_orchestra_2"].contains(&self.model.trim()) => ORCHESTRA,
            text => text,
        }
    }

    /// Its sampling parameters as the engine takes them.
    pub fn sampling(&self) -> SamplingPatch {
        SamplingPatch {
            temperature: Some(self.temperature),
            top_k: Some(self.top_k),
            guidance: Some(self.guidance),
            seed: self.seed,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bounds_are_kept_and_named() {
        assert!(Params::default().validate().is_ok());
        for (params, word) in [
            (Params { prompt_seconds: 30.0, ..Params::default() }, "prompt_seconds"),
            (Params { prompt_seconds: f64::NAN, ..Params::default() }, "prompt_seconds"),
            (Params { prompt_seconds: -1.0, ..Params::default() }, "prompt_seconds"),
            (Params { seconds: 1e9, ..Params::default() }, "seconds"),
            (Params { temperature: -0.1, ..Params::default() }, "temperature"),
            (Params { guidance: f32::INFINITY, ..Params::default() }, "guidance"),
            (Params { description: "x".repeat(2000), ..Params::default() }, "description"),
        ] {
            assert!(params.validate().unwrap_err().to_string().contains(word), "{params:?}");
        }
    }

    #[test]
    fn names_of_models_and_sessions() {
        let named = |model: &str| Params { model: model.into(), ..Params::default() };
        assert_eq!(named("small").model_name().as_deref(), Some("facebook/musicgen-small"));
        assert_eq!(named(" ").model_name(), None);
        assert!(named("thepatch/gary_orchestra").text().contains("violin"));
        assert!(SessionId::parse(SessionId::random().as_str()).is_ok());
        for bad in ["", "../../etc/passwd", "a b", &"x".repeat(65)] {
            assert!(SessionId::parse(bad).is_err());
        }
        let id = ClipId::random();
        assert_eq!(id.to_string().parse::<ClipId>().unwrap(), id);
    }
}
