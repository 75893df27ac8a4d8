//! The shard under observation: what can be checked at every call, without knowing what it means.
//!
//! * Memory that was lent for a send stays where it is and as it is until the send ends: the shard
//!   lends it again just before, and addresses, lengths and bytes must be the same.
//! * The shard's own invariants hold after its events.
//!
//! The shard has its own ids of its connections ([`Numbering`]).
//!
//! What does not hold is a panic here, as it is inside the shard; the run turns panics into
//! violations.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use nexusd_core::{
    ConnectionId, Event, Handover, Metrics, Now, Output, Service, Shard, ShardIndex,
};

use crate::numbering::Numbering;

/// Events between two walks over all of the shard's state.
const EVENTS_PER_WALK: u64 = 24;

/// What a running send was lent.
#[derive(Debug, Default)]
struct Loan {
    slices: Vec<(usize, usize)>,
    bytes: Vec<u8>,
}

/// A shard that is looked at after every event.
#[derive(Debug)]
pub struct Watched {
    shard: Shard,
    numbering: Numbering,
    /// By the shard's ids.
    loans: BTreeMap<ConnectionId, Loan>,
    metrics: Rc<Cell<Metrics>>,
    events: u64,
    /// Walk over all state after every event, not only now and then.
    is_thorough: bool,
}

impl Watched {
    /// Watches `shard`; what it counts is written to `metrics` after every event.
    pub fn new(shard: Shard, metrics: Rc<Cell<Metrics>>, is_thorough: bool) -> Self {
        let (numbering, loans) = (Numbering::default(), BTreeMap::new());
        Self { shard, numbering, loans, metrics, events: 0, is_thorough }
    }

    /// Whether messages of other shards wait in this one for memory.
    pub fn has_stalled(&self) -> bool {
        self.shard.has_stalled()
    }

    /// Checks what must hold in all of its state.
    pub fn assert_invariants(&self) {
        self.shard.assert_invariants();
    }

    /// Checks that nothing is under way between this shard and others.
    pub fn assert_nothing_under_way(&self) {
        self.shard.assert_nothing_under_way();
    }

    fn check_loan(&self, connection: ConnectionId) {
        let Some(loan) = self.loans.get(&connection) else { return };
        let (mut slices, mut bytes) = (loan.slices.iter(), loan.bytes.as_slice());
        self.shard.lend_again(connection, &mut |slice| {
            let expected = slices.next().copied();
            assert_eq!(
                Some((slice.as_ptr().addr(), slice.len())),
                expected,
                "memory of a running send was moved"
            );
            let (lent, rest) = bytes.split_at(slice.len());
            assert!(slice == lent, "memory of a running send was rewritten");
            bytes = rest;
        });
        assert!(bytes.is_empty(), "memory of a running send was given up");
    }
}

impl Service for Watched {
    fn on_event(&mut self, now: Now, event: Event<'_>) {
        let event = self.numbering.told(event);
        if let Event::Sent { connection, .. } | Event::Closed { connection, .. } = event {
            self.check_loan(connection);
            self.loans.remove(&connection);
        }
        self.shard.on_event(now, event);
        self.metrics.set(self.shard.metrics());
        self.events += 1;
        if self.is_thorough || self.events.is_multiple_of(EVENTS_PER_WALK) {
            self.shard.assert_invariants();
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.shard.poll_output();
        if output.is_none() {
            // Much is done once a turn.
            self.metrics.set(self.shard.metrics());
        }
        output.map(|output| self.numbering.asked(output))
    }

    fn gather(&mut self, connection: ConnectionId, take: &mut dyn FnMut(&[u8])) {
        let connection = self.numbering.inside(connection);
        let mut loan = Loan::default();
        self.shard.gather(connection, &mut |slice| {
            loan.slices.push((slice.as_ptr().addr(), slice.len()));
            loan.bytes.extend_from_slice(slice);
            take(slice);
        });
        let before = self.loans.insert(connection, loan);
        assert!(before.is_none(), "a second send was gathered while one ran");
    }

    fn landing_zone(&mut self, connection: ConnectionId) -> Option<&mut [u8]> {
        self.shard.landing_zone(self.numbering.inside(connection))
    }

    fn has_mail(&self) -> bool {
        self.shard.has_mail()
    }

    fn place(&mut self) -> ShardIndex {
        self.shard.place()
    }

    fn hand_over(&mut self, connection: ConnectionId) -> Option<Handover> {
        self.shard.hand_over(self.numbering.inside(connection))
    }

    fn wake_at(&self) -> Option<u64> {
        self.shard.wake_at()
    }

    fn is_finished(&self) -> bool {
        self.shard.is_finished()
    }
}
