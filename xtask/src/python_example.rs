//! The clients in docs/examples/python were written from docs/PROTOCOL.md alone. That a message goes
//! from one to the other through a real daemon proves that the document is enough.

use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::daemon::Daemon;
use crate::invocation::Invocation;
use crate::{cores, repository};

const FOLDER: &str = "docs/examples/python";
const TOPIC: &str = "plant/boiler/temperature";
const PAYLOAD: &str = "21.5 °C";
/// Messages the subscriber waits for.
const MESSAGES: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(30);

/// Fails unless the subscriber prints what the publisher sends.
pub(crate) fn check() -> Result<()> {
    Invocation::cargo().args(["build", "--locked", "--package", "nexusd"]).run()?;
    let (daemon_core, _) = cores::for_daemon_and_load();
    let daemon = Daemon::start(&repository::target().join("debug/nexusd"), daemon_core)?;

    let subscriber = Invocation::new("python3").arg(format!("{FOLDER}/subscribe.py")).args([
        &daemon.address,
        "plant/+/temperature",
        "--count",
        &MESSAGES.to_string(),
    ]);
    eprintln!("$ {} &", subscriber.line());
    let mut subscriber = subscriber
        .into_command()
        .stdout(Stdio::piped())
        .spawn()
        .context("python3 could not be started")?;
    let mut printed = subscriber.stdout.take().context("the subscriber has a standard output")?;

    // What is published before it has subscribed is not for it: publish until it has its share.
    let deadline = Instant::now() + TIMEOUT;
    let published = loop {
        match subscriber.try_wait().context("cannot ask after the subscriber")? {
            Some(status) if status.success() => break Ok(()),
            Some(status) => break Err(anyhow::anyhow!("the subscriber ended badly: {status}")),
            None if Instant::now() > deadline => {
                break Err(anyhow::anyhow!(
                    "the subscriber had no {MESSAGES} messages in {TIMEOUT:?}"
                ));
            }
            None => {}
        }
        let publisher = Invocation::new("python3").arg(format!("{FOLDER}/publish.py")).args([
            daemon.address.as_str(),
            TOPIC,
            PAYLOAD,
        ]);
        if let Err(error) = publisher.run() {
            break Err(error);
        }
    };
    if published.is_err() {
        // It may be waiting still; if it has ended there is nothing to kill.
        let _ = subscriber.kill();
        let _ = subscriber.wait();
    }
    published?;
    let mut text = String::new();
    printed.read_to_string(&mut text).context("what the subscriber printed cannot be read")?;
    print!("{text}");
    check_lines(&text)?;
    daemon.stop()
}

/// Each line is `topic sequence payload`, with sequences that follow each other.
fn check_lines(text: &str) -> Result<()> {
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() != MESSAGES {
        bail!("the subscriber printed {} lines, not {MESSAGES}", lines.len());
    }
    let mut before = None;
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let (topic, sequence, payload) = (words.next(), words.next(), words.next());
        let sequence = sequence.and_then(|word| word.parse::<u64>().ok());
        let follows = match (before, sequence) {
            (Some(before), Some(now)) => now == before + 1,
            (None, now) => now.is_some(),
            (Some(_), None) => false,
        };
        if (topic, payload) != (Some(TOPIC), Some(PAYLOAD)) || !follows {
            bail!("the subscriber printed `{line}`, not `{TOPIC} SEQUENCE {PAYLOAD}` in order");
        }
        before = sequence;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(sequences: [&str; MESSAGES]) -> String {
        sequences.map(|sequence| format!("{TOPIC} {sequence} {PAYLOAD}\n")).concat()
    }

    #[test]
    fn messages_in_order_are_accepted_and_nothing_else() {
        assert!(check_lines(&lines(["1", "2", "3"])).is_ok());
        assert!(check_lines(&lines(["4", "5", "6"])).is_ok());
        assert!(check_lines(&lines(["1", "3", "4"])).is_err());
        assert!(check_lines(&lines(["1", "2", "x"])).is_err());
        assert!(check_lines("").is_err());
        assert!(check_lines(&lines(["1", "2", "3"]).replace("21.5", "21.6")).is_err());
    }
}
