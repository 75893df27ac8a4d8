//! Messages that end by their time to live: what may be left out, and what may come no more.

use super::{Fate, Oracle, Publication};
use crate::violation::{Violation, ensure};

/// Times to live are counted in whole milliseconds.
const ROUNDING_US: u64 = 1_000;

impl Publication {
    /// When it may be left out; never, if it has no time to live or the shard has not had it.
    pub(super) fn expires_us(&self) -> u64 {
        match self.ttl_us {
            0 => u64::MAX,
            _ if self.fate == Fate::Written => u64::MAX,
            ttl_us => self.fed_us + ttl_us,
        }
    }
}

impl Oracle {
    /// Whether messages of the topic may have been left out by now.
    pub(super) fn may_have_expired(&self, topic: usize) -> bool {
        self.topics[topic].expires_us <= self.now_us
    }

    /// Messages of the topic that may have been left out by now.
    pub(super) fn expired(&self, topic: usize) -> u64 {
        if !self.may_have_expired(topic) {
            return 0;
        }
        let mortal = self.topics[topic].mortal.iter();
        let publications = mortal.map(|&index| &self.publications[index as usize]);
        publications.filter(|publication| publication.expires_us() <= self.now_us).count() as u64
    }

    /// Of the numbers from `first` up to `end`, how many may have been left out because their time was
    /// over.
    pub(super) fn expired_between(&self, topic: usize, first: u64, end: u64) -> u64 {
        if !self.may_have_expired(topic) {
            return 0;
        }
        let ledger = &self.topics[topic];
        let (mut expired, mut unknown) = (0, 0);
        for number in first..end {
            let index = ledger.numbers.get(number as usize).copied();
            match index.and_then(|index| self.publications.get(index as usize)) {
                Some(publication) if publication.expires_us() <= self.now_us => expired += 1,
                Some(_) => {}
                None => unknown += 1,
            }
        }
        if unknown > 0 {
            let unnumbered = ledger.mortal.iter().filter(|&&index| {
                let publication = &self.publications[index as usize];
                publication.number == 0 && publication.expires_us() <= self.now_us
            });
            expired += unknown.min(unnumbered.count() as u64);
        }
        expired
    }

    /// A message whose first byte was put on the wire at `begun_us` may still live then.
    pub(super) fn check_alive(&self, index: u32, begun_us: u64) -> Result<(), Violation> {
        let publication = &self.publications[index as usize];
        if publication.ttl_us == 0 {
            return Ok(());
        }
        let Some(accepted_us) = publication.settled_us else { return Ok(()) };
        let end_us = accepted_us + publication.ttl_us + ROUNDING_US;
        ensure!(
            begun_us <= end_us,
            "publication {index} was sent {} us after its time to live of {} us",
            begun_us - end_us,
            publication.ttl_us
        );
        Ok(())
    }
}
