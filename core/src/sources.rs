//! Where connections come from: what each source address has and does, over all shards of a node.
//!
//! A source is an IPv4 address, or an IPv6 network of 64 bits, which is the least that one customer
//! has; the unix socket is none. The table is looked into when a connection begins or ends, and only
//! if a limit per source is set. How fast a source publishes is asked of the [`Source`] that its
//! connection holds, once for the bytes of a receive.
//!
//! Invariant: a source without a connection stands in line to be forgotten, which it is when its rates
//! are paid for: coming back at once does not make them whole. At most [`SOURCES_IDLE_MAX`] stand there.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::{Limits, SOURCE_RECOVERY_US, SOURCES_IDLE_MAX};
use crate::shard::event::PeerAddress;
use crate::token_bucket::TokenBucket;

/// What connections of one origin have in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum SourceAddress {
    V4(Ipv4Addr),
    /// The upper half of the address.
    V6(u64),
}

impl SourceAddress {
    /// The source of a peer, unless that is on the unix socket.
    pub(crate) fn of(peer: PeerAddress) -> Option<Self> {
        match peer {
            // An IPv4 peer of an IPv6 socket is an IPv4 peer.
            PeerAddress::Tcp(address) => Some(match address.ip().to_canonical() {
                IpAddr::V4(ip) => Self::V4(ip),
                IpAddr::V6(ip) => Self::V6((ip.to_bits() >> 64) as u64),
            }),
            PeerAddress::Unix => None,
        }
    }
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(ip) => ip.fmt(f),
            Self::V6(half) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*half) << 64)),
        }
    }
}

/// A source as its connections know it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) address: SourceAddress,
    published: TokenBucket,
}

impl Source {
    /// Messages it may publish now.
    pub(crate) fn may_publish(&self, limits: &Limits, now_us: u64) -> u64 {
        self.published.available(limits.publish_rate_per_source, now_us)
    }

    /// Messages it has published.
    pub(crate) fn has_published(&self, messages: u64, limits: &Limits, now_us: u64) {
        self.published.take(messages, limits.publish_rate_per_source, now_us);
    }
}

/// Why a source may not have one more connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Excess {
    /// It has as many as it may.
    Connections,
    /// It opened as many in the last second as it may.
    AcceptRate,
}

/// All sources of a node.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    table: Mutex<Table>,
}

impl Sources {
    /// Counts one more connection of a source, unless it may have none.
    pub(crate) fn open(
        &self,
        address: SourceAddress,
        limits: &Limits,
        now_us: u64,
    ) -> Result<Arc<Source>, Excess> {
        let mut table = self.table();
        table.forget(now_us);
        let known = table.known.entry(address).or_insert_with(|| Known::new(address));
        let (most, rate) = (limits.connections_per_source, limits.accept_rate_per_source);
        if most != 0 && known.connections >= most {
            return Err(Excess::Connections);
        }
        if rate != 0 {
            if known.opened.available(rate, now_us) == 0 {
                return Err(Excess::AcceptRate);
            }
            known.opened.take(1, rate, now_us);
        }
        known.connections += 1;
        Ok(Arc::clone(&known.source))
    }

    /// A connection that was counted has ended.
    pub(crate) fn close(&self, source: &Source, now_us: u64) {
        let mut table = self.table();
        table.forget(now_us);
        let Some(known) = table.known.get_mut(&source.address) else {
            debug_assert!(false, "a source with a connection is known");
            return;
        };
        known.connections -= 1;
        if known.connections == 0 && !known.is_in_line {
            known.is_in_line = true;
            table.idle.push_back((now_us + SOURCE_RECOVERY_US, source.address));
        }
    }

    pub(crate) fn assert_invariants(&self) {
        let table = self.table();
        for (address, known) in &table.known {
            let in_line = table.idle.iter().filter(|(_, idle)| idle == address).count();
            assert_eq!(in_line, usize::from(known.is_in_line), "{address} knows where it stands");
            assert!(known.is_in_line || known.connections > 0, "{address} will be forgotten");
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A thread that panics ends the process.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Table {
    known: BTreeMap<SourceAddress, Known>,
    /// Sources that had no connection, and when to look whether they can be forgotten.
    idle: VecDeque<(u64, SourceAddress)>,
}

#[derive(Debug)]
struct Known {
    source: Arc<Source>,
    connections: usize,
    opened: TokenBucket,
    is_in_line: bool,
}

impl Known {
    fn new(address: SourceAddress) -> Self {
        Self {
            source: Arc::new(Source { address, published: TokenBucket::default() }),
            connections: 0,
            opened: TokenBucket::default(),
            is_in_line: false,
        }
    }
}

impl Table {
    /// Forgets sources that are gone, and those that have waited longest if they are very many.
    fn forget(&mut self, now_us: u64) {
        while let Some(&(due_us, address)) = self.idle.front() {
            let are_too_many = self.idle.len() > SOURCES_IDLE_MAX;
            if due_us > now_us && !are_too_many {
                return;
            }
            self.idle.pop_front();
            let Some(known) = self.known.get_mut(&address) else { continue };
            if known.connections > 0 {
                known.is_in_line = false;
            } else if are_too_many || known.is_paid(now_us) {
                self.known.remove(&address);
            } else {
                self.idle.push_back((now_us + SOURCE_RECOVERY_US, address));
            }
        }
    }
}

impl Known {
    fn is_paid(&self, now_us: u64) -> bool {
        self.opened.is_full(now_us) && self.source.published.is_full(now_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    const SECOND_US: u64 = 1_000_000;

    fn address(text: &str) -> SourceAddress {
        let ip: IpAddr = text.parse().expect("an address");
        SourceAddress::of(PeerAddress::Tcp(SocketAddr::from((ip, 1)))).expect("a source")
    }

    fn known(sources: &Sources) -> usize {
        sources.assert_invariants();
        sources.table().known.len()
    }

    #[test]
    fn an_ipv4_address_is_a_source_however_it_is_written() {
        assert_eq!(address("192.0.2.1"), address("::ffff:192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(address("::ffff:192.0.2.1").to_string(), "192.0.2.1");
    }

    #[test]
    fn an_ipv6_source_is_a_network_of_64_bits() {
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:0:0:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("2001:db8::7").to_string(), "2001:db8::/64");
    }

    #[test]
    fn the_unix_socket_is_no_source() {
        assert_eq!(SourceAddress::of(PeerAddress::Unix), None);
    }

    #[test]
    fn a_source_is_forgotten_with_its_last_connection_once_its_rates_are_paid_for() {
        let limits = Limits { accept_rate_per_source: 2, ..Limits::default() };
        let sources = Sources::default();
        let open = |text, now_us| sources.open(address(text), &limits, now_us);
        let first = open("192.0.2.1", SECOND_US).expect("the first");
        let second = open("192.0.2.1", SECOND_US).expect("the second");
        sources.close(&first, SECOND_US);
        sources.close(&second, SECOND_US);
        assert_eq!(open("192.0.2.1", SECOND_US).err(), Some(Excess::AcceptRate), "it is known");
        let other = open("192.0.2.2", 2 * SECOND_US).expect("another one");
        assert_eq!(known(&sources), 1, "only the other one");
        sources.close(&other, 2 * SECOND_US);
    }

    #[test]
    fn a_source_that_comes_back_stays() {
        let limits = Limits { connections_per_source: 1, ..Limits::default() };
        let sources = Sources::default();
        let open = |now_us| sources.open(address("192.0.2.1"), &limits, now_us);
        let first = open(SECOND_US).expect("the first");
        sources.close(&first, SECOND_US);
        let second = open(SECOND_US).expect("the second");
        for later in 2..5 {
            assert_eq!(open(later * SECOND_US).err(), Some(Excess::Connections));
            assert_eq!(known(&sources), 1);
        }
        sources.close(&second, 5 * SECOND_US);
        assert!(open(9 * SECOND_US).is_ok());
        assert_eq!(known(&sources), 1);
    }

    #[test]
    fn however_many_sources_come_and_go_few_are_remembered() {
        let limits = Limits { accept_rate_per_source: 1, ..Limits::default() };
        let sources = Sources::default();
        for number in 0..2 * SOURCES_IDLE_MAX as u32 {
            let address = SourceAddress::V4(Ipv4Addr::from_bits(number));
            let source = sources.open(address, &limits, SECOND_US).expect("a first connection");
            sources.close(&source, SECOND_US);
        }
        let table = sources.table();
        assert!(table.known.len() <= SOURCES_IDLE_MAX + 1, "{}", table.known.len());
        assert_eq!(table.known.len(), table.idle.len());
    }
}
