//! A publisher that stops in the middle of a frame and waits to be killed.
//!
//! `nexusd-half-frame ADDRESS TOPIC WHOLE PAYLOAD SENT`: publishes WHOLE messages of PAYLOAD bytes
//! to TOPIC, waits until they are accepted, sends the first SENT bytes of one more, prints a line
//! and waits for the end of its input.

use std::io::{self, Write};

use nexusd_tests::{Client, wait_for_the_end};
use nexusd_wire::{FrameEncoder, FrameKind, Header, Sequence};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, address, topic, whole, payload, sent] = &arguments[..] else {
        return Err(io::Error::other("usage: nexusd-half-frame ADDRESS TOPIC WHOLE PAYLOAD SENT"));
    };
    let number = |text: &str| text.parse::<usize>().map_err(io::Error::other);
    let payload = vec![b'x'; number(payload)?];
    let mut client = Client::connect(&address.parse().map_err(io::Error::other)?);
    let id = client.bind(topic);
    for _ in 0..number(whole)? {
        client.publish_accepted(topic, &payload);
    }
    let mut frame = Vec::new();
    let header = Header::new(FrameKind::Message, 0, 0).with_topic(id).with_sequence(Sequence(9));
    FrameEncoder::message(&mut frame, &header, &[], &payload);
    client.raw(&frame[..number(sent)?]);
    client.flush();
    writeln!(io::stdout(), "half of a frame is sent")?;
    wait_for_the_end()
}
