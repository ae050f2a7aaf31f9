//! One budget of memory for what requests hold: bodies, decoded sound, conversions, messages that
//! wait for a reader.
//!
//! Bounds on one request do not bound their sum. Whatever grows with what a client sends takes a
//! share first; when there is none left it waits in line for a moment, then is told to come back.
//! Shares are given back when they are dropped.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bytes of a unit.
const UNIT: u64 = 4 << 10;
/// How long a request waits in line.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes when nobody said how many.
const USUAL: u64 = 1 << 30;

/// There is no memory for a request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The server has no memory to spare for this now; try again in {RETRY_AFTER} s.")]
pub struct Exhausted;

/// Seconds after which it is worth another try.
pub const RETRY_AFTER: u64 = 5;

/// The memory for requests; clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    units: u32,
}

/// A part of the budget.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    permit: OwnedSemaphorePermit,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(USUAL)
    }
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).clamp(1, 1 << 28);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        u64::from(self.units) * UNIT
    }

    /// Bytes that nobody holds.
    pub fn free(&self) -> u64 {
        self.free.available_permits() as u64 * UNIT
    }

    /// What is more than all there is gets all there is: it is served alone.
    fn units(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units)
    }

    /// A share, after a moment in line if need be.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub async fn take(&self, bytes: u64) -> Result<Share, Exhausted> {
        let permit = timeout(PATIENCE, Arc::clone(&self.free).acquire_many_owned(self.units(bytes))).await;
        match permit {
            Ok(Ok(permit)) => Ok(Share { budget: self.clone(), permit }),
            _ => Err(Exhausted),
        }
    }

    /// A share at once, for what is in memory already.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn try_take(&self, bytes: u64) -> Result<Share, Exhausted> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(self.units(bytes));
        permit.map(|permit| Share { budget: self.clone(), permit }).map_err(|_| Exhausted)
    }

    /// A share, however long that takes: for work that was accepted and must be done.
    pub async fn wait_for(&self, bytes: u64) -> Share {
        loop {
            if let Ok(share) = self.take(bytes).await {
                return share;
            }
        }
    }
}

impl Share {
    /// Bytes of it.
    pub fn bytes(&self) -> u64 {
        self.permit.num_permits() as u64 * UNIT
    }

    fn missing(&self, bytes: u64) -> u64 {
        u64::from(self.budget.units(bytes)).saturating_sub(self.permit.num_permits() as u64) * UNIT
    }

    /// Makes it at least `bytes` large.
    ///
    /// # Errors
    /// [`Exhausted`]; it stays as it is.
    pub async fn grow(&mut self, bytes: u64) -> Result<(), Exhausted> {
        let missing = self.missing(bytes);
        if missing > 0 {
            self.permit.merge(self.budget.take(missing).await?.permit);
        }
        Ok(())
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// [`Exhausted`]; it stays as it is.
    pub fn try_grow(&mut self, bytes: u64) -> Result<(), Exhausted> {
        let missing = self.missing(bytes);
        if missing > 0 {
            self.permit.merge(self.budget.try_take(missing)?.permit);
        }
        Ok(())
    }

    /// Gives back what exceeds `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let kept = self.budget.units(bytes) as usize;
        drop(self.permit.split(self.permit.num_permits().saturating_sub(kept)));
    }

    /// A part of it, that is given back on its own.
    ///
    /// # Errors
    /// [`Exhausted`] when it is smaller than that.
    pub fn split(&mut self, bytes: u64) -> Result<Self, Exhausted> {
        let permit = self.permit.split(self.budget.units(bytes) as usize).ok_or(Exhausted)?;
        Ok(Self { budget: self.budget.clone(), permit })
    }

    /// Takes another share in.
    pub fn merge(&mut self, other: Self) {
        self.permit.merge(other.permit);
    }

    /// Bytes that hold this share for as long as anybody has a part of them.
    pub fn hold(mut self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        self.shrink(bytes.as_ref().len() as u64);
        Bytes::from_owner(Held { bytes, _share: self })
    }
}

struct Held<T> {
    bytes: T,
    _share: Share,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_too_late_waits_for_a_moment_and_is_told_to_come_back() {
        let budget = Budget::new(1 << 20);
        let mut half = budget.take(512 << 10).await.unwrap();
        assert_eq!(half.bytes(), 512 << 10);
        let other = budget.take(512 << 10).await.unwrap();
        assert_eq!(budget.take(1).await.unwrap_err(), Exhausted);
        assert!(half.grow(600 << 10).await.is_err() && half.try_grow(600 << 10).is_err());
        // Who waits is served when somebody leaves.
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.take(512 << 10).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(other);
        drop(waiting.await.unwrap().unwrap());
        half.grow(600 << 10).await.unwrap();
        half.shrink(4 << 10);
        assert_eq!(budget.free(), budget.bytes() - (4 << 10));
    }

    #[tokio::test]
    async fn bytes_hold_their_share_until_the_last_part_is_gone() {
        let budget = Budget::new(1 << 20);
        let bytes = budget.take(100 << 10).await.unwrap().hold(vec![7; 64 << 10]);
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(budget.free(), budget.bytes() - (64 << 10));
        drop(part);
        assert_eq!(budget.free(), budget.bytes());
    }

    #[tokio::test]
    async fn what_is_larger_than_the_budget_is_served_alone() {
        let budget = Budget::new(1 << 20);
        let all = budget.take(1 << 40).await.unwrap();
        assert_eq!((all.bytes(), budget.free()), (1 << 20, 0));
    }
}
