//! One run: three processes, started, waited for, and believed only if every message came through.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::process::{Failure, Way};
use crate::{clients, forwarder, process};

/// What is published.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// As much as goes, for so long.
    Unlimited(Duration),
    /// One message every interval, so many in all.
    Paced(Duration, u64),
}

/// A run that is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    way: Way,
    payload_bytes: usize,
    load: Load,
    /// How long the server looks for work before it sleeps.
    poll_for: Duration,
}

/// What a run gave, its warm-up left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    messages: f64,
    wall_s: f64,
    processor_s: f64,
    /// Latency from the intended time, in microseconds; not a number at an unlimited rate.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Outcome {
    /// Messages per second that the server's process was on a processor.
    pub(crate) fn per_processor_s(&self) -> f64 {
        self.messages / self.processor_s
    }

    /// Messages per second.
    pub(crate) fn per_s(&self) -> f64 {
        self.messages / self.wall_s
    }
}

impl Run {
    pub(crate) fn new(way: Way, payload_bytes: usize, load: Load, poll_for: Duration) -> Self {
        Self { way, payload_bytes, load, poll_for }
    }

    /// Makes the run. Fails if a message was lost, repeated or misplaced, or the rate was not reached.
    pub(crate) fn measure(&self) -> Result<Outcome, Failure> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let name = format!("nexusd-shm-{}-{number}", std::process::id());
        let way = self.way.name();
        let poll_us = self.poll_for.as_micros().to_string();
        let receive_bytes = process::write_bytes(self.payload_bytes).to_string();
        let mut server = Started::new(&["forwarder", &name, way, &poll_us, &receive_bytes])?;
        server.wait_until_ready()?;
        let bytes = self.payload_bytes.to_string();
        let (subscriber, publisher) = match self.load {
            Load::Unlimited(duration) => {
                let duration = (duration + process::WARM_UP).as_millis().to_string();
                (
                    Started::new(&["subscriber", &name, way])?,
                    Started::new(&["publisher", &name, way, &bytes, &duration])?,
                )
            }
            Load::Paced(interval, messages) => {
                let skipped = (process::WARM_UP.as_nanos() / interval.as_nanos()).to_string();
                let (interval, messages) = (interval.as_nanos().to_string(), messages.to_string());
                (
                    Started::new(&["subscriber", &name, way, &skipped])?,
                    Started::new(&["publisher", &name, way, &bytes, &interval, &messages])?,
                )
            }
        };
        let sent = publisher.report()?;
        let served = server.report()?;
        let received = subscriber.report()?;
        let number = |report: &HashMap<String, f64>, key: &str| {
            report.get(key).copied().ok_or_else(|| format!("the run was too short to say {key}"))
        };
        let lost = number(&sent, "sent")? - number(&received, "received")?;
        let total = number(&served, "total")?;
        let astray = number(&received, "misplaced")? + number(&received, "stashed")?;
        if lost != 0.0 || astray != 0.0 || total != number(&sent, "sent")? {
            return Err(format!("not loss-free: {sent:?} {served:?} {received:?}").into());
        }
        if sent.get("took").is_some_and(|took| *took > 1.01) {
            return Err(format!("the rate was not reached: {sent:?}").into());
        }
        Ok(Outcome {
            messages: number(&served, "messages")?,
            wall_s: number(&served, "wall_ns")? / 1e9,
            processor_s: number(&served, "processor_ns")? / 1e9,
            p50_us: number(&received, "p50_us")?,
            p99_us: number(&received, "p99_us")?,
        })
    }
}

/// What a process that [`Run::measure`] started is to do, if `arguments` say so; it ends with a report.
pub(crate) fn role(arguments: &[&str]) -> Option<Result<String, Failure>> {
    let role = match arguments {
        ["forwarder", name, way, poll_us, bytes] => parsed_forwarder(name, way, poll_us, bytes),
        ["subscriber", name, way, skipped @ ..] if skipped.len() < 2 => {
            parsed_subscriber(name, way, skipped.first())
        }
        ["publisher", name, way, bytes, duration] => parsed_publisher(name, way, bytes, duration),
        ["publisher", name, way, bytes, interval, messages] => {
            parsed_pacer(name, way, bytes, interval, messages)
        }
        _ => return None,
    };
    Some(role)
}

/// The way of this name.
pub(crate) fn way(name: &str) -> Result<Way, Failure> {
    Way::from_name(name).ok_or_else(|| format!("no such way: {name}").into())
}

fn parsed_forwarder(
    name: &str,
    way_name: &str,
    poll_us: &str,
    bytes: &str,
) -> Result<String, Failure> {
    process::bound_life();
    forwarder::serve(name, way(way_name)?, Duration::from_micros(poll_us.parse()?), bytes.parse()?)
}

fn parsed_subscriber(
    name: &str,
    way_name: &str,
    skipped: Option<&&str>,
) -> Result<String, Failure> {
    process::bound_life();
    let skipped = skipped.map(|skipped| skipped.parse()).transpose()?;
    clients::subscribe(name, way(way_name)?, skipped)
}

fn parsed_publisher(
    name: &str,
    way_name: &str,
    bytes: &str,
    duration: &str,
) -> Result<String, Failure> {
    process::bound_life();
    let duration = Duration::from_millis(duration.parse()?);
    clients::publish_for(name, way(way_name)?, bytes.parse()?, duration)
}

fn parsed_pacer(
    name: &str,
    way_name: &str,
    bytes: &str,
    interval: &str,
    messages: &str,
) -> Result<String, Failure> {
    process::bound_life();
    let interval = Duration::from_nanos(interval.parse()?);
    clients::publish_at(name, way(way_name)?, bytes.parse()?, interval, messages.parse()?)
}

/// A process of a run; killed if the run ends before it does.
struct Started {
    what: String,
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Started {
    fn new(arguments: &[&str]) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("a child without its output")?;
        Ok(Self { what: arguments.join(" "), child, out: BufReader::new(out) })
    }

    fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        if line.trim() == "ready" {
            Ok(())
        } else {
            Err(format!("{}: not ready", self.what).into())
        }
    }

    /// What it says at its end: words of the form `key=number`.
    fn report(mut self) -> Result<HashMap<String, f64>, Failure> {
        let mut words = String::new();
        self.out.read_to_string(&mut words)?;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("{}: {status}", self.what).into());
        }
        let numbers = words.split_whitespace().filter_map(|word| {
            let (key, number) = word.split_once('=')?;
            Some((String::from(key), number.parse().ok()?))
        });
        Ok(numbers.collect())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // One that has ended already is not there to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
