//! The network between clients and shard: what the kernel does for the real driver.

use std::net::{Ipv4Addr, SocketAddr};

use nexusd_core::io::driver::Park;
use nexusd_core::limits::{
    BYTES_PER_SEND, CLOSE_LINGER_US, CONTROL_BACKLOG_BYTES, IOVECS_PER_SEND, SEGMENT_BYTES,
};
use nexusd_core::{
    CloseReason, Command, ConnectionId, Door, Driver, Event, Output, PeerAddress, Report, Service,
};

use super::{Connection, Phase, World};
use crate::conversation::{Reaction, Stage};
use crate::coverage::Mark;
use crate::trace::trace;
use crate::violation::{Violation, ensure};

/// Turns in a row in which a shard may have more outputs than fit a turn.
const BUSY_TURNS_MAX: u32 = 1_000;

impl Driver for World<'_> {
    type Error = Violation;

    fn wait(&mut self, service: &mut impl Service, park: Park) -> Result<(), Violation> {
        if let Some(violation) = self.failure.take() {
            return Err(violation);
        }
        self.oracle.begin_turn(self.clock.now().mono_us);
        match park {
            Park::Never => {
                self.busy_turns += 1;
                self.coverage.mark(Mark::FullTurn);
                ensure!(
                    self.busy_turns < BUSY_TURNS_MAX,
                    "an output storm: nothing happens, but the shard wants more"
                );
            }
            Park::Until(wake_at) => {
                self.busy_turns = 0;
                debug_assert_eq!(wake_at, service.wake_at());
                if self.gauges.is_quiet.get() {
                    self.settle_all();
                }
            }
        }
        self.turn(service)
    }

    fn apply(&mut self, service: &mut impl Service, output: Output) {
        if self.failure.is_none() {
            self.failure = self.carry_out(service, output).err();
        }
    }
}

impl World<'_> {
    /// Nothing is under way: what the shards were fed they have dealt with.
    fn settle_all(&mut self) {
        for index in self.unsettled_own.drain(..) {
            self.oracle.publish_settled(index);
        }
        for connection in self.slots.iter_mut().flatten() {
            if connection.socket.receiving && connection.conversation.is_unsettled() {
                connection.conversation.settle(&mut self.oracle);
            }
        }
        self.oracle.all_settled();
    }

    fn carry_out(&mut self, service: &mut impl Service, output: Output) -> Result<(), Violation> {
        trace!(self.trace, "  {} {output:?}", self.clock.now().mono_us);
        match output {
            Output::Send(id) => {
                self.coverage.mark(Mark::OutputSend);
                self.begin_send(id, service)
            }
            Output::Close(id) => {
                self.coverage.mark(Mark::OutputClose);
                self.begin_close(id)
            }
            Output::PauseReceive(id) => {
                self.coverage.mark(Mark::OutputPauseReceive);
                let late_bytes = self.dice.pick(&[0, 0, 500, 64 << 10]);
                self.set_receiving(id, false, late_bytes)
            }
            Output::ResumeReceive(id) => {
                self.coverage.mark(Mark::OutputResumeReceive);
                self.set_receiving(id, true, 0)
            }
            Output::ReceiveInPlace(id) => {
                self.coverage.mark(Mark::OutputReceiveInPlace);
                let late_receives = self.dice.below(3) as u32;
                if let Some(connection) = self.connection(id) {
                    connection.socket.landing = true;
                    connection.socket.late_receives = late_receives;
                }
                Ok(())
            }
            Output::Ring(_) => Ok(()),
            Output::Move { connection, .. } => {
                Err(Violation(format!("{connection:?} moves, which is nobody's business here")))
            }
            Output::StopAccepting => {
                self.coverage.mark(Mark::OutputStopAccepting);
                ensure!(
                    matches!(self.phase, Phase::Draining { .. }),
                    "StopAccepting without a drain"
                );
                ensure!(!self.has_stopped_accepting, "StopAccepting twice");
                self.has_stopped_accepting = true;
                Ok(())
            }
            Output::Report(
                Report::Interest { .. }
                | Report::Retained { .. }
                | Report::Answer(_)
                | Report::Link(_),
            ) => Ok(()),
            Output::Report(Report::Metrics(metrics)) => {
                self.coverage.mark(Mark::OutputMetrics);
                self.oracle.on_sample(&metrics)?;
                self.check_connections()
            }
        }
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let connection = self.slots.get_mut(id.index as usize)?.as_deref_mut()?;
        (connection.socket.id == id).then_some(connection)
    }

    fn begin_send(
        &mut self,
        id: ConnectionId,
        service: &mut impl Service,
    ) -> Result<(), Violation> {
        let told_us = self.told_us;
        let Some(connection) = self.connection(id) else {
            return Err(Violation(format!("Send on {id:?}, which is closed")));
        };
        let socket = &mut connection.socket;
        ensure!(socket.in_flight.is_none(), "Send on {id:?} while one runs");
        ensure!(socket.blocked_since_us.is_none(), "Send on {id:?} before it is writable");
        ensure!(socket.closing.is_none(), "Send on {id:?} behind Close");
        let (mut bytes, mut slices, mut largest) = (Vec::new(), 0, 0);
        service.gather(id, &mut |slice| {
            slices += 1;
            largest = largest.max(slice.len());
            bytes.extend_from_slice(slice);
        });
        ensure!(slices <= IOVECS_PER_SEND, "a send of {slices} slices");
        if slices + 2 > IOVECS_PER_SEND {
            self.coverage.mark(Mark::FullSend);
        }
        if bytes.len() >= BYTES_PER_SEND {
            self.coverage.mark(Mark::LongSend);
        }
        let bound = BYTES_PER_SEND + 2 * SEGMENT_BYTES + 2 * CONTROL_BACKLOG_BYTES + largest;
        ensure!(bytes.len() <= bound, "a send of {} bytes", bytes.len());
        if let Some(connection) = self.connection(id) {
            connection.socket.in_flight = Some(bytes);
            connection.socket.given_at_us = told_us;
        }
        Ok(())
    }

    fn begin_close(&mut self, id: ConnectionId) -> Result<(), Violation> {
        let is_past_drain =
            matches!(self.phase, Phase::Draining { .. }) && !self.is_draining_in_time();
        let now_us = self.clock.now().mono_us;
        let Some(connection) = self.slots.get_mut(id.index as usize) else { return Ok(()) };
        let Some(connection) = connection.as_deref_mut().filter(|there| there.socket.id == id)
        else {
            return Ok(());
        };
        let Connection { socket, conversation, .. } = connection;
        ensure!(socket.closing != Some(CloseReason::Asked), "Close twice");
        let since_us = conversation.ending_since_us.unwrap_or(socket.opened_at_us);
        let is_draining = conversation.stage == Stage::Draining;
        let is_cut_off = now_us >= since_us + CLOSE_LINGER_US || is_past_drain;
        socket.closing.get_or_insert(CloseReason::Asked);
        ensure!(
            conversation.is_doubtful
                || conversation.is_abandoned
                || conversation.must_be_refused.is_some()
                || conversation.is_doomed()
                || conversation.stage != Stage::Going,
            "connection {} was closed for no reason",
            conversation.number
        );
        if is_draining && !conversation.was_welcomed() {
            // On its way between shards it is closed like one that has not said Hello.
            conversation.doubt(true, &mut self.oracle);
        }
        if is_cut_off || conversation.is_doubtful || conversation.is_abandoned {
            return Ok(());
        }
        conversation.check_last_words()?;
        ensure!(
            conversation.is_between_frames(),
            "a connection was closed in the middle of a frame"
        );
        if conversation.stage == Stage::Leaving {
            conversation.check_answered()?;
        }
        if is_draining {
            let number = conversation.number;
            self.oracle.check_complete_for(number)?;
        }
        Ok(())
    }

    fn set_receiving(
        &mut self,
        id: ConnectionId,
        on: bool,
        late_bytes: usize,
    ) -> Result<(), Violation> {
        let Some(connection) = self.connection(id) else { return Ok(()) };
        ensure!(connection.socket.receiving != on, "receiving on {id:?} is {on} already");
        connection.socket.receiving = on;
        connection.socket.late_bytes = late_bytes;
        Ok(())
    }

    /// Tells the shard one thing.
    fn tell(&mut self, service: &mut impl Service, event: Event<'_>) -> Result<(), Violation> {
        self.coverage.mark(match event {
            Event::Opened { .. } => Mark::EventOpened,
            Event::Received { .. } => Mark::EventReceived,
            Event::Landed { .. } => Mark::EventLanded,
            Event::Sent { .. } => Mark::EventSent,
            Event::Writable { .. } => Mark::EventWritable,
            Event::Closed { .. } => Mark::EventClosed,
            Event::Command(_) => Mark::EventCommand,
            Event::Inbox => Mark::EventInbox,
            Event::Tick => Mark::EventTick,
        });
        self.events += 1;
        let now = self.clock.now();
        self.oracle.set_now(now.mono_us);
        self.told_us = now.mono_us;
        service.on_event(now, event);
        self.read_gauges()
    }

    /// What the shards count now tells what has happened since it was read last.
    pub(super) fn read_gauges(&mut self) -> Result<(), Violation> {
        let after = self.gauges.metrics.get();
        let before = std::mem::replace(&mut self.counted, after);
        if after.segments_evacuated > before.segments_evacuated {
            self.coverage.mark(Mark::Evacuation);
        }
        if after.ttl_expired > before.ttl_expired {
            self.coverage.mark(Mark::Expired);
        }
        if after.connections_moved > before.connections_moved {
            self.coverage.mark(Mark::Moved);
        }
        if after.slow_disconnected > before.slow_disconnected {
            self.doubt_the_slow()?;
        }
        self.oracle.on_gauges(&self.gauges)
    }

    /// A queue of policy `disconnect` overflowed: its connection is not heard any more.
    fn doubt_the_slow(&mut self) -> Result<(), Violation> {
        let mut candidates = 0;
        for connection in self.slots.iter_mut().flatten() {
            if connection.conversation.may_be_disconnected(&mut self.oracle) {
                connection.conversation.doubt(true, &mut self.oracle);
                trace!(
                    self.trace,
                    "  {} may be ended for being slow", connection.conversation.number
                );
                candidates += 1;
            }
        }
        ensure!(candidates > 0, "a connection was ended though no queue of it was full");
        Ok(())
    }

    /// The shard learns of a new connection.
    pub(super) fn open(
        &mut self,
        connection: ConnectionId,
        service: &mut impl Service,
    ) -> Result<(), Violation> {
        let peer = if self.dice.one_in(2) {
            PeerAddress::Unix
        } else {
            PeerAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)))
        };
        self.tell(service, Event::Opened { connection, peer, door: Door::Apps, is_moved: false })
    }

    /// A shard takes what another one sent, if there is anything.
    pub(super) fn look(&mut self, service: &mut impl Service) -> Result<(), Violation> {
        if service.has_mail() {
            self.tell(service, Event::Inbox)?;
        }
        Ok(())
    }

    /// The shard gets a command.
    pub(super) fn command(
        &mut self,
        command: Command,
        service: &mut impl Service,
    ) -> Result<(), Violation> {
        trace!(self.trace, "{}: {command:?}", self.clock.now().mono_us);
        self.tell(service, Event::Command(command))
    }

    /// Something may happen on a connection: a receive, the end of a send, its client reading.
    pub(super) fn visit(
        &mut self,
        slot: usize,
        service: &mut impl Service,
    ) -> Result<(), Violation> {
        if self.dice.one_in(2) {
            self.receive(slot, service)?;
        }
        if self.dice.one_in(2) {
            self.end_send(slot, false, service)?;
        }
        if self.dice.one_in(2) {
            self.client_reads(slot, false, service)?;
        }
        self.end_if_due(slot, service)
    }

    /// Everything that can happen on a connection does.
    pub(super) fn visit_willingly(
        &mut self,
        slot: usize,
        service: &mut impl Service,
    ) -> Result<(), Violation> {
        self.receive(slot, service)?;
        self.end_send(slot, true, service)?;
        self.client_reads(slot, true, service)?;
        self.end_if_due(slot, service)
    }

    /// The client does nothing; the network still takes what fits.
    pub(super) fn visit_frozen(
        &mut self,
        slot: usize,
        service: &mut impl Service,
    ) -> Result<(), Violation> {
        self.end_send(slot, true, service)?;
        self.end_if_due(slot, service)
    }

    /// A receive ends.
    fn receive(&mut self, slot: usize, service: &mut impl Service) -> Result<(), Violation> {
        let Some(connection) = self.slots[slot].as_deref_mut() else { return Ok(()) };
        let Connection { client, socket, conversation } = connection;
        let waiting = conversation.outbox().len();
        if waiting == 0
            || conversation.is_abandoned
            || socket.closing.is_some()
            || self.clients[*client].is_frozen
        {
            return Ok(());
        }
        let len = socket.receive_len(waiting, &mut self.dice);
        if len == 0 {
            return Ok(());
        }
        let id = socket.id;
        let now = self.clock.now();
        let mut landed = None;
        if socket.landing && socket.armed.is_none() && socket.late_receives > 0 {
            socket.late_receives -= 1;
            self.coverage.mark(Mark::LateLanding);
        } else if socket.landing {
            let zone = service.landing_zone(id);
            let place = zone.as_ref().map(|zone| (zone.as_ptr().addr(), zone.len()));
            match (socket.armed, zone) {
                (None, None) => socket.landing = false,
                (None, Some(zone)) if self.dice.one_in(2) => {
                    // The receive begins now and ends later: the memory is lent meanwhile.
                    ensure!(!zone.is_empty(), "an empty landing zone");
                    socket.armed = place;
                    return Ok(());
                }
                (armed, Some(zone)) => {
                    ensure!(armed.is_none() || armed == place, "a landing zone was moved");
                    let len = len.min(zone.len());
                    zone[..len].copy_from_slice(&conversation.outbox()[..len]);
                    landed = Some(len);
                }
                // The connection began to close meanwhile: what had arrived is told all the same.
                (Some((_, space)), None) => landed = Some(len.min(space)),
            }
            socket.armed = None;
        }
        trace!(
            self.trace,
            "{}: {} receives {} of {waiting} bytes{}",
            now.mono_us,
            conversation.number,
            landed.unwrap_or(len),
            if landed.is_some() { " in place" } else { "" }
        );
        if !socket.receiving {
            socket.late_bytes -= landed.unwrap_or(len);
            self.coverage.mark(Mark::LateBytes);
        }
        socket.fed_at_us = now.mono_us;
        if let Some(len) = landed {
            conversation.feed(len, &mut self.oracle);
            return self.tell(service, Event::Landed { connection: id, bytes: len });
        }
        // Fed first, so that what comes back finds its cause known.
        let bytes = conversation.outbox()[..len].to_vec();
        conversation.feed(len, &mut self.oracle);
        self.tell(service, Event::Received { connection: id, bytes: &bytes })
    }

    /// A running send ends, as far as the socket has room; or a full socket drains.
    fn end_send(
        &mut self,
        slot: usize,
        willingly: bool,
        service: &mut impl Service,
    ) -> Result<(), Violation> {
        let Some(connection) = self.slots[slot].as_deref_mut() else { return Ok(()) };
        let Connection { socket, conversation, .. } = connection;
        let id = socket.id;
        let unread = (conversation.on_wire - conversation.read) as usize;
        let room =
            if socket.client_left { usize::MAX } else { socket.capacity.saturating_sub(unread) };
        if socket.in_flight.is_none() {
            if socket.blocked_since_us.is_some() && room > 0 && (willingly || !self.dice.one_in(3))
            {
                socket.blocked_since_us = None;
                return self.tell(service, Event::Writable { connection: id });
            }
            return Ok(());
        }
        let Some(bytes) = socket.in_flight.take() else { return Ok(()) };
        let (sent, blocked) = match bytes.len() {
            0 => (0, false),
            len => socket.send_len(len, room, &mut self.dice),
        };
        if blocked {
            self.coverage.mark(Mark::BlockedSend);
            socket.blocked_since_us = Some(self.clock.now().mono_us);
        }
        if sent > 0 && sent < bytes.len() {
            self.coverage.mark(Mark::ShortSend);
        }
        trace!(
            self.trace,
            "{}: {} sent {sent} of {} bytes{}",
            self.clock.now().mono_us,
            conversation.number,
            bytes.len(),
            if blocked { ", blocked" } else { "" }
        );
        self.oracle.set_now(self.clock.now().mono_us);
        self.put_on_wire(slot, &bytes[..sent])?;
        self.tell(service, Event::Sent { connection: id, bytes: sent, blocked })
    }

    fn put_on_wire(&mut self, slot: usize, bytes: &[u8]) -> Result<(), Violation> {
        let Some(connection) = self.slots[slot].as_deref_mut() else { return Ok(()) };
        let mut witnesses = crate::conversation::Witnesses {
            oracle: &mut self.oracle,
            coverage: self.coverage,
            trace: &mut self.trace,
            identity: &self.identity,
        };
        let given_us = connection.socket.given_at_us;
        connection.conversation.put_on_wire(bytes, given_us, &mut witnesses)
    }

    /// The client reads some of what is there for it, and does what it must about it.
    fn client_reads(
        &mut self,
        slot: usize,
        willingly: bool,
        service: &mut impl Service,
    ) -> Result<(), Violation> {
        let now_us = self.clock.now().mono_us;
        let Some(connection) = self.slots[slot].as_deref_mut() else { return Ok(()) };
        let Connection { client, socket, conversation } = connection;
        let client_at = *client;
        let client = &mut self.clients[client_at];
        if conversation.is_abandoned
            || client.is_frozen
            || client.stalled_until_us > now_us
            || socket.client_left
        {
            return Ok(());
        }
        let unread = conversation.on_wire - conversation.read;
        let most = if willingly || self.dice.one_in(2) {
            unread
        } else {
            self.dice.magnitude(unread.max(1))
        };
        for reaction in conversation.read(most, &mut self.oracle) {
            match reaction {
                Reaction::Welcomed => conversation.is_welcome = true,
                Reaction::Pause(hold) => conversation.is_held_back = hold,
                Reaction::Confirmed(stream) => conversation.known_streams.push(stream),
                Reaction::Pong(token) => conversation.write_pong(token, self.coverage),
                Reaction::Resumed(stream) => {
                    conversation.resuming.retain(|other| *other != stream);
                    conversation.known_streams.push(stream);
                }
                Reaction::Parked(stream) => {
                    conversation.pausing.retain(|other| *other != stream);
                    if !client.parked.contains(&stream) {
                        client.parked.push(stream);
                    }
                }
                Reaction::NotFound(stream) => {
                    conversation.resuming.retain(|other| *other != stream);
                }
                Reaction::Rejected(stream) => {
                    conversation.resuming.retain(|other| *other != stream);
                    // It may be the connection's own, and be on it still.
                    let is_own = !conversation.resuming_parked.contains(&stream);
                    conversation.resuming_parked.retain(|other| *other != stream);
                    if !is_own && !client.parked.contains(&stream) {
                        client.parked.push(stream);
                    }
                }
                Reaction::Leave => conversation.closes_when_written = true,
            }
        }
        // A client that was told to go does not wait until all it wrote is read.
        if conversation.closes_when_written && conversation.is_written_out() {
            socket.client_left = true;
            self.coverage.mark(Mark::EndOfStream);
            return self.close(slot, CloseReason::EndOfStream, service);
        }
        Ok(())
    }

    /// The connection is on its way down: as soon as its running send has ended.
    pub(super) fn close(
        &mut self,
        slot: usize,
        reason: CloseReason,
        service: &mut impl Service,
    ) -> Result<(), Violation> {
        if let Some(connection) = self.slots[slot].as_deref_mut() {
            connection.socket.closing.get_or_insert(reason);
        }
        self.end_if_due(slot, service)
    }

    /// Ends a connection that is on its way down.
    fn end_if_due(&mut self, slot: usize, service: &mut impl Service) -> Result<(), Violation> {
        let Some(connection) = self.slots[slot].as_deref_mut() else { return Ok(()) };
        let socket = &mut connection.socket;
        let Some(reason) = socket.closing else { return Ok(()) };
        let id = socket.id;
        if socket.in_flight.is_some() {
            if reason != CloseReason::Asked {
                self.coverage.mark(Mark::ResetWhileSending);
            }
            // The send may still report how far it came, or end with the connection.
            if self.dice.one_in(2) {
                self.end_send(slot, true, service)?;
            }
        }
        let Some(connection) = self.slots[slot].take() else { return Ok(()) };
        let Connection { client, mut conversation, .. } = *connection;
        trace!(
            self.trace,
            "{}: {} ends: {reason:?}",
            self.clock.now().mono_us,
            conversation.number
        );
        if self.clients[client].slot == Some(slot) {
            self.clients[client].slot = None;
        }
        if self.oracle.parks() && !conversation.is_abandoned {
            let streams = conversation.client_streams();
            self.keep_for_later(client, &streams);
        }
        let result = self.tell(service, Event::Closed { connection: id, reason });
        conversation.ended(&mut self.oracle);
        result
    }
}
