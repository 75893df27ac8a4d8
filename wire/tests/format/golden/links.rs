//! The vectors of what nodes say to each other. They tell one story: the node with the smaller id dials
//! the other one, in a cluster without a key and in one with it.

use nexusd_wire::control::{DeliveryMode, Farewell, Role};
use nexusd_wire::{CHALLENGE_BYTES, ClusterKey, RETAINED_BUCKETS, SubscriptionId};

use super::interest_hash::interest_hash;
use super::vectors::{NODE, OTHER_NODE, START_US, TIMESTAMP_US, Vector};
use crate::sample::{IntroductionSample, MemberSample, Sample};

/// The secret of the cluster that has one.
pub(crate) const KEY: &str = "the plant's secret";
/// What the node that dials sends, and what the other one does.
const CHALLENGES: [[u8; CHALLENGE_BYTES]; 2] = [[0xA1; CHALLENGE_BYTES], [0xB2; CHALLENGE_BYTES]];
/// The stream that the node which is dialled sends.
const STREAM: SubscriptionId = SubscriptionId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
/// What it wants at first, in two parts, and what comes and goes.
const WANTED: [&str; 3] = ["plant/#", "$share/loggers/plant/#", "site/+/state"];
const ADDED: &str = "plant/pump/#";
const REMOVED: &str = "plant/#";

const DIALLER: &str = "node that dials";
/// A bucket of topics.
const RETAINED_BUCKET: usize = 164;
const DIALLED: &str = "node that is dialled";
const NODE_SENDER: &str = "node";

fn dialler() -> IntroductionSample {
    IntroductionSample {
        node: NODE,
        start_us: START_US,
        cluster: "default".into(),
        mesh_address: None,
        mesh_port: 5671,
        app_port: 5672,
        challenge: None,
        proof: None,
    }
}

fn dialled() -> IntroductionSample {
    IntroductionSample {
        node: OTHER_NODE,
        start_us: START_US + 60_000_000,
        mesh_address: Some("192.0.2.7".into()),
        ..dialler()
    }
}

fn hello(introduction: IntroductionSample) -> Sample {
    Sample::Hello {
        minor: 0,
        role: Role::Node,
        name: String::new(),
        software: "nexusd/0.1.0".into(),
        resume: None,
        introduction: Some(introduction),
    }
}

fn welcome(introduction: IntroductionSample) -> Sample {
    Sample::Welcome {
        minor: 0,
        node: OTHER_NODE,
        software: "nexusd/0.1.0".into(),
        cluster: String::new(),
        max_payload: 0,
        max_metadata: 0,
        introduction: Some(introduction),
    }
}

fn farewell(reason: &str, farewell: Farewell) -> Sample {
    Sample::Goodbye { reason: reason.into(), last_accepted: 0, farewell, is_complete: false }
}

fn state(part: u32, is_last: bool, filters: &[&str], members: Vec<MemberSample>) -> Sample {
    Sample::NodeState {
        hash: interest_hash(&WANTED),
        part,
        is_last,
        filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        members,
    }
}

/// The vectors between nodes.
pub(crate) fn link_vectors() -> Vec<Vector> {
    let key = ClusterKey::new(KEY.as_bytes());
    let mut all = Vec::new();
    let mut add = |file, sender, says, sample| {
        all.push(Vector { file, sender, says, sample });
    };
    add("hello_node.hex", DIALLER, "opens a link in a cluster without a key", hello(dialler()));
    add(
        "hello_node_challenge.hex",
        DIALLER,
        "opens a link in a cluster with a key",
        hello(IntroductionSample { challenge: Some(CHALLENGES[0].to_vec()), ..dialler() }),
    );
    add("welcome_node.hex", DIALLED, "answers hello_node.hex", welcome(dialled()));
    add(
        "welcome_node_proof.hex",
        DIALLED,
        "answers hello_node_challenge.hex: its challenge, signed, and one of its own",
        welcome(IntroductionSample {
            challenge: Some(CHALLENGES[1].to_vec()),
            proof: Some(key.answer(&CHALLENGES[0], OTHER_NODE, NODE).to_vec()),
            ..dialled()
        }),
    );
    add(
        "goodbye_ending.hex",
        NODE_SENDER,
        "ends the link because the node stops",
        farewell("the daemon is stopping", Farewell::Ending),
    );
    add(
        "goodbye_idle.hex",
        NODE_SENDER,
        "ends a link that neither node needs",
        farewell("nothing to say", Farewell::Idle),
    );
    add(
        "goodbye_superseded.hex",
        NODE_SENDER,
        "ends one of two connections between the nodes",
        farewell("another connection is the link", Farewell::Superseded),
    );
    add(
        "deliver_link.hex",
        NODE_SENDER,
        "opens a run of messages on a link, and says what time it is",
        Sample::Deliver {
            subscription: STREAM,
            mode: DeliveryMode::Live,
            delivery_count: 0,
            now_us: TIMESTAMP_US + 250,
        },
    );
    add(
        "node_state.hex",
        NODE_SENDER,
        "the first part of what a node wants",
        state(0, false, &WANTED[..2], Vec::new()),
    );
    let members = vec![
        MemberSample {
            node: NODE,
            start_us: START_US,
            mesh_address: "192.0.2.1:5671".into(),
            app_port: 5672,
        },
        MemberSample {
            node: OTHER_NODE,
            start_us: START_US + 60_000_000,
            mesh_address: "[2001:db8::7]:5671".into(),
            app_port: 5672,
        },
    ];
    add(
        "node_state_last.hex",
        NODE_SENDER,
        "the last part of it, and the nodes that the sender knows",
        state(1, true, &WANTED[2..], members),
    );
    add(
        "node_state_nothing.hex",
        NODE_SENDER,
        "a node wants nothing",
        Sample::NodeState {
            hash: interest_hash(&[]),
            part: 0,
            is_last: true,
            filters: Vec::new(),
            members: Vec::new(),
        },
    );
    let after: Vec<&str> =
        WANTED.into_iter().chain([ADDED]).filter(|filter| *filter != REMOVED).collect();
    add(
        "interest_delta.hex",
        NODE_SENDER,
        "a node wants something more and something no longer",
        Sample::InterestDelta {
            before: interest_hash(&WANTED),
            hash: interest_hash(&after),
            added: vec![ADDED.into()],
            removed: vec![REMOVED.into()],
        },
    );
    add(
        "link_ack_first.hex",
        NODE_SENDER,
        "opens the peer's stream: nothing of it has come yet",
        Sample::LinkAck { stream: None, received: 0, proof: None },
    );
    add(
        "link_ack_proof.hex",
        DIALLER,
        "answers welcome_node_proof.hex: its challenge, signed, and where its stream goes on",
        Sample::LinkAck {
            stream: Some(STREAM),
            received: 1_000,
            proof: Some(key.answer(&CHALLENGES[1], NODE, OTHER_NODE).to_vec()),
        },
    );
    add(
        "link_ack.hex",
        NODE_SENDER,
        "tells how many messages of the peer's stream have arrived",
        Sample::LinkAck { stream: Some(STREAM), received: 1_500, proof: None },
    );
    add(
        "node_state_request.hex",
        NODE_SENDER,
        "asks what the peer wants",
        Sample::NodeStateRequest,
    );
    let mut sums = vec![0; RETAINED_BUCKETS];
    sums[RETAINED_BUCKET] = 0x1234_5678;
    add(
        "retained_digest.hex",
        NODE_SENDER,
        "sums up the sender's retained values, which are all in one bucket",
        Sample::RetainedDigest { buckets: sums, is_answer: true },
    );
    let mut bits = vec![0; RETAINED_BUCKETS / 64];
    bits[RETAINED_BUCKET / 64] = 1 << (RETAINED_BUCKET % 64);
    add(
        "retained_fetch.hex",
        NODE_SENDER,
        "asks for the retained values of that bucket",
        Sample::RetainedFetch { buckets: bits },
    );
    add(
        "replay_request.hex",
        NODE_SENDER,
        "asks for what the peer accepted for a topic behind its message 41",
        Sample::ReplayRequest { request: 7, topic: "plant/temperature".into(), after: Some(41) },
    );
    add(
        "replay_request_all.hex",
        NODE_SENDER,
        "asks for all that the peer holds of what it accepted for a topic",
        Sample::ReplayRequest { request: 8, topic: "plant/temperature".into(), after: None },
    );
    add(
        "interest_request.hex",
        NODE_SENDER,
        "wants a filter from now on, and to know when the peer knows it",
        Sample::InterestRequest { request: 9, filters: vec!["plant/+/temperature".into()] },
    );
    add(
        "replay_answer.hex",
        NODE_SENDER,
        "what answers request 7 follows",
        Sample::ReplayAnswer { request: 7, is_end: false, is_partial: false },
    );
    add(
        "replay_answer_end.hex",
        NODE_SENDER,
        "that was all that is held, and there was more",
        Sample::ReplayAnswer { request: 7, is_end: true, is_partial: true },
    );
    all
}
