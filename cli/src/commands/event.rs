//! What comes of a subscription, as a document and as a line of text.

use nexusd_client::{Delivery, Event, Gap, GapReason, Message};
use serde_json::{Value, json};

use crate::console::Console;
use crate::format::{count, number, payload};

/// The document of an event; its `event` says what it is.
pub(crate) fn document(event: &Event) -> Value {
    match event {
        Event::Message(message) => message_document(message),
        Event::Gap(gap) => json!({
            "event": "gap",
            "reason": reason(gap.reason),
            "missed": gap.missed,
            "ranges": gap.ranges.iter().map(|range| json!({
                "topic": &*range.topic, "first": range.first, "last": range.last,
            })).collect::<Vec<_>>(),
            "elsewhere": gap.elsewhere,
        }),
        Event::Warning(warning) => json!({
            "event": "warning",
            "reason": reason(warning.reason),
            "dropped": warning.dropped,
            "expired": warning.expired,
            "depth": warning.depth,
            "limit": warning.limit,
            "oldest_age_ms": u64::try_from(warning.oldest_age.as_millis()).unwrap_or(u64::MAX),
        }),
        Event::ReplayComplete(replay) => json!({
            "event": "replay_complete",
            "topic": &*replay.topic,
            "replayed": replay.replayed,
            "latest_sequence": replay.latest_sequence,
        }),
        _ => json!({ "event": "unknown" }),
    }
}

/// The line of an event.
pub(crate) fn text(console: Console, event: &Event) -> String {
    match event {
        Event::Message(message) => message_text(console, message),
        Event::Gap(gap) => console.yellow(&gap_text(gap)),
        Event::Warning(warning) => console.yellow(&format!(
            "-- this subscription falls behind: {} dropped, {} in its queue",
            count(warning.dropped, "message"),
            number(warning.depth),
        )),
        Event::ReplayComplete(replay) => {
            let replayed = count(replay.replayed, "message");
            console.dim(&format!("-- {replayed} of {} replayed", replay.topic))
        }
        _ => String::new(),
    }
}

fn message_document(message: &Message) -> Value {
    let headers: serde_json::Map<String, Value> = message
        .headers()
        .map(|(key, value)| (key.to_owned(), String::from_utf8_lossy(value).into()))
        .collect();
    let mut document = json!({
        "event": "message",
        "topic": message.topic(),
        "sequence": message.sequence(),
        "origin": message.origin().to_string(),
        "delivery": delivery(message.delivery()),
        "timestamp_us": message.timestamp_us(),
        "content_type": message.content_type(),
        "correlation_id": message.correlation_id(),
        "headers": headers,
        "ttl_ms": message.ttl().map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        "size": message.payload().len(),
    });
    // What is no text has no place in JSON but as numbers.
    document["payload"] = std::str::from_utf8(message.payload()).ok().into();
    document["payload_bytes"] = match std::str::from_utf8(message.payload()) {
        Ok(_) => Value::Null,
        Err(_) => message.payload().into(),
    };
    document
}

fn message_text(console: Console, message: &Message) -> String {
    let mut text = format!("{} {}", console.bold(message.topic()), number(message.sequence()));
    if message.delivery() != Delivery::Live {
        text += &format!(" ({})", delivery(message.delivery()));
    }
    if let Some(content_type) = message.content_type() {
        text += &format!(" {}", console.dim(&payload(content_type.as_bytes())));
    }
    for (key, value) in message.headers() {
        let header = format!(" {}={}", payload(key.as_bytes()), payload(value));
        text += &console.dim(&header);
    }
    text + ": " + &payload(message.payload())
}

fn gap_text(gap: &Gap) -> String {
    let missed = match gap.missed {
        Some(missed) => count(missed, "message"),
        None => "an unknown number of messages".to_owned(),
    };
    let mut text = format!("-- lost {missed} ({})", reason(gap.reason));
    for range in &gap.ranges {
        text += &format!(", {} {}-{}", range.topic, number(range.first), number(range.last));
    }
    text
}

fn delivery(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Retained => "retained",
        Delivery::Replay => "replay",
        _ => "live",
    }
}

/// The word of a reason.
pub(crate) fn reason(reason: GapReason) -> &'static str {
    match reason {
        GapReason::SlowConsumer => "slow_consumer",
        GapReason::ReplayWindow => "replay_window",
        GapReason::LinkLost => "link_lost",
        GapReason::Memory => "memory",
        GapReason::Reconnected => "reconnected",
        _ => "unknown",
    }
}
