//! Who is next: fair between owners, bounded, and able to say where everybody stands.
//!
//! An owner's first waiting clip comes before anybody's second; what an owner already has running
//! counts as earlier ones. Among equals, whoever was served longest ago comes first, then whoever
//! came first. So one client with a hundred clips delays another's first by one.
//!
//! Where several processes are one server, what is made for an owner by the others counts as well:
//! as many clips of other owners go before his next one here. So nobody gets more by asking
//! everywhere, and nobody waits for ever because he did.

use std::collections::HashMap;

use super::{ClipId, Lane, Owner, StudioError};

/// Clips that wait, at most.
const MAX_WAITING: usize = 256;
/// Of one owner, at most.
const MAX_OF_ONE: usize = 16;

/// A queue for each [`Lane`].
#[derive(Default)]
pub(super) struct Lanes([Queue; Lane::ALL.len()]);

impl Lanes {
    pub(super) fn of(&self, lane: Lane) -> &Queue {
        &self.0[lane as usize]
    }

    pub(super) fn of_mut(&mut self, lane: Lane) -> &mut Queue {
        &mut self.0[lane as usize]
    }
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Vec<Waiting>,
    /// Over these an earlier server ended, perhaps: they are behind all others.
    suspects: Vec<(ClipId, Owner)>,
    running: Vec<(ClipId, Owner)>,
    /// Owners of those that have a place and are not in line yet.
    coming: Vec<Owner>,
    /// When owners who wait or have one running last had one begin, as a count of beginnings.
    served: HashMap<Owner, u64>,
    begun: u64,
    /// How many clips of owners other processes make now.
    elsewhere: HashMap<Owner, u64>,
    /// Mean seconds that a clip took lately.
    seconds: Option<f64>,
}

struct Waiting {
    clip: ClipId,
    owner: Owner,
    /// Beginnings before it came.
    after: u64,
}

/// Where a clip stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    /// 1 is next; 0 is running.
    pub(super) position: usize,
    pub(super) seconds: f64,
}

impl Queue {
    /// Holds a place for one more, until [`Queue::came`].
    ///
    /// # Errors
    /// [`StudioError::QueueFull`], [`StudioError::TooManyOfYours`].
    pub(super) fn admit(&mut self, owner: &Owner, workers: usize) -> Result<(), StudioError> {
        let retry_after = (self.mean() / workers as f64).ceil().max(1.0) as u64;
        let queued = self.waiting.len() + self.coming.len();
        if queued >= MAX_WAITING {
            return Err(StudioError::QueueFull { queued, retry_after });
        }
        let owners = self.waiting.iter().map(|waiting| &waiting.owner).chain(&self.coming);
        if owners.filter(|other| *other == owner).count() >= MAX_OF_ONE {
            return Err(StudioError::TooManyOfYours { limit: MAX_OF_ONE, retry_after });
        }
        self.coming.push(owner.clone());
        Ok(())
    }

    /// A place that was held is given back: its clip is in line now, or does not come.
    pub(super) fn came(&mut self, owner: &Owner) {
        if let Some(index) = self.coming.iter().position(|other| other == owner) {
            self.coming.swap_remove(index);
        }
    }

    pub(super) fn push(&mut self, clip: ClipId, owner: Owner) {
        self.waiting.push(Waiting { clip, owner, after: self.begun });
    }

    /// As [`Queue::push`], behind all others.
    pub(super) fn push_suspect(&mut self, clip: ClipId, owner: Owner) {
        self.suspects.push((clip, owner));
    }

    /// Takes the next clip to run, if fewer than `workers` do.
    pub(super) fn next(&mut self, workers: usize) -> Option<ClipId> {
        if self.running.len() >= workers {
            return None;
        }
        let clip = self.ranked().first().copied()?;
        let index = self.waiting.iter().position(|waiting| waiting.clip == clip)?;
        let Waiting { clip, owner, .. } = self.waiting.remove(index);
        Some(self.begin((clip, owner)))
    }

    /// Takes the next of the suspects.
    pub(super) fn next_suspect(&mut self) -> Option<ClipId> {
        let next = if self.suspects.is_empty() { return None } else { self.suspects.remove(0) };
        Some(self.begin(next))
    }

    fn begin(&mut self, (clip, owner): (ClipId, Owner)) -> ClipId {
        self.begun += 1;
        self.served.insert(owner.clone(), self.begun);
        self.running.push((clip, owner));
        clip
    }

    /// Takes a clip out that waits or runs; `seconds` if it ran to its end.
    pub(super) fn remove(&mut self, clip: ClipId, seconds: Option<f64>) {
        self.waiting.retain(|waiting| waiting.clip != clip);
        self.suspects.retain(|(other, _)| *other != clip);
        self.running.retain(|(other, _)| *other != clip);
        let here = |owner: &Owner| {
            let others = self.suspects.iter().chain(&self.running).map(|(_, other)| other);
            self.waiting.iter().map(|waiting| &waiting.owner).chain(others).any(|other| other == owner)
        };
        self.served.retain(|owner, _| here(owner));
        if let Some(seconds) = seconds {
            self.seconds = Some(self.seconds.map_or(seconds, |mean| 0.7 * mean + 0.3 * seconds));
        }
    }

    /// Waiting clips, next first.
    pub(super) fn order(&self) -> Vec<ClipId> {
        let mut order = self.ranked();
        order.extend(self.suspects.iter().map(|(clip, _)| *clip));
        order
    }

    fn ranked(&self) -> Vec<ClipId> {
        let mut earlier: HashMap<&Owner, usize> = HashMap::new();
        for (_, owner) in &self.running {
            *earlier.entry(owner).or_default() += 1;
        }
        let mut owed: HashMap<&Owner, Option<&u64>> = HashMap::new();
        let mut ranked: Vec<(usize, u64, usize, ClipId)> = Vec::with_capacity(self.waiting.len());
        // What is made elsewhere counts until as many of others have begun here since an owner's
        // last one, or since his next one came.
        for Waiting { owner, after, .. } in self.waiting.iter().rev() {
            let last = self.served.get(owner).copied().unwrap_or(0).max(*after);
            owed.insert(owner, self.elsewhere.get(owner).filter(|count| self.begun - last < **count));
        }
        for (owner, count) in owed {
            *earlier.entry(owner).or_default() += count.map_or(0, |count| *count as usize);
        }
        for (index, Waiting { clip, owner, .. }) in self.waiting.iter().enumerate() {
            let turn = earlier.entry(owner).or_default();
            let served = self.served.get(owner).copied().unwrap_or(0);
            ranked.push((*turn, served, index, *clip));
            *turn += 1;
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(.., clip)| clip).collect()
    }

    /// Whose clips are made now.
    pub(super) fn owners(&self) -> Vec<Owner> {
        self.running.iter().map(|(_, owner)| owner.clone()).collect()
    }

    /// Whose clips other processes make now, and how many. Says whether that is another matter than
    /// before.
    pub(super) fn made_elsewhere(&mut self, elsewhere: HashMap<Owner, u64>) -> bool {
        let before = std::mem::replace(&mut self.elsewhere, elsewhere);
        before != self.elsewhere
    }

    /// The place of everything that waits.
    pub(super) fn places(&self, workers: usize) -> Vec<(ClipId, Place)> {
        let place = |(index, clip)| {
            let rounds = (index + self.running.len()) / workers.max(1);
            (clip, Place { position: index + 1, seconds: rounds as f64 * self.mean() })
        };
        self.order().into_iter().enumerate().map(place).collect()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() + self.suspects.len()
    }

    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// The original's estimate before anything is known is half a minute.
    fn mean(&self) -> f64 {
        self.seconds.unwrap_or(30.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner(name.into())
    }

    #[test]
    fn the_second_client_waits_for_one_clip_of_the_first_not_for_all() {
        let mut queue = Queue::default();
        let of_a: Vec<ClipId> = (0..5).map(|_| ClipId::random()).collect();
        let b = ClipId::random();
        of_a.iter().for_each(|clip| queue.push(*clip, owner("a")));
        queue.push(b, owner("b"));
        assert_eq!(queue.next(1), Some(of_a[0]));
        assert_eq!(queue.next(1), None);
        assert_eq!(queue.places(1)[0], (b, Place { position: 1, seconds: 30.0 }));
        queue.remove(of_a[0], Some(10.0));
        assert_eq!(queue.next(2), Some(b));
        assert_eq!(queue.next(2), Some(of_a[1]));
        assert_eq!(queue.places(2)[1], (of_a[3], Place { position: 2, seconds: 10.0 }));
        queue.remove(of_a[2], None);
        assert_eq!((queue.waiting(), queue.running()), (2, 2));
    }

    #[test]
    fn one_worker_serves_owners_in_turn() {
        let mut queue = Queue::default();
        let clips: Vec<(ClipId, Owner)> =
            ["a", "a", "a", "b", "c", "b"].map(|name| (ClipId::random(), owner(name))).to_vec();
        clips.iter().for_each(|(clip, owner)| queue.push(*clip, owner.clone()));
        assert_eq!(turns(&mut queue, &clips), "abcaba");
        assert!(queue.served.is_empty(), "nobody is remembered who wants nothing");
    }

    /// Whose clips are made one after the other.
    fn turns(queue: &mut Queue, clips: &[(ClipId, Owner)]) -> String {
        let mut turns = String::new();
        while let Some(clip) = queue.next(1) {
            turns.push_str(&clips.iter().find(|(other, _)| *other == clip).unwrap().1.0);
            queue.remove(clip, Some(1.0));
        }
        turns
    }

    #[test]
    fn as_many_of_others_go_first_as_are_made_for_an_owner_elsewhere() {
        let mut queue = Queue::default();
        let clips: Vec<(ClipId, Owner)> =
            ["a"; 3].into_iter().chain(["b"; 5]).map(|name| (ClipId::random(), owner(name))).collect();
        clips.iter().for_each(|(clip, owner)| queue.push(*clip, owner.clone()));
        assert!(queue.made_elsewhere(HashMap::from([(owner("a"), 2)])));
        assert!(!queue.made_elsewhere(HashMap::from([(owner("a"), 2)])));
        // And never more: whoever asks everywhere is not passed over for ever.
        assert_eq!(turns(&mut queue, &clips), "bbabbaba");
        clips.iter().for_each(|(clip, owner)| queue.push(*clip, owner.clone()));
        queue.made_elsewhere(HashMap::new());
        assert_eq!(turns(&mut queue, &clips), "abababbb");
    }

    #[test]
    fn suspects_come_after_all_others_and_are_not_taken_by_the_way() {
        let mut queue = Queue::default();
        let (suspect, fine) = (ClipId::random(), ClipId::random());
        queue.push_suspect(suspect, owner("a"));
        queue.push(fine, owner("b"));
        assert_eq!((queue.order(), queue.waiting()), (vec![fine, suspect], 2));
        assert_eq!((queue.next(2), queue.next(2)), (Some(fine), None));
        assert_eq!((queue.next_suspect(), queue.next_suspect()), (Some(suspect), None));
        queue.push_suspect(ClipId::random(), owner("a"));
        queue.remove(queue.order()[0], None);
        assert_eq!((queue.waiting(), queue.running()), (0, 2));
    }

    #[test]
    fn the_queue_is_bounded_for_one_and_for_all() {
        let mut queue = Queue::default();
        for _ in 0..MAX_OF_ONE {
            queue.push(ClipId::random(), owner("a"));
        }
        assert!(matches!(queue.admit(&owner("a"), 1), Err(StudioError::TooManyOfYours { .. })));
        assert!(queue.admit(&owner("b"), 1).is_ok());
        for n in queue.waiting()..MAX_WAITING {
            queue.push(ClipId::random(), owner(&n.to_string()));
        }
        assert!(matches!(queue.admit(&owner("b"), 1), Err(StudioError::QueueFull { .. })));
    }

    #[test]
    fn places_are_held_for_clips_on_their_way() {
        let (mut queue, a) = (Queue::default(), owner("a"));
        for _ in 0..MAX_OF_ONE {
            queue.admit(&a, 1).unwrap();
        }
        assert!(matches!(queue.admit(&a, 1), Err(StudioError::TooManyOfYours { .. })));
        assert!(queue.admit(&owner("b"), 1).is_ok());
        queue.came(&a);
        assert!(queue.admit(&a, 1).is_ok());
    }
}
