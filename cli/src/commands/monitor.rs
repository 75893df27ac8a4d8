//! MONITOR: what is published, and how often, one report per interval.
//!
//! Rates of topics are counted here, by a subscription of its own; those of the daemon are the differences of
//! its counters. Both are over the time that has really passed between two reports.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nexusd_admin::proto::{GetInfoRequest, Info};
use nexusd_client::{Client, Error, Event, Subscription};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant as TokioInstant, MissedTickBehavior, interval_at};

use super::note_foreign_wildcards;
use crate::arguments::MonitorArguments;
use crate::console::{self, Console};
use crate::error::CliError;
use crate::format::{bytes, count, number, rate};
use crate::rates::{LOSSES, Rates, by_name, per_second};
use crate::remote::Remote;
use crate::stops::Stops;
use crate::table::Column::{Number, Text};
use crate::table::table;

/// Topics that are told apart; what comes of others is counted together.
const TOPICS_MAX: usize = 100_000;
/// For how long the daemon may be silent before MONITOR gives up. It may be started anew meanwhile.
const SILENCE_MAX: Duration = Duration::from_secs(60);

pub(crate) async fn run(
    arguments: MonitorArguments,
    remote: &Remote,
    console: Console,
    stops: &Stops,
) -> Result<(), CliError> {
    let Some(client) = stops.unless_stopped(remote.client()).await else { return Ok(()) };
    let client = client?;
    let ended = stops.unless_stopped(watch(arguments, &client, remote, console)).await;
    // However it ends, the daemon keeps nothing for a subscriber that does not come back.
    let closed = client.close().await;
    match ended {
        Some(ended) => ended.and(closed.map_err(CliError::from)),
        // Nobody waits for what the farewell has to say.
        None => Ok(()),
    }
}

async fn watch(
    arguments: MonitorArguments,
    client: &Client,
    remote: &Remote,
    console: Console,
) -> Result<(), CliError> {
    let MonitorArguments { filters, interval, count, topics } = arguments;
    note_foreign_wildcards(&filters);
    let mut rates = Rates::default();
    let first = remote.get_info(GetInfoRequest {}).await?;
    rates.update(Instant::now(), by_name(&first.stats), true);
    let mut silence = Silence::default();
    let mut counts = Counts::default();
    // Messages count from the first one that can come.
    let mut since = Instant::now();
    let mut subscription = client.subscribe(filters).await?;
    let mut ticks = interval_at(TokioInstant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Questions run beside the messages, which do not wait for a slow answer.
    let mut asked = JoinSet::new();
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        tokio::select! {
            _ = ticks.tick(), if asked.is_empty() => {
                let remote = remote.clone();
                asked.spawn(async move { remote.get_info(GetInfoRequest {}).await });
            }
            Some(answer) = asked.join_next(), if !asked.is_empty() => {
                let answer = answer.map_err(std::io::Error::from)?;
                let Some(info) = silence.heard(answer)? else { continue };
                rates.update(Instant::now(), by_name(&info.stats), true);
                let elapsed = since.elapsed();
                since = Instant::now();
                let report = Report::new(&mut counts, elapsed, topics, &info, &rates);
                console.show_next(&report, || report.text(console))?;
                left -= 1;
            }
            next = subscription.next() => counts.take(next, &subscription)?,
        }
    }
    Ok(())
}

/// How long the daemon has said nothing. A report that it has no figures for is left out; the next one is about all
/// the time since the one before.
#[derive(Default, Debug)]
struct Silence {
    since: Option<Instant>,
}

impl Silence {
    /// Passes answers on, and tells when they stop and come again; an error once that takes too long.
    fn heard(&mut self, answer: Result<Info, CliError>) -> Result<Option<Info>, CliError> {
        match (answer, self.since) {
            (Ok(info), since) => {
                if since.is_some() {
                    console::note("-- the daemon answers again");
                }
                self.since = None;
                Ok(Some(info))
            }
            (Err(error), Some(since)) if since.elapsed() >= SILENCE_MAX => Err(error),
            (Err(error), since) => {
                if since.is_none() {
                    console::note(&format!("-- no report: {error}"));
                }
                self.since = since.or(Some(Instant::now()));
                Ok(None)
            }
        }
    }
}

/// What came since the last report.
#[derive(Default, Debug)]
struct Counts {
    topics: HashMap<Arc<str>, Count>,
    /// Of topics beyond the bound.
    others: Count,
    /// Messages that this monitor was too slow for, or that were lost on their way.
    missed: u64,
    /// Losses of which nobody knows how many messages they took.
    gaps_unknown: u64,
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
            Some(Event::Gap(gap)) => self.lose(gap.missed),
            Some(_) => {}
            None => {
                return Err(CliError::Ended(subscription.end_reason().unwrap_or(Error::Closed)));
            }
        }
        Ok(())
    }

    fn lose(&mut self, missed: Option<u64>) {
        match missed {
            Some(missed) => self.missed = self.missed.saturating_add(missed),
            None => self.gaps_unknown += 1,
        }
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
    gaps_unknown: u64,
    messages_per_second: f64,
    bytes_per_second: f64,
    active_topics: usize,
    /// There are more than can be told apart.
    is_truncated: bool,
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
        let Counts { topics, others, missed, gaps_unknown } = std::mem::take(counts);
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
            gaps_unknown,
            messages_per_second: per_second(messages, elapsed),
            bytes_per_second: per_second(bytes, elapsed),
            active_topics,
            is_truncated: others.messages > 0,
            daemon: DaemonRates {
                in_per_second: growth("messages_in"),
                out_per_second: growth("messages_out"),
                dropped_per_second: LOSSES.iter().map(|name| growth(name)).sum(),
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
        let more = if self.is_truncated { "more than " } else { "" };
        let heading = format!(
            "daemon: in {}, out {}, dropped {}, queued {}; here: {}, {}/s of {more}{}",
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
            let missed = count(self.missed, "message");
            text += "\n";
            text += &console.yellow(&format!("{missed} lost on the way here"));
        }
        if self.gaps_unknown > 0 {
            let times = count(self.gaps_unknown, "time");
            text += "\n";
            text += &console.yellow(&format!("{times} an unknown number of messages lost"));
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

    /// The report of these counts, which its schema describes.
    fn report(counts: &mut Counts, info: &Info, rates: &Rates<String>) -> Report {
        let report = Report::new(counts, Duration::from_secs(1), 2, info, rates);
        let schema = serde_json::from_str(include_str!("../../schemas/monitor.json"));
        let document = serde_json::to_value(&report).expect("a document");
        jsonschema::draft202012::validate(&schema.expect("JSON"), &document).expect("valid");
        report
    }

    #[test]
    fn losses_are_told_also_where_nobody_knows_how_many() {
        let mut counts = Counts::default();
        counts.lose(Some(2));
        counts.lose(None);
        let report = report(&mut counts, &Info::default(), &Rates::default());
        assert_eq!((report.missed, report.gaps_unknown), (2, 1));
        let text = report.text(Console::plain());
        let expected =
            "\n2 messages lost on the way here\n1 time an unknown number of messages lost";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn every_loss_that_the_daemon_counts_is_dropped() {
        let mut rates = Rates::default();
        let start = Instant::now();
        let all = |count: u64| LOSSES.map(|name| (name.to_owned(), count));
        rates.update(start, all(0), true);
        rates.update(start + Duration::from_secs(1), all(5), true);
        let report = report(&mut Counts::default(), &Info::default(), &rates);
        assert_eq!(report.daemon.dropped_per_second, 20.0);
    }

    #[test]
    fn topics_that_are_not_told_apart_are_not_hidden() {
        let mut counts = Counts::default();
        for topic in 0..=TOPICS_MAX {
            counts.add(topic.to_string().into(), 1);
        }
        let report = report(&mut counts, &Info::default(), &Rates::default());
        assert_eq!((report.active_topics, report.is_truncated), (TOPICS_MAX, true));
        assert_eq!(report.messages, TOPICS_MAX as u64 + 1);
        let text = report.text(Console::plain());
        assert!(text.contains(" of more than 100,000 topics"), "{text}");
    }

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
