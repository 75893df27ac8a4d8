//! What a shard asks its peers for other shards' fetches, and for its own (`fetching.rs`): the peers that it
//! has links to, and those that it gets links to while a question is open.
//!
//! `answering.rs` is the other end. The messages of an answer take the way of all that a peer sends; here only
//! its beginning and its end are read.

use std::collections::BTreeSet;
use std::sync::Arc;

use nexusd_wire::{Frame, FrameKind, NodeId, Sequence, control};

use super::event::{ConnectionId, Now};
use super::parcel::Item as ParcelItem;
use super::plane::Plane;
use super::violation::Violation;
use super::{Shard, open_connection};
use crate::link::FetchId;

/// What peers are asked for.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// Messages of a topic behind those that were had of each node.
    Messages { topic: Box<str>, had: Vec<(NodeId, u64)> },
    /// To know that these filters are wanted.
    Interest(Arc<[Box<str>]>),
}

/// What a shard asks its peers.
#[derive(Debug)]
pub(crate) struct Question {
    wanted: Wanted,
    /// Peers that were asked and have not answered.
    open: BTreeSet<NodeId>,
}

impl Shard {
    /// Asks the peers of this shard, and those that it finds while the fetch lasts.
    pub(super) fn begin_asking(&mut self, fetch: FetchId, wanted: Wanted) {
        self.questions.insert(fetch, Question { wanted, open: BTreeSet::new() });
        let up = self.links.iter().filter(|(_, link)| link.is_up);
        let peers: Vec<_> = up.map(|(peer, _)| *peer).collect();
        for peer in &peers {
            self.ask(fetch, *peer);
        }
        self.tell_owner(
            fetch,
            |plane| plane.fetch_asked(fetch, &peers, Some(plane.routing.own)),
            || ParcelItem::FetchAsked { fetch, peers: peers.clone(), is_first: true },
        );
    }

    /// A link stands, again or for the first time: its peer is asked for all that is fetched.
    pub(super) fn ask_peer(&mut self, peer: NodeId) {
        let fetches: Vec<_> = self.questions.keys().copied().collect();
        for fetch in fetches {
            self.ask(fetch, peer);
            self.tell_owner(
                fetch,
                |plane| plane.fetch_asked(fetch, &[peer], None),
                || ParcelItem::FetchAsked { fetch, peers: vec![peer], is_first: false },
            );
        }
    }

    fn ask(&mut self, fetch: FetchId, peer: NodeId) {
        let Some(question) = self.questions.get_mut(&fetch) else { return };
        let Some(id) = self.links.get(&peer).and_then(|link| link.connection) else { return };
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        question.open.insert(peer);
        let control = &mut connection.outbound.control;
        match &question.wanted {
            Wanted::Messages { topic, had } => {
                let after = had.iter().find(|(node, _)| *node == peer);
                let after = after.map(|(_, after)| Sequence(*after));
                self.encoder.replay_request(control, fetch.0, topic, after);
            }
            Wanted::Interest(filters) => {
                let filters = filters.iter().map(|filter| &**filter);
                self.encoder.interest_request(control, fetch.0, filters);
            }
        }
        self.schedule(id);
    }

    /// An answer begins or ends.
    pub(super) fn on_replay_answer(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
        now: Now,
    ) -> Result<(), Violation> {
        debug_assert_eq!(frame.kind(), FrameKind::ReplayAnswer);
        let answer = frame.body::<control::ReplayAnswer<'_>>()?;
        let fetch = FetchId(answer.request());
        self.plane.flush_run(now);
        let Some(connection) = open_connection(&mut self.connections, id) else { return Ok(()) };
        let Some(session) = connection.session.link.as_deref_mut() else { return Ok(()) };
        let peer = session.peer;
        session.answers = if answer.is_end() { FetchId::NONE } else { fetch };
        session.note_fetch();
        if answer.is_end() {
            self.peer_answered(fetch, peer, true);
        } else if answer.is_partial() {
            self.tell_owner(
                fetch,
                |plane| plane.fetch_is_partial(fetch, peer),
                || ParcelItem::FetchPartial { fetch, peer },
            );
        }
        Ok(())
    }

    /// A peer has answered, or it is gone.
    fn peer_answered(&mut self, fetch: FetchId, peer: NodeId, has_answered: bool) {
        let question = self.questions.get_mut(&fetch);
        if !question.is_some_and(|question| question.open.remove(&peer)) {
            return;
        }
        self.tell_owner(
            fetch,
            |plane| plane.fetch_answered(fetch, peer, has_answered),
            || ParcelItem::FetchAnswered { fetch, peer, has_answered },
        );
    }

    /// A peer is gone. If it comes back it is asked again.
    pub(super) fn stop_asking(&mut self, peer: NodeId) {
        let fetches: Vec<_> = self.questions.keys().copied().collect();
        for fetch in fetches {
            self.peer_answered(fetch, peer, false);
        }
    }

    /// Tells the shard that keeps a fetch, behind all that came before for it.
    fn tell_owner(
        &mut self,
        fetch: FetchId,
        here: impl FnOnce(&mut Plane),
        elsewhere: impl FnOnce() -> ParcelItem,
    ) {
        let owner = fetch.owner();
        if owner == self.plane.routing.own {
            here(&mut self.plane);
        } else if owner.index() < self.plane.routing.shards() {
            let neighbour = self.plane.neighbours.of(owner);
            neighbour.close_batch();
            neighbour.tell(elsewhere());
            self.plane.passing = None;
        }
    }
}
