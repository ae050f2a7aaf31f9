//! The two hand-made protocols between threads, in every order in which their steps can happen.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]

mod sync {
    pub use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
}
#[path = "../src/engine/pcm_ring/border.rs"]
mod border;
#[path = "../src/model/kernels/kernel_pool/door.rs"]
mod door;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use self::border::Border;
use self::door::{Asleep, Door};

/// What a cut of epoch `epoch` says, so that the reader can tell whose it is.
fn place(epoch: u32, committed: u64) -> u64 {
    100 * u64::from(epoch) + committed
}

#[test]
fn no_sample_is_both_taken_and_cut_away() {
    loom::model(|| {
        let border = Arc::new(Border::new());
        let writer = {
            let border = Arc::clone(&border);
            thread::spawn(move || {
                for epoch in 1..=2 {
                    let mut seen = 0;
                    let cut = border.cut(|committed| {
                        // What was committed never goes back.
                        assert!(committed >= seen);
                        seen = committed;
                        Some(place(epoch, committed))
                    });
                    let (now, at) = cut.unwrap();
                    assert_eq!(now, epoch);
                    assert_eq!(at, place(epoch, seen));
                }
            })
        };
        let (mut taken, mut last) = (0, 0);
        for _ in 0..2 {
            let Some(seen) = border.look() else { continue };
            assert!(seen.epoch >= last);
            last = seen.epoch;
            // The cut is that of the epoch, and nothing that was taken lies behind it.
            match seen.epoch {
                0 => assert_eq!(seen.cut, u64::MAX),
                epoch => assert!((place(epoch, 0)..=place(epoch, taken)).contains(&seen.cut), "{}", seen.cut),
            }
            if border.commit(&seen, 1) {
                taken += 1;
            }
        }
        writer.join().unwrap();
        assert_eq!(border.committed(), taken);
        let seen = border.look().unwrap();
        assert_eq!(seen.epoch, 2);
        assert!(seen.cut <= place(2, taken));
    });
}

#[test]
fn nothing_is_laid_out_or_taken_away_while_a_member_is_inside() {
    loom::model(|| {
        let door = Arc::new(Door::new());
        let job = Arc::new(UnsafeCell::new(0));
        let member = {
            let (door, job) = (Arc::clone(&door), Arc::clone(&job));
            thread::spawn(move || {
                for _ in 0..2 {
                    if let Some(round) = door.enter() {
                        // Loom fails the test when this races with the caller.
                        job.with(|job| assert_eq!(unsafe { *job }, round));
                    }
                    door.leave();
                }
            })
        };
        for round in [1, 3] {
            job.with_mut(|job| unsafe { *job = round });
            door.open();
            door.close(thread::yield_now);
        }
        job.with_mut(|job| unsafe { *job = 0 });
        member.join().unwrap();
    });
}

#[test]
fn a_member_that_falls_asleep_is_woken_or_sees_the_door_open() {
    loom::model(|| {
        let (door, asleep) = (Arc::new(Door::new()), Arc::new(Asleep::new()));
        let member = {
            let (door, asleep) = (Arc::clone(&door), Arc::clone(&asleep));
            thread::spawn(move || {
                asleep.fall();
                while !door.is_open(0) {
                    thread::park();
                }
                asleep.wake();
            })
        };
        door.open();
        if asleep.is() {
            member.thread().unpark();
        }
        // Loom fails the test when the member sleeps for ever.
        member.join().unwrap();
    });
}
