//! The MusicGen decoder (arXiv 2306.05284): a transformer over columns of codes, cross-attending to
//! a text.
//!
//! One function, [`Decoder::forward`], does decode steps, chunked prefill and teacher forcing for
//! any number of voices at once. All keys and values of a pass are stored first, then every token
//! attends to its own row of the pool up to its own position. On the CPU a token's logits are the
//! same bits whatever shares the pass.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{
    config::DecoderConfig,
    error::{ModelError, Result},
    kernels::{
        AttendRow, CrossKeys, CrossPart, Epilogue, Fused, Kernels, KvLayer, Linear, Pass, Stream, TextSlots,
        WeightFormat,
    },
    weights::{Target, Weights},
};

const EPS: f32 = 1e-5;

/// One column of one row, to be read by the decoder.
#[derive(Clone)]
pub struct Token<'a> {
    /// Row of the KV pool.
    pub row: usize,
    /// Position in the row; 0 is the start column. What the row held at and after it is
    /// overwritten.
    pub position: usize,
    /// One id per codebook; the pad id is allowed.
    pub ids: &'a [u32],
    /// The texts that it is conditioned on; none for a unconditional row.
    pub cross: &'a [CrossShare],
    /// Whether its logits are wanted.
    pub logits: bool,
}

/// A part of a pass, in the order in which they come. What [`Part::SelfOut`], [`Part::CrossOut`]
/// and [`Part::Fc2`] give is the residual stream behind them; on custom kernels what they add to
/// it, and all in the weights' type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Part {
    Embed,
    SelfNorm,
    Qkv,
    Attend,
    SelfOut,
    CrossNorm,
    CrossQuery,
    CrossAttend,
    CrossOut,
    FfnNorm,
    Fc1,
    Fc2,
    Norm,
    Heads,
}

/// A prepared text and its share of a blend.
#[derive(Clone)]
pub struct CrossShare {
    /// The text.
    pub prompt: Arc<Prompt>,
    /// Its share, above 0; shares of a blend sum to 1.
    pub share: f32,
}

/// A text's keys and values for the cross-attention of every layer.
pub struct Prompt {
    layers: Vec<Arc<CrossKeys>>,
}

/// Keys and values of every row, layer by layer.
pub struct KvCache {
    layers: Vec<KvLayer>,
    rows: usize,
    window: usize,
    /// Custom kernels on the device, and where their texts lie.
    fused: Option<Fused>,
    texts: TextSlots,
    /// What is added at every position, `[window, hidden]`; none where it is computed anew in every
    /// pass.
    positions: Option<Tensor>,
}

impl KvCache {
    /// A pool of no rows, to stand where another one was taken from.
    pub fn empty() -> Self {
        let (layers, texts) = (Vec::new(), TextSlots::default());
        Self { layers, rows: 0, window: 0, fused: None, texts, positions: None }
    }

    /// Positions per row.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What a row holds is not needed any more; see [`KvLayer::forget`].
    pub fn forget(&mut self, row: usize) {
        self.layers.iter_mut().for_each(|layer| layer.forget(row));
    }

    /// Lets passes use the kernels' stand-in.
    #[cfg(all(test, not(feature = "cuda")))]
    pub(crate) fn use_plain(&mut self, format: WeightFormat) {
        self.fused = Some(Fused::plain(format));
    }

    /// The custom kernels that passes over this pool use, if the device has any.
    pub fn fused(&self) -> Option<&Fused> {
        self.fused.as_ref()
    }
}

/// A MusicGen decoder with its weights.
pub struct Decoder {
    config: DecoderConfig,
    target: Target,
    /// `[codebooks * (card + 1), hidden]`.
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Norm,
    heads: Linear,
    /// From the text encoder's width to the decoder's.
    /// Absent where both are the same and the checkpoint has none.
    project: Option<Linear>,
}

struct Layer {
    self_norm: Norm,
    qkv: Linear,
    self_out: Linear,
    cross_norm: Norm,
    cross_query: Linear,
    cross_key: Linear,
    cross_value: Linear,
    cross_out: Linear,
    ffn_norm: Norm,
    fc1: Linear,
    fc2: Linear,
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn new(weights: &Weights<'_>, width: usize) -> Result<Self> {
        Ok(Self { weight: weights.get("weight", &[width])?, bias: weights.get("bias", &[width])? })
    }

    fn of(&self, x: &mut Stream<'_>) -> Result<Tensor> {
        Ok(x.norm(&self.weight, &self.bias, EPS)?)
    }
}

impl Layer {
    fn new(config: &DecoderConfig, weights: &Weights<'_>) -> Result<Self> {
        let width = config.hidden;
        let (own, cross) = (weights.at("self_attn"), weights.at("encoder_attn"));
        Ok(Self {
            self_norm: Norm::new(&weights.at("self_attn_layer_norm"), width)?,
            qkv: own.stacked(&["q_proj".into(), "k_proj".into(), "v_proj".into()], width, width)?,
            self_out: own.linear("out_proj", width, width, false)?,
            cross_norm: Norm::new(&weights.at("encoder_attn_layer_norm"), width)?,
            cross_query: cross.linear("q_proj", width, width, false)?,
            cross_key: cross.linear("k_proj", width, width, false)?,
            cross_value: cross.linear("v_proj", width, width, false)?,
            cross_out: cross.linear("out_proj", width, width, false)?,
            ffn_norm: Norm::new(&weights.at("final_layer_norm"), width)?,
            fc1: weights.linear("fc1", config.ffn, width, false)?,
            fc2: weights.linear("fc2", width, config.ffn, false)?,
        })
    }
}

/// The format of the heads: what they err by is not mixed with anything any more, and they are a
/// fortieth of the weights.
fn finer(format: WeightFormat) -> WeightFormat {
    match format {
        WeightFormat::Q4 => WeightFormat::Q8,
        WeightFormat::Q8 => WeightFormat::Bf16,
        exact => exact,
    }
}

impl Decoder {
    /// Reads the weights below `decoder` and `enc_to_dec_proj`.
    ///
    /// # Errors
    /// [`ModelError::Weight`].
    pub fn new(config: &DecoderConfig, weights: &Weights<'_>) -> Result<Self> {
        let stack = weights.at("decoder.model.decoder");
        let width = config.hidden;
        let tables = (0..config.codebooks)
            .map(|book| stack.get(&format!("embed_tokens.{book}.weight"), &[config.card + 1, width]));
        let heads: Vec<String> = (0..config.codebooks).map(|book| format!("lm_heads.{book}")).collect();
        Ok(Self {
            embedding: Tensor::cat(&tables.collect::<Result<Vec<_>>>()?, 0)?,
            layers: (0..config.layers)
                .map(|index| Layer::new(config, &stack.at(format!("layers.{index}"))))
                .collect::<Result<_>>()?,
            norm: Norm::new(&stack.at("layer_norm"), width)?,
            heads: weights.at("decoder").stored(finer(weights.target().format)).stacked(&heads, config.card, width)?,
            project: (config.text_width != width || weights.has("enc_to_dec_proj.weight"))
                .then(|| weights.linear("enc_to_dec_proj", width, config.text_width, true))
                .transpose()?,
            target: weights.target().clone(),
            config: config.clone(),
        })
    }

    /// Sizes.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The device and how its operations are run.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Bytes of weights that one pass reads.
    pub fn bytes(&self) -> usize {
        [Part::Qkv, Part::SelfOut, Part::CrossQuery, Part::CrossOut, Part::Fc1, Part::Fc2, Part::Heads]
            .into_iter()
            .map(|part| self.part_bytes(part, 0, 0))
            .sum()
    }

    /// Bytes of weights, or of keys and values, that a part of a step of `rows` rows at `position`
    /// reads over all layers.
    pub fn part_bytes(&self, part: Part, rows: usize, position: usize) -> usize {
        let weights = |pick: fn(&Layer) -> &Linear| self.layers.iter().map(|layer| pick(layer).bytes()).sum();
        match part {
            Part::Qkv => weights(|layer| &layer.qkv),
            Part::Attend => rows * position * self.kv_bytes(),
            Part::SelfOut => weights(|layer| &layer.self_out),
            Part::CrossQuery => weights(|layer| &layer.cross_query),
            Part::CrossOut => weights(|layer| &layer.cross_out),
            Part::Fc1 => weights(|layer| &layer.fc1),
            Part::Fc2 => weights(|layer| &layer.fc2),
            Part::Heads => self.heads.bytes(),
            _ => 0,
        }
    }

    /// Bytes of keys and values per position of one row.
    pub fn kv_bytes(&self) -> usize {
        let (heads, dim) = (self.config.heads, self.config.hidden / self.config.heads);
        self.config.layers * KvLayer::bytes(heads, dim, self.target.format, self.target.kernels)
    }

    /// An empty pool of `rows` rows of `window` positions.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when memory is short.
    pub fn cache(&self, rows: usize, window: usize) -> Result<KvCache> {
        self.cache_on(rows, window, self.target.fused)
    }

    /// As [`Decoder::cache`], but with the choice of using custom kernels where there are any.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when memory is short.
    pub fn cache_on(&self, rows: usize, window: usize, fused: bool) -> Result<KvCache> {
        let heads = (self.config.heads, self.config.hidden / self.config.heads);
        let Target { format, kernels, device, .. } = &self.target;
        let layer = |_| KvLayer::new((rows, window), heads, *format, *kernels, device);
        let layers = (0..self.config.layers).map(layer).collect::<candle_core::Result<_>>()?;
        let fused = if fused { Fused::of(*kernels, *format, heads, device) } else { None };
        let table = || self.positions(&(0..window).collect::<Vec<usize>>());
        let positions = (*kernels == Kernels::Composed).then(table).transpose()?;
        Ok(KvCache { layers, rows, window, fused, texts: TextSlots::default(), positions })
    }

    /// The text encoder's states `[length, text width]` brought to the decoder's width.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn project(&self, states: &Tensor) -> Result<Tensor> {
        match &self.project {
            Some(project) => Ok(project.forward(states, Epilogue::None)?),
            None => Ok(states.clone()),
        }
    }

    /// Computes a text's cross-attention keys and values from the text encoder's states `[length,
    /// text width]`.
    ///
    /// `padding` zero keys are appended that take part in the softmax: audiocraft does so for the
    /// shorter texts of a padded batch. The reference in transformers, and everything in this
    /// program, uses none.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn prepare(&self, states: &Tensor, padding: usize) -> Result<Arc<Prompt>> {
        self.prepare_projected(&self.project(states)?.pad_with_zeros(0, 0, padding)?)
    }

    fn prepare_projected(&self, states: &Tensor) -> Result<Arc<Prompt>> {
        let layer = |layer: &Layer| -> Result<_> {
            let keys = layer.cross_key.forward(states, Epilogue::None)?;
            let values = layer.cross_value.forward(states, Epilogue::None)?;
            Ok(CrossKeys::new(&keys, &values, self.config.heads, self.target.kernels)?)
        };
        Ok(Arc::new(Prompt { layers: self.layers.iter().map(layer).collect::<Result<_>>()? }))
    }

    /// Rows of the position table: cosines first, then sines, in f32 as the reference computes
    /// them.
    pub fn positions(&self, positions: &[usize]) -> Result<Tensor> {
        let half = self.config.hidden / 2;
        let step = -(10_000f32.ln()) / (half - 1) as f32;
        let mut data = Vec::with_capacity(positions.len() * self.config.hidden);
        for position in positions {
            let angles = (0..half).map(|i| *position as f32 * (i as f32 * step).exp());
            let (sines, cosines): (Vec<f32>, Vec<f32>) = angles.map(f32::sin_cos).unzip();
            data.extend(cosines);
            data.extend(sines);
        }
        Ok(Tensor::from_vec(data, (positions.len(), self.config.hidden), &self.target.device)?)
    }

    /// One pass over `tokens`; returns the logits `[wanted, codebooks, card]` of those that want
    /// them, in order.
    ///
    /// Tokens of one row may come in any number per pass, but not two at one position.
    ///
    /// # Errors
    /// [`ModelError::Input`] for ids, rows or positions out of bounds; [`ModelError::Tensor`].
    pub fn forward(&self, cache: &mut KvCache, tokens: &[Token<'_>]) -> Result<Tensor> {
        self.forward_with(cache, tokens, &mut |_, _, _| {})
    }

    /// [`Decoder::forward`] that shows `tap` what every part computed, and in which layer
    /// ([`Part::Embed`], [`Part::Norm`] and [`Part::Heads`] come once, the last two for wanted
    /// tokens only).
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub fn forward_with(
        &self,
        cache: &mut KvCache,
        tokens: &[Token<'_>],
        tap: &mut dyn FnMut(Part, usize, &Tensor),
    ) -> Result<Tensor> {
        self.check(cache, tokens)?;
        let result = self.pass(cache, tokens, tap);
        if result.is_err() {
            // Not every layer may have got its texts.
            cache.texts = TextSlots::default();
        }
        result
    }

    fn pass(
        &self,
        cache: &mut KvCache,
        tokens: &[Token<'_>],
        tap: &mut dyn FnMut(Part, usize, &Tensor),
    ) -> Result<Tensor> {
        if tokens.is_empty() {
            let shape = (0, self.config.codebooks, self.config.card);
            return Ok(Tensor::zeros(shape, candle_core::DType::F32, &self.target.device)?);
        }
        let at: Vec<AttendRow> =
            tokens.iter().map(|token| AttendRow { row: token.row, position: token.position }).collect();
        let pass = match &cache.fused {
            Some(fused) => {
                let blends: Vec<Vec<CrossPart<'_>>> = tokens.iter().map(|token| parts(token, 0)).collect();
                Pass::with_fused(fused, &at, &blends, &mut cache.texts, &self.target.device)?
            }
            None => Pass::new(at, cache.window, self.target.kernels, &self.target.device)?,
        };
        let embedded = self.embed(tokens, cache.positions.as_ref())?;
        tap(Part::Embed, 0, &embedded);
        let mut x = Stream::new(embedded, &pass);
        let conditioned = tokens.iter().any(|token| !token.cross.is_empty());
        for (index, (layer, kv)) in self.layers.iter().zip(&mut cache.layers).enumerate() {
            let mut show = |part: Part, x: Tensor| -> Tensor {
                tap(part, index, &x);
                x
            };
            let behind = self.layers.get(index + 1).map_or(&self.heads, |layer| &layer.qkv);
            let normed = show(Part::SelfNorm, layer.self_norm.of(&mut x)?);
            kv.prefetch(&pass);
            let qkv = show(Part::Qkv, x.multiply(&layer.qkv, &normed)?);
            layer.self_out.prefetch();
            let mixed = show(Part::Attend, kv.attend(&qkv, &pass)?);
            if conditioned {
                layer.cross_query.prefetch()
            } else {
                layer.fc1.prefetch()
            }
            show(Part::SelfOut, x.add(&layer.self_out, &mixed)?);
            if conditioned {
                let parts: Vec<Vec<CrossPart<'_>>> = tokens.iter().map(|token| parts(token, index)).collect();
                let normed = show(Part::CrossNorm, layer.cross_norm.of(&mut x)?);
                layer.cross_out.prefetch();
                let queries = show(Part::CrossQuery, x.multiply(&layer.cross_query, &normed)?);
                let mixed = show(Part::CrossAttend, kv.cross_attend(&queries, &parts, &pass)?);
                layer.fc1.prefetch();
                show(Part::CrossOut, x.add(&layer.cross_out, &mixed)?);
            }
            let normed = show(Part::FfnNorm, layer.ffn_norm.of(&mut x)?);
            layer.fc2.prefetch();
            let wide = show(Part::Fc1, x.multiply_gelu(&layer.fc1, &normed)?);
            behind.prefetch();
            show(Part::Fc2, x.add(&layer.fc2, &wide)?);
        }
        let wanted: Vec<u32> = (0..tokens.len() as u32).filter(|index| tokens[*index as usize].logits).collect();
        let shape = (wanted.len(), self.config.codebooks, self.config.card);
        if wanted.is_empty() {
            return Ok(Tensor::zeros(shape, candle_core::DType::F32, &self.target.device)?);
        }
        if wanted.len() < tokens.len() {
            x.select(&Tensor::new(wanted, &self.target.device)?)?;
        }
        let normed = self.norm.of(&mut x)?;
        tap(Part::Norm, 0, &normed);
        let logits = self.heads.forward(&normed, Epilogue::None)?.reshape(shape)?;
        tap(Part::Heads, 0, &logits);
        Ok(logits)
    }

    /// Sums the embeddings of every token's ids and adds its position.
    fn embed(&self, tokens: &[Token<'_>], added: Option<&Tensor>) -> Result<Tensor> {
        let (books, table) = (self.config.codebooks, self.config.card as u32 + 1);
        let device: &Device = &self.target.device;
        let ids = |book: usize| tokens.iter().map(move |token| token.ids[book] + book as u32 * table);
        if let Some(added) = added {
            // Few operations, whatever the number of codebooks.
            let ids: Vec<u32> = (0..books).flat_map(ids).collect();
            let ids = Tensor::from_vec(ids, books * tokens.len(), device)?;
            let codes = self.embedding.index_select(&ids, 0)?.reshape((books, tokens.len(), self.config.hidden))?;
            let positions: Vec<u32> = tokens.iter().map(|token| token.position as u32).collect();
            let positions = added.index_select(&Tensor::from_vec(positions, tokens.len(), device)?, 0)?;
            return Ok((codes.sum(0)? + positions)?);
        }
        let positions: Vec<usize> = tokens.iter().map(|token| token.position).collect();
        let select = |book: usize| -> Result<Tensor> {
            let ids: Vec<u32> = ids(book).collect();
            Ok(self.embedding.index_select(&Tensor::from_vec(ids, tokens.len(), device)?, 0)?)
        };
        let mut sum = select(0)?;
        for book in 1..books {
            sum = (sum + select(book)?)?;
        }
        Ok((sum + self.positions(&positions)?)?)
    }

    fn check(&self, cache: &KvCache, tokens: &[Token<'_>]) -> Result<()> {
        let bad = |text: String| Err(ModelError::Input(text));
        for token in tokens {
            if token.ids.len() != self.config.codebooks {
                return bad(format!("A column has {} ids but must have {}.", token.ids.len(), self.config.codebooks));
            }
            if let Some(id) = token.ids.iter().find(|id| **id as usize > self.config.card) {
                return bad(format!("The code {id} is beyond the codebooks' {} codes.", self.config.card));
            }
            if token.row >= cache.rows || token.position >= cache.window {
                return bad(format!(
                    "Row {} and position {} lie outside of a pool of {} rows and {} positions.",
                    token.row, token.position, cache.rows, cache.window
                ));
            }
        }
        Ok(())
    }
}

fn parts<'a>(token: &'a Token<'_>, layer: usize) -> Vec<CrossPart<'a>> {
    token.cross.iter().map(|part| CrossPart { keys: &part.prompt.layers[layer], log_share: part.share.ln() }).collect()
}

#[cfg(all(test, not(feature = "cuda")))]
mod tests;
