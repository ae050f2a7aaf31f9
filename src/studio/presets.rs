//! Presets of transforms: names that producers know, and what each one asks of the model.

use std::path::Path;

use serde::Deserialize;

use super::StudioError;

/// What the program knows without a file.
const BUILT_IN: &str = include_str!("../../prompts/variations.toml");

/// One preset.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// What the model is asked for.
    pub prompt: String,
    /// Where the way back ends; higher stays closer to the recording.
    #[serde(default = "flowstep")]
    pub flowstep: f32,
    /// Evaluations of the way forth.
    #[serde(default = "steps")]
    pub steps: usize,
}

impl Preset {
    /// The flow step as people write it: four places, without what f32 adds.
    pub fn rounded_flowstep(&self) -> f64 {
        (f64::from(self.flowstep) * 1e4).round() / 1e4
    }
}

fn flowstep() -> f32 {
    0.12
}

fn steps() -> usize {
    25
}

/// All presets, in the order of their file.
#[derive(Debug, Clone, PartialEq)]
pub struct Presets(Vec<(String, Preset)>);

impl Default for Presets {
    /// Those that the program carries.
    fn default() -> Self {
        // A damaged list is noticed by the tests; a server with one has no presets.
        Self::built_in().unwrap_or(Self(Vec::new()))
    }
}

impl Presets {
    /// Those that the program carries.
    ///
    /// # Errors
    /// Never, unless the program was built from a damaged file.
    pub fn built_in() -> Result<Self, StudioError> {
        Self::parse(BUILT_IN, "the built-in presets")
    }

    /// Those of a file.
    ///
    /// # Errors
    /// [`StudioError::Invalid`] with the file's name and what is wrong in it.
    pub fn read(path: &Path) -> Result<Self, StudioError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| StudioError::Invalid(format!("{} cannot be read: {error}.", path.display())))?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, place: &str) -> Result<Self, StudioError> {
        let wrong = |reason: String| StudioError::Invalid(format!("{place} is no list of presets: {reason}."));
        let table: toml::Table = toml::from_str(text).map_err(|error| wrong(error.message().to_owned()))?;
        let order = |name: &str| text.find(&format!("[{name}]")).unwrap_or(usize::MAX);
        let mut all = Vec::new();
        for (name, value) in table {
            let variation: Preset =
                value.try_into().map_err(|error: toml::de::Error| wrong(format!("`{name}`: {}", error.message())))?;
            if !(0.0..1.0).contains(&variation.flowstep) || variation.steps == 0 {
                return Err(wrong(format!("`{name}` has a flowstep or steps out of bounds")));
            }
            all.push((name, variation));
        }
        all.sort_by_key(|(name, _)| order(name));
        Ok(Self(all))
    }

    /// The preset of a name.
    ///
    /// # Errors
    /// [`StudioError::Invalid`] with the names that there are.
    pub fn get(&self, name: &str) -> Result<&Preset, StudioError> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, variation)| variation).ok_or_else(|| {
            StudioError::Invalid(format!("There is no preset `{name}`; take one of {}.", self.names().join(", ")))
        })
    }

    /// All names.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Names and presets.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Preset)> {
        self.0.iter().map(|(name, variation)| (name.as_str(), variation))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_names_that_producers_know_are_there() {
        let all = Presets::built_in().unwrap();
        assert_eq!(all.names().len(), 33);
        assert_eq!(all.names()[0], "accordion_folk");
        let strings = all.get("strings_quartet").unwrap();
        assert_eq!((strings.flowstep, strings.steps), (0.12, 25));
        let error = all.get("kazoo").unwrap_err().to_string();
        assert!(error.contains("`kazoo`") && error.contains("jungle_breaks"), "{error}");
    }

    #[test]
    fn a_wrong_file_says_which_preset_is_wrong() {
        for (text, what) in [
            ("[a]\nflowstep = 0.1", "prompt"),
            ("[a]\nprompt = 'x'\nflowstep = 2.0", "out of bounds"),
            ("[a]\nprompt = 'x'\nspeed = 1", "speed"),
        ] {
            let error = Presets::parse(text, "x.toml").unwrap_err().to_string();
            assert!(error.contains("x.toml") && error.contains("`a`") && error.contains(what), "{error}");
        }
    }
}
