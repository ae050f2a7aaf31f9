//! Query strings: decoded once, every parameter known by name, every value turned into a type or a
//! clear sentence.

mod decode;

use std::str::FromStr;
use std::time::Duration;

use warp::Filter;

pub(super) use self::decode::{pairs, segment};
use super::auth::PARAMETERS;
use super::seed::{NoSeed, Seed};
use super::sound_paths::Sounds;
use super::{HttpError, when};
use crate::audio::{BitRates, Format, LiveFormat, list};
use crate::engine::{SamplingPatch, VoiceSpec, WeightedPrompt};
use crate::station::{Listen, Stream};
use crate::units::ModelId;

/// Parameters of the voice that a request asks for.
pub(super) const VOICE: [&str; 9] =
    ["prompt", "weight", "seconds", "seed", "model", "temperature", "top_k", "guidance", "max_still"];
/// Parameters of how a listener wants to be served.
pub(super) const LISTEN: [&str; 3] = ["format", "kbps", "latency"];

/// Parameters of where in a stream's past a listener begins.
pub(super) const SHIFT: [&str; 2] = ["from", "at"];

/// The longest `seconds`: a day. Leave it out for an endless stream.
const MAX_SECONDS: f64 = 86_400.0;

/// The longest `wait`, in seconds.
const MAX_WAIT: f64 = 600.0;

/// The parameters of one request.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a query string in which only `known` parameters (and those of [`PARAMETERS`]) may
    /// occur.
    pub fn parse(raw: &str, known: &[&[&str]]) -> Result<Self, HttpError> {
        let pairs = pairs(raw);
        let known: Vec<&str> = known.iter().flat_map(|names| names.iter().copied()).collect();
        match pairs.iter().find(|(name, _)| !PARAMETERS.contains(&name.as_str()) && !known.contains(&name.as_str())) {
            None => Ok(Self(pairs)),
            Some((name, _)) if known.is_empty() => {
                bad(format!("`{}` is not a parameter here; send none.", brief(name)))
            }
            Some((name, _)) => {
                bad(format!("`{}` is not a parameter here; those known are {}.", brief(name), known.join(", ")))
            }
        }
    }

    /// Every value of a parameter that may be repeated.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(is, _)| is == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a parameter that may be sent once.
    pub fn one(&self, name: &str) -> Result<Option<&str>, HttpError> {
        match self.all(name)[..] {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            _ => bad(format!("`{name}` was sent more than once; send it once.")),
        }
    }

    /// Whether any of these parameters was sent, and which.
    pub fn first_of<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        names.iter().copied().find(|name| !self.all(name).is_empty())
    }

    fn number<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, HttpError> {
        self.one(name)?.map(|value| number(name, value, what)).transpose()
    }

    /// The seed, by the rule of every route.
    pub fn seed(&self) -> Result<Seed, HttpError> {
        let Some(text) = self.one("seed")? else { return Ok(Seed::Unsaid) };
        text.parse().map_err(|error: NoSeed| bad_value(format!("`seed` is `{}`; send {error}.", brief(text))))
    }

    /// The blend: the n-th `weight` belongs to the n-th `prompt`.
    fn prompts(&self) -> Result<Vec<WeightedPrompt>, HttpError> {
        let (texts, weights) = (self.all("prompt"), self.all("weight"));
        if !weights.is_empty() && weights.len() != texts.len() {
            let (weights, texts) = (weights.len(), texts.len());
            return bad(format!(
                "There are {texts} `prompt` but {weights} `weight`; send one for each prompt or none."
            ));
        }
        let mut prompts: Vec<WeightedPrompt> = texts.into_iter().map(WeightedPrompt::from).collect();
        for (prompt, weight) in prompts.iter_mut().zip(weights) {
            prompt.weight = number("weight", weight, "a number, for example weight=0.5")?;
        }
        Ok(prompts)
    }

    /// The voice that is asked for, within every bound.
    pub fn voice(&self) -> Result<(VoiceSpec, Option<f64>), HttpError> {
        let spec = VoiceSpec {
            model: self.one("model")?.map(|id| ModelId(id.to_owned())),
            prompts: self.prompts()?,
            sampling: SamplingPatch {
                temperature: self.number("temperature", "a number, for example temperature=1.0")?,
                top_k: self.number("top_k", "a whole number, for example top_k=250")?,
                guidance: self.number("guidance", "a number, for example guidance=3.0")?,
                seed: self.seed()?.exact(),
            },
            max_still: self.number("max_still", "a number of seconds, for example max_still=4")?,
            ..VoiceSpec::endless("")
        };
        spec.validate()?;
        let seconds = self.number("seconds", "a number of seconds, for example seconds=30")?;
        Ok((spec, checked_seconds(seconds)?))
    }

    /// Where in a stream's past to begin, in frames of media time; `None` at its live edge.
    pub fn shift(&self, stream: &Stream) -> Result<Option<u64>, HttpError> {
        let place = self.place()?;
        place.map(|(name, text)| when::frame(stream.journal(), name, text)).transpose()
    }

    /// The same as it was sent: which parameter, and its value.
    pub fn place(&self) -> Result<Option<(&'static str, &str)>, HttpError> {
        match (self.one("from")?, self.one("at")?) {
            (None, None) => Ok(None),
            (Some(text), None) => Ok(Some(("from", text))),
            (None, Some(text)) => Ok(Some(("at", text))),
            (Some(_), Some(_)) => bad("`from` and `at` both say where to begin; send one of them.".into()),
        }
    }

    /// How long a stream or a clip may wait in line where there is no room.
    pub fn wait(&self) -> Result<Option<Duration>, HttpError> {
        match self.number::<f64>("wait", "a number of seconds, for example wait=30")? {
            Some(seconds) if !(0.0..=MAX_WAIT).contains(&seconds) => {
                Err(bad_value(format!("`wait` is {seconds}; send 0 to {MAX_WAIT} seconds.")))
            }
            // Without patience it is refused at once.
            seconds => Ok(seconds.filter(|seconds| *seconds > 0.0).map(Duration::from_secs_f64)),
        }
    }

    /// How the listener wants to be served; `format` overrules the parameter (it is in the path of
    /// some routes).
    pub fn listen(&self, format: Option<Format>) -> Result<Listen, HttpError> {
        let asked = self.one("format")?;
        let format = match format.or_else(|| live_named(asked.unwrap_or(Format::ALL[0].extension()))) {
            Some(format) => format,
            None => {
                let (asked, known) = (brief(asked.unwrap_or_default()), list(Sounds::Live.formats(), ""));
                return bad(format!("`format` is `{asked}`; send {known}."));
            }
        };
        let low_latency = match self.one("latency")? {
            None | Some("normal") => false,
            Some("low") => true,
            Some(other) => return bad(format!("`latency` is `{}`; send low or leave it out.", brief(other))),
        };
        let kbps: Option<u32> = self.number("kbps", "a whole number of kbit/s, for example kbps=96")?;
        let rates = format.live().map_or(BitRates::None, LiveFormat::bit_rates);
        let kbps = match kbps {
            None => rates.usual(),
            Some(_) if rates == BitRates::None => {
                return bad(format!("`kbps` has no meaning for {format}; leave it out."));
            }
            Some(kbps) if rates.nearest(kbps) == kbps => kbps,
            Some(kbps) => {
                return Err(HttpError::Unprocessable(format!("`kbps` is {kbps}; for {format} send {rates}.")));
            }
        };
        Ok(Listen { format, kbps, low_latency })
    }
}

/// A length in seconds within bounds, wherever it was sent.
pub(super) fn checked_seconds(seconds: Option<f64>) -> Result<Option<f64>, HttpError> {
    match seconds {
        Some(seconds) if !(seconds > 0.0 && seconds <= MAX_SECONDS) => Err(HttpError::Unprocessable(format!(
            "`seconds` is {seconds}; send more than 0 and at most {MAX_SECONDS}, or leave it out for an endless stream."
        ))),
        seconds => Ok(seconds),
    }
}

/// A format of streams by one of the names that requests use.
pub(super) fn live_named(name: &str) -> Option<Format> {
    Format::named(name).filter(|format| format.live().is_some())
}

/// The raw query string, empty when there is none. Never rejects.
pub(super) fn raw() -> impl Filter<Extract = (String,), Error = std::convert::Infallible> + Clone {
    warp::query::raw().or(warp::any().map(String::new)).unify()
}

fn number<T: FromStr>(name: &str, value: &str, what: &str) -> Result<T, HttpError> {
    value.trim().parse().map_err(|_| bad_value(format!("`{name}` is `{}`; send {what}.", brief(value))))
}

fn bad<T>(sentence: String) -> Result<T, HttpError> {
    Err(bad_value(sentence))
}

fn bad_value(sentence: String) -> HttpError {
    HttpError::BadRequest(sentence)
}

/// Enough of a client's text to recognise it in an error.
fn brief(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(raw: &str) -> Result<Query, HttpError> {
        Query::parse(raw, &[&VOICE, &LISTEN])
    }

    fn sentence<T>(result: Result<T, HttpError>) -> (u16, String) {
        let error = result.err().unwrap();
        (error.status().as_u16(), error.to_string())
    }

    #[test]
    fn a_voice_is_read_from_the_query() {
        let query = parse(
            "prompt=a&weight=0.25&prompt=b&weight=0.75&seed=7&top_k=50&guidance=1.5&seconds=2.5&model=m&max_still=0",
        );
        let (voice, seconds) = query.unwrap().voice().unwrap();
        assert_eq!(voice.prompts[1], WeightedPrompt { text: "b".into(), weight: 0.75 });
        assert_eq!(voice.sampling.seed, Some(7));
        assert_eq!(voice.sampling.temperature, None);
        assert_eq!(voice.model, Some(ModelId("m".into())));
        assert_eq!((seconds, voice.max_still), (Some(2.5), Some(0.0)));
    }

    #[test]
    fn mistakes_name_the_parameter_and_what_to_send() {
        let (status, text) = sentence(parse("promt=a"));
        assert_eq!(status, 400);
        assert!(text.contains("`promt`") && text.contains("prompt, weight"), "{text}");
        let (status, text) = sentence(parse("prompt=a&seed=x").unwrap().voice());
        assert_eq!(status, 400);
        assert!(text.starts_with("`seed` is `x`; send a whole number from 0"), "{text}");
        let (status, text) = sentence(parse("prompt=a&prompt=b&weight=1").unwrap().voice());
        assert_eq!(status, 400);
        assert!(text.contains("2 `prompt` but 1 `weight`"), "{text}");
        assert_eq!(sentence(parse("prompt=a&temperature=9").unwrap().voice()).0, 422);
        assert_eq!(sentence(parse("prompt=a&max_still=0.5").unwrap().voice()).0, 422);
        assert_eq!(sentence(parse("prompt=a&seconds=-1").unwrap().voice()).0, 422);
        assert_eq!(sentence(parse("prompt=a&seconds=nan").unwrap().voice()).0, 422);
        assert_eq!(sentence(parse("prompt=a&seed=1&seed=2").unwrap().voice()).0, 400);
        let (status, text) = sentence(parse("format=flac").unwrap().listen(None));
        assert_eq!((status, &text[..]), (400, "`format` is `flac`; send ogg, mp3 or wav."));
        assert_eq!(sentence(parse("kbps=999").unwrap().listen(None)).0, 422);
        assert_eq!(sentence(parse("latency=zero").unwrap().listen(None)).0, 400);
    }

    #[test]
    fn formats_have_their_own_default_rate() {
        assert_eq!(parse("").unwrap().listen(None).unwrap().kbps, 96);
        assert_eq!(parse("format=mp3").unwrap().listen(None).unwrap().kbps, 128);
        assert!(parse("latency=low").unwrap().listen(Some(Format::OGG)).unwrap().low_latency);
    }
}
