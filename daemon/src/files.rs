//! The files that a node opens, and how many of them are whose.
//!
//! Whoever could take files without end would leave none for the others: what accepts connections has its part,
//! and what is bounded by nothing else is bounded by it.

use nexusd_admin::limits::{HTTP_CONNECTIONS_MAX, TOPOLOGY_ASKED_AT_A_TIME};
use tracing::warn;

use crate::config::{Config, DiscoveryMode, HttpPort};
use crate::error::StartError;
use crate::process;

/// Those that a node needs beside those of connections.
const RESERVED: u64 = 64;
/// Further ones that it needs to find other nodes, for beacons on each interface and for dials, and to ask them.
const OF_MESH: u64 = 128 + TOPOLOGY_ASKED_AT_A_TIME as u64;
/// Further ones for the connections of an HTTP port, and what listens there.
const OF_HTTP: u64 = HTTP_CONNECTIONS_MAX as u64 + 4;
/// Of each connection of gRPC its socket, one that waits for the edge, and the edge's end of what it publishes
/// through; and the edge's end of what a call subscribes through. The shards' ends are among the node's connections.
const OF_GRPC_ROOM: u64 = 4;

/// What is there for connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Files {
    /// How many connections of gRPC there may be, and how many calls.
    pub(crate) grpc_room: usize,
    /// How many connections there can be, of those that there may.
    connections: u64,
}

impl Files {
    /// Shares out what this process may open, which is raised as far as this user may. Fails if there is nothing
    /// for connections.
    pub(crate) fn share_out(config: &Config) -> Result<Self, StartError> {
        let is_on = |port| if port == HttpPort::Off { 0 } else { OF_HTTP };
        let reserved = RESERVED
            + if config.discovery == DiscoveryMode::Off { 0 } else { OF_MESH }
            + is_on(config.health_port)
            + if config.metrics_enabled { is_on(config.metrics_port) } else { 0 };
        let wanted = config.limits.connections as u64;
        let most = nexusd_grpc::ROOM_MAX;
        let Some(limit) = process::raise_file_limit() else {
            return Ok(Self { grpc_room: most, connections: wanted });
        };
        let left = limit.saturating_sub(reserved);
        if left == 0 {
            return Err(StartError::Files { limit, needed: reserved + wanted + of_grpc(wanted) });
        }
        let files = Self::of(left, wanted);
        let Self { grpc_room, connections } = files;
        if connections < wanted || grpc_room < most {
            warn!(
                "at most {connections} of --max-connections {wanted} can be had, and {grpc_room} of {most} \
                 connections and calls of gRPC: this process may open {limit} files; raise the limit \
                 (`ulimit -n`, LimitNOFILE= in systemd)"
            );
        }
        Ok(files)
    }

    /// Of so many files, for as many connections as are wanted. Where there are too few, gRPC has a quarter.
    fn of(left: u64, wanted: u64) -> Self {
        let grpc = of_grpc(wanted).min(left.saturating_sub(wanted).max(left / 4));
        let grpc_room = if grpc < of_grpc(wanted) {
            (grpc / OF_GRPC_ROOM).max(1) as usize
        } else {
            nexusd_grpc::ROOM_MAX
        };
        Self { grpc_room, connections: wanted.min(left - grpc) }
    }
}

/// Those that gRPC takes at most, beside a node's connections: each of those has one end at the edge at most.
fn of_grpc(connections: u64) -> u64 {
    let room = nexusd_grpc::ROOM_MAX as u64;
    2 * room + connections.min((OF_GRPC_ROOM - 2) * room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_are_enough_all_have_what_they_may() {
        let all = Files { grpc_room: 1_024, connections: 10_000 };
        assert_eq!(Files::of(14_096, 10_000), all);
        assert_eq!(Files::of(60_000, 10_000), all);
        assert_eq!(Files::of(3_048, 500), Files { grpc_room: 1_024, connections: 500 });
    }

    #[test]
    fn where_there_are_too_few_neither_takes_those_of_the_other() {
        for left in [16, 40, 1_000, 4_096, 10_000, 12_000, 14_095] {
            let Files { grpc_room, connections } = Files::of(left, 10_000);
            assert!(grpc_room >= 1 && connections >= (left * 3 / 4).min(10_000), "{left}");
            assert!(grpc_room as u64 * OF_GRPC_ROOM + connections <= left, "{left}");
        }
        assert_eq!(Files::of(1, 10_000), Files { grpc_room: 1, connections: 1 });
        assert_eq!(Files::of(14_000, 10_000), Files { grpc_room: 1_000, connections: 10_000 });
    }
}
