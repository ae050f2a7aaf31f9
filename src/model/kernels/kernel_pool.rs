//! Threads that wait for each other's kernels.
//!
//! A decoder step is some two hundred kernels of a few dozen microseconds. Waking a thread for each
//! of them costs as much again, so the members of the pool look out for the next kernel for a
//! moment before they sleep, and the thread that makes the step works along with them. Nobody spins
//! for longer than [`PATIENCE`].
//!
//! Every thread begins with its own share of a kernel's parts, which lie one behind the other in
//! memory, and then takes what others have left. While it waits it fetches the beginning of its
//! share of the weights that come next ([`prefetch_next`]), so that memory is not idle between
//! kernels.
//!
//! One thread at a time has the pool; whoever finds it taken, shares his work by rayon instead.
#![allow(unsafe_code)]

mod door;
/// Where [`door`] takes its atomics from; its proof takes others.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
}

use std::{
    cell::UnsafeCell,
    hint,
    marker::PhantomData,
    mem::MaybeUninit,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use rayon::prelude::*;

use self::door::{Asleep, Door};
use super::memory;

/// How long a member looks out for work before it sleeps.
const PATIENCE: Duration = Duration::from_micros(50);
/// Looks between two readings of the clock.
const LOOKS: usize = 32;
/// Bytes that a thread fetches ahead at most: a part of its own second cache.
const AHEAD: usize = 256 << 10;
/// Lines of 64 bytes that are fetched between two looks.
const LINES: usize = 16;

/// A kernel with its lifetime taken off: [`KernelPool::run`] does not return while anybody may call
/// it.
#[derive(Clone, Copy)]
struct Job {
    call: *const (dyn Fn(usize) + Sync),
    parts: usize,
}

struct Shared {
    /// Written by the thread that has the pool, while the door is closed and nobody is inside.
    job: UnsafeCell<Option<Job>>,
    door: Door,
    /// The next part of every thread's share that nobody has taken; the caller's is the first.
    shares: Vec<Share>,
    panicked: AtomicBool,
}

/// In a cache line of its own.
#[repr(align(64))]
struct Share(AtomicUsize);

// SAFETY: `job` is only written while no member reads it (see `KernelPool::run`), and what it
// points to may be shared.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

struct Member {
    thread: Thread,
    asleep: Arc<Asleep>,
}

struct KernelPool {
    shared: Arc<Shared>,
    members: Vec<Member>,
    taken: Mutex<()>,
}

static POOL: LazyLock<KernelPool> = LazyLock::new(|| KernelPool::new(rayon::current_num_threads().saturating_sub(1)));

/// What comes next: the address of the first thread's part, the bytes from there to the next
/// thread's, and the bytes of a part. Nothing is read there, so it does not matter if it is gone,
/// or if the three do not belong together.
static NEXT: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// Says which weights are needed after the kernel that comes now. Threads that have nothing to do
/// fetch them.
pub(super) fn prefetch_next<T>(weights: &[T]) {
    let part = size_of_val(weights) / size();
    prefetch_next_at(weights.as_ptr(), part, part);
}

/// [`prefetch_next`] where each thread begins so many bytes behind the one before it.
pub(super) fn prefetch_next_at<T>(from: *const T, apart: usize, bytes: usize) {
    NEXT[2].store(bytes, Ordering::Relaxed);
    NEXT[1].store(apart, Ordering::Relaxed);
    NEXT[0].store(from.addr(), Ordering::Relaxed);
}

/// How far a thread has fetched ahead.
#[derive(Default)]
struct Fetched {
    next: usize,
    lines: Range<usize>,
}

impl Fetched {
    /// Fetches some lines of the part of thread `index`; false if there are none left.
    fn more(&mut self, index: usize) -> bool {
        let [next, apart, bytes] = NEXT.each_ref().map(|next| next.load(Ordering::Relaxed));
        if next != self.next {
            let from = index * apart / 64;
            *self = Self { next, lines: from..from + bytes.min(AHEAD) / 64 };
        }
        let some = self.lines.start..self.lines.end.min(self.lines.start + LINES);
        self.lines.start = some.end;
        some.clone().for_each(|line| memory::fetch_far((next as *const [u8; 64]).wrapping_add(line)));
        !some.is_empty()
    }
}

/// The share of thread `index` of `count` in `parts`.
fn share(parts: usize, count: usize, index: usize) -> Range<usize> {
    index * parts / count..(index + 1) * parts / count
}

/// Threads that take part in a kernel.
pub(super) fn size() -> usize {
    POOL.members.len() + 1
}

/// Calls `f` with `0..parts`, each once, on as many threads as there are. A part should be worth
/// some microseconds.
pub(super) fn run(parts: usize, f: impl Fn(usize) + Sync) {
    if parts < 2 || POOL.members.is_empty() {
        return (0..parts).for_each(f);
    }
    match POOL.taken.try_lock() {
        Ok(_taken) => POOL.run(parts, &f),
        Err(_) => (0..parts).into_par_iter().for_each(&f),
    }
}

/// Where items begin that threads share out.
struct Base<T>(*mut T);
// SAFETY: threads take parts that do not overlap.
unsafe impl<T: Send> Sync for Base<T> {}

impl<T> Base<T> {
    fn at(&self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

/// Calls `f` with the index of each chunk of `size` items (the last may be shorter) and the chunk.
pub(super) fn chunks<T: Send>(items: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let (len, base) = (items.len(), Base(items.as_mut_ptr()));
    run(len.div_ceil(size.max(1)), |index| {
        let from = index * size;
        // SAFETY: `from` lies within the items, every index comes once, and `items` is borrowed
        // until all are done.
        let part = unsafe { std::slice::from_raw_parts_mut(base.at(from), size.min(len - from)) };
        f(index, part);
    });
}

/// As many values, made chunk by chunk: `f` gets each one's index and the chunk, which is zeros. They
/// become zeros where they are written next, while the cache has them.
pub(super) fn made(len: usize, size: usize, f: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut items: Vec<f32> = Vec::with_capacity(len);
    // Chunks of nothing would leave everything as it is.
    chunks(&mut items.spare_capacity_mut()[..len], size.max(1), |index, part| {
        part.fill(MaybeUninit::new(0.0));
        // SAFETY: all of it was just written.
        f(index, unsafe { part.assume_init_mut() });
    });
    // SAFETY: every chunk was made.
    unsafe { items.set_len(len) };
    items
}

/// Some columns of all rows of a matrix, which nobody else has.
pub(super) struct Columns<'a, T> {
    first: *mut T,
    rows: usize,
    /// Items from row to row.
    stride: usize,
    width: usize,
    matrix: PhantomData<&'a mut [T]>,
}

impl<'a, T> Columns<'a, T> {
    /// All columns of a matrix with rows of `stride` items.
    pub(super) fn all(matrix: &'a mut [T], stride: usize) -> Self {
        let rows = matrix.len() / stride.max(1);
        Self { first: matrix.as_mut_ptr(), rows, stride, width: stride, matrix: PhantomData }
    }

    /// The columns in one row.
    #[inline(always)]
    pub(super) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: the row lies in the matrix, which is borrowed for 'a, and these columns of it
        // belong to nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(row * self.stride), self.width) }
    }
}

/// Calls `f` with the index of each `width` columns (the last may be fewer) of a matrix with rows
/// of `stride` items, and these columns.
pub(super) fn columns<T: Send>(
    matrix: &mut [T],
    stride: usize,
    width: usize,
    f: impl Fn(usize, Columns<'_, T>) + Sync,
) {
    let (base, rows) = (Base(matrix.as_mut_ptr()), matrix.len() / stride.max(1));
    run(stride.div_ceil(width.max(1)), |index| {
        let from = index * width;
        // Columns of different calls do not overlap, every index comes once, and `matrix` is
        // borrowed until all are done.
        let columns =
            Columns { first: base.at(from), rows, stride, width: width.min(stride - from), matrix: PhantomData };
        f(index, columns);
    });
}

impl KernelPool {
    fn new(members: usize) -> Self {
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(None),
            door: Door::new(),
            shares: (0..=members).map(|_| Share(AtomicUsize::new(0))).collect(),
            panicked: AtomicBool::new(false),
        });
        let start = |index: usize| {
            let (own, asleep) = (shared.clone(), Arc::new(Asleep::new()));
            let flag = asleep.clone();
            let thread = thread::Builder::new()
                .name(format!("kernel-{index}"))
                .spawn(move || serve(&own, index + 1, &flag))
                .ok()?;
            Some(Member { thread: thread.thread().clone(), asleep })
        };
        let members = (0..members).map_while(start).collect();
        Self { shared, members, taken: Mutex::new(()) }
    }

    /// Only for the thread that holds `taken`.
    fn run(&self, parts: usize, f: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes, and `close` waits until nobody uses the job any more.
        let call =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync)>(f) };
        // SAFETY: the door is closed behind the job before: no member is inside, and none comes in.
        unsafe { *shared.job.get() = Some(Job { call, parts }) };
        for (index, next) in shared.shares.iter().enumerate() {
            next.0.store(share(parts, shared.shares.len(), index).start, Ordering::Relaxed);
        }
        shared.door.open();
        for member in &self.members {
            if member.asleep.is() {
                member.thread.unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| take_parts(shared, 0, parts, f)));
        if own.is_err() {
            shared.shares.iter().for_each(|next| next.0.store(parts, Ordering::Relaxed));
        }
        self.close();
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        if shared.panicked.swap(false, Ordering::SeqCst) {
            panic!("a kernel failed on another thread");
        }
    }

    /// Lets no member in any more and waits for those that are.
    fn close(&self) {
        let (mut looks, mut fetched) = (0, Fetched::default());
        self.shared.door.close(|| {
            if fetched.more(0) {
                return;
            }
            looks += 1;
            // A member that was put off its core gets ours.
            if looks % 1024 == 0 { thread::yield_now() } else { hint::spin_loop() }
        });
    }
}

/// Thread `index` takes parts, its own ones first.
fn take_parts(shared: &Shared, index: usize, parts: usize, f: &(dyn Fn(usize) + Sync)) {
    let count = shared.shares.len();
    for whose in (0..count).map(|turn| (index + turn) % count) {
        let end = share(parts, count, whose).end;
        loop {
            let part = shared.shares[whose].0.fetch_add(1, Ordering::Relaxed);
            if part >= end {
                break;
            }
            f(part);
        }
    }
}

/// A member's life.
fn serve(shared: &Shared, index: usize, asleep: &Asleep) {
    let (mut done, mut fetched) = (0, Fetched::default());
    loop {
        let since = Instant::now();
        while !shared.door.is_open(done) {
            if fetched.more(index) {
                continue;
            }
            if since.elapsed() < PATIENCE {
                (0..LOOKS).take_while(|_| !shared.door.is_open(done)).for_each(|_| hint::spin_loop());
                continue;
            }
            asleep.fall();
            while !shared.door.is_open(done) {
                thread::park();
            }
            asleep.wake();
        }
        if let Some(round) = shared.door.enter() {
            // SAFETY: this member is inside, so the job stays until it has left.
            if let Some(job) = unsafe { *shared.job.get() } {
                // SAFETY: as above.
                let call = unsafe { &*job.call };
                if catch_unwind(AssertUnwindSafe(|| take_parts(shared, index, job.parts, call))).is_err() {
                    shared.panicked.store(true, Ordering::SeqCst);
                }
            }
            done = round;
        }
        shared.door.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_given_to_one_thread_each() {
        for (rows, stride, width) in [(1, 1, 1), (3, 10, 4), (2, 64, 64), (5, 33, 32)] {
            let mut matrix = vec![0; rows * stride];
            columns(&mut matrix, stride, width, |index, mut columns| {
                (0..rows).for_each(|row| columns.row(row).iter_mut().for_each(|item| *item += 100 * row + index + 1));
            });
            let expected = |at: usize| 100 * (at / stride) + at % stride / width + 1;
            assert!(matrix.iter().enumerate().all(|(at, item)| *item == expected(at)));
        }
    }

    #[test]
    fn every_part_is_done_once_however_many_threads_ask() {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..2_000 {
                        let mut items = vec![0u32; 100 + round % 7];
                        chunks(&mut items, 9, |index, part| part.iter_mut().for_each(|item| *item += 1 + index as u32));
                        assert!(items.iter().enumerate().all(|(at, item)| *item == 1 + at as u32 / 9));
                    }
                });
            }
        });
    }

    #[test]
    fn members_sleep_and_wake() {
        let pool = KernelPool::new(3);
        for _ in 0..20 {
            while !pool.members.iter().all(|member| member.asleep.is()) {
                thread::yield_now();
            }
            let sum = AtomicUsize::new(0);
            pool.run(50, &|part| {
                sum.fetch_add(part, Ordering::Relaxed);
            });
            assert_eq!(sum.load(Ordering::Relaxed), 50 * 49 / 2);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = KernelPool::new(2);
        for bad in [0, 40, 99] {
            let run = || pool.run(100, &|part| assert!(part != bad, "part {bad}"));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        }
        let count = AtomicUsize::new(0);
        pool.run(100, &|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 100);
    }
}
