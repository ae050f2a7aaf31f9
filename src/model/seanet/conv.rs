//! Convolutions and transposed convolutions over time on `[batch, time, channels]`, piece by piece.
//!
//! With channels innermost a convolution is a linear layer over overlapping windows, so its results
//! are the same bits for any chunking and any batch. The padding rules are EnCodec's
//! (`StreamableConv1d`, `StreamableConvTranspose1d`) and plain zero padding.

use candle_core::{D, Tensor};

use super::super::{
    config::PadMode,
    error::Result,
    kernels::{Epilogue, Kernels, Linear, WeightFormat, join},
    weights::Weights,
};

/// The effective weight `shape` of a weight-normalised layer: g v / ‖v‖, the norm over all axes but
/// the first. Reads both namings of the two parts, or a weight that was fused before.
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

/// Sizes of a convolution.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Channels of the signal.
    pub inputs: usize,
    /// Channels of the result.
    pub outputs: usize,
    /// Taps.
    pub kernel: usize,
    /// Steps between two results.
    pub stride: usize,
    /// Steps between two taps.
    pub dilation: usize,
}

impl Shape {
    /// Every step, without gaps.
    pub fn plain(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self { inputs, outputs, kernel, stride: 1, dilation: 1 }
    }

    /// Steps that one output sees.
    pub fn extent(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }
}

/// What a convolution assumes outside of the signal.
#[derive(Debug, Clone, Copy)]
pub struct Padding {
    /// Steps before the beginning.
    pub left: usize,
    /// Steps after the end.
    pub right: usize,
    /// Their values.
    pub mode: PadMode,
    /// The last window is filled up, so that no input is lost to the stride; else what does not
    /// fill one is left out.
    pub fill: bool,
}

impl Padding {
    /// Padding that the end of a signal may need at most.
    fn most_right(&self, stride: usize) -> usize {
        self.right + if self.fill { stride - 1 } else { 0 }
    }

    /// Steps that must have come before the beginning can be padded.
    pub fn mirrored(&self, stride: usize) -> usize {
        if self.mode == PadMode::Reflect { self.left.max(self.most_right(stride)) } else { 0 }
    }
}

/// What becomes of a convolution's outputs.
pub enum Then<'a> {
    /// Nothing.
    Nothing,
    /// ELU; for a convolution with a bias.
    Elu,
    /// What waits is added to them; for stride 1.
    Add(&'a mut DelayLine),
}

/// A convolution with its padding.
pub struct StreamingConv1d {
    linear: Linear,
    kernels: Kernels,
    shape: Shape,
    padding: Padding,
}

/// What a streaming convolution remembers.
#[derive(Debug, Clone)]
pub enum ConvState {
    /// Too little has come to mirror the beginning.
    Start(Option<Tensor>),
    /// The last inputs (padding included) that coming outputs see, and how many at their beginning
    /// are only there to be mirrored.
    Running(Option<Tensor>, usize),
}

impl Default for ConvState {
    fn default() -> Self {
        Self::Start(None)
    }
}

impl ConvState {
    /// What is remembered.
    pub fn part(&mut self) -> &mut Option<Tensor> {
        match self {
            Self::Start(tensor) | Self::Running(tensor, _) => tensor,
        }
    }

    /// Equal for states whose next piece can be joined to a batch, apart from the lengths of their
    /// tensors.
    pub fn phase(&self) -> usize {
        match self {
            Self::Start(_) => 0,
            Self::Running(_, skip) => 1 + skip,
        }
    }
}

impl StreamingConv1d {
    /// Reads the weight and, where there is one, the bias below `weights`.
    ///
    /// # Errors
    /// When one is absent or of another shape.
    pub fn new(weights: &Weights<'_>, shape: Shape, padding: Padding, bias: bool) -> Result<Self> {
        let weight = fused_weight(weights, [shape.outputs, shape.inputs, shape.kernel])?;
        let flat = weight.transpose(1, 2)?.reshape((shape.outputs, shape.kernel * shape.inputs))?;
        let bias = if bias { Some(weights.get("bias", &[shape.outputs])?) } else { None };
        let kernels = weights.target().kernels;
        let linear = Linear::new(&flat, bias, kernels, WeightFormat::F32)?;
        Ok(Self { linear, kernels, shape, padding })
    }

    /// Every window that lies inside of `x`.
    fn valid(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        let Shape { kernel, stride, dilation, .. } = self.shape;
        Ok(self.linear.windows(x, kernel, stride, dilation, epilogue)?)
    }

    /// The layer beside a signal that it does not delay: kernel 1, the whole piece at once.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn pointwise(&self, x: &Tensor) -> Result<Tensor> {
        self.valid(x, Epilogue::None)
    }

    /// Takes the next piece of a signal, through ELU if it is `active`, or its end; gives what is
    /// final.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn push(
        &self,
        state: &mut ConvState,
        (x, active): (Option<&Tensor>, bool),
        last: bool,
        then: Then<'_>,
    ) -> Result<Option<Tensor>> {
        let Padding { left, mode, .. } = self.padding;
        let (extent, stride) = (self.shape.extent(), self.shape.stride);
        let mut signal = joined(state.part().take(), (x, active), self.kernels)?;
        if let ConvState::Start(pending) = state {
            let Some(so_far) = signal else { return Ok(None) };
            if !last && so_far.dim(1)? <= self.padding.mirrored(stride) {
                *pending = Some(so_far);
                return Ok(None);
            }
            if last {
                // Both ends at once: a signal shorter than its padding is mirrored as a whole.
                let end = self.end(so_far.dim(1)? + left);
                let Some(end) = end else { return Ok(None) };
                return Ok(Some(self.take(&pad(&so_far, left, end, mode)?, then)?));
            }
            signal = Some(pad(&so_far, left, 0, mode)?);
            *state = ConvState::Running(None, 0);
        }
        let ConvState::Running(kept, skip) = state else { return Ok(None) };
        let Some(signal) = signal else { return Ok(None) };
        let length = signal.dim(1)?;
        if last {
            let Some(end) = self.end(length - *skip) else { return Ok(None) };
            let rest = pad(&signal, 0, end, mode)?;
            return Ok(Some(self.take(&rest.narrow(1, *skip, length + end - *skip)?, then)?));
        }
        let steps = if length < *skip + extent { 0 } else { (length - *skip - extent) / stride + 1 };
        let begin = *skip;
        let next = begin + steps * stride;
        let most = if mode == PadMode::Reflect { self.padding.most_right(stride) } else { 0 };
        // Mirroring the end needs one sample more than is mirrored.
        let mirrored = if most > 0 { most + 1 } else { 0 };
        let from = next.min(length.saturating_sub(mirrored));
        *skip = next - from;
        *kept = if from < length { Some(signal.narrow(1, from, length - from)?.contiguous()?) } else { None };
        if steps == 0 {
            return Ok(None);
        }
        Ok(Some(self.take(&signal.narrow(1, begin, length - begin)?, then)?))
    }

    /// How much padding the end of a signal needs of which `length` steps (left padding included)
    /// are not used up; `None` when nothing more comes out.
    fn end(&self, length: usize) -> Option<usize> {
        let (extent, stride) = (self.shape.extent(), self.shape.stride);
        let padded = length + self.padding.right;
        if !self.padding.fill {
            return (padded >= extent).then_some(self.padding.right);
        }
        // One window more than fit while input is left that none of them has seen.
        let windows = (padded + stride).checked_sub(extent)?.div_ceil(stride);
        (windows > 0).then(|| ((windows - 1) * stride + extent).saturating_sub(length))
    }

    fn take(&self, signal: &Tensor, then: Then<'_>) -> Result<Tensor> {
        match then {
            Then::Nothing => self.valid(signal, Epilogue::None),
            Then::Elu => self.valid(signal, Epilogue::Elu),
            Then::Add(delayed) => {
                let steps = signal.dim(1)? + 1 - self.shape.extent();
                self.valid(signal, Epilogue::Add(&delayed.take(steps)?))
            }
        }
    }
}

/// A signal that waits for another path to catch up.
#[derive(Debug, Clone, Default)]
pub struct DelayLine(pub Option<Tensor>);

impl DelayLine {
    /// Adds a piece.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn push(&mut self, x: &Tensor, kernels: Kernels) -> Result<()> {
        self.0 = joined(self.0.take(), (Some(x), false), kernels)?;
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

/// Two pieces as one; the second through ELU if it is `active`.
pub(in super::super) fn joined(
    first: Option<Tensor>,
    (second, active): (Option<&Tensor>, bool),
    kernels: Kernels,
) -> Result<Option<Tensor>> {
    Ok(match second {
        Some(second) => Some(join(first.as_ref(), second, active, kernels)?),
        None => first,
    })
}

/// Fills up a signal over time. Mirroring needs more samples than padding: a shorter signal is
/// first filled up with zeros on the right, mirrored, and the surplus cut.
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
pub struct StreamingConvTranspose1d {
    linear: Linear,
    kernels: Kernels,
    stride: usize,
    /// Input frames that one output frame sees.
    span: usize,
    /// Outputs cut at the beginning and at the end.
    trim: (usize, usize),
    outputs: usize,
}

/// What a streaming transposed convolution remembers.
#[derive(Debug, Clone, Default)]
pub struct UpsampleState {
    /// The last `span - 1` inputs.
    pub before: Option<Tensor>,
    /// Outputs cut at the beginning so far.
    pub cut: usize,
}

impl StreamingConvTranspose1d {
    /// A layer of kernel `2 ratio` and stride `ratio`, read below `weights`; `trim` outputs are cut
    /// at each end.
    ///
    /// # Errors
    /// When a weight is absent or of another shape.
    pub fn new(
        weights: &Weights<'_>,
        inputs: usize,
        outputs: usize,
        ratio: usize,
        trim: (usize, usize),
    ) -> Result<Self> {
        let span = 2;
        let weight = fused_weight(weights, [inputs, outputs, span * ratio])?;
        // [in, out, tap block, tap] to [tap, out, tap block reversed, in]: the earlier frame meets
        // the later taps.
        let weight = weight.reshape((inputs, outputs, span, ratio))?.permute((3, 1, 2, 0))?.contiguous()?;
        let order: Vec<u32> = (0..span as u32).rev().collect();
        let weight = weight.index_select(&Tensor::new(order, weight.device())?, 2)?;
        let flat = weight.reshape((ratio * outputs, span * inputs))?;
        let bias = weights.get("bias", &[outputs])?.repeat(ratio)?;
        let kernels = weights.target().kernels;
        let linear = Linear::new(&flat, Some(bias), kernels, WeightFormat::F32)?;
        Ok(Self { linear, kernels, stride: ratio, span, trim, outputs })
    }

    /// Takes the next piece of a signal, through ELU if it is `active`, or its end; gives what is
    /// final.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn push(
        &self,
        state: &mut UpsampleState,
        (x, active): (Option<&Tensor>, bool),
        last: bool,
    ) -> Result<Option<Tensor>> {
        let before = match (state.before.take(), x) {
            (Some(before), _) => Some(before),
            // Nothing precedes the first frame.
            (None, Some(x)) => Some(x.narrow(1, 0, 1)?.zeros_like()?.repeat((1, self.span - 1, 1))?),
            (None, None) => None,
        };
        let Some(mut signal) = joined(before, (x, active), self.kernels)? else { return Ok(None) };
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
