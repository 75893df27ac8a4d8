//! Retained values: what each node was heard to have, and what all of them must have in the end.
//!
//! The newest value of a topic wins, by its timestamp and then by the node that accepted it. A node that
//! gave a value to a subscription has it until a newer one comes; so in the end all nodes have what is the
//! newest of all that any living one was heard to have.

use std::collections::{BTreeMap, BTreeSet};

use nexusd_wire::NodeId;

use super::oracle::Incarnation;

/// A value, by what values are compared by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Value {
    /// As its node stamped it.
    pub timestamp_us: u64,
    /// That node.
    pub node: NodeId,
    /// Which message it is.
    pub publication: u32,
}

/// What is known of the values of all topics.
#[derive(Debug, Default)]
pub struct Values {
    /// Messages that clear a value.
    clears: BTreeSet<u32>,
    /// The newest one that a node was heard to have.
    newest: BTreeMap<(Incarnation, usize), Value>,
    /// Values that subscriptions got because they had asked for them.
    handed_over: BTreeMap<(usize, usize), Value>,
    /// Messages that anybody was heard to have.
    known: BTreeMap<u32, Value>,
}

impl Values {
    /// A message that is published clears its topic's value.
    pub fn note_clear(&mut self, publication: u32) {
        self.clears.insert(publication);
    }

    /// Whether a message clears its topic's value.
    pub fn is_clear(&self, publication: u32) -> bool {
        self.clears.contains(&publication)
    }

    /// Messages that clear a value and may be newer than this one: a node may have them that no
    /// subscription heard of.
    pub fn clears_behind(&self, value: Option<Value>) -> impl Iterator<Item = u32> {
        let may_be_newer =
            move |clear: &u32| self.known.get(clear).is_none_or(|known| Some(*known) > value);
        self.clears.iter().copied().filter(may_be_newer)
    }

    /// A subscription of a node was given a value, live or because it had asked for it.
    pub fn heard(&mut self, at: Incarnation, topic: usize, value: Value) {
        self.known.insert(value.publication, value);
        let newest = self.newest.entry((at, topic)).or_insert(value);
        *newest = value.max(*newest);
    }

    /// A subscription was handed over the value that there was.
    pub fn handed_over(&mut self, stream: usize, topic: usize, value: Value) {
        self.handed_over.insert((stream, topic), value);
    }

    /// The value that was handed over to a subscription.
    pub fn had(&self, stream: usize, topic: usize) -> Option<Value> {
        self.handed_over.get(&(stream, topic)).copied()
    }

    /// What all nodes must have that know what one of these was heard to have.
    pub fn newest(&self, nodes: &[Incarnation], topic: usize) -> Option<Value> {
        nodes.iter().filter_map(|at| self.newest.get(&(*at, topic)).copied()).max()
    }
}
