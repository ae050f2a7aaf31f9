//! The residual stream of a decoder's pass, and the products that read it and add to it.

use candle_core::{DType, Result, Tensor};

use super::{Epilogue, Fused, Kernels, Linear, Pass, layer_norm};

/// The residual stream of a pass, `[tokens, width]` in f32. What its norms and products give is f32
/// too, but of the weights' type where the pass is on custom kernels, so that nothing is converted
/// between them.
///
/// A product is added to the stream with the product itself, or, on custom kernels, by the norm
/// that reads it next.
#[derive(Debug)]
pub struct Stream<'a> {
    x: Tensor,
    /// What is still to be added, in the weights' type.
    owed: Option<Tensor>,
    kernels: Kernels,
    fused: Option<&'a Fused>,
}

impl<'a> Stream<'a> {
    /// The stream of a pass that begins with `x`. On custom kernels `x` is overwritten.
    pub fn new(x: Tensor, pass: &'a Pass) -> Self {
        Self { x, owed: None, kernels: pass.kernels(), fused: pass.fused() }
    }

    /// Its layer norm, with weight and bias.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn norm(&mut self, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
        match self.fused {
            Some(fused) => fused.add_norm(&self.x, self.owed.take().as_ref(), (weight, bias), eps),
            None => layer_norm(&self.x, weight, bias, eps, self.kernels),
        }
    }

    /// The product of what came from the stream.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn multiply(&self, linear: &Linear, x: &Tensor) -> Result<Tensor> {
        match self.fused {
            Some(_) => linear.product(x),
            None => linear.forward(x, Epilogue::None),
        }
    }

    /// The exact GELU of the product.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn multiply_gelu(&self, linear: &Linear, x: &Tensor) -> Result<Tensor> {
        match self.fused {
            Some(fused) => fused.gelu(linear.product(x)?),
            None => linear.forward(x, Epilogue::Gelu),
        }
    }

    /// Adds the product to the stream. Returns the stream behind it or, on custom kernels, the
    /// product.
    ///
    /// # Errors
    /// When shapes or devices do not fit.
    pub fn add(&mut self, linear: &Linear, x: &Tensor) -> Result<Tensor> {
        if self.fused.is_none() {
            self.x = linear.forward(x, Epilogue::Add(&self.x))?;
            return Ok(self.x.clone());
        }
        self.settle()?;
        Ok(self.owed.insert(linear.product(x)?).clone())
    }

    /// Keeps only the tokens at `indices`, in their order.
    ///
    /// # Errors
    /// When the device fails.
    pub fn select(&mut self, indices: &Tensor) -> Result<()> {
        self.settle()?;
        self.x = self.x.index_select(indices, 0)?;
        Ok(())
    }

    /// Adds what is still to be added.
    fn settle(&mut self) -> Result<()> {
        if let Some(owed) = self.owed.take() {
            self.x = (&self.x + owed.to_dtype(DType::F32)?)?;
        }
        Ok(())
    }
}
