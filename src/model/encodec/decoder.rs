//! Latents to waveform, exactly and in any chunks.

use candle_core::Tensor;

use super::{
    super::{
        config::{CodecConfig, PadMode},
        error::Result,
        kernels::{Kernels, LstmLayer, LstmState, elu},
        weights::Weights,
    },
    Conv, ConvState, Residual, ResidualState, Shape,
    conv::{Upsample, UpsampleState, joined, trim},
};

/// The decoder half of a codec.
pub struct CodecDecoder {
    first: Conv,
    lstm: Vec<LstmLayer>,
    levels: Vec<(Upsample, Vec<Residual>)>,
    last: Conv,
    kernels: Kernels,
    hop: usize,
    lookahead: usize,
}

/// Where streams of equal progress stand, a batch of them or one. A clone is a snapshot: tensors are shared.
#[derive(Debug, Clone)]
pub struct StreamState {
    first: ConvState,
    lstm: Vec<LstmState>,
    levels: Vec<(UpsampleState, Vec<ResidualState>)>,
    last: ConvState,
    /// Final samples that are not due yet.
    rest: Option<Tensor>,
    /// Samples of the frames that were given, less those that were handed out.
    owed: usize,
}

impl StreamState {
    /// Every tensor, in a fixed order.
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        let mut parts = vec![self.first.part(), self.last.part(), &mut self.rest];
        for (up, residuals) in &mut self.levels {
            parts.push(&mut up.before);
            for residual in residuals {
                parts.push(residual.first.part());
                parts.push(residual.second.part());
                parts.push(&mut residual.beside.0);
            }
        }
        parts.into_iter().flatten().try_for_each(&mut *f)?;
        for state in &mut self.lstm {
            f(&mut state.hidden)?;
            f(&mut state.cell)?;
        }
        Ok(())
    }

    /// Equal for states whose next chunk can be decoded in one batch.
    pub fn phase(&self) -> Vec<usize> {
        let mut phase = vec![self.first.started().into(), self.last.started().into(), self.lstm.len(), self.owed];
        for (up, residuals) in &self.levels {
            phase.push(up.cut);
            for residual in residuals {
                phase.extend([usize::from(residual.first.started()), residual.second.started().into()]);
            }
        }
        let length = |part: &Option<Tensor>| part.as_ref().map_or(0, |tensor| tensor.dims()[1]);
        let mut copy = self.clone();
        phase.extend([length(copy.first.part()), length(copy.last.part()), length(&copy.rest)]);
        for (up, residuals) in &mut copy.levels {
            phase.push(length(&up.before));
            for residual in residuals {
                phase.extend([length(residual.first.part()), length(&residual.beside.0)]);
            }
        }
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

pub(super) fn lstm_layers(config: &CodecConfig, weights: &Weights<'_>, width: usize) -> Result<Vec<LstmLayer>> {
    let lstm = weights.at("lstm");
    let layer = |index: usize| {
        let get = |name: &str, shape: &[usize]| lstm.get(&format!("{name}_l{index}"), shape);
        let (ih, hh) = (get("weight_ih", &[4 * width, width])?, get("weight_hh", &[4 * width, width])?);
        let (bias_ih, bias_hh) = (get("bias_ih", &[4 * width])?, get("bias_hh", &[4 * width])?);
        Ok(LstmLayer::new([&ih, &hh, &bias_ih, &bias_hh], lstm.target().kernels)?)
    };
    (0..config.lstm_layers).map(layer).collect()
}

impl CodecDecoder {
    /// Reads `layers.{n}`, numbered as the checkpoint does (activations count).
    ///
    /// # Errors
    /// When a weight is absent or of another shape.
    pub fn new(config: &CodecConfig, weights: &Weights<'_>) -> Result<Self> {
        let layer = |index: usize| weights.at(format!("layers.{index}"));
        let mut width = config.filters << config.ratios.len();
        let first = Conv::new(&layer(0), config, Shape::plain(config.dim, width, config.kernel))?;
        let lstm = lstm_layers(config, &layer(1), width)?;
        let mut next = if config.lstm_layers > 0 { 2 } else { 1 };
        let mut levels = Vec::new();
        for ratio in &config.ratios {
            let up = Upsample::new(&layer(next + 1), config, width, width / 2, *ratio)?;
            next += 2;
            width /= 2;
            let mut residuals = Vec::new();
            for index in 0..config.residual_layers {
                residuals.push(Residual::new(&layer(next), config, width, index)?);
                next += 1;
            }
            levels.push((up, residuals));
        }
        let last = Conv::new(&layer(next + 1), config, Shape::plain(width, config.channels, config.last_kernel))?;
        let (kernels, hop) = (weights.target().kernels, config.hop());
        Ok(Self { first, lstm, levels, last, kernels, hop, lookahead: lookahead(config) })
    }

    /// Frames after a frame that must be known before it is handed out.
    pub fn lookahead(&self) -> usize {
        self.lookahead
    }

    /// The state of streams that have not begun.
    pub fn start(&self) -> StreamState {
        let level = |(_, residuals): &(Upsample, Vec<Residual>)| {
            (UpsampleState::default(), residuals.iter().map(|_| ResidualState::new()).collect())
        };
        StreamState {
            first: ConvState::new(),
            lstm: Vec::new(),
            levels: self.levels.iter().map(level).collect(),
            last: ConvState::new(),
            rest: None,
            owed: 0,
        }
    }

    /// Takes the next latents `[batch, frames, dim]` of streams, or their end; gives whole frames of sound
    /// `[batch, samples, channels]`. `tap` is shown `conv_in`, `lstm`, `up{n}_convtr` and `up{n}`.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn push(
        &self,
        state: &mut StreamState,
        latents: Option<&Tensor>,
        last: bool,
        tap: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Option<Tensor>> {
        let mut show = |name: &str, x: &Option<Tensor>| {
            if let Some(x) = x {
                tap(name, x);
            }
        };
        let mut x = self.first.push(&mut state.first, latents, last, None)?;
        show("conv_in", &x);
        x = x.map(|x| self.recur(state, x)).transpose()?;
        show("lstm", &x);
        for (index, ((up, residuals), (up_state, states))) in self.levels.iter().zip(&mut state.levels).enumerate() {
            x = x.map(|x| elu(&x, self.kernels)).transpose()?;
            x = up.push(up_state, x.as_ref(), last)?;
            show(&format!("up{index}_convtr"), &x);
            for (residual, state) in residuals.iter().zip(states) {
                x = residual.push(state, x.as_ref(), last)?;
            }
            show(&format!("up{index}"), &x);
        }
        x = x.map(|x| elu(&x, self.kernels)).transpose()?;
        x = self.last.push(&mut state.last, x.as_ref(), last, None)?;
        state.owed += self.hop * latents.map_or(Ok(0), |latents| latents.dim(1))?;
        let Some(wave) = joined(state.rest.take(), x.as_ref())? else { return Ok(None) };
        let length = wave.dim(1)?;
        let due = if last { length } else { length.min(state.owed.saturating_sub(self.lookahead * self.hop)) };
        state.owed -= due.min(state.owed);
        if due < length {
            state.rest = Some(wave.narrow(1, due, length - due)?.contiguous()?);
        }
        Ok(if due > 0 { Some(wave.narrow(1, 0, due)?.contiguous()?) } else { None })
    }

    fn recur(&self, state: &mut StreamState, x: Tensor) -> Result<Tensor> {
        if self.lstm.is_empty() {
            return Ok(x);
        }
        if state.lstm.is_empty() {
            let start = |layer: &LstmLayer| layer.start(x.dim(0)?, &x);
            state.lstm = self.lstm.iter().map(start).collect::<candle_core::Result<_>>()?;
        }
        let mut y = x.clone();
        for (layer, state) in self.lstm.iter().zip(&mut state.lstm) {
            y = layer.forward(&y, state)?;
        }
        Ok((x + y)?)
    }
}

/// Frames after a frame that must be known before it is final, in the midst of a stream and at its beginning, where
/// mirroring needs more than a convolution's own look-ahead. Found by counting samples through the layers.
fn lookahead(config: &CodecConfig) -> usize {
    let conv = |count: usize, shape: Shape| {
        let (left, right) = shape.pad(config.causal);
        let mirrored = if config.pad_mode == PadMode::Reflect { left.max(right) } else { 0 };
        if count <= mirrored { 0 } else { count.saturating_sub(right) }
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
