//! How pieces, transforms and loops are asked for, as the table keeps it: JSON with the version of
//! its shape.
//!
//! The structs are the program's own. A field that is added gets a default; any other change raises
//! [`VERSION`] and reads the shapes before it here. `fixtures/` has rows of every shape that was
//! ever written; they must stay readable.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The shape that is written now. Before there were versions it was the same.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored<T> {
    #[serde(default)]
    version: u32,
    #[serde(flatten)]
    value: T,
}

/// A value as it is kept.
pub(super) fn write<T: Serialize>(value: &T) -> String {
    serde_json::to_string(&Stored { version: VERSION, value }).unwrap_or_default()
}

/// A kept value; what another version wrote in a shape that is not known here is told and is
/// `None`.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Option<T> {
    match serde_json::from_str(text) {
        Ok(Stored { version, value }) if version <= VERSION => Some(value),
        Ok(Stored { version, .. }) => {
            tracing::warn!(version, "what a clip or a session was asked for was kept by a newer version");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "what a clip or a session was asked for cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::super::{LoopParams, Params, Render, TransformParams};
    use super::*;
    use crate::engine::{FineTune, Given, LoopSettings, LoopSpec, Mask, Sampler, Shape};

    fn params() -> Params {
        Params {
            model: "facebook/musicgen-small".into(),
            prompt_seconds: 5.5,
            seconds: 20.0,
            top_k: 100,
            temperature: 0.9,
            guidance: 4.25,
            description: "drums".into(),
            seed: Some(9_007_199_254_740_993),
        }
    }

    fn transform() -> Render {
        Render::Transform(TransformParams {
            variation: "celtic".into(),
            prompt: "fiddle".into(),
            flowstep: 0.12,
            midpoint: false,
            steps: 25,
            seed: 18_446_744_073_709_551_615,
            keeps_rate: true,
        })
    }

    fn looped() -> Render {
        Render::Loop(LoopParams {
            model: Some(FineTune { repo: "somebody/loops".into(), checkpoint: "a.ckpt".into() }),
            spec: LoopSpec {
                text: "pads".into(),
                avoid: "drums".into(),
                shape: Shape::Loop { bpm: 92.5, bars: 4 },
                seconds: Some(10.5),
                given: Some(Given::Pull { mask: Mask::FirstBar, strength: 0.5, ramp: (1.0, 0.25) }),
                seed: 7,
            },
            settings: LoopSettings { steps: Some(8), guidance: Some(6.0), sampler: Some(Sampler::PingPong) },
        })
    }

    fn varied() -> Render {
        let Render::Loop(params) = looped() else { unreachable!() };
        let spec = LoopSpec { shape: Shape::First(3.5), given: Some(Given::Vary(0.7)), ..params.spec };
        let settings = LoopSettings { sampler: Some(Sampler::Dpmpp), ..params.settings };
        Render::Loop(LoopParams { model: None, spec, settings })
    }

    fn plain() -> Render {
        let Render::Loop(params) = looped() else { unreachable!() };
        let given = Some(Given::Pull { mask: Mask::Fade, strength: 1.0, ramp: (1.0, 1.0) });
        let spec = LoopSpec { shape: Shape::Window, seconds: None, given, ..params.spec };
        let settings = LoopSettings { sampler: Some(Sampler::Euler), steps: None, guidance: None };
        Render::Loop(LoopParams { model: None, spec, settings })
    }

    /// Values in the order of a fixture's lines.
    fn check(fixture: &str) {
        let lines: Vec<&str> = fixture.lines().collect();
        assert_eq!(read::<Params>(lines[0]), Some(params()));
        let renders = [transform(), looped(), varied(), plain()];
        assert_eq!(lines.len(), 1 + renders.len());
        for (line, value) in lines[1..].iter().zip(renders) {
            assert_eq!(read::<Render>(line), Some(value), "{line}");
        }
    }

    #[test]
    fn rows_of_every_version_are_read_as_they_were_meant() {
        check(include_str!("fixtures/version0.jsonl"));
        check(include_str!("fixtures/version1.jsonl"));
    }

    #[test]
    fn what_is_written_now_is_the_newest_fixture() {
        let renders = [transform(), looped(), varied(), plain()];
        let lines: Vec<String> = [write(&params())].into_iter().chain(renders.iter().map(write)).collect();
        assert_eq!(include_str!("fixtures/version1.jsonl").lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn what_another_version_wrote_is_not_taken_for_something_else() {
        for text in ["", "{}", "nonsense", r#"{"version":2,"length":3}"#, r#"{"model":"a","seconds":"long"}"#] {
            assert_eq!(read::<Params>(text), None, "{text}");
        }
        let newer = write(&params()).replace(r#""version":1"#, r#""version":2"#);
        assert_eq!(read::<Params>(&newer), None);
        assert_eq!(read::<Render>(r#"{"version":1,"stretch":{}}"#), None);
    }
}
