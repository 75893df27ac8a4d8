//! What a subscription sees.

use std::sync::mpsc;

use nexusd_client::{Delivery, Error, Event, GapReason, OverflowPolicy, SubscribeOptions};
use nexusd_wire::control::{self, DeliveryMode, ErrorCode};
use nexusd_wire::{
    ErrorReport, FrameEncoder, FrameKind, GapReport, Header, MetadataBuilder, NodeId, Sequence,
    SubscriptionId, SubscriptionReport, TopicId, WarningReport,
};
use tokio::io::AsyncWriteExt;

use crate::daemon::{NODE, ScriptedDaemon, message, next_event, next_message, soon};

#[tokio::test]
async fn a_message_is_delivered_with_all_it_carries() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let (subscription, filters) = tokio::join!(client.subscribe("plant/#"), link.confirm(9));
    let mut subscription = subscription.unwrap();
    assert_eq!(filters, ["plant/#"]);

    link.bind(5, "plant/boiler").await;
    link.deliver(9).await;
    let other = NodeId(77);
    link.send(|encoder, out| {
        encoder.node_bind(out, 3, other);
        let mut builder = MetadataBuilder::default();
        let headers: [(&str, &[u8]); 2] = [("unit", b"celsius"), ("unit", b"kelvin")];
        let metadata = builder.encode(Some("text/plain"), Some("c-1"), headers);
        let header = Header::new(FrameKind::Message, 0, 0)
            .with_topic(TopicId(5))
            .with_origin(3)
            .with_sequence(Sequence(8))
            .with_origin_sequence(Sequence(6))
            .with_timestamp_us(1_700_000_000_000_001)
            .with_ttl_ms(250);
        FrameEncoder::message(out, &header, metadata, b"71");
    })
    .await;
    link.message(5, 9, b"").await;

    let message = next_message(&mut subscription).await;
    assert_eq!(message.topic(), "plant/boiler");
    assert_eq!(message.payload(), b"71");
    assert_eq!(message.shared_payload(), "71");
    assert_eq!((message.sequence(), message.origin_sequence()), (8, 6));
    assert_eq!(message.origin(), other);
    assert_eq!(message.timestamp_us(), 1_700_000_000_000_001);
    assert_eq!(message.ttl().unwrap().as_millis(), 250);
    assert_eq!(message.content_type(), Some("text/plain"));
    assert_eq!(message.correlation_id(), Some("c-1"));
    assert_eq!(message.header_value("unit"), Some(b"celsius".as_slice()));
    assert_eq!(message.headers().count(), 2);

    let empty = next_message(&mut subscription).await;
    assert!(empty.payload().is_empty());
    assert_eq!(empty.origin(), NODE);
    assert_eq!((empty.content_type(), empty.headers().count()), (None, 0));
}

#[tokio::test]
async fn options_and_several_filters_are_asked_for() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let options = SubscribeOptions::new()
        .policy(OverflowPolicy::Block)
        .queue_messages(0)
        .queue_bytes(1 << 20)
        .retained(true)
        .counted(false);
    let script = async {
        let frame = link.expect(FrameKind::Subscribe).await;
        let request = frame.see(|frame| {
            let subscribe = frame.body::<control::Subscribe<'_>>().unwrap();
            let filters: Vec<_> = subscribe.filters().iter().collect();
            assert_eq!(filters, ["a/+", "b"]);
            assert_eq!(subscribe.policy(), Some(control::OverflowPolicy::Block));
            assert_eq!(subscribe.queue_messages(), Some(0));
            assert_eq!(subscribe.queue_bytes(), Some(1 << 20));
            assert!(subscribe.receive_retained());
            assert!(!subscribe.counted());
            assert!(subscribe.positions().is_none());
            subscribe.request()
        });
        let report = SubscriptionReport::fresh(request, SubscriptionId(1));
        link.send(|encoder, out| encoder.subscription_info(out, &report)).await;
    };
    let (subscription, ()) = tokio::join!(client.subscribe_with(["a/+", "b"], options), script);
    assert_eq!(subscription.unwrap().filters(), ["a/+", "b"]);
}

#[tokio::test]
async fn without_options_messages_are_counted_and_all_else_is_the_daemons_choice() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let script = async {
        let frame = link.expect(FrameKind::Subscribe).await;
        let request = frame.see(|frame| {
            let subscribe = frame.body::<control::Subscribe<'_>>().unwrap();
            assert!(subscribe.counted());
            assert!(!subscribe.receive_retained());
            assert_eq!(subscribe.policy(), None);
            assert_eq!((subscribe.queue_messages(), subscribe.queue_bytes()), (None, None));
            subscribe.request()
        });
        link.confirm_request(request, 1).await;
    };
    let (subscription, ()) = tokio::join!(client.subscribe("a"), script);
    subscription.unwrap();
}

#[tokio::test]
async fn every_policy_can_be_asked_for() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    for (policy, on_wire) in [
        (OverflowPolicy::DropOldest, control::OverflowPolicy::DropOldest),
        (OverflowPolicy::DropNewest, control::OverflowPolicy::DropNewest),
        (OverflowPolicy::Block, control::OverflowPolicy::Block),
        (OverflowPolicy::Disconnect, control::OverflowPolicy::Disconnect),
    ] {
        let options = SubscribeOptions::new().policy(policy);
        let script = async {
            let frame = link.expect(FrameKind::Subscribe).await;
            let request = frame.see(|frame| {
                let subscribe = frame.body::<control::Subscribe<'_>>().unwrap();
                assert_eq!(subscribe.policy(), Some(on_wire));
                subscribe.request()
            });
            link.confirm_request(request, 1).await;
        };
        let (subscription, ()) = tokio::join!(client.subscribe_with("a", options), script);
        drop(subscription.unwrap());
        link.unsubscribe().await;
    }
}

#[tokio::test]
async fn retained_values_are_told_apart_from_live_messages() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let options = SubscribeOptions::new().retained(true);
    let (subscription, _) = tokio::join!(client.subscribe_with("#", options), link.confirm(9));
    let mut subscription = subscription.unwrap();
    link.bind(1, "a").await;
    link.bind(2, "b").await;
    link.deliver_as(9, DeliveryMode::Retained).await;
    link.message(1, 3, b"a").await;
    link.deliver(9).await;
    link.message(1, 8, b"a").await;
    link.deliver_as(9, DeliveryMode::Retained).await;
    link.message(2, 2, b"b").await;
    for (topic, sequence, delivery) in
        [("a", 3, Delivery::Retained), ("a", 8, Delivery::Live), ("b", 2, Delivery::Retained)]
    {
        let message = next_message(&mut subscription).await;
        let found = (message.topic(), message.sequence(), message.delivery());
        assert_eq!(found, (topic, sequence, delivery));
    }
}

#[tokio::test]
async fn a_warning_is_told_to_the_callback_and_at_its_place() {
    let daemon = ScriptedDaemon::start().await;
    let (sender, warnings) = mpsc::channel();
    let builder = daemon.client().on_warning(move |filters, warning| {
        sender.send((filters.to_vec(), warning.clone())).unwrap();
    });
    let (client, mut link) = daemon.connected_by(builder).await;
    let (subscription, _) = tokio::join!(client.subscribe("t"), link.confirm(9));
    let mut subscription = subscription.unwrap();
    link.bind(5, "t").await;
    link.deliver(9).await;
    link.message(5, 1, b"before").await;
    link.send(|encoder, out| {
        encoder.backpressure_warning(
            out,
            &WarningReport {
                subscription: SubscriptionId(9),
                dropped: 12,
                depth: 90,
                limit: 100,
                reason: control::GapReason::Memory,
                expired: 3,
                oldest_age_ms: 1_500,
            },
        );
    })
    .await;
    link.message(5, 2, b"after").await;

    assert_eq!(next_message(&mut subscription).await.payload(), b"before");
    let Event::Warning(warning) = next_event(&mut subscription).await else {
        panic!("the warning stands between the messages");
    };
    assert_eq!((warning.dropped, warning.expired), (12, 3));
    assert_eq!((warning.depth, warning.limit), (90, 100));
    assert_eq!(warning.reason, GapReason::Memory);
    assert_eq!(warning.oldest_age.as_millis(), 1_500);
    assert_eq!(next_message(&mut subscription).await.payload(), b"after");
    assert_eq!(warnings.try_recv().unwrap(), (vec!["t".to_owned()], warning));
}

#[tokio::test]
async fn a_gap_stands_where_the_messages_would_have_been() {
    let daemon = ScriptedDaemon::start().await;
    let (sender, gaps) = mpsc::channel();
    let builder = daemon.client().on_gap(move |filters, gap| {
        sender.send((filters.to_vec(), gap.clone())).unwrap();
    });
    let (client, mut link) = daemon.connected_by(builder).await;
    let (subscription, _) = tokio::join!(client.subscribe("t"), link.confirm(9));
    let mut subscription = subscription.unwrap();
    link.bind(5, "t").await;
    link.deliver(9).await;
    link.message(5, 1, b"before").await;
    link.send(|encoder, out| {
        encoder.gap(
            out,
            &GapReport {
                subscription: SubscriptionId(9),
                reason: control::GapReason::SlowConsumer,
                missed: 13,
                entries: &[
                    (TopicId(5), Sequence(2), Sequence(4)),
                    (TopicId(6), Sequence(1), Sequence(3)),
                ],
                rest: 7,
            },
        );
    })
    .await;
    link.message(5, 5, b"after").await;

    assert_eq!(next_message(&mut subscription).await.payload(), b"before");
    let Event::Gap(gap) = next_event(&mut subscription).await else {
        panic!("the gap stands between the messages");
    };
    assert_eq!(gap.reason, GapReason::SlowConsumer);
    assert_eq!(gap.missed, Some(13));
    let ranges: Vec<_> =
        gap.ranges.iter().map(|range| (&*range.topic, range.first, range.last)).collect();
    assert_eq!(ranges, [("t", 2, 4)]);
    assert_eq!(gap.elsewhere, 10, "a topic without a name is counted there");
    assert_eq!(next_message(&mut subscription).await.payload(), b"after");
    assert_eq!(gaps.try_recv().unwrap(), (vec!["t".to_owned()], gap));
}

#[tokio::test]
async fn each_subscription_of_a_connection_gets_its_own_runs() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let (one, _) = tokio::join!(client.subscribe("a"), link.confirm(1));
    let (two, _) = tokio::join!(client.subscribe("#"), link.confirm(2));
    let (mut one, mut two) = (one.unwrap(), two.unwrap());
    link.bind(0, "a").await;
    link.bind(1, "b").await;
    link.deliver(2).await;
    link.message(0, 1, b"a1").await;
    link.message(1, 1, b"b1").await;
    link.deliver(1).await;
    link.message(0, 1, b"a1").await;
    link.send_bare(FrameKind::Heartbeat).await;
    link.message(0, 2, b"a2").await;
    link.deliver(2).await;
    link.message(0, 2, b"a2").await;

    for payload in ["a1", "a2"] {
        assert_eq!(next_message(&mut one).await.shared_payload(), payload);
    }
    for payload in ["a1", "b1", "a2"] {
        assert_eq!(next_message(&mut two).await.shared_payload(), payload);
    }
    assert!(one.try_next().is_none());
}

#[tokio::test]
async fn frames_arrive_whole_however_they_are_cut() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let (subscription, _) = tokio::join!(client.subscribe("t"), link.confirm(9));
    let mut subscription = subscription.unwrap();
    link.bind(5, "t").await;
    link.deliver(9).await;

    let payload_of = |bytes: usize| -> Vec<u8> { (0..bytes).map(|n| n as u8).collect() };
    let sizes = [3, 40_000, 1, 32_000, 1 << 20, 7, 131_072, 33_000, 0, 90_000];
    let mut stream = Vec::new();
    for (index, bytes) in sizes.iter().enumerate() {
        stream.extend(message(5, index as u64 + 1, &payload_of(*bytes)));
    }
    let script = async {
        // Odd pieces: byte by byte at first, so that headers are torn too.
        let (torn, rest) = stream.split_at(400);
        for byte in torn {
            link.write(&[*byte]).await;
        }
        for piece in rest.chunks(54_321) {
            link.write(piece).await;
            link.stream.flush().await.unwrap();
        }
    };
    let consumer = async {
        for (index, bytes) in sizes.iter().enumerate() {
            let message = next_message(&mut subscription).await;
            assert_eq!(message.sequence(), index as u64 + 1);
            assert!(message.payload() == payload_of(*bytes), "{bytes} bytes");
        }
    };
    tokio::join!(script, consumer);
}

#[tokio::test]
async fn a_refused_subscription_is_an_error() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let script = async {
        let frame = link.expect(FrameKind::Subscribe).await;
        let request = frame.see(|frame| {
            let subscribe = frame.body::<control::Subscribe<'_>>().unwrap();
            subscribe.request()
        });
        let report = ErrorReport {
            code: ErrorCode::LimitReached,
            message: "10000 subscriptions",
            fatal: false,
            request,
            offset: 0,
            kind: FrameKind::Subscribe.0,
        };
        link.send(|encoder, out| encoder.error(out, &report)).await;
    };
    let (subscription, ()) = tokio::join!(soon(client.subscribe("t")), script);
    assert!(matches!(subscription, Err(Error::LimitReached { .. })));
}

#[tokio::test]
async fn a_bad_filter_is_refused_without_asking_the_daemon() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    for filter in ["", "a/#/b", "a+", "a\u{7}"] {
        let refused = client.subscribe(filter).await;
        assert!(matches!(refused, Err(Error::InvalidTopic { .. })), "{filter}");
    }
    let none: [&str; 0] = [];
    assert!(client.subscribe(none).await.is_err());
    let many = vec!["a"; 4_097];
    assert!(matches!(client.subscribe(many).await, Err(Error::LimitReached { .. })));
    client.publish("t", "").await.unwrap();
    assert_eq!(link.lines(1).await, ["bind 0 t"]);
}

#[tokio::test]
async fn unsubscribing_waits_for_the_daemon() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let (subscription, _) = tokio::join!(client.subscribe("t"), link.confirm(9));
    let script = async {
        let frame = link.expect(FrameKind::Unsubscribe).await;
        let request = frame.see(|frame| {
            let unsubscribe = frame.body::<control::Unsubscribe<'_>>().unwrap();
            assert_eq!(SubscriptionId::from(unsubscribe.subscription()).0, 9);
            assert!(!unsubscribe.pause());
            unsubscribe.request()
        });
        link.send(|encoder, out| encoder.unsubscribe_result(out, request, None, 0)).await;
    };
    let (ended, ()) = tokio::join!(soon(subscription.unwrap().unsubscribe()), script);
    ended.unwrap();
}

#[tokio::test]
async fn dropping_a_subscription_ends_it_and_what_still_comes_is_passed_over() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let (one, _) = tokio::join!(client.subscribe("t"), link.confirm(1));
    let (two, _) = tokio::join!(client.subscribe("t"), link.confirm(2));
    let mut two = two.unwrap();
    drop(one);
    link.expect(FrameKind::Unsubscribe).await;
    link.bind(5, "t").await;
    link.deliver(1).await;
    link.message(5, 1, b"for nobody").await;
    link.deliver(2).await;
    link.message(5, 1, b"for two").await;
    assert_eq!(next_message(&mut two).await.payload(), b"for two");
}

#[tokio::test]
async fn a_subscription_given_up_before_its_confirmation_is_ended_with_it() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let mut asking = Box::pin(client.subscribe("t"));
    let waits =
        std::future::poll_fn(|cx| std::task::Poll::Ready(asking.as_mut().poll(cx).is_pending()));
    assert!(waits.await);
    let asked = link.asked().await;
    drop(asking);
    link.confirm_request(asked.request, 9).await;
    let frame = link.expect(FrameKind::Unsubscribe).await;
    frame.see(|frame| {
        let unsubscribe = frame.body::<control::Unsubscribe<'_>>().unwrap();
        assert_eq!(SubscriptionId::from(unsubscribe.subscription()).0, 9);
    });
}

#[tokio::test]
async fn a_subscription_is_a_stream() {
    fn is_stream(_: &mut (impl futures_core::Stream<Item = Event> + Unpin + Send)) {}

    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let (subscription, _) = tokio::join!(client.subscribe("t"), link.confirm(9));
    is_stream(&mut subscription.unwrap());
}
