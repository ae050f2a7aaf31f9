//! Attention of a whole pass in a few operations, for devices where starting an operation is what
//! costs.
//!
//! The rows between the lowest and the highest of a pass are taken as one batch, straight out of
//! the pool and without a copy; each has as many places as the row with the most tokens. Places
//! without a token and positions that a token does not see are masked. What only depends on the
//! pass is made once, for all layers.

use std::sync::Arc;

use candle_core::{D, DType, Device, Result, Tensor};

use super::{
    cross::{CrossKeys, CrossPart},
    pool::AttendRow,
};

/// Keys are looked at in multiples of this, so that few different shapes occur.
const BUCKET: usize = 64;

/// How the tokens of a pass lie in the pool.
#[derive(Debug)]
pub(super) struct Plan {
    /// The lowest row, and how many there are up to the highest.
    first: usize,
    rows: usize,
    /// Places per row.
    width: usize,
    /// Positions looked at.
    length: usize,
    /// The token of every place, `[rows * width]`; the first one where there is none.
    gather: Tensor,
    /// The place of every token, `[tokens]`.
    back: Tensor,
    /// Where keys and values are stored, `[rows, 1, width, 1]`; places without a token write behind
    /// the window.
    positions: Tensor,
    /// Added to the scores, `[rows, 1, width, length]`.
    mask: Tensor,
    /// A token of every row, if it has one.
    tokens: Vec<Option<usize>>,
}

impl Plan {
    pub(super) fn new(at: &[AttendRow], window: usize, device: &Device) -> Result<Self> {
        let first = at.iter().map(|at| at.row).min().unwrap_or(0);
        let rows = at.iter().map(|at| at.row).max().unwrap_or(0) + 1 - first;
        let longest = at.iter().map(|at| at.position + 1).max().unwrap_or(1);
        let length = longest.next_multiple_of(BUCKET).min(window);
        let mut places: Vec<Vec<usize>> = vec![Vec::new(); rows];
        for (token, at) in at.iter().enumerate() {
            places[at.row - first].push(token);
        }
        let width = places.iter().map(Vec::len).max().unwrap_or(1);
        let mut gather = vec![0u32; rows * width];
        let mut back = vec![0u32; at.len()];
        let mut positions = vec![window as u32; rows * width];
        // A place without a token sees its row's first position: a softmax over nothing is NaN.
        let mut seen = vec![1usize; rows * width];
        for (row, tokens) in places.iter().enumerate() {
            for (place, token) in tokens.iter().enumerate() {
                let place = row * width + place;
                gather[place] = *token as u32;
                back[*token] = place as u32;
                positions[place] = at[*token].position as u32;
                seen[place] = at[*token].position + 1;
            }
        }
        let mask: Vec<f32> = seen
            .iter()
            .flat_map(|seen| (0..length).map(move |position| if position < *seen { 0.0 } else { f32::NEG_INFINITY }))
            .collect();
        Ok(Self {
            first,
            rows,
            width,
            length,
            gather: Tensor::from_vec(gather, rows * width, device)?,
            back: Tensor::from_vec(back, at.len(), device)?,
            positions: Tensor::from_vec(positions, (rows, 1, width, 1), device)?,
            mask: Tensor::from_vec(mask, (rows, 1, width, length), device)?,
            tokens: places.iter().map(|tokens| tokens.first().copied()).collect(),
        })
    }

    /// `[tokens, parts * heads * dim]` as `[rows, parts, heads, width, dim]`.
    fn spread(&self, x: &Tensor, parts: usize, heads: usize) -> Result<Tensor> {
        let dim = x.dim(1)? / (parts * heads);
        x.index_select(&self.gather, 0)?
            .reshape((self.rows, self.width, parts, heads, dim))?
            .permute((0, 2, 3, 1, 4))?
            .contiguous()
    }

    /// `[rows, heads, width, dim]` as `[tokens, heads * dim]`.
    fn collect(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, heads, width, dim) = x.dims4()?;
        x.transpose(1, 2)?.contiguous()?.reshape((rows * width, heads * dim))?.index_select(&self.back, 0)
    }
}

/// Scores, softmax in f32, and the weighted values: queries `[rows, heads, width, dim]`, keys and
/// values `[rows, heads, length, dim]`, something to add to the scores.
fn attend(queries: &Tensor, keys: &Tensor, values: &Tensor, add: &Tensor) -> Result<Tensor> {
    let scale = 1.0 / (queries.dim(D::Minus1)? as f64).sqrt();
    let scores = (queries * scale)?.to_dtype(keys.dtype())?.matmul(&keys.t()?)?.to_dtype(DType::F32)?;
    let weights = candle_nn::ops::softmax_last_dim(&scores.broadcast_add(add)?)?;
    weights.to_dtype(values.dtype())?.matmul(values)?.to_dtype(DType::F32)
}

/// The pool's part: keys and values are `[rows of the pool, heads, window + 1, dim]`.
pub(super) fn attend_pool(keys: &Tensor, values: &Tensor, qkv: &Tensor, plan: &Plan) -> Result<Tensor> {
    let (_, heads, _, dim) = keys.dims4()?;
    let qkv = plan.spread(qkv, 3, heads)?;
    let part = |index: usize| qkv.narrow(1, index, 1)?.squeeze(1)?.contiguous();
    let to = plan.positions.broadcast_as((plan.rows, heads, plan.width, dim))?.contiguous()?;
    let pool = |pool: &Tensor| pool.narrow(0, plan.first, plan.rows);
    pool(keys)?.scatter_set(&to, &part(1)?.to_dtype(keys.dtype())?, 2)?;
    pool(values)?.scatter_set(&to, &part(2)?.to_dtype(values.dtype())?, 2)?;
    let seen = |tensor: &Tensor| pool(tensor)?.narrow(2, 0, plan.length);
    plan.collect(&attend(&part(0)?, &seen(keys)?, &seen(values)?, &plan.mask)?)
}

/// The texts of a pass in one layer, put side by side; kept until another row has another text.
#[derive(Debug)]
pub(super) struct Texts {
    /// What was put together, row by row.
    parts: Vec<Vec<Arc<CrossKeys>>>,
    /// `[rows, heads, length, dim]`, filled up with zeros.
    keys: Tensor,
    values: Tensor,
}

impl Texts {
    fn new(parts: Vec<Vec<Arc<CrossKeys>>>, heads: usize, dim: usize, like: &Tensor) -> Result<Self> {
        let length = parts.iter().map(|parts| parts.iter().map(|keys| keys.len()).sum()).max().unwrap_or(0);
        let side = |pick: fn(&CrossKeys) -> Result<&Tensor>| {
            let row = |parts: &Vec<Arc<CrossKeys>>| {
                let filled: usize = parts.iter().map(|keys| keys.len()).sum();
                let zeros = Tensor::zeros((heads, length - filled, dim), like.dtype(), like.device())?;
                let own = parts.iter().map(|keys| pick(keys)?.to_dtype(like.dtype()));
                Tensor::cat(&own.chain([Ok(zeros)]).collect::<Result<Vec<_>>>()?, 1)
            };
            Tensor::stack(&parts.iter().map(row).collect::<Result<Vec<_>>>()?, 0)
        };
        let (keys, values) = (side(CrossKeys::keys)?, side(CrossKeys::values)?);
        Ok(Self { parts, keys, values })
    }

    fn same(&self, parts: &[Vec<Arc<CrossKeys>>]) -> bool {
        self.parts.len() == parts.len()
            && self.parts.iter().zip(parts).all(|(own, other)| {
                own.len() == other.len() && own.iter().zip(other).all(|(own, other)| Arc::ptr_eq(own, other))
            })
    }
}

/// The prompts' part: `blends` holds one entry per token, equal for those of one row. `texts` is
/// the layer's memory of the pass before, `like` a tensor of the type to calculate in.
pub(super) fn attend_texts(
    texts: &mut Option<Texts>,
    queries: &Tensor,
    blends: &[Vec<CrossPart<'_>>],
    plan: &Plan,
    like: &Tensor,
) -> Result<Tensor> {
    let Some(first) = blends.iter().flatten().next() else {
        return queries.zeros_like();
    };
    let (heads, dim) = (first.keys.heads(), first.keys.dim());
    let row = |token: &Option<usize>| token.map_or(&[][..], |token| &blends[token][..]);
    let parts: Vec<Vec<Arc<CrossKeys>>> =
        plan.tokens.iter().map(|token| row(token).iter().map(|part| part.keys.clone()).collect()).collect();
    let texts = match texts {
        Some(texts) if texts.same(&parts) => texts,
        _ => texts.insert(Texts::new(parts, heads, dim, like)?),
    };
    let length = texts.keys.dim(2)?;
    // A row without a text sees zeros: their values are zeros too.
    let mut bias = Vec::with_capacity(plan.rows * length);
    for token in &plan.tokens {
        let start = bias.len();
        for part in row(token) {
            bias.extend(std::iter::repeat_n(part.log_share, part.keys.len()));
        }
        bias.resize(start + length, if row(token).is_empty() { 0.0 } else { f32::NEG_INFINITY });
    }
    let bias = Tensor::from_vec(bias, (plan.rows, 1, 1, length), queries.device())?;
    let queries = plan.spread(queries, 1, heads)?.squeeze(1)?;
    plan.collect(&attend(&queries, &texts.keys, &texts.values, &bias)?)
}
