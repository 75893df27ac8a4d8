//! Connections to a shard, under any bytes, any timing and any behaviour of sockets.
//!
//! The bytes are a list of steps: what clients say, how much of it arrives, how much the
//! sockets take, what time it is. `surroundings.rs` plays the driver by its contract,
//! `audience.rs` listens to what the shard sends and knows when it makes no sense.

mod audience;
mod surroundings;

use nexusd_core::inspection::{Request, Subject};
use nexusd_core::{Command, ConnectionId, Limits, Shard, ShardConfig};
use nexusd_wire::control::{OverflowPolicy, Role};
use nexusd_wire::{
    FrameEncoder, FrameKind, Header, MessageFlags, NodeId, Sequence, SubscribeRequest,
    SubscriptionId, TopicId,
};
use surroundings::Surroundings;

use crate::input::Input;

/// Connections at a time; the shard is given one less, so that one can be refused.
const SEATS: usize = 4;
/// Filters that a subscription is made of.
const FILTERS: [&str; 8] = ["#", "a", "a/+", "+/b", "a/#", "$SYS/#", "a/b/c", "bad#"];
/// Topics that a client binds.
const NAMES: [&str; 8] = ["a", "a/b", "a/b/c", "b", "$SYS/x", "c/d", "", "e"];
/// Payloads of each class of length: inline, and longer than what is received in place.
const PAYLOAD_BYTES: [usize; 6] = [0, 1, 40, 700, 66_000, 140_000];

/// Drives a shard through the steps that the bytes describe; in the end everybody leaves and
/// nothing may be left behind.
pub fn session(data: &[u8]) {
    let config = ShardConfig {
        mesh: nexusd_core::MeshConfig::default(),
        node: NodeId(1),
        cluster: "fuzz".to_owned(),
        software: "fuzz".to_owned(),
        seed: 7,
        limits: Limits {
            memory_bytes: 2 << 20,
            payload_bytes: 128 << 10,
            connections: SEATS - 1,
            topics: 6,
            queue_messages: 6,
            queue_bytes: 300 << 10,
            policy: OverflowPolicy::DropOldest,
            block_timeout_us: 1_000_000,
            ..Limits::default()
        },
    };
    let mut world = Surroundings::new(Shard::new(config), SEATS, Shard::assert_invariants);
    let mut input = Input(data);
    while !input.is_empty() {
        step(&mut world, &mut input);
    }
    world.leave();
    let left = world.into_service().metrics();
    assert_eq!(left.connections, 0);
    assert_eq!(left.subscriptions, left.parked, "only who waits for its client is left");
    assert!(left.parked > 0 || left.queued_messages + left.queued_bytes == 0);
}

fn step(world: &mut Surroundings<Shard>, input: &mut Input<'_>) {
    let choice = input.byte();
    let seat = usize::from(choice >> 4) % SEATS;
    match choice & 0x0F {
        0 => world.open(seat),
        1 => {
            let wanted = usize::from(input.byte());
            world.say(seat, input.take(wanted));
        }
        2 => world.deliver(seat, usize::from(input.short()) + 1),
        3 => world.deliver(seat, usize::MAX),
        4 => world.pass(u64::from(input.short()) * 1_000),
        5 => world.set_room(seat, usize::from(input.short())),
        6 => world.set_room(seat, usize::MAX),
        7 => world.complete_send(seat),
        8 => world.set_delayed(seat, input.byte() & 1 == 1),
        9 => world.close(seat),
        10 => world.command(command(input.byte())),
        11 => world.say(seat, &greeting()),
        12 => say_subscribe(world, seat, input),
        13 => say_topic(world, seat, input),
        14 => say_message(world, seat, input),
        _ => say_other(world, seat, input),
    }
}

fn command(choice: u8) -> Command {
    match choice % 8 {
        0 => Command::Drain { deadline_us: u64::from(choice) * 1_000_000 },
        1 => Command::Sample,
        2 => Command::Inspect { number: 1, request: Box::new(request(choice / 8)) },
        _ => Command::Publish {
            topic: NAMES[usize::from(choice) % NAMES.len()].into(),
            payload: vec![b's'; usize::from(choice)].into(),
        },
    }
}

/// What others of the daemon ask a shard.
fn request(choice: u8) -> Request {
    let client = ConnectionId { index: u32::from(choice) % SEATS as u32, generation: 0 };
    let filter = (choice & 16 != 0).then(|| FILTERS[usize::from(choice) % FILTERS.len()].into());
    let subject = match choice % 10 {
        0 => return Request::Close(client),
        1 => return Request::Rename { client, name: "renamed".into() },
        9 => return Request::TakeOn(Box::new(other_limits(choice))),
        2 => Subject::Topics(filter),
        3 => Subject::Wanted(NAMES.iter().map(|name| Box::from(*name)).collect()),
        4 => Subject::Retained(filter),
        5 => Subject::Filters,
        6 => Subject::Subscriptions,
        7 => Subject::Clients((choice & 16 != 0).then_some(client)),
        _ => Subject::Links { filters: 7 },
    };
    Request::List { subject, cursor: u64::from(choice / 9), entries: usize::from(choice) }
}

/// Limits that hold from some time on.
fn other_limits(choice: u8) -> Limits {
    Limits {
        topics: usize::from(choice) % 5,
        queue_messages: u64::from(choice) % 7,
        policy: if choice & 16 == 0 { OverflowPolicy::Block } else { OverflowPolicy::DropNewest },
        block_timeout_us: u64::from(choice) * 10_000,
        default_ttl_ms: u32::from(choice) / 4,
        publish_rate_per_source: u32::from(choice) % 3,
        connections_per_source: usize::from(choice) % 4,
        ..Limits::default()
    }
}

fn greeting() -> Vec<u8> {
    let mut bytes = Vec::new();
    FrameEncoder::new().hello(&mut bytes, 0, Role::Client, "fuzz", "fuzz");
    bytes
}

fn say_subscribe(world: &mut Surroundings<Shard>, seat: usize, input: &mut Input<'_>) {
    let (choice, options) = (input.byte(), input.byte());
    let first = usize::from(choice) % FILTERS.len();
    let count = usize::from(choice >> 6) + 1;
    let filters: Vec<&str> = (first..first + count).map(|at| FILTERS[at % FILTERS.len()]).collect();
    let policy = [None, Some(OverflowPolicy::Block), Some(OverflowPolicy::DropOldest)];
    let mut bytes = Vec::new();
    FrameEncoder::new().subscribe(
        &mut bytes,
        &SubscribeRequest {
            request: u64::from(choice) + 1,
            filters: &filters,
            policy: policy[usize::from(options) % policy.len()],
            queue_messages: (options & 0x10 != 0).then(|| u32::from(options >> 5)),
            queue_bytes: (options & 0x08 != 0).then(|| u64::from(options) << 10),
            ..SubscribeRequest::default()
        },
    );
    world.say(seat, &bytes);
}

fn say_topic(world: &mut Surroundings<Shard>, seat: usize, input: &mut Input<'_>) {
    let choice = input.byte();
    let topic = TopicId(u32::from(choice >> 5));
    let mut bytes = Vec::new();
    if choice & 0x18 == 0x18 {
        FrameEncoder::topic_unbind(&mut bytes, topic);
    } else {
        let name = NAMES[usize::from(choice) % NAMES.len()];
        FrameEncoder::new().topic_bind(&mut bytes, topic, name);
    }
    world.say(seat, &bytes);
}

fn say_message(world: &mut Surroundings<Shard>, seat: usize, input: &mut Input<'_>) {
    let (choice, times) = (input.byte(), input.byte());
    let payload = vec![b'm'; PAYLOAD_BYTES[usize::from(choice) % PAYLOAD_BYTES.len()]];
    let flags = match choice >> 6 {
        0 | 1 => MessageFlags::default(),
        2 => MessageFlags::ACK,
        _ => MessageFlags::ACK.with(MessageFlags::KEYED),
    };
    for _ in 0..=times % 16 {
        let sequence = world.next_sequence(seat);
        let header = Header::new(FrameKind::Message, 0, 0)
            .with_topic(TopicId(u32::from(times >> 5)))
            .with_sequence(Sequence(sequence))
            .with_flags(flags);
        let mut bytes = Vec::new();
        FrameEncoder::message(&mut bytes, &header, &[], &payload);
        world.say(seat, &bytes);
    }
}

fn say_other(world: &mut Surroundings<Shard>, seat: usize, input: &mut Input<'_>) {
    let choice = input.byte();
    let mut bytes = Vec::new();
    match choice % 8 {
        0 => FrameEncoder::new().goodbye(&mut bytes, "done", 0),
        1 => FrameEncoder::ping_or_pong(&mut bytes, FrameKind::Ping, u64::from(choice)),
        2 => FrameEncoder::ping_or_pong(&mut bytes, FrameKind::Pong, u64::from(choice)),
        3 => FrameEncoder::new().unsubscribe(&mut bytes, 9, SubscriptionId(9), false),
        4 | 5 => {
            if let Some(subscription) = world.subscription(seat, usize::from(choice >> 3)) {
                FrameEncoder::new().unsubscribe(&mut bytes, 8, subscription, false);
            }
        }
        // Any header that is a frame by itself: kinds that the daemon refuses or ignores.
        _ => {
            let kinds = FrameKind::ENUM_VALUES;
            let kind = kinds[usize::from(choice >> 3) % kinds.len()];
            FrameEncoder::bare(&mut bytes, &Header::new(kind, 0, 0));
        }
    }
    world.say(seat, &bytes);
}
