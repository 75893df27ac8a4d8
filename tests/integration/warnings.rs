//! Subscribers that fall behind are warned.

use std::time::{Duration, Instant};

use nexusd_tests::{Account, Client, Daemon, Heard, Warning};
use nexusd_wire::SubscribeRequest;
use nexusd_wire::control::GapReason;

/// How long the flood lasts.
const FLOOD: Duration = Duration::from_millis(2_500);
/// Messages that the queue holds.
const QUEUED: u32 = 100;

#[test]
fn a_subscriber_that_falls_behind_is_warned_at_most_once_a_second_by_what_it_lost() {
    let daemon = Daemon::start(&["--shards", "2"]);
    let mut publisher = daemon.client();
    let mut subscriber = Client::connect_narrow(&daemon.v4());
    let subscription = subscriber.subscribe_with(&SubscribeRequest {
        filters: &["flood/+"],
        queue_messages: Some(QUEUED),
        ..SubscribeRequest::default()
    });
    let since = Instant::now();
    let mut published = 0;
    while since.elapsed() < FLOOD {
        for _ in 0..100 {
            publisher.publish(&format!("flood/{}", published % 3), &[7; 1_000]);
            published += 1;
        }
        publisher.catch_up();
    }
    let mut account = Account::new(subscription);
    let mut warnings: Vec<Warning> = Vec::new();
    while account.accounted() < published {
        let heard = subscriber.hear();
        account.take(&heard);
        if let Heard::Warning(warning) = heard {
            warnings.push(warning);
        }
    }
    let seconds = since.elapsed().as_secs() + 1;
    assert!(!warnings.is_empty() && warnings.len() as u64 <= seconds, "{warnings:?}");
    for warning in &warnings {
        assert_eq!((warning.subscription, warning.reason), (subscription, GapReason::SlowConsumer));
        assert_eq!((warning.limit, warning.expired), (u64::from(QUEUED), 0), "{warning:?}");
        assert!(warning.dropped > 0 && warning.depth <= u64::from(QUEUED), "{warning:?}");
        assert!(warning.oldest_age_ms <= since.elapsed().as_millis() as u64, "{warning:?}");
    }
    let told: u64 = warnings.iter().map(|warning| warning.dropped).sum();
    assert!(told <= account.missed(), "{told} of {} that were lost", account.missed());
    daemon.end_well();
}
