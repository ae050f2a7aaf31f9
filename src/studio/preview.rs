//! A clip heard while it is made: the sound that it goes on from, then the piece, in the shape of
//! the result.

use std::sync::Arc;

use super::run::work;
use super::{ClipId, ClipTask, Kind, Lane, Status, Studio, StudioError, splice};
use crate::audio::StreamResampler;
use crate::budget::Share;
use crate::pcm::Pcm;
use crate::units::{SampleRate, Samples};

/// Seconds of the given sound that are handed out at once.
const SLICE: f64 = 1.0;

/// A clip that is being made, from its beginning. It is the result but for its level, if that has
/// to be lowered.
pub struct Preview {
    task: Arc<ClipTask>,
    /// Rate and channels; those of the model when there is no given sound.
    shape: Option<(SampleRate, usize)>,
    /// What lies before the piece, and how much of it was handed out.
    head: Option<Pcm>,
    /// The memory that it takes.
    share: Option<Share>,
    given: usize,
    /// What the piece's first moments are faded from.
    joint: Option<Pcm>,
    /// Samples of the piece that were taken from the task.
    heard: usize,
    resampler: Option<StreamResampler>,
    /// Frames of the piece that are still to be handed out; `None` before its rate is known.
    left: Option<usize>,
    over: bool,
}

impl Studio {
    /// A clip that waits or is being made; `None` when it has ended. Transforms and loops cannot be
    /// heard before their end, which is waited for.
    ///
    /// # Errors
    /// [`StudioError::Store`], [`StudioError::Audio`].
    pub async fn preview(&self, clip: ClipId) -> Result<Option<Preview>, StudioError> {
        let Some(task) = self.task(clip) else { return Ok(None) };
        if task.record.kind.lane() != Lane::Pieces {
            // A task that is gone has ended.
            let _ = task.status().wait_for(Status::is_final).await;
            return Ok(None);
        }
        let (kind, params) = (task.record.kind, task.record.params.clone());
        let before = match task.record.input {
            Some(input) => {
                let sound = match self.given.get(input) {
                    Some(sound) => sound,
                    None => {
                        let sound = self.decode(self.store.read(input).await?).await?;
                        Arc::new(work(move || sound.try_map(splice::usable)).await?)
                    }
                };
                let share = self.config.budget.take(sound.bytes()).await?;
                Some(work(move || Ok((splice::before(kind, &sound, &params), share))).await?)
            }
            None => None,
        };
        let (before, share) = before.unzip();
        let shape = before.as_ref().map(|(head, _)| (head.rate, head.channels));
        let (head, joint) = before.unzip();
        Ok(Some(Preview {
            task,
            shape,
            head,
            share,
            given: 0,
            joint,
            heard: 0,
            resampler: None,
            left: None,
            over: false,
        }))
    }
}

impl Preview {
    /// The next sound, at the same rate and with the same channels every time; `None` at the end,
    /// also of a clip that was given up or has failed.
    ///
    /// # Errors
    /// [`StudioError::Audio`].
    pub async fn next(&mut self) -> Result<Option<Pcm>, StudioError> {
        if let Some(head) = self.head.as_ref().filter(|head| self.given < head.frames()) {
            let from = self.given;
            self.given += head.rate.samples(SLICE).0 as usize;
            return Ok(Some(head.cut(from, self.given)));
        }
        (self.head, self.share) = (None, None);
        while !self.over {
            let part = self.task.hear(self.heard).await;
            let mut pcm = Vec::new();
            match part {
                Some(part) => {
                    self.heard += part.pcm.len();
                    let (rate, channels) = *self.shape.get_or_insert((part.rate, part.channels));
                    let piece = splice::with_channels(part, channels);
                    let resampler = match &mut self.resampler {
                        Some(resampler) => resampler,
                        none => none.insert(StreamResampler::new(piece.rate, rate, channels)?),
                    };
                    resampler.push(&piece.pcm, &mut pcm)?;
                }
                None => {
                    self.over = true;
                    if let Some(resampler) = &mut self.resampler {
                        resampler.finish(&mut pcm)?;
                    }
                }
            }
            let Some((rate, channels)) = self.shape else { continue };
            let piece = self.shaped(Pcm { pcm, channels, rate });
            if !piece.pcm.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Fades the first moments, and cuts at the exact end.
    fn shaped(&mut self, mut piece: Pcm) -> Pcm {
        if let Some(joint) = self.joint.take_if(|joint| piece.frames() >= joint.frames()) {
            splice::fade(&joint, &mut piece);
        }
        let Samples(all) = piece.rate.samples(self.task.record.params.seconds);
        let left = self.left.get_or_insert(all as usize);
        let piece = piece.cut(0, *left);
        *left -= piece.frames();
        piece
    }
}

impl Kind {
    /// Whether the result begins with the given sound.
    pub(super) fn keeps_sound(self) -> bool {
        matches!(self, Self::Continue | Self::Retry)
    }
}
