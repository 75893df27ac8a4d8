//! What a subscription that comes back gets from other nodes: of a topic, the messages that these accepted
//! and still hold behind what its client has had of each.
//!
//! The owner of the topic keeps a *fetch* and asks every node that there is a link to. Until a node has
//! answered, what it sends live of the topic is not for the subscription: the answer ends where the live
//! messages behind it begin, in the same stream, so none is missing between and none comes twice. The
//! client is told of its subscription when all have answered, or did not in time.
//!
//! The way of an answer: the shard of the link counts its messages (`relay.rs`), the owner numbers them
//! and keeps them out of its history, and the shard of the queue gets them as it gets a replay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nexusd_wire::control::{DeliveryMode, GapReason};
use nexusd_wire::{Frame, FrameKind, Header, NodeId, Sequence, SubscriptionId, TopicId, control};

use super::event::{ConnectionId, Now};
use super::parcel::{Item as ParcelItem, LentRun, Replay};
use super::parking::{ReplayedTopics, replayed};
use super::plane::Plane;
use super::publish::Run;
use super::replay::WantedTopic;
use super::routing::{ShardIndex, ShardMask};
use super::violation::Violation;
use super::{Shard, open_connection};
use crate::gap::Gap;
use crate::limits::{FETCH_FOUND_US, FETCH_TIMEOUT_US, FETCHES_MAX, SHARDS_MAX};
use crate::link::{FetchId, Origin, Relay};
use crate::log::{Extent, Log};
use crate::subscriber_queue::{Item, QueueId, SubscriberQueue};

/// No topic: slots are far fewer. Of a fetch that could not begin, and of one that fetches nothing.
const NO_TOPIC: TopicId = TopicId(u32::MAX);
const NOTHING: TopicId = TopicId(u32::MAX - 1);

/// The queue that a fetch is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) shard: ShardIndex,
    pub(crate) queue: QueueId,
    pub(crate) subscription: SubscriptionId,
}

/// What other nodes are asked for, of one topic and for one subscription.
#[derive(Debug)]
pub(crate) struct Fetch {
    topic: TopicId,
    target: Target,
    /// How far the client has come with the messages of each node; and those that came since.
    had: BTreeMap<NodeId, u64>,
    /// Nodes whose messages it has had, or that were there, and that have not answered.
    named: BTreeSet<NodeId>,
    /// Nodes that were asked and have not answered, and those that have.
    asked: BTreeSet<NodeId>,
    answered: BTreeSet<NodeId>,
    /// Of these something has come.
    heard: BTreeSet<NodeId>,
    /// Shards that have not said whom they asked.
    asking: ShardMask,
    is_partial: bool,
    begun_us: u64,
}

/// All fetches of a shard's topics.
#[derive(Debug, Default)]
pub(crate) struct Fetching {
    /// There may be other nodes.
    is_possible: bool,
    fetches: BTreeMap<FetchId, Fetch>,
    last: u64,
    /// Fetches that this shard's peers are to be asked for.
    begun: Vec<(FetchId, Wanted)>,
    /// Queues of this shard for which nothing more is fetched.
    done: Vec<QueueId>,
}

impl Fetching {
    pub(crate) fn new(is_possible: bool) -> Self {
        Self { is_possible, ..Self::default() }
    }

    /// Whether there is something to look after.
    pub(crate) fn is_busy(&self) -> bool {
        !self.fetches.is_empty() || !self.begun.is_empty() || !self.done.is_empty()
    }

    /// Whether there are other nodes to ask.
    pub(crate) fn is_possible(&self) -> bool {
        self.is_possible
    }
}

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

/// How a fetch has ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Something is missing before what came.
    pub(crate) is_partial: bool,
    /// Nodes that did not answer, and how far the client had come with each: what it has had may still come
    /// over their links.
    pub(crate) silent: Vec<(NodeId, u64)>,
}

/// What a queue is not to get of a topic, because its client has had it of that node.
#[derive(Debug)]
pub(crate) struct Floor {
    topic: TopicId,
    node: NodeId,
    had: u64,
}

/// A topic that a queue gets from other nodes: it is to have the live messages of those that have answered.
#[derive(Debug)]
pub(crate) struct Gate {
    topic: TopicId,
    answered: Vec<Origin>,
}

impl SubscriberQueue {
    /// Whether its client may be told of it: all that has to be known or had before is. A peer is told nothing.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.is_link || (self.awaits.is_empty() && self.gates.is_empty())
    }

    /// Whether live messages of another node are not for it, because it gets them with an answer.
    #[inline]
    pub(crate) fn keeps_out(&self, topic: TopicId, origin: Origin) -> bool {
        !self.gates.is_empty() && self.is_behind_gate(topic, origin)
    }

    /// The rest of a run of another node's messages that its client has not had of it before; `None`:
    /// nothing of it.
    #[cold]
    pub(crate) fn above_floor(
        &mut self,
        topic: TopicId,
        node: NodeId,
        run: &Extent,
        log: &Log,
    ) -> Option<Extent> {
        let is_it = |floor: &Floor| floor.topic == topic && floor.node == node;
        let Some(at) = self.floors.iter().position(is_it) else { return Some(*run) };
        let had = self.floors[at].had;
        let mut parts = Vec::new();
        log.split_where(run, &mut parts, |header| header.origin_sequence().0 > had);
        if !parts.is_empty() {
            // They grow: all that comes from now on is new.
            self.floors.swap_remove(at);
        }
        parts.pop()
    }

    #[cold]
    fn is_behind_gate(&self, topic: TopicId, origin: Origin) -> bool {
        let gate = self.gates.iter().find(|gate| gate.topic == topic);
        gate.is_some_and(|gate| !gate.answered.contains(&origin))
    }
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
            self.peer_answered(fetch, peer, Some(answer.is_partial()));
        }
        Ok(())
    }

    /// `answer`: whether more was asked for than the peer holds; `None`: the peer is gone.
    fn peer_answered(&mut self, fetch: FetchId, peer: NodeId, answer: Option<bool>) {
        let question = self.questions.get_mut(&fetch);
        if !question.is_some_and(|question| question.open.remove(&peer)) {
            return;
        }
        self.tell_owner(
            fetch,
            |plane| plane.fetch_answered(fetch, peer, answer),
            || ParcelItem::FetchAnswered { fetch, peer, answer },
        );
    }

    /// A peer is gone. If it comes back it is asked again.
    pub(super) fn stop_asking(&mut self, peer: NodeId) {
        let fetches: Vec<_> = self.questions.keys().copied().collect();
        for fetch in fetches {
            self.peer_answered(fetch, peer, None);
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

    /// Ends the fetches that have all they can get, and begins to ask for new ones.
    pub(super) fn advance_fetches(&mut self) {
        while let Some((fetch, wanted)) = self.plane.fetching.begun.pop() {
            self.begin_asking(fetch, wanted);
        }
        for fetch in self.plane.end_fetches() {
            self.questions.remove(&fetch);
        }
        while let Some(queue) = self.plane.fetching.done.pop() {
            self.confirm_if_ready(queue);
        }
    }
}

impl Plane {
    /// Begins to fetch a topic of this shard for a subscription, and replays what this node accepted itself.
    pub(super) fn begin_fetch(&mut self, target: Target, wanted: &WantedTopic) {
        let limit = self.limits.topics;
        let is_full = self.fetching.fetches.len() >= FETCHES_MAX;
        let topic = self.topics.find_or_insert(&wanted.name, limit, self.now_us);
        let Some(topic) = topic.filter(|_| !is_full) else {
            return self.end_gate_at(
                target,
                NO_TOPIC,
                Outcome { is_partial: true, ..Outcome::default() },
            );
        };
        let mut had: BTreeMap<NodeId, u64> = wanted.origins.iter().copied().collect();
        let own = had.remove(&self.own);
        let name = wanted.name.clone();
        let question = had.iter().map(|(node, after)| (*node, *after)).collect();
        let fetch = self.ask_peers(&Wanted::Messages { topic: name, had: question });
        let mut begun = self.fetch_of(topic, target, had);
        if target.shard == self.routing.own {
            self.close_gate(target.queue, topic);
        } else {
            self.name_to(topic, target.shard);
            let Target { shard, queue, subscription } = target;
            let gate = ParcelItem::FetchBegins { queue, subscription, topic };
            self.neighbours.of(shard).tell(gate);
        }
        let after = own.unwrap_or(0);
        begun.is_partial = self.replay_where(&mut begun, after, |header, _| header.origin() == 0);
        self.fetching.fetches.insert(fetch, begun);
    }

    /// Has a subscription of this shard wait until the peers know its filters.
    pub(super) fn begin_waiting(&mut self, queue: QueueId) {
        let held = &mut self.queues[queue.0 as usize];
        held.gates.push(Gate { topic: NOTHING, answered: Vec::new() });
        let (filters, subscription) = (held.filters.iter().cloned().collect(), held.subscription);
        let fetch = self.ask_peers(&Wanted::Interest(filters));
        let target = Target { shard: self.routing.own, queue, subscription };
        let begun = self.fetch_of(NOTHING, target, BTreeMap::new());
        self.fetching.fetches.insert(fetch, begun);
    }

    /// Lets all shards ask their peers.
    fn ask_peers(&mut self, wanted: &Wanted) -> FetchId {
        self.fetching.last += 1;
        let fetch = FetchId::new(self.fetching.last, self.routing.own);
        for neighbour in self.neighbours.all() {
            neighbour.tell(ParcelItem::Fetch { fetch, wanted: wanted.clone() });
        }
        self.fetching.begun.push((fetch, wanted.clone()));
        fetch
    }

    fn fetch_of(&self, topic: TopicId, target: Target, had: BTreeMap<NodeId, u64>) -> Fetch {
        let mut asking = ShardMask::default();
        asking.insert(self.routing.own);
        self.neighbours.iter().for_each(|neighbour| asking.insert(neighbour.shard));
        Fetch {
            topic,
            target,
            named: had.keys().copied().collect(),
            had,
            asked: BTreeSet::new(),
            answered: BTreeSet::new(),
            heard: BTreeSet::new(),
            asking,
            is_partial: false,
            begun_us: self.now_us,
        }
    }

    /// Replays, of what this node holds of a fetch's topic behind its message `after`, the messages for which
    /// `is_wanted`. Returns whether there were more.
    fn replay_where(
        &mut self,
        fetch: &mut Fetch,
        after: u64,
        is_wanted: impl Fn(&Header, &Fetch) -> bool,
    ) -> bool {
        self.settle_history();
        let topic = fetch.topic;
        let Some(standing) = self.topics.standing(topic) else { return false };
        if after >= standing.newest {
            return false;
        }
        let newest_run = self.topics.newest_run(topic);
        let (extents, oldest) =
            self.history.above(topic, newest_run, standing, after, &self.log, self.now_us);
        let mut parts = Vec::new();
        for extent in &extents {
            self.log.split_where(extent, &mut parts, |header| is_wanted(header, fetch));
        }
        self.hand_to(fetch.target, topic, &parts);
        oldest > after + 1
    }

    /// Puts messages in this shard's log into a queue, or lends them to its shard.
    pub(super) fn hand_to(&mut self, target: Target, topic: TopicId, parts: &[Extent]) {
        let Target { shard, queue, subscription } = target;
        let replayed = parts.iter().map(|part| Extent { mode: DeliveryMode::Replay, ..*part });
        if parts.is_empty() {
            return;
        }
        if shard == self.routing.own {
            if self.is_same_queue(queue, subscription) {
                self.begin_replay(queue, topic, None);
                replayed.for_each(|extent| self.push_replay(queue, extent));
            }
            return;
        }
        self.name_to(topic, shard);
        let lend = |extent: Extent| {
            let memory = self.log.lend(extent.segment, shard)?;
            Some(LentRun::addressed(extent, memory))
        };
        let runs = replayed.filter_map(lend).collect();
        let (lost, is_unknown, newest, answer) = (None, false, None, None);
        let replay = Replay { queue, subscription, topic, lost, is_unknown, runs, newest, answer };
        self.neighbours.of(shard).tell(ParcelItem::Replay(Box::new(replay)));
    }

    /// Whether a message that answers a fetch is wanted. `header` is the peer's.
    pub(super) fn is_fetched(&self, relay: Relay, header: &Header) -> bool {
        let Some(fetch) = self.fetching.fetches.get(&relay.fetch) else { return false };
        let node = self.node.node_of(relay.origin);
        if fetch.answered.contains(&node) {
            return false;
        }
        header.origin_sequence().0 > fetch.had.get(&node).copied().unwrap_or(0)
    }

    /// Hands a run of messages that answer a fetch to the queue that it is for.
    #[cold]
    pub(super) fn hand_fetched(&mut self, run: &Run) {
        let topic = self.topics.topic(run.topic);
        topic.used_at_us = self.now_us;
        topic.sequence = run.sequence.0;
        let messages = u64::from(run.extent.messages);
        self.metrics.messages_in += messages;
        self.metrics.bytes_in += u64::from(run.extent.len);
        self.metrics.relayed += messages;
        let origin = run.origin.unwrap_or(Origin(0));
        if let Some(mut fetch) = self.fetching.fetches.remove(&run.fetch) {
            let last = self.log.last_header(&run.extent).origin_sequence();
            let node = self.node.node_of(origin);
            fetch.had.insert(node, last.0);
            fetch.heard.insert(node);
            self.hand_to(fetch.target, run.topic, &[run.extent]);
            self.fetching.fetches.insert(run.fetch, fetch);
        }
        self.log.release(run.extent.segment);
        if self.log.is_over_budget() {
            self.shrink_to_budget();
        }
    }

    /// Peers were asked. `all_of`: these are all that this shard had a link to at first.
    pub(super) fn fetch_asked(
        &mut self,
        id: FetchId,
        peers: &[NodeId],
        all_of: Option<ShardIndex>,
    ) {
        let Some(fetch) = self.fetching.fetches.get_mut(&id) else { return };
        if let Some(shard) = all_of {
            fetch.asking.remove(shard);
        }
        let new = peers.iter().filter(|peer| !fetch.answered.contains(peer));
        fetch.asked.extend(new);
    }

    /// A peer has answered, or is gone.
    pub(super) fn fetch_answered(&mut self, id: FetchId, peer: NodeId, answer: Option<bool>) {
        let Some(fetch) = self.fetching.fetches.get_mut(&id) else { return };
        fetch.asked.remove(&peer);
        let Some(is_partial) = answer else {
            if !fetch.answered.contains(&peer) {
                fetch.named.insert(peer);
            }
            return;
        };
        fetch.is_partial |= is_partial;
        if fetch.answered.insert(peer) {
            fetch.named.remove(&peer);
            let (topic, target) = (fetch.topic, fetch.target);
            let origin = self.node.origin_of(peer);
            self.open_gate_at(target, topic, origin);
        }
    }

    fn open_gate_at(&mut self, target: Target, topic: TopicId, origin: Origin) {
        let Target { shard, queue, subscription } = target;
        if shard == self.routing.own {
            self.open_gate(queue, subscription, topic, origin);
        } else {
            let item = ParcelItem::FetchedFrom { queue, subscription, topic, origin };
            self.neighbours.of(shard).tell(item);
        }
    }

    /// Ends what has all it can get; which ones.
    fn end_fetches(&mut self) -> Vec<FetchId> {
        if self.fetching.fetches.is_empty() {
            return Vec::new();
        }
        let all = self.fetching.fetches.iter();
        let due: Vec<_> = all.filter(|(_, fetch)| self.is_over(fetch)).map(|(id, _)| *id).collect();
        for id in &due {
            self.end_fetch(*id);
        }
        due
    }

    fn is_over(&self, fetch: &Fetch) -> bool {
        let since_us = self.now_us.saturating_sub(fetch.begun_us);
        let is_complete = fetch.asking.is_empty() && fetch.asked.is_empty();
        if fetch.topic == NOTHING {
            return is_complete || since_us >= FETCH_FOUND_US;
        }
        let has_settled = self.age_us() >= FETCH_FOUND_US;
        let is_settled = has_settled && fetch.named.is_empty();
        (is_complete && (is_settled || since_us >= FETCH_FOUND_US)) || since_us >= FETCH_TIMEOUT_US
    }

    fn end_fetch(&mut self, id: FetchId) {
        let Some(mut fetch) = self.fetching.fetches.remove(&id) else { return };
        let mut outcome = Outcome::default();
        if fetch.topic != NOTHING {
            let had = |node: &NodeId| (*node, fetch.had.get(node).copied().unwrap_or(0));
            let silent: Vec<_> = fetch.named.union(&fetch.asked).map(had).collect();
            // The rest of an answer that was cut short is missing here.
            if silent.iter().any(|(node, _)| fetch.heard.contains(node)) {
                self.tell_cut_at(fetch.target);
            }
            self.replay_of_silent(&mut fetch);
            outcome = Outcome { is_partial: fetch.is_partial, silent };
        }
        for neighbour in self.neighbours.all() {
            neighbour.tell(ParcelItem::EndFetch { fetch: id });
        }
        self.end_gate_at(fetch.target, fetch.topic, outcome);
    }

    /// Of nodes that do not answer this one may hold something.
    fn replay_of_silent(&mut self, fetch: &mut Fetch) {
        fetch.is_partial |= !fetch.named.is_empty() || !fetch.asked.is_empty();
        let names: BTreeMap<u32, NodeId> = self.node.all_origins();
        let from = self.topics.standing(fetch.topic).map_or(0, |standing| standing.first - 1);
        self.replay_where(fetch, from, |header, fetch| {
            let Some(node) = names.get(&header.origin()) else { return false };
            let had = fetch.had.get(node).copied().unwrap_or(0);
            !fetch.answered.contains(node) && header.origin_sequence().0 > had
        });
    }

    fn tell_cut_at(&mut self, target: Target) {
        let Target { shard, queue, subscription } = target;
        if shard == self.routing.own {
            self.tell_cut(queue, subscription);
        } else {
            let item = ParcelItem::FetchCut { queue, subscription };
            self.neighbours.of(shard).tell(item);
        }
    }

    /// What comes next to a queue is not what follows.
    pub(super) fn tell_cut(&mut self, id: QueueId, subscription: SubscriptionId) {
        if self.is_same_queue(id, subscription) {
            let gap = unknown_gap();
            self.log.charge_gap(&gap);
            self.queues[id.0 as usize].items.push_back(Item::Gap(gap));
        }
    }

    fn end_gate_at(&mut self, target: Target, topic: TopicId, outcome: Outcome) {
        let Target { shard, queue, subscription } = target;
        if shard == self.routing.own {
            self.end_gate(queue, subscription, topic, outcome);
        } else {
            let item = ParcelItem::FetchEnds { queue, subscription, topic, outcome };
            self.neighbours.of(shard).tell(item);
        }
    }

    /// When a fetch may end though nothing comes.
    pub(super) fn fetches_due_us(&self) -> Option<u64> {
        let settled_us = self.now_us + FETCH_FOUND_US.saturating_sub(self.age_us());
        let due = |fetch: &Fetch| {
            let found_us = fetch.begun_us + FETCH_FOUND_US;
            let timeout_us = fetch.begun_us + FETCH_TIMEOUT_US;
            [found_us, settled_us, timeout_us].into_iter().find(|due| *due > self.now_us)
        };
        self.fetching.fetches.values().filter_map(due).min()
    }

    /// Live messages of a topic from other nodes are not for a queue, until they have answered.
    pub(super) fn close_gate(&mut self, queue: QueueId, topic: TopicId) {
        if let Some(queue) = self.queues.get_mut(queue.0 as usize) {
            queue.gates.push(Gate { topic, answered: Vec::new() });
        }
    }

    pub(super) fn open_gate(
        &mut self,
        queue: QueueId,
        subscription: SubscriptionId,
        topic: TopicId,
        origin: Origin,
    ) {
        if self.is_same_queue(queue, subscription)
            && let Some(queue) = self.queues.get_mut(queue.0 as usize)
            && let Some(gate) = queue.gates.iter_mut().find(|gate| gate.topic == topic)
        {
            gate.answered.push(origin);
        }
    }

    /// Nothing more is fetched of a topic for a queue.
    pub(super) fn end_gate(
        &mut self,
        id: QueueId,
        subscription: SubscriptionId,
        topic: TopicId,
        outcome: Outcome,
    ) {
        if !self.is_same_queue(id, subscription) {
            return;
        }
        let Outcome { is_partial, silent } = outcome;
        let queue = &mut self.queues[id.0 as usize];
        queue.gates.retain(|gate| gate.topic != topic);
        queue.is_partial |= is_partial;
        queue.is_fetched |= topic != NOTHING;
        let had = silent.into_iter().filter(|(_, had)| *had > 0);
        queue.floors.extend(had.map(|(node, had)| Floor { topic, node, had }));
        if queue.gates.is_empty() {
            if queue.is_fetched {
                self.bracket_as_replay(id);
            }
            self.fetching.done.push(id);
        }
    }

    /// All that has come to a queue while its client waited is a replay. What nobody holds any more is missing
    /// before it.
    fn bracket_as_replay(&mut self, id: QueueId) {
        let queue = &mut self.queues[id.0 as usize];
        debug_assert!(!queue.is_held(), "nothing is sent of it before");
        let mut replay = ReplayedTopics::default();
        queue.items.retain(|item| !matches!(item, Item::ReplayComplete(_)));
        for item in &mut queue.items {
            if let Item::Extent(extent) = item {
                *extent = replayed(*extent);
                replay.add(extent, &self.log);
            }
        }
        (queue.replay_messages, queue.replay_bytes) = (queue.messages, queue.bytes);
        queue.items.extend(replay.ends());
        if std::mem::take(&mut queue.is_partial) {
            let gap = unknown_gap();
            self.log.charge_gap(&gap);
            queue.items.push_front(Item::Gap(gap));
        }
    }
}

fn unknown_gap() -> Box<Gap> {
    let mut gap = Gap::new(GapReason::ReplayWindow);
    gap.note_unknown();
    Box::new(gap)
}

impl FetchId {
    fn new(number: u64, owner: ShardIndex) -> Self {
        Self(number * SHARDS_MAX as u64 + owner.index() as u64)
    }

    /// The shard that keeps the fetch.
    fn owner(self) -> ShardIndex {
        ShardIndex::new((self.0 % SHARDS_MAX as u64) as usize)
    }
}
