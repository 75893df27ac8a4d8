//! The thread of a shard: a driver, the shard, and the loop that joins them.
//!
//! A thread first asks the kernel for what its driver needs, since that has to be had on the thread that
//! uses it. What came of it is heard by [`ShardThread::granted`], so that one engine can be chosen for
//! all shards of the node; with that, [`ShardThread::serve_on`] lets it begin.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use nexusd_core::io::clock;
use nexusd_core::io::edge::Edge;
use nexusd_core::io::epoll::{EpollDriver, EpollOptions};
use nexusd_core::io::listener::Listener;
use nexusd_core::io::mailbox::{CommandReceiver, CommandSender};
use nexusd_core::io::ring::{UringDriver, UringOptions, UringQueues};
use nexusd_core::{
    Command, Driver, Event, Metrics, Output, Report, Service, Shard, ShardConfig, ShardIndex,
    Wiring,
};

use crate::engine::Engine;
use crate::error::{StartError, StopError};
use crate::{panic_hook, process};

/// Answers of a thread at its start: what the kernel granted, and whether it serves.
const ANSWERS: usize = 2;

/// What a shard thread is made from.
pub(crate) struct ShardThreadConfig {
    pub(crate) index: usize,
    pub(crate) shard: ShardConfig,
    pub(crate) wiring: Wiring,
    /// What it asks the kernel for.
    pub(crate) wanted: Engine,
    /// Microseconds it looks for work before it sleeps.
    pub(crate) spin_us: u32,
    /// The CPU to stay on.
    pub(crate) pin: Option<usize>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) commands: CommandReceiver,
    /// The ways to the loops of all shards, in order.
    pub(crate) shards: Vec<CommandSender>,
    /// The way to the edge.
    pub(crate) edge: Edge,
    /// Gets what the shard reports.
    pub(crate) on_report: Box<dyn FnMut(Report) + Send>,
}

/// A shard that runs, or is about to.
#[derive(Debug)]
pub(crate) struct ShardThread {
    name: String,
    answers: Receiver<Result<(), StartError>>,
    choice: SyncSender<Engine>,
    thread: JoinHandle<io::Result<Metrics>>,
}

impl ShardThread {
    /// Starts the thread, which asks the kernel for what it wants and waits.
    pub(crate) fn start(config: ShardThreadConfig) -> Result<Self, StartError> {
        let name = format!("shard-{}", config.index);
        let (answer, answers) = mpsc::sync_channel(ANSWERS);
        let (choice, chosen) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || run(config, &answer, &chosen))
            .map_err(StartError::system("a thread"))?;
        Ok(Self { name, answers, choice, thread })
    }

    /// Waits for what the kernel said. To be asked once, before [`Self::serve_on`].
    pub(crate) fn granted(&self) -> Result<(), StartError> {
        // A thread that ends without an answer has panicked; its end will say so.
        self.answers.recv().unwrap_or(Ok(()))
    }

    /// Lets it begin, and waits until it serves.
    pub(crate) fn serve_on(&self, engine: Engine) -> Result<(), StartError> {
        // As above.
        let _ = self.choice.send(engine);
        self.answers.recv().unwrap_or(Ok(()))
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end, and returns what was counted by then.
    pub(crate) fn join(self) -> Result<Metrics, StopError> {
        let Self { name, choice, thread, .. } = self;
        // One that never served does not have to.
        drop(choice);
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
    answers: &SyncSender<Result<(), StartError>>,
    chosen: &Receiver<Engine>,
) -> io::Result<Metrics> {
    // There is room for all answers. Nobody hears them where another shard has failed already.
    let answer = |answer| drop(answers.send(answer));
    if let Some(cpu) = config.pin
        && process::stay_on(cpu).is_err()
    {
        answer(Err(StartError::Pin { cpu }));
        return Ok(Metrics::default());
    }
    let ShardThreadConfig { spin_us, listeners, commands, on_report, .. } = config;
    let connections_max = config.shard.limits.connections;
    let options = UringOptions { spin_us, connections_max, ..UringOptions::default() };
    let mut queues = None;
    answer(match config.wanted {
        Engine::Uring => UringQueues::set_up(&options)
            .map(|granted| queues = Some(granted))
            .map_err(StartError::from),
        Engine::Epoll => Ok(()),
    });
    let Ok(engine) = chosen.recv() else {
        return Ok(Metrics::default());
    };
    let own = ShardIndex::new(config.index);
    // Made before the driver and so dropped after it, which may still lend its memory to the kernel.
    let mut shard = Shard::wired(config.shard, config.wiring);
    match queues.filter(|_| engine == Engine::Uring) {
        Some(queues) => {
            let driver = UringDriver::on(queues, &options, listeners, commands, on_report);
            answer(Ok(()));
            serve(driver.among(own, config.shards).beside(config.edge), &mut shard)
        }
        None => {
            let options = EpollOptions { spin_us, connections_max, ..EpollOptions::default() };
            match EpollDriver::new(&options, listeners, commands, on_report) {
                Ok(driver) => {
                    answer(Ok(()));
                    serve(driver.among(own, config.shards).beside(config.edge), &mut shard)
                }
                Err(error) => {
                    answer(Err(StartError::system("an epoll instance")(error)));
                    Ok(Metrics::default())
                }
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
        if let Output::Report(Report::Metrics(metrics)) = output {
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
            answers: mpsc::sync_channel(1).1,
            choice: mpsc::sync_channel(1).0,
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
            mesh: nexusd_core::MeshConfig::default(),
            limits: nexusd_core::Limits::default(),
        });
        let publish = Command::Publish { topic: "$SYS/x".into(), payload: Box::from(*b"1") };
        shard.on_event(clock::now(), Event::Command(publish));
        assert_eq!(last_sample(&mut shard).messages_in, 1);
    }
}
