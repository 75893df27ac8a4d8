//! What other threads tell the mesh thread: the shards of interest and links, the resolver of names,
//! the node of its end.
//!
//! Telling never waits for the mesh thread. Interest is summed by filter, so that no number of
//! subscribers that come and go grows anything; of the rest there is little.

use std::collections::HashMap;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nexusd_discovery::LinkEvent;
use rustix::event::{EventfdFlags, eventfd};

use super::picture::Viewer;
use super::resolver::Resolution;

/// Who may wait for a picture of the mesh at a time.
const VIEWERS_MAX: usize = 64;

/// The way to the mesh thread.
#[derive(Debug)]
pub(crate) struct Reports {
    waiting: Mutex<Waiting>,
    /// An eventfd: readable when something waits.
    doorbell: OwnedFd,
}

#[derive(Default, Debug)]
struct Waiting {
    news: News,
    /// The doorbell was rung, or is about to be, and nobody looked since.
    is_rung: bool,
}

/// All that was told since the last time.
#[derive(Default, Debug)]
pub(super) struct News {
    /// By how many subscriptions more, or fewer, each filter is wanted; none by 0.
    pub(super) interest: HashMap<Box<str>, i64>,
    /// What the digest of retained values changed by.
    pub(super) retained: u64,
    /// In the order in which each shard told it.
    pub(super) links: Vec<LinkEvent>,
    pub(super) resolutions: Vec<Resolution>,
    /// Who wants to see the mesh.
    pub(super) viewers: Vec<Viewer>,
    /// The node stops: it says goodbye.
    pub(super) is_draining: bool,
    /// The node has stopped, and so does the thread.
    pub(super) is_over: bool,
}

impl Reports {
    /// Fails when the kernel gives no eventfd.
    pub(crate) fn new() -> io::Result<Self> {
        let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { waiting: Mutex::default(), doorbell })
    }

    /// One subscription of a client began, or ended, to want a filter.
    pub(crate) fn on_interest(&self, filter: Box<str>, is_wanted: bool) {
        self.tell(|news| {
            let change = if is_wanted { 1 } else { -1 };
            let sum = news.interest.get(&filter).copied().unwrap_or(0) + change;
            if sum == 0 {
                news.interest.remove(&filter);
            } else {
                news.interest.insert(filter, sum);
            }
        });
    }

    /// The digest of retained values changed. Nobody is woken for it: it is told with the next beacon.
    pub(crate) fn on_retained(&self, change: u64) {
        self.lock().news.retained ^= change;
    }

    /// Something happened to a link.
    pub(crate) fn on_link(&self, event: LinkEvent) {
        self.tell(|news| news.links.push(event));
    }

    /// Somebody wants to see the mesh. What is beyond the few that may wait is dropped.
    pub(crate) fn on_viewer(&self, viewer: Viewer) {
        self.tell(|news| {
            if news.viewers.len() < VIEWERS_MAX {
                news.viewers.push(viewer);
            }
        });
    }

    pub(super) fn on_resolution(&self, resolution: Resolution) {
        self.tell(|news| news.resolutions.push(resolution));
    }

    /// The node begins to stop.
    pub(crate) fn on_drain(&self) {
        self.tell(|news| news.is_draining = true);
    }

    /// The node has stopped.
    pub(super) fn on_end(&self) {
        self.tell(|news| news.is_over = true);
    }

    fn tell(&self, change: impl FnOnce(&mut News)) {
        let was_rung = {
            let mut waiting = self.lock();
            change(&mut waiting.news);
            mem::replace(&mut waiting.is_rung, true)
        };
        // Outside of the lock, for which others may wait.
        if !was_rung {
            // It cannot fail: the counter is next to 0, and the descriptor is ours.
            let _ = rustix::io::write(&self.doorbell, &1u64.to_ne_bytes());
        }
    }

    /// All that was told since the last time; the doorbell rings anew for what comes from now on.
    pub(super) fn take(&self) -> News {
        // Before the rest, so that whoever rings from now on is heard. It fails where nobody rang.
        let _ = rustix::io::read(&self.doorbell, &mut [0; 8]);
        let mut waiting = self.lock();
        waiting.is_rung = false;
        mem::take(&mut waiting.news)
    }

    /// What to wait for: readable when something was told.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use nexusd_discovery::{LinkDown, NodeId};
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    impl Reports {
        /// Waits until the doorbell rings.
        fn wait(&self) {
            let soon = rustix::time::Timespec { tv_sec: 20, tv_nsec: 0 };
            let mut watched = [PollFd::new(&self.doorbell, PollFlags::IN)];
            assert_eq!(poll(&mut watched, Some(&soon)), Ok(1), "nothing was told");
        }

        fn rings(&self) -> bool {
            let at_once = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut watched = [PollFd::new(&self.doorbell, PollFlags::IN)];
            poll(&mut watched, Some(&at_once)) == Ok(1)
        }

        pub(in crate::mesh) fn wait_for_resolution(&self) -> Resolution {
            self.wait();
            self.take().resolutions.remove(0)
        }
    }

    #[test]
    fn interest_is_summed_and_what_cancels_out_leaves_nothing() {
        let reports = Reports::new().expect("an eventfd");
        for _ in 0..3 {
            reports.on_interest("a/#".into(), true);
        }
        reports.on_interest("a/#".into(), false);
        reports.on_interest("b".into(), true);
        reports.on_interest("b".into(), false);
        reports.on_interest("c".into(), false);
        let news = reports.take();
        assert_eq!(news.interest, HashMap::from([("a/#".into(), 2), ("c".into(), -1)]));
        assert!(reports.take().interest.is_empty());
    }

    #[test]
    fn the_doorbell_rings_until_somebody_looks_and_for_what_comes_later() {
        let reports = Reports::new().expect("an eventfd");
        assert!(!reports.rings());
        reports.on_drain();
        reports.on_end();
        assert!(reports.rings() && reports.rings());
        let news = reports.take();
        assert!(news.is_draining && news.is_over);
        assert!(!reports.rings());
        reports.on_interest("a".into(), true);
        assert!(reports.rings());
    }

    #[test]
    fn reports_of_many_threads_all_arrive_and_those_of_each_in_order() {
        const EACH: u64 = 1_000;
        let reports = Arc::new(Reports::new().expect("an eventfd"));
        let shards: Vec<_> = (0..4u128)
            .map(|shard| {
                let reports = Arc::clone(&reports);
                thread::spawn(move || {
                    for number in 0..EACH {
                        let peer = NodeId(shard << 64 | u128::from(number));
                        reports.on_link(LinkEvent::Down { peer, reason: LinkDown::Broken });
                        reports.on_interest("all".into(), true);
                    }
                })
            })
            .collect();
        let (mut next, mut wanted) = ([0; 4], 0);
        while wanted < 4 * EACH as i64 || next.iter().sum::<u64>() < 4 * EACH {
            reports.wait();
            let news = reports.take();
            wanted += news.interest.get("all").copied().unwrap_or(0);
            for event in news.links {
                let LinkEvent::Down { peer, .. } = event else {
                    panic!("as told");
                };
                let (shard, number) = ((peer.0 >> 64) as usize, peer.0 as u64);
                assert_eq!(number, next[shard]);
                next[shard] += 1;
            }
        }
        for shard in shards {
            shard.join().expect("no panic");
        }
    }
}
