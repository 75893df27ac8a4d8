//! What is published, as it is on the wire, and what becomes of the answers.

use std::sync::mpsc;
use std::time::Duration;

use nexusd_client::{Error, Publication};
use nexusd_wire::control::{ErrorCode, PublishAckEntry, PublishStatus};
use nexusd_wire::{
    FrameEncoder, FrameKind, Header, MessageFlags, MetadataBuilder, Sequence, TopicId,
};

use crate::daemon::{Link, ScriptedDaemon, soon};

async fn send_acks(link: &mut Link, entries: &[PublishAckEntry]) {
    link.send(|encoder, out| encoder.publish_ack(out, entries)).await;
}

fn accepted(publisher_sequence: u64, sequence: u64, delivered: u32) -> PublishAckEntry {
    PublishAckEntry::new(publisher_sequence, sequence, delivered, 0, 0, PublishStatus::Accepted)
}

fn refused(publisher_sequence: u64, status: PublishStatus) -> PublishAckEntry {
    PublishAckEntry::new(publisher_sequence, 0, 0, 0, 0, status)
}

#[tokio::test]
async fn a_message_is_a_bind_and_a_frame_byte_for_byte() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let publication = Publication::new("plant/boiler", "71")
        .content_type("text/plain")
        .correlation_id("c-1")
        .header("unit", "celsius")
        .header("raw", &[0, 255])
        .ttl(Duration::from_millis(1_500));
    client.send(&publication).await.unwrap();
    client.publish("plant/boiler", "72").await.unwrap();

    let mut expected = Vec::new();
    FrameEncoder::new().topic_bind(&mut expected, TopicId(0), "plant/boiler");
    assert_eq!(link.expect(FrameKind::TopicBind).await.0, expected);

    let headers: [(&str, &[u8]); 2] = [("unit", b"celsius"), ("raw", &[0, 255])];
    let mut builder = MetadataBuilder::default();
    let metadata = builder.encode(Some("text/plain"), Some("c-1"), headers);
    let header =
        Header::new(FrameKind::Message, 0, 0).with_sequence(Sequence(1)).with_ttl_ms(1_500);
    expected.clear();
    FrameEncoder::message(&mut expected, &header, metadata, b"71");
    assert_eq!(link.expect(FrameKind::Message).await.0, expected);

    assert_eq!(link.lines(1).await, ["message 0 #2 72"]);
}

#[tokio::test]
async fn a_value_is_retained_with_a_time_to_live_and_cleared_by_nothing() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let value = Publication::new("plant/state", "on").retain(true).ttl(Duration::from_secs(60));
    client.send(&value).await.unwrap();
    client.send(&Publication::new("plant/state", "off").retain(false)).await.unwrap();
    let script = async {
        link.expect(FrameKind::TopicBind).await;
        let retained = link.expect(FrameKind::Message).await;
        assert_eq!(retained.header().flags(), MessageFlags::RETAIN);
        assert_eq!(retained.header().ttl_ms(), 60_000);
        let passing = link.expect(FrameKind::Message).await;
        assert_eq!(passing.header().flags(), MessageFlags::default());
        let cleared = link.expect(FrameKind::Message).await;
        assert_eq!(cleared.header().flags(), MessageFlags::RETAIN.with(MessageFlags::ACK));
        assert!(cleared.payload().is_empty());
        send_acks(&mut link, &[accepted(3, 9, 1)]).await;
    };
    let (cleared, ()) = tokio::join!(soon(client.clear_retained("plant/state")), script);
    assert_eq!(cleared.unwrap().sequence, 9);
}

#[tokio::test]
async fn an_acknowledgement_reaches_the_publish_it_answers() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let script = async {
        link.expect(FrameKind::TopicBind).await;
        for _ in 0..3 {
            let message = link.expect(FrameKind::Message).await;
            assert!(message.header().flags().contains(MessageFlags::ACK));
        }
        send_acks(&mut link, &[accepted(2, 102, 7)]).await;
        let others = [refused(1, PublishStatus::TooLarge), accepted(3, 103, 0)];
        send_acks(&mut link, &others).await;
    };
    let (one, two, three, ()) = tokio::join!(
        client.publish_acked("t", "1"),
        client.publish_acked("t", "2"),
        client.publish_acked("t", "3"),
        script
    );
    assert!(matches!(one, Err(Error::TooLarge { .. })));
    let two = two.unwrap();
    assert_eq!((two.sequence, two.delivered, two.dropped), (102, 7, 0));
    assert_eq!(three.unwrap().sequence, 103);
}

#[tokio::test]
async fn a_publish_to_a_topic_that_was_refused_fails_for_what_the_daemon_said() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let refuse = async |link: &mut Link| {
        link.expect(FrameKind::TopicBind).await;
        link.expect(FrameKind::Message).await;
        link.refuse(0, ErrorCode::LimitReached, FrameKind::TopicBind).await;
        send_acks(link, &[refused(1, PublishStatus::Rejected)]).await;
        link.expect(FrameKind::Message).await;
        send_acks(link, &[refused(2, PublishStatus::Rejected)]).await;
    };
    let publish_twice = async {
        for _ in 0..2 {
            let error = client.publish_acked("t", "1").await.unwrap_err();
            let Error::LimitReached { reason } = &error else { panic!("{error}") };
            assert_eq!(reason, "refused by the script");
        }
    };
    tokio::join!(publish_twice, refuse(&mut link));
}

#[tokio::test]
async fn the_results_of_a_batch_stand_in_its_order() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let batch = [
        Publication::new("t", "1"),
        Publication::new("not/+/a/topic", "2"),
        Publication::new("t", "3"),
        Publication::new("t", "4"),
    ];
    let script = async {
        let lines = link.lines(4).await;
        assert_eq!(lines, ["bind 0 t", "message 0 #1 1", "message 0 #2 3", "message 0 #3 4"]);
        let acks =
            [accepted(1, 11, 1), refused(2, PublishStatus::LimitReached), accepted(3, 12, 1)];
        send_acks(&mut link, &acks).await;
    };
    let (results, ()) = tokio::join!(soon(client.send_batch_acked(&batch)), script);
    assert_eq!(results[0].as_ref().unwrap().sequence, 11);
    assert!(matches!(results[1], Err(Error::InvalidTopic { .. })));
    assert!(matches!(results[2], Err(Error::LimitReached { .. })));
    assert_eq!(results[3].as_ref().unwrap().sequence, 12);
    assert!(soon(client.send_batch_acked(&[])).await.is_empty());
}

#[tokio::test]
async fn a_batch_larger_than_the_outbox_goes_through_it() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected_by(daemon.client().outbox(10, 1 << 20)).await;
    let payloads: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    let batch: Vec<_> = payloads.iter().map(|it| Publication::new("t", it)).collect();
    let script = async {
        link.expect(FrameKind::TopicBind).await;
        for payload in &payloads {
            let message = link.expect(FrameKind::Message).await;
            assert_eq!(message.payload(), payload.as_bytes());
        }
    };
    let (sent, ()) = tokio::join!(soon(client.send_batch(&batch)), script);
    sent.unwrap();
}

#[tokio::test]
async fn a_publisher_finds_its_topic_after_another_has_taken_its_id() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let publisher = client.publisher("mine").unwrap();
    publisher.publish("1").await.unwrap();
    publisher.try_publish("2").unwrap();
    client.publish("mine", "3").await.unwrap();
    assert_eq!(
        link.lines(4).await,
        ["bind 0 mine", "message 0 #1 1", "message 0 #2 2", "message 0 #3 3"]
    );
    assert!(matches!(client.publisher("a/#"), Err(Error::InvalidTopic { .. })));

    // More topics than have ids at a time.
    let others: Vec<String> = (0..16_384).map(|n| format!("other/{n}")).collect();
    let reader = async {
        let mut last = None;
        for _ in 0..2 * others.len() {
            last = link.next().await;
        }
        assert_eq!(last.unwrap().header().topic(), TopicId(0));
        assert_eq!(link.lines(2).await, ["bind 1 mine", "message 1 #16388 4"]);
    };
    let writer = async {
        for topic in &others {
            client.publish(topic, "").await.unwrap();
        }
        publisher.publish("4").await.unwrap();
    };
    soon(async { tokio::join!(reader, writer) }).await;
}

#[tokio::test]
async fn a_publisher_waits_while_the_daemon_holds_it_back() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected_by(daemon.client().outbox(3, 1 << 20)).await;
    link.send_bare(FrameKind::PublishPause).await;
    // The Pong shows that the client has read the pause.
    link.send_bare(FrameKind::Ping).await;
    link.expect(FrameKind::Pong).await;

    for payload in ["1", "2", "3"] {
        soon(client.publish("t", payload)).await.unwrap();
    }
    assert!(matches!(client.try_publish("t", "4"), Err(Error::OutboxFull)));
    let mut waiting = Box::pin(client.publish("t", "4"));
    let waits =
        std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending()));
    assert!(waits.await);

    // Control frames pass, messages do not.
    link.send_bare(FrameKind::Ping).await;
    link.expect(FrameKind::Pong).await;
    link.send_bare(FrameKind::PublishResume).await;
    soon(waiting).await.unwrap();
    assert_eq!(
        link.lines(5).await,
        ["bind 0 t", "message 0 #1 1", "message 0 #2 2", "message 0 #3 3", "message 0 #4 4"]
    );
}

#[tokio::test]
async fn messages_wait_for_the_first_connection_up_to_the_bound() {
    let daemon = ScriptedDaemon::start().await;
    let builder = daemon.client().outbox(2, 1 << 20);
    let client = builder.connect_in_background().unwrap();
    client.publish("a", "1").await.unwrap();
    client.publish("b", "2").await.unwrap();
    assert!(matches!(soon(client.publish("a", "3")).await, Err(Error::OutboxFull)));
    let mut link = daemon.welcome().await;
    assert_eq!(link.lines(4).await, ["bind 0 a", "message 0 #1 1", "bind 1 b", "message 1 #2 2"]);
}

#[tokio::test]
async fn a_refusal_nobody_waits_for_is_told_to_the_callback() {
    let daemon = ScriptedDaemon::start().await;
    let (sender, errors) = mpsc::channel();
    let builder = daemon.client().on_error(move |error| {
        sender.send(error.clone()).unwrap();
    });
    let (client, mut link) = daemon.connected_by(builder).await;
    client.publish("t", "1").await.unwrap();
    link.lines(2).await;
    link.send_error(ErrorCode::LimitReached, "topics", false).await;
    link.send_bare(FrameKind::Ping).await;
    link.expect(FrameKind::Pong).await;
    assert!(matches!(errors.try_recv(), Ok(Error::LimitReached { .. })));
}

#[tokio::test]
async fn a_flush_waits_until_the_daemon_has_read_what_was_published() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    client.publish("t", "1").await.unwrap();
    let script = async {
        link.lines(2).await;
        let ping = link.expect(FrameKind::Ping).await;
        let token = ping.header().sequence().0;
        link.send(|_, out| FrameEncoder::ping_or_pong(out, FrameKind::Pong, token)).await;
    };
    let (flushed, ()) = tokio::join!(soon(client.flush()), script);
    flushed.unwrap();
}

#[tokio::test]
async fn an_unanswered_publish_times_out() {
    let daemon = ScriptedDaemon::start().await;
    let builder = daemon.client().request_timeout(Duration::from_millis(50));
    let (client, _link) = daemon.connected_by(builder).await;
    assert!(matches!(soon(client.publish_acked("t", "1")).await, Err(Error::Timeout { .. })));
    let batch = [Publication::new("t", "2")];
    assert!(matches!(
        soon(client.send_batch_acked(&batch)).await.as_slice(),
        [Err(Error::Timeout { .. })]
    ));
}
