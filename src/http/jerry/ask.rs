//! What a request says, as JSON or as a form; every value within its bounds, every mistake a
//! sentence.

use bytes::Bytes;
use warp::http::HeaderMap;

use super::super::gary::Payload;
use super::super::json;
use super::super::query::pairs;
use super::super::{App, form};
use super::Failure;
use crate::engine::{FineTune, Sampler};
use crate::studio::{Owner, Studio};

/// Seeds as the original draws them.
const SEEDS: u64 = (1 << 32) - 1;

/// One request.
pub(super) struct Ask {
    fields: Payload,
    /// The file of a form.
    pub(super) audio: Option<Bytes>,
}

impl Ask {
    pub(super) async fn read(app: &App, body: Bytes, headers: &HeaderMap) -> Result<Self, Failure> {
        let (mut fields, mut audio) = (Vec::new(), None);
        if form::is_multipart(headers) {
            for part in form::parts(body, headers, &app.budget).await? {
                if part.is_file || part.name == "audio_file" {
                    audio = Some(part.content).filter(|content| !content.is_empty());
                } else {
                    let text = part.text()?.to_owned();
                    fields.push((part.name, text));
                }
            }
        } else if matches!(json::first(&body), Some(b'{' | b'[' | b'"')) {
            return Ok(Self { fields: Payload::read(body, &app.budget).await?, audio: None });
        } else {
            let text = std::str::from_utf8(&body).map_err(|_| "Send JSON, or a form.".to_owned())?;
            fields.extend(pairs(text));
        }
        Ok(Self { fields: Payload::of_form(fields), audio })
    }

    /// A text that was sent and is not empty.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Failure> {
        Ok(self.fields.text(name)?.map(str::trim).filter(|text| !text.is_empty()))
    }

    pub(super) fn prompt(&self) -> Result<&str, Failure> {
        let prompt = self.text("prompt")?.ok_or_else(|| "prompt is required; say what to play.".to_owned())?;
        let chars = prompt.chars().count();
        if chars > crate::engine::MAX_PROMPT_CHARS {
            return Err(format!("The prompt has {chars} characters; shorten it.").into());
        }
        Ok(prompt)
    }

    pub(super) fn audio(&self) -> Result<Bytes, Failure> {
        self.audio.clone().ok_or_else(|| "audio_file is required; send a form with a file.".to_owned().into())
    }

    /// A number within bounds.
    pub(super) fn number(&self, name: &str, default: f64, (least, most): (f64, f64)) -> Result<f64, Failure> {
        let number = self.fields.number(name)?.unwrap_or(default);
        if (least..=most).contains(&number) {
            return Ok(number);
        }
        Err(format!("{name} is {number} but must be between {least} and {most}.").into())
    }

    /// A whole number within bounds.
    pub(super) fn whole(&self, name: &str, (least, most): (i64, i64)) -> Result<Option<i64>, Failure> {
        match self.fields.whole(name)? {
            Some(number) if !(least..=most).contains(&number) => {
                Err(format!("{name} is {number} but must be between {least} and {most}.").into())
            }
            number => Ok(number),
        }
    }

    pub(super) fn steps(&self, default: usize, most: i64) -> Result<usize, Failure> {
        Ok(self.whole("steps", (1, most))?.map_or(default, |steps| steps as usize))
    }

    /// The seed; a negative one, or none, is a new one.
    pub(super) fn seed(&self) -> Result<u64, Failure> {
        Ok(self.fields.seed()?.unwrap_or_else(|| crate::studio::random_seed() % SEEDS))
    }

    /// Whether JSON with base64 is wanted, rather than a file.
    pub(super) fn wants_base64(&self) -> Result<bool, Failure> {
        match self.text("return_format")? {
            None | Some("file") => Ok(false),
            Some("base64") => Ok(true),
            Some(other) => Err(format!("return_format is `{}` but must be file or base64.", brief(other)).into()),
        }
    }

    /// Weights in place of the standard ones, if `owner` may name them.
    pub(super) fn model(&self, studio: &Studio, owner: &Owner) -> Result<Option<FineTune>, Failure> {
        match self.text("model_type")? {
            None | Some("standard") => Ok(None),
            Some("finetune") => {
                let (repo, checkpoint) = (self.text("finetune_repo")?, self.text("finetune_checkpoint")?);
                let (Some(repo), Some(checkpoint)) = (repo, checkpoint) else {
                    return Err("A finetune needs finetune_repo and finetune_checkpoint.".to_owned().into());
                };
                let tune = FineTune { repo: repo.to_owned(), checkpoint: checkpoint.to_owned() };
                studio.permit_tune(owner, &tune)?;
                Ok(Some(tune))
            }
            Some(other) => Err(format!("model_type is `{}` but must be standard or finetune.", brief(other)).into()),
        }
    }

    /// The sampler; what a kind of model does not know is its own.
    pub(super) fn sampler(&self) -> Result<Option<Sampler>, Failure> {
        match self.text("sampler_type")? {
            None => Ok(None),
            Some("pingpong") => Ok(Some(Sampler::PingPong)),
            Some("euler" | "rk4") => Ok(Some(Sampler::Euler)),
            Some(name) if name.starts_with("dpmpp") => Ok(Some(Sampler::Dpmpp)),
            Some(other) => {
                Err(format!("sampler_type is `{}` but must be pingpong, euler or dpmpp.", brief(other)).into())
            }
        }
    }

    /// Bars, if a number of them was asked for.
    pub(super) fn bars(&self) -> Result<Option<u32>, Failure> {
        if self.text("bars").ok().flatten() == Some("auto") {
            return Ok(None);
        }
        match self.fields.whole("bars")? {
            None => Ok(None),
            Some(bars @ (1 | 2 | 4 | 8)) => Ok(Some(bars as u32)),
            Some(other) => Err(format!("bars is {other} but must be 1, 2, 4, 8 or auto.").into()),
        }
    }
}

pub(super) fn brief(text: &str) -> String {
    text.chars().take(60).collect()
}
