//! Other protocols at the port for applications: HTTP/1, and those of message brokers.

use nexusd_core::{BROKER_ANSWER, Door, HTTP1_ANSWER, MQTT_ANSWER};

use crate::desk::{Desk, Heard};

#[test]
fn a_client_that_speaks_http1_is_told_so_in_its_own_words() {
    let methods = ["GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE", "PATCH"];
    for (method, first) in methods.into_iter().flat_map(|it| [0, 1, 3, 4, 5].map(|at| (it, at))) {
        let request = format!("{method} /healthz HTTP/1.1\r\nHost: localhost:5672\r\n\r\n");
        let mut desk = Desk::new();
        let client = desk.open();
        let (beginning, rest) = request.as_bytes().split_at(first);
        for piece in beginning.chunks(1).chain([rest]) {
            if !desk.is_closed(client) {
                desk.say(client, piece);
            }
        }
        assert_eq!(desk.take(client), HTTP1_ANSWER, "{method} after {first} single bytes");
        assert!(desk.is_closed(client));
        let metrics = desk.metrics();
        assert_eq!((metrics.connections, metrics.protocol_errors), (0, 1));
        assert!(desk.edge().is_empty());
    }
}

#[test]
fn clients_of_message_brokers_are_told_so_in_theirs() {
    for (hello, answer) in [
        (&b"AMQP\x00\x00\x09\x01"[..], BROKER_ANSWER),
        (b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n", BROKER_ANSWER),
        (b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04me-7", MQTT_ANSWER),
    ] {
        let mut desk = Desk::new();
        let client = desk.open();
        desk.say(client, hello);
        assert_eq!(desk.take(client), answer, "{}", hello.escape_ascii());
        assert!(desk.is_closed(client));
        assert_eq!(desk.metrics().protocol_errors, 1);
    }
}

#[test]
fn other_doors_and_clients_that_are_greeted_hear_frames_of_http1() {
    let mut desk = Desk::new();
    let link = desk.open_link(Door::Mesh, 0);
    let client = desk.greet();
    for seat in [link, client] {
        desk.say(seat, b"GET / HTTP/1.1\r\nHost: localhost:5672\r\nAccept: */*\r\n\r\n");
        let heard = desk.heard(seat);
        assert!(matches!(heard[..], [Heard::Error { fatal: true, .. }]), "{heard:?}");
    }
}
