//! Entries of lists, from what shards and the mesh thread say to what operators read: times in milliseconds,
//! ids and addresses as text, words for what there are few of.

use std::net::SocketAddr;
use std::str::FromStr;

use nexusd_admin::Fault;
use nexusd_admin::proto::{Client, Peer, RetainedValue, Subscription};
use nexusd_core::inspection::{ClientEntry, LinkEntry, RetainedEntry, SubscriptionEntry};
use nexusd_core::limits::CLIENT_NAME_BYTES_MAX;
use nexusd_core::{ConnectionId, PeerAddress};
use nexusd_wire::control::OverflowPolicy;

use crate::mesh::PeerPicture;

/// Characters of a bad value that its error shows.
pub(super) const SHOWN_MAX: usize = 64;

/// A client's connection, as operators name it: SHARD-SLOT-GENERATION.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ClientId {
    pub(super) shard: usize,
    pub(super) connection: ConnectionId,
}

impl FromStr for ClientId {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let mut parts = text.split('-').map(|part| {
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { part.parse::<u32>().ok() } else { None }
        });
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(shard)), Some(Some(index)), Some(Some(generation)), None) => {
                Ok(Self { shard: shard as usize, connection: ConnectionId { index, generation } })
            }
            _ => {
                let shown: String = text.chars().take(SHOWN_MAX).collect();
                Err(Fault::Invalid(format!(
                    "{shown:?} is not a client's id; it is SHARD-SLOT-GENERATION, as clients are listed"
                )))
            }
        }
    }
}

fn client_id(shard: usize, ConnectionId { index, generation }: ConnectionId) -> String {
    format!("{shard}-{index}-{generation}")
}

/// A name that a client may be given.
pub(super) fn client_name(name: &str) -> Result<Box<str>, Fault> {
    if name.len() > CLIENT_NAME_BYTES_MAX {
        return Err(Fault::Invalid(format!(
            "a client's name has at most {CLIENT_NAME_BYTES_MAX} bytes, and this one {}",
            name.len()
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(Fault::Invalid("a client's name has no control characters".to_owned()));
    }
    Ok(name.into())
}

/// Microseconds as milliseconds.
pub(super) fn milliseconds(us: u64) -> i64 {
    i64::try_from(us / 1_000).unwrap_or(i64::MAX)
}

pub(super) fn subscription(shard: usize, entry: SubscriptionEntry) -> Subscription {
    let state = match (entry.parked_for_us, entry.is_leaving) {
        (Some(_), _) => "parked",
        (None, true) => "leaving",
        (None, false) => "connected",
    };
    Subscription {
        subscription_id: entry.subscription.to_string(),
        client_id: entry.client.map(|id| client_id(shard, id)).unwrap_or_default(),
        filters: entry.filters.into_iter().map(String::from).collect(),
        state: state.to_owned(),
        policy: policy(entry.policy).to_owned(),
        queued_messages: entry.queued_messages,
        queued_bytes: entry.queued_bytes,
        limit_messages: entry.limit_messages,
        limit_bytes: entry.limit_bytes,
        sent_messages: entry.sent,
        dropped_messages: entry.dropped,
        unacknowledged_messages: entry.unacknowledged,
        parked_for_ms: entry.parked_for_us.map(milliseconds),
    }
}

fn policy(policy: OverflowPolicy) -> &'static str {
    match policy {
        OverflowPolicy::DropOldest => "drop-oldest",
        OverflowPolicy::DropNewest => "drop-newest",
        OverflowPolicy::Block => "block",
        OverflowPolicy::Disconnect => "disconnect",
        _ => "unknown",
    }
}

pub(super) fn retained(entry: RetainedEntry) -> RetainedValue {
    RetainedValue {
        topic: entry.topic.into_string(),
        payload_bytes: entry.payload_bytes,
        timestamp_ms: milliseconds(entry.timestamp_us),
        origin: entry.origin.to_string(),
        expires_ms: entry.expires_us.map(milliseconds),
    }
}

pub(super) fn client(shard: usize, entry: ClientEntry) -> Client {
    Client {
        client_id: client_id(shard, entry.id),
        name: entry.name.into_string(),
        software: entry.software.into_string(),
        address: match entry.address {
            PeerAddress::Unix => "unix".to_owned(),
            PeerAddress::Tcp(address) => address.to_string(),
        },
        protocol: if entry.is_edge { "grpc" } else { "native" }.to_owned(),
        connected_ms: milliseconds(entry.connected_us),
        silent_ms: milliseconds(entry.silent_us),
        subscriptions: entry.subscriptions,
        messages_in: entry.messages_in,
        messages_out: entry.messages_out,
        topics_bound: entry.topics_bound,
        buffered_bytes: entry.buffered_bytes,
        is_held_back: entry.is_held_back,
        is_blocked: entry.is_blocked,
    }
}

/// What is believed of a peer. One that is dead is no peer any more.
pub(crate) fn status(peer: &PeerPicture) -> &'static str {
    if peer.is_suspected { "suspected" } else { "alive" }
}

/// Where applications reach a peer: the address of its links, and its port for them.
pub(crate) fn app_address(peer: &PeerPicture) -> Option<SocketAddr> {
    (peer.app_port != 0).then(|| SocketAddr::new(peer.address.ip(), peer.app_port))
}

/// When a peer was last heard of, over its link or by a beacon, in milliseconds; `now_us` is the wall clock's.
pub(super) fn last_seen_ms(peer: &PeerPicture, link: Option<&LinkEntry>, now_us: u64) -> i64 {
    let heard_us = link.map_or(0, |link| now_us.saturating_sub(link.silent_us));
    milliseconds(peer.last_heard_us.max(heard_us))
}

/// A peer, and the link to it if there is one; `now_us` is the wall clock's.
pub(super) fn peer(peer: &PeerPicture, link: Option<&LinkEntry>, now_us: u64) -> Peer {
    Peer {
        node_id: peer.node.to_string(),
        address: peer.address.to_string(),
        app_address: app_address(peer).map(|address| address.to_string()).unwrap_or_default(),
        status: status(peer).to_owned(),
        is_linked: peer.is_linked,
        latency_us: link.filter(|_| peer.is_linked).and_then(|link| link.latency_us),
        is_synced: peer.is_synced,
        last_seen_ms: last_seen_ms(peer, link, now_us),
        started_ms: milliseconds(peer.start_us),
        queued_messages: link.map_or(0, |link| link.queued_messages),
        queued_bytes: link.map_or(0, |link| link.queued_bytes),
        filters: link.map_or(0, |link| link.filters),
        is_idle: peer.is_idle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_id_is_read_as_it_is_written() {
        let connection = ConnectionId { index: 7, generation: u32::MAX };
        let text = client_id(63, connection);
        assert_eq!(text, "63-7-4294967295");
        assert_eq!(text.parse::<ClientId>(), Ok(ClientId { shard: 63, connection }));
        for bad in ["", "1", "1-2", "1-2-3-4", "1-2-", "a-b-c", "1-2-4294967296", "+1-2-3", "1--2"]
        {
            assert!(bad.parse::<ClientId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused_with_a_reason() {
        assert_eq!(client_name("printer 3").as_deref(), Ok("printer 3"));
        assert!(client_name(&"x".repeat(CLIENT_NAME_BYTES_MAX + 1)).is_err());
        assert!(client_name("a\nb").is_err());
    }
}
