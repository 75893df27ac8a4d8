//! Clients whose connections break, and who come back to go on with their subscriptions.

use nexusd_core::{Door, PeerAddress};

use super::World;
use crate::mesh::client::Client;
use crate::mesh::coverage::Mark;
use crate::mesh::network::Happening;
use crate::mesh::oracle::State;
use crate::mesh::wire::Party;
use crate::trace::trace;

/// The longest that a client is away: far less than subscriptions wait for it.
const AWAY_US: u64 = 20_000_000;

impl World<'_> {
    /// The connection of a subscriber breaks; its node sees it at once, or not at all.
    pub(super) fn break_client(&mut self) {
        let host = self.dice.below(self.hosts.len());
        let publishers = self.scenario.publishers;
        let Some(node) = &mut self.hosts[host].node else { return };
        let (start, is_draining) = (node.start, node.drains_since_us.is_some());
        let client = publishers + self.dice.below(node.clients.len() - publishers);
        let it = &mut node.clients[client];
        let is_open = |stream: &usize| self.oracle.streams[*stream].state == State::Open;
        if is_draining || !it.may_leave() || !it.streams.iter().all(is_open) {
            return;
        }
        it.is_away = true;
        match self.dice.below(3) {
            0 => self.network.close(it.wire, 0),
            how => self.network.abort(it.wire, 0, how == 1),
        }
        self.coverage.mark(Mark::ClientBroken);
        trace!(
            self.trace,
            "{} host {host}: client {} loses its connection", self.network.now_us, it.number
        );
        let us = match self.dice.one_in(2) {
            true => self.dice.between(1_000, 300_000),
            false => self.dice.between(1_000, AWAY_US),
        };
        self.network.later(us, Happening::ComeBack { host, start, client });
    }

    /// A client comes back, if its node is still there.
    pub(super) fn come_back(&mut self, host: usize, start: u32, client: usize) {
        let Some(node) = self.hosts[host].node.as_mut().filter(|node| node.start == start) else {
            return;
        };
        let it = &node.clients[client];
        if !node.is_listening || !it.is_away && !it.was_too_slow {
            return;
        }
        let ends = [Party::Client { host, start, client }, node.party()];
        let wire = self.network.join(ends, self.scenario.client_wire_bytes);
        node.sockets.backlog.push_back((wire, 1, PeerAddress::Unix, Door::Apps));
        let it = &mut node.clients[client];
        if it.was_too_slow {
            // What it had is no more: it begins anew.
            self.next_client += 1;
            *it = Client::new(self.next_client, wire);
            self.oracle.publisher(self.next_client, (host, start), node.id);
            node.kick(0, &mut self.network);
            return self.flush_client(host, client);
        }
        trace!(self.trace, "{} host {host}: client {} comes back", self.network.now_us, it.number);
        it.come_back(wire, &mut self.oracle);
        node.kick(0, &mut self.network);
        self.coverage.mark(Mark::ClientBack);
        self.flush_client(host, client);
    }
}
