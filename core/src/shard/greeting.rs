//! Who may be at the other end of a link: Hello, Welcome and the first LinkAck, in which two nodes say who
//! they are and prove that they have the cluster's key.
//!
//! Whoever dialled says Hello and signs last; whoever accepted signs in its Welcome. A node whose link
//! another shard keeps is taken there by its Hello, as clients are that come back; one that this node
//! dialled without knowing who is there is given up and dialled again by its id.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use nexusd_wire::control::{self, ErrorCode, Farewell};
use nexusd_wire::{CHALLENGE_BYTES, Frame, Introduction, NodeId, PROOF_BYTES, PROTOCOL_MINOR};
use siphasher::sip::SipHasher24;

use super::event::{ConnectionId, Door, Now, PeerAddress};
use super::output::{Destination, Output, Report};
use super::routing::home_of_node;
use super::violation::Violation;
use super::{Shard, ShardConfig, fatal, open_connection};
use crate::link::{Guest, Link, LinkRefusal, LinkReport};
use crate::session::SessionState;

const UNSIGNED: &str = "the other node does not have this cluster's key (--cluster-key)";

impl Shard {
    /// This node has dialled another one: says who it is.
    pub(super) fn say_hello(&mut self, id: ConnectionId) {
        let challenge = self.config.mesh.key.is_some().then(|| self.fresh_challenge());
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        connection.session.state = SessionState::AwaitingWelcome;
        connection.session.challenge = challenge.map(Box::new);
        let config = &self.config;
        let mesh_address = config.mesh.address.map(|address| address.to_string());
        let introduction = Introduction {
            challenge: challenge.as_ref().map(<[u8; CHALLENGE_BYTES]>::as_slice),
            ..introduction(config, mesh_address.as_deref())
        };
        let control = &mut connection.outbound.control;
        self.encoder.node_hello(control, &config.software, &introduction);
        self.schedule(id);
    }

    /// Another node has dialled this one.
    pub(super) fn on_node_hello(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        hello: &control::Hello<'_>,
        now: Now,
    ) -> Result<(), Violation> {
        let Some(said) = hello.introduction() else {
            return Err(Violation::by(frame, "a node introduces itself in Hello"));
        };
        let Some(guest) = self.receive_guest(id, &said, now) else { return Ok(()) };
        let home = home_of_node(guest.peer, self.plane.routing.shards());
        if home != self.plane.routing.own {
            self.begin_move(id, frame.bytes(), Destination::Shard(home));
            return Ok(());
        }
        let mut proof = None;
        let mut challenge = None;
        if let Some(key) = &self.config.mesh.key {
            let Some(theirs) = said.challenge() else {
                self.turn_away(id, LinkRefusal::WrongKey, ErrorCode::WrongCluster, UNSIGNED, now);
                return Ok(());
            };
            proof = Some(key.answer(theirs.bytes(), self.config.node, guest.peer));
            challenge = Some(self.fresh_challenge());
        }
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        connection.session.state = SessionState::AwaitingLinkAck;
        connection.session.guest = Some(Box::new(guest));
        connection.session.challenge = challenge.map(Box::new);
        let config = &self.config;
        let mesh_address = config.mesh.address.map(|address| address.to_string());
        let introduction = Introduction {
            challenge: challenge.as_ref().map(<[u8; CHALLENGE_BYTES]>::as_slice),
            proof: proof.as_ref().map(<[u8; PROOF_BYTES]>::as_slice),
            ..introduction(config, mesh_address.as_deref())
        };
        #[cfg_attr(
            not(feature = "protocol-next"),
            expect(
                clippy::unnecessary_min_or_max,
                reason = "the rule stands also while our minor is 0"
            )
        )]
        let minor = hello.minor().min(PROTOCOL_MINOR);
        let control = &mut connection.outbound.control;
        self.encoder.node_welcome(control, minor, &config.software, &introduction);
        #[cfg(feature = "protocol-next")]
        self.agree_on(id, minor, false);
        Ok(())
    }

    /// The node that this one dialled has answered.
    pub(super) fn on_welcome(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Violation> {
        let welcome = frame.body::<control::Welcome<'_>>()?;
        let Some(said) = welcome.introduction() else {
            return Err(Violation::by(frame, "a node introduces itself in Welcome"));
        };
        let Some(guest) = self.receive_guest(id, &said, now) else { return Ok(()) };
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        let Door::Dialled { dial, peer } = connection.session.door else { return Ok(()) };
        let home = home_of_node(guest.peer, self.plane.routing.shards());
        let is_at_home = home == self.plane.routing.own;
        if peer.is_some_and(|peer| peer != guest.peer) || !is_at_home {
            connection.session.guest = Some(Box::new(guest));
            let text = "another node was expected here, or another thread keeps its link";
            self.turn_away(id, LinkRefusal::Unexpected, ErrorCode::NotFound, text, now);
            return Ok(());
        }
        let mut proof = None;
        if let Some(key) = &self.config.mesh.key {
            let (own, other) = (self.config.node, guest.peer);
            let challenge = connection.session.challenge.take();
            let is_proven = challenge.is_some_and(|challenge| {
                let answer = said.proof().map(|proof| proof.bytes());
                key.is_answer(&*challenge, other, own, answer.unwrap_or_default())
            });
            match said.challenge() {
                Some(theirs) if is_proven => proof = Some(key.answer(theirs.bytes(), own, other)),
                _ => {
                    let code = ErrorCode::WrongCluster;
                    self.turn_away(id, LinkRefusal::WrongKey, code, UNSIGNED, now);
                    return Ok(());
                }
            }
        }
        #[cfg(feature = "protocol-next")]
        self.agree_on(id, welcome.minor(), false);
        self.establish(id, guest, Some(dial), proof.as_ref().map(<[u8; 32]>::as_slice), now);
        Ok(())
    }

    /// The node that dialled this one says where its peer's stream goes on, and signs.
    pub(super) fn on_opening_ack(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Violation> {
        let ack = frame.body::<control::LinkAck<'_>>()?;
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        let Some(guest) = connection.session.guest.clone() else { return Ok(()) };
        if let Some(key) = &self.config.mesh.key {
            let challenge = connection.session.challenge.take();
            let is_proven = challenge.is_some_and(|challenge| {
                let answer = ack.proof().map(|proof| proof.bytes()).unwrap_or_default();
                key.is_answer(&*challenge, guest.peer, self.config.node, answer)
            });
            if !is_proven {
                let code = ErrorCode::WrongCluster;
                self.turn_away(id, LinkRefusal::WrongKey, code, UNSIGNED, now);
                return Ok(());
            }
        }
        let is_overtaken =
            |link: &Link| link.connection.is_none() && link.begun > guest.links_begun;
        if self.links.get(&guest.peer).is_some_and(is_overtaken) {
            // Another connection was the link meanwhile, and is none any more. What came over that one may
            // be missing in what this one tells.
            self.report_refused(id, LinkRefusal::Superseded);
            self.say_farewell(id, Farewell::Superseded, now);
            return Ok(());
        }
        let stream = ack.stream().map(Into::into);
        if self.establish(id, *guest, None, None, now) {
            self.attach(id, stream, ack.received());
        }
        Ok(())
    }

    /// The other end does not want this connection to be a link.
    pub(super) fn on_turned_away(&mut self, id: ConnectionId, frame: &Frame<'_>, now: Now) {
        let error = frame.body::<control::Error<'_>>();
        // Who has said that it is of this cluster, and is accepted, can only miss the other's key. Without a key
        // of its own this node is turned away before that, and only the words tell why.
        let says_key = error.as_ref().is_ok_and(|error| error.message() == Some(UNSIGNED));
        let misses_key = says_key
            || open_connection(&mut self.connections, id)
                .is_some_and(|connection| connection.session.guest.is_some());
        let reason = match error.map(|error| error.code()) {
            Ok(ErrorCode::WrongCluster) if misses_key => LinkRefusal::WrongKey,
            Ok(ErrorCode::WrongCluster) => LinkRefusal::WrongCluster,
            Ok(ErrorCode::OwnNode) => LinkRefusal::OwnNode,
            Ok(ErrorCode::VersionMismatch) => LinkRefusal::Version,
            _ => LinkRefusal::Closed,
        };
        self.report_refused(id, reason);
        self.begin_close(id, now);
    }

    /// Takes down who is there; `None` if it is turned away: it is this node, or of another cluster.
    fn receive_guest(
        &mut self,
        id: ConnectionId,
        said: &control::Introduction<'_>,
        now: Now,
    ) -> Option<Guest> {
        let peer = NodeId::from(said.node());
        let connection = open_connection(&mut self.connections, id)?;
        let PeerAddress::Tcp(from) = connection.peer else { return None };
        let told = said.mesh_address().and_then(|address| address.parse::<IpAddr>().ok());
        let guest = Guest {
            peer,
            links_begun: self.links_begun,
            start_us: said.start_us(),
            address: SocketAddr::new(told.unwrap_or(from.ip()), said.mesh_port()),
            app_port: said.app_port(),
        };
        connection.session.guest = Some(Box::new(guest.clone()));
        if peer == self.config.node {
            let text = "this node has dialled itself";
            self.turn_away(id, LinkRefusal::OwnNode, ErrorCode::OwnNode, text, now);
            return None;
        }
        if said.cluster() != self.config.cluster {
            let text = format!("this node is of the cluster '{}' (--cluster)", self.config.cluster);
            let code = ErrorCode::WrongCluster;
            self.turn_away(id, LinkRefusal::WrongCluster, code, &text, now);
            return None;
        }
        if self.is_shut(peer, now) {
            let text = "the link ended because one of the nodes broke the protocol; it is shut for a while";
            self.turn_away(id, LinkRefusal::Closed, ErrorCode::LimitReached, text, now);
            return None;
        }
        Some(guest)
    }

    /// One of the nodes broke the protocol on a connection, which ends. If it is the link, that stays shut for a
    /// while.
    pub(super) fn shut_link(&mut self, id: ConnectionId, reason: &str, now: Now) {
        let Some(peer) = self.peer_of(id) else { return };
        if let Some(link) = self.links.get_mut(&peer).filter(|link| link.connection == Some(id)) {
            link.violations.note(reason, link.up_since_us, now.mono_us);
        }
    }

    /// Whether a link ended just now because one of the nodes broke the protocol.
    fn is_shut(&self, peer: NodeId, now: Now) -> bool {
        let link = self.links.get(&peer);
        link.is_some_and(|link| now.mono_us < link.violations.shut_until_us)
    }

    /// Ends a connection that does not become a link, and says why at both ends.
    pub(super) fn turn_away(
        &mut self,
        id: ConnectionId,
        reason: LinkRefusal,
        code: ErrorCode,
        message: &str,
        now: Now,
    ) {
        self.report_refused(id, reason);
        self.fail(id, &fatal(code, message), now);
    }

    /// A connection does not become a link; told once.
    pub(super) fn report_refused(&mut self, id: ConnectionId, reason: LinkRefusal) {
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        let session = &mut connection.session;
        let dial = match session.door {
            Door::Dialled { dial, .. } => Some(dial),
            // What is not a node is told of nowhere.
            _ if session.guest.is_none() => return,
            _ => None,
        };
        session.door = Door::Mesh;
        let peer = session.guest.take().map(|guest| guest.peer);
        let PeerAddress::Tcp(address) = connection.peer else { return };
        let report = LinkReport::Refused { dial, peer, address, reason };
        self.outputs.push_back(Output::Report(Report::Link(report)));
    }

    /// Bytes that nobody can guess who does not know the seed.
    fn fresh_challenge(&mut self) -> [u8; CHALLENGE_BYTES] {
        self.next_challenge += 1;
        let mut challenge = [0; CHALLENGE_BYTES];
        for (salt, part) in challenge.chunks_exact_mut(8).enumerate() {
            let mut hasher = SipHasher24::new_with_keys(self.config.seed, !(salt as u64));
            (self.next_challenge, self.plane.routing.own.index() as u64).hash(&mut hasher);
            part.copy_from_slice(&hasher.finish().to_le_bytes());
        }
        challenge
    }
}

/// What this node says of itself, without what is signed. Its address is lent as text.
fn introduction<'a>(config: &'a ShardConfig, mesh_address: Option<&'a str>) -> Introduction<'a> {
    Introduction {
        node: config.node,
        start_us: config.mesh.start_us,
        cluster: &config.cluster,
        mesh_address,
        mesh_port: config.mesh.mesh_port,
        app_port: config.mesh.app_port,
        challenge: None,
        proof: None,
    }
}
