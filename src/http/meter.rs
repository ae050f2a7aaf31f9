//! What goes over a connection, counted: to know what a client has taken, and to bound what of a
//! WebSocket's message is in memory before it is whole.

use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::budget::{Budget, Share};

/// Bytes that may be read without a share of the memory.
const FREE: u64 = 256 << 10;

/// The meter of one connection.
#[derive(Debug, Default)]
pub(super) struct Meter {
    written: AtomicU64,
    is_watched: AtomicBool,
    reading: Mutex<Option<Reading>>,
    tcp: OnceLock<Weak<TcpStream>>,
}

/// What was read and not used yet.
#[derive(Debug)]
struct Reading {
    bytes: u64,
    share: Share,
}

impl Meter {
    /// The connection that it counts.
    pub fn of(&self, tcp: &Arc<TcpStream>) {
        // A connection has one socket.
        let _ = self.tcp.set(Arc::downgrade(tcp));
    }

    /// Ends the connection, whoever has it by now: of one that was upgraded nothing else here is
    /// left.
    pub fn cut(&self) {
        if let Some(tcp) = self.tcp.get().and_then(Weak::upgrade) {
            // It may have ended by itself.
            let _ = SockRef::from(&*tcp).shutdown(Shutdown::Both);
        }
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn reading(&self) -> MutexGuard<'_, Option<Reading>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on what is read takes its share of the memory until it is used.
    pub fn watch(&self, budget: &Budget) {
        if let Ok(share) = budget.try_take(0) {
            self.reading().get_or_insert(Reading { bytes: 0, share });
            self.is_watched.store(true, Ordering::Release);
        }
    }

    /// Counts what was read.
    ///
    /// # Errors
    /// When there is no memory for more: the connection ends.
    pub fn read(&self, bytes: usize) -> io::Result<()> {
        if !self.is_watched.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut reading = self.reading();
        let Some(Reading { bytes: unused, share }) = &mut *reading else { return Ok(()) };
        *unused += bytes as u64;
        if *unused <= FREE {
            return Ok(());
        }
        let wanted = unused.next_multiple_of(FREE);
        share.try_grow(wanted).map_err(|error| {
            self.cut();
            io::Error::new(io::ErrorKind::OutOfMemory, error)
        })
    }

    /// What was read is whole and used.
    pub fn used(&self) {
        if let Some(Reading { bytes, share }) = &mut *self.reading() {
            *bytes = 0;
            share.shrink(0);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn half_a_message_takes_its_part_of_the_memory_and_a_whole_one_gives_it_back() {
        let (budget, meter) = (Budget::new(8 << 20), Meter::default());
        meter.read(1 << 30).unwrap();
        meter.watch(&budget);
        (0..24).for_each(|_| meter.read(256 << 10).unwrap());
        assert!(budget.free() <= 2 << 20);
        let other = Meter::default();
        other.watch(&budget);
        assert_eq!(other.read(3 << 20).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        meter.used();
        other.read(1 << 20).unwrap();
        drop((meter, other));
        assert_eq!(budget.free(), budget.bytes());
    }
}
