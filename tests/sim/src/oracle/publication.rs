//! One message as its publisher sent it, and what became of it.

use nexusd_wire::Header;

use super::NONE;

/// How far a publication is known to have come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// On its way; the shard has not had all of it.
    Written,
    /// The shard had all of it.
    Fed,
    /// The shard has dealt with it: it is accepted, unless the shard says otherwise.
    Settled,
    /// Its connection ended before that could be known.
    Doubtful,
    /// The shard must not, or did not, accept it.
    Refused,
}

/// One message.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Who published it: a conversation's number.
    pub conversation: u32,
    /// Its topic, as an index into the scenario's.
    pub topic: usize,
    /// The header it was sent with.
    pub header: Header,
    /// Which metadata table it carries.
    pub metadata: usize,
    /// Length of its payload.
    pub payload_len: usize,
    /// Which of its conversation's binds named its topic.
    pub bind: usize,
    /// What is known of it.
    pub fate: Fate,
    /// Its refusal is counted.
    pub(super) refusal_counted: bool,
    /// The number the daemon gave it; 0 while unknown.
    pub number: u64,
    /// When the daemon accepted it, by the wall clock; 0 while unknown.
    pub timestamp_us: u64,
    /// Its time to live, in microseconds; 0 is none.
    pub ttl_us: u64,
    /// When the shard had all of it, and when it had surely dealt with it, by the monotonic clock.
    pub(super) fed_us: u64,
    pub(super) settled_us: Option<u64>,
    pub(super) fed_turn: u64,
    pub(super) fed_at: u64,
    pub(super) settled_at: u64,
    /// The same publisher's neighbours on the same topic.
    pub(super) previous: u32,
    pub(super) next: u32,
    /// Subscriptions that surely matched when it was accepted, and that may have.
    pub(super) matching: (u32, u32),
}

impl Publication {
    /// A message that is about to be written.
    pub fn new(
        conversation: u32,
        topic: usize,
        header: Header,
        metadata: usize,
        payload_len: usize,
        bind: usize,
        fate: Fate,
    ) -> Self {
        Self {
            conversation,
            topic,
            header,
            metadata,
            payload_len,
            bind,
            fate,
            refusal_counted: false,
            number: 0,
            timestamp_us: 0,
            ttl_us: 0,
            fed_us: 0,
            settled_us: None,
            fed_turn: 0,
            fed_at: 0,
            settled_at: 0,
            previous: NONE,
            next: NONE,
            matching: (0, 0),
        }
    }
}
