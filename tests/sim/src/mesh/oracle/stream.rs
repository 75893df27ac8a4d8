//! One subscription: what it has had, what it was told of losses, and what it is still owed.

use std::collections::BTreeMap;
use std::ops::Range;

use nexusd_wire::control::OverflowPolicy;
use nexusd_wire::{NodeId, SubscriptionId, filter_matches};

use super::Incarnation;
use crate::violation::{Violation, ensure};

/// How far a subscription is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Asked for.
    Asked,
    /// Confirmed.
    Open,
    /// Its end was asked for.
    Ending,
    /// It is no more.
    Ended,
}

/// How far a subscription has come with a publisher's messages to a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Behind the newest one that has come.
    pub(super) next: u32,
    /// From this number on it is to have all.
    pub(super) owed_from: Option<u32>,
    /// One of them has come.
    pub(super) is_heard: bool,
    /// Losses of unknown size that were told by then.
    pub(super) unknowns: u64,
}

impl Progress {
    /// The numbers before `end` that were to come and did not.
    pub(super) fn owed_numbers(&self, end: u32) -> Range<u32> {
        self.owed_from.map_or(end, |from| self.next.max(from))..end
    }
}

/// A subscription.
#[derive(Debug)]
pub struct Stream {
    /// Whose it is.
    pub client: u32,
    /// Its node.
    pub at: Incarnation,
    /// What it wants.
    pub filters: Vec<&'static str>,
    /// How far it is.
    pub state: State,
    /// Its id.
    pub subscription: Option<SubscriptionId>,
    pub(super) progress: BTreeMap<(u32, usize), Progress>,
    /// Of each topic: the node's number of the newest message, and losses of unknown size told by then.
    pub(super) numbers: BTreeMap<usize, (u64, u64)>,
    /// Losses told, less those that were found missing.
    pub(super) named: BTreeMap<usize, u64>,
    pub(super) unnamed: u64,
    pub(super) unnamed_numbers: u64,
    pub(super) unknowns: u64,
    /// Messages that it had.
    pub received: u64,
    /// It acknowledges them.
    pub is_counted: bool,
    /// It went on over another connection: losses may be told again.
    pub has_come_back: bool,
    /// Losses told because it, or a link, did not read fast enough.
    pub overflows: u64,
    /// Another one goes on where it was.
    pub(super) is_taken_up: bool,
    /// Its node, once that has sent all that it had for it and said so.
    pub(super) told_all: Option<NodeId>,
    /// The newest value of each publisher and topic that came live.
    pub(super) newest_values: BTreeMap<(u32, usize), u32>,
    /// It goes on where another one was.
    pub(super) takes_up: bool,
    /// What its queue does when it is full.
    pub policy: OverflowPolicy,
    /// So many messages of its topics fit into its queue for sure.
    pub queue_messages: u64,
    /// Messages of its topics that were published since it was asked for, and not long before.
    pub(super) offered: u64,
    /// Holes in numbers that were left by messages whose time was over, of each topic.
    expired_numbers: BTreeMap<usize, u64>,
}

impl Stream {
    /// Whether it wants a topic.
    pub fn wants(&self, topic: &str) -> bool {
        self.filters.iter().any(|filter| filter_matches(filter, topic))
    }
}

impl Stream {
    /// One that was asked for.
    pub(super) fn new(client: u32, at: Incarnation, filters: Vec<&'static str>) -> Self {
        Self {
            client,
            at,
            filters,
            state: State::Asked,
            subscription: None,
            progress: BTreeMap::new(),
            numbers: BTreeMap::new(),
            named: BTreeMap::new(),
            unnamed: 0,
            unnamed_numbers: 0,
            unknowns: 0,
            received: 0,
            is_counted: false,
            has_come_back: false,
            overflows: 0,
            is_taken_up: false,
            told_all: None,
            newest_values: BTreeMap::new(),
            takes_up: false,
            policy: OverflowPolicy::DropOldest,
            queue_messages: 0,
            offered: 0,
            expired_numbers: BTreeMap::new(),
        }
    }

    /// The node's numbers of a topic go on here. `is_strict`: each of them is everybody's; `expired`: so
    /// many messages of the topic may have been left out because their time was over.
    pub(super) fn take_number(
        &mut self,
        at: usize,
        name: &str,
        topic: usize,
        sequence: u64,
        (is_strict, expired): (bool, u64),
    ) -> Result<(), Violation> {
        let unknowns = self.unknowns;
        if let Some((last, then)) = self.numbers.insert(topic, (sequence, unknowns))
            && is_strict
        {
            ensure!(
                sequence > last,
                "stream {at}: number {sequence} of {name} comes behind {last}"
            );
            let hole = sequence - last - 1;
            if hole > 0 && then == unknowns {
                // What was told without a name may have been of any topic.
                let left_out = self.expired_numbers.entry(topic).or_default();
                let is_over = hole.min(expired.saturating_sub(*left_out));
                *left_out += is_over;
                let told = hole - is_over;
                ensure!(
                    self.unnamed_numbers >= told,
                    "stream {at}: number {sequence} of {name} comes behind {last}, and no gap tells \
                     of what is between"
                );
                self.unnamed_numbers -= told;
            }
        }
        Ok(())
    }
}
