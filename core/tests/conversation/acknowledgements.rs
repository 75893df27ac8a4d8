//! Acknowledgements of messages that come together: they share runs, and each is told what it would have been
//! told alone.

use nexusd_core::limits::CONTROL_BYTES_MAX;
use nexusd_core::{Limits, owner_of};
use nexusd_wire::control::{OverflowPolicy, PublishAck, PublishAckEntry};
use nexusd_wire::{Cut, FrameCutter, FrameKind, MessageFlags};

use crate::desk::{Desk, SeatId};

const QUEUE_MESSAGES: u32 = 5;
const MESSAGES: usize = 16;
const PATTERNS: u32 = 60;

/// A message: its topic's number, and what it asks for.
type Wish = (u32, MessageFlags);

/// Different for each number: most messages want to be acknowledged, and most are of one topic.
fn pattern(number: u32) -> Vec<Wish> {
    let mut state = number;
    let mut below = |bound: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % bound
    };
    let wish = |_| {
        let topic = u32::from(below(6) == 0);
        let ack = if below(5) == 0 { MessageFlags::default() } else { MessageFlags::ACK };
        let retain = if below(9) == 0 { MessageFlags::RETAIN } else { MessageFlags::default() };
        (topic, MessageFlags(ack.0 | retain.0))
    };
    (0..MESSAGES).map(wish).collect()
}

/// The acknowledgements that a client was sent.
fn acks(desk: &mut Desk, id: SeatId) -> Vec<PublishAckEntry> {
    let bytes = desk.take(id);
    let mut input = bytes.as_slice();
    let mut cutter = FrameCutter::new(u32::MAX, CONTROL_BYTES_MAX, usize::MAX);
    let mut acks = Vec::new();
    while let Cut::Frame(frame) = cutter.next(&mut input).expect("the shard speaks the protocol") {
        if frame.kind() == FrameKind::PublishAck {
            let body = frame.body::<PublishAck<'_>>().expect("a body");
            acks.extend(body.entries().iter().copied());
        }
    }
    acks
}

/// Two topics that the shard owns, for the order of messages is that of their owner.
fn topics_of(owner: usize, shards: usize) -> [String; 2] {
    let mut names = (0..)
        .map(|number| format!("t/{number}"))
        .filter(|name| owner_of(name, shards, 7).index() == owner);
    [(); 2].map(|()| names.next().expect("every shard owns many"))
}

/// What a publisher on the first of so many shards is told, with a subscriber on each that takes nothing. Another
/// shard owns the topics, or the same.
fn told(
    wishes: &[Wish],
    (owner, shards): (usize, usize),
    policy: OverflowPolicy,
    are_together: bool,
) -> Vec<PublishAckEntry> {
    let mut desk = Desk::with_shards(Limits::default(), shards);
    let publisher = desk.greet();
    let topics = topics_of(owner, shards);
    for number in 0..shards {
        let subscriber = desk.greet();
        desk.subscribe_with(subscriber, &["#"], policy, QUEUE_MESSAGES + number as u32);
        desk.subscribe_with(subscriber, &[&topics[0]], OverflowPolicy::DropOldest, QUEUE_MESSAGES);
        desk.stall(subscriber);
    }
    topics.iter().zip(0..).for_each(|(topic, id)| desk.bind(publisher, id, topic));
    desk.take(publisher);
    let messages: Vec<Vec<u8>> = wishes
        .iter()
        .map(|&(topic, flags)| desk.message(publisher, topic, b"payload", flags))
        .collect();
    if are_together {
        desk.say(publisher, &messages.concat());
    } else {
        messages.iter().for_each(|message| desk.say(publisher, message));
    }
    acks(&mut desk, publisher)
}

#[test]
fn each_is_told_what_it_would_have_been_told_alone() {
    let policies = [OverflowPolicy::DropOldest, OverflowPolicy::DropNewest, OverflowPolicy::Block];
    let mut fates = std::collections::BTreeSet::new();
    for number in 0..PATTERNS {
        let wishes = pattern(number);
        let asked = wishes.iter().filter(|(_, flags)| flags.contains(MessageFlags::ACK)).count();
        for place in [(0, 1), (0, 2), (1, 2), (0, 3), (2, 3)] {
            for policy in policies {
                let together = told(&wishes, place, policy, true);
                assert_eq!(together.len(), asked);
                let alone = told(&wishes, place, policy, false);
                assert_eq!(together, alone, "{number}, {place:?}, {policy:?}: {wishes:?}");
                fates.extend(alone.iter().map(|entry| (entry.dropped() > 0, entry.blocked() > 0)));
            }
        }
    }
    assert_eq!(fates.len(), 3, "some were dropped, some blocked, some neither");
}

#[test]
fn messages_between_them_that_another_shard_owns_have_acknowledgements_of_their_own() {
    const SHARDS: usize = 3;
    let mut desk = Desk::with_shards(Limits::default(), SHARDS);
    let (publisher, subscriber) = (desk.greet(), desk.greet());
    desk.subscribe(subscriber, &["#"]);
    for owner in 0..SHARDS {
        desk.bind(publisher, owner as u32, &topics_of(owner, SHARDS)[0]);
    }
    desk.take(publisher);
    let topics = [0, 0, 1, 0, 0, 2, 2, 0, 1, 1, 0, 0, 0, 2];
    let mut numbers = [0; SHARDS];
    let (mut bytes, mut wanted) = (Vec::new(), Vec::new());
    for (topic, publisher_sequence) in topics.into_iter().zip(1..) {
        bytes.extend(desk.message(publisher, topic, b"payload", MessageFlags::ACK));
        numbers[topic as usize] += 1;
        wanted.push((publisher_sequence, numbers[topic as usize], 1));
    }
    desk.say(publisher, &bytes);
    let told = acks(&mut desk, publisher);
    let told: Vec<_> = told
        .iter()
        .map(|entry| (entry.publisher_sequence(), entry.sequence(), entry.delivered()))
        .collect();
    assert_eq!(told, wanted);
}
