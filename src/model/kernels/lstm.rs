//! One LSTM layer over a chunk of time, its state carried from chunk to chunk.

use candle_core::{Result, Shape, Tensor};

use super::{
    Epilogue, Kernels, Linear, Native, WeightFormat,
    gemm::{self, Finish, Panels, Product, RowMap},
    math, with_floats,
};

/// One layer with PyTorch's gate order: input, forget, cell, output.
#[derive(Debug, Clone)]
pub struct LstmLayer {
    /// Input weights with the sum of both biases; run over all steps at once.
    input: Linear,
    recurrent: Recurrent,
    width: usize,
}

#[derive(Debug, Clone)]
enum Recurrent {
    /// Packed for the native kernel.
    Packed(Tensor),
    /// `[width, 4 width]`.
    Dense(Tensor),
}

/// What an LSTM layer remembers: hidden and cell state, each `[batch, width]`.
#[derive(Debug, Clone)]
pub struct LstmState {
    /// Hidden state.
    pub hidden: Tensor,
    /// Cell state.
    pub cell: Tensor,
}

impl LstmLayer {
    /// From PyTorch's `weight_ih`, `weight_hh` (both `[4 width, width]`), `bias_ih` and `bias_hh`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn new(weights: [&Tensor; 4], kernels: Kernels) -> Result<Self> {
        let [weight_ih, weight_hh, bias_ih, bias_hh] = weights;
        let (gates, width) = weight_hh.dims2()?;
        if gates != 4 * width {
            candle_core::bail!("an LSTM's recurrent weight has shape {:?}", weight_hh.shape())
        }
        let input = Linear::new(weight_ih, Some((bias_ih + bias_hh)?), kernels, WeightFormat::F32)?;
        let recurrent = match kernels {
            Kernels::Composed => Recurrent::Dense(weight_hh.t()?.contiguous()?),
            Kernels::Native => {
                let packed = with_floats(&weight_hh.contiguous()?, |weight| Ok(gemm::pack(weight, gates, width)))?;
                let len = packed.len();
                Recurrent::Packed(Tensor::from_vec(packed, len, weight_hh.device())?)
            }
        };
        Ok(Self { input, recurrent, width })
    }

    /// The state before the first step.
    ///
    /// # Errors
    /// When the device fails.
    pub fn start(&self, batch: usize, like: &Tensor) -> Result<LstmState> {
        let zeros = Tensor::zeros((batch, self.width), candle_core::DType::F32, like.device())?;
        Ok(LstmState { hidden: zeros.clone(), cell: zeros })
    }

    /// `[batch, time, width]` to the same shape; `state` moves on by `time` steps.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn forward(&self, x: &Tensor, state: &mut LstmState) -> Result<Tensor> {
        let (batch, time, _) = x.dims3()?;
        let gates = self.input.forward(x, Epilogue::None)?;
        match &self.recurrent {
            Recurrent::Dense(weight) => self.composed(&gates, weight, state, time),
            Recurrent::Packed(words) => {
                let all = with_floats(words, |words| self.native(&gates, words, state, batch, time))?;
                // The native kernel hands back the outputs and, behind them, the last cell state.
                let outputs = all.narrow(0, 0, batch * time * self.width)?.reshape((batch, time, self.width))?;
                state.cell =
                    all.narrow(0, batch * time * self.width, batch * self.width)?.reshape((batch, self.width))?;
                if time > 0 {
                    state.hidden = outputs.narrow(1, time - 1, 1)?.squeeze(1)?.contiguous()?;
                }
                Ok(outputs)
            }
        }
    }

    fn composed(&self, gates: &Tensor, weight: &Tensor, state: &mut LstmState, time: usize) -> Result<Tensor> {
        let width = self.width;
        let mut outputs = Vec::with_capacity(time);
        for t in 0..time {
            let gates = (gates.narrow(1, t, 1)?.squeeze(1)? + state.hidden.matmul(weight)?)?;
            let gate = |index: usize| gates.narrow(1, index * width, width)?.contiguous();
            let sigmoid = |x: Tensor| candle_nn::ops::sigmoid(&x);
            let kept = (sigmoid(gate(1)?)? * &state.cell)?;
            state.cell = (kept + (sigmoid(gate(0)?)? * gate(2)?.tanh()?)?)?;
            state.hidden = (sigmoid(gate(3)?)? * state.cell.tanh()?)?;
            outputs.push(state.hidden.clone());
        }
        Tensor::stack(&outputs, 1)
    }

    fn native(&self, gates: &Tensor, words: &[f32], state: &LstmState, batch: usize, time: usize) -> Result<Tensor> {
        let width = self.width;
        with_floats(&state.hidden, |hidden| {
            with_floats(&state.cell, |cell| {
                gates.apply_op1_no_bwd(&Native("lstm", |gates: &[f32], _: &Shape| {
                    let mut out = vec![0f32; batch * time * width];
                    let (mut hidden, mut cell) = (hidden.to_vec(), cell.to_vec());
                    let mut now = vec![0f32; batch * 4 * width];
                    let map = RowMap::plain(batch, width);
                    for t in 0..time {
                        for (b, now) in now.chunks_exact_mut(4 * width).enumerate() {
                            now.copy_from_slice(&gates[(b * time + t) * 4 * width..][..4 * width]);
                        }
                        let finish = Finish::Add(&now);
                        let product = Product { inputs: width, outputs: 4 * width, x: &hidden, map, finish };
                        let sums = gemm::multiply(Panels::F32(words), product);
                        math::dispatch_simd(
                            #[inline(always)]
                            || {
                                let states = hidden.chunks_exact_mut(width).zip(cell.chunks_exact_mut(width));
                                for (gates, (hidden, cell)) in sums.chunks_exact(4 * width).zip(states) {
                                    step(gates, hidden, cell);
                                }
                            },
                        );
                        for (b, hidden) in hidden.chunks_exact(width).enumerate() {
                            out[(b * time + t) * width..][..width].copy_from_slice(hidden);
                        }
                    }
                    out.extend_from_slice(&cell);
                    let shape = Shape::from(out.len());
                    Ok((out, shape))
                }))
            })
        })
    }
}

#[inline(always)]
fn step(gates: &[f32], hidden: &mut [f32], cell: &mut [f32]) {
    let width = cell.len();
    let (input, rest) = gates.split_at(width);
    let (forget, rest) = rest.split_at(width);
    let (fresh, output) = rest.split_at(width);
    for i in 0..width.min(hidden.len()) {
        cell[i] = math::sigmoid(forget[i]) * cell[i] + math::sigmoid(input[i]) * math::tanh(fresh[i]);
        hidden[i] = math::sigmoid(output[i]) * math::tanh(cell[i]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::Device;

    use super::*;

    #[test]
    fn native_and_composed_agree_and_state_carries_over() {
        let (batch, time, width) = (3, 9, 20);
        let random = |shape: &[usize]| Tensor::randn(0f32, 0.4, shape, &Device::Cpu).unwrap();
        let weights = [random(&[80, width]), random(&[80, width]), random(&[80]), random(&[80])];
        let build = |kernels| LstmLayer::new(weights.each_ref(), kernels).unwrap();
        let (native, composed) = (build(Kernels::Native), build(Kernels::Composed));
        let x = random(&[batch, time, width]);
        let (mut a, mut b) = (native.start(batch, &x).unwrap(), composed.start(batch, &x).unwrap());
        let (whole, expected) = (native.forward(&x, &mut a).unwrap(), composed.forward(&x, &mut b).unwrap());
        let difference = |a: &Tensor, b: &Tensor| {
            (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
        };
        assert!(difference(&whole, &expected) < 1e-5 && difference(&a.cell, &b.cell) < 1e-5);

        let mut state = native.start(batch, &x).unwrap();
        let first = native.forward(&x.narrow(1, 0, 4).unwrap().contiguous().unwrap(), &mut state).unwrap();
        let second = native.forward(&x.narrow(1, 4, 5).unwrap().contiguous().unwrap(), &mut state).unwrap();
        assert_eq!(difference(&Tensor::cat(&[first, second], 1).unwrap(), &whole), 0.0);
    }
}
