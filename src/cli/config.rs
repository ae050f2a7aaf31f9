//! `serve --config FILE`: one file for everything that `serve` can be told.
//!
//! Its keys are the options of `serve` ([`options`]); tables that may be repeated are what options
//! cannot say ([`section`]). The command line and the environment win over the file. Stations
//! follow its edits while they play; whatever else is changed is told to need a new start.

mod document;
mod options;
mod section;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ArgMatches;
use clap::parser::ValueSource;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::document::{Document, Environment, Faults};
pub(super) use self::options::CONFIG;
use self::options::Setting;
use self::section::Section;
use super::Failure;
use crate::http::{Push, Token};
use crate::station::{Cue, Entry, Lineup, Station, Timetable, Watch};

/// Tables that may be repeated.
const SECTIONS: [&str; 4] = [STATIONS, SCHEDULE, PUSH, TOKENS];
const STATIONS: &str = "stations";
const SCHEDULE: &str = "schedule";
const PUSH: &str = "push";
const TOKENS: &str = "tokens";

/// What a file says.
pub(super) struct Config {
    path: PathBuf,
    text: String,
    said: Said,
}

#[derive(Debug, Default, PartialEq)]
struct Said {
    settings: Vec<Setting>,
    timetable: Timetable,
    push: Vec<Push>,
    tokens: Vec<Token>,
}

impl Said {
    /// Keys that take a new start and that one of both does not have, or has with another value.
    fn differing<'a>(&'a self, new: &'a Self) -> Vec<&'a str> {
        let missing = |here: &'a Self, there: &'a Self| {
            here.settings.iter().filter(|setting| !there.settings.contains(setting)).map(|setting| setting.key.as_str())
        };
        let mut keys: Vec<&str> = missing(self, new).chain(missing(new, self)).collect();
        keys.extend((self.push != new.push).then_some(PUSH));
        keys.extend((self.tokens != new.tokens).then_some(TOKENS));
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

impl Section for Entry {
    const LEAST: &str = "name = \"name\"\nprompts = [\"prompt\"]";

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

impl Section for Cue {
    const LEAST: &str = "station = \"name\"\nat = \"0 0 * * * UTC\"\nprompts = [\"prompt\"]";

    fn name(&self) -> Option<&str> {
        None
    }
}

impl Section for Push {
    const LEAST: &str = "station = \"name\"\nurl = \"https://localhost/mount\"\npassword = \"\"";

    fn name(&self) -> Option<&str> {
        None
    }
}

impl Section for Token {
    const LEAST: &str = "name = \"name\"\nscopes = [\"listen\"]\nhash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"";

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// All its faults at once, with their lines.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let text = text(path).map_err(Failure)?;
        let said = said(path, &text, &environment).map_err(|faults| Failure(faults.to_string()))?;
        Ok(Self { path: path.to_owned(), text, said })
    }

    /// Arguments for the options that neither the command line nor the environment gives.
    pub(super) fn arguments(&self, given: &ArgMatches) -> impl Iterator<Item = &String> {
        let is_given = |setting: &Setting| {
            let source = given.value_source(setting.option.as_str());
            matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
        };
        self.said.settings.iter().filter(move |setting| !is_given(setting)).flat_map(|setting| &setting.arguments)
    }

    /// How much it says, in words.
    pub(super) fn summary(&self) -> String {
        let Said { settings, timetable: Timetable { stations, cues }, push, tokens } = &self.said;
        let counts = [
            ("options", settings.len()),
            ("stations", stations.len()),
            ("schedule", cues.len()),
            ("push", push.len()),
            ("tokens", tokens.len()),
        ];
        let counts: Vec<String> = counts.iter().map(|(what, count)| format!("{what}: {count}")).collect();
        format!("{}: no faults; {}.", self.path.display(), counts.join(", "))
    }

    /// Whether there are stations in it.
    pub(super) fn has_stations(&self) -> bool {
        !self.said.timetable.stations.is_empty()
    }

    /// Where stations are sent.
    pub(super) fn push(&self) -> &[Push] {
        &self.said.push
    }

    /// Who may do what.
    pub(super) fn tokens(&self) -> &[Token] {
        &self.said.tokens
    }

    /// Starts its stations, keeps them to its schedule, and follows its edits. Must be called
    /// within a tokio runtime.
    pub(super) async fn follow(self, station: Arc<Station>) -> Following {
        let Self { path, text: read, mut said } = self;
        let (timetables, newest) = watch::channel(said.timetable.clone());
        let mut lineup = Lineup::new(station);
        // Whoever asks first finds them.
        lineup.follow(said.timetable.airings(Timestamp::now())).await;
        let mut watch = Watch::begin({
            let path = path.clone();
            move || text(&path)
        });
        // It may have been edited while a model was loaded.
        let mut is_new = watch.seen().as_ref() != Ok(&read);
        let edits = async move {
            loop {
                let text = if std::mem::take(&mut is_new) { watch.seen() } else { watch.changed().await };
                let now = text
                    .clone()
                    .and_then(|text| self::said(&path, &text, &environment).map_err(|faults| faults.to_string()));
                match now {
                    Ok(now) => {
                        for key in said.differing(&now) {
                            tracing::warn!("{}: `{key}` is another; that takes a new start", path.display());
                        }
                        timetables.send_replace(now.timetable.clone());
                        said = now;
                    }
                    Err(error) => tracing::warn!("{error}\n  The stations stay as they were."),
                }
            }
        };
        Following(tokio::spawn(async move {
            tokio::select! {
                () = lineup.keep(newest, Timestamp::now) => {}
                () = edits => {}
            }
        }))
    }
}

/// Stations that follow a file. Dropping it stops following; the stations play on.
pub(super) struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}.", path.display()))
}

fn said(path: &Path, text: &str, environment: Environment<'_>) -> Result<Said, Faults> {
    let (mut document, root) = Document::read(text, environment);
    let (options, mut settings) = (options::all(), Vec::new());
    for (key, value) in &root {
        let name: &str = key.get_ref();
        if SECTIONS.contains(&name) {
            continue;
        }
        if let Some((_, arg)) = options.iter().find(|(option, _)| option == name) {
            match options::setting(name, arg, value.get_ref()) {
                Ok(setting) => settings.push(setting),
                Err(sentence) => document.fault(value.span(), &sentence),
            }
        } else {
            let known = options.iter().map(|(option, _)| option.as_str()).chain(SECTIONS);
            document.fault(key.span(), &section::unknown(name, known));
        }
    }
    let stations: Vec<Entry> = section::read(&mut document, &root, STATIONS, |_| Ok(()));
    let cues = section::read(&mut document, &root, SCHEDULE, |cue: &Cue| {
        let is_known = stations.iter().any(|station| station.name == cue.station);
        if is_known { Ok(()) } else { Err(format!("`{}` is none of [[{STATIONS}]]", cue.station)) }
    });
    let push = section::read(&mut document, &root, PUSH, |_| Ok(()));
    let tokens = section::read(&mut document, &root, TOKENS, |_| Ok(()));
    let said = Said { settings, timetable: Timetable { stations, cues }, push, tokens };
    document.finish(&path.display().to_string(), said)
}
