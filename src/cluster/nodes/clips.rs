//! How busy the studios of the nodes are, and for whom.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::{FRESH, Nodes};
use crate::studio::{Lane, Owner, Studio};

impl Nodes {
    /// The studio of this node.
    pub(in crate::cluster) fn makes_clips(&self, studio: &Arc<Studio>) {
        let _ = self.studio.set(Arc::downgrade(studio));
    }

    /// A node has one clip more, until it says itself how many.
    pub(in crate::cluster) fn gave_clip(&self, name: &str) {
        if let Some(seen) = self.seen().get_mut(name) {
            seen.node.clips += 1;
        }
    }

    pub(super) fn clips(&self) -> usize {
        let Some(studio) = self.studio.get().and_then(Weak::upgrade) else { return 0 };
        let loads = Lane::ALL.into_iter().map(|lane| studio.load(lane));
        loads.map(|(waiting, running)| waiting + running).sum()
    }

    pub(super) fn making(&self) -> Vec<Vec<String>> {
        let Some(studio) = self.studio.get().and_then(Weak::upgrade) else { return Vec::new() };
        let owners = |lane| studio.owners(lane).into_iter().map(|owner| owner.0).collect();
        Lane::ALL.into_iter().map(owners).collect()
    }

    /// What other nodes make for an owner counts as turns that he has had.
    pub(super) fn count_turns(&self) {
        let Some(studio) = self.studio.get().and_then(Weak::upgrade) else { return };
        for (index, lane) in Lane::ALL.into_iter().enumerate() {
            let mut owners = HashMap::<Owner, u64>::new();
            let now = Instant::now();
            for seen in self.seen().values().filter(|seen| !seen.is_this && seen.at + FRESH >= now) {
                for owner in seen.making.get(index).into_iter().flatten() {
                    *owners.entry(Owner(owner.clone())).or_default() += 1;
                }
            }
            studio.made_elsewhere(lane, owners);
        }
    }

    /// How many clips this node has, if one more would have to wait.
    pub(in crate::cluster) fn busy(&self) -> Option<usize> {
        let studio = self.studio.get().and_then(Weak::upgrade)?;
        Lane::ALL.into_iter().any(|lane| studio.is_busy(lane)).then(|| self.clips())
    }
}
