//! When the daemon is told how much has come.

use nexusd_client::SubscribeOptions;

use crate::daemon::{ScriptedDaemon, message};

/// The frames of messages 1 to `count` of the topic with id 5.
fn messages(count: u64, payload: &[u8]) -> Vec<u8> {
    (1..=count).flat_map(|sequence| message(5, sequence, payload)).collect()
}

#[tokio::test]
async fn a_message_is_acknowledged_although_none_follows() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let (subscription, _) = tokio::join!(client.subscribe("t"), link.confirm(9));
    let _subscription = subscription.unwrap();
    link.bind(5, "t").await;
    link.deliver(9).await;
    link.message(5, 1, b"").await;
    assert_eq!(link.ack().await, [(9, 1)]);
    link.message(5, 2, b"").await;
    assert_eq!(link.ack().await, [(9, 2)]);
}

#[tokio::test]
async fn acknowledgements_are_for_hundreds_of_messages_at_a_time() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let options = SubscribeOptions::new().buffer(1_000_000, 64 << 20);
    let (subscription, _) = tokio::join!(client.subscribe_with("t", options), link.confirm(9));
    let _subscription = subscription.unwrap();
    link.bind(5, "t").await;
    link.deliver(9).await;
    link.write(&messages(20_000, b"")).await;
    let (mut frames, mut last) = (0, 0);
    while last < 20_000 {
        let counts = link.ack().await;
        let [(9, count)] = counts[..] else { panic!("{counts:?}") };
        assert!(count > last, "{count} after {last}");
        last = count;
        frames += 1;
    }
    // 39 for the messages, and few for the time this may take on a slow machine.
    assert!(frames < 200, "{frames} acknowledgements");
}

#[tokio::test]
async fn messages_and_bytes_are_acknowledged_before_time_demands_it() {
    for (count, payload_bytes) in [(512, 0), (2, 512 << 10)] {
        let daemon = ScriptedDaemon::start().await;
        let (client, mut link) = daemon.connected().await;
        let (subscription, _) = tokio::join!(client.subscribe("t"), link.confirm(9));
        let _subscription = subscription.unwrap();
        link.bind(5, "t").await;
        link.deliver(9).await;
        link.write(&messages(count, &vec![0; payload_bytes])).await;
        assert!(!link.acks_at_once().await.is_empty(), "{count} messages of {payload_bytes} bytes");
    }
}

#[tokio::test]
async fn a_small_queue_is_acknowledged_more_often() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let options = SubscribeOptions::new().queue_messages(8);
    let (subscription, _) = tokio::join!(client.subscribe_with("t", options), link.confirm(9));
    let _subscription = subscription.unwrap();
    link.bind(5, "t").await;
    link.deliver(9).await;
    link.write(&messages(2, b"")).await;
    assert!(!link.acks_at_once().await.is_empty());
}

#[tokio::test]
async fn one_acknowledgement_tells_of_all_subscriptions() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let (one, _) = tokio::join!(client.subscribe("t"), link.confirm(1));
    let (two, _) = tokio::join!(client.subscribe("t"), link.confirm(2));
    let _both = (one.unwrap(), two.unwrap());
    link.bind(5, "t").await;
    link.deliver(1).await;
    link.write(&messages(3, b"")).await;
    link.deliver(2).await;
    link.write(&messages(512, b"")).await;
    let acks = link.acks_at_once().await;
    let mut told: Vec<u128> = acks.concat().into_iter().map(|(id, _)| id).collect();
    told.sort();
    told.dedup();
    assert_eq!(told, [1, 2], "{acks:?}");
}

#[tokio::test]
async fn a_subscription_that_is_not_counted_is_not_acknowledged() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let options = SubscribeOptions::new().counted(false);
    let script = async {
        let asked = link.asked().await;
        assert!(!asked.counted);
        link.confirm_request(asked.request, 9).await;
    };
    let (subscription, ()) = tokio::join!(client.subscribe_with("t", options), script);
    let _subscription = subscription.unwrap();
    link.bind(5, "t").await;
    link.deliver(9).await;
    link.write(&messages(1_000, b"")).await;
    assert!(link.acks_at_once().await.is_empty());
    // It is counted all the same, for the daemon to tell what was lost.
    link.end().await;
    let mut link = daemon.welcome().await;
    assert_eq!(link.confirm_resume(9).await, 1_000);
}
