//! How subscriptions go on after a broken connection.

use std::sync::mpsc;

use nexusd_client::{
    Client, Delivery, Event, GapMode, GapReason, Position, SubscribeOptions, Subscription,
};
use nexusd_wire::control::{self, DeliveryMode, ErrorCode};
use nexusd_wire::{FrameKind, GapReport, Sequence, SubscriptionId, SubscriptionReport, TopicId};

use crate::daemon::{
    Link, NODE, OTHER_NODE, ScriptedDaemon, THIRD_NODE, message, next_event, next_message,
    next_payloads, soon,
};

/// A client with one subscription of id 9, which has had message 4 of topic `a` and 7 of `b`.
async fn subscribed(
    daemon: &ScriptedDaemon,
    filters: &[&str],
    options: SubscribeOptions,
) -> (Client, Subscription, Link) {
    let (client, mut link) = daemon.connected().await;
    let (subscription, _) = tokio::join!(client.subscribe_with(filters, options), link.confirm(9));
    let mut subscription = subscription.unwrap();
    link.bind(1, "a").await;
    link.bind(2, "b").await;
    link.deliver(9).await;
    link.message(1, 4, b"a4").await;
    link.message(2, 7, b"b7").await;
    assert_eq!(next_payloads(&mut subscription, 2).await, ["a4", "b7"]);
    (client, subscription, link)
}

/// What `subscribed` knows, as positions.
fn positions() -> Vec<(String, u64, nexusd_wire::NodeId)> {
    vec![("a".to_owned(), 4, NODE), ("b".to_owned(), 7, NODE)]
}

#[tokio::test]
async fn what_was_cut_by_the_break_does_not_count_and_comes_again() {
    for payload_bytes in [100, 100_000] {
        let daemon = ScriptedDaemon::start().await;
        let (_client, mut subscription, mut link) =
            subscribed(&daemon, &["a", "b"], SubscribeOptions::new()).await;
        let cut = message(1, 5, &vec![0; payload_bytes]);
        link.message(2, 8, b"b8").await;
        link.write(&cut[..cut.len() / 2]).await;
        link.end().await;

        let (mut link, named) = daemon.welcome_as(NODE).await;
        assert_eq!(named, Some(9));
        assert_eq!(link.confirm_resume(9).await, 3);
        link.bind(1, "a").await;
        link.deliver_as(9, DeliveryMode::Replay).await;
        link.write(&cut).await;
        link.send(|encoder, out| {
            encoder.replay_complete(out, TopicId(1), SubscriptionId(9), 1, Sequence(5));
        })
        .await;
        link.deliver(9).await;
        link.message(1, 6, b"a6").await;

        let b8 = next_message(&mut subscription).await;
        assert_eq!((b8.payload(), b8.delivery()), (b"b8".as_slice(), Delivery::Live));
        let a5 = next_message(&mut subscription).await;
        assert_eq!((a5.sequence(), a5.delivery()), (5, Delivery::Replay));
        assert_eq!(a5.payload().len(), payload_bytes);
        let Event::ReplayComplete(complete) = next_event(&mut subscription).await else {
            panic!("the end of the replay is told");
        };
        assert_eq!(&*complete.topic, "a");
        assert_eq!((complete.replayed, complete.latest_sequence), (1, 5));
        let a6 = next_message(&mut subscription).await;
        assert_eq!((a6.payload(), a6.delivery()), (b"a6".as_slice(), Delivery::Live));
        // The count goes on.
        link.end().await;
        let mut link = daemon.welcome().await;
        assert_eq!(link.confirm_resume(9).await, 5);
    }
}

/// Subscribes behind positions; what the daemon was asked, and what comes first.
async fn begins_behind(
    filters: &[&str],
    positions: &[(&str, u64, nexusd_wire::NodeId)],
) -> (Vec<(String, u64, nexusd_wire::NodeId)>, Event) {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let position = |&(topic, sequence, origin): &(&str, u64, nexusd_wire::NodeId)| Position {
        topic: topic.into(),
        sequence,
        origin,
    };
    let options = SubscribeOptions::new().behind(positions.iter().map(position));
    let script = async {
        let asked = link.asked().await;
        link.confirm_request(asked.request, 9).await;
        asked.positions
    };
    let (subscription, told) = tokio::join!(client.subscribe_with(filters, options), script);
    let mut subscription = subscription.unwrap();
    assert_eq!((subscription.id(), subscription.node()), (SubscriptionId(9), NODE));
    link.bind(1, "a").await;
    link.deliver_as(9, DeliveryMode::Replay).await;
    link.message(1, 5, b"a5").await;
    (told, next_event(&mut subscription).await)
}

#[tokio::test]
async fn a_subscription_begins_behind_what_an_application_has_written_down() {
    let (told, first) = begins_behind(&["a", "b"], &[("a", 4, NODE), ("b", 7, NODE)]).await;
    assert_eq!(told, positions());
    let Event::Message(message) = first else { panic!("{first:?}") };
    assert_eq!((message.payload(), message.delivery()), (b"a5".as_slice(), Delivery::Replay));
    // Of what came from several nodes all is told, also to the daemon that numbers them.
    let (told, first) = begins_behind(&["a"], &[("a", 4, NODE), ("a", 9, OTHER_NODE)]).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(matches!(first, Event::Message(_)), "{first:?}");
}

#[tokio::test]
async fn what_positions_of_an_application_do_not_cover_is_told_as_a_gap() {
    let many: Vec<String> = (0..1_025).map(|topic| format!("t/{topic}")).collect();
    let many: Vec<_> = many.iter().map(|topic| (topic.as_str(), 1, NODE)).collect();
    for (filters, positions) in [
        (&["a"], &[("a", 4, OTHER_NODE)][..]),
        (&["#"], &[("a", 4, NODE)][..]),
        (&["c"], &[("a", 4, NODE)][..]),
        (&["t/0"], &many[..]),
    ] {
        let (_, first) = begins_behind(filters, positions).await;
        let is_told = matches!(&first, Event::Gap(gap) if gap.reason == GapReason::Reconnected);
        assert!(is_told, "{filters:?}: {first:?}");
    }
}

#[tokio::test]
async fn what_the_application_has_not_taken_yet_counts_and_is_not_lost() {
    let daemon = ScriptedDaemon::start().await;
    let (_client, mut subscription, mut link) =
        subscribed(&daemon, &["a"], SubscribeOptions::new()).await;
    link.message(1, 5, b"a5").await;
    link.end().await;
    let mut link = daemon.welcome().await;
    assert_eq!(link.confirm_resume(9).await, 3);
    link.bind(1, "a").await;
    link.deliver(9).await;
    link.message(1, 6, b"a6").await;
    assert_eq!(next_payloads(&mut subscription, 2).await, ["a5", "a6"]);
}

#[tokio::test]
async fn a_subscription_not_found_is_asked_for_anew_with_its_positions() {
    let daemon = ScriptedDaemon::start().await;
    let (_client, mut subscription, mut link) =
        subscribed(&daemon, &["a", "b"], SubscribeOptions::new()).await;
    link.deliver_as(9, DeliveryMode::Retained).await;
    link.message(1, 2, b"a2").await;
    link.end().await;
    let mut link = daemon.welcome().await;
    link.refuse_resume(9, ErrorCode::NotFound).await;
    let asked = link.asked().await;
    assert_eq!(asked.filters, ["a", "b"]);
    assert_eq!(asked.positions, positions());
    assert!(asked.counted);
    link.confirm_request(asked.request, 10).await;
    link.bind(1, "a").await;
    link.deliver_as(10, DeliveryMode::Replay).await;
    link.message(1, 5, b"a5").await;
    // All it can have missed is behind its positions: there is no gap.
    assert_eq!(next_payloads(&mut subscription, 2).await, ["a2", "a5"]);
    // The new subscription counts from the start.
    link.end().await;
    let mut link = daemon.welcome().await;
    assert_eq!(link.confirm_resume(10).await, 1);
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_new_subscription_stands_changes_nothing() {
    let daemon = ScriptedDaemon::start().await;
    let (_client, _subscription, link) =
        subscribed(&daemon, &["a", "b"], SubscribeOptions::new()).await;
    link.end().await;
    for _ in 0..2 {
        let (mut link, named) = daemon.welcome_as(NODE).await;
        assert_eq!(named, Some(9));
        link.refuse_resume(9, ErrorCode::NotFound).await;
        assert_eq!(link.asked().await.positions, positions());
        link.end().await;
    }
}

#[tokio::test]
async fn another_daemon_is_asked_anew_at_once_and_the_doubt_is_told() {
    let daemon = ScriptedDaemon::start().await;
    let (_client, mut subscription, link) =
        subscribed(&daemon, &["a", "b"], SubscribeOptions::new()).await;
    link.end().await;
    let (mut link, named) = daemon.welcome_as(OTHER_NODE).await;
    assert_eq!(named, Some(9));
    let asked = link.asked().await;
    assert_eq!(asked.positions, positions());
    link.confirm_request(asked.request, 10).await;
    link.bind(1, "a").await;
    link.deliver_as(10, DeliveryMode::Replay).await;
    link.message(1, 1, b"a1").await;
    let Event::Gap(gap) = next_event(&mut subscription).await else {
        panic!("what the other daemon had queued is lost");
    };
    assert_eq!((gap.reason, gap.missed), (GapReason::Reconnected, None));
    assert_eq!(next_payloads(&mut subscription, 1).await, ["a1"]);
    link.end().await;

    // Numbers belong to the daemon that gave them.
    let mut link = daemon.welcome_as(OTHER_NODE).await.0;
    link.refuse_resume(10, ErrorCode::NotFound).await;
    let positions = link.asked().await.positions;
    assert_eq!(positions, [("a".to_owned(), 1, OTHER_NODE), ("b".to_owned(), 7, NODE)]);
}

#[tokio::test]
async fn behind_a_complete_goodbye_there_is_no_doubt() {
    let daemon = ScriptedDaemon::start().await;
    let (_client, mut subscription, mut link) =
        subscribed(&daemon, &["a", "b"], SubscribeOptions::new()).await;
    link.send(|encoder, out| encoder.goodbye(out, "draining", 0)).await;
    link.message(1, 5, b"a5").await;
    link.send(|encoder, out| encoder.complete_goodbye(out, "draining", 0)).await;
    link.end().await;
    let mut link = daemon.welcome_as(OTHER_NODE).await.0;
    let asked = link.asked().await;
    assert_eq!(asked.ended, [NODE]);
    let (a, b) = (("a".to_owned(), 5, NODE), ("b".to_owned(), 7, NODE));
    assert_eq!(asked.positions, [a, b.clone()]);
    link.confirm_request(asked.request, 10).await;
    link.bind(1, "a").await;
    link.deliver_as(10, DeliveryMode::Replay).await;
    link.message(1, 1, b"new a1").await;
    assert_eq!(next_payloads(&mut subscription, 2).await, ["a5", "new a1"]);

    // The next one breaks: of the first nothing follows all the same.
    link.end().await;
    let mut link = daemon.welcome_as(THIRD_NODE).await.0;
    let asked = link.asked().await;
    assert_eq!(asked.positions, [("a".to_owned(), 1, OTHER_NODE), ("a".to_owned(), 5, NODE), b]);
    assert_eq!(asked.ended, [NODE]);
    link.confirm_request(asked.request, 11).await;
    assert!(matches!(next_event(&mut subscription).await, Event::Gap(_)));
}

#[tokio::test]
async fn the_doubt_stays_where_not_all_was_sent() {
    for is_confirmed in [true, false] {
        let daemon = ScriptedDaemon::start().await;
        let (_client, mut subscription, mut link) =
            subscribed(&daemon, &["a", "b"], SubscribeOptions::new()).await;
        if is_confirmed {
            link.send(|encoder, out| encoder.goodbye(out, "draining", 0)).await;
            link.end().await;
        } else {
            // It goes on nowhere before the next one ends, whatever that accepted.
            link.send(|encoder, out| encoder.complete_goodbye(out, "draining", 0)).await;
            link.end().await;
            let mut link = daemon.welcome_as(THIRD_NODE).await.0;
            link.asked().await;
            link.send(|encoder, out| encoder.complete_goodbye(out, "draining", 0)).await;
            link.end().await;
        }
        let mut link = daemon.welcome_as(OTHER_NODE).await.0;
        let asked = link.asked().await;
        assert_eq!(asked.positions, positions());
        assert_eq!(asked.ended, if is_confirmed { vec![] } else { vec![NODE] });
        link.confirm_request(asked.request, 10).await;
        assert!(matches!(next_event(&mut subscription).await, Event::Gap(_)));
    }
}

#[tokio::test]
async fn a_gap_of_unknown_size_is_told_where_positions_cannot_cover_what_was_missed() {
    for filters in [["a", "+"], ["b", "#"], ["a", "c"]] {
        let daemon = ScriptedDaemon::start().await;
        let (sender, gaps) = mpsc::channel();
        let builder = daemon.client().on_gap(move |filters, gap| {
            sender.send((filters.to_vec(), gap.missed)).unwrap();
        });
        let (client, mut link) = daemon.connected_by(builder).await;
        let (subscription, _) = tokio::join!(client.subscribe(filters), link.confirm(9));
        let mut subscription = subscription.unwrap();
        link.bind(1, "a").await;
        link.deliver(9).await;
        link.message(1, 4, b"a4").await;
        link.end().await;
        let mut link = daemon.welcome().await;
        link.refuse_resume(9, ErrorCode::NotFound).await;
        link.confirm(10).await;
        assert_eq!(next_payloads(&mut subscription, 1).await, ["a4"]);
        assert!(matches!(next_event(&mut subscription).await, Event::Gap(_)), "{filters:?}");
        assert_eq!(gaps.try_recv().unwrap(), (filters.map(str::to_owned).to_vec(), None));
    }
}

#[tokio::test]
async fn a_gap_of_unknown_size_that_the_daemon_tells_is_not_told_twice() {
    let daemon = ScriptedDaemon::start().await;
    let (_client, mut subscription, link) =
        subscribed(&daemon, &["#"], SubscribeOptions::new()).await;
    link.end().await;
    let mut link = daemon.welcome_as(OTHER_NODE).await.0;
    let asked = link.asked().await;
    let report = SubscriptionReport {
        gap_detected: true,
        missed_count: -1,
        replay_started: true,
        ..SubscriptionReport::fresh(asked.request, SubscriptionId(10))
    };
    link.send(|encoder, out| {
        encoder.subscription_info(out, &report);
        encoder.topic_bind(out, TopicId(1), "a");
        encoder.gap(
            out,
            &GapReport {
                subscription: SubscriptionId(10),
                reason: control::GapReason::ReplayWindow,
                missed: u64::MAX,
                entries: &[],
                rest: 0,
            },
        );
    })
    .await;
    link.deliver_as(10, DeliveryMode::Replay).await;
    link.message(1, 1, b"a1").await;
    let Event::Gap(gap) = next_event(&mut subscription).await else {
        panic!("the daemon's gap comes first");
    };
    assert_eq!((gap.reason, gap.missed), (GapReason::ReplayWindow, None));
    assert_eq!(next_payloads(&mut subscription, 1).await, ["a1"]);
}

#[tokio::test]
async fn as_many_topics_as_positions_are_covered_and_one_more_is_not() {
    for topics in [1_024_u32, 1_025] {
        let daemon = ScriptedDaemon::start().await;
        let names: Vec<String> = (0..topics).map(|n| format!("plant/{n}")).collect();
        let (client, mut link) = daemon.connected().await;
        let (subscription, _) = tokio::join!(client.subscribe(&names), link.confirm(9));
        let mut subscription = subscription.unwrap();
        link.deliver(9).await;
        for (id, name) in (0..).zip(&names) {
            link.bind(id, name).await;
            link.message(id, 3, name.as_bytes()).await;
        }
        assert_eq!(next_payloads(&mut subscription, names.len()).await, names);
        link.end().await;
        let mut link = daemon.welcome().await;
        link.refuse_resume(9, ErrorCode::NotFound).await;
        let asked = link.asked().await;
        assert_eq!(asked.positions.len(), 1_024);
        assert!(asked.positions.iter().any(|(topic, ..)| Some(topic) == names.last()));
        link.confirm_request(asked.request, 10).await;
        link.bind(0, "plant/0").await;
        link.deliver(10).await;
        link.message(0, 4, b"live").await;
        let is_gap = matches!(next_event(&mut subscription).await, Event::Gap(_));
        assert_eq!(is_gap, topics > 1_024);
    }
}

#[tokio::test]
async fn a_loss_that_was_told_is_not_asked_for_again() {
    let daemon = ScriptedDaemon::start().await;
    let (_client, mut subscription, mut link) =
        subscribed(&daemon, &["a", "b"], SubscribeOptions::new()).await;
    link.send(|encoder, out| {
        encoder.gap(
            out,
            &GapReport {
                subscription: SubscriptionId(9),
                reason: control::GapReason::SlowConsumer,
                missed: 3,
                entries: &[(TopicId(1), Sequence(5), Sequence(7))],
                rest: 0,
            },
        );
    })
    .await;
    assert!(matches!(next_event(&mut subscription).await, Event::Gap(_)));
    link.end().await;
    let mut link = daemon.welcome().await;
    link.refuse_resume(9, ErrorCode::NotFound).await;
    assert_eq!(link.asked().await.positions[0], ("a".to_owned(), 7, NODE));
}

#[tokio::test]
async fn a_resume_refused_for_another_reason_is_followed_by_a_subscribe_and_a_gap() {
    let daemon = ScriptedDaemon::start().await;
    let (_client, mut subscription, link) =
        subscribed(&daemon, &["a", "b"], SubscribeOptions::new()).await;
    link.end().await;
    let mut link = daemon.welcome().await;
    link.refuse_resume(9, ErrorCode::Rejected).await;
    let asked = link.asked().await;
    assert_eq!(asked.positions, positions());
    link.confirm_request(asked.request, 10).await;
    assert!(matches!(next_event(&mut subscription).await, Event::Gap(_)));
}

#[tokio::test]
async fn the_gap_mode_decides_what_is_asked_for() {
    for (gap_mode, on_wire, retained) in [
        (GapMode::None, control::GapMode::None, false),
        (GapMode::RetainedOnly, control::GapMode::RetainedOnly, true),
    ] {
        let daemon = ScriptedDaemon::start().await;
        let options = SubscribeOptions::new().gap_mode(gap_mode);
        let (_client, mut subscription, link) = subscribed(&daemon, &["a", "b"], options).await;
        link.end().await;
        let mut link = daemon.welcome().await;
        let resume = link.expect(FrameKind::Resume).await;
        let request = resume.see(|frame| {
            let resume = frame.body::<control::Resume<'_>>().unwrap();
            assert_eq!(resume.gap_mode(), on_wire);
            resume.request()
        });
        link.refuse(request, ErrorCode::NotFound, FrameKind::Resume).await;
        let asked = link.asked().await;
        assert!(asked.positions.is_empty());
        assert_eq!(asked.receive_retained, retained);
        link.confirm_request(asked.request, 10).await;
        assert!(matches!(next_event(&mut subscription).await, Event::Gap(_)));
    }
}

#[tokio::test]
async fn a_subscription_dropped_without_a_connection_is_ended_by_the_next_one() {
    let daemon = ScriptedDaemon::start().await;
    let (client, subscription, link) =
        subscribed(&daemon, &["a", "b"], SubscribeOptions::new()).await;
    link.end().await;
    let mut link = daemon.accept().await;
    drop(subscription);
    assert_eq!(link.welcome_as(NODE).await, Some(9));
    let (_, id, is_pause) = link.unsubscribe().await;
    assert_eq!((id, is_pause), (9, false));
    soon(client.publish("t", "1")).await.unwrap();
    assert_eq!(link.lines(2).await, ["bind 0 t", "message 0 #1 1"]);
}

#[tokio::test]
async fn an_end_that_the_daemon_did_not_confirm_is_told_again() {
    let daemon = ScriptedDaemon::start().await;
    let (_client, subscription, mut link) =
        subscribed(&daemon, &["a", "b"], SubscribeOptions::new()).await;
    drop(subscription);
    link.unsubscribe().await;
    link.end().await;
    let (mut link, named) = daemon.welcome_as(NODE).await;
    assert_eq!(named, Some(9));
    assert_eq!(link.unsubscribe().await.1, 9);
}

#[tokio::test]
async fn many_subscriptions_are_asked_for_whatever_it_takes_to_tell_their_positions() {
    const SUBSCRIPTIONS: u128 = 40;
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let names: Vec<String> = (0..1_024).map(|n| format!("plant/{n}/{}", "x".repeat(200))).collect();
    for (id, name) in (0..).zip(&names) {
        link.bind(id, name).await;
    }
    let mut subscriptions = Vec::new();
    for id in 1..=SUBSCRIPTIONS {
        let (subscription, _) = tokio::join!(client.subscribe("plant/#"), link.confirm(id));
        let mut subscription = subscription.unwrap();
        link.deliver(id).await;
        let messages: Vec<u8> =
            (0..).zip(&names).flat_map(|(topic, _)| message(topic, 1, b"x")).collect();
        link.write(&messages).await;
        next_payloads(&mut subscription, names.len()).await;
        subscriptions.push(subscription);
    }
    link.end().await;
    let mut link = daemon.welcome_as(OTHER_NODE).await.0;
    client.publish("t", "1").await.unwrap();
    for id in 1..=SUBSCRIPTIONS {
        let asked = link.asked().await;
        // As many as a control frame holds.
        assert!((800..1_024).contains(&asked.positions.len()), "{}", asked.positions.len());
        link.confirm_request(asked.request, 100 + id).await;
    }
    assert_eq!(link.lines(2).await, ["bind 0 t", "message 0 #1 1"]);
    for subscription in &mut subscriptions {
        assert!(matches!(next_event(subscription).await, Event::Gap(_)));
    }
}
