//! What a broken connection does, and what it does not.

use std::sync::mpsc;
use std::time::Duration;

use nexusd_client::{ConnectionState, Error};
use nexusd_wire::control::ErrorCode;
use nexusd_wire::{FrameKind, Header, TopicId};

use crate::daemon::{NODE, OTHER_NODE, ScriptedDaemon, message, next_message, next_payloads, soon};

/// The states a client goes through, as words.
fn words(states: &mpsc::Receiver<ConnectionState>) -> Vec<String> {
    let word = |state: ConnectionState| match state {
        ConnectionState::Connected(_) => "connected".to_owned(),
        ConnectionState::Disconnected { cause: None } => "closed".to_owned(),
        ConnectionState::Disconnected { cause: Some(cause) } => format!("disconnected: {cause}"),
        ConnectionState::Reconnecting { attempt, .. } => format!("reconnecting {attempt}"),
        ConnectionState::Failed { cause } => format!("failed: {cause}"),
        _ => "new".to_owned(),
    };
    states.try_iter().map(word).collect()
}

#[tokio::test]
async fn a_new_connection_binds_again_and_resumes_all_subscriptions_without_a_gap() {
    let daemon = ScriptedDaemon::start().await;
    let (sender, states) = mpsc::channel();
    let builder = daemon.client().on_state(move |state| {
        sender.send(state.clone()).unwrap();
    });
    let (client, mut link) = daemon.connected_by(builder).await;
    let (one, _) = tokio::join!(client.subscribe("a/#"), link.confirm(1));
    let (_two, _) = tokio::join!(client.subscribe(["b", "c"]), link.confirm(2));
    let mut one = one.unwrap();
    client.publish("x", "1").await.unwrap();
    client.publish("y", "2").await.unwrap();
    link.lines(4).await;
    link.bind(0, "a/b").await;
    link.deliver(1).await;
    link.message(0, 1, b"first").await;
    assert_eq!(next_message(&mut one).await.payload(), b"first");
    drop(link);

    let (mut link, named) = daemon.welcome_as(NODE).await;
    assert_eq!(named, Some(1));
    assert_eq!(link.lines(2).await, ["bind 0 x", "bind 1 y"]);
    assert_eq!(link.confirm_resume(1).await, 1);
    assert_eq!(link.confirm_resume(2).await, 0);
    client.publish("y", "3").await.unwrap();
    assert_eq!(link.lines(1).await, ["message 1 #3 3"]);
    // The old topic ids are void.
    link.bind(0, "a/c").await;
    link.deliver(1).await;
    link.message(0, 8, b"second").await;

    let second = next_message(&mut one).await;
    assert_eq!((second.topic(), second.payload()), ("a/c", b"second".as_slice()));
    let words = words(&states);
    assert_eq!(words[0], "connected");
    assert!(words[1].starts_with("disconnected: not connected to 127.0.0.1"));
    assert_eq!(words[2..], ["reconnecting 1", "connected"]);
}

#[tokio::test]
async fn an_acknowledgement_that_cannot_come_any_more_is_unknown() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let script = async {
        link.lines(2).await;
        drop(link);
    };
    let (sent, ()) = tokio::join!(soon(client.publish_acked("t", "1")), script);
    assert!(matches!(sent, Err(Error::OutcomeUnknown)));
}

#[tokio::test]
async fn what_was_held_back_is_sent_by_the_next_connection() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    link.send_bare(FrameKind::PublishPause).await;
    link.send_bare(FrameKind::Ping).await;
    link.expect(FrameKind::Pong).await;
    client.publish("t", "1").await.unwrap();
    let script = async {
        drop(link);
        let mut link = daemon.welcome().await;
        assert_eq!(link.lines(3).await, ["bind 0 t", "message 0 #1 1", "message 0 #2 2"]);
        link.send(|encoder, out| {
            let ack = nexusd_wire::control::PublishAckEntry::new(
                2,
                50,
                0,
                0,
                0,
                nexusd_wire::control::PublishStatus::Accepted,
            );
            encoder.publish_ack(out, &[ack]);
        })
        .await;
    };
    let (acked, ()) = tokio::join!(soon(client.publish_acked("t", "2")), script);
    assert_eq!(acked.unwrap().sequence, 50);
}

#[tokio::test]
async fn a_goodbye_is_followed_by_what_the_daemon_still_delivers_and_a_new_connection() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let (subscription, _) = tokio::join!(client.subscribe("t"), link.confirm(9));
    let mut subscription = subscription.unwrap();
    let script = async {
        link.lines(2).await;
        link.send(|encoder, out| encoder.goodbye(out, "draining", 0)).await;
        link.bind(5, "t").await;
        link.deliver(9).await;
        link.message(5, 1, b"flushed").await;
        drop(link);
        daemon.welcome_as(OTHER_NODE).await.0
    };
    let (acked, mut link) = tokio::join!(soon(client.publish_acked("t", "1")), script);
    assert!(matches!(acked, Err(Error::Draining)));
    link.lines(1).await;
    assert_eq!(link.lines(1).await, ["subscribe t"]);
    assert_eq!(next_payloads(&mut subscription, 1).await, ["flushed"]);
}

/// What a daemon may not send, and a word of the error it causes.
fn faults() -> Vec<(Vec<u8>, &'static str)> {
    let mut unknown_kind = message(0, 1, b"x");
    unknown_kind[4] = 200;
    let mut too_short = message(0, 1, b"x");
    too_short[0] = 8;
    let mut bad_body = Vec::new();
    nexusd_wire::FrameEncoder::new().topic_bind(&mut bad_body, TopicId(0), "a");
    bad_body[48..64].fill(0xFF);
    let mut hello = Vec::new();
    nexusd_wire::FrameEncoder::bare(&mut hello, &Header::new(FrameKind::Subscribe, 0, 0));
    vec![
        (unknown_kind, "unknown frame kind 200"),
        (too_short, "shorter than"),
        (bad_body, "does not verify"),
        (message(0, 1, b"x"), "belongs to no subscription"),
        (hello, "sent a Subscribe frame"),
    ]
}

#[tokio::test]
async fn a_daemon_that_breaks_the_protocol_is_left_and_tried_again() {
    let daemon = ScriptedDaemon::start().await;
    let (sender, states) = mpsc::channel();
    let builder = daemon.client().on_state(move |state| {
        // The test may have ended before the client.
        let _ = sender.send(state.clone());
    });
    let (client, mut link) = daemon.connected_by(builder).await;
    for (bytes, word) in faults() {
        words(&states);
        link.write(&bytes).await;
        link = daemon.welcome().await;
        let words = words(&states);
        let told = words.iter().find(|it| it.starts_with("disconnected: protocol fault"));
        assert!(told.is_some_and(|told| told.contains(word)), "{words:?} should tell `{word}`");
    }
    client.publish("t", "still here").await.unwrap();
    assert_eq!(link.lines(2).await, ["bind 0 t", "message 0 #1 still here"]);
}

#[tokio::test]
async fn a_fatal_error_is_the_cause_of_the_reconnection() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let mut changes = client.state_changes();
    changes.borrow_and_update();
    link.send_error(ErrorCode::LimitReached, "too much", true).await;
    let told = soon(changes.wait_for(|state| {
        matches!(
            state,
            ConnectionState::Disconnected { cause: Some(Error::LimitReached { .. }) }
                | ConnectionState::Reconnecting { cause: Error::LimitReached { .. }, .. }
        )
    }));
    told.await.unwrap();
    let _link = daemon.welcome().await;
    soon(changes.wait_for(ConnectionState::is_connected)).await.unwrap();
}

#[tokio::test]
async fn a_client_of_a_daemon_that_became_too_new_fails_for_good() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let (subscription, _) = tokio::join!(client.subscribe("t"), link.confirm(9));
    let mut subscription = subscription.unwrap();
    drop(link);
    let mut link = daemon.accept().await;
    link.expect(FrameKind::Hello).await;
    link.send_error(ErrorCode::VersionMismatch, "speaks 2.0", true).await;
    assert!(soon(subscription.next()).await.is_none());
    assert!(matches!(subscription.end_reason(), Some(Error::VersionMismatch { .. })));
    let mut changes = client.state_changes();
    let failed = changes.wait_for(|state| matches!(state, ConnectionState::Failed { .. }));
    soon(failed).await.unwrap();
    assert!(matches!(client.publish("t", "1").await, Err(Error::VersionMismatch { .. })));
    assert!(matches!(client.subscribe("t").await, Err(Error::VersionMismatch { .. })));
    assert!(client.close().await.is_err());
}

#[tokio::test]
async fn a_daemon_that_falls_silent_is_pinged_and_then_left() {
    let daemon = ScriptedDaemon::start().await;
    let builder = daemon.client().ping(Duration::from_millis(40), Duration::from_secs(1));
    let (client, mut link) = daemon.connected_by(builder).await;
    let token = link.expect(FrameKind::Ping).await.header().sequence().0;
    link.send(|_, out| {
        nexusd_wire::FrameEncoder::ping_or_pong(out, FrameKind::Pong, token);
    })
    .await;
    // The answered ping is followed by another, the unanswered one by the end.
    link.expect(FrameKind::Ping).await;
    assert!(link.next().await.is_none(), "the client closes the connection");
    let _link = daemon.welcome().await;
    assert!(!matches!(client.state(), ConnectionState::Failed { .. }));
}

#[tokio::test]
async fn pings_of_the_daemon_are_answered() {
    let daemon = ScriptedDaemon::start().await;
    let (_client, mut link) = daemon.connected().await;
    link.send(|_, out| nexusd_wire::FrameEncoder::ping_or_pong(out, FrameKind::Ping, 42)).await;
    let pong = link.expect(FrameKind::Pong).await;
    assert_eq!(pong.header().sequence().0, 42);
}

#[tokio::test]
async fn a_callback_that_panics_ends_nothing() {
    let daemon = ScriptedDaemon::start().await;
    let builder = daemon.client().on_state(|_| panic!("this panic is part of the test"));
    let (client, mut link) = daemon.connected_by(builder).await;
    client.publish("t", "1").await.unwrap();
    assert_eq!(link.lines(2).await, ["bind 0 t", "message 0 #1 1"]);
}
