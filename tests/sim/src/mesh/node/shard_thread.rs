//! A turn of a shard's thread: what a driver does, with its order and its sizes left to chance.

use nexusd_core::limits::SENDS_PER_TURN;
use nexusd_core::{
    CloseReason, ConnectionId, Destination, Door, Event, Handover, Output, PeerAddress, Report,
    Service,
};

use super::sockets::Arrival;
use super::{Mail, Node, ShardThread};
use crate::mesh::network::Network;

/// Bytes that one receive brings at most.
const RECEIVE_BYTES: usize = 64 << 10;
/// What a connection that was reset says.
const ECONNRESET: i32 = 104;

impl Node {
    pub(super) fn turn_of_shard(&mut self, shard: usize, network: &mut Network) {
        if shard == 0 {
            self.accept(network);
        }
        self.read_mail(shard, network);
        // It may look at its clock before anything that has waited is read.
        if self.dice.one_in(3) {
            self.tick_if_due(shard, network);
        }
        let mut sockets = self.sockets.of_shard(shard);
        let first = self.dice.below(sockets.len());
        sockets.rotate_left(first);
        for &id in &sockets {
            self.serve_socket(shard, id, network);
        }
        self.look_into_inbox(shard, network);
        self.tick_if_due(shard, network);
        self.carry_out(shard, network);
        self.finish_moves(shard, &sockets, network);
        self.look_ahead(shard, &sockets, network);
    }

    fn tick_if_due(&mut self, shard: usize, network: &Network) {
        let now = self.now(network);
        let is_due = |at_us: u64| at_us <= now.mono_us;
        if let Some(it) = &mut self.shards[shard].shard
            && it.wake_at().is_some_and(is_due)
        {
            it.on_event(now, Event::Tick);
        }
    }

    fn feed(&mut self, shard: usize, event: Event<'_>, network: &Network) {
        let now = self.now(network);
        if let Some(it) = &mut self.shards[shard].shard {
            it.on_event(now, event);
        }
    }

    /// Takes connections from the listeners, and finds out where they are to live.
    fn accept(&mut self, network: &mut Network) {
        while let Some((wire, end, peer, door)) = self.sockets.backlog.pop_front() {
            if !self.is_listening || self.shards[0].shard.is_none() {
                network.abort(wire, end, false);
                continue;
            }
            let home = self.place().index();
            let id = self.sockets.open(wire, end, None);
            let arrival = Arrival { id, peer, door, is_moved: false, bytes: Vec::new() };
            self.shards[home].mail.push_back(Mail::Arrival(arrival));
            self.kick(home, network);
        }
    }

    fn read_mail(&mut self, shard: usize, network: &mut Network) {
        while let Some(mail) = self.shards[shard].mail.pop_front() {
            match mail {
                Mail::Command(command) => self.feed(shard, Event::Command(command), network),
                Mail::Dialled { wire, dial, peer } => {
                    let address = self.mesh.address_of_dial.remove(&dial);
                    let Some(address) = address.filter(|_| self.shards[shard].shard.is_some())
                    else {
                        network.abort(wire, 0, false);
                        continue;
                    };
                    let connection = self.sockets.open(wire, 0, Some(shard));
                    let (from, door) = (PeerAddress::Tcp(address), Door::Dialled { dial, peer });
                    let opened = Event::Opened { connection, peer: from, door, is_moved: false };
                    self.feed(shard, opened, network);
                }
                Mail::Arrival(Arrival { id, peer, door, is_moved, bytes }) => {
                    let Some(socket) = self.sockets.find(id) else { continue };
                    socket.shard = Some(shard);
                    if self.shards[shard].shard.is_none() {
                        if let Some(socket) = self.sockets.close(id) {
                            network.abort(socket.wire, socket.end, false);
                        }
                        continue;
                    }
                    let opened = Event::Opened { connection: id, peer, door, is_moved };
                    self.feed(shard, opened, network);
                    if !bytes.is_empty() {
                        let received = Event::Received { connection: id, bytes: &bytes };
                        self.feed(shard, received, network);
                    }
                }
            }
        }
    }

    /// Whatever is there for one connection.
    fn serve_socket(&mut self, shard: usize, id: ConnectionId, network: &mut Network) {
        self.finish_send(shard, id, network);
        let Some(socket) = self.sockets.find(id) else { return };
        let (wire, end) = (socket.wire, socket.end);
        if socket.is_blocked && network.wires.get(&wire).is_none_or(|wire| wire.room(end) > 0) {
            socket.is_blocked = false;
            self.feed(shard, Event::Writable { connection: id }, network);
        }
        let Some(socket) = self.sockets.find(id) else { return };
        if socket.closing.is_none() && socket.is_receiving {
            let most = match self.dice.below(6) {
                0 => 1 + self.dice.below(200),
                1 => 1 + self.dice.below(4_000),
                _ => RECEIVE_BYTES,
            };
            let bytes = network.read(wire, end, most);
            if !bytes.is_empty() {
                self.feed(shard, Event::Received { connection: id, bytes: &bytes }, network);
            }
        }
        let Some(socket) = self.sockets.find(id) else { return };
        if socket.closing.is_none()
            && let Some(wire) = network.wires.get(&wire)
        {
            let stream = &wire.streams[1 - end];
            if stream.is_reset && (stream.arrived.is_empty() || self.dice.one_in(2)) {
                socket.closing = Some(CloseReason::Failed(ECONNRESET));
            } else if wire.is_over(end) {
                socket.closing = Some(CloseReason::EndOfStream);
            }
        }
        self.close_if_over(shard, id, network);
    }

    /// The running send ends with what the socket takes.
    fn finish_send(&mut self, shard: usize, id: ConnectionId, network: &mut Network) {
        let Some(socket) = self.sockets.find(id) else { return };
        let Some(bytes) = socket.in_flight.take() else { return };
        let (wire, end) = (socket.wire, socket.end);
        let most = match self.dice.below(8) {
            0 => self.dice.below(bytes.len() + 1),
            _ => bytes.len(),
        };
        let taken = network.write(wire, end, &bytes[..most]);
        let is_full = taken < most;
        if let Some(socket) = self.sockets.find(id) {
            socket.is_blocked = is_full;
        }
        let sent = Event::Sent { connection: id, bytes: taken, blocked: is_full };
        self.feed(shard, sent, network);
    }

    fn close_if_over(&mut self, shard: usize, id: ConnectionId, network: &mut Network) {
        let Some(reason) = self.sockets.find(id).and_then(|socket| socket.closing) else { return };
        self.finish_send(shard, id, network);
        let Some(socket) = self.sockets.close(id) else { return };
        network.close(socket.wire, socket.end);
        self.feed(shard, Event::Closed { connection: id, reason }, network);
    }

    fn look_into_inbox(&mut self, shard: usize, network: &Network) {
        let now = self.now(network);
        let ShardThread { shard, looks, .. } = &mut self.shards[shard];
        if let Some(shard) = shard.as_mut().filter(|shard| *looks && shard.has_mail()) {
            shard.on_event(now, Event::Inbox);
            *looks = shard.has_mail();
        }
    }

    fn carry_out(&mut self, shard: usize, network: &mut Network) {
        let mut sends = 0;
        while sends < SENDS_PER_TURN {
            let Some(it) = self.shards[shard].shard.as_mut() else { return };
            let Some(output) = it.poll_output() else { break };
            match output {
                Output::Send(id) => {
                    sends += 1;
                    let mut gathered = Vec::new();
                    it.gather(id, &mut |slice| gathered.extend_from_slice(slice));
                    if let Some(socket) = self.sockets.find(id) {
                        socket.in_flight = Some(gathered);
                    }
                    // Some sends end at once, others when the kernel says so.
                    if !self.dice.one_in(4) {
                        self.finish_send(shard, id, network);
                    }
                }
                Output::Close(id) => {
                    if let Some(socket) = self.sockets.find(id) {
                        socket.moves_to = None;
                        socket.closing.get_or_insert(CloseReason::Asked);
                    }
                    self.close_if_over(shard, id, network);
                }
                Output::PauseReceive(id) => self.set_receiving(id, false),
                Output::ResumeReceive(id) => self.set_receiving(id, true),
                Output::ReceiveInPlace(_)
                | Output::Report(Report::Metrics(_) | Report::Answer(_)) => {}
                Output::Move { connection, to } => {
                    let Destination::Shard(to) = to else {
                        unreachable!("nobody speaks HTTP/2 here")
                    };
                    if let Some(socket) = self.sockets.find(connection) {
                        socket.moves_to = Some(to.index());
                    }
                }
                Output::Ring(other) => {
                    self.shards[other.index()].looks = true;
                    self.kick(other.index(), network);
                }
                // The first shard has the listeners.
                Output::StopAccepting => self.is_listening &= shard != 0,
                Output::Report(Report::Interest { filter, is_wanted }) => {
                    self.mesh.on_interest(filter, is_wanted);
                    self.kick(self.mesh_thread(), network);
                }
                Output::Report(Report::Retained { change }) => self.mesh.retained ^= change,
                Output::Report(Report::Link(report)) => {
                    self.reports.push(report.clone());
                    self.mesh.news.push(report);
                    self.kick(self.mesh_thread(), network);
                }
            }
        }
        let it = &mut self.shards[shard];
        if it.shard.as_ref().is_some_and(Service::is_finished) {
            it.shard = None;
        }
    }

    fn set_receiving(&mut self, id: ConnectionId, is_receiving: bool) {
        if let Some(socket) = self.sockets.find(id) {
            socket.is_receiving = is_receiving;
        }
    }

    /// Connections that the shard has given up go to others, sooner or later.
    fn finish_moves(&mut self, shard: usize, sockets: &[ConnectionId], network: &mut Network) {
        for &id in sockets {
            let Some(socket) = self.sockets.find(id) else { continue };
            let Some(to) = socket.moves_to else { continue };
            if self.dice.one_in(3) {
                continue;
            }
            socket.moves_to = None;
            let Some(it) = &mut self.shards[shard].shard else { continue };
            let Some(handover) = it.hand_over(id) else { continue };
            if let Some(socket) = self.sockets.find(id) {
                (socket.shard, socket.is_receiving) = (None, true);
            }
            let reason = CloseReason::Moved;
            self.feed(shard, Event::Closed { connection: id, reason }, network);
            let Handover { peer, door, bytes } = handover;
            let arrival = Arrival { id, peer, door, is_moved: true, bytes };
            self.shards[to].mail.push_back(Mail::Arrival(arrival));
            self.kick(to, network);
        }
    }

    /// When the next turn is.
    fn look_ahead(&mut self, shard: usize, sockets: &[ConnectionId], network: &mut Network) {
        let mut is_busy = !self.shards[shard].mail.is_empty();
        for &id in sockets {
            let Some(socket) = self.sockets.find(id) else { continue };
            is_busy |=
                socket.in_flight.is_some() || socket.moves_to.is_some() || socket.closing.is_some();
            let Some(wire) = network.wires.get(&socket.wire) else { continue };
            let (end, is_receiving) = (socket.end, socket.is_receiving);
            is_busy |= is_receiving && wire.readable(end) > 0
                || wire.is_over(end)
                || wire.streams[1 - end].is_reset
                || socket.is_blocked && wire.room(end) > 0;
        }
        let it = &self.shards[shard];
        let Some(service) = &it.shard else { return };
        is_busy |= it.looks && service.has_mail();
        if let Some(wake_us) = service.wake_at() {
            let at_us = wake_us.saturating_sub(self.mono_ahead_us);
            let late_us = if self.dice.one_in(8) { self.dice.between(0, 3_000) } else { 0 };
            self.turn_by(shard, (at_us + late_us).max(network.now_us + 1), network);
        }
        if is_busy {
            self.kick(shard, network);
        }
    }
}
