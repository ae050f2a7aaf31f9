//! Residual vector quantisation: every codebook codes what the ones before it left over.

use candle_core::{D, Tensor};

use super::super::{
    config::CodecConfig,
    error::{ModelError, Result},
    weights::Weights,
};

/// The codebooks of a codec.
pub struct Quantizer {
    /// `[card, dim]` each.
    books: Vec<Tensor>,
    /// The squared length of every entry, `[card]` each.
    lengths: Vec<Tensor>,
}

impl Quantizer {
    /// Reads `layers.{n}.codebook.embed`; what else is stored there is left over from training.
    ///
    /// # Errors
    /// When a codebook is absent or of another size.
    pub fn new(config: &CodecConfig, weights: &Weights<'_>) -> Result<Self> {
        let book = |index| weights.get(&format!("layers.{index}.codebook.embed"), &[config.card, config.dim]);
        let books = (0..config.codebooks).map(book).collect::<Result<Vec<_>>>()?;
        let lengths = books.iter().map(|book| book.sqr()?.sum(D::Minus1)).collect::<candle_core::Result<_>>()?;
        Ok(Self { books, lengths })
    }

    /// Codebooks.
    pub fn len(&self) -> usize {
        self.books.len()
    }

    /// Whether there is no codebook.
    pub fn is_empty(&self) -> bool {
        self.books.is_empty()
    }

    /// Every entry of every codebook.
    pub(super) fn values(&self) -> Result<Vec<f32>> {
        let books = self.books.iter().map(|book| book.flatten_all()?.to_vec1());
        Ok(books.collect::<candle_core::Result<Vec<Vec<f32>>>>()?.concat())
    }

    /// `[batch, frames, books]` codes (u32) to `[batch, frames, dim]` latents.
    ///
    /// # Errors
    /// When a code is out of bounds.
    pub fn decode(&self, codes: &Tensor) -> Result<Tensor> {
        let (batch, frames, books) = codes.dims3()?;
        let mut sum: Option<Tensor> = None;
        for (index, book) in self.books.iter().take(books).enumerate() {
            let rows = book.index_select(&codes.narrow(2, index, 1)?.flatten_all()?, 0)?;
            sum = Some(match sum {
                Some(sum) => (sum + rows)?,
                None => rows,
            });
        }
        let Some(sum) = sum else {
            return Err(ModelError::Input("A frame needs at least one code.".into()));
        };
        Ok(sum.reshape((batch, frames, ()))?)
    }

    /// `[batch, frames, dim]` latents to `[batch, frames, books]` codes (u32).
    ///
    /// # Errors
    /// When the device fails.
    pub fn encode(&self, latents: &Tensor) -> Result<Tensor> {
        let (batch, frames, dim) = latents.dims3()?;
        let mut left = latents.reshape((batch * frames, dim))?;
        let mut codes = Vec::with_capacity(self.books.len());
        for (book, lengths) in self.books.iter().zip(&self.lengths) {
            let own = left.sqr()?.sum_keepdim(D::Minus1)?;
            let products = (left.matmul(&book.t()?)? * 2.0)?;
            let distance = own.broadcast_sub(&products)?.broadcast_add(lengths)?;
            let nearest = distance.argmin(D::Minus1)?;
            left = (left - book.index_select(&nearest, 0)?)?;
            codes.push(nearest);
        }
        Ok(Tensor::stack(&codes, 1)?.reshape((batch, frames, self.books.len()))?)
    }
}
