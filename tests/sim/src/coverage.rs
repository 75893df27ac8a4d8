//! What runs have exercised, counted: outputs, events, frames both ways, policies, errors, faults.
//!
//! Coverage is what makes "no violation" mean something: a table with a zero in it is a run that
//! never looked.

use std::fmt::Write;
use std::ops::AddAssign;

use nexusd_wire::FrameKind;
use nexusd_wire::control::{ErrorCode, GapReason, OverflowPolicy};

macro_rules! marks {
    ($($variant:ident = $group:literal $name:literal,)*) => {
        /// One thing that can happen in a run.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Mark {
            $(#[doc = $name] $variant,)*
        }

        const MARKS: &[(&str, &str)] = &[$(($group, $name),)*];
    };
}

marks! {
    OutputSend = "output" "Send",
    OutputClose = "output" "Close",
    OutputPauseReceive = "output" "PauseReceive",
    OutputResumeReceive = "output" "ResumeReceive",
    OutputReceiveInPlace = "output" "ReceiveInPlace",
    OutputStopAccepting = "output" "StopAccepting",
    OutputMetrics = "output" "Metrics",
    EventOpened = "event" "Opened",
    EventReceived = "event" "Received",
    EventLanded = "event" "Landed",
    EventSent = "event" "Sent",
    EventWritable = "event" "Writable",
    EventClosed = "event" "Closed",
    EventCommand = "event" "Command",
    EventInbox = "event" "Inbox",
    EventTick = "event" "Tick",
    FullTurn = "bound" "a turn had more sends than fit it",
    FullSend = "bound" "a send had as many slices as fit it",
    LongSend = "bound" "a send had as many bytes as fit it",
    Flood = "bound" "a client asked for more answers than it was read for",
    SecondDrain = "fault" "draining was asked for twice",
    ShortSend = "fault" "a send took only some of the bytes",
    BlockedSend = "fault" "a send was told that the socket is full",
    Reset = "fault" "a connection was reset",
    ResetWhileSending = "fault" "a connection was reset while a send ran",
    EndOfStream = "fault" "a client closed its end",
    Stall = "fault" "a reader stalled",
    Freeze = "fault" "a client froze",
    LateBytes = "fault" "bytes came after PauseReceive",
    LateLanding = "fault" "bytes came beside a landing zone",
    LateWake = "fault" "a tick came late",
    WallJump = "fault" "the wall clock jumped",
    Reconnect = "fault" "a client came back",
    DrainMidway = "fault" "draining began in the middle of traffic",
    LargeFrame = "memory" "a large frame was delivered",
    Evacuation = "memory" "a segment was evacuated",
    MemoryGap = "memory" "messages were dropped for memory, and told",
    NoMemory = "memory" "a publish was refused for want of memory",
    BlockTimeout = "policy" "a block queue dropped after its timeout",
    PublisherPaused = "policy" "a publisher was held back",
    ManyTopicsGap = "policy" "a gap had more topics than entries",
    RefusedPublish = "policy" "a publish was refused",
    RefusedConnection = "policy" "a connection was refused",
    Expired = "policy" "a message expired in a queue",
    Resumed = "policy" "a client came back for a subscription",
    ToldPositions = "policy" "a subscription told positions",
    TakeOver = "fault" "a connection was left standing",
    Moved = "policy" "a connection moved to another shard",
    Offence = "policy" "a client broke the protocol",
    SilentClosed = "policy" "a silent client was given up",
    AckAccepted = "ack" "accepted",
    AckBlocked = "ack" "accepted into a full block queue",
    AckRefused = "ack" "refused",
}

/// Counts, over any number of runs.
#[derive(Clone, Debug)]
pub struct Coverage {
    marks: Vec<u64>,
    to_daemon: [u64; 256],
    to_client: [u64; 256],
    subscribed: [u64; 4],
    overflowed: [u64; 4],
    gaps: [u64; 4],
    errors: [u64; 16],
    deliveries: u64,
    operations: u64,
    fewest_operations: u64,
    fewest_faults: u64,
    seeds: u64,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            marks: vec![0; MARKS.len()],
            to_daemon: [0; 256],
            to_client: [0; 256],
            subscribed: [0; 4],
            overflowed: [0; 4],
            gaps: [0; 4],
            errors: [0; 16],
            deliveries: 0,
            operations: 0,
            fewest_operations: u64::MAX,
            fewest_faults: u64::MAX,
            seeds: 0,
        }
    }
}

impl AddAssign for Coverage {
    fn add_assign(&mut self, other: Self) {
        // Taken apart completely, so that no count can be forgotten.
        let Self {
            marks,
            to_daemon,
            to_client,
            subscribed,
            overflowed,
            gaps,
            errors,
            deliveries,
            operations,
            fewest_operations,
            fewest_faults,
            seeds,
        } = other;
        add_each(&mut self.marks, &marks);
        add_each(&mut self.to_daemon, &to_daemon);
        add_each(&mut self.to_client, &to_client);
        add_each(&mut self.subscribed, &subscribed);
        add_each(&mut self.overflowed, &overflowed);
        add_each(&mut self.gaps, &gaps);
        add_each(&mut self.errors, &errors);
        self.deliveries += deliveries;
        self.operations += operations;
        self.fewest_operations = self.fewest_operations.min(fewest_operations);
        self.fewest_faults = self.fewest_faults.min(fewest_faults);
        self.seeds += seeds;
    }
}

/// Adds the counts of one run of seeds to those of others, place by place.
pub(crate) fn add_each(sums: &mut [u64], counts: &[u64]) {
    sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}

impl Coverage {
    /// Counts something that happened.
    #[inline]
    pub fn mark(&mut self, mark: Mark) {
        self.marks[mark as usize] += 1;
    }

    /// Counts a frame that a client sent.
    pub fn sent_to_daemon(&mut self, kind: FrameKind) {
        self.to_daemon[usize::from(kind.0)] += 1;
    }

    /// Counts a frame that the daemon sent.
    pub fn sent_to_client(&mut self, kind: FrameKind) {
        self.to_client[usize::from(kind.0)] += 1;
        self.deliveries += u64::from(kind == FrameKind::Message);
    }

    /// Counts a subscription made with this policy.
    pub fn subscribed(&mut self, policy: OverflowPolicy) {
        self.subscribed[usize::from(policy.0) & 3] += 1;
    }

    /// Counts a gap told to a subscription of this policy.
    pub fn gap(&mut self, policy: OverflowPolicy, reason: GapReason) {
        self.overflowed[usize::from(policy.0) & 3] += 1;
        self.gaps[usize::from(reason.0) & 3] += 1;
    }

    /// Counts a connection ended by a subscription of policy `disconnect`.
    pub fn disconnected(&mut self) {
        self.overflowed[usize::from(OverflowPolicy::Disconnect.0)] += 1;
    }

    /// Counts an Error frame.
    pub fn error(&mut self, code: ErrorCode) {
        self.errors[usize::from(code.0) & 15] += 1;
    }

    /// Counts a finished run.
    pub fn run(&mut self, operations: u64, faults: u64) {
        self.fewest_operations = self.fewest_operations.min(operations);
        self.fewest_faults = self.fewest_faults.min(faults);
        self.operations += operations;
        self.seeds += 1;
    }

    /// Messages delivered so far.
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// Every row: group, name, count.
    fn rows(&self) -> Vec<(&'static str, String, u64)> {
        let mut rows: Vec<_> = MARKS
            .iter()
            .zip(&self.marks)
            .map(|((group, name), count)| (*group, (*name).to_owned(), *count))
            .collect();
        let name = |kind: FrameKind| kind.variant_name().unwrap_or("?").to_owned();
        rows.extend(
            KINDS_TO_DAEMON
                .map(|kind| ("frame in", name(kind), self.to_daemon[usize::from(kind.0)])),
        );
        rows.extend(
            KINDS_TO_CLIENT
                .map(|kind| ("frame out", name(kind), self.to_client[usize::from(kind.0)])),
        );
        for policy in OverflowPolicy::ENUM_VALUES {
            let name = policy.variant_name().unwrap_or("?");
            let at = usize::from(policy.0);
            rows.push(("policy", format!("{name}: subscribed"), self.subscribed[at]));
            rows.push(("policy", format!("{name}: overflowed"), self.overflowed[at]));
        }
        for reason in [GapReason::SlowConsumer, GapReason::LinkLost, GapReason::Memory] {
            let name = reason.variant_name().unwrap_or("?").to_owned();
            rows.push(("gap", name, self.gaps[usize::from(reason.0)]));
        }
        for code in ERRORS {
            let name = code.variant_name().unwrap_or("?").to_owned();
            rows.push(("error", name, self.errors[usize::from(code.0)]));
        }
        rows.sort_by_key(|(group, ..)| GROUPS.iter().position(|known| known == group));
        rows
    }

    /// What never happened.
    pub fn missing(&self) -> Vec<String> {
        let unseen = |(group, name, count): &(&str, String, u64)| {
            (*count == 0).then(|| format!("{group}: {name}"))
        };
        self.rows().iter().filter_map(unseen).collect()
    }

    /// The table, for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} seeds, {} operations, {} messages delivered; no seed has less than {} operations and \
             {} faults\n",
            self.seeds,
            self.operations,
            self.deliveries,
            self.fewest_operations,
            self.fewest_faults
        );
        for (group, name, count) in self.rows() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {group:<10} {name:<48} {count:>14}");
        }
        text
    }
}

const GROUPS: [&str; 12] = [
    "output",
    "event",
    "frame in",
    "frame out",
    "policy",
    "gap",
    "ack",
    "error",
    "memory",
    "fault",
    "bound",
    "other",
];

const KINDS_TO_DAEMON: [FrameKind; 19] = [
    FrameKind::Heartbeat,
    FrameKind::Hello,
    FrameKind::Ping,
    FrameKind::Pong,
    FrameKind::Goodbye,
    FrameKind::TopicBind,
    FrameKind::TopicUnbind,
    FrameKind::NodeBind,
    FrameKind::Message,
    FrameKind::Subscribe,
    FrameKind::Unsubscribe,
    FrameKind::Resume,
    FrameKind::StreamAck,
    FrameKind::Ack,
    FrameKind::Nack,
    FrameKind::Request,
    FrameKind::Reply,
    FrameKind::Welcome,
    FrameKind::Deliver,
];

const KINDS_TO_CLIENT: [FrameKind; 18] = [
    FrameKind::Welcome,
    FrameKind::Ping,
    FrameKind::Pong,
    FrameKind::Goodbye,
    FrameKind::Error,
    FrameKind::TopicBind,
    FrameKind::TopicUnbind,
    FrameKind::Message,
    FrameKind::PublishAck,
    FrameKind::PublishPause,
    FrameKind::PublishResume,
    FrameKind::SubscriptionInfo,
    FrameKind::UnsubscribeResult,
    FrameKind::Deliver,
    FrameKind::Gap,
    FrameKind::ReplayComplete,
    FrameKind::BackpressureWarning,
    FrameKind::Heartbeat,
];

/// Every code this version of the daemon sends; Internal is for what cannot happen.
const ERRORS: [ErrorCode; 12] = [
    ErrorCode::Malformed,
    ErrorCode::Protocol,
    ErrorCode::VersionMismatch,
    ErrorCode::InvalidTopic,
    ErrorCode::TooLarge,
    ErrorCode::Rejected,
    ErrorCode::LimitReached,
    ErrorCode::Unsupported,
    ErrorCode::Timeout,
    ErrorCode::Draining,
    ErrorCode::NotBound,
    ErrorCode::NotFound,
];
