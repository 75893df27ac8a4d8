//! PUBLISH: one message, acknowledged by the daemon.

use std::time::Duration;

use nexusd_client::Publication;
use serde::Serialize;

use crate::arguments::PublishArguments;
use crate::console::{self, Console};
use crate::error::CliError;
use crate::format::{count, printable};
use crate::input;
use crate::remote::Remote;

/// More than any daemon takes (`--max-payload` is at most that).
const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// What became of a message.
#[derive(Serialize, Debug)]
struct Published<'a> {
    topic: &'a str,
    #[serde(skip)]
    kept: Kept,
    sequence: u64,
    delivered: u32,
    dropped: u32,
    blocked: u32,
}

/// What it is to the topic's retained value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kept {
    Nothing,
    Value,
    Cleared,
}

pub(crate) async fn run(
    arguments: &PublishArguments,
    remote: &Remote,
    console: Console,
) -> Result<(), CliError> {
    let payload = if arguments.payload == "-" {
        // More than that is refused, and not cut off.
        input::everything(PAYLOAD_BYTES_MAX).await?
    } else {
        arguments.payload.clone().into_bytes()
    };
    let mut publication = Publication::new(&arguments.topic, &payload).retain(arguments.retain);
    if let Some(content_type) = &arguments.content_type {
        publication = publication.content_type(content_type);
    }
    if let Some(ttl) = arguments.ttl {
        if ttl.may_be_seconds {
            console::note(&seconds_hint(ttl.time));
        }
        publication = publication.ttl(ttl.time);
    }
    for (key, value) in &arguments.headers {
        publication = publication.header(key, value);
    }
    let client = remote.client().await?;
    let ack = client.send_acked(&publication).await?;
    client.close().await?;
    let published = Published {
        topic: &arguments.topic,
        kept: match (arguments.retain, payload.is_empty()) {
            (false, _) => Kept::Nothing,
            (true, false) => Kept::Value,
            (true, true) => Kept::Cleared,
        },
        sequence: ack.sequence,
        delivered: ack.delivered,
        dropped: ack.dropped,
        blocked: ack.blocked,
    };
    console.show(&published, || published.text())
}

/// As a daemon says it of its settings.
fn seconds_hint(ttl: Duration) -> String {
    let number = ttl.as_millis();
    format!(
        "warning: --ttl {number} is {number}ms: a number without a unit is in milliseconds; write {number}s for \
         seconds"
    )
}

impl Published<'_> {
    fn text(&self) -> String {
        let mut text = format!("message #{} of {}", self.sequence, printable(self.topic));
        text += match self.kept {
            Kept::Nothing => "",
            Kept::Value => ", retained",
            Kept::Cleared => ", which clears the retained value",
        };
        text += &match (self.delivered, self.kept) {
            (0, Kept::Nothing) => ", which nobody wants".to_owned(),
            (0, _) => ", for nobody now".to_owned(),
            // One that waits for its client is one of them, and another node is one whatever it has.
            (wanted, _) => format!(", for {}", count(wanted.into(), "subscription")),
        };
        if self.dropped > 0 {
            text += &format!("; {} had no room for it", count(self.dropped.into(), "full queue"));
        }
        if self.blocked > 0 {
            let queues = count(self.blocked.into(), "full queue");
            text += &format!("; {queues} will hold publishers back");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_got_the_message() {
        let published = Published {
            topic: "t",
            kept: Kept::Nothing,
            sequence: 1_234,
            delivered: 2,
            dropped: 1,
            blocked: 0,
        };
        let expected = "message #1234 of t, for 2 subscriptions; 1 full queue had no room for it";
        assert_eq!(published.text(), expected);
        let unwanted = Published { sequence: 1, delivered: 0, dropped: 0, ..published };
        assert_eq!(unwanted.text(), "message #1 of t, which nobody wants");
        let kept = Published { kept: Kept::Value, ..unwanted };
        assert_eq!(kept.text(), "message #1 of t, retained, for nobody now");
        let cleared = Published { kept: Kept::Cleared, ..kept };
        let expected = "message #1 of t, which clears the retained value, for nobody now";
        assert_eq!(cleared.text(), expected);
    }
}
