//! An application on a blocking socket: as much of the protocol as the tests of the daemon need.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nexusd_wire::control::Role;
use nexusd_wire::{
    FrameEncoder, FrameKind, HEADER_BYTES, Header, MessageFlags, Sequence, SubscribeRequest,
    TopicId,
};

/// Longest wait for a frame.
const SOON: Duration = Duration::from_secs(20);

/// A connection that was welcomed.
pub(crate) struct Application {
    stream: TcpStream,
    encoder: FrameEncoder,
    published: u64,
}

/// A frame as it arrived.
pub(crate) struct Arrived {
    pub(crate) kind: FrameKind,
    pub(crate) payload: Vec<u8>,
}

impl Application {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a listener");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream.set_write_timeout(Some(SOON)).expect("a timeout");
        let mut application = Self { stream, encoder: FrameEncoder::new(), published: 0 };
        let mut hello = Vec::new();
        application.encoder.hello(&mut hello, 0, Role::Client, "test", "test");
        application.send(&hello);
        application.until(FrameKind::Welcome);
        application
    }

    /// Subscribes, and waits until that is confirmed.
    pub(crate) fn subscribe(&mut self, filter: &str) {
        self.subscribe_to(&[filter]);
    }

    pub(crate) fn subscribe_to(&mut self, filters: &[&str]) {
        let mut subscribe = Vec::new();
        let request = SubscribeRequest {
            request: 1,
            filters,
            queue_messages: Some(0),
            ..SubscribeRequest::default()
        };
        self.encoder.subscribe(&mut subscribe, &request);
        self.send(&subscribe);
        self.until(FrameKind::SubscriptionInfo);
    }

    /// Publishes `count` messages of `payload`, and waits until the last one is accepted.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], count: u64) {
        let mut frames = Vec::new();
        self.encoder.topic_bind(&mut frames, TopicId(0), topic);
        for left in (0..count).rev() {
            self.published += 1;
            let flags = if left == 0 { MessageFlags::ACK } else { MessageFlags::default() };
            let header = Header::new(FrameKind::Message, 0, 0)
                .with_topic(TopicId(0))
                .with_sequence(Sequence(self.published))
                .with_flags(flags);
            FrameEncoder::message(&mut frames, &header, &[], payload);
        }
        self.send(&frames);
        self.until(FrameKind::PublishAck);
    }

    /// Reads frames up to one of this kind.
    pub(crate) fn until(&mut self, kind: FrameKind) -> Arrived {
        loop {
            let frame = self.next();
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Reads one frame.
    pub(crate) fn next(&mut self) -> Arrived {
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header).expect("a frame");
        let header = Header::peek(&header).expect("a whole header");
        let mut rest = vec![0; header.stride() - HEADER_BYTES];
        self.stream.read_exact(&mut rest).expect("a whole frame");
        let start = header.metadata_len();
        rest.truncate(start + header.payload_len());
        Arrived { kind: header.kind().expect("a known kind"), payload: rest.split_off(start) }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("room");
    }
}
