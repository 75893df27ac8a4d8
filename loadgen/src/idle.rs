//! Workload S: very many idle clients, each a connection with one subscription, what they cost, and
//! how long it takes until all of them are back after all of them were dropped at once.
//!
//! The clients live in processes of their own (`idle/clients.rs`), because a process may open only
//! so many files. This side says when they connect and drop, takes the time, and looks at the
//! server's memory in between. In the end one message is published to each client's topic: exactly
//! it must come, to it alone and once.
//! Kernel memory is what the machine's slabs grew by, so it is both ends of every connection, and
//! everybody else's doing as well.

pub(crate) mod clients;

use std::fs;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::connection::Endpoint;
use crate::error::LoadError;
use crate::hiccup::Hiccups;
use crate::latency::Latencies;
use crate::measurement::Measurement;
use crate::mesh::MeshFigures;
use crate::nodes::NodeCost;
use crate::process::Process;
use crate::sequence_check::Faults;
use crate::server::Server;
use crate::server::account::kilobytes;
use crate::target::{FramingTotals, Introduction, PublisherEnd, Target, TargetFraming, TopicNames};
use crate::topic_walk::Step;
use crate::workload::Case;

/// Clients of one process.
const CLIENTS_PER_PROCESS: usize = 2_500;
/// Time for memory to settle before it is looked at.
const SETTLE: Duration = Duration::from_secs(1);
/// How long all clients together may take to connect. Where a server's queue of connections is short, the kernel
/// tries again after 1, 3, 7, 15, 31 and 63 seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(100);
/// How long anything else may take that a process is told to do.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last message may take to its client.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// File descriptors of a server that are not its clients'.
const FILES_RESERVED: u64 = 128;

/// What idle clients cost; all of it `null` in other workloads.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(crate) struct IdleFigures {
    /// Clients, each with a connection and a subscription.
    pub(crate) clients: Option<usize>,
    /// Time until all were subscribed.
    pub(crate) connect_s: Option<f64>,
    /// Time from dropping all at once until all were subscribed again.
    pub(crate) reconnect_s: Option<f64>,
    /// Growth of the server's resident memory; `null` where its process is not known.
    pub(crate) user_bytes_per_client: Option<f64>,
    /// Growth of the kernel's slabs, for both ends of a connection; `null` where it is not told.
    pub(crate) kernel_bytes_per_client: Option<f64>,
}

/// What a process of clients answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// All of its clients are subscribed.
    Subscribed,
    /// None of them has a connection any more.
    Dropped,
    /// What came for them so far.
    Received {
        /// Messages in all.
        messages: u64,
        /// Clients that got exactly their message, once.
        exactly: u64,
    },
    /// Some client cannot go on.
    Failed(String),
}

/// Connections that a server started for `clients` clients should take: old ones may still be there
/// when all come back. No more than it can open.
pub(crate) fn connections_wanted(clients: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let openable = usize::try_from(limit.saturating_sub(FILES_RESERVED)).unwrap_or(usize::MAX);
    (clients * 2 + 64).min(openable)
}

/// Runs workload S. `watch` is told now and then which share of the steps is done.
pub(crate) fn measure(
    case: &Case,
    target: Target,
    server: &Server,
    run_name: &str,
    watch: &mut dyn FnMut(f64),
) -> Result<Measurement, LoadError> {
    let endpoint = server.endpoint(case.transport)?;
    let count = case.shape.fan_out;
    let mut clients = Processes::start(target, count, &endpoint, run_name)?;
    thread::sleep(SETTLE);
    let before = Memory::look(server);

    let connect_s = clients.connect()?;
    watch(0.3);
    thread::sleep(SETTLE);
    let after = Memory::look(server);
    watch(0.5);

    let start = Instant::now();
    clients.drop_all()?;
    clients.connect()?;
    let reconnect_s = start.elapsed().as_secs_f64();
    watch(0.8);

    let start = Instant::now();
    let publisher = publish_to_each(case, target, &endpoint, run_name)?;
    let (received, exactly) = clients.await_messages()?;
    // Only now: a connection that closes may take what was sent last with it.
    drop(publisher);
    let elapsed_s = start.elapsed().as_secs_f64();
    let sent = count as u64;
    let per_client = |before: Option<u64>, after: Option<u64>| {
        Some((after? as f64 - before? as f64) / count as f64)
    };
    Ok(Measurement {
        elapsed_s,
        sent,
        received,
        sent_in_all: sent,
        unsent: 0,
        faults: Faults {
            lost: sent.saturating_sub(exactly),
            duplicated: received.saturating_sub(exactly),
            ..Faults::default()
        },
        totals: FramingTotals::default(),
        latencies: Latencies::default(),
        send_latencies: Latencies::default(),
        nodes: vec![NodeCost { core: server.core, cpu: None, memory: server.account.memory() }],
        load_cpu: None,
        other_cpu_ns: None,
        server_sends: None,
        hiccups: Hiccups::default(),
        core_distance_ns: None,
        stalled: None,
        flood: None,
        acks: None,
        comebacks: None,
        idle: IdleFigures {
            clients: Some(count),
            connect_s: Some(connect_s),
            reconnect_s: Some(reconnect_s),
            user_bytes_per_client: per_client(before.server, after.server),
            kernel_bytes_per_client: per_client(before.kernel, after.kernel),
        },
        mesh: MeshFigures::default(),
        not_converged: None,
    })
}

/// The name of a client's topic, which is its filter. They are of one length up to a million clients, which no
/// host has sockets for.
fn topic(run_name: &str, client: usize) -> String {
    format!("{run_name}/{client:06}")
}

/// Publishes one message to the topic of each client, with its number.
fn publish_to_each(
    case: &Case,
    target: Target,
    endpoint: &Endpoint,
    run_name: &str,
) -> Result<PublisherEnd<TargetFraming>, LoadError> {
    let introduction = Introduction { endpoint, lane: 0, payload_bytes: case.size };
    let count = case.shape.fan_out as u64;
    let mut topics = TopicNames {
        count: case.shape.fan_out as u32,
        name: &|client| topic(run_name, client as usize),
        watch: &mut |_| {},
    };
    let publisher = target.publish(&introduction, &mut topics)?;
    let mut batch = Batch::new(publisher.template.clone(), case.batch);
    let mut sent = 0;
    while sent < count {
        let next = (count - sent).min(batch.capacity());
        let step = |n| Step { topic: n as u32, number: 0 };
        let bytes = batch.prepare(sent, next, 0, |_| 0, step);
        publisher
            .connection
            .send_all(bytes, || false)
            .map_err(|source| LoadError::Connection { role: "publisher", source })?;
        sent += next;
    }
    Ok(publisher)
}

/// Memory, in bytes.
struct Memory {
    server: Option<u64>,
    kernel: Option<u64>,
}

impl Memory {
    fn look(server: &Server) -> Self {
        let slab = fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|meminfo| kilobytes(&meminfo, "Slab:"));
        Self {
            server: server.account.resident_bytes(),
            kernel: slab.map(|kilobytes| kilobytes << 10),
        }
    }
}

/// The processes that the clients live in.
struct Processes {
    processes: Vec<Process>,
    endpoint: String,
}

impl Processes {
    fn start(
        target: Target,
        clients: usize,
        endpoint: &Endpoint,
        run_name: &str,
    ) -> Result<Self, LoadError> {
        let processes: Result<Vec<_>, _> = (0..clients)
            .step_by(CLIENTS_PER_PROCESS)
            .map(|first| {
                let last = clients.min(first + CLIENTS_PER_PROCESS);
                let at = match endpoint {
                    Endpoint::Tcp(address) => ["--addr".to_owned(), address.to_string()],
                    Endpoint::Unix(name) => ["--unix".to_owned(), name.clone()],
                };
                let mut arguments = vec!["idle-clients".to_owned()];
                arguments.extend(["--target".to_owned(), target.name().to_owned()]);
                arguments.extend(at);
                arguments.extend(["--run-name".to_owned(), run_name.to_owned()]);
                arguments.extend(["--first".to_owned(), first.to_string()]);
                arguments.extend(["--count".to_owned(), (last - first).to_string()]);
                Process::start(&arguments)
            })
            .collect();
        let processes = processes.map_err(|source| LoadError::System {
            what: "cannot start a process of idle clients",
            source,
        })?;
        Ok(Self { processes, endpoint: endpoint.to_string() })
    }

    /// Connects all clients, at once, and says how many seconds that took.
    fn connect(&mut self) -> Result<f64, LoadError> {
        let start = Instant::now();
        self.tell_all("connect")?;
        for answer in self.answers(CONNECT_TIMEOUT)? {
            self.expect(&answer, &Answer::Subscribed)?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn drop_all(&mut self) -> Result<(), LoadError> {
        self.tell_all("drop")?;
        for answer in self.answers(ANSWER_TIMEOUT)? {
            self.expect(&answer, &Answer::Dropped)?;
        }
        Ok(())
    }

    /// Waits until every client has a message. Returns how many came in all, and how many clients
    /// have exactly their own.
    fn await_messages(&mut self) -> Result<(u64, u64), LoadError> {
        let deadline = Instant::now() + DELIVERY_TIMEOUT;
        let mut before = 0;
        loop {
            let (mut messages, mut exactly) = (0, 0);
            self.tell_all("count")?;
            for answer in self.answers(ANSWER_TIMEOUT)? {
                match answer {
                    Answer::Received { messages: came, exactly: right } => {
                        messages += came;
                        exactly += right;
                    }
                    other => return Err(self.failed(&other)),
                }
            }
            // It is over when nothing has come since the last look.
            let is_over = messages > 0 && messages == before;
            if is_over || Instant::now() > deadline {
                return Ok((messages, exactly));
            }
            before = messages;
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn tell_all(&mut self, line: &str) -> Result<(), LoadError> {
        for process in &mut self.processes {
            process.tell(line).map_err(|source| LoadError::System {
                what: "a process of idle clients has ended",
                source,
            })?;
        }
        Ok(())
    }

    fn answers(&self, timeout: Duration) -> Result<Vec<Answer>, LoadError> {
        let deadline = Instant::now() + timeout;
        let answer = |process: &Process| {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = process.answer(left).map_err(|error| match error {
                RecvTimeoutError::Timeout => format!("no answer within {} s", timeout.as_secs()),
                RecvTimeoutError::Disconnected => "their process has ended".to_owned(),
            })?;
            serde_json::from_str(&line).map_err(|error| error.to_string())
        };
        self.processes
            .iter()
            .map(|process| answer(process).map_err(|cause| self.failed(&Answer::Failed(cause))))
            .collect()
    }

    fn expect(&self, answer: &Answer, wanted: &Answer) -> Result<(), LoadError> {
        if answer == wanted { Ok(()) } else { Err(self.failed(answer)) }
    }

    fn failed(&self, answer: &Answer) -> LoadError {
        let cause = match answer {
            Answer::Failed(cause) => cause.clone(),
            other => format!("an answer out of turn: {other:?}"),
        };
        LoadError::IdleClients { endpoint: self.endpoint.clone(), cause }
    }
}
