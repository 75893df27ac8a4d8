//! PUBSUB: topics, who wants them, and their retained values.

use nexusd_admin::proto::{
    ListRetainedRequest, ListSubscriptionsRequest, ListTopicsRequest, RetainedValue, Subscriptions,
    Topic, Topics,
};
use nexusd_wire::{check_topic, filter_matches};
use serde::Serialize;

use super::cut_off;
use crate::arguments::{Listing, PubsubAction};
use crate::console::Console;
use crate::error::CliError;
use crate::format::{ago, bytes, milliseconds, number, yes};
use crate::remote::Remote;
use crate::table::Column::{Id, Number, Text};
use crate::table::table;

/// What to do about a list that was cut off.
const NARROWER: &str = "--limit shows up to 10,000, a filter those that match";

pub(crate) async fn run(
    question: Option<PubsubAction>,
    remote: &Remote,
    console: Console,
) -> Result<(), CliError> {
    match question.unwrap_or_else(|| PubsubAction::Topics(Listing::default())) {
        PubsubAction::Topics(Listing { filter, limit }) => {
            let filter = filter.unwrap_or_default();
            let mut topics = remote.list_topics(ListTopicsRequest { filter, limit }).await?;
            topics.topics.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            console.show(&topics, || topics_text(&console, &topics))
        }
        PubsubAction::Numsub { topics } => numsub(topics, remote, console).await,
        PubsubAction::Retained(Listing { filter, limit }) => {
            let filter = filter.unwrap_or_default();
            let mut values = remote.list_retained(ListRetainedRequest { filter, limit }).await?;
            values.values.sort_unstable_by(|one, other| one.topic.cmp(&other.topic));
            console.show(&values, || {
                let more = cut_off(values.is_truncated, NARROWER);
                retained_text(&console, &values.values) + &more
            })
        }
    }
}

fn topics_text(console: &Console, topics: &Topics) -> String {
    if topics.topics.is_empty() {
        return "no such topics".to_owned();
    }
    let columns = [Text("TOPIC"), Number("SUBS"), Number("MESSAGES"), Text("RETAINED")];
    let rows = topics.topics.iter().map(|topic| {
        let Topic { name, subscriptions, messages, is_retained, .. } = topic.clone();
        vec![name, number(subscriptions), number(messages), yes(is_retained).to_owned()]
    });
    table(console, &columns, rows) + &cut_off(topics.is_truncated, NARROWER)
}

/// How many want each of some topics.
#[derive(Serialize, Debug)]
struct Wanted {
    topics: Vec<WantedTopic>,
    /// Of a topic that nothing was published to, more may want it than were listed.
    is_truncated: bool,
}

#[derive(Serialize, Debug)]
struct WantedTopic {
    name: String,
    subscriptions: u64,
    peers: u64,
}

async fn numsub(names: Vec<String>, remote: &Remote, console: Console) -> Result<(), CliError> {
    for name in &names {
        check_topic(name).map_err(|reason| CliError::NoTopic {
            name: name.clone(),
            reason: reason.to_string(),
        })?;
    }
    let mut topics = Vec::with_capacity(names.len());
    let mut is_truncated = false;
    for name in names {
        let request = ListTopicsRequest { filter: name.clone(), limit: 1 };
        let listed = remote.list_topics(request).await?.topics.pop();
        topics.push(match listed {
            Some(Topic { subscriptions, peers, .. }) => WantedTopic { name, subscriptions, peers },
            // Nothing was published to it yet, but somebody may wait for that.
            None => {
                let request = ListSubscriptionsRequest { limit: 10_000 };
                let listed = remote.list_subscriptions(request).await?;
                is_truncated |= listed.is_truncated;
                WantedTopic { subscriptions: waiting(&name, &listed), name, peers: 0 }
            }
        });
    }
    let wanted = Wanted { topics, is_truncated };
    console.show(&wanted, || numsub_text(&console, &wanted))
}

fn numsub_text(console: &Console, wanted: &Wanted) -> String {
    let columns = [Text("TOPIC"), Number("SUBS"), Number("PEERS")];
    let rows = wanted
        .topics
        .iter()
        .map(|topic| vec![topic.name.clone(), number(topic.subscriptions), number(topic.peers)]);
    let remedy = "of a topic that nothing was published to, 10,000 subscriptions were looked at";
    table(console, &columns, rows) + &cut_off(wanted.is_truncated, remedy)
}

/// How many subscriptions have a filter that matches.
fn waiting(topic: &str, listed: &Subscriptions) -> u64 {
    let is_wanted = |filters: &[String]| filters.iter().any(|it| filter_matches(it, topic));
    listed.subscriptions.iter().filter(|it| is_wanted(&it.filters)).count() as u64
}

fn retained_text(console: &Console, values: &[RetainedValue]) -> String {
    if values.is_empty() {
        return "no such retained values".to_owned();
    }
    let columns = [Text("TOPIC"), Number("SIZE"), Text("PUBLISHED"), Text("EXPIRES"), Id("ORIGIN")];
    let rows = values.iter().map(|value| {
        let expires =
            value.expires_ms.map_or("never".to_owned(), |ms| format!("in {}", milliseconds(ms)));
        vec![
            value.topic.clone(),
            bytes(value.payload_bytes),
            ago(value.timestamp_ms),
            expires,
            value.origin.clone(),
        ]
    });
    table(console, &columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_may_be_too_small_say_so() {
        let topic = WantedTopic { name: "a/b".to_owned(), subscriptions: 3, peers: 0 };
        let wanted = Wanted { topics: vec![topic], is_truncated: true };
        let expected = "\
TOPIC  SUBS  PEERS
a/b       3      0
There are more; of a topic that nothing was published to, 10,000 subscriptions were looked at.";
        assert_eq!(numsub_text(&Console::plain(), &wanted), expected);
    }

    #[test]
    fn topics_have_the_columns_that_are_promised() {
        let topic = |name: &str, messages| Topic {
            name: name.to_owned(),
            subscriptions: 2,
            messages,
            is_retained: messages == 1,
            peers: 0,
        };
        let topics =
            Topics { topics: vec![topic("a/b", 12_345), topic("c", 1)], is_truncated: true };
        let expected = "\
TOPIC  SUBS  MESSAGES  RETAINED
a/b       2    12,345  no
c         2         1  yes
There are more; --limit shows up to 10,000, a filter those that match.";
        assert_eq!(topics_text(&Console::plain(), &topics), expected);
    }
}
