//! DEBUG: looking after a daemon.

use std::time::{Duration, Instant};

use nexusd_admin::proto::{
    DrainRequest, GetLogLevelRequest, ListSubscriptionsRequest, PingRequest, ReloadRequest,
    ReloadResponse, SetLogLevelRequest, Subscription, Subscriptions,
};
use serde::Serialize;
use serde_json::json;
use tokio::time::sleep;

use super::cut_off;
use crate::arguments::DebugAction;
use crate::console::Console;
use crate::error::CliError;
use crate::format::{count, duration, milliseconds, number, printable};
use crate::input;
use crate::remote::Remote;
use crate::stops::Stops;
use crate::table::Column::{Id, Number, Text};
use crate::table::table;

pub(crate) async fn run(
    action: DebugAction,
    remote: &Remote,
    console: Console,
    stops: &Stops,
) -> Result<(), CliError> {
    match action {
        DebugAction::Log { level: None } => {
            let level = remote.get_log_level(GetLogLevelRequest {}).await?;
            console.show(&level, || format!("log level: {}", printable(&level.level)))
        }
        DebugAction::Log { level: Some(level) } => {
            let level = level.to_lowercase();
            let level = remote.set_log_level(SetLogLevelRequest { level }).await?;
            console.show(&level, || format!("log level: {}", printable(&level.level)))
        }
        DebugAction::Ping { count, interval } => {
            ping(count, interval, remote, console, stops).await
        }
        DebugAction::Subscriptions { limit } => {
            let request = ListSubscriptionsRequest { limit };
            let subscriptions = remote.list_subscriptions(request).await?;
            console.show(&subscriptions, || subscriptions_text(&console, &subscriptions))
        }
        DebugAction::Reload => {
            let answer = remote.reload(ReloadRequest {}).await?;
            console.show(&answer, || reload_text(&answer))
        }
        DebugAction::Drain { yes } => drain(yes, remote, console).await,
    }
}

/// How long answers took.
#[derive(Serialize, Debug)]
struct Latencies {
    address: String,
    node_id: String,
    answers: usize,
    min_us: u64,
    median_us: u64,
    mean_us: u64,
    p99_us: u64,
    max_us: u64,
}

impl Latencies {
    /// Of at least one answer.
    fn new(address: String, node_id: String, mut samples_us: Vec<u64>) -> Self {
        samples_us.sort_unstable();
        let answers = samples_us.len();
        // The smallest that so many of a hundred do not exceed.
        let percentile = |percent: usize| {
            let at = (answers * percent).div_ceil(100).saturating_sub(1);
            samples_us.get(at).copied().unwrap_or_default()
        };
        let mean_us = samples_us.iter().sum::<u64>() / (answers as u64).max(1);
        Self {
            address,
            node_id,
            answers,
            min_us: percentile(0),
            median_us: percentile(50),
            mean_us,
            p99_us: percentile(99),
            max_us: percentile(100),
        }
    }

    fn text(&self) -> String {
        let time = |us| duration(Duration::from_micros(us));
        format!(
            "{} of node {} at {}: min {}, median {}, mean {}, p99 {}, max {}",
            count(self.answers as u64, "answer"),
            printable(&self.node_id),
            self.address,
            time(self.min_us),
            time(self.median_us),
            time(self.mean_us),
            time(self.p99_us),
            time(self.max_us),
        )
    }
}

async fn ping(
    count: u32,
    interval: Duration,
    remote: &Remote,
    console: Console,
    stops: &Stops,
) -> Result<(), CliError> {
    let mut samples_us = Vec::new();
    let mut node = String::new();
    for at in 0..count {
        let answered = async {
            if at > 0 {
                sleep(interval).await;
            }
            let asked = Instant::now();
            let answer = remote.ping(PingRequest {}).await;
            answer.map(|answer| (answer.node_id, asked.elapsed()))
        };
        // What was measured until Ctrl-C is told.
        let Some(answered) = stops.unless_stopped(answered).await else { break };
        let (node_id, elapsed) = answered?;
        node = node_id;
        samples_us.push(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
    }
    if samples_us.is_empty() {
        return Ok(());
    }
    let latencies = Latencies::new(remote.target().to_string(), node, samples_us);
    console.show(&latencies, || latencies.text())
}

fn subscriptions_text(console: &Console, subscriptions: &Subscriptions) -> String {
    if subscriptions.subscriptions.is_empty() {
        return "nobody subscribes".to_owned();
    }
    let columns = [
        Id("ID"),
        Id("CLIENT"),
        Text("STATE"),
        Text("EXPIRES"),
        Text("POLICY"),
        Number("QUEUED"),
        Number("LIMIT"),
        Number("SENT"),
        Number("DROPPED"),
        Text("FILTERS"),
    ];
    let rows = subscriptions.subscriptions.iter().map(|subscription| {
        let Subscription { limit_messages: limit, .. } = *subscription;
        vec![
            subscription.subscription_id.clone(),
            client(subscription),
            subscription.state.clone(),
            expires(subscription),
            subscription.policy.clone(),
            number(subscription.queued_messages),
            if limit == 0 { "-".to_owned() } else { number(limit) },
            number(subscription.sent_messages),
            number(subscription.dropped_messages),
            subscription.filters.join(" "),
        ]
    });
    let more = cut_off(subscriptions.is_truncated, "--limit shows up to 10,000");
    table(console, &columns, rows) + &more
}

/// Its client; one that is parked has none.
fn client(subscription: &Subscription) -> String {
    let client = &subscription.client_id;
    if client.is_empty() { "-".to_owned() } else { client.clone() }
}

/// How much longer one that is parked waits for its client.
fn expires(subscription: &Subscription) -> String {
    subscription.parked_for_ms.map_or("-".to_owned(), |ms| format!("in {}", milliseconds(ms)))
}

fn reload_text(answer: &ReloadResponse) -> String {
    let named = |names: &[String]| {
        if names.is_empty() { "none".to_owned() } else { printable(&names.join(", ")).into_owned() }
    };
    let mut text = format!("settings that changed: {}", named(&answer.applied));
    if !answer.need_restart.is_empty() {
        text += &format!("\nsettings that need a restart: {}", named(&answer.need_restart));
    }
    text
}

async fn drain(is_sure: bool, remote: &Remote, console: Console) -> Result<(), CliError> {
    if !is_sure && !confirmed(remote).await? {
        let document = json!({ "was_running": false, "is_cancelled": true });
        return console.show(&document, || "nothing was done".to_owned());
    }
    let answer = remote.drain(DrainRequest {}).await?;
    let document = json!({ "was_running": answer.was_running, "is_cancelled": false });
    console.show(&document, || {
        if answer.was_running {
            format!("the daemon at {} drains and ends", remote.target())
        } else {
            format!("the daemon at {} drains already", remote.target())
        }
    })
}

async fn confirmed(remote: &Remote) -> Result<bool, CliError> {
    let question = format!("End the daemon at {}?", remote.target());
    let answer = input::is_confirmed(&question).await?;
    answer.ok_or(CliError::Unconfirmed { what: "DEBUG DRAIN" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_summed_up() {
        let samples = (1..=200).rev().collect();
        let latencies = Latencies::new("a:1".to_owned(), "5f".to_owned(), samples);
        let Latencies { answers, min_us, median_us, mean_us, p99_us, max_us, .. } = latencies;
        assert_eq!((answers, min_us, median_us, mean_us), (200, 1, 100, 100));
        assert_eq!((p99_us, max_us), (198, 200));
    }

    #[test]
    fn a_parked_subscription_says_how_much_longer_it_waits() {
        let subscription = |client: &str, state: &str, parked_for_ms| Subscription {
            subscription_id: "82".to_owned(),
            client_id: client.to_owned(),
            filters: vec!["a/#".to_owned()],
            state: state.to_owned(),
            policy: "block".to_owned(),
            parked_for_ms,
            ..Subscription::default()
        };
        let subscriptions = vec![
            subscription("0-3-1", "connected", None),
            subscription("", "parked", Some(299_000)),
        ];
        let subscriptions = Subscriptions { subscriptions, is_truncated: false };
        let expected = "\
ID  CLIENT  STATE      EXPIRES    POLICY  QUEUED  LIMIT  SENT  DROPPED  FILTERS
82  0-3-1   connected  -          block        0      -     0        0  a/#
82  -       parked     in 4m 59s  block        0      -     0        0  a/#";
        assert_eq!(subscriptions_text(&Console::plain(), &subscriptions), expected);
    }

    #[test]
    fn one_answer_is_enough() {
        let latencies = Latencies::new("a:1".to_owned(), "5f".to_owned(), vec![312]);
        assert_eq!(
            latencies.text(),
            "1 answer of node 5f at a:1: min 312 µs, median 312 µs, mean 312 µs, p99 312 µs, max 312 µs"
        );
    }
}
