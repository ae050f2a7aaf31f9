//! A weight matrix and its product with rows, or with overlapping windows of rows (a convolution).

use std::sync::Arc;

use candle_core::{DType, Device, Module, Result, Tensor};

use super::{
    Kernels, Native,
    gemm::{self, Finish, Panels, Product, RowMap},
    kernel_pool,
    memory::HugePageBuf,
    quant::{Bits, Quantised},
    with_floats,
};
use crate::units::WeightFormat;

impl WeightFormat {
    /// The type of weights, keys and values where candle's operations run: 16 bits for every format
    /// but f32. candle multiplies bf16 on GPUs only.
    pub(super) fn dtype(self, device: &Device) -> DType {
        match (self, device) {
            (Self::F32, _) => DType::F32,
            (_, Device::Cpu) => DType::F16,
            _ => DType::BF16,
        }
    }
}

/// What is done with the product before it is stored.
#[derive(Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing.
    None,
    /// Adds a tensor of the output's shape (a residual stream).
    Add(&'a Tensor),
    /// The exact GELU. Not for a weight with a bias.
    Gelu,
    /// ELU with slope 1, for a weight with a bias.
    Elu,
}

/// A weight of shape `[outputs, inputs]`, prepared for its kernels, and an optional bias.
#[derive(Debug, Clone)]
pub struct Linear {
    outputs: usize,
    inputs: usize,
    body: Body,
    bias: Option<Tensor>,
}

#[derive(Debug, Clone)]
enum Body {
    Unpacked(Tensor),
    Packed(Arc<HugePageBuf<f32>>),
    PackedBf16(Arc<HugePageBuf<u32>>),
    Quantised(Arc<Quantised>),
    Dense(Tensor),
}

impl Linear {
    /// From an f32 weight `[outputs, inputs]` and a bias `[outputs]`.
    ///
    /// # Errors
    /// When the weight is not a matrix or cannot be read.
    pub fn new(weight: &Tensor, bias: Option<Tensor>, kernels: Kernels, format: WeightFormat) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        let body = match kernels {
            Kernels::Composed => Body::Dense(weight.contiguous()?.to_dtype(format.dtype(weight.device()))?),
            Kernels::Native if outputs <= gemm::FEW && format == WeightFormat::F32 => {
                Body::Unpacked(weight.contiguous()?)
            }
            Kernels::Native => {
                let weight = weight.contiguous()?;
                let len = gemm::packed_len(outputs, inputs);
                with_floats(&weight, |weight| {
                    Ok(match format {
                        WeightFormat::F32 => {
                            let pack = |words: &mut [f32]| gemm::pack_into(weight, outputs, inputs, words);
                            Body::Packed(Arc::new(HugePageBuf::new(len, pack)?))
                        }
                        WeightFormat::Bf16 => {
                            let pack = |words: &mut [u32]| gemm::narrow(&gemm::pack(weight, outputs, inputs), words);
                            Body::PackedBf16(Arc::new(HugePageBuf::new(len / 2, pack)?))
                        }
                        WeightFormat::Q8 => {
                            Body::Quantised(Arc::new(Quantised::new(weight, outputs, inputs, Bits::Eight)?))
                        }
                        WeightFormat::Q4 => {
                            Body::Quantised(Arc::new(Quantised::new(weight, outputs, inputs, Bits::Four)?))
                        }
                    })
                })?
            }
        };
        Ok(Self { outputs, inputs, body, bias })
    }

    /// Outputs per row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Inputs per row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes of weights that one pass reads.
    pub fn bytes(&self) -> usize {
        match &self.body {
            Body::Unpacked(words) => words.elem_count() * 4,
            Body::Packed(words) => words.len() * 4,
            Body::PackedBf16(words) => words.len() * 4,
            Body::Quantised(weight) => weight.bytes(),
            Body::Dense(weight) => weight.elem_count() * weight.dtype().size_in_bytes(),
        }
    }

    /// Says that this weight is needed after the operation that comes now, so that memory is not
    /// idle until then.
    pub fn prefetch(&self) {
        match &self.body {
            Body::Packed(words) => kernel_pool::prefetch_next(words),
            Body::PackedBf16(words) => kernel_pool::prefetch_next(words),
            Body::Quantised(weight) => kernel_pool::prefetch_next(weight.lines()),
            Body::Unpacked(_) | Body::Dense(_) => {}
        }
    }

    /// `[.., inputs]` to `[.., outputs]`.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn forward(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        let Some(last) = shape.last_mut().filter(|last| **last == self.inputs) else {
            candle_core::bail!("a linear layer of {} inputs was given {:?}", self.inputs, x.shape())
        };
        *last = self.outputs;
        if let Body::Dense(weight) = &self.body {
            let rows = x.elem_count() / self.inputs;
            let x = x.reshape((rows, self.inputs))?.to_dtype(weight.dtype())?;
            let y = x.matmul(&weight.t()?)?.to_dtype(DType::F32)?.reshape(shape)?;
            return self.finish(y, epilogue);
        }
        let rows = x.elem_count() / self.inputs;
        let map = RowMap::plain(rows, self.inputs);
        self.native(&x.contiguous()?, map, shape, epilogue)
    }

    /// `[rows, inputs]` to `[rows, outputs]`, both in the weight's own type. Only where candle's
    /// operations run, and for a weight without a bias.
    ///
    /// # Errors
    /// When shapes, types or devices do not fit.
    pub(super) fn product(&self, x: &Tensor) -> Result<Tensor> {
        match (&self.body, &self.bias) {
            (Body::Dense(weight), None) => x.matmul(&weight.t()?),
            _ => candle_core::bail!("only a dense weight without a bias is multiplied in its own type"),
        }
    }

    /// A convolution over time without padding: `[batch, time, channels]` to `[batch, steps,
    /// outputs]`, where `inputs = span * channels`, the earlier step first.
    ///
    /// # Errors
    /// When shapes or devices do not fit, or the signal is shorter than one window.
    pub fn windows(
        &self,
        x: &Tensor,
        span: usize,
        stride: usize,
        dilation: usize,
        epilogue: Epilogue<'_>,
    ) -> Result<Tensor> {
        let (batch, time, channels) = x.dims3()?;
        let extent = (span - 1) * dilation + 1;
        if channels * span != self.inputs || time < extent {
            candle_core::bail!("a window of {extent} steps and {} inputs was given {:?}", self.inputs, x.shape())
        }
        let steps = (time - extent) / stride + 1;
        if !matches!(self.body, Body::Dense(_)) {
            let (runs, run_stride) = if dilation == 1 { (1, 0) } else { (span, dilation * channels) };
            let (batch_stride, stride) = (time * channels, stride * channels);
            let map = RowMap { batches: batch, per_batch: steps, batch_stride, stride, runs, run_stride };
            return self.native(&x.contiguous()?, map, vec![batch, steps, self.outputs], epilogue);
        }
        let taken = (0..steps).flat_map(|step| (0..span).map(move |tap| (step * stride + tap * dilation) as u32));
        let taken = Tensor::from_iter(taken, x.device())?;
        self.forward(&x.contiguous()?.index_select(&taken, 1)?.reshape((batch, steps, self.inputs))?, epilogue)
    }

    fn native(&self, x: &Tensor, map: RowMap, shape: Vec<usize>, epilogue: Epilogue<'_>) -> Result<Tensor> {
        let multiply = |product: &dyn Fn(Product<'_>) -> Vec<f32>| {
            x.apply_op1_no_bwd(&Native("linear", |x: &[f32], _: &_| {
                let (inputs, outputs) = (self.inputs, self.outputs);
                let run = |finish: Finish<'_>| Ok(product(Product { inputs, outputs, x, map, finish }));
                let y = match (&self.bias, epilogue) {
                    (None, Epilogue::None) => run(Finish::Store),
                    (None, Epilogue::Gelu) => run(Finish::Gelu),
                    (None, Epilogue::Add(add)) => with_floats(add, |add| run(Finish::Add(add))),
                    (Some(bias), Epilogue::None) => with_floats(bias, |bias| run(Finish::Bias(bias))),
                    (Some(bias), Epilogue::Add(add)) => {
                        with_floats(bias, |bias| with_floats(add, |add| run(Finish::BiasAdd(bias, add))))
                    }
                    (Some(bias), Epilogue::Elu) => with_floats(bias, |bias| run(Finish::BiasElu(bias))),
                    (Some(_), Epilogue::Gelu) => candle_core::bail!("no kernel joins a bias with GELU"),
                    (None, Epilogue::Elu) => candle_core::bail!("no kernel joins ELU with no bias"),
                };
                Ok((y?, candle_core::Shape::from(shape.clone())))
            }))
        };
        match &self.body {
            Body::Unpacked(words) => {
                with_floats(words, |words| multiply(&|product| gemm::multiply(Panels::Unpacked(words), product)))
            }
            Body::Packed(words) => multiply(&|product| gemm::multiply(Panels::F32(words), product)),
            Body::PackedBf16(words) => multiply(&|product| gemm::multiply(Panels::Bf16(words), product)),
            Body::Quantised(weight) => multiply(&|product| weight.multiply(product)),
            Body::Dense(_) => unreachable!("dense weights do not come here"),
        }
    }

    fn finish(&self, y: Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        match epilogue {
            Epilogue::None => Ok(y),
            Epilogue::Add(add) => y + add,
            Epilogue::Gelu => y.gelu_erf(),
            Epilogue::Elu => y.elu(1.0),
        }
    }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Linear::forward(self, x, Epilogue::None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn random(shape: &[usize], seed: u64) -> Tensor {
        let count: usize = shape.iter().product();
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let data: Vec<f32> = (0..count)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / 8_388_608.0 - 1.0
            })
            .collect();
        Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    fn difference(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    fn floats(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn native_and_composed_agree() {
        for (rows, inputs, outputs) in
            [(1, 40, 64), (3, 7, 1), (5, 33, 130), (2, 300, 257), (200, 48, 96), (70, 512, 70)]
        {
            let (x, w) = (random(&[rows, inputs], 1), random(&[outputs, inputs], 2));
            let (bias, add) = (random(&[outputs], 3), random(&[rows, outputs], 4));
            for bias in [None, Some(bias)] {
                let build = |kernels| Linear::new(&w, bias.clone(), kernels, WeightFormat::F32).unwrap();
                let (native, composed) = (build(Kernels::Native), build(Kernels::Composed));
                let mut epilogues = vec![Epilogue::None, Epilogue::Add(&add)];
                if bias.is_none() {
                    epilogues.push(Epilogue::Gelu);
                }
                for epilogue in epilogues {
                    let (a, b) = (native.forward(&x, epilogue).unwrap(), composed.forward(&x, epilogue).unwrap());
                    assert!(difference(&a, &b) < 2e-5, "{rows}x{inputs}x{outputs}");
                }
            }
        }
    }

    #[test]
    fn a_row_is_the_same_bits_alone_and_in_any_batch() {
        let (inputs, outputs) = (517, 1030);
        for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Q8, WeightFormat::Q4] {
            let linear = Linear::new(&random(&[outputs, inputs], 1), None, Kernels::Native, format).unwrap();
            let x = random(&[131, inputs], 2);
            let whole = floats(&linear.forward(&x, Epilogue::Gelu).unwrap());
            for (start, count) in [(0, 1), (3, 2), (7, 5), (60, 8), (31, 100)] {
                let part = linear.forward(&x.narrow(0, start, count).unwrap(), Epilogue::Gelu).unwrap();
                assert_eq!(floats(&part), whole[start * outputs..(start + count) * outputs]);
            }
        }
    }

    #[test]
    fn bf16_weights_are_the_rounded_ones() {
        let (x, w) = (random(&[3, 130], 1), random(&[90, 130], 2));
        let rounded = w.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        let a = Linear::new(&w, None, Kernels::Native, WeightFormat::Bf16).unwrap();
        let b = Linear::new(&rounded, None, Kernels::Native, WeightFormat::F32).unwrap();
        assert_eq!(floats(&a.forward(&x, Epilogue::None).unwrap()), floats(&b.forward(&x, Epilogue::None).unwrap()));
    }

    /// Relative to the size of each output's weights.
    fn error(format: WeightFormat) -> f32 {
        let (outputs, inputs, rows) = (90, 130, 3);
        let (x, mut w) = (random(&[rows, inputs], 1), random(&[outputs, inputs], 2));
        // Outputs of very different size, and one of zeros.
        let sizes: Vec<f32> = (0..outputs).map(|o| if o == 7 { 0.0 } else { 10f32.powi(o as i32 % 7 - 3) }).collect();
        let sizes = Tensor::from_vec(sizes, (outputs, 1), &Device::Cpu).unwrap();
        w = w.broadcast_mul(&sizes).unwrap();
        let product = |format| {
            let y = Linear::new(&w, None, Kernels::Native, format).unwrap().forward(&x, Epilogue::None).unwrap();
            y.broadcast_div(&(sizes.t().unwrap() + 1e-20).unwrap()).unwrap()
        };
        let (exact, found) = (product(WeightFormat::F32), product(format));
        assert!(floats(&found).iter().skip(7).step_by(outputs).all(|zero| *zero == 0.0));
        let sum = |x: Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        (sum((&exact - found).unwrap()) / sum(exact)).sqrt()
    }

    #[test]
    fn quantised_weights_err_by_their_steps_and_no_more() {
        // Rounding to steps of 1/127 of the largest of uniform values: 0.8 % of a weight's mean
        // square, the same for x and its blocks. Sixteen steps: eight times as much.
        assert!(error(WeightFormat::Q8) < 0.008, "{}", error(WeightFormat::Q8));
        assert!(error(WeightFormat::Q4) < 0.08, "{}", error(WeightFormat::Q4));
    }

    #[test]
    fn windows_are_a_convolution() {
        let (batch, time, channels, outputs, span) = (2, 11, 6, 9, 3);
        let x = random(&[batch, time, channels], 1);
        let w = random(&[outputs, channels, span], 2);
        let flat = w.transpose(1, 2).unwrap().contiguous().unwrap().reshape((outputs, span * channels)).unwrap();
        for (kernels, stride, dilation) in
            [Kernels::Native, Kernels::Composed].into_iter().flat_map(|k| [(k, 1, 1), (k, 2, 1), (k, 1, 2), (k, 3, 2)])
        {
            let signal = x.transpose(1, 2).unwrap();
            let expected = signal.conv1d(&w, 0, stride, dilation, 1).unwrap().transpose(1, 2).unwrap();
            let linear = Linear::new(&flat, None, kernels, WeightFormat::F32).unwrap();
            let found = linear.windows(&x, span, stride, dilation, Epilogue::None).unwrap();
            assert!(difference(&found, &expected) < 1e-5);
        }
    }
}
