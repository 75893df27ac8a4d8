//! HTTP/1 at the port for applications, as curl and browsers speak it: they are told where to go, in words that
//! they show.

use std::fmt::Display;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::time::Duration;

use nexusd_tests::{Address, Bystanders, Daemon, SOON};
use socket2::Socket;

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost:5672\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n";

fn dial(address: &Address) -> Socket {
    let socket = address.connect(None).expect("a daemon");
    socket.set_read_timeout(Some(SOON)).expect("a time");
    socket
}

/// Everything until the end, which is in good order: a reset would be an error, and could take the answer along.
fn assert_is_answered(mut socket: Socket, about: &dyn Display) {
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an end in good order");
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{about}: {answer:?}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{about}: {answer:?}");
    assert!(body.contains("--health-port") && body.ends_with('\n'), "{about}: {answer:?}");
}

#[test]
fn it_is_answered_on_every_door_and_closed() {
    let daemon = Daemon::start(&[]);
    let bystanders = Bystanders::start(&daemon);
    for address in [daemon.v4(), daemon.v6(), daemon.unix()] {
        let mut whole = dial(&address);
        whole.write_all(REQUEST).expect("it is read");
        assert_is_answered(whole, &address);
        // A client that says it byte by byte may be interrupted.
        let mut slow = dial(&address);
        for byte in REQUEST.chunks(1) {
            if slow.write_all(byte).is_err() {
                break;
            }
            std::thread::yield_now();
        }
        assert_is_answered(slow, &address);
    }
    bystanders.unharmed();
    daemon.end_well();
}

#[test]
fn a_request_that_goes_on_behind_the_answer_does_not_destroy_it() {
    let daemon = Daemon::start(&[]);
    let mut socket = dial(&daemon.v4());
    let body = vec![b'x'; 200_000];
    let head = format!("POST /api HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    socket.write_all(head.as_bytes()).expect("it is read");
    let mut first = [MaybeUninit::uninit()];
    socket.peek(&mut first).expect("an answer");
    // It is there, and what is sent now is of no use any more.
    socket.write_all(&body).expect("it is read");
    assert_is_answered(socket, &"with a body");
    daemon.end_well();
}

#[test]
fn what_only_begins_like_it_is_waited_for() {
    let daemon = Daemon::start(&[]);
    let mut socket = dial(&daemon.v4());
    socket.write_all(b"GET").expect("it is read");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time");
    let silent = socket.read(&mut [0; 1]).expect_err("nothing is said yet");
    assert_eq!(silent.kind(), std::io::ErrorKind::WouldBlock);
    socket.set_read_timeout(Some(SOON)).expect("a time");
    socket.write_all(b" / HTTP/1.0\r\n\r\n").expect("it is read");
    assert_is_answered(socket, &"in two pieces");
    daemon.end_well();
}
