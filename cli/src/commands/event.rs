//! What comes of a subscription, as a document and as a line of text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use nexusd_client::{Delivery, Event, GapReason, Message};
use serde::Serialize;

use crate::console::Console;
use crate::format::{count, number, payload, printable};

/// The document of an event; its `event` says what it is. It borrows what it can: messages may be large.
#[derive(Serialize, Debug)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Told<'a> {
    Message(Box<Received<'a>>),
    Gap {
        reason: &'static str,
        missed: Option<u64>,
        ranges: Vec<Range<'a>>,
        elsewhere: u64,
    },
    Warning {
        reason: &'static str,
        dropped: u64,
        expired: u64,
        depth: u64,
        limit: u64,
        oldest_age_ms: u64,
    },
    ReplayComplete {
        topic: &'a str,
        replayed: u64,
        latest_sequence: u64,
    },
    Unknown,
}

/// A message.
#[derive(Serialize, Debug)]
pub(crate) struct Received<'a> {
    topic: &'a str,
    sequence: u64,
    origin: String,
    delivery: &'static str,
    timestamp_us: u64,
    content_type: Option<&'a str>,
    correlation_id: Option<&'a str>,
    headers: BTreeMap<&'a str, Cow<'a, str>>,
    ttl_ms: Option<u64>,
    size: usize,
    payload: Option<&'a str>,
    /// What is no text has no place in JSON but as numbers.
    payload_bytes: Option<&'a [u8]>,
}

/// Lost messages of a topic.
#[derive(Serialize, Debug)]
pub(crate) struct Range<'a> {
    topic: &'a str,
    first: u64,
    last: u64,
}

impl<'a> From<&'a Event> for Told<'a> {
    fn from(event: &'a Event) -> Self {
        match event {
            Event::Message(message) => Self::Message(Box::new(message.into())),
            Event::Gap(gap) => Self::Gap {
                reason: reason(gap.reason),
                missed: gap.missed,
                ranges: gap
                    .ranges
                    .iter()
                    .map(|it| Range { topic: &it.topic, first: it.first, last: it.last })
                    .collect(),
                elsewhere: gap.elsewhere,
            },
            Event::Warning(warning) => Self::Warning {
                reason: reason(warning.reason),
                dropped: warning.dropped,
                expired: warning.expired,
                depth: warning.depth,
                limit: warning.limit,
                oldest_age_ms: u64::try_from(warning.oldest_age.as_millis()).unwrap_or(u64::MAX),
            },
            Event::ReplayComplete(replay) => Self::ReplayComplete {
                topic: &replay.topic,
                replayed: replay.replayed,
                latest_sequence: replay.latest_sequence,
            },
            _ => Self::Unknown,
        }
    }
}

impl<'a> From<&'a Message> for Received<'a> {
    fn from(message: &'a Message) -> Self {
        let text = std::str::from_utf8(message.payload()).ok();
        Self {
            topic: message.topic(),
            sequence: message.sequence(),
            origin: message.origin().to_string(),
            delivery: delivery(message.delivery()),
            timestamp_us: message.timestamp_us(),
            content_type: message.content_type(),
            correlation_id: message.correlation_id(),
            headers: message
                .headers()
                .map(|(key, value)| (key, String::from_utf8_lossy(value)))
                .collect(),
            ttl_ms: message.ttl().map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            size: message.payload().len(),
            payload: text,
            payload_bytes: text.is_none().then_some(message.payload()),
        }
    }
}

/// The line of an event.
pub(crate) fn text(console: Console, event: &Event) -> String {
    match event {
        Event::Message(message) => message_text(console, message),
        event => Told::from(event).text(console),
    }
}

impl Told<'_> {
    /// The line of what is no message.
    fn text(&self, console: Console) -> String {
        match self {
            Self::Message(_) | Self::Unknown => String::new(),
            Self::Gap { reason, missed, ranges, elsewhere } => {
                let missed = match missed {
                    Some(missed) => count(*missed, "message"),
                    None => "an unknown number of messages".to_owned(),
                };
                let mut text = format!("-- lost {missed} ({reason})");
                for range in ranges {
                    // Numbers of messages name them: ungrouped, they are one word that can be copied.
                    text += &format!(", {} #{}-#{}", range.topic, range.first, range.last);
                }
                if *elsewhere > 0 && !ranges.is_empty() {
                    text += &format!(", {} of other topics", number(*elsewhere));
                }
                console.yellow(&text)
            }
            Self::Warning { dropped, depth, .. } => console.yellow(&format!(
                "-- this subscription falls behind: {} dropped, {} in its queue",
                count(*dropped, "message"),
                number(*depth),
            )),
            Self::ReplayComplete { topic, replayed, .. } => {
                let replayed = count(*replayed, "message");
                console.dim(&format!("-- {replayed} of {topic} replayed"))
            }
        }
    }
}

fn message_text(console: Console, message: &Message) -> String {
    let mut text = format!("{} #{}", console.bold(message.topic()), message.sequence());
    if message.delivery() != Delivery::Live {
        text += &format!(" ({})", delivery(message.delivery()));
    }
    if let Some(content_type) = message.content_type() {
        text += &format!(" {}", console.dim(content_type));
    }
    for (key, value) in message.headers() {
        let header = format!(" {}={}", printable(key), payload(value));
        text += &console.dim(&header);
    }
    text + ": " + &payload(message.payload())
}

fn delivery(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Retained => "retained",
        Delivery::Replay => "replay",
        _ => "live",
    }
}

/// The word of a reason.
fn reason(reason: GapReason) -> &'static str {
    match reason {
        GapReason::SlowConsumer => "slow_consumer",
        GapReason::ReplayWindow => "replay_window",
        GapReason::LinkLost => "link_lost",
        GapReason::Memory => "memory",
        GapReason::Reconnected => "reconnected",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Its line, once its document is what the schema says.
    fn told(event: &Told<'_>) -> String {
        let schema: Value =
            serde_json::from_str(include_str!("../../schemas/subscribe.json")).expect("JSON");
        let document = serde_json::to_value(event).expect("a document");
        jsonschema::draft202012::validate(&schema, &document).expect("what the schema says");
        event.text(Console::plain())
    }

    #[test]
    fn losses_are_told_with_their_places() {
        let ranges = vec![Range { topic: "a/\u{1b}b", first: 1_001, last: 1_012 }];
        let gap = Told::Gap { reason: "slow_consumer", missed: Some(15), ranges, elsewhere: 3 };
        assert_eq!(
            told(&gap),
            r"-- lost 15 messages (slow_consumer), a/\u{1b}b #1001-#1012, 3 of other topics"
        );
        let gap = Told::Gap { reason: "link_lost", missed: None, ranges: vec![], elsewhere: 0 };
        assert_eq!(told(&gap), "-- lost an unknown number of messages (link_lost)");
    }

    #[test]
    fn warnings_and_replays_are_told() {
        let warning = Told::Warning {
            reason: "slow_consumer",
            dropped: 1,
            expired: 0,
            depth: 9_999,
            limit: 10_000,
            oldest_age_ms: 12,
        };
        let expected = "-- this subscription falls behind: 1 message dropped, 9,999 in its queue";
        assert_eq!(told(&warning), expected);
        let replay = Told::ReplayComplete { topic: "t", replayed: 2, latest_sequence: 7 };
        assert_eq!(told(&replay), "-- 2 messages of t replayed");
        assert_eq!(told(&Told::Unknown), "");
    }
}
