//! Subscriptions that are parked and taken up again, here or elsewhere.

use std::time::Duration;

use nexusd_client::{Client, Error, Event, Paused, SubscribeOptions, Subscription};
use nexusd_wire::control::{DeliveryMode, ErrorCode};

use crate::daemon::{Link, NODE, OTHER_NODE, ScriptedDaemon, message, next_payloads, soon};

const TTL_MS: u64 = 300_000;

/// A client with one subscription of id 9 to topic `t`, which the daemon calls 5.
async fn subscribed(
    daemon: &ScriptedDaemon,
    options: SubscribeOptions,
) -> (Client, Subscription, Link) {
    let (client, mut link) = daemon.connected().await;
    let (subscription, _) = tokio::join!(client.subscribe_with("t", options), link.confirm(9));
    link.bind(5, "t").await;
    link.deliver(9).await;
    (client, subscription.unwrap(), link)
}

/// A subscription that was paused after messages 1 and 2, the first of which was taken.
async fn paused(daemon: &ScriptedDaemon) -> (Client, Paused, Link) {
    let (client, mut subscription, mut link) = subscribed(daemon, SubscribeOptions::new()).await;
    link.message(5, 1, b"1").await;
    assert_eq!(next_payloads(&mut subscription, 1).await, ["1"]);
    let script = async {
        let (request, _, _) = link.unsubscribe().await;
        // What was on its way still belongs to it.
        link.message(5, 2, b"2").await;
        link.send(|encoder, out| encoder.unsubscribe_result(out, request, None, TTL_MS)).await;
    };
    let (paused, ()) = tokio::join!(soon(subscription.pause()), script);
    assert!(soon(subscription.next()).await.is_none());
    assert!(matches!(subscription.end_reason(), Some(Error::Closed)));
    (client, paused.unwrap(), link)
}

/// Delivers message 3 to subscription `id`; the application finds 2, which it had not taken, and 3.
async fn goes_on(link: &mut Link, id: u128, subscription: &mut Subscription) {
    link.bind(6, "t").await;
    link.deliver_as(id, DeliveryMode::Replay).await;
    link.message(6, 3, b"3").await;
    assert_eq!(next_payloads(subscription, 2).await, ["2", "3"]);
}

#[tokio::test]
async fn a_pause_tells_all_it_takes_to_go_on() {
    let daemon = ScriptedDaemon::start().await;
    let (_client, paused, _link) = paused(&daemon).await;
    assert_eq!((paused.subscription.0, paused.node), (9, NODE));
    assert_eq!(paused.received, 2);
    assert_eq!(paused.ttl, Some(Duration::from_millis(TTL_MS)));
    assert_eq!(paused.filters, ["t"]);
    let positions: Vec<_> =
        paused.positions.iter().map(|it| (&*it.topic, it.sequence, it.origin)).collect();
    assert_eq!((positions, paused.positions_are_complete), (vec![("t", 2, NODE)], true));
    let [Event::Message(unread)] = &paused.unread[..] else { panic!("{:?}", paused.unread) };
    assert_eq!(unread.payload(), b"2");
}

#[tokio::test]
async fn a_paused_subscription_goes_on_with_what_was_unread() {
    let daemon = ScriptedDaemon::start().await;
    let (client, paused, mut link) = paused(&daemon).await;
    let (resumed, count) = tokio::join!(soon(client.resume(&paused)), link.confirm_resume(9));
    assert_eq!(count, 2);
    let mut subscription = resumed.unwrap();
    goes_on(&mut link, 9, &mut subscription).await;
    link.end().await;
    let mut link = daemon.welcome().await;
    assert_eq!(link.confirm_resume(9).await, 3);
    drop(subscription);
    let (_, id, is_pause) = link.unsubscribe().await;
    assert_eq!((id, is_pause), (9, false));
}

#[tokio::test]
async fn more_messages_than_the_inbox_holds_do_not_keep_a_pause_from_its_answer() {
    let daemon = ScriptedDaemon::start().await;
    let options = SubscribeOptions::new().buffer(2, 64 << 10);
    let (_client, mut subscription, mut link) = subscribed(&daemon, options).await;
    let script = async {
        let (request, _, _) = link.unsubscribe().await;
        for sequence in 1..=1_000 {
            link.write(&message(5, sequence, &[7; 1_000])).await;
        }
        link.send(|encoder, out| encoder.unsubscribe_result(out, request, None, TTL_MS)).await;
    };
    let (paused, ()) = tokio::join!(soon(subscription.pause()), script);
    let paused = paused.unwrap();
    assert_eq!((paused.received, paused.unread.len()), (1_000, 1_000));
}

#[tokio::test]
async fn a_subscription_kept_elsewhere_gets_a_connection_that_names_it() {
    let daemon = ScriptedDaemon::start().await;
    let (first, paused, link) = paused(&daemon).await;
    drop((first, link));
    let (client, mut link) = daemon.connected().await;
    let script = async {
        link.refuse_resume(9, ErrorCode::NotFound).await;
        let (mut own, named) = daemon.welcome_as(NODE).await;
        assert_eq!(named, Some(9));
        assert_eq!(own.confirm_resume(9).await, 2);
        own
    };
    let (resumed, mut own) = tokio::join!(soon(client.resume(&paused)), script);
    let mut subscription = resumed.unwrap();
    goes_on(&mut own, 9, &mut subscription).await;
    // The client itself was not disturbed.
    client.publish("x", "1").await.unwrap();
    assert_eq!(link.lines(2).await, ["bind 0 x", "message 0 #1 1"]);
    drop(subscription);
    assert_eq!(own.lines(2).await, ["Unsubscribe", "Goodbye"]);
}

#[tokio::test]
async fn an_expired_subscription_is_subscribed_anew_from_its_positions() {
    let daemon = ScriptedDaemon::start().await;
    let (client, paused, mut link) = paused(&daemon).await;
    let script = async {
        link.refuse_resume(9, ErrorCode::NotFound).await;
        let mut own = daemon.welcome().await;
        own.refuse_resume(9, ErrorCode::NotFound).await;
        let asked = own.asked().await;
        assert_eq!(asked.filters, ["t"]);
        assert_eq!(asked.positions, [("t".to_owned(), 2, NODE)]);
        own.confirm_request(asked.request, 10).await;
        own
    };
    let (resumed, mut own) = tokio::join!(soon(client.resume(&paused)), script);
    goes_on(&mut own, 10, &mut resumed.unwrap()).await;
}

#[tokio::test]
async fn a_subscription_of_a_daemon_that_is_gone_is_subscribed_anew_with_a_gap() {
    let daemon = ScriptedDaemon::start().await;
    let (first, paused, link) = paused(&daemon).await;
    drop((first, link));
    let (client, (mut link, _)) =
        tokio::join!(soon(daemon.client().connect()), daemon.welcome_as(OTHER_NODE));
    let client = client.unwrap();
    let script = async {
        let asked = link.asked().await;
        assert_eq!(asked.positions, [("t".to_owned(), 2, NODE)]);
        link.confirm_request(asked.request, 10).await;
    };
    let (resumed, ()) = tokio::join!(soon(client.resume(&paused)), script);
    let mut subscription = resumed.unwrap();
    assert_eq!(next_payloads(&mut subscription, 1).await, ["2"]);
    assert!(matches!(soon(subscription.next()).await, Some(Event::Gap(_))));
}

#[tokio::test]
async fn what_is_written_down_is_enough_to_go_on() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let written = Paused::new(vec!["t".to_owned()], nexusd_client::SubscriptionId(9), NODE, 2);
    let (resumed, count) = tokio::join!(soon(client.resume(&written)), link.confirm_resume(9));
    assert_eq!((count, resumed.unwrap().filters()), (2, ["t".to_owned()].as_slice()));
}

#[tokio::test]
async fn a_subscription_cannot_be_resumed_while_it_runs() {
    let daemon = ScriptedDaemon::start().await;
    let (client, paused, mut link) = paused(&daemon).await;
    let (resumed, _) = tokio::join!(soon(client.resume(&paused)), link.confirm_resume(9));
    let mut subscription = resumed.unwrap();
    let again =
        tokio::join!(soon(client.resume(&paused)), link.refuse_resume(9, ErrorCode::Rejected));
    assert!(matches!(again.0, Err(Error::Rejected { .. })));
    goes_on(&mut link, 9, &mut subscription).await;
}

#[tokio::test]
async fn without_a_connection_the_broken_one_has_paused_it() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut subscription, mut link) = subscribed(&daemon, SubscribeOptions::new()).await;
    link.message(5, 1, b"1").await;
    // The connection breaks before the daemon has answered.
    let script = async {
        link.unsubscribe().await;
        link.end().await;
        daemon.accept().await
    };
    let (paused, mut link) = tokio::join!(soon(subscription.pause()), script);
    let paused = paused.unwrap();
    assert_eq!((paused.received, paused.ttl, paused.unread.len()), (1, None, 1));

    // There is none yet.
    let resuming = async {
        let resumed = soon(client.resume(&paused)).await;
        let mut subscription = resumed.unwrap();
        assert_eq!(next_payloads(&mut subscription, 1).await, ["1"]);
    };
    let script = async {
        link.welcome_as(NODE).await;
        assert_eq!(link.confirm_resume(9).await, 1);
        link.unsubscribe().await;
    };
    tokio::join!(resuming, script);
}

#[tokio::test]
async fn a_pause_of_what_the_daemon_does_not_know_fails_and_the_stream_goes_on() {
    let daemon = ScriptedDaemon::start().await;
    let (_client, mut subscription, mut link) = subscribed(&daemon, SubscribeOptions::new()).await;
    link.message(5, 1, b"1").await;
    let script = async {
        let (request, _, _) = link.unsubscribe().await;
        let why = Some("Subscription not found");
        link.send(|encoder, out| encoder.unsubscribe_result(out, request, why, 0)).await;
    };
    let (paused, ()) = tokio::join!(soon(subscription.pause()), script);
    assert!(matches!(paused, Err(Error::NotFound { .. })));
    let asked = link.asked().await;
    assert_eq!(asked.positions, [("t".to_owned(), 1, NODE)]);
    link.confirm_request(asked.request, 10).await;
    link.deliver(10).await;
    link.message(5, 2, b"2").await;
    assert_eq!(next_payloads(&mut subscription, 2).await, ["1", "2"]);
    let (again, ()) = tokio::join!(soon(subscription.pause()), async {
        let (request, id, _) = link.unsubscribe().await;
        assert_eq!(id, 10);
        link.send(|encoder, out| encoder.unsubscribe_result(out, request, None, TTL_MS)).await;
    });
    assert_eq!(again.unwrap().received, 1);
}

#[tokio::test]
async fn a_resume_that_is_given_up_without_a_connection_leaves_the_subscription_parked() {
    let daemon = ScriptedDaemon::start().await;
    let (first, paused, link) = paused(&daemon).await;
    drop((first, link));
    let builder = daemon.client().request_timeout(Duration::from_millis(10));
    let (client, link) = daemon.connected_by(builder).await;
    link.end().await;
    // It connects, and is not welcomed yet.
    let mut link = daemon.accept().await;
    assert!(matches!(soon(client.resume(&paused)).await, Err(Error::Timeout { .. })));
    assert_eq!(link.welcome_as(NODE).await, None);
    client.publish("x", "1").await.unwrap();
    assert_eq!(link.lines(2).await, ["bind 0 x", "message 0 #1 1"]);
}
