//! The loop of the mesh thread: waits for sockets, reports and deadlines, tells discovery what
//! happened, and carries out what that answers.
//!
//! All that was there when it woke is told before outputs are asked for, so that what belongs together
//! is told to others together. Nothing in it waits but [`poll`].

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nexusd_core::LinkCommand;
use nexusd_core::io::clock;
use nexusd_discovery::{Discovery, Event, Level, Notice, Now, Output};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;
use tracing::{debug, info, warn};

use super::beacon_sockets::BeaconSockets;
use super::dialler::{Dial, DialResult, Dialler};
use super::expected_peers::ExpectedPeers;
use super::links::{LinkCommands, Links};
use super::picture::MeshPicture;
use super::reports::{News, Reports};
use super::resolver::{Resolution, Resolver};
use super::status::{MeshStatus, SharedStatus};

/// Time between two looks at the host's interfaces, in microseconds.
const INTERFACES_INTERVAL_US: u64 = 3_000_000;
/// Time between two pictures of the mesh for the statistics, in microseconds.
const STATUS_INTERVAL_US: u64 = 1_000_000;
/// Time until a shard that had no room for a command is asked again, in microseconds.
const COMMANDS_INTERVAL_US: u64 = 10_000;
/// Time to the next attempt where the kernel has no memory to wait with.
const PAUSE: Duration = Duration::from_millis(100);

/// Discovery and its surroundings.
#[derive(Debug)]
pub(super) struct EventLoop<L> {
    discovery: Discovery,
    reports: Arc<Reports>,
    beacons: BeaconSockets,
    dialler: Dialler,
    resolver: Resolver,
    links: L,
    commands: LinkCommands,
    expected: ExpectedPeers,
    interfaces_due_us: u64,
    status: SharedStatus,
    status_due_us: u64,
    /// Something happened since the last picture.
    is_status_old: bool,
}

/// What is ready, in the order of the descriptors.
#[derive(Default)]
struct Ready {
    beacons: Vec<bool>,
    dials: Vec<bool>,
}

impl<L: Links> EventLoop<L> {
    pub(super) fn new(
        discovery: Discovery,
        reports: Arc<Reports>,
        beacons: BeaconSockets,
        links: L,
        status: SharedStatus,
        expected_peers: u64,
    ) -> Self {
        let now_us = clock::now().mono_us;
        Self {
            discovery,
            resolver: Resolver::new(Arc::clone(&reports)),
            reports,
            beacons,
            dialler: Dialler::default(),
            links,
            commands: LinkCommands::default(),
            expected: ExpectedPeers::new(expected_peers, now_us),
            interfaces_due_us: now_us.saturating_add(INTERFACES_INTERVAL_US),
            status,
            status_due_us: now_us,
            is_status_old: true,
        }
    }

    /// Runs until the node is over.
    pub(super) fn run(mut self) {
        self.discovery.on_event(now(), Event::Started);
        self.carry_out();
        loop {
            let ready = self.wait();
            if self.turn(&ready) {
                return;
            }
        }
    }

    /// Tells discovery what happened and does what it wants; returns whether that was the last time.
    fn turn(&mut self, ready: &Ready) -> bool {
        let now = now();
        let News { interest, retained, links, resolutions, viewers, is_draining, is_over } =
            self.reports.take();
        for (filter, change) in &interest {
            let is_wanted = *change > 0;
            for _ in 0..change.unsigned_abs() {
                self.discovery.on_event(now, Event::Interest { filter, is_wanted });
            }
        }
        if retained != 0 {
            self.discovery.on_event(now, Event::Retained { change: retained });
        }
        for event in links {
            self.discovery.on_event(now, Event::Link(event));
        }
        for Resolution { seed, result } in &resolutions {
            let event = match result {
                Ok(addresses) => Event::Resolved { seed: *seed, addresses },
                Err(reason) => Event::ResolveFailed { seed: *seed, reason },
            };
            self.discovery.on_event(now, event);
        }
        for place in (0..ready.beacons.len()).filter(|place| ready.beacons[*place]) {
            self.beacons.receive(place, |from, bytes| {
                self.discovery.on_event(now, Event::Datagram { from, bytes });
            });
        }
        self.dialler.go_on(now.mono_us, &ready.dials);
        self.take_dialled(now);
        if is_draining {
            self.discovery.on_event(now, Event::Drain);
        }
        if self.discovery.wake_at().is_some_and(|due_us| due_us <= now.mono_us) {
            self.discovery.on_event(now, Event::Tick);
        }
        if self.interfaces_due_us <= now.mono_us {
            self.interfaces_due_us = now.mono_us.saturating_add(INTERFACES_INTERVAL_US);
            self.beacons.follow_interfaces();
        }
        self.carry_out();
        self.look_at_itself(now.mono_us);
        if !viewers.is_empty() {
            let picture = MeshPicture::of(&self.discovery, now);
            viewers.into_iter().for_each(|viewer| viewer.show(picture.clone()));
        }
        is_over
    }

    /// At most once a second, as it looks at every peer.
    fn look_at_itself(&mut self, now_us: u64) {
        self.is_status_old = self.status_due_us > now_us;
        if !self.is_status_old {
            self.status_due_us = now_us.saturating_add(STATUS_INTERVAL_US);
            let status = MeshStatus::of(&self.discovery, now_us, self.beacons.faults());
            self.expected.look(now_us, status.linked);
            self.status.set(status);
        }
    }

    fn carry_out(&mut self) {
        loop {
            while let Some(output) = self.discovery.poll_output() {
                self.carry_out_one(output);
            }
            // A dial that fails at once is an event, which may have outputs.
            if !self.take_dialled(now()) {
                break;
            }
        }
        self.commands.go_on(&mut self.links);
    }

    fn carry_out_one(&mut self, output: Output) {
        match output {
            Output::Multicast(datagram) => self.beacons.send_to_groups(&datagram),
            Output::Unicast { to, datagram } => self.beacons.send_to(to, &datagram),
            Output::Resolve { seed, name } => self.resolver.resolve(seed, name),
            Output::Dial { dial, address, peer } => {
                self.dialler.dial(clock::now().mono_us, Dial { dial, address, peer });
            }
            Output::Send { peer, frames } => {
                self.tell(LinkCommand::Send { peer, frames: frames.into() });
            }
            Output::Forget { peer } => self.tell(LinkCommand::Forget { peer }),
            Output::Retire { peer } => self.tell(LinkCommand::Retire { peer }),
            Output::CompareRetained { peer } => self.tell(LinkCommand::CompareRetained { peer }),
            Output::CloseIdle { peer } => self.tell(LinkCommand::CloseIdle { peer }),
            Output::Notice(notice) => log(&notice),
        }
    }

    fn tell(&mut self, command: LinkCommand) {
        self.commands.tell(&mut self.links, command);
    }

    /// Hands connections on, and tells discovery of dials that came to none; returns whether there were
    /// any of those.
    fn take_dialled(&mut self, now: Now) -> bool {
        let mut any_failed = false;
        while let Some(result) = self.dialler.poll_result() {
            let (dial, is_refused, reason) = match result {
                DialResult::Connected { dial: Dial { dial, peer, .. }, socket } => {
                    match self.links.dialled(socket, dial, peer) {
                        Ok(()) => continue,
                        Err(error) => (dial, false, error.to_string()),
                    }
                }
                DialResult::Failed { dial, is_refused, reason } => (dial, is_refused, reason),
            };
            any_failed = true;
            let event = Event::DialFailed { dial, is_refused, reason: &reason };
            self.discovery.on_event(now, event);
        }
        any_failed
    }

    /// Waits until something is there or due.
    fn wait(&self) -> Ready {
        let beacons: Vec<_> = self.beacons.descriptors().collect();
        let mut watched = vec![PollFd::from_borrowed_fd(self.reports.descriptor(), PollFlags::IN)];
        let readable = |socket| PollFd::from_borrowed_fd(socket, PollFlags::IN);
        let writable = |socket| PollFd::from_borrowed_fd(socket, PollFlags::OUT);
        let beacons_end = 1 + beacons.len();
        watched.extend(beacons.into_iter().map(readable));
        watched.extend(self.dialler.descriptors().map(writable));
        match poll(&mut watched, self.timeout().as_ref()) {
            Ok(_) => {
                let is_ready = |watched: &PollFd<'_>| !watched.revents().is_empty();
                Ready {
                    beacons: watched[1..beacons_end].iter().map(is_ready).collect(),
                    dials: watched[beacons_end..].iter().map(is_ready).collect(),
                }
            }
            Err(Errno::INTR) => Ready::default(),
            Err(error) => {
                warn!("the mesh thread cannot wait for its sockets: {error}");
                thread::sleep(PAUSE);
                Ready::default()
            }
        }
    }

    /// How long nothing is due; `None`: for ever.
    fn timeout(&self) -> Option<Timespec> {
        let now_us = clock::now().mono_us;
        let due_us = [
            self.discovery.wake_at(),
            self.dialler.wake_at(),
            self.beacons.depend_on_interfaces().then_some(self.interfaces_due_us),
            self.commands.wait().then_some(now_us.saturating_add(COMMANDS_INTERVAL_US)),
            self.expected.wake_at(),
            self.is_status_old.then_some(self.status_due_us),
        ];
        let left =
            Duration::from_micros(due_us.into_iter().flatten().min()?.saturating_sub(now_us));
        Some(Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        })
    }
}

fn now() -> Now {
    let now = clock::now();
    Now { mono_us: now.mono_us, wall_us: now.wall_us }
}

fn log(notice: &Notice) {
    match notice.level() {
        Level::Debug => debug!("{notice}"),
        Level::Info => info!("{notice}"),
        Level::Warning => warn!("{notice}"),
    }
}
