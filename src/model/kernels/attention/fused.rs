//! A pass on custom kernels: where its tokens live and where their texts lie goes to the device
//! once for all layers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use candle_core::{DType, Device, Result, Tensor};

use super::{
    cross::{CrossKeys, CrossPart},
    pool::AttendRow,
};
use crate::model::kernels::{Fused, Kernels, WeightFormat};

/// How keys lie in a tensor, the values behind all of them: numbers from row to row, head to head,
/// position to position.
#[derive(Debug, Clone, Copy)]
pub(in crate::model::kernels) struct Lines {
    pub row: usize,
    pub head: usize,
    pub position: usize,
    pub heads: usize,
    pub dim: usize,
}

/// What a voice's codes are chosen by.
#[derive(Debug, Clone)]
pub struct Draw {
    /// Its logits: the row with its text, or its only one.
    pub row: usize,
    /// The row without a text that guidance leads away from.
    pub null: Option<usize>,
    /// `null + guidance * (row - null)`.
    pub guidance: f32,
    /// Divides the logits; 0 takes the largest.
    pub temperature: f32,
    /// Keeps the largest so many and all that equal the last of them; 0 keeps all.
    pub top_k: u32,
    /// A uniform number per codebook, from 0 to below 1.
    pub targets: Vec<f64>,
}

impl Fused {
    /// The kernels for a decoder of so many heads of so many numbers, where the device has any.
    pub fn of(kernels: Kernels, format: WeightFormat, heads: (usize, usize), device: &Device) -> Option<Self> {
        if kernels == Kernels::Composed { Self::new(device, format.dtype(device), heads) } else { None }
    }

    /// Chooses the codes of every voice, `[voices * codebooks]`, from logits `[rows, codebooks,
    /// card]`; `u32::MAX` where a codebook's numbers are none. None where there are too many codes
    /// for the kernel.
    ///
    /// # Errors
    /// When the device fails.
    pub fn sample(&self, logits: &Tensor, voices: &[Draw]) -> Result<Option<Vec<u32>>> {
        /// As in `sample.cu`.
        const MOST_CARD: usize = 4096;
        let (rows, books, card) = logits.dims3()?;
        let row = |draw: &Draw| draw.null.unwrap_or(0).max(draw.row);
        if voices.iter().any(|draw| draw.targets.len() != books || row(draw) >= rows) {
            candle_core::bail!("a voice's draw does not fit logits {:?}", logits.shape())
        }
        match voices {
            _ if card > MOST_CARD => Ok(None),
            [] => Ok(Some(Vec::new())),
            _ => self.choose(logits, voices).map(Some),
        }
    }
}

/// Where the tokens of a pass live, and their texts.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) fused: Fused,
    /// `[2, tokens]`: the row of every token, and the positions that it sees.
    places: Tensor,
    /// Whether no row has two tokens: then attention stores what it sees last by itself.
    alone: bool,
    texts: Option<Placed>,
}

/// Where the texts of a pass lie in every layer's memory of texts.
#[derive(Debug)]
struct Placed {
    /// `[2, tokens]`: the slot of every token, and the positions that it sees.
    places: Tensor,
    /// `[tokens, length]`, where shares matter.
    bias: Option<Tensor>,
    /// Slots, and positions in each.
    size: (usize, usize),
    /// Whether the memory is laid out anew.
    fresh: bool,
    /// Slots to be filled with the texts of a token.
    copies: Vec<(usize, usize)>,
}

/// Which texts lie in which slot of the layers' memory of texts.
#[derive(Debug, Default)]
pub struct TextSlots {
    /// Texts of a slot, and the pass that used it last. Holding them keeps their addresses their
    /// own.
    slots: Vec<Option<(Vec<Arc<CrossKeys>>, u64)>>,
    found: HashMap<Vec<usize>, usize>,
    length: usize,
    pass: u64,
}

impl Plan {
    /// `blends` holds the texts of every token in any one layer.
    pub(super) fn new(
        fused: &Fused,
        at: &[AttendRow],
        blends: &[Vec<CrossPart<'_>>],
        slots: &mut TextSlots,
        device: &Device,
    ) -> Result<Self> {
        let seen = at.iter().map(|at| at.position + 1);
        let places = places(at.iter().map(|at| at.row), seen, device)?;
        let conditioned = blends.iter().any(|parts| !parts.is_empty());
        let texts = conditioned.then(|| slots.place(blends, device)).transpose()?;
        let alone = at.iter().map(|at| at.row).collect::<HashSet<_>>().len() == at.len();
        Ok(Self { fused: fused.clone(), places, alone, texts })
    }
}

fn places(rows: impl Iterator<Item = usize>, seen: impl Iterator<Item = usize>, device: &Device) -> Result<Tensor> {
    let both: Vec<u32> = rows.chain(seen).map(|x| x as u32).collect();
    let tokens = both.len() / 2;
    Tensor::from_vec(both, (2, tokens), device)
}

fn len(parts: &[CrossPart<'_>]) -> usize {
    parts.iter().map(|part| part.keys.len()).sum()
}

impl TextSlots {
    /// Finds a slot for every token's texts, and says which have to be filled.
    fn assign(&mut self, blends: &[Vec<CrossPart<'_>>]) -> (Vec<usize>, Vec<(usize, usize)>, bool) {
        const LEAST: usize = 8;
        const BUCKET: usize = 32;
        self.pass += 1;
        let key = |parts: &Vec<CrossPart<'_>>| parts.iter().map(|part| Arc::as_ptr(part.keys) as usize).collect();
        let keys: Vec<Vec<usize>> = blends.iter().map(key).collect();
        let mut first: HashMap<&[usize], usize> = HashMap::new();
        for (token, key) in keys.iter().enumerate().filter(|(_, key)| !key.is_empty()) {
            first.entry(key).or_insert(token);
        }
        let longest = blends.iter().map(|parts| len(parts)).max().unwrap_or(0);
        let fresh = first.len() > self.slots.len() || longest > self.length;
        if fresh {
            let count = first.len().next_power_of_two().max(self.slots.len()).max(LEAST);
            let length = longest.next_multiple_of(BUCKET).max(self.length);
            *self = Self { slots: vec![None; count], found: HashMap::new(), length, pass: self.pass };
        }
        let mut missing = Vec::new();
        for (key, token) in first {
            match self.found.get(key).and_then(|slot| self.slots[*slot].as_mut()) {
                Some((_, used)) => *used = self.pass,
                None => missing.push(token),
            }
        }
        missing.sort_unstable();
        let mut copies = Vec::new();
        for token in missing {
            // The slot that was not used for longest; there are at least as many as the pass has
            // texts.
            let used = |slot: &Option<(_, u64)>| slot.as_ref().map_or(0, |(_, used)| *used);
            let slot = (0..self.slots.len()).min_by_key(|slot| used(&self.slots[*slot])).unwrap_or(0);
            self.found.retain(|_, other| *other != slot);
            self.found.insert(keys[token].clone(), slot);
            self.slots[slot] = Some((blends[token].iter().map(|part| part.keys.clone()).collect(), self.pass));
            copies.push((slot, token));
        }
        let slots = keys.iter().map(|key| self.found.get(key).copied().unwrap_or(0)).collect();
        (slots, copies, fresh)
    }

    fn place(&mut self, blends: &[Vec<CrossPart<'_>>], device: &Device) -> Result<Placed> {
        let (slots, copies, fresh) = self.assign(blends);
        let length = self.length;
        let bias = blends.iter().flatten().any(|part| part.log_share != 0.0).then(|| {
            let mut bias = vec![0f32; blends.len() * length];
            for (bias, parts) in bias.chunks_exact_mut(length).zip(blends) {
                let shares = parts.iter().flat_map(|part| std::iter::repeat_n(part.log_share, part.keys.len()));
                bias.iter_mut().zip(shares).for_each(|(bias, share)| *bias = share);
            }
            Tensor::from_vec(bias, (blends.len(), length), device)
        });
        Ok(Placed {
            places: places(slots.into_iter(), blends.iter().map(|parts| len(parts)), device)?,
            bias: bias.transpose()?,
            size: (self.slots.len(), length),
            fresh,
            copies,
        })
    }
}

/// Keys and values of `qkv` into the pool `[2, rows, heads, positions, dim]`, then every token's
/// attention to its row; all of the pool's type.
pub(super) fn attend_pool(pool: &Tensor, qkv: &Tensor, plan: &Plan) -> Result<Tensor> {
    let (_, _, heads, depth, dim) = pool.dims5()?;
    let lines = Lines { row: heads * depth * dim, head: depth * dim, position: dim, heads, dim };
    let qkv = qkv.contiguous()?;
    if !plan.alone {
        plan.fused.store(pool, &qkv, &plan.places, lines)?;
    }
    plan.fused.attend(&qkv, pool, &plan.places, None, lines, plan.alone)
}

/// Every token's attention to its texts. `memory` is the layer's memory of texts, `[2 * slots *
/// length, heads * dim]`.
pub(super) fn attend_texts(
    memory: &mut Option<Tensor>,
    queries: &Tensor,
    blends: &[Vec<CrossPart<'_>>],
    plan: &Plan,
    dtype: DType,
) -> Result<Tensor> {
    let (Some(placed), Some(first)) = (&plan.texts, blends.iter().flatten().next()) else {
        return queries.zeros_like();
    };
    let (heads, dim, (slots, length)) = (first.keys.heads(), first.keys.dim(), placed.size);
    if placed.fresh {
        *memory = None;
    }
    let memory = match memory {
        Some(memory) => memory,
        None => memory.insert(Tensor::zeros((2 * slots * length, heads * dim), dtype, queries.device())?),
    };
    for (slot, token) in &placed.copies {
        let mut start = slot * length;
        for part in &blends[*token] {
            let flat = |x: &Tensor| x.transpose(0, 1)?.contiguous()?.reshape(((), heads * dim))?.to_dtype(dtype);
            memory.slice_set(&flat(part.keys.keys()?)?, 0, start)?;
            memory.slice_set(&flat(part.keys.values()?)?, 0, slots * length + start)?;
            start += part.keys.len();
        }
    }
    let lines = Lines { row: length * heads * dim, head: dim, position: heads * dim, heads, dim };
    plan.fused.attend(&queries.contiguous()?, memory, &placed.places, placed.bias.as_ref(), lines, false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn texts_keep_their_slots_until_others_need_them() {
        let zeros = |len: usize| Tensor::zeros((len, 8), DType::F32, &Device::Cpu).unwrap();
        let texts: Vec<Arc<CrossKeys>> = (0..20)
            .map(|i| CrossKeys::new(&zeros(3 + i % 4), &zeros(3 + i % 4), 2, Kernels::Composed).unwrap())
            .collect();
        let part = |text: usize| CrossPart { keys: &texts[text], log_share: 0.0 };
        let mut slots = TextSlots::default();
        let mut assign = |blends: &[&[usize]]| {
            let blends: Vec<Vec<CrossPart<'_>>> =
                blends.iter().map(|blend| blend.iter().map(|text| part(*text)).collect()).collect();
            slots.assign(&blends)
        };
        // Two tokens of one text share its slot; a blend of two texts is not either of them.
        let (first, copies, fresh) = assign(&[&[0], &[], &[0], &[0, 1]]);
        assert!(fresh && copies.len() == 2 && first[0] == first[2] && first[0] != first[3]);
        // A pass of other texts in between changes nothing for them.
        let (others, copies, fresh) = assign(&[&[2], &[3]]);
        assert!(!fresh && copies.len() == 2 && !others.contains(&first[0]) && !others.contains(&first[3]));
        assert_eq!(assign(&[&[0], &[], &[0], &[0, 1]]), (first.clone(), vec![], false));
        // The six others that come fill what is free, then what was not used for longest.
        let (_, copies, fresh) = assign(&[&[4], &[5], &[6], &[7], &[8], &[0]]);
        assert!(!fresh && copies.len() == 5 && copies.iter().all(|(slot, _)| *slot != first[0]));
        let (_, copies, _) = assign(&[&[2], &[3], &[0, 1]]);
        assert!(copies.len() == 1 && copies[0].1 == 0);
        // More than there are slots, or longer ones: all is laid out anew.
        let many: Vec<Vec<usize>> = (0..9).map(|text| vec![text]).collect();
        let many: Vec<&[usize]> = many.iter().map(Vec::as_slice).collect();
        let (slots_of_many, copies, fresh) = assign(&many);
        assert!(fresh && copies.len() == 9);
        assert_eq!(slots_of_many.iter().collect::<std::collections::HashSet<_>>().len(), 9);
        let long: Vec<usize> = (0..20).collect();
        assert!(assign(&[&long]).2);
    }
}
