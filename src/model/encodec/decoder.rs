//! Latents to waveform, exactly and in any chunks.

use candle_core::Tensor;

use super::{
    super::{
        config::CodecConfig,
        error::Result,
        kernels::Kernels,
        seanet::{LayerState, Stack, Tap, joined},
        weights::Weights,
    },
    Builder, Shape, padding, trim,
};

/// Frames of all streams together with which the late layers are worth their weights: with more,
/// what they make of one layer's sound leaves the cache before the next one needs it.
const LATE: usize = 12;

/// The decoder half of a codec.
pub struct CodecDecoder {
    /// Most of the weights, and few steps for each frame: up to the first convolutions behind the
    /// recurrent layers.
    early: Stack,
    /// The others.
    late: Stack,
    kernels: Kernels,
    hop: usize,
    lookahead: usize,
}

/// Where streams of equal progress stand, a batch of them or one. A clone is a snapshot: tensors
/// are shared.
#[derive(Debug, Clone)]
pub struct StreamState {
    early: Vec<LayerState>,
    late: Vec<LayerState>,
    /// Final samples that are not due yet.
    rest: Option<Tensor>,
    /// Samples of the frames that were given, less those that were handed out.
    owed: usize,
}

impl StreamState {
    /// Every tensor, in a fixed order.
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        self.rest.iter_mut().try_for_each(&mut *f)?;
        self.early.iter_mut().chain(&mut self.late).try_for_each(|state| state.visit(f))
    }

    /// Equal for states whose next chunk can be decoded in one batch.
    pub fn phase(&self) -> Vec<usize> {
        let mut phase = vec![self.owed, self.rest.as_ref().map_or(0, |rest| rest.dims()[1])];
        self.early.iter().chain(&self.late).for_each(|state| state.phase(&mut phase));
        phase
    }

    /// Joins states of equal phase to one batch, in order.
    ///
    /// # Errors
    /// When phases differ.
    pub fn stack(states: &[&Self]) -> Result<Self> {
        let mut all: Vec<Vec<Tensor>> = Vec::new();
        for state in states {
            let mut tensors = Vec::new();
            (*state).clone().visit(&mut |tensor| {
                tensors.push(tensor.clone());
                Ok(())
            })?;
            all.push(tensors);
        }
        let mut batch = states[0].clone();
        let mut index = 0;
        batch.visit(&mut |tensor| {
            let parts: Vec<&Tensor> = all.iter().filter_map(|tensors| tensors.get(index)).collect();
            *tensor = Tensor::cat(&parts, 0)?;
            index += 1;
            Ok(())
        })?;
        Ok(batch)
    }

    /// Takes `count` sequences, from `start` on, out of a batch.
    ///
    /// # Errors
    /// When they are out of bounds.
    pub fn narrow(&self, start: usize, count: usize) -> Result<Self> {
        let mut part = self.clone();
        part.visit(&mut |tensor| {
            // A copy: a snapshot must not keep the whole batch in memory.
            *tensor = tensor.narrow(0, start, count)?.force_contiguous()?;
            Ok(())
        })?;
        Ok(part)
    }
}

impl CodecDecoder {
    /// Reads `layers.{n}`, numbered as the checkpoint does (activations count).
    ///
    /// # Errors
    /// When a weight is absent or of another shape.
    pub fn new(config: &CodecConfig, weights: &Weights<'_>) -> Result<Self> {
        let mut build = Builder::new(config, weights);
        let mut width = config.filters << config.ratios.len();
        build.conv(Shape::plain(config.dim, width, config.kernel))?;
        build.lstm(width)?;
        let mut early = 0;
        for (index, ratio) in config.ratios.iter().enumerate() {
            build.active(width)?;
            build.upsample(width, *ratio)?;
            width /= 2;
            build.residuals(width)?;
            if index == 0 {
                early = build.layers.len();
            }
        }
        build.active(width)?;
        build.conv(Shape::plain(width, config.channels, config.last_kernel))?;
        let mut stack = build.finish();
        let late = stack.split_off(early);
        let kernels = weights.target().kernels;
        Ok(Self { early: stack, late, kernels, hop: config.hop(), lookahead: lookahead(config) })
    }

    /// Frames after a frame that must be known before it is handed out.
    pub fn lookahead(&self) -> usize {
        self.lookahead
    }

    /// The state of streams that have not begun.
    pub fn start(&self) -> StreamState {
        StreamState { early: self.early.start(), late: self.late.start(), rest: None, owed: 0 }
    }

    /// Takes the next latents `[batch, frames, dim]` of streams, or their end; gives whole frames
    /// of sound `[batch, samples, channels]`.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn push(
        &self,
        state: &mut StreamState,
        latents: Option<&Tensor>,
        last: bool,
        mut tap: Option<&mut Tap<'_>>,
    ) -> Result<Option<Tensor>> {
        let x = self.early.push(&mut state.early, latents, last, tap.as_deref_mut())?;
        let frames = latents.map_or(Ok(0), |latents| latents.dim(1))?;
        let x = match x {
            Some(x) if frames > 0 && x.dim(0)? > 1 && x.dim(0)? * frames > LATE => {
                self.in_turns(&mut state.late, &x, (LATE / frames).max(1), last, tap)?
            }
            x => self.late.push(&mut state.late, x.as_ref(), last, tap)?,
        };
        state.owed += self.hop * frames;
        let Some(wave) = joined(state.rest.take(), (x.as_ref(), false), self.kernels)? else { return Ok(None) };
        let length = wave.dim(1)?;
        let due = if last { length } else { length.min(state.owed.saturating_sub(self.lookahead * self.hop)) };
        state.owed -= due.min(state.owed);
        if due < length {
            state.rest = Some(wave.narrow(1, due, length - due)?.contiguous()?);
        }
        Ok(if due > 0 { Some(wave.narrow(1, 0, due)?.contiguous()?) } else { None })
    }

    /// The late layers of so many streams `at_once`, then of the next ones.
    fn in_turns(
        &self,
        late: &mut Vec<LayerState>,
        x: &Tensor,
        at_once: usize,
        last: bool,
        mut tap: Option<&mut Tap<'_>>,
    ) -> Result<Option<Tensor>> {
        let all = StreamState { early: Vec::new(), late: std::mem::take(late), rest: None, owed: 0 };
        let batch = x.dim(0)?;
        let (mut parts, mut waves) = (Vec::new(), Vec::new());
        for start in (0..batch).step_by(at_once) {
            let count = at_once.min(batch - start);
            let mut part = all.narrow(start, count)?;
            waves.extend(self.late.push(
                &mut part.late,
                Some(&x.narrow(0, start, count)?),
                last,
                tap.as_deref_mut(),
            )?);
            parts.push(part);
        }
        *late = StreamState::stack(&parts.iter().collect::<Vec<_>>())?.late;
        Ok(if waves.is_empty() { None } else { Some(Tensor::cat(&waves, 0)?) })
    }
}

/// Frames after a frame that must be known before it is final, in the midst of a stream and at its
/// beginning, where mirroring needs more than a convolution's own look-ahead. Found by counting
/// samples through the layers.
fn lookahead(config: &CodecConfig) -> usize {
    let conv = |count: usize, shape: Shape| {
        let padding = padding(config, shape);
        if count <= padding.mirrored(1) { 0 } else { count.saturating_sub(padding.right) }
    };
    let samples = |frames: usize| {
        let mut count = conv(frames, Shape::plain(1, 1, config.kernel));
        for ratio in &config.ratios {
            count = (count * ratio).saturating_sub(trim(config, *ratio).0);
            for index in 0..config.residual_layers {
                let dilation = config.dilation.pow(index as u32);
                count = conv(count, Shape { dilation, ..Shape::plain(1, 1, config.residual_kernel) });
            }
        }
        conv(count, Shape::plain(1, 1, config.last_kernel))
    };
    // Far enough for every layer to have begun.
    let most = 8 + config.kernel + config.last_kernel + config.residual_kernel * config.dilation.pow(4);
    (1..most).map(|frames| frames - samples(frames) / config.hop()).max().unwrap_or(0)
}
