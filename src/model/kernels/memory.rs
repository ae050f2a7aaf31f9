//! Memory for weights, keys and values, in large pages.
//!
//! A step reads all weights in order. In pages of 4 KiB the processor looks up an address every 64 lines and stops
//! fetching ahead at every page; in pages of 2 MiB it reads up to twice as fast. Weights are smaller than such a page,
//! so they share chunks. The system is asked for large pages and may decline: only speed depends on it.
#![allow(unsafe_code)]

use std::{
    io,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use memmap2::MmapRaw;

/// Size of a large page.
const PAGE: usize = 2 << 20;
/// What is asked for at once.
const CHUNK: usize = 16 * PAGE;
/// Every block begins at a cache line.
const ALIGN: usize = 64;

/// Types of which any bytes are a value.
///
/// # Safety
/// True of the type, and its alignment is at most [`ALIGN`].
pub(super) unsafe trait Plain: Copy + Send + Sync + 'static {}
// SAFETY: numbers.
unsafe impl Plain for f32 {}
// SAFETY: numbers.
unsafe impl Plain for u32 {}
// SAFETY: bytes, aligned to a cache line.
unsafe impl Plain for super::quant::Line {}

/// `len` values.
pub(super) struct Block<T> {
    /// Keeps the memory.
    chunk: Arc<MmapRaw>,
    /// In bytes from the chunk's beginning.
    from: usize,
    len: usize,
    values: PhantomData<T>,
}

/// The chunk that still has room, while anything in it is used.
static OPEN: Mutex<(Weak<MmapRaw>, usize)> = Mutex::new((Weak::new(), 0));

impl<T: Plain> Block<T> {
    /// `fill` gets zeros to write over.
    ///
    /// # Errors
    /// When the system has no memory left.
    pub(super) fn new(len: usize, fill: impl FnOnce(&mut [T])) -> io::Result<Self> {
        let (chunk, from) = reserve(len * size_of::<T>())?;
        let mut block = Self { chunk, from, len, values: PhantomData };
        fill(&mut block);
        Ok(block)
    }

    /// Zeros in memory of their own that is not used before it is written to: in small pages if `part` of the values,
    /// which are used together, are less than a large one.
    ///
    /// # Errors
    /// When the system has no memory left.
    pub(super) fn zeroed(len: usize, part: usize) -> io::Result<Self> {
        let (chunk, from) = fresh(len * size_of::<T>(), part * size_of::<T>() >= PAGE)?;
        Ok(Self { chunk, from, len, values: PhantomData })
    }
}

impl<T> Deref for Block<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the range lies in the chunk, is aligned, belongs to this block alone, and any bytes are a `T`.
        unsafe { std::slice::from_raw_parts(self.chunk.as_ptr().add(self.from).cast(), self.len) }
    }
}

impl<T> DerefMut for Block<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and this is the only reference to it.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.as_mut_ptr().add(self.from).cast(), self.len) }
    }
}

impl<T> std::fmt::Debug for Block<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} values", self.len)
    }
}

/// Finds room for `bytes`: a chunk and the place in it.
fn reserve(bytes: usize) -> io::Result<(Arc<MmapRaw>, usize)> {
    if bytes > CHUNK / 4 {
        return fresh(bytes, true);
    }
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(chunk) = open.0.upgrade()
        && open.1 + bytes <= chunk.len()
    {
        let from = open.1;
        open.1 = (from + bytes).next_multiple_of(ALIGN);
        return Ok((chunk, from));
    }
    let (chunk, from) = fresh(CHUNK, true)?;
    *open = (Arc::downgrade(&chunk), (from + bytes).next_multiple_of(ALIGN));
    Ok((chunk, from))
}

/// A chunk with room for `bytes` from a large page's beginning, in `large` pages if the system has them. Memory that is not written to is not used.
fn fresh(bytes: usize, large: bool) -> io::Result<(Arc<MmapRaw>, usize)> {
    let map = MmapRaw::from(memmap2::MmapMut::map_anon(bytes.next_multiple_of(PAGE) + PAGE)?);
    let from = map.as_ptr().align_offset(PAGE);
    #[cfg(target_os = "linux")]
    if large && let Err(error) = map.advise(memmap2::Advice::HugePage) {
        tracing::debug!("no large pages for weights: {error}");
    }
    Ok((Arc::new(map), from))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn blocks_do_not_overlap_and_outlive_each_other() {
        let block = |index: usize| {
            let len = [1, 17, 1 << 18, 3 << 20][index % 4] + index;
            Block::<u32>::new(len, |values| {
                assert!(values.iter().all(|value| *value == 0));
                values.fill(index as u32);
            })
            .unwrap()
        };
        let mut blocks: Vec<Option<Block<u32>>> = (0..40).map(|index| Some(block(index))).collect();
        blocks.iter_mut().step_by(3).for_each(|block| *block = None);
        for (index, block) in blocks.iter().enumerate() {
            let Some(block) = block else { continue };
            assert!(block.as_ptr().addr().is_multiple_of(ALIGN));
            assert!(block.iter().all(|value| *value == index as u32), "block {index}");
        }
    }
}
