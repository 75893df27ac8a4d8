//! An application that does not take its messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nexusd_client::SubscribeOptions;
use nexusd_wire::FrameKind;
use tokio::io::AsyncWriteExt;

use crate::daemon::{Link, ScriptedDaemon, message, next_message, soon};

const MESSAGES: usize = 3_000;
const PAYLOAD_BYTES: usize = 32 << 10;
/// Far more than the sockets of both sides and the client's buffers hold, far less than is sent.
const HELD_BYTES_MAX: usize = 32 << 20;

#[tokio::test]
async fn a_slow_application_stops_the_reading_and_loses_nothing_here() {
    let daemon = ScriptedDaemon::start().await;
    let silence = Duration::from_millis(100);
    let builder = daemon.client().ping(silence, Duration::from_secs(10));
    let (client, mut link) = daemon.connected_by(builder).await;
    let options = SubscribeOptions::new().buffer(1_000_000, 256 << 10);
    let (subscription, _) = tokio::join!(client.subscribe_with("t", options), link.confirm(9));
    let mut subscription = subscription.unwrap();
    link.bind(5, "t").await;
    link.deliver(9).await;

    let (reader, mut writer) = link.stream.into_split();
    let mut link = Link::over(tokio::io::join(reader, tokio::io::sink()));
    let written = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    let writing = tokio::spawn(async move {
        for sequence in 1..=MESSAGES {
            let frame = message(5, sequence as u64, &[7; PAYLOAD_BYTES]);
            writer.write_all(&frame).await.unwrap();
            counter.fetch_add(frame.len(), Ordering::Relaxed);
        }
        writer
    });

    // The client shows that it lives although it does not read: nobody takes its messages.
    let mut heartbeats = 0;
    while heartbeats < 2 {
        let frame = link.next().await.expect("the client is still there");
        heartbeats += usize::from(frame.kind() == FrameKind::Heartbeat);
    }
    let held = written.load(Ordering::Relaxed);
    assert!(held < HELD_BYTES_MAX, "{held} bytes are on their way");

    for sequence in 1..=MESSAGES {
        let message = next_message(&mut subscription).await;
        assert_eq!(message.sequence(), sequence as u64);
    }
    soon(writing).await.unwrap();
}
