//! What stations play by the clock: at a time of day, of the week or of the year other prompts
//! glide in.
//!
//! A timetable is looked up, not counted: whenever it is asked, the last cue of a station says what
//! plays. So a server that begins at ten plays what began at six, and a clock that jumps is
//! followed.

use std::time::Duration;

use cronexpr::Crontab;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::prompt_sets::{Entry, Prompt};
use crate::engine::{Steer, WeightedPrompt};

/// How far back a last time is looked for: near first, since a cue for every minute has many.
const BACK: [SignedDuration; 5] = [hours(1), hours(24), hours(8 * 24), hours(32 * 24), hours(367 * 24)];
/// The machine's clock may be set, and the machine may sleep: it is looked at this often.
const LOOK: Duration = Duration::from_secs(30);
/// Seconds over which prompts replace each other when nobody says otherwise.
pub(super) const RAMP: f32 = 4.0;

const fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

/// Other prompts for a station, at certain times.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Written")]
pub struct Cue {
    /// The station's name.
    pub station: String,
    /// As it was written.
    at: String,
    times: Crontab,
    prompts: Vec<WeightedPrompt>,
    ramp: f32,
}

impl PartialEq for Cue {
    fn eq(&self, other: &Self) -> bool {
        let key = |cue: &Self| (cue.station.clone(), cue.at.clone(), cue.prompts.clone(), cue.ramp);
        key(self) == key(other)
    }
}

#[derive(Deserialize)]
struct Written {
    station: String,
    at: String,
    prompts: Vec<Prompt>,
    #[serde(default)]
    ramp: Option<f32>,
}

impl TryFrom<Written> for Cue {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { station, at, prompts, ramp } = written;
        let times = cronexpr::parse_crontab(&at).map_err(|error| {
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches([' ', '^']);
            format!("`at` is minute, hour, day, month, weekday and zone, as in 0 6 * * mon-fri Europe/Berlin: {reason}")
        })?;
        let prompts: Vec<WeightedPrompt> = prompts.into_iter().map(Into::into).collect();
        let ramp = ramp.unwrap_or(RAMP);
        let steer = Steer { prompts: Some(prompts.clone()), ramp, ..Steer::default() };
        steer.validate().map_err(|error| error.to_string())?;
        Ok(Self { station, at, times, prompts, ramp })
    }
}

impl Cue {
    /// The last time up to now.
    fn last(&self, now: Timestamp) -> Option<Timestamp> {
        BACK.into_iter().find_map(|back| {
            let times = self.times.iter_after(now.checked_sub(back).ok()?).ok()?;
            times.map_while(Result::ok).map(|time| time.timestamp()).take_while(|time| *time <= now).last()
        })
    }

    /// The first time from now on.
    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        self.times.find_next(now).ok().map(|time| time.timestamp())
    }
}

/// Stations, and what the clock changes of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timetable {
    /// What they play without a cue.
    pub stations: Vec<Entry>,
    /// In any order; of two at the same time the later one counts.
    pub cues: Vec<Cue>,
}

impl Timetable {
    /// What is to be on the air now.
    pub fn airings(&self, now: Timestamp) -> Vec<Airing> {
        let airing = |entry: &Entry| {
            let cues = self.cues.iter().filter(|cue| cue.station == entry.name);
            let last = cues.filter_map(|cue| Some((cue.last(now)?, cue))).max_by_key(|(since, _)| *since);
            match last {
                None => Airing::from(entry.clone()),
                Some((since, Cue { prompts, ramp, .. })) => {
                    let entry = Entry { prompts: prompts.clone(), ..entry.clone() };
                    Airing { entry, ramp: *ramp, since: Some(since) }
                }
            }
        };
        self.stations.iter().map(airing).collect()
    }

    /// How long nothing changes, as far as the clock is to be believed.
    pub(super) fn pause(&self, now: Timestamp) -> Duration {
        let next = self.cues.iter().filter_map(|cue| cue.next(now)).min();
        let pause = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
        pause.map_or(LOOK, |pause| pause.min(LOOK))
    }
}

/// What a station is to play, and since when.
#[derive(Debug, Clone, PartialEq)]
pub struct Airing {
    pub(super) entry: Entry,
    /// Seconds in which it glides in.
    pub(super) ramp: f32,
    /// When its cue was; none if there is no cue.
    pub(super) since: Option<Timestamp>,
}

impl From<Entry> for Airing {
    fn from(entry: Entry) -> Self {
        Self { entry, ramp: RAMP, since: None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn cue(at: &str, prompt: &str) -> Cue {
        serde_json::from_value(json!({"station": "lofi", "at": at, "prompts": [prompt], "ramp": 30})).unwrap()
    }

    fn timetable(cues: &[(&str, &str)]) -> Timetable {
        let entry = serde_json::from_value(json!({"name": "lofi", "prompts": ["base"]})).unwrap();
        Timetable { stations: vec![entry], cues: cues.iter().map(|(at, prompt)| cue(at, prompt)).collect() }
    }

    fn plays(timetable: &Timetable, now: &str) -> String {
        timetable.airings(now.parse().unwrap())[0].entry.prompts[0].text.clone()
    }

    #[test]
    fn the_last_cue_says_what_plays_however_long_ago_it_was() {
        let day = timetable(&[("0 6 * * * Europe/Berlin", "morning"), ("30 22 * * * Europe/Berlin", "night")]);
        // Berlin is an hour ahead of UTC in winter and two in summer.
        for (now, prompt) in [
            ("2026-01-10T04:59:59Z", "night"),
            ("2026-01-10T05:00:00Z", "morning"),
            ("2026-01-10T21:30:00Z", "night"),
            ("2026-07-10T03:59:59Z", "night"),
            ("2026-07-10T04:00:00Z", "morning"),
        ] {
            assert_eq!(plays(&day, now), prompt, "{now}");
        }
        let rare = timetable(&[("0 0 24 12 * UTC", "bells"), ("0 20 * * FRI UTC", "party")]);
        assert_eq!(plays(&rare, "2026-12-24T12:00:00Z"), "bells");
        assert_eq!(plays(&rare, "2026-12-25T21:00:00Z"), "party");
        assert_eq!(plays(&timetable(&[("0 0 1 1 * UTC", "new year")]), "2026-12-30T00:00:00Z"), "new year");
        assert_eq!(plays(&timetable(&[("0 0 30 2 * UTC", "never")]), "2026-12-30T00:00:00Z"), "base");
        assert_eq!(plays(&timetable(&[]), "2026-12-30T00:00:00Z"), "base");
        let both = timetable(&[("0 6 * * * UTC", "one"), ("0 6 * * * UTC", "other")]);
        assert_eq!(plays(&both, "2026-12-30T07:00:00Z"), "other");
    }

    #[test]
    fn a_time_that_summer_time_leaves_out_does_not_come_that_day() {
        let early = timetable(&[("30 2 * * * Europe/Berlin", "early"), ("0 0 * * * Europe/Berlin", "midnight")]);
        assert_eq!(plays(&early, "2026-03-28T04:00:00Z"), "early");
        assert_eq!(plays(&early, "2026-03-29T04:00:00Z"), "midnight");
        assert_eq!(plays(&early, "2026-03-30T04:00:00Z"), "early");
    }

    #[test]
    fn the_clock_is_looked_at_again_before_the_next_cue() {
        let day = timetable(&[("0 6 * * * UTC", "morning")]);
        let pause = |now: &str| day.pause(now.parse().unwrap()).as_secs_f64();
        assert_eq!(pause("2026-01-10T05:00:00Z"), 30.0);
        assert_eq!(pause("2026-01-10T05:59:59.75Z"), 0.25);
        assert_eq!(timetable(&[]).pause(Timestamp::UNIX_EPOCH), LOOK);
    }

    #[test]
    fn a_cue_that_cannot_be_is_refused_in_a_sentence() {
        let read = |at: &str, ramp: f32| {
            let written = json!({"station": "lofi", "at": at, "prompts": ["x"], "ramp": ramp});
            serde_json::from_value::<Cue>(written).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(read("0 6 * * mon-fri Europe/Berlin", 4.0), Ok(()));
        for at in ["0 6 * * *", "0 25 * * * UTC", "at six", "0 6 * * * Europe/Atlantis", ""] {
            let error = read(at, 4.0).unwrap_err();
            assert!(error.starts_with("`at` is minute, hour") && !error.contains('\n'), "{error}");
        }
        assert!(read("0 6 * * * UTC", -1.0).unwrap_err().contains("`ramp`"));
    }
}
