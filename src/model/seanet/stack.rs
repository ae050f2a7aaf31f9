//! Layers in a row, with everything that they remember between two pieces.

use candle_core::Tensor;

use super::super::{
    error::Result,
    kernels::{Kernels, LstmLayer, LstmState},
};
use super::{Activation, ConvState, DelayLine, StreamingConv1d, StreamingConvTranspose1d, Then, UpsampleState};

/// Shown the output of every layer, with its path: the layer's index, within a nested stack
/// preceded by that stack's.
pub type Tap<'a> = dyn FnMut(&[usize], &Tensor) + 'a;

/// One layer.
pub enum Layer {
    /// Element-wise.
    Activation(Activation),
    /// A convolution.
    StreamingConv1d(StreamingConv1d),
    /// A transposed convolution.
    StreamingConvTranspose1d(StreamingConvTranspose1d),
    /// Two convolutions beside the identity.
    Residual(Box<Residual>),
    /// Recurrent layers whose output is added to their input.
    Lstm(Vec<LstmLayer>),
    /// Layers that count as one.
    Nested(Vec<Layer>),
}

/// Activation, convolution, activation, convolution, beside the identity or another convolution.
pub struct Residual {
    /// Before each convolution.
    pub activations: [Activation; 2],
    /// The first, with the extent in time.
    pub first: StreamingConv1d,
    /// The second; its kernel is 1.
    pub second: StreamingConv1d,
    /// Beside them, with kernel 1.
    pub shortcut: Option<StreamingConv1d>,
}

/// What a layer remembers between two pieces. A clone is a snapshot: tensors are shared.
#[derive(Debug, Clone)]
pub enum LayerState {
    /// Nothing.
    None,
    /// A convolution's context.
    StreamingConv1d(ConvState),
    /// A transposed convolution's context.
    StreamingConvTranspose1d(UpsampleState),
    /// Both convolutions' contexts and what waits beside them.
    Residual(ConvState, ConvState, DelayLine),
    /// Hidden and cell states; empty before the first step.
    Lstm(Vec<LstmState>),
    /// Those of a nested stack.
    Nested(Vec<LayerState>),
}

impl LayerState {
    /// Every tensor, in a fixed order.
    ///
    /// # Errors
    /// What `f` answers.
    pub fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::StreamingConv1d(state) => state.part().iter_mut().try_for_each(f),
            Self::StreamingConvTranspose1d(state) => state.before.iter_mut().try_for_each(f),
            Self::Residual(first, second, beside) => {
                let parts = [first.part(), second.part(), &mut beside.0];
                parts.into_iter().flatten().try_for_each(f)
            }
            Self::Lstm(states) => states.iter_mut().try_for_each(|state| {
                f(&mut state.hidden)?;
                f(&mut state.cell)
            }),
            Self::Nested(states) => states.iter_mut().try_for_each(|state| state.visit(f)),
        }
    }

    /// Appends numbers that are equal for states whose next piece can be computed in one batch.
    pub fn phase(&self, out: &mut Vec<usize>) {
        let length = |part: &Option<Tensor>| part.as_ref().map_or(0, |tensor| tensor.dims()[1]);
        let conv = |state: &ConvState, out: &mut Vec<usize>| {
            out.extend([state.phase(), length(state.clone().part())]);
        };
        match self {
            Self::None => {}
            Self::StreamingConv1d(state) => conv(state, out),
            Self::StreamingConvTranspose1d(state) => out.extend([state.cut, length(&state.before)]),
            Self::Residual(first, second, beside) => {
                conv(first, out);
                conv(second, out);
                out.push(length(&beside.0));
            }
            Self::Lstm(states) => out.push(states.len()),
            Self::Nested(states) => states.iter().for_each(|state| state.phase(out)),
        }
    }
}

/// Layers in a row.
pub struct Stack {
    layers: Vec<Layer>,
    /// The index of the first one, as taps are told it.
    first: usize,
    kernels: Kernels,
}

impl Stack {
    /// From its layers.
    pub fn new(layers: Vec<Layer>, kernels: Kernels) -> Self {
        Self { layers, first: 0, kernels }
    }

    /// Takes off the layers from `at` on.
    pub fn split_off(&mut self, at: usize) -> Self {
        let layers = self.layers.split_off(at.min(self.layers.len()));
        Self { first: self.first + self.layers.len(), layers, kernels: self.kernels }
    }

    /// The states of signals that have not begun.
    pub fn start(&self) -> Vec<LayerState> {
        states(&self.layers)
    }

    /// The next piece of a signal `[batch, time, channels]`, or its end; gives what became final.
    /// Where nobody is shown the layers, what is done element by element is done with its
    /// neighbours.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn push(
        &self,
        states: &mut [LayerState],
        x: Option<&Tensor>,
        last: bool,
        tap: Option<&mut Tap<'_>>,
    ) -> Result<Option<Tensor>> {
        let mut tap = tap.map(|tap| {
            move |path: &[usize], x: &Tensor| {
                let mut path = path.to_vec();
                path.iter_mut().take(1).for_each(|index| *index += self.first);
                tap(&path, x);
            }
        });
        let tap = tap.as_mut().map(|tap| tap as &mut Tap<'_>);
        run(&self.layers, states, x.cloned(), last, self.kernels, &mut Vec::new(), tap)
    }
}

fn states(layers: &[Layer]) -> Vec<LayerState> {
    let state = |layer: &Layer| match layer {
        Layer::Activation(_) => LayerState::None,
        Layer::StreamingConv1d(_) => LayerState::StreamingConv1d(ConvState::default()),
        Layer::StreamingConvTranspose1d(_) => LayerState::StreamingConvTranspose1d(UpsampleState::default()),
        Layer::Residual(_) => LayerState::Residual(ConvState::default(), ConvState::default(), DelayLine(None)),
        Layer::Lstm(_) => LayerState::Lstm(Vec::new()),
        Layer::Nested(layers) => LayerState::Nested(states(layers)),
    };
    layers.iter().map(state).collect()
}

fn run(
    layers: &[Layer],
    states: &mut [LayerState],
    mut x: Option<Tensor>,
    last: bool,
    kernels: Kernels,
    path: &mut Vec<usize>,
    mut tap: Option<&mut Tap<'_>>,
) -> Result<Option<Tensor>> {
    // The next layer is to take what it is given through ELU.
    let mut active = false;
    for (index, (layer, state)) in layers.iter().zip(states).enumerate() {
        let next = layers.get(index + 1);
        if let (Layer::Activation(Activation::Elu), None) = (layer, &tap)
            && let Some(Layer::StreamingConv1d(_) | Layer::StreamingConvTranspose1d(_)) = next
        {
            active = true;
            continue;
        }
        let active = std::mem::take(&mut active);
        path.push(index);
        x = match (layer, state) {
            (Layer::Activation(activation), _) => x.map(|x| activation.apply(&x, kernels)).transpose()?,
            (Layer::StreamingConv1d(conv), LayerState::StreamingConv1d(state)) => {
                conv.push(state, (x.as_ref(), active), last, Then::Nothing)?
            }
            (Layer::StreamingConvTranspose1d(up), LayerState::StreamingConvTranspose1d(state)) => {
                up.push(state, (x.as_ref(), active), last)?
            }
            (Layer::Residual(residual), LayerState::Residual(first, second, beside)) => {
                residual.push((first, second, beside), x.as_ref(), last, kernels, path, tap.as_deref_mut())?
            }
            (Layer::Lstm(layers), LayerState::Lstm(states)) => x.map(|x| recur(layers, states, &x)).transpose()?,
            (Layer::Nested(layers), LayerState::Nested(states)) => {
                run(layers, states, x, last, kernels, path, tap.as_deref_mut())?
            }
            _ => return Err(candle_core::Error::Msg("a state belongs to another stack".into()).into()),
        };
        if let (Some(x), Some(tap)) = (&x, &mut tap) {
            tap(path, x);
        }
        path.pop();
    }
    Ok(x)
}

fn recur(layers: &[LstmLayer], states: &mut Vec<LstmState>, x: &Tensor) -> Result<Tensor> {
    if states.is_empty() {
        let start = |layer: &LstmLayer| layer.start(x.dim(0)?, x);
        *states = layers.iter().map(start).collect::<candle_core::Result<_>>()?;
    }
    let mut y = x.clone();
    for (layer, state) in layers.iter().zip(states) {
        y = layer.forward(&y, state)?;
    }
    Ok((x + y)?)
}

impl Residual {
    fn push(
        &self,
        (first, second, beside): (&mut ConvState, &mut ConvState, &mut DelayLine),
        x: Option<&Tensor>,
        last: bool,
        kernels: Kernels,
        path: &mut Vec<usize>,
        mut tap: Option<&mut Tap<'_>>,
    ) -> Result<Option<Tensor>> {
        let is_shown = tap.is_some();
        let mut show = |index: usize, x: &Option<Tensor>| {
            if let (Some(x), Some(tap)) = (x, &mut tap) {
                path.push(index);
                tap(path, x);
                path.pop();
            }
        };
        if let Some(x) = x {
            match &self.shortcut {
                Some(conv) => beside.push(&conv.pointwise(x)?, kernels)?,
                None => beside.push(x, kernels)?,
            }
        }
        let then = Then::Add(beside);
        if let ([Activation::Elu, Activation::Elu], false) = (&self.activations, is_shown) {
            let inner = self.first.push(first, (x, true), last, Then::Elu)?;
            return self.second.push(second, (inner.as_ref(), false), last, then);
        }
        let outer = x.map(|x| self.activations[0].apply(x, kernels)).transpose()?;
        show(0, &outer);
        let inner = self.first.push(first, (outer.as_ref(), false), last, Then::Nothing)?;
        show(1, &inner);
        let inner = inner.map(|inner| self.activations[1].apply(&inner, kernels)).transpose()?;
        show(2, &inner);
        self.second.push(second, (inner.as_ref(), false), last, then)
    }
}
