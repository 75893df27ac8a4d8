//! Retained values are the same on every node. A change goes to all peers as it is published
//! (`fan_out.rs`, `hand_to_links`); what two nodes do not have in common, after a link begins or has lost
//! something, they find out here: each tells the sums of its buckets, and asks for those that differ.
//! What is asked for comes as a scan like a subscription's (`retained.rs`).

use nexusd_wire::{Frame, FrameKind, NodeId, RETAINED_BUCKETS, control};

use super::event::ConnectionId;
use super::parcel::Item as ParcelItem;
use super::retained::WantedValues;
use super::routing::ShardIndex;
use super::violation::Violation;
use super::{Shard, open_connection};
use crate::link::Origin;
use crate::plant::{Plant, is_planted};
use crate::retained::{Buckets, Digest};

impl Shard {
    /// Begins to compare this node's retained values with a peer's.
    pub(super) fn compare_retained(&mut self, peer: NodeId) {
        let Some(own) = self.plane.retained.digest() else { return };
        if is_planted(Plant::StateNotCompared) {
            return;
        }
        let Some(link) = self.links.get_mut(&peer).filter(|link| link.is_up) else { return };
        // Behind what this node accepted before the peer told what it wants.
        let queue = link.queue.map(|(_, queue)| &self.plane.queues[queue.0 as usize]);
        if queue.is_some_and(|queue| !queue.awaits.is_empty()) {
            return;
        }
        link.comparison.sum = Some(Box::new(*own));
        for neighbour in self.plane.neighbours.all() {
            link.comparison.awaits.insert(neighbour.shard);
            neighbour.tell(ParcelItem::DigestWanted { peer });
        }
        if link.comparison.awaits.is_empty() {
            self.tell_digest(peer);
        }
    }

    /// Another shard has said what it has.
    pub(super) fn on_digest_of_shard(&mut self, peer: NodeId, from: ShardIndex, digest: &Digest) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let comparison = &mut link.comparison;
        let Some(sum) = &mut comparison.sum else { return };
        if !comparison.awaits.contains(from) {
            return;
        }
        comparison.awaits.remove(from);
        sum.iter_mut().zip(digest).for_each(|(sum, other)| *sum ^= other);
        if comparison.awaits.is_empty() {
            self.tell_digest(peer);
        }
    }

    /// Tells a peer what this node has, and asks for what differs if the peer has said so already.
    fn tell_digest(&mut self, peer: NodeId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some(sum) = link.comparison.sum.take() else { return };
        let Some(id) = link.connection.filter(|_| link.is_up) else { return };
        let Some(connection) = open_connection(&mut self.connections, id) else { return };
        let theirs = link.comparison.theirs.take();
        let control = &mut connection.outbound.control;
        self.encoder.retained_digest(control, &sum, theirs.is_some());
        match theirs {
            Some(theirs) => self.fetch_differing(id, &sum, &theirs),
            None => link.comparison.offered = Some(sum),
        }
        self.schedule(id);
    }

    fn fetch_differing(&mut self, id: ConnectionId, own: &Digest, theirs: &Digest) {
        if let Some(buckets) = Buckets::differing(own, theirs)
            && let Some(connection) = open_connection(&mut self.connections, id)
        {
            self.encoder.retained_fetch(&mut connection.outbound.control, &buckets.0);
            self.schedule(id);
        }
    }

    pub(super) fn on_retained_digest(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<(), Violation> {
        let body = frame.body::<control::RetainedDigest<'_>>()?;
        let theirs: Vec<u64> = body.buckets().iter().collect();
        let Ok(theirs) = <Box<Digest>>::try_from(theirs.into_boxed_slice()) else {
            let text = format!("a digest of retained values has {RETAINED_BUCKETS} buckets");
            return Err(Violation::by(frame, &text));
        };
        let Some(peer) = self.peer_of(id) else { return Ok(()) };
        let Some(link) = self.links.get_mut(&peer) else { return Ok(()) };
        if !body.is_answer() {
            link.comparison.theirs = Some(theirs);
            if link.comparison.sum.is_none() {
                self.compare_retained(peer);
            }
        } else if let Some(own) = link.comparison.offered.take() {
            self.fetch_differing(id, &own, &theirs);
        }
        Ok(())
    }

    /// The peer asks for the values of some buckets; what it asked for before and has not had whole, it
    /// gets with them.
    pub(super) fn on_retained_fetch(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<(), Violation> {
        let wanted: Vec<u64> =
            frame.body::<control::RetainedFetch<'_>>()?.buckets().iter().collect();
        let Ok(wanted) = wanted.try_into() else {
            return Err(Violation::by(frame, "a fetch has a bit for each bucket"));
        };
        let Some(peer) = self.peer_of(id) else { return Ok(()) };
        let Some(link) = self.links.get_mut(&peer) else { return Ok(()) };
        let Some((_, queue)) = link.queue else { return Ok(()) };
        let mut buckets = Buckets(wanted);
        if !self.plane.queues[queue.0 as usize].scans.is_empty() {
            buckets.add(&link.comparison.fetched);
        }
        link.comparison.fetched = buckets;
        self.plane.begin_scans_for(queue, &WantedValues::In(Box::new(buckets)));
        self.plane.ask_for_retained(queue);
        Ok(())
    }

    /// The peer's number for another node, or for this one.
    pub(super) fn on_node_bind(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'_>,
    ) -> Result<(), Violation> {
        debug_assert_eq!(frame.kind(), FrameKind::NodeBind);
        let node = NodeId::from(frame.body::<control::NodeBind<'_>>()?.node());
        let origin = match node == self.config.node {
            true => Origin(0),
            false => self.plane.node.origin_of(node),
        };
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return Ok(());
        };
        if let Some(link) = connection.session.link.as_deref_mut() {
            let handle = frame.header().origin();
            link.origins.retain(|(named, _)| *named != handle);
            link.origins.push((handle, origin));
        }
        Ok(())
    }
}
