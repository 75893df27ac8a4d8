//! The outbox alone: bounds, and what happens to messages when connections come and go.

use nexusd_wire::control;
use tokio::sync::oneshot;

use super::*;

fn outbox(messages: usize, bytes: usize) -> Outbox {
    Outbox::new(OutboxLimits { bytes, messages })
}

fn connected(messages: usize, bytes: usize) -> Outbox {
    let mut outbox = outbox(messages, bytes);
    outbox.on_connected(4 << 20, 16 << 10, &mut Vec::new());
    outbox
}

fn offer(outbox: &mut Outbox, topic: &str, payload: &[u8]) -> Result<(TopicId, bool), Refusal> {
    outbox.offer(&Publication::new(topic, payload), None, &mut None)
}

fn offer_acked(outbox: &mut Outbox, topic: &str) -> oneshot::Receiver<AckResult> {
    let (sender, receiver) = oneshot::channel();
    let mut waiter = Some(Waiter::Ack(sender));
    outbox.offer(&Publication::new(topic, "x"), None, &mut waiter).unwrap();
    receiver
}

/// Kind and topic name or sequence of all frames.
fn contents(bytes: &[u8]) -> Vec<String> {
    let mut cutter = nexusd_wire::FrameCutter::new(u32::MAX, u32::MAX, usize::MAX);
    let mut input = bytes;
    let mut found = Vec::new();
    while let Ok(nexusd_wire::Cut::Frame(frame)) = cutter.next(&mut input) {
        let id = frame.header().topic().0;
        found.push(match frame.kind() {
            FrameKind::TopicBind => {
                let bind = frame.body::<control::TopicBind<'_>>().unwrap();
                format!("bind {id} {}", bind.name())
            }
            kind => format!("{kind:?} {id} #{}", frame.header().sequence().0),
        });
    }
    assert!(input.is_empty());
    found
}

#[test]
fn a_topic_is_bound_once_and_messages_are_numbered() {
    let mut outbox = connected(10, 1 << 20);
    assert!(matches!(offer(&mut outbox, "a", b"1"), Ok((TopicId(0), true))));
    assert!(matches!(offer(&mut outbox, "a", b"2"), Ok((TopicId(0), false))));
    assert!(matches!(offer(&mut outbox, "b", b"3"), Ok((TopicId(1), false))));
    let mut batch = Vec::new();
    assert!(outbox.take(&mut batch));
    assert_eq!(
        contents(&batch),
        ["bind 0 a", "Message 0 #1", "Message 0 #2", "bind 1 b", "Message 1 #3"]
    );
    assert!(!outbox.take(&mut batch));
}

#[test]
fn a_full_outbox_waits_while_connected_and_refuses_while_not() {
    let mut outbox = connected(2, 1 << 20);
    for _ in 0..2 {
        offer(&mut outbox, "a", b"x").unwrap();
    }
    assert!(matches!(offer(&mut outbox, "a", b"x"), Err(Refusal::Wait)));
    outbox.on_disconnected(&[], None);
    assert!(matches!(offer(&mut outbox, "a", b"x"), Err(Refusal::Error(Error::OutboxFull))));
}

#[test]
fn what_the_connection_holds_counts_until_it_is_settled() {
    let mut outbox = connected(2, 1 << 20);
    offer(&mut outbox, "a", b"x").unwrap();
    offer(&mut outbox, "a", b"x").unwrap();
    let mut batch = Vec::new();
    outbox.take(&mut batch);
    assert!(matches!(offer(&mut outbox, "a", b"x"), Err(Refusal::Wait)));
    assert!(outbox.settle(batch.len(), 2), "all is settled: there is room");
    offer(&mut outbox, "a", b"x").unwrap();
}

#[test]
fn bytes_bound_an_outbox_but_one_large_message_passes_alone() {
    let mut outbox = connected(1_000, 1_000);
    offer(&mut outbox, "a", &[0; 5_000]).unwrap();
    assert!(matches!(offer(&mut outbox, "a", b"x"), Err(Refusal::Wait)));
}

#[test]
fn messages_of_a_broken_connection_are_unknown_if_sent_and_sent_again_if_not() {
    let mut outbox = connected(10, 1 << 20);
    let mut sent = offer_acked(&mut outbox, "a");
    let mut unsent = offer_acked(&mut outbox, "a");
    let mut batch = Vec::new();
    outbox.take(&mut batch);
    let second = batch.len() - 56;
    outbox.settle(second, 1);
    let mut queued = offer_acked(&mut outbox, "b");

    outbox.on_disconnected(&batch[second..], None);
    assert!(matches!(sent.try_recv(), Ok(Err(Error::OutcomeUnknown))));
    assert!(unsent.try_recv().is_err());
    assert!(queued.try_recv().is_err());
    assert_eq!(outbox.messages(), 2);

    let mut prelude = Vec::new();
    outbox.on_connected(4 << 20, 16 << 10, &mut prelude);
    assert_eq!(contents(&prelude), ["bind 0 a"]);
    outbox.take(&mut batch);
    assert_eq!(contents(&batch), ["Message 0 #2", "bind 1 b", "Message 1 #3"]);
}

#[test]
fn a_goodbye_tells_which_messages_were_surely_not_accepted() {
    let mut outbox = connected(10, 1 << 20);
    let mut accepted = offer_acked(&mut outbox, "a");
    let mut refused = offer_acked(&mut outbox, "a");
    let mut batch = Vec::new();
    outbox.take(&mut batch);
    outbox.settle(batch.len(), 2);
    outbox.on_disconnected(&[], Some(1));
    assert!(matches!(accepted.try_recv(), Ok(Err(Error::OutcomeUnknown))));
    assert!(matches!(refused.try_recv(), Ok(Err(Error::Draining))));
}

#[test]
fn a_queued_message_beyond_the_limit_of_the_next_daemon_is_taken_out() {
    let mut outbox = outbox(10, 1 << 20);
    offer(&mut outbox, "a", &[0; 200]).unwrap();
    offer(&mut outbox, "a", b"x").unwrap();
    let (sender, mut too_large) = oneshot::channel();
    outbox.offer(&Publication::new("b", &[0; 101]), None, &mut Some(Waiter::Ack(sender))).unwrap();
    let refused = outbox.on_connected(100, 16 << 10, &mut Vec::new());
    assert!(matches!(refused.as_slice(), [Error::TooLarge { .. }]));
    assert!(matches!(too_large.try_recv(), Ok(Err(Error::TooLarge { .. }))));
    let mut batch = Vec::new();
    outbox.take(&mut batch);
    assert_eq!(contents(&batch), ["bind 0 a", "Message 0 #2", "bind 1 b"]);
    outbox.settle(batch.len(), 1);
    assert_eq!((outbox.messages(), outbox.unsent_from()), (0, outbox.position));
}

#[test]
fn what_may_not_be_published_is_refused_and_takes_no_number() {
    let mut outbox = connected(10, 1 << 20);
    for (topic, payload_bytes) in [("", 1), ("a/+", 1), ("a\0", 1), ("$SYS/x", 1), ("a", 5 << 20)] {
        let refused = offer(&mut outbox, topic, &vec![0; payload_bytes]);
        let Err(Refusal::Error(error)) = refused else { panic!("{topic} was taken") };
        match topic {
            "$SYS/x" => assert!(matches!(error, Error::Rejected { .. }), "{error}"),
            "a" => assert!(matches!(error, Error::TooLarge { .. }), "{error}"),
            _ => assert!(matches!(error, Error::InvalidTopic { .. }), "{error}"),
        }
    }
    let value = vec![0; 17 << 10];
    let publication = Publication::new("a", "").header("k", &value);
    assert!(matches!(
        outbox.offer(&publication, None, &mut None),
        Err(Refusal::Error(Error::TooLarge { .. }))
    ));
    offer(&mut outbox, "a", b"x").unwrap();
    let mut batch = Vec::new();
    outbox.take(&mut batch);
    assert_eq!(contents(&batch), ["bind 0 a", "Message 0 #1"]);
}

#[test]
fn a_closed_outbox_takes_nothing_and_an_abandoned_one_answers_everybody() {
    let mut outbox = connected(10, 1 << 20);
    let mut waiting = offer_acked(&mut outbox, "a");
    outbox.close(Error::Closed);
    assert!(matches!(offer(&mut outbox, "a", b"x"), Err(Refusal::Error(Error::Closed))));
    assert!(waiting.try_recv().is_err());
    outbox.abandon(&Error::Closed);
    assert!(matches!(waiting.try_recv(), Ok(Err(Error::Closed))));
}
