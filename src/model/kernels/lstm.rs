//! One LSTM layer over a chunk of time, its state carried from chunk to chunk.

use std::sync::Arc;

use candle_core::{Result, Shape, Tensor};

use super::{
    Epilogue, Kernels, Linear, Native, WeightFormat,
    gemm::{self, Finish, Panels, Product, RowMap},
    math,
    memory::HugePageBuf,
    with_floats,
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
    /// For the native kernel.
    Packed(Arc<Packed>),
    /// `[width, 4 width]`.
    Dense(Tensor),
}

#[derive(Debug)]
enum Packed {
    Floats(HugePageBuf<f32>),
    /// Whole numbers of 16 bits, each output's in steps of its own.
    Whole(HugePageBuf<u32>, Vec<f32>),
}

/// Bytes of weights that no cache keeps from one step of time to the next: reading them is what a
/// step takes, and whole numbers halve it.
const LARGE: usize = 2 << 20;

impl Packed {
    /// From weights `[outputs, inputs]`.
    fn new(weight: &[f32], outputs: usize, inputs: usize) -> Result<Self> {
        let len = gemm::packed_len(outputs, inputs);
        if size_of_val(weight) < LARGE {
            let words = HugePageBuf::new(len, |words| gemm::pack_into(weight, outputs, inputs, words))?;
            return Ok(Self::Floats(words));
        }
        let largest = |row: &[f32]| row.iter().fold(0f32, |most, value| most.max(value.abs()));
        let step = |row: &[f32]| match row.iter().all(|value| value.is_finite()) {
            // An output without weights has no steps either.
            true => (largest(row) / 32_767.0).max(f32::MIN_POSITIVE),
            // No whole number says that there is none.
            false => f32::NAN,
        };
        let steps: Vec<f32> = weight.chunks_exact(inputs).map(step).collect();
        let rows = weight.chunks_exact(inputs).zip(&steps);
        let whole: Vec<f32> = rows.flat_map(|(row, step)| row.iter().map(move |value| value / step)).collect();
        let packed = gemm::pack(&whole, outputs, inputs);
        let words = HugePageBuf::new(len / 2, |words| gemm::round(&packed, words))?;
        Ok(Self::Whole(words, steps))
    }

    /// The product, added to `gates`.
    fn multiply(&self, (x, map): (&[f32], RowMap), width: usize, gates: &[f32]) -> Vec<f32> {
        let (panels, finish) = match self {
            Self::Floats(words) => (Panels::F32(words), Finish::Add(gates)),
            Self::Whole(words, steps) => (Panels::Whole(words), Finish::ScaleAdd(steps, gates)),
        };
        gemm::multiply(panels, Product { inputs: width, outputs: 4 * width, x, map, finish })
    }
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
                let packed = with_floats(&weight_hh.contiguous()?, |weight| Packed::new(weight, gates, width))?;
                Recurrent::Packed(Arc::new(packed))
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
            Recurrent::Packed(weight) => {
                let all = self.native(&gates, weight, state, batch, time)?;
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

    fn native(&self, gates: &Tensor, weight: &Packed, state: &LstmState, batch: usize, time: usize) -> Result<Tensor> {
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
                        let sums = weight.multiply((&hidden, map), width, &now);
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
        agree(20, 1e-5);
        // 32,767 steps to the largest of 512 weights: errors of 1e-5 in sums that are about 1.
        agree(512, 5e-5);
    }

    #[test]
    fn a_bad_weight_is_not_hidden() {
        let width = 512;
        let mut weight = vec![0.1; 4 * width * width];
        weight[7] = f32::NAN;
        let packed = Packed::new(&weight, 4 * width, width).unwrap();
        assert!(matches!(packed, Packed::Whole(..)));
        let sums = packed.multiply((&vec![1.0; width], RowMap::plain(1, width)), width, &vec![0.0; 4 * width]);
        assert!(sums[0].is_nan() && sums[1..].iter().all(|sum| (sum - 51.2).abs() < 1e-2));
    }

    fn agree(width: usize, tolerance: f32) {
        let (batch, time, gates) = (3, 9, 4 * width);
        let deviation = 1.8 / (width as f32).sqrt();
        let random = |shape: &[usize]| Tensor::randn(0f32, deviation, shape, &Device::Cpu).unwrap();
        let weights = [random(&[gates, width]), random(&[gates, width]), random(&[gates]), random(&[gates])];
        let build = |kernels| LstmLayer::new(weights.each_ref(), kernels).unwrap();
        let (native, composed) = (build(Kernels::Native), build(Kernels::Composed));
        let x = Tensor::randn(0f32, 0.4, &[batch, time, width], &Device::Cpu).unwrap();
        let (mut a, mut b) = (native.start(batch, &x).unwrap(), composed.start(batch, &x).unwrap());
        let (whole, expected) = (native.forward(&x, &mut a).unwrap(), composed.forward(&x, &mut b).unwrap());
        let difference = |a: &Tensor, b: &Tensor| {
            (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
        };
        let (apart, cells_apart) = (difference(&whole, &expected), difference(&a.cell, &b.cell));
        assert!(apart < tolerance && cells_apart < tolerance, "{width}: {apart}, {cells_apart}");

        let mut state = native.start(batch, &x).unwrap();
        let first = native.forward(&x.narrow(1, 0, 4).unwrap().contiguous().unwrap(), &mut state).unwrap();
        let second = native.forward(&x.narrow(1, 4, 5).unwrap().contiguous().unwrap(), &mut state).unwrap();
        assert_eq!(difference(&Tensor::cat(&[first, second], 1).unwrap(), &whole), 0.0);
    }
}
