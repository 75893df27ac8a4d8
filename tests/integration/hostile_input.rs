//! Bytes that are no conversation: truncated, flipped, invented.

use nexusd_tests::golden::{self, Vector};
use nexusd_tests::{Bystanders, Client, Complaint, Daemon, Heard};
use nexusd_wire::control::ErrorCode;
use nexusd_wire::{FrameEncoder, FrameKind, HEADER_BYTES, Header, MessageFlags, TopicId};

/// Says `bytes` behind a good beginning and, once that is answered, the end of the stream. Whatever
/// the daemon makes of them, it answers with whole frames, with at most one fatal Error as the last, and closes.
fn say(daemon: &Daemon, bytes: &[u8], about: &dyn Fn() -> String) -> Option<Complaint> {
    let mut client = Client::open(&daemon.unix());
    client.hello();
    client.bind("golden");
    client.raw(bytes);
    client.flush();
    client.welcome();
    client.shut_down();
    let rest = client.rest();
    let fatal = |heard: &Heard| matches!(heard, Heard::Error(complaint) if complaint.fatal);
    let fatal_at = rest.iter().position(fatal);
    assert!(fatal_at.is_none_or(|at| at + 1 == rest.len()), "{}: {rest:?}", about());
    match rest.last() {
        Some(Heard::Error(complaint)) if complaint.fatal => {
            assert!(!complaint.message.is_empty(), "{}", about());
            Some(complaint.clone())
        }
        _ => None,
    }
}

#[test]
fn every_frame_kind_cut_off_at_every_byte_harms_nobody() {
    let daemon = Daemon::start(&[]);
    let bystanders = Bystanders::start(&daemon);
    for Vector { name, bytes, .. } in golden::vectors() {
        for end in 0..bytes.len() {
            let complaint = say(&daemon, &bytes[..end], &|| format!("{name} cut at {end}"));
            assert_eq!(complaint, None, "{name} cut at {end} is merely not whole");
        }
    }
    bystanders.unharmed();
    daemon.end_well();
}

#[test]
fn every_frame_kind_with_any_byte_changed_harms_nobody() {
    let daemon = Daemon::start(&[]);
    let bystanders = Bystanders::start(&daemon);
    let mut random = fastrand::Rng::with_seed(1);
    for Vector { name, bytes, .. } in golden::vectors() {
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= random.u8(1..);
            say(&daemon, &changed, &|| format!("{name} with byte {at} changed: {changed:02x?}"));
        }
    }
    bystanders.unharmed();
    daemon.end_well();
}

#[test]
fn garbage_behind_hello_harms_nobody() {
    let daemon = Daemon::start(&[]);
    let bystanders = Bystanders::start(&daemon);
    for seed in 0..1_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let length = random.usize(1..4_000);
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        if seed % 2 == 0 {
            // A header that may pass, so that the garbage behind it is looked at.
            let kinds = [1, 2, 3, 5, 6, 16, 17, 18, 19, 20, 32, 34, 36, 48, 49, 64, 65, 66, 80, 81];
            let kind = FrameKind(kinds[random.usize(..kinds.len())]);
            let body = random.usize(..length + 1);
            bytes.splice(..0, Header::new(kind, 0, body).bytes().iter().copied());
        }
        say(&daemon, &bytes, &|| format!("seed {seed}"));
    }
    bystanders.unharmed();
    daemon.end_well();
}

#[test]
fn garbage_instead_of_hello_harms_nobody() {
    let daemon = Daemon::start(&[]);
    let bystanders = Bystanders::start(&daemon);
    let say_first = |bytes: &[u8]| {
        let mut client = Client::open(&daemon.unix());
        client.raw(bytes);
        client
    };
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(1_000).collect();
        let mut client = say_first(&bytes);
        client.shut_down();
        client.rest();
    }
    // HTTP is none of these: its second version goes to the edge, and the first one gets an answer of its own.
    let protocols: [&[u8]; 2] = [
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 a TLS client that says hello, but not to us",
        b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"go\"}\r\nPING\r\n",
    ];
    for bytes in protocols {
        let complaint = say_first(bytes).complaint();
        assert_eq!((complaint.code, complaint.offset), (ErrorCode::Malformed, 0), "{complaint:?}");
    }
    // Whatever is whole but not Hello comes too early.
    for Vector { name, kind, bytes, .. } in golden::vectors() {
        if kind != "Hello" {
            let complaint = say_first(&bytes).complaint();
            assert_eq!(complaint.code, ErrorCode::Protocol, "{name}: {complaint:?}");
            assert!(complaint.message.contains("Hello"), "{name}: {complaint:?}");
        }
    }
    bystanders.unharmed();
    daemon.end_well();
}

/// Says a good beginning and then `frame`; checks that the complaint points at it.
fn complaint_about(daemon: &Daemon, what: &str, frame: &[u8]) -> Complaint {
    let mut client = daemon.client();
    client.bind("golden");
    client.publish_accepted("golden", b"fine");
    client.catch_up();
    let at = client.position();
    client.raw(frame);
    let complaint = client.complaint();
    assert_eq!(complaint.offset, at, "{what}: {complaint:?}");
    complaint
}

#[test]
fn a_malformed_frame_is_answered_with_what_is_wrong_and_where() {
    let daemon = Daemon::start(&[]);
    let bystanders = Bystanders::start(&daemon);
    let message = Header::new(FrameKind::Message, 0, 8).with_topic(TopicId(0));
    let ping = Header::new(FrameKind::Ping, 0, 0);
    let patched = |header: &Header, at: usize, bytes: &[u8]| {
        let mut frame = header.bytes().to_vec();
        frame.resize(HEADER_BYTES + 8, 0);
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let mut bad_metadata = patched(&message, 6, &[8, 0]);
    bad_metadata[HEADER_BYTES..].fill(0xFF);
    let cases = [
        ("too short", patched(&ping, 0, &47u32.to_le_bytes()), "47 is shorter"),
        ("too long", patched(&ping, 0, &300_000u32.to_le_bytes()), "300000 exceeds the limit"),
        ("unknown kind", patched(&ping, 4, &[199]), "unknown frame kind 199"),
        ("unknown flag", patched(&message, 5, &[0x40]), "unknown mandatory flags 0x40"),
        ("flag on a control frame", patched(&ping, 5, &[0x01]), "flags 0x01"),
        ("metadata overrun", patched(&message, 6, &[9, 0]), "9 bytes of metadata do not fit"),
        ("metadata that does not verify", bad_metadata, "metadata"),
    ];
    for (what, frame, says) in cases {
        let complaint = complaint_about(&daemon, what, &frame);
        assert_eq!(complaint.code, ErrorCode::Malformed, "{what}: {complaint:?}");
        assert!(complaint.message.contains(says), "{what}: {complaint:?}");
        let position = format!("at byte {}", complaint.offset);
        assert!(complaint.message.contains(&position), "{what}: {complaint:?}");
    }
    bystanders.unharmed();
    daemon.end_well();
}

#[test]
fn a_body_that_does_not_verify_is_answered_with_its_kind_and_place() {
    let daemon = Daemon::start(&[]);
    for kind in [FrameKind::TopicBind, FrameKind::Subscribe, FrameKind::Unsubscribe] {
        let name = kind.variant_name().expect("a name");
        for body in [&[][..], &[0xFF; 24], &[4, 0, 0, 0, 0, 0, 0, 0]] {
            let mut frame = Header::new(kind, 0, body.len()).bytes().to_vec();
            frame.extend_from_slice(body);
            let complaint = complaint_about(&daemon, name, &frame);
            assert_eq!(complaint.code, ErrorCode::Malformed, "{name}: {complaint:?}");
            assert_eq!(complaint.kind, kind.0, "{name}: {complaint:?}");
            assert!(complaint.message.contains(name), "{complaint:?}");
            let position = format!("at byte {}", complaint.offset);
            assert!(complaint.message.contains(&position), "{complaint:?}");
        }
    }
    daemon.end_well();
}

#[test]
fn a_frame_at_the_wrong_time_is_answered_with_its_kind_and_place() {
    let daemon = Daemon::start(&[]);
    let mut hello = Client::open(&daemon.v4());
    hello.hello();
    let hello = hello.take_outgoing();
    let mut skipping = Vec::new();
    FrameEncoder::new().topic_bind(&mut skipping, TopicId(7), "too/far");
    let unbound = Header::new(FrameKind::Message, 0, 0).with_topic(TopicId(1));
    let unbound_large = Header::new(FrameKind::Message, 0, 1 << 20)
        .with_topic(TopicId(1))
        .with_flags(MessageFlags::ACK);
    let never_bound = Header::new(FrameKind::TopicUnbind, 0, 0).with_topic(TopicId(1));
    let cases = [
        ("Hello twice", &hello[..], FrameKind::Hello, ErrorCode::Protocol),
        ("an id too far", &skipping, FrameKind::TopicBind, ErrorCode::Protocol),
        ("never bound", unbound.bytes(), FrameKind::Message, ErrorCode::NotBound),
        ("large, never bound", unbound_large.bytes(), FrameKind::Message, ErrorCode::NotBound),
        ("unbound", never_bound.bytes(), FrameKind::TopicUnbind, ErrorCode::Protocol),
    ];
    for (what, frame, kind, code) in cases {
        let complaint = complaint_about(&daemon, what, frame);
        assert_eq!((complaint.code, complaint.kind), (code, kind.0), "{what}: {complaint:?}");
    }
    for Vector { name, kind, bytes, from_client } in golden::vectors() {
        if !from_client && kind != "Message" && kind != "TopicBind" {
            let is_known = ["Hello", "Goodbye", "Heartbeat"].contains(&&*kind);
            if !is_known {
                let complaint = complaint_about(&daemon, &name, &bytes);
                assert_eq!(complaint.code, ErrorCode::Protocol, "{name}: {complaint:?}");
            }
        }
    }
    daemon.end_well();
}

#[test]
fn whole_frames_of_later_versions_features_are_refused_and_the_conversation_goes_on() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.client();
    for Vector { name, kind, bytes, .. } in golden::vectors() {
        if ["Ack", "Nack", "Request", "Reply"].contains(&&*kind) {
            client.raw(&bytes);
            let complaint = client.wait_for("Error", |heard| match heard {
                Heard::Error(complaint) => Some(complaint.clone()),
                _ => None,
            });
            assert_eq!(complaint.code, ErrorCode::Unsupported, "{name}: {complaint:?}");
            assert!(!complaint.fatal && complaint.message.contains(&kind), "{name}: {complaint:?}");
        }
    }
    client.publish_accepted("golden", b"fine");
    daemon.end_well();
}
