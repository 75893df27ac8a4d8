//! Where connections come from, and what each source may have of what there is.
//!
//! Everything that is bounded for all is bounded for each source as well, at a share of it: a broken application
//! takes its share, and all others go on. A source is an IPv4 address, an IPv6 network of 64 bits, this host's
//! loopback, or a process on the unix socket.
//!
//! Invariant: a source is known as long as something of it is, so there are no more of them than connections.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{
    ANSWER_BYTES_MAX, LARGE_BYTES_MAX, LOOKS_MAX, NAMES_BYTES_MAX, SOURCE_SHARE, UPLOAD_BYTES_MAX,
};
use crate::refusals::Refusals;

/// What connections of one source have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum SourceAddress {
    V4(Ipv4Addr),
    /// The upper half of the address.
    V6(u64),
    /// On the unix socket; 0: one that cannot be told.
    Process(i32),
}

impl SourceAddress {
    /// The source of a peer; of one on the unix socket by its process.
    pub(crate) fn of(peer: Option<SocketAddr>, process: Option<i32>) -> Self {
        match peer.map(|peer| peer.ip().to_canonical()) {
            None => Self::Process(process.unwrap_or(0)),
            // This host has as many of these addresses as it likes.
            Some(ip) if ip.is_loopback() => Self::V4(Ipv4Addr::LOCALHOST),
            Some(IpAddr::V4(ip)) => Self::V4(ip),
            Some(IpAddr::V6(ip)) => Self::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(ip) => ip.fmt(f),
            Self::V6(half) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*half) << 64)),
            Self::Process(0) => f.write_str("the unix socket"),
            Self::Process(process) => write!(f, "process {process}"),
        }
    }
}

/// So much of something for all, and a share of it for one source.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    all: Arc<Semaphore>,
    share: Arc<Semaphore>,
    pub(crate) share_max: usize,
}

/// What of a budget is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Short {
    /// The source has its share.
    Share,
    /// All have what there is.
    All,
}

/// A part of a budget, until it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    share: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl Taken {
    /// Both together.
    pub(crate) fn merge(&mut self, other: Self) {
        self.share.merge(other.share);
        self.all.merge(other.all);
    }

    /// Gives so much of it back.
    pub(crate) fn give_back(&mut self, number: usize) {
        drop((self.share.split(number), self.all.split(number)));
    }
}

impl Budget {
    fn share_of(all: &Arc<Semaphore>, share_max: usize) -> Self {
        Self { all: Arc::clone(all), share: Arc::new(Semaphore::new(share_max)), share_max }
    }

    /// So much, if it is there now.
    pub(crate) fn try_take(&self, number: usize) -> Result<Taken, Short> {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.share).try_acquire_many_owned(number);
        let share = share.map_err(|_| Short::Share)?;
        let all = Arc::clone(&self.all).try_acquire_many_owned(number).map_err(|_| Short::All)?;
        Ok(Taken { share, all })
    }

    /// So much, or a whole share, once it is there; `None`: there is no such budget any more.
    pub(crate) async fn take(&self, number: usize) -> Option<Taken> {
        let number = u32::try_from(number.min(self.share_max)).unwrap_or(u32::MAX);
        // The share first: who waits for it holds up none of the others.
        let share = Arc::clone(&self.share).acquire_many_owned(number).await.ok()?;
        let all = Arc::clone(&self.all).acquire_many_owned(number).await.ok()?;
        Some(Taken { share, all })
    }

    /// How much is there for this source.
    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.share.available_permits().min(self.all.available_permits())
    }
}

/// A source as its connections know it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) address: SourceAddress,
    pub(crate) connections: Budget,
    /// Calls, but for …
    pub(crate) calls: Budget,
    /// … those that look how the daemon is, and what it can be asked.
    pub(crate) looks: Budget,
    /// Bytes of long requests.
    pub(crate) requests: Budget,
    /// Bytes of long answers.
    pub(crate) answers: Budget,
    /// Bytes of large events.
    pub(crate) events: Budget,
    /// Bytes of topics' names.
    pub(crate) names: Budget,
    sources: Arc<Sources>,
}

impl Source {
    /// How many calls there may be for all.
    pub(crate) fn calls_max(&self) -> usize {
        self.sources.room
    }

    /// What is counted when there is no room.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.sources.refusals
    }

    /// The longest message of a request, bytes.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.sources.message_bytes_max
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut table = self.sources.lock();
        // Another one of this address may be there by now.
        if table.get(&self.address).is_some_and(|source| source.strong_count() == 0) {
            table.remove(&self.address);
        }
    }
}

/// All sources.
#[derive(Debug)]
pub(crate) struct Sources {
    table: Mutex<HashMap<SourceAddress, Weak<Source>>>,
    connections: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    looks: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    events: Arc<Semaphore>,
    names: Arc<Semaphore>,
    message_bytes_max: usize,
    room: usize,
    refusals: Arc<Refusals>,
}

impl Sources {
    /// Where a message has at most so many bytes: of what is reckoned in bytes everybody's share has room for one.
    /// There is room for so many connections, and calls.
    pub(crate) fn new(message_bytes_max: usize, room: usize, refusals: Arc<Refusals>) -> Arc<Self> {
        let budget = |number| Arc::new(Semaphore::new(number));
        Arc::new(Self {
            table: Mutex::default(),
            connections: budget(room),
            calls: budget(room),
            looks: budget(LOOKS_MAX),
            requests: budget(UPLOAD_BYTES_MAX + message_bytes_max),
            answers: budget(ANSWER_BYTES_MAX),
            events: budget(LARGE_BYTES_MAX + message_bytes_max),
            names: budget(NAMES_BYTES_MAX),
            message_bytes_max,
            room,
            refusals,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SourceAddress, Weak<Source>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source of this address.
    pub(crate) fn source(self: &Arc<Self>, address: SourceAddress) -> Arc<Source> {
        let mut table = self.lock();
        if let Some(source) = table.get(&address).and_then(Weak::upgrade) {
            return source;
        }
        let share = Budget::share_of;
        let room = (self.room / SOURCE_SHARE).max(1);
        let long = |all, bytes| share(all, bytes / SOURCE_SHARE + self.message_bytes_max);
        let source = Arc::new(Source {
            address,
            connections: share(&self.connections, room),
            calls: share(&self.calls, room),
            looks: share(&self.looks, LOOKS_MAX / SOURCE_SHARE),
            requests: long(&self.requests, UPLOAD_BYTES_MAX),
            answers: share(&self.answers, ANSWER_BYTES_MAX / SOURCE_SHARE),
            events: long(&self.events, LARGE_BYTES_MAX),
            names: share(&self.names, NAMES_BYTES_MAX / SOURCE_SHARE),
            sources: Arc::clone(self),
        });
        table.insert(address, Arc::downgrade(&source));
        source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SourceAddress {
        SourceAddress::of(Some(SocketAddr::new(address.parse().expect("an address"), 7)), None)
    }

    #[test]
    fn a_source_is_an_address_a_network_this_host_or_a_process() {
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::2:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("127.3.2.1"), at("::1"));
        let process = |id| SourceAddress::of(None, Some(id));
        assert_ne!(process(1), process(2));
        assert_eq!(SourceAddress::of(None, None), process(0));
        assert_eq!(at("2001:db8::1").to_string(), "2001:db8::/64");
    }

    #[test]
    fn who_has_its_share_gets_no_more_and_others_get_theirs_until_all_is_taken() {
        let sources = Sources::new(10, 7 * SOURCE_SHARE + 3, Arc::default());
        let all: Vec<_> = (0..=SOURCE_SHARE as i32)
            .map(|id| sources.source(SourceAddress::of(None, Some(id))))
            .collect();
        let share = 7;
        let taken: Vec<_> = all[..SOURCE_SHARE]
            .iter()
            .map(|source| {
                let taken = source.calls.try_take(share).expect("its share");
                assert_eq!(source.calls.try_take(1).expect_err("it has it"), Short::Share);
                taken
            })
            .collect();
        let late = &all[SOURCE_SHARE].calls;
        let rest = late.try_take(3).expect("what is no whole share");
        assert_eq!(late.try_take(1).expect_err("all is taken"), Short::All);
        drop((taken, rest));
        assert_eq!(late.left(), share);
    }

    #[test]
    fn a_source_is_forgotten_with_the_last_of_its_connections() {
        let sources = Sources::new(10, 100, Arc::default());
        let address = SourceAddress::of(None, Some(1));
        let (one, other) = (sources.source(address), sources.source(address));
        let taken = one.looks.try_take(1).expect("there is room");
        assert_eq!(other.looks.left(), LOOKS_MAX / SOURCE_SHARE - 1, "they are one source");
        drop((one, taken));
        assert_eq!(sources.lock().len(), 1);
        drop(other);
        assert!(sources.lock().is_empty());
    }
}
