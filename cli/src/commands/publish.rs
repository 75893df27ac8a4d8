//! PUBLISH: one message, acknowledged by the daemon.

use std::io::Read as _;

use nexusd_client::Publication;
use serde::Serialize;

use crate::arguments::PublishArguments;
use crate::console::Console;
use crate::error::CliError;
use crate::format::{count, number};
use crate::remote::Remote;

/// More than any daemon takes (`--max-payload` is at most that).
const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

/// What became of a message.
#[derive(Serialize, Debug)]
struct Published<'a> {
    topic: &'a str,
    sequence: u64,
    delivered: u32,
    dropped: u32,
    blocked: u32,
}

pub(crate) async fn run(
    arguments: &PublishArguments,
    remote: &Remote,
    console: Console,
) -> Result<(), CliError> {
    let payload = if arguments.payload == "-" {
        let mut payload = Vec::new();
        // One byte more, so that what is too large is refused and not cut off.
        std::io::stdin().lock().take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut payload)?;
        payload
    } else {
        arguments.payload.clone().into_bytes()
    };
    let mut publication = Publication::new(&arguments.topic, &payload).retain(arguments.retain);
    if let Some(content_type) = &arguments.content_type {
        publication = publication.content_type(content_type);
    }
    if let Some(ttl) = arguments.ttl {
        publication = publication.ttl(ttl);
    }
    for (key, value) in &arguments.headers {
        publication = publication.header(key, value);
    }
    let client = remote.client().await?;
    let ack = client.send_acked(&publication).await?;
    client.close().await?;
    let published = Published {
        topic: &arguments.topic,
        sequence: ack.sequence,
        delivered: ack.delivered,
        dropped: ack.dropped,
        blocked: ack.blocked,
    };
    console.show(&published, || published.text())
}

impl Published<'_> {
    fn text(&self) -> String {
        let mut text = format!("message {} of {}", number(self.sequence), self.topic);
        text += &match self.delivered {
            0 => ", which nobody wants".to_owned(),
            wanted => format!(", for {}", count(wanted.into(), "subscriber")),
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
        let published =
            Published { topic: "t", sequence: 1_234, delivered: 2, dropped: 1, blocked: 0 };
        let expected = "message 1,234 of t, for 2 subscribers; 1 full queue had no room for it";
        assert_eq!(published.text(), expected);
        let published = Published { topic: "t", sequence: 1, delivered: 0, dropped: 0, blocked: 0 };
        assert_eq!(published.text(), "message 1 of t, which nobody wants");
    }
}
