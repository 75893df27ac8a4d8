//! A look at several daemons at once: what each says about itself every second, as a table.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdout, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::example::{Example, Streams};

/// How long what is waited for may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Subscribes to the statistics of each daemon, on itself alone.
pub(crate) struct MeshView {
    watched: Vec<Watched>,
}

struct Watched {
    /// The newest document.
    newest: Arc<Mutex<Value>>,
    _subscriber: Example,
}

impl MeshView {
    pub(crate) fn of<'a>(daemons: impl IntoIterator<Item = &'a Daemon>) -> Result<Self> {
        let watched = daemons.into_iter().map(Watched::start).collect::<Result<_>>()?;
        Ok(Self { watched })
    }

    fn documents(&self) -> Vec<Value> {
        let newest = |watched: &Watched| {
            watched.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        self.watched.iter().map(newest).collect()
    }

    /// Waits until these daemons, by their places, know so many peers and what they want, and no others.
    pub(crate) fn wait_for_peers(&self, places: &[usize], peers: u64) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let documents = self.documents();
            let knows = |at: &usize| {
                let mesh = &documents[*at]["mesh"];
                mesh["peers"] == peers && mesh["synced"] == peers
            };
            if places.iter().all(knows) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("not every daemon came to know {peers} others within {TIMEOUT:?}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// A line for each daemon below a line of titles.
    pub(crate) fn table(&self) -> String {
        table(&self.documents())
    }
}

impl Watched {
    fn start(daemon: &Daemon) -> Result<Self> {
        let topic = format!("$SYS/{}/stats", daemon.node().context("no id in the ready line")?);
        let streams = Streams { output: Stdio::piped(), ..Streams::unseen() };
        let mut subscriber = Example::start("subscribe", daemon, &[&topic], streams)?;
        let output = subscriber.child.stdout.take().context("the example has an output")?;
        let newest = Arc::default();
        let kept = Arc::clone(&newest);
        thread::spawn(move || keep(output, &kept));
        Ok(Self { newest, _subscriber: subscriber })
    }
}

/// Reads what the subscriber prints: topic, number and content type, then the document.
fn keep(output: ChildStdout, newest: &Mutex<Value>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let document = line.find('{').and_then(|at| serde_json::from_str(&line[at..]).ok());
        if let Some(document) = document {
            *newest.lock().unwrap_or_else(PoisonError::into_inner) = document;
        }
    }
}

fn table(documents: &[Value]) -> String {
    let mut text =
        String::from("   node  peers      in/s  from peers/s     out/s  core %  memory MB\n");
    for (at, document) in documents.iter().enumerate() {
        let speed = |name: &str| document["per_second"][name].as_f64().unwrap_or(0.0);
        let _ = writeln!(
            text,
            "   {:>4}  {:>5}  {:>8.0}  {:>12.0}  {:>8.0}  {:>6.1}  {:>9.1}",
            at + 1,
            document["mesh"]["synced"].as_u64().unwrap_or(0),
            speed("messages_in"),
            speed("relayed"),
            speed("messages_out"),
            document["cpu_percent"].as_f64().unwrap_or(0.0),
            document["rss_kb"].as_f64().unwrap_or(0.0) / 1_024.0,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_daemon_has_a_line_and_what_is_not_known_yet_is_nothing() {
        let document = json!({
            "mesh": { "peers": 2, "synced": 2 },
            "per_second": { "messages_in": 50_000.4, "relayed": 0.0, "messages_out": 100_000.0 },
            "cpu_percent": 12.3,
            "rss_kb": 8_192,
        });
        let text = table(&[document, Value::Null]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(lines[1]), ["1", "2", "50000", "0", "100000", "12.3", "8.0"]);
        assert_eq!(words(lines[2]), ["2", "0", "0", "0", "0", "0.0", "0.0"]);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
    }
}
