//! Payloads up to the limit and beyond.

use std::thread;

use nexusd_tests::{Bystanders, Client, Daemon, Heard};
use nexusd_wire::control::{ErrorCode, PublishStatus};
use nexusd_wire::{FrameEncoder, FrameKind, Header, Sequence, TopicId};

const LIMIT: usize = 4 << 20;

/// Bytes that differ from place to place and from message to message.
fn content(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(bytes).collect()
}

#[test]
fn payloads_of_every_size_up_to_4_mib_arrive_intact() {
    let daemon = Daemon::start(&[]);
    let sizes = [0, 1, 7, 8, 4_096, 65_487, 65_488, 65_489, 262_144, 1 << 20, LIMIT - 1, LIMIT];
    for way in [daemon.v4(), daemon.unix()] {
        let mut subscriber = Client::connect(&way);
        let topic = if way == daemon.v4() { "large/tcp" } else { "large/unix" };
        subscriber.subscribe_to_all(&[topic]);
        thread::scope(|scope| {
            let reading = scope.spawn(|| {
                for (seed, bytes) in sizes.into_iter().enumerate() {
                    let message = subscriber.next_message();
                    let same = message.payload == content(seed as u64, bytes);
                    assert!(same, "{} of {bytes} bytes", message.payload.len());
                }
            });
            let mut publisher = Client::connect(&way);
            for (seed, bytes) in sizes.into_iter().enumerate() {
                let payload = content(seed as u64, bytes);
                assert_eq!(publisher.publish_accepted(topic, &payload).delivered, 1);
            }
            reading.join().expect("no panic");
        });
    }
    daemon.end_well();
}

#[test]
fn large_and_small_messages_of_many_publishers_keep_their_order() {
    let daemon = Daemon::start(&[]);
    let bystanders = Bystanders::start(&daemon);
    let publishers = 4;
    let size = |publisher: u64, number: u64| match (publisher + number) % 4 {
        0 => 900_000,
        1 => 10,
        2 => 70_000,
        _ => 3_000,
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            let mut subscriber = daemon.client();
            subscriber.subscribe_to_all(&["mixed/+"]);
            scope.spawn(move || {
                let mut heard = vec![0; publishers as usize];
                for _ in 0..publishers * 20 {
                    let message = subscriber.next_message();
                    let publisher: u64 = message.topic["mixed/".len()..].parse().expect("a number");
                    let number = heard[publisher as usize];
                    heard[publisher as usize] += 1;
                    assert_eq!(message.sequence, number + 1);
                    let expected = content(publisher << 32 | number, size(publisher, number));
                    assert!(message.payload == expected, "message {number} of {publisher}");
                }
            });
        }
        for publisher in 0..publishers {
            let mut client = daemon.client();
            scope.spawn(move || {
                let topic = format!("mixed/{publisher}");
                for number in 0..20 {
                    let payload = content(publisher << 32 | number, size(publisher, number));
                    client.publish(&topic, &payload);
                    client.flush();
                }
                client.catch_up();
            });
        }
    });
    bystanders.unharmed();
    daemon.end_well();
}

#[test]
fn a_payload_of_one_byte_more_is_refused_with_the_limit_and_the_connection_goes_on() {
    let daemon = Daemon::start(&[]);
    for way in [daemon.v4(), daemon.unix()] {
        let mut client = Client::open(&way);
        client.hello();
        let (_, max_payload) = client.welcome();
        assert_eq!(max_payload as usize, LIMIT, "clients are told in advance");
        client.subscribe(&["large"]);
        let too_large = vec![0; LIMIT + 1];
        let refused = client.publish_and_wait("large", &too_large);
        assert_eq!((refused.status, refused.sequence), (PublishStatus::TooLarge, 0));

        let at = client.position();
        client.publish("large", &too_large);
        let complaint = client.wait_for("Error", |heard| match heard {
            Heard::Error(complaint) => Some(complaint.clone()),
            _ => None,
        });
        assert_eq!((complaint.code, complaint.fatal), (ErrorCode::TooLarge, false));
        assert_eq!((complaint.offset, complaint.kind), (at, FrameKind::Message.0));
        for part in ["4194305", "4194304", "--max-payload"] {
            assert!(complaint.message.contains(part), "{complaint:?}");
        }
        client.publish_accepted("large", b"small enough");
        assert_eq!(client.next_message().payload, b"small enough");
    }
    daemon.end_well();
}

#[test]
fn a_frame_that_claims_far_too_much_ends_the_connection_before_it_is_sent() {
    let daemon = Daemon::start(&[]);
    for bytes in [5 << 20, 1 << 30, u32::MAX as usize - 100] {
        let mut client = daemon.client();
        client.bind("large");
        client.catch_up();
        let at = client.position();
        client.raw(Header::new(FrameKind::Message, 0, bytes).bytes());
        let complaint = client.complaint();
        assert_eq!(complaint.code, ErrorCode::Malformed);
        assert!(complaint.message.contains(&format!("frame at byte {at}")), "{complaint:?}");
        assert_eq!(complaint.offset, at);
    }
    daemon.end_well();
}

#[test]
fn max_payload_is_the_operators_to_set() {
    let daemon = Daemon::start(&["--max-payload", "1K"]);
    let mut client = daemon.client();
    client.publish_accepted("t", &[0; 1_024]);
    let refused = client.publish_and_wait("t", &[0; 1_025]);
    assert_eq!(refused.status, PublishStatus::TooLarge);
    daemon.end_well();
}

#[test]
fn a_large_frame_may_arrive_in_small_pieces() {
    let daemon = Daemon::start(&[]);
    let mut subscriber = daemon.client();
    subscriber.subscribe_to_all(&["slowly"]);
    let mut client = daemon.client();
    client.bind("slowly");
    client.flush();
    let mut random = fastrand::Rng::with_seed(3);
    for number in 0..4 {
        let payload = content(number, 400_000);
        let header = Header::new(FrameKind::Message, 0, 0)
            .with_topic(TopicId(0))
            .with_sequence(Sequence(number));
        let mut frame = Vec::new();
        FrameEncoder::message(&mut frame, &header, &[], &payload);
        let mut rest = &frame[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(random.usize(1..=20_000).min(rest.len()));
            client.raw(piece);
            client.flush();
            rest = behind;
        }
        assert!(subscriber.next_message().payload == payload, "message {number}");
    }
    daemon.end_well();
}
