//! What the rest of the daemon asks a shard about itself or has it do, and is told: plain data of its own.
//!
//! A request has a number that the asker chose, and the answer has it too. Lists come in pages, each of
//! which looks at a bounded part of the shard's tables (`limits.rs`): the asker goes on at the cursor of the
//! last one until there is none. What changes between two pages may be missed or told twice.

use std::sync::Arc;

use nexusd_wire::control::OverflowPolicy;
use nexusd_wire::{NodeId, SubscriptionId};

use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::shard::event::{ConnectionId, PeerAddress};

/// One thing to tell, or to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Some entries of a list.
    List {
        /// Which list.
        subject: Subject,
        /// Where to go on: 0, or what the last page named.
        cursor: u64,
        /// The most entries wanted; a page may have fewer, and none, while there are more.
        entries: usize,
    },
    /// What the shard counted.
    Metrics,
    /// Close a client's connection; its subscriptions wait for it as if it had broken.
    Close(ConnectionId),
    /// Change the name that a client gave itself.
    Rename {
        /// Its connection.
        client: ConnectionId,
        /// Characters that do not print, and those beyond a limit, are left out.
        name: Box<str>,
    },
    /// Go on with other limits, as far as they can change ([`Limits::take_on`]).
    TakeOn(Box<Limits>),
}

/// What a shard can list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// Its own topics, all or those that match a filter.
    Topics(Option<Box<str>>),
    /// For each of these topics, of any shard, how many of its subscriptions and links want it.
    Wanted(Arc<[Box<str>]>),
    /// Retained values of its own topics, all or those that match a filter.
    Retained(Option<Box<str>>),
    /// Filters of its subscriptions.
    Filters,
    /// Its subscriptions.
    Subscriptions,
    /// Its clients, all or one.
    Clients(Option<ConnectionId>),
    /// Its links to other nodes.
    Links {
        /// How many of the filters that each peer wants are named.
        filters: usize,
    },
}

/// An answer, and the number that was asked with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// That number.
    pub number: u64,
    /// What is answered.
    pub answer: Answer,
}

/// What becomes of a [`Request`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A page of a list.
    Page {
        /// What was found.
        entries: Entries,
        /// Where to go on; `None`: this was all.
        next: Option<u64>,
    },
    /// What the shard counted.
    Metrics(Box<Metrics>),
    /// Whether it was done. Of clients: there is such a one.
    Done(bool),
}

/// Entries of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "they are named as what is asked for")]
pub enum Entries {
    Topics(Vec<TopicEntry>),
    Wanted(Vec<WantedEntry>),
    Retained(Vec<RetainedEntry>),
    Filters(Vec<FilterEntry>),
    Subscriptions(Vec<SubscriptionEntry>),
    Clients(Vec<ClientEntry>),
    Links(Vec<LinkEntry>),
}

/// A topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicEntry {
    /// Its name.
    pub name: Box<str>,
    /// How many it has had since this node knows it.
    pub messages: u64,
    /// It has a retained value.
    pub is_retained: bool,
}

/// Who wants a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WantedEntry {
    /// Subscriptions of the shard.
    pub subscriptions: u64,
    /// Other nodes whose links it keeps.
    pub peers: u64,
}

/// A retained value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetainedEntry {
    /// Its topic.
    pub topic: Box<str>,
    /// Bytes of its payload.
    pub payload_bytes: u64,
    /// When it was accepted, microseconds since 1970.
    pub timestamp_us: u64,
    /// The node that did.
    pub origin: NodeId,
    /// For how long it still stands, microseconds; `None`: until it is replaced.
    pub expires_us: Option<u64>,
}

/// A filter that subscriptions have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FilterEntry {
    /// The filter.
    pub filter: Box<str>,
    /// How many have it.
    pub subscriptions: u64,
}

/// A subscription of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscriptionEntry {
    /// Its id.
    pub subscription: SubscriptionId,
    /// Its client's connection; `None` while it is parked.
    pub client: Option<ConnectionId>,
    /// What it wants.
    pub filters: Box<[Box<str>]>,
    /// Whether its connection is about to let go of it.
    pub is_leaving: bool,
    /// How much longer it waits for its client, if it is parked, microseconds.
    pub parked_for_us: Option<u64>,
    /// What happens when its queue is full.
    pub policy: OverflowPolicy,
    /// Messages that wait for it.
    pub queued_messages: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Most messages that may; 0: bytes alone bound it.
    pub limit_messages: u64,
    /// Most bytes.
    pub limit_bytes: u64,
    /// Messages that it was sent.
    pub sent: u64,
    /// Messages that its full queue lost.
    pub dropped: u64,
    /// Messages that it was sent, kept until it acknowledges them.
    pub unacknowledged: u64,
}

/// A client's connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientEntry {
    /// The connection.
    pub id: ConnectionId,
    /// The name that it gave itself, or was given.
    pub name: Box<str>,
    /// Library and version.
    pub software: Box<str>,
    /// Where it comes from.
    pub address: PeerAddress,
    /// The daemon's edge speaks for it.
    pub is_edge: bool,
    /// For how long it is connected, microseconds.
    pub connected_us: u64,
    /// How long it has been silent, microseconds.
    pub silent_us: u64,
    /// Subscriptions that it holds.
    pub subscriptions: u64,
    /// Messages accepted from it.
    pub messages_in: u64,
    /// Messages that it was sent.
    pub messages_out: u64,
    /// Topic ids that it has bound.
    pub topics_bound: u64,
    /// What waits in its buffers.
    pub buffered_bytes: u64,
    /// A full queue holds its publishing back.
    pub is_held_back: bool,
    /// Its socket takes no more.
    pub is_blocked: bool,
}

/// A link to another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkEntry {
    /// The node.
    pub peer: NodeId,
    /// The link stands.
    pub is_up: bool,
    /// There and back, as last measured, microseconds.
    pub latency_us: Option<u64>,
    /// How long the peer has been silent, microseconds.
    pub silent_us: u64,
    /// Messages that wait for it, or for its acknowledgement.
    pub queued_messages: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// How many filters it wants.
    pub filters: u64,
    /// Some of them, in their order.
    pub named: Box<[Box<str>]>,
    /// The hash that it gave these; `None`: not all of them are known.
    pub hash: Option<u64>,
}
