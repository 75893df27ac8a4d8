//! MONITOR: what is published, and how often, one report per interval.
//!
//! Rates of topics are counted here, by a subscription of its own; those of the daemon are the differences of
//! its counters. Both are over the time that has really passed between two reports.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nexusd_admin::proto::{GetInfoRequest, Info};
use nexusd_client::{Error, Event, Subscription};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::arguments::MonitorArguments;
use crate::console::Console;
use crate::error::CliError;
use crate::format::{bytes, count, number, rate};
use crate::rates::{Rates, by_name, per_second};
use crate::remote::Remote;
use crate::table::Column::{Number, Text};
use crate::table::table;

/// Topics that are told apart; what comes of others is counted together.
const TOPICS_MAX: usize = 100_000;

pub(crate) async fn run(
    arguments: MonitorArguments,
    remote: &Remote,
    console: Console,
) -> Result<(), CliError> {
    // From here on, so that Ctrl-C never ends it without a farewell.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let client = remote.client().await?;
    let mut subscription = client.subscribe(arguments.filters.clone()).await?;
    let mut counts = Counts::default();
    let mut rates = Rates::default();
    let mut ticks = interval(arguments.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once.
    ticks.tick().await;
    take_on(&mut rates, remote).await?;
    let mut since = Instant::now();
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 {
        tokio::select! {
            _ = interrupted.recv() => break,
            _ = ticks.tick() => {
                let info = take_on(&mut rates, remote).await?;
                let elapsed = since.elapsed();
                since = Instant::now();
                let report = Report::new(&mut counts, elapsed, arguments.topics, &info, &rates);
                console.show_next(&report, || report.text(console))?;
                left -= 1;
            }
            next = subscription.next() => counts.take(next, &subscription)?,
        }
    }
    client.close().await?;
    Ok(())
}

/// Asks for the daemon's counters.
async fn take_on(rates: &mut Rates<String>, remote: &Remote) -> Result<Info, CliError> {
    let info = remote.get_info(GetInfoRequest {}).await?;
    rates.update(Instant::now(), by_name(&info.stats), true);
    Ok(info)
}

/// What came since the last report.
#[derive(Default, Debug)]
struct Counts {
    topics: HashMap<Arc<str>, Count>,
    /// Of topics beyond the bound.
    others: Count,
    /// Messages that this monitor was too slow for, or that were lost on their way.
    missed: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Count {
    messages: u64,
    bytes: u64,
}

impl Counts {
    fn take(&mut self, next: Option<Event>, subscription: &Subscription) -> Result<(), CliError> {
        match next {
            Some(Event::Message(message)) => {
                self.add(message.shared_topic(), message.payload().len() as u64);
            }
            Some(Event::Gap(gap)) => self.missed += gap.missed.unwrap_or_default(),
            Some(_) => {}
            None => {
                return Err(CliError::Ended(subscription.end_reason().unwrap_or(Error::Closed)));
            }
        }
        Ok(())
    }

    fn add(&mut self, topic: Arc<str>, bytes: u64) {
        let count = if self.topics.len() < TOPICS_MAX || self.topics.contains_key(&topic) {
            self.topics.entry(topic).or_default()
        } else {
            &mut self.others
        };
        count.messages += 1;
        count.bytes += bytes;
    }
}

/// One report.
#[derive(Serialize, Debug)]
struct Report {
    timestamp_ms: u64,
    elapsed_ms: u64,
    /// What came to the monitor.
    messages: u64,
    missed: u64,
    messages_per_second: f64,
    bytes_per_second: f64,
    active_topics: usize,
    daemon: DaemonRates,
    /// The busiest ones.
    topics: Vec<TopicRate>,
}

/// Of the daemon as a whole.
#[derive(Serialize, Debug)]
struct DaemonRates {
    in_per_second: f64,
    out_per_second: f64,
    dropped_per_second: f64,
    queued_messages: u64,
}

#[derive(Serialize, Debug)]
struct TopicRate {
    topic: String,
    messages: u64,
    messages_per_second: f64,
    bytes_per_second: f64,
}

impl Report {
    /// Sums up what came since the last report, and begins anew.
    fn new(
        counts: &mut Counts,
        elapsed: Duration,
        topics_max: usize,
        info: &Info,
        rates: &Rates<String>,
    ) -> Self {
        let Counts { topics, others, missed } = std::mem::take(counts);
        let sum = |of: fn(&Count) -> u64| topics.values().map(of).sum::<u64>() + of(&others);
        let (messages, bytes) = (sum(|count| count.messages), sum(|count| count.bytes));
        let active_topics = topics.len();
        let mut busiest: Vec<_> = topics.into_iter().collect();
        busiest.sort_unstable_by(|(one, first), (other, second)| {
            (Reverse(first.messages), one).cmp(&(Reverse(second.messages), other))
        });
        busiest.truncate(topics_max);
        let growth = |name: &str| rates.of(name).unwrap_or_default();
        let gauge = |name: &str| {
            info.stats.iter().find(|metric| metric.name == name).map_or(0, |metric| metric.value)
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            timestamp_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            messages,
            missed,
            messages_per_second: per_second(messages, elapsed),
            bytes_per_second: per_second(bytes, elapsed),
            active_topics,
            daemon: DaemonRates {
                in_per_second: growth("messages_in"),
                out_per_second: growth("messages_out"),
                dropped_per_second: growth("dropped_slow_consumer") + growth("dropped_memory"),
                queued_messages: gauge("queued_messages"),
            },
            topics: busiest
                .into_iter()
                .map(|(topic, count)| TopicRate {
                    topic: topic.to_string(),
                    messages: count.messages,
                    messages_per_second: per_second(count.messages, elapsed),
                    bytes_per_second: per_second(count.bytes, elapsed),
                })
                .collect(),
        }
    }

    fn text(&self, console: Console) -> String {
        let heading = format!(
            "daemon: in {}, out {}, dropped {}, queued {}; here: {}, {}/s of {}",
            rate(self.daemon.in_per_second),
            rate(self.daemon.out_per_second),
            rate(self.daemon.dropped_per_second),
            number(self.daemon.queued_messages),
            rate(self.messages_per_second),
            bytes(self.bytes_per_second.round() as u64),
            count(self.active_topics as u64, "topic"),
        );
        let mut text = console.bold(&heading);
        if self.missed > 0 {
            let missed = number(self.missed);
            text += &console.yellow(&format!("\n{missed} messages were lost on their way here"));
        }
        if self.topics.is_empty() {
            return text;
        }
        let columns = [Text("TOPIC"), Number("MESSAGES"), Number("RATE"), Number("BYTES")];
        let rows = self.topics.iter().map(|topic| {
            vec![
                topic.topic.clone(),
                number(topic.messages),
                rate(topic.messages_per_second),
                format!("{}/s", bytes(topic.bytes_per_second.round() as u64)),
            ]
        });
        format!("{text}\n{}\n", table(&console, &columns, rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_topics_come_first_and_counting_begins_anew() {
        let mut counts = Counts::default();
        for (topic, messages) in [("a", 2), ("b", 5), ("c", 1)] {
            for _ in 0..messages {
                counts.add(topic.into(), 100);
            }
        }
        let elapsed = Duration::from_millis(2_000);
        let report = Report::new(&mut counts, elapsed, 2, &Info::default(), &Rates::default());
        let topics: Vec<_> = report.topics.iter().map(|topic| topic.topic.as_str()).collect();
        assert_eq!((topics, report.active_topics, report.messages), (vec!["b", "a"], 3, 8));
        assert_eq!((report.messages_per_second, report.bytes_per_second), (4.0, 400.0));
        let text = report.text(Console::plain());
        assert!(text.contains("b             5  2.5/s  250 B/s"), "{text}");
        let report = Report::new(&mut counts, elapsed, 2, &Info::default(), &Rates::default());
        assert_eq!((report.messages, report.topics.len()), (0, 0));
    }
}
