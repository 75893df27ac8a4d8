//! Who speaks another protocol to the port for applications: HTTP/2 goes to the edge, others are told where they
//! are.
//!
//! They are told by their first four bytes, which no Hello can have: they would be its length. Who speaks HTTP/1, as
//! curl and browsers do, or the protocol of another message broker, gets one answer that such a client shows, and the
//! connection ends as after any other breach of the protocol, and is counted as one.

use nexusd_wire::HEADER_BYTES;

use super::event::{ConnectionId, Door, Now};
use super::output::Destination;
use super::{Shard, open_connection};
use crate::limits::{CONTROL_BYTES_MAX, METADATA_BYTES_MAX, PAYLOAD_BYTES_MAX};

type Beginning = [u8; 4];

/// How a connection begins that speaks HTTP/2.
const HTTP2: Beginning = *b"PRI ";
/// The same of HTTP/1, by the methods of its requests.
const HTTP1: [Beginning; 7] =
    [*b"GET ", *b"HEAD", *b"POST", *b"PUT ", *b"OPTI", *b"DELE", *b"PATC"];

/// What HTTP/1 is answered with.
pub const HTTP1_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 138\r\n\
    Connection: close\r\n\
    \r\n\
    This port speaks NexusD's native protocol and gRPC (HTTP/2). The HTTP API is at the health port: \
    --health-port, which is 8080 unless set.\n";

/// AMQP's, whose port this is as well.
const AMQP: Beginning = *b"AMQP";
/// What that is answered with, and Redis, whose errors look so.
pub const BROKER_ANSWER: &[u8] =
    b"-ERR this port speaks NexusD's native protocol and gRPC, not AMQP, MQTT or Redis'\r\n";
/// MQTT's CONNACK: no such version of the protocol.
pub const MQTT_ANSWER: &[u8] = &[0x20, 2, 0, 1];

const _: () = {
    let longest = HEADER_BYTES as u32 + METADATA_BYTES_MAX + PAYLOAD_BYTES_MAX;
    assert!(longest > CONTROL_BYTES_MAX && u32::from_le_bytes(HTTP2) > longest);
    assert!(u32::from_le_bytes(AMQP) > longest && u32::from_le_bytes(*b"*1\r\n") > longest);
    assert!(u32::from_le_bytes([0x10, 0, 0, 4]) > CONTROL_BYTES_MAX, "it is no Hello");
    let mut at = 0;
    while at < HTTP1.len() {
        assert!(u32::from_le_bytes(HTTP1[at]) > longest, "it could be the length of a frame");
        at += 1;
    }
};

/// What is said to who begins so; nothing to those who may speak in frames.
fn answer_to(first: Beginning) -> Option<&'static [u8]> {
    match first {
        _ if HTTP1.contains(&first) => Some(HTTP1_ANSWER),
        AMQP | [b'*', b'1'..=b'9', b'\r', b'\n'] => Some(BROKER_ANSWER),
        // CONNECT, how long the rest of it is, and how long the protocol's name.
        [0x10, _, 0, 4] => Some(MQTT_ANSWER),
        _ => None,
    }
}

impl Shard {
    /// Deals with a connection if these are its first bytes, or complete them, and another protocol's. Out of the way
    /// of those that have said Hello.
    #[cold]
    #[inline(never)]
    pub(super) fn speaks_otherwise(&mut self, id: ConnectionId, bytes: &[u8], now: Now) -> bool {
        let Some(connection) = open_connection(&mut self.connections, id) else { return false };
        let cutter = &connection.inbound.cutter;
        let held = cutter.held_back();
        let mut first = Beginning::default();
        let are_first = connection.session.door == Door::Apps
            && cutter.position() == 0
            && held.len() < first.len()
            && held.len() + bytes.len() >= first.len();
        if !are_first {
            return false;
        }
        for (place, byte) in first.iter_mut().zip(held.iter().chain(bytes)) {
            *place = *byte;
        }
        if first == HTTP2 {
            let all = [held, bytes].concat();
            self.begin_move(id, &all, Destination::Edge);
            return true;
        }
        let Some(answer) = answer_to(first) else { return false };
        self.plane.metrics.protocol_errors += 1;
        connection.outbound.control.extend_from_slice(answer);
        self.begin_close(id, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_how_long_it_is() {
        let answer = std::str::from_utf8(HTTP1_ANSWER).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(
            head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
            "{}",
            body.len()
        );
        assert!(body.ends_with('\n') && !body.contains("  "), "{body}");
    }
}
