//! Memory for weights, keys and values, in large pages.
//!
//! A step reads all weights in order. In pages of 4 KiB the processor looks up an address every 64
//! lines and stops fetching ahead at every page; in pages of 2 MiB it reads up to twice as fast.
//! Weights are smaller than such a page, so they share chunks. The system is asked for large pages
//! and may decline: only speed depends on it.
#![allow(unsafe_code)]

use std::{
    io,
    marker::PhantomData,
    ops::{Deref, DerefMut, Range},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use memmap2::MmapRaw;
#[cfg(target_os = "linux")]
use memmap2::UncheckedAdvice;
use rayon::prelude::*;

use super::{kernel_pool, math};

/// Size of a large page.
const PAGE: usize = 2 << 20;
/// What is asked for at once.
const CHUNK: usize = 16 * PAGE;
/// The pages of any system are parts of this.
#[cfg(target_os = "linux")]
const SMALL_PAGES: usize = 64 << 10;
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
unsafe impl Plain for super::quant::CacheLine {}

/// `len` values.
pub(super) struct HugePageBuf<T> {
    /// Keeps the memory.
    chunk: Arc<MmapRaw>,
    /// In bytes from the chunk's beginning.
    from: usize,
    len: usize,
    values: PhantomData<T>,
}

/// The chunk that still has room, while anything in it is used.
static OPEN: Mutex<(Weak<MmapRaw>, usize)> = Mutex::new((Weak::new(), 0));

impl<T: Plain> HugePageBuf<T> {
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

    /// Zeros in memory of their own that is not used before it is written to: in small pages if
    /// `part` of the values, which are used together, are less than a large one.
    ///
    /// # Errors
    /// When the system has no memory left.
    pub(super) fn zeroed(len: usize, part: usize) -> io::Result<Self> {
        let (chunk, from) = fresh(len * size_of::<T>(), part * size_of::<T>() >= PAGE)?;
        Ok(Self { chunk, from, len, values: PhantomData })
    }

    /// Gives the memory of values that nobody needs back to the system, as far as others share no
    /// page with them. They are zeros or what they were until they are written to again.
    pub(super) fn forget(&mut self, values: Range<usize>) {
        let own = &self[values];
        #[cfg(target_os = "linux")]
        {
            let begin = self.chunk.as_ptr().addr();
            let first = own.as_ptr().addr().next_multiple_of(SMALL_PAGES);
            let end = (own.as_ptr().addr() + size_of_val(own)) / SMALL_PAGES * SMALL_PAGES;
            if first < end {
                // SAFETY: the pages belong to this block alone, which is borrowed for writing, and
                // zeros are values.
                let gone =
                    unsafe { self.chunk.unchecked_advise_range(UncheckedAdvice::DontNeed, first - begin, end - first) };
                if let Err(error) = gone {
                    tracing::debug!("memory that is not needed stays: {error}");
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = own;
    }
}

impl<T> Deref for HugePageBuf<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the range lies in the chunk, is aligned, belongs to this block alone, and any
        // bytes are a `T`.
        unsafe { std::slice::from_raw_parts(self.chunk.as_ptr().add(self.from).cast(), self.len) }
    }
}

impl<T> DerefMut for HugePageBuf<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and this is the only reference to it.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.as_mut_ptr().add(self.from).cast(), self.len) }
    }
}

impl<T> std::fmt::Debug for HugePageBuf<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} values", self.len)
    }
}

/// Defines a function that asks the processor to fetch a cache line, by its names for the hint on
/// x86-64 and on ARM.
macro_rules! fetch {
    ($(#[$doc:meta])* $name:ident, $x86:ident, $arm:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(super) fn $name<T>(at: *const T) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: every x86-64 processor has the instruction, and it faults at no address.
            unsafe {
                std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::$x86 }>(at.cast());
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: a hint that faults at no address and changes nothing.
            unsafe {
                std::arch::asm!(
                    concat!("prfm ", $arm, ", [{at}]"),
                    at = in(reg) at, options(readonly, nostack, preserves_flags),
                );
            }
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            let _ = at;
        }
    };
}

fetch! {
    /// Asks for the cache line at an address, which may be any, into the nearest cache: nothing is
    /// read.
    fetch, _MM_HINT_T0, "pldl1keep"
}
fetch! {
    /// [`fetch`] into the second cache, of what is used later.
    fetch_far, _MM_HINT_T1, "pldl2keep"
}
fetch! {
    /// [`fetch`] of what is used once, so that it takes no room in other caches.
    fetch_once, _MM_HINT_NTA, "pldl1strm"
}

/// A large block, to measure how fast the machine reads: in the order and the pages in which
/// weights are read.
pub struct Probe(HugePageBuf<u32>);

/// Words that a thread takes at once.
const PART: usize = PAGE / 4;
/// Words between what is read and what is fetched.
const AHEAD: usize = 1 << 11;

impl Probe {
    /// Takes at least `bytes`, which should be well above the caches.
    ///
    /// # Errors
    /// When the system has no memory left.
    pub fn new(bytes: usize) -> io::Result<Self> {
        HugePageBuf::new(bytes.div_ceil(4), |words: &mut [u32]| {
            words.par_chunks_mut(PART).for_each(|words| words.fill(1));
        })
        .map(Self)
    }

    /// What one pass reads.
    pub fn bytes(&self) -> usize {
        self.0.len() * 4
    }

    /// Reads everything once on all threads of the decoder and returns the sum of all words.
    pub fn pass(&self) -> u32 {
        let sum = AtomicU32::new(0);
        kernel_pool::run(self.0.len().div_ceil(PART), |part| {
            let words = &self.0[part * PART..self.0.len().min((part + 1) * PART)];
            let own = math::dispatch_simd(
                #[inline(always)]
                || {
                    let mut lanes = [0u32; 64];
                    for chunk in words.chunks_exact(64) {
                        for line in chunk.chunks_exact(ALIGN / 4) {
                            fetch(line.as_ptr().wrapping_add(AHEAD));
                        }
                        for (lane, word) in lanes.iter_mut().zip(chunk) {
                            *lane = lane.wrapping_add(*word);
                        }
                    }
                    let rest = words.chunks_exact(64).remainder().iter();
                    lanes.iter().chain(rest).fold(0u32, |sum, word| sum.wrapping_add(*word))
                },
            );
            sum.fetch_add(own, Ordering::Relaxed);
        });
        sum.into_inner()
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

/// A chunk with room for `bytes` from a large page's beginning, in `large` pages if the system has
/// them. Memory that is not written to is not used.
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
    fn a_pass_reads_every_word() {
        for words in [1, PART - 1, 3 * PART + 77] {
            let probe = Probe::new(words * 4).unwrap();
            assert_eq!((probe.pass() as usize, probe.bytes()), (words, words * 4));
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_forgotten_is_zeros_again_and_nothing_beside_it() {
        let mut block = HugePageBuf::<u32>::zeroed(3 * PART, PART).unwrap();
        block.fill(7);
        let (from, to) = (PART / 2 + 5, 2 * PART + 77);
        block.forget(from..to);
        assert!(block[..from].iter().chain(&block[to..]).all(|value| *value == 7));
        let (inner, pages) = (&block[from..to], SMALL_PAGES / 4);
        assert!(inner[pages..inner.len() - pages].iter().all(|value| *value == 0));
        block.forget(3..9);
        assert_eq!(block[3..9], [7; 6], "less than a page");
    }

    #[test]
    fn blocks_do_not_overlap_and_outlive_each_other() {
        let block = |index: usize| {
            let len = [1, 17, 1 << 18, 3 << 20][index % 4] + index;
            HugePageBuf::<u32>::new(len, |values| {
                assert!(values.iter().all(|value| *value == 0));
                values.fill(index as u32);
            })
            .unwrap()
        };
        let mut blocks: Vec<Option<HugePageBuf<u32>>> = (0..40).map(|index| Some(block(index))).collect();
        blocks.iter_mut().step_by(3).for_each(|block| *block = None);
        for (index, block) in blocks.iter().enumerate() {
            let Some(block) = block else { continue };
            assert!(block.as_ptr().addr().is_multiple_of(ALIGN));
            assert!(block.iter().all(|value| *value == index as u32), "block {index}");
        }
    }
}
