//! Convolutions over time on `[batch, time, channels]`, one-shot and streaming, and transposed convolutions.
//!
//! With channels innermost a convolution is a linear layer over overlapping windows, so its results are the same bits
//! for any chunking and any batch. The padding rules are EnCodec's (`StreamableConv1d`, `StreamableConvTranspose1d`).

use candle_core::{D, Tensor};

use super::super::{
    config::{CodecConfig, PadMode},
    error::Result,
    kernels::{Epilogue, Linear, WeightFormat},
    weights::Weights,
};

/// The effective weight `shape` of a weight-normalised layer: g v / ‖v‖, the norm over all axes but the first. Reads
/// both namings of the two parts, or a weight that was fused before.
///
/// # Errors
/// When no weight of that shape is there.
pub fn fused_weight(weights: &Weights<'_>, shape: [usize; 3]) -> Result<Tensor> {
    let names = [("parametrizations.weight.original0", "parametrizations.weight.original1"), ("weight_g", "weight_v")];
    for (g, v) in names {
        if weights.has(v) {
            let g = weights.get(g, &[shape[0], 1, 1])?;
            let v = weights.get(v, &shape)?;
            let norm = v.sqr()?.flatten_from(1)?.sum_keepdim(D::Minus1)?.sqrt()?.unsqueeze(2)?;
            return Ok(v.broadcast_mul(&g.broadcast_div(&norm)?)?);
        }
    }
    weights.get("weight", &shape)
}

/// Extent, step and padding of a convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
}

impl Shape {
    pub(super) fn plain(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self { inputs, outputs, kernel, stride: 1, dilation: 1 }
    }

    /// Steps that one output sees.
    fn extent(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }

    /// Padding to the left and right.
    pub(super) fn pad(&self, causal: bool) -> (usize, usize) {
        let total = self.extent().saturating_sub(self.stride);
        let right = if causal { 0 } else { total / 2 };
        (total - right, right)
    }
}

/// A convolution with its padding.
pub(super) struct Conv {
    linear: Linear,
    shape: Shape,
    pad: (usize, usize),
    mode: PadMode,
}

/// What a streaming convolution remembers.
#[derive(Debug, Clone)]
pub(super) enum ConvState {
    /// Too little has come to mirror the beginning.
    Start(Option<Tensor>),
    /// The last inputs (padding included) that coming outputs see.
    Running(Option<Tensor>),
}

impl ConvState {
    pub(super) fn new() -> Self {
        Self::Start(None)
    }

    pub(super) fn part(&mut self) -> &mut Option<Tensor> {
        match self {
            Self::Start(tensor) | Self::Running(tensor) => tensor,
        }
    }

    pub(super) fn started(&self) -> bool {
        matches!(self, Self::Running(_))
    }
}

impl Conv {
    pub(super) fn new(weights: &Weights<'_>, config: &CodecConfig, shape: Shape) -> Result<Self> {
        let weights = weights.at("conv");
        let weight = fused_weight(&weights, [shape.outputs, shape.inputs, shape.kernel])?;
        let flat = weight.transpose(1, 2)?.reshape((shape.outputs, shape.kernel * shape.inputs))?;
        let bias = weights.get("bias", &[shape.outputs])?;
        let linear = Linear::new(&flat, Some(bias), weights.target().kernels, WeightFormat::F32)?;
        Ok(Self { linear, shape, pad: shape.pad(config.causal), mode: config.pad_mode })
    }

    /// The whole signal at once.
    pub(super) fn padded(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        let (left, right) = self.pad;
        let (length, extent, stride) = (x.dim(1)?, self.shape.extent(), self.shape.stride);
        // The last window is filled up, so that no input is lost to the stride.
        let steps = (length + left + right).saturating_sub(extent).div_ceil(stride);
        let extra = (steps * stride + extent).saturating_sub(length + left + right);
        self.valid(&pad(x, left, right + extra, self.mode)?, epilogue)
    }

    /// Every window that lies inside of `x`.
    fn valid(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        let Shape { kernel, stride, dilation, .. } = self.shape;
        Ok(self.linear.windows(x, kernel, stride, dilation, epilogue)?)
    }

    /// Takes the next piece of a signal, or its end; gives what is final. Only for stride 1.
    pub(super) fn push(
        &self,
        state: &mut ConvState,
        x: Option<&Tensor>,
        last: bool,
        add: Option<&mut Delayed>,
    ) -> Result<Option<Tensor>> {
        let (left, right) = self.pad;
        let mut signal = joined(state.part().take(), x)?;
        if let ConvState::Start(pending) = state {
            let Some(so_far) = signal else { return Ok(None) };
            let most = if self.mode == PadMode::Reflect { left.max(right) } else { 0 };
            if so_far.dim(1)? <= most {
                if last {
                    let whole = pad(&so_far, left, right, self.mode)?;
                    return Ok(Some(self.take(&whole, add)?));
                }
                *pending = Some(so_far);
                return Ok(None);
            }
            signal = Some(pad(&so_far, left, 0, self.mode)?);
            *state = ConvState::Running(None);
        }
        let Some(mut signal) = signal else { return Ok(None) };
        if last {
            signal = pad(&signal, 0, right, self.mode)?;
        }
        let (length, extent) = (signal.dim(1)?, self.shape.extent());
        let kept = (extent - 1).min(length);
        *state.part() = match kept {
            0 => None,
            _ => Some(signal.narrow(1, length - kept, kept)?.contiguous()?),
        };
        if length < extent {
            return Ok(None);
        }
        Ok(Some(self.take(&signal, add)?))
    }

    fn take(&self, signal: &Tensor, add: Option<&mut Delayed>) -> Result<Tensor> {
        match add {
            None => self.valid(signal, Epilogue::None),
            Some(delayed) => {
                let steps = signal.dim(1)? + 1 - self.shape.extent();
                self.valid(signal, Epilogue::Add(&delayed.take(steps)?))
            }
        }
    }
}

/// A signal that waits for another path to catch up.
#[derive(Debug, Clone, Default)]
pub(super) struct Delayed(pub Option<Tensor>);

impl Delayed {
    pub(super) fn push(&mut self, x: &Tensor) -> Result<()> {
        self.0 = joined(self.0.take(), Some(x))?;
        Ok(())
    }

    fn take(&mut self, steps: usize) -> Result<Tensor> {
        let Some(waiting) = self.0.take() else {
            return Err(candle_core::Error::Msg("a residual path ran ahead of its input".into()).into());
        };
        let rest = waiting.dim(1)? - steps;
        if rest > 0 {
            self.0 = Some(waiting.narrow(1, steps, rest)?.contiguous()?);
        }
        Ok(waiting.narrow(1, 0, steps)?.contiguous()?)
    }
}

pub(super) fn joined(first: Option<Tensor>, second: Option<&Tensor>) -> Result<Option<Tensor>> {
    Ok(match (first, second) {
        (Some(first), Some(second)) => Some(Tensor::cat(&[&first, second], 1)?),
        (Some(only), None) => Some(only),
        (None, Some(only)) => Some(only.clone()),
        (None, None) => None,
    })
}

/// Fills up a signal over time. Mirroring needs more samples than padding: a shorter signal is first filled up with
/// zeros on the right, mirrored, and the surplus cut.
fn pad(x: &Tensor, left: usize, right: usize, mode: PadMode) -> Result<Tensor> {
    if left + right == 0 {
        return Ok(x.clone());
    }
    if mode == PadMode::Constant {
        return Ok(x.pad_with_zeros(1, left, right)?);
    }
    let length = x.dim(1)?;
    let extra = (left.max(right) + 1).saturating_sub(length);
    let x = if extra > 0 { x.pad_with_zeros(1, 0, extra)? } else { x.clone() };
    let edge = (length + extra - 1) as i64;
    let mirrored = |index: i64| {
        let index = index.abs();
        (if index > edge { 2 * edge - index } else { index }) as u32
    };
    let end = (length + right) as i64;
    let indices: Vec<u32> = (-(left as i64)..end).map(mirrored).collect();
    Ok(x.contiguous()?.index_select(&Tensor::new(indices, x.device())?, 1)?)
}

/// A transposed convolution: every input frame becomes `stride` outputs, with overlaps added.
pub(super) struct Upsample {
    linear: Linear,
    stride: usize,
    /// Input frames that one output frame sees.
    span: usize,
    /// Outputs cut at the beginning and at the end.
    trim: (usize, usize),
    outputs: usize,
}

/// What a streaming transposed convolution remembers.
#[derive(Debug, Clone, Default)]
pub(super) struct UpsampleState {
    /// The last `span - 1` inputs.
    pub before: Option<Tensor>,
    /// Outputs cut at the beginning so far.
    pub cut: usize,
}

/// Outputs that a transposed convolution of kernel `2 ratio` loses on the left and right.
pub(super) fn trim(config: &CodecConfig, ratio: usize) -> (usize, usize) {
    let total = ratio;
    let right = if config.causal { (total as f64 * config.trim_right_ratio).ceil() as usize } else { total / 2 };
    (total - right, right)
}

impl Upsample {
    pub(super) fn new(
        weights: &Weights<'_>,
        config: &CodecConfig,
        inputs: usize,
        outputs: usize,
        ratio: usize,
    ) -> Result<Self> {
        let weights = weights.at("conv");
        let span = 2;
        let weight = fused_weight(&weights, [inputs, outputs, span * ratio])?;
        // [in, out, tap block, tap] to [tap, out, tap block reversed, in]: the earlier frame meets the later taps.
        let weight = weight.reshape((inputs, outputs, span, ratio))?.permute((3, 1, 2, 0))?.contiguous()?;
        let order: Vec<u32> = (0..span as u32).rev().collect();
        let weight = weight.index_select(&Tensor::new(order, weight.device())?, 2)?;
        let flat = weight.reshape((ratio * outputs, span * inputs))?;
        let bias = weights.get("bias", &[outputs])?.repeat(ratio)?;
        let linear = Linear::new(&flat, Some(bias), weights.target().kernels, WeightFormat::F32)?;
        Ok(Self { linear, stride: ratio, span, trim: trim(config, ratio), outputs })
    }

    pub(super) fn push(&self, state: &mut UpsampleState, x: Option<&Tensor>, last: bool) -> Result<Option<Tensor>> {
        let before = match (state.before.take(), x) {
            (Some(before), _) => Some(before),
            // Nothing precedes the first frame.
            (None, Some(x)) => Some(x.narrow(1, 0, 1)?.zeros_like()?.repeat((1, self.span - 1, 1))?),
            (None, None) => None,
        };
        let Some(mut signal) = joined(before, x)? else { return Ok(None) };
        if last {
            signal = signal.pad_with_zeros(1, 0, self.span - 1)?;
        }
        let kept = self.span - 1;
        let length = signal.dim(1)?;
        state.before = Some(signal.narrow(1, length - kept, kept)?.contiguous()?);
        if length < self.span {
            return Ok(None);
        }
        let blocks = self.linear.windows(&signal, self.span, 1, 1, Epilogue::None)?;
        let (batch, count, _) = blocks.dims3()?;
        let mut out = blocks.reshape((batch, count * self.stride, self.outputs))?;
        let cut = (self.trim.0 - state.cut).min(count * self.stride);
        state.cut += cut;
        let end = if last { self.trim.1 } else { 0 };
        let rest = (count * self.stride - cut).saturating_sub(end);
        if rest == 0 {
            return Ok(None);
        }
        if cut + end > 0 {
            out = out.narrow(1, cut, rest)?.contiguous()?;
        }
        Ok(Some(out))
    }
}
