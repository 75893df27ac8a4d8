//! Nodes of this release beside those of one to come, which speaks a later minor version of the protocol:
//! it has a kind of frame, a flag of messages and a field in every table that this one does not know.

use std::io::{Read as _, Write as _};

use flatbuffers::FlatBufferBuilder;
use nexusd_netns::{Host, Listener, Load, Meets as _, on_a_network};
use nexusd_tests::Release::{Next, This};
use nexusd_tests::{Address, Daemon, Release, eventually};
use nexusd_wire::control::{Role, Welcome};
use nexusd_wire::{
    Cut, FrameCutter, FrameEncoder, FrameKind, Header, MessageFlags, Metadata, SubscribeRequest,
};

use crate::{all_linked, measured, reaches};

/// What the next release adds, as `wire/src/next.rs` says it.
const NEXT_KIND: u8 = 127;
const NEXT_FLAG: u8 = 0x08;
/// A flag that neither release knows.
const FOREIGN_FLAG: u8 = 0x02;
/// Where the next field of metadata will be.
const NEXT_METADATA_FIELD: u16 = 4 + 2 * 6;

/// Messages between all nodes that each listener waits for at least.
const MESSAGES: u64 = 1_000;

#[test]
fn nodes_of_two_releases_that_find_each_other_by_multicast_are_one_mesh() {
    on_a_network(4, |network| {
        let releases = [This, This, Next, Next];
        let nodes: Vec<Daemon> = releases
            .iter()
            .zip(network.hosts())
            .map(|(&release, host)| host.node_of(release, &[]))
            .collect();
        all_linked(&nodes);
        messages_flow(&nodes, || {});
        what_is_unknown_is_passed_on(&nodes, &releases);
        for (node, release) in nodes.iter().zip(releases) {
            // The two that know the new kind have said it to each other, and to nobody else: once on every
            // connection, of which there are two for a moment if both dialled at once.
            let metrics = metrics(node);
            let said = metrics["next_frames"].as_u64();
            let is_expected = match release {
                Next => matches!(said, Some(1 | 2)),
                This => said.is_none(),
            };
            assert!(is_expected, "{release:?}: {metrics}");
        }
        nobody_complained(nodes);
    });
}

#[test]
fn whichever_release_dials_the_other_the_link_stands_and_goes_on_after_a_break() {
    on_a_network(4, |network| {
        // Nobody hears of anybody but through a link: who has the seed dials.
        network.break_by(&["ip protocol udp drop"]);
        let mut all = Vec::new();
        for (cluster, dialler, dialled) in [("one", This, Next), ("other", Next, This)] {
            let hosts = &network.hosts()[all.len()..];
            let pair = dial(&hosts[0], dialler, &hosts[1], dialled, cluster);
            let mut resets = 0;
            messages_flow(&pair, || resets += hosts[0].reset_connections_with(&hosts[1]));
            assert!(resets > 0, "the link was broken");
            what_is_unknown_is_passed_on(&pair, &[dialler, dialled]);
            all.extend(pair);
        }
        nobody_complained(all);
    });
}

#[test]
fn clients_are_spoken_to_in_their_own_minor_version() {
    on_a_network(2, |network| {
        let [old, new] =
            [(0, This), (1, Next)].map(|(at, release)| network.host(at).node_of(release, &[]));
        for (node, offered, agreed, kinds) in [
            (&old, 0, 0, &[][..]),
            (&old, 1, 0, &[]),
            (&new, 0, 0, &[]),
            (&new, 1, 1, &[NEXT_KIND]),
            (&new, 9, 1, &[NEXT_KIND]),
        ] {
            assert_eq!(greeted(&node.unix(), offered), (agreed, kinds.to_vec()), "{offered}");
        }
    });
}

/// Two nodes in a cluster with a key, of which one knows the other.
fn dial(from: &Host, dialler: Release, to: &Host, dialled: Release, cluster: &str) -> [Daemon; 2] {
    let flags = [
        "--discovery",
        "static",
        "--cluster",
        cluster,
        "--cluster-key",
        "a secret of both releases",
    ];
    let peer = format!("{}:5671", to.address());
    let dialled = to.node_of(dialled, &flags);
    // Before anybody is there: it comes over the link when the two compare what they have.
    let metadata = metadata_of_the_next_release();
    let flagged = MessageFlags(FOREIGN_FLAG).with(MessageFlags::RETAIN);
    let header = Header::new(FrameKind::Message, 0, 0).with_flags(flagged);
    let mut publisher = dialled.meet();
    publisher.publish_with("state", &header, &metadata, b"kept");
    publisher.catch_up();
    let dialler = from.node_of(dialler, &[&flags[..], &["--peers", &peer]].concat());
    let pair = [dialler, dialled];
    all_linked(&pair);
    let mut subscriber = pair[0].meet();
    subscriber.subscribe_with(&SubscribeRequest {
        filters: &["state"],
        receive_retained: true,
        ..SubscribeRequest::default()
    });
    let value = subscriber.next_message();
    assert_eq!((value.payload, value.metadata), (b"kept".to_vec(), metadata));
    assert_eq!(value.flags & FOREIGN_FLAG, FOREIGN_FLAG, "{:#x}", value.flags);
    pair
}

/// Each node's messages come to a subscriber at each node, once and in order, whatever happens amid them.
fn messages_flow(nodes: &[Daemon], fault: impl FnOnce()) {
    let topics: Vec<String> = (0..nodes.len()).map(|at| format!("load/{at}")).collect();
    let listeners: Vec<Vec<Listener>> = topics
        .iter()
        .map(|topic| nodes.iter().map(|node| Listener::start(node, topic)).collect())
        .collect();
    for (node, topic) in nodes.iter().zip(&topics) {
        reaches(node, topic, nodes.len() as u32);
    }
    let start = |(node, topic): (&Daemon, &String)| Load::start(node, topic, 10, 100);
    let loads: Vec<Load> = nodes.iter().zip(&topics).map(start).collect();
    let amid = |messages| {
        listeners.iter().flatten().for_each(|listener| {
            listener.wait_for(messages);
        });
    };
    amid(MESSAGES / 2);
    fault();
    amid(MESSAGES);
    let published: Vec<u64> = loads.into_iter().map(Load::finish).collect();
    for (listeners, published) in listeners.into_iter().zip(&published) {
        for listener in listeners {
            // It has seen to it that none came twice.
            let account = listener.finish();
            assert!(account.received() >= *published, "{published}: {account:?}");
            assert_eq!((account.gaps(), account.missed()), (0, 0));
        }
    }
    measured(&format!("{published:?} messages went to {} nodes each", nodes.len()));
}

/// A field of metadata and flags that a node does not know come out as they went in, wherever.
fn what_is_unknown_is_passed_on(nodes: &[Daemon], releases: &[Release]) {
    let metadata = metadata_of_the_next_release();
    let mut subscribers: Vec<_> = nodes.iter().map(|node| node.meet()).collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe(&["kept/#"]);
    }
    for (at, node) in nodes.iter().enumerate() {
        let (mut publisher, topic) = (node.meet(), format!("kept/{at}"));
        publisher.publish_until_delivered(&topic, nodes.len() as u32);
        let header = Header::new(FrameKind::Message, 0, 0).with_flags(MessageFlags(FOREIGN_FLAG));
        publisher.publish_with(&topic, &header, &metadata, b"kept");
        publisher.flush();
        let mut flags = FOREIGN_FLAG;
        if releases[at] == Next {
            flags |= NEXT_FLAG;
        }
        for subscriber in &mut subscribers {
            let message = loop {
                let message = subscriber.next_message();
                if message.payload == b"kept" {
                    break message;
                }
            };
            assert_eq!((&*message.topic, message.flags), (&*topic, flags));
            assert_eq!(message.metadata, metadata, "byte for byte");
        }
    }
}

/// A table of metadata with a field that this release does not know, and one that it does.
fn metadata_of_the_next_release() -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let content_type = builder.create_string("text/plain");
    let further = builder.create_string("what nobody knows yet");
    let table = builder.start_table();
    builder.push_slot_always(4, content_type);
    builder.push_slot_always(NEXT_METADATA_FIELD, further);
    let table = builder.end_table(table);
    builder.finish_minimal(table);
    let bytes = builder.finished_data().to_vec();
    let read = Metadata::decode(&bytes).expect("this release reads it");
    assert_eq!(read.content_type(), Some("text/plain"));
    bytes
}

/// What a node has counted.
fn metrics(node: &Daemon) -> serde_json::Value {
    let mut client = node.meet();
    client.subscribe(&[&node.statistics_topic()]);
    let document: serde_json::Value =
        serde_json::from_slice(&client.next_message().payload).expect("JSON");
    document["metrics"].clone()
}

/// Nobody was given up, and nobody said anything that another one did not understand.
fn nobody_complained(nodes: Vec<Daemon>) {
    for node in &nodes {
        let metrics = metrics(node);
        assert_eq!(metrics["protocol_errors"], 0, "{metrics}");
        assert_eq!(metrics["dropped_link"], 0, "{metrics}");
        let log = node.log();
        assert!(!log.contains(" left"), "{log}");
    }
    nodes.into_iter().for_each(Daemon::end_well);
}

/// Says Hello with a minor version; returns the one that both speak from then on, and the kinds of the
/// frames that come unasked.
fn greeted(address: &Address, minor: u8) -> (u8, Vec<u8>) {
    let mut socket = address.connect(None).expect("a daemon");
    let mut said = Vec::new();
    FrameEncoder::new().hello(&mut said, minor, Role::Client, "a test", "nexusd-netns");
    FrameEncoder::ping_or_pong(&mut said, FrameKind::Ping, 1);
    socket.write_all(&said).expect("the daemon reads");
    let (mut heard, mut kinds, mut agreed) = (Vec::new(), Vec::new(), None);
    eventually("it pongs", || {
        let mut bytes = [0; 4_096];
        let count = socket.read(&mut bytes).expect("the daemon answers");
        heard.extend_from_slice(&bytes[..count]);
        while let Some(stride) = Header::peek(&heard).map(Header::stride)
            && heard.len() >= stride
        {
            let frame: Vec<u8> = heard.drain(..stride).collect();
            match FrameKind(frame[4]) {
                FrameKind::Welcome => agreed = Some(agreed_in(&frame)),
                FrameKind::Pong => return true,
                kind => kinds.push(kind.0),
            }
        }
        false
    });
    (agreed.expect("Welcome comes first"), kinds)
}

fn agreed_in(welcome: &[u8]) -> u8 {
    let mut cutter = FrameCutter::new(u32::MAX, u32::MAX, usize::MAX);
    match cutter.next(&mut &welcome[..]) {
        Ok(Cut::Frame(frame)) => frame.body::<Welcome<'_>>().expect("a body").minor(),
        other => panic!("{other:?}"),
    }
}
