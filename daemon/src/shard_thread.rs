//! The thread of a shard: a driver, the shard, and the loop that joins them.
//!
//! The driver has to be made on the thread that runs it; how that went comes back before
//! [`ShardThread::start`] returns, so that a refused io_uring is known at the start.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nexusd_core::io::clock;
use nexusd_core::io::epoll::{EpollDriver, EpollOptions};
use nexusd_core::io::listener::Listener;
use nexusd_core::io::mailbox::CommandReceiver;
use nexusd_core::io::ring::{UringDriver, UringOptions};
use nexusd_core::{Command, Driver, Event, Metrics, Output, Service, Shard, ShardConfig};

use crate::config::IoEngine;
use crate::engine::{self, Engine};
use crate::error::{StartError, StopError};
use crate::{panic_hook, process};

/// What a shard thread is made from.
pub(crate) struct ShardThreadConfig {
    pub(crate) name: String,
    pub(crate) shard: ShardConfig,
    /// How it is to talk to the kernel.
    pub(crate) io: IoEngine,
    /// Microseconds it looks for work before it sleeps.
    pub(crate) spin_us: u32,
    /// The CPU to stay on.
    pub(crate) pin: Option<usize>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) commands: CommandReceiver,
    /// Gets what the shard counts whenever it was asked for.
    pub(crate) on_metrics: Box<dyn FnMut(Metrics) + Send>,
}

/// A running shard.
#[derive(Debug)]
pub(crate) struct ShardThread {
    name: String,
    engine: Engine,
    thread: JoinHandle<io::Result<Metrics>>,
}

impl ShardThread {
    /// Starts the thread and waits until it serves.
    pub(crate) fn start(config: ShardThreadConfig) -> Result<Self, StartError> {
        let name = config.name.clone();
        let (started, is_started) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || run(config, &started))
            .map_err(StartError::system("a thread"))?;
        // A thread that ends without an answer has panicked; its end will say so.
        let engine = is_started.recv().unwrap_or(Ok(Engine::Uring))?;
        Ok(Self { name, engine, thread })
    }

    /// How it talks to the kernel.
    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end, and returns what was counted by then.
    pub(crate) fn join(self) -> Result<Metrics, StopError> {
        let Self { name, thread, .. } = self;
        match thread.join() {
            Ok(Ok(metrics)) => Ok(metrics),
            Ok(Err(source)) => Err(StopError::Failed { thread: name, source }),
            Err(panic) => {
                Err(StopError::Panicked { thread: name, reason: panic_hook::reason(&*panic) })
            }
        }
    }
}

fn run(
    config: ShardThreadConfig,
    started: &mpsc::SyncSender<Result<Engine, StartError>>,
) -> io::Result<Metrics> {
    // The receiver waits for exactly one answer, so it is there.
    let answer = |answer| drop(started.send(answer));
    let failed = |error| {
        answer(Err(error));
        Ok(Metrics::default())
    };
    if let Some(cpu) = config.pin
        && process::stay_on(cpu).is_err()
    {
        return failed(StartError::Pin { cpu });
    }
    let ShardThreadConfig { shard, io, spin_us, listeners, commands, on_metrics, .. } = config;
    let connections_max = shard.limits.connections;
    let options = UringOptions { spin_us, connections_max, ..UringOptions::default() };
    let queues = match engine::grant(io, &options) {
        Ok(queues) => queues,
        Err(refusal) => return failed(refusal.into()),
    };
    // Made before the driver and so dropped after it, which may still lend its memory to the kernel.
    let mut shard = Shard::new(shard);
    match queues {
        Some(queues) => {
            let driver = UringDriver::on(queues, &options, listeners, commands, on_metrics);
            answer(Ok(Engine::Uring));
            serve(driver, &mut shard)
        }
        None => {
            let options = EpollOptions { spin_us, connections_max, ..EpollOptions::default() };
            match EpollDriver::new(&options, listeners, commands, on_metrics) {
                Ok(driver) => {
                    answer(Ok(Engine::Epoll));
                    serve(driver, &mut shard)
                }
                Err(error) => failed(StartError::system("an epoll instance")(error)),
            }
        }
    }
}

fn serve(mut driver: impl Driver<Error = io::Error>, shard: &mut Shard) -> io::Result<Metrics> {
    nexusd_core::run(&mut driver, shard)?;
    let metrics = last_sample(shard);
    driver.finish(shard)?;
    Ok(metrics)
}

/// What a shard counted until its end, when no loop turns any more to ask it.
fn last_sample(shard: &mut impl Service) -> Metrics {
    shard.on_event(clock::now(), Event::Command(Command::Sample));
    while let Some(output) = shard.poll_output() {
        if let Output::Metrics(metrics) = output {
            return *metrics;
        }
    }
    Metrics::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_panicked_is_reported_with_its_name_and_reason() {
        let shard = ShardThread {
            name: "shard-0".to_owned(),
            engine: Engine::Uring,
            thread: thread::spawn(|| panic!("the log lost segment {}", 7)),
        };
        let error = shard.join().expect_err("a panic");
        assert_eq!(error.to_string(), "shard-0 panicked: the log lost segment 7");
    }

    #[test]
    fn counters_are_had_from_a_shard_that_no_loop_drives() {
        let mut shard = Shard::new(ShardConfig {
            node: nexusd_wire::NodeId(1),
            cluster: "default".to_owned(),
            software: "test".to_owned(),
            seed: 1,
            limits: nexusd_core::Limits::default(),
        });
        let publish = Command::Publish { topic: "$SYS/x".into(), payload: Box::from(*b"1") };
        shard.on_event(clock::now(), Event::Command(publish));
        assert_eq!(last_sample(&mut shard).messages_in, 1);
    }
}
