//! What a subscription that comes back gets from other nodes: of a topic, the messages that these accepted
//! and still hold behind what its client has had of each.
//!
//! The owner of the topic keeps a *fetch* and asks every node that there is a link to. Until a node has
//! answered, what it sends live of the topic is not for the subscription: the answer ends where the live
//! messages behind it begin, in the same stream, so none is missing between and none comes twice. The
//! client is told of its subscription when all have answered, or did not in time.
//!
//! The shards of the links ask (`asking.rs`), and the queue keeps out what is not for it yet (`gate.rs`).
//! The way of an answer: the shard of the link counts its messages (`relay.rs`), the owner numbers them
//! and keeps them out of its history, and the shard of the queue gets them as it gets a replay.

use std::collections::{BTreeMap, BTreeSet};

use nexusd_wire::control::DeliveryMode;
use nexusd_wire::{Header, NodeId, Sequence, SubscriptionId, TopicId};

use super::Shard;
use super::asking::Wanted;
use super::gate::Outcome;
use super::parcel::{Item as ParcelItem, LentRun, Replay};
use super::plane::Plane;
use super::publish::Run;
use super::replay::WantedTopic;
use super::routing::{ShardIndex, ShardMask};
use crate::limits::{FETCH_FOUND_US, FETCH_LATE_US, FETCH_TIMEOUT_US, FETCHES_MAX, SHARDS_MAX};
use crate::link::{FetchId, Origin, Relay};
use crate::log::Extent;
use crate::subscriber_queue::{QueueId, ReplayComplete};

/// No topic: slots are far fewer. Of a fetch that could not begin, and of one that fetches nothing.
const NO_TOPIC: TopicId = TopicId(u32::MAX);
pub(super) const NOTHING: TopicId = TopicId(u32::MAX - 1);

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
    /// Nodes of which it has had all: nobody waits for them, and what a link still brings of theirs is kept
    /// out.
    ended: BTreeSet<NodeId>,
    /// Nodes that were asked and have not answered, and those that have.
    asked: BTreeSet<NodeId>,
    answered: BTreeSet<NodeId>,
    /// Of these something has come.
    heard: BTreeSet<NodeId>,
    /// Shards that have not said whom they asked.
    asking: ShardMask,
    is_partial: bool,
    /// When it began or, once it is late, when the last node was lost that was asked.
    waits_since_us: u64,
    /// Its client was told of its subscription; some nodes may still answer.
    is_late: bool,
    /// Messages that came since.
    late: u64,
    /// Nodes that were found since, while this one was still looking for others.
    found_late: BTreeSet<NodeId>,
}

impl Fetch {
    /// The rest of what a node has, or had, is missing behind what came of it.
    fn is_cut_short(&self) -> bool {
        self.named.iter().any(|node| self.heard.contains(node))
    }

    /// Whether something may be missing that a node has not answered.
    fn misses_answers(&self) -> bool {
        !self.named.is_subset(&self.ended)
    }
}

/// All fetches of a shard's topics.
#[derive(Debug, Default)]
pub(crate) struct Fetching {
    /// There may be other nodes.
    is_possible: bool,
    fetches: BTreeMap<FetchId, Fetch>,
    last: u64,
    /// When each of them may end though nothing comes.
    due: BTreeSet<(u64, FetchId)>,
    /// Those that have heard something since they were last looked at.
    touched: BTreeSet<FetchId>,
    /// Fetches that this shard's peers are to be asked for.
    begun: Vec<(FetchId, Wanted)>,
    /// Queues of this shard for which nothing more is fetched.
    pub(super) done: Vec<QueueId>,
}

impl Fetching {
    pub(crate) fn new(is_possible: bool) -> Self {
        Self { is_possible, ..Self::default() }
    }

    /// Whether there is something to look after.
    pub(crate) fn is_busy(&self, now_us: u64) -> bool {
        let has_news = !self.begun.is_empty() || !self.touched.is_empty() || !self.done.is_empty();
        has_news || self.due_us().is_some_and(|due| due <= now_us)
    }

    /// When a fetch may end though nothing comes.
    pub(crate) fn due_us(&self) -> Option<u64> {
        self.due.first().map(|(due_us, _)| *due_us)
    }

    /// Whether there are other nodes to ask.
    pub(crate) fn is_possible(&self) -> bool {
        self.is_possible
    }
}

impl Shard {
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
        begun.ended.clone_from(&wanted.ended);
        if target.shard == self.routing.own {
            self.close_gate(target.queue, topic);
        } else {
            self.name_to(topic, target.shard);
            let Target { shard, queue, subscription } = target;
            let gate = ParcelItem::FetchBegins { queue, subscription, topic };
            self.neighbours.of(shard).tell(gate);
        }
        let after = own.unwrap_or(0);
        let (held, oldest) = self.held_where(topic, after, |header| header.origin() == 0);
        begun.is_partial = self.topics.has_own_between(topic, after, oldest);
        self.hand_to(target, topic, &held);
        self.fetching.fetches.insert(fetch, begun);
        self.look_again(fetch);
    }

    /// Has a subscription of this shard wait until the peers know its filters.
    pub(super) fn begin_waiting(&mut self, queue: QueueId) {
        self.close_gate(queue, NOTHING);
        let held = &self.queues[queue.0 as usize];
        let (filters, subscription) = (held.filters.iter().cloned().collect(), held.subscription);
        let fetch = self.ask_peers(&Wanted::Interest(filters));
        let target = Target { shard: self.routing.own, queue, subscription };
        let begun = self.fetch_of(NOTHING, target, BTreeMap::new());
        self.fetching.fetches.insert(fetch, begun);
        self.look_again(fetch);
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
            ended: BTreeSet::new(),
            asked: BTreeSet::new(),
            answered: BTreeSet::new(),
            heard: BTreeSet::new(),
            asking,
            is_partial: false,
            waits_since_us: self.now_us,
            is_late: false,
            late: 0,
            found_late: BTreeSet::new(),
        }
    }

    /// What this node holds of a topic behind its message `after`, the messages for which `is_wanted`; and
    /// the number from which on it holds all.
    fn held_where(
        &mut self,
        topic: TopicId,
        after: u64,
        mut is_wanted: impl FnMut(&Header) -> bool,
    ) -> (Vec<Extent>, u64) {
        self.settle_history();
        let mut parts = Vec::new();
        let Some(standing) = self.topics.standing(topic) else { return (parts, after + 1) };
        if after >= standing.newest {
            return (parts, after + 1);
        }
        let newest_run = self.topics.newest_run(topic);
        let (extents, oldest) =
            self.history.above(topic, newest_run, standing, after, &self.log, self.now_us);
        for extent in &extents {
            self.log.split_where(extent, &mut parts, &mut is_wanted);
        }
        (parts, oldest)
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
        // Whom nobody waited for sends what there is live, as soon as it is there.
        let is_uninvited = fetch.is_late && !fetch.named.contains(&node);
        if is_uninvited || fetch.answered.contains(&node) {
            return false;
        }
        header.origin_sequence().0 > fetch.had.get(&node).copied().unwrap_or(0)
    }

    /// Hands a run of messages that answer a fetch to the queue that it is for.
    #[cold]
    pub(super) fn hand_fetched(&mut self, run: &Run) {
        let topic = self.topics.topic(run.topic);
        topic.used(self.now_us);
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
            fetch.late += if fetch.is_late { messages } else { 0 };
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
        let has_settled = self.has_settled();
        let Some(fetch) = self.fetching.fetches.get_mut(&id) else { return };
        if let Some(shard) = all_of {
            fetch.asking.remove(shard);
        }
        let new = peers.iter().filter(|peer| !fetch.answered.contains(peer));
        fetch.asked.extend(new.clone());
        if fetch.is_late && !has_settled {
            let found: Vec<_> = new.filter(|peer| !fetch.named.contains(peer)).copied().collect();
            fetch.named.extend(&found);
            fetch.found_late.extend(found);
            self.keep_out_silent(id);
        }
        self.fetching.touched.insert(id);
    }

    /// Live messages of nodes that have not answered in time are not for the subscription.
    fn keep_out_silent(&mut self, id: FetchId) {
        let Some(fetch) = self.fetching.fetches.get(&id) else { return };
        let (target, topic) = (fetch.target, fetch.topic);
        let silent = fetch.named.iter().map(|node| self.node.origin_of(*node)).collect();
        self.end_gate_at(target, topic, Outcome { is_partial: false, silent });
    }

    /// An answer begins, and is not all that was asked for. What is missing is missing here if something of it
    /// came before, and else before all that comes.
    pub(super) fn fetch_is_partial(&mut self, id: FetchId, peer: NodeId) {
        let Some(fetch) = self.fetching.fetches.get_mut(&id) else { return };
        if fetch.answered.contains(&peer) || fetch.ended.contains(&peer) {
            return;
        }
        if fetch.is_late || fetch.heard.contains(&peer) {
            let target = fetch.target;
            self.tell_cut_at(target);
        } else {
            fetch.is_partial = true;
        }
    }

    /// A peer has answered, or is gone.
    pub(super) fn fetch_answered(&mut self, id: FetchId, peer: NodeId, has_answered: bool) {
        self.fetching.touched.insert(id);
        let Some(fetch) = self.fetching.fetches.get_mut(&id) else { return };
        fetch.asked.remove(&peer);
        if !has_answered {
            if fetch.is_late {
                fetch.waits_since_us = self.now_us;
            } else if !fetch.answered.contains(&peer) {
                fetch.named.insert(peer);
            }
            return;
        }
        if fetch.answered.insert(peer) {
            fetch.named.remove(&peer);
            fetch.found_late.remove(&peer);
            let (topic, target, messages) =
                (fetch.topic, fetch.target, std::mem::take(&mut fetch.late));
            let latest = self.topics.standing(topic).map_or(Sequence(0), |it| Sequence(it.newest));
            let complete = (messages > 0).then_some(ReplayComplete { topic, messages, latest });
            let origin = self.node.origin_of(peer);
            self.open_gate_at(target, topic, origin, complete);
        }
    }

    fn open_gate_at(
        &mut self,
        target: Target,
        topic: TopicId,
        origin: Origin,
        complete: Option<ReplayComplete>,
    ) {
        let Target { shard, queue, subscription } = target;
        if shard == self.routing.own {
            self.open_gate(queue, subscription, topic, origin, complete);
        } else {
            let item = ParcelItem::FetchedFrom { queue, subscription, topic, origin, complete };
            self.neighbours.of(shard).tell(item);
        }
    }

    /// Ends what has all it can get; those of which nobody is asked any more.
    fn end_fetches(&mut self) -> Vec<FetchId> {
        let mut looked_at = std::mem::take(&mut self.fetching.touched);
        while let Some(&(due_us, id)) = self.fetching.due.first()
            && due_us <= self.now_us
        {
            self.fetching.due.pop_first();
            looked_at.insert(id);
        }
        let mut ended = Vec::new();
        for id in looked_at {
            let Some(fetch) = self.fetching.fetches.get(&id) else { continue };
            if self.is_over(fetch) && self.end_fetch(id) {
                ended.push(id);
            } else {
                self.look_again(id);
            }
        }
        ended
    }

    /// Notes when a fetch has to be looked at though nothing comes.
    fn look_again(&mut self, id: FetchId) {
        let Some(fetch) = self.fetching.fetches.get(&id) else { return };
        let settled_us = self.now_us + FETCH_FOUND_US.saturating_sub(self.age_us());
        let dues = match fetch.is_late {
            true => [fetch.waits_since_us + FETCH_LATE_US; 3],
            false => [
                settled_us,
                fetch.waits_since_us + FETCH_FOUND_US,
                fetch.waits_since_us + FETCH_TIMEOUT_US,
            ],
        };
        let next = dues.into_iter().filter(|due| *due > self.now_us).min();
        self.fetching.due.extend(next.map(|due| (due, id)));
    }

    fn is_over(&self, fetch: &Fetch) -> bool {
        let since_us = self.now_us.saturating_sub(fetch.waits_since_us);
        if fetch.is_late {
            // Over a link that stands an answer comes, however far behind it is.
            let is_given_up = fetch.asked.is_empty() && since_us >= FETCH_LATE_US;
            return fetch.named.is_empty() || is_given_up;
        }
        let is_complete = fetch.asking.is_empty() && fetch.asked.is_subset(&fetch.ended);
        if fetch.topic == NOTHING {
            return is_complete || since_us >= FETCH_FOUND_US;
        }
        // Who comes from a node that ended well goes on at once: who is found then is asked all the same.
        let has_settled = self.has_settled() || !fetch.ended.is_empty();
        let is_settled = has_settled && !fetch.misses_answers();
        (is_complete && (is_settled || since_us >= FETCH_FOUND_US)) || since_us >= FETCH_TIMEOUT_US
    }

    /// Whether this node has had the time to find all others.
    fn has_settled(&self) -> bool {
        self.age_us() >= FETCH_FOUND_US
    }

    /// Lets a subscription go on. Returns whether nobody is asked any more.
    fn end_fetch(&mut self, id: FetchId) -> bool {
        let Some(mut fetch) = self.fetching.fetches.remove(&id) else { return true };
        let (target, topic) = (fetch.target, fetch.topic);
        let mut is_late = false;
        if fetch.is_late {
            if fetch.is_cut_short() || !fetch.found_late.is_empty() {
                self.tell_cut_at(target);
            }
            self.end_gate_at(target, topic, Outcome::default());
        } else if topic == NOTHING {
            self.end_gate_at(target, topic, Outcome::default());
        } else {
            fetch.named.extend(&fetch.asked);
            if fetch.is_cut_short() {
                self.tell_cut_at(target);
            }
            self.replay_of_silent(&mut fetch);
            fetch.is_partial |= fetch.misses_answers();
            fetch.heard.clear();
            let silent: Vec<_> =
                fetch.named.iter().map(|node| self.node.origin_of(*node)).collect();
            is_late = !silent.is_empty();
            self.end_gate_at(target, topic, Outcome { is_partial: fetch.is_partial, silent });
        }
        if is_late {
            fetch.is_late = true;
            self.fetching.fetches.insert(id, fetch);
        } else {
            for neighbour in self.neighbours.all() {
                neighbour.tell(ParcelItem::EndFetch { fetch: id });
            }
        }
        !is_late
    }

    /// Of nodes that do not answer this one may hold something: what it got while it wanted the topic.
    fn replay_of_silent(&mut self, fetch: &mut Fetch) {
        let from = self.topics.standing(fetch.topic).map_or(0, |standing| standing.first - 1);
        for node in fetch.named.difference(&fetch.ended) {
            let origin = self.node.origin_of(*node).0;
            let had = fetch.had.entry(*node).or_default();
            loop {
                let mut run_end = None;
                let (held, _) = self.held_where(fetch.topic, from, |header| {
                    let number = header.origin_sequence().0;
                    let follows = run_end.is_none_or(|end| number == end + 1);
                    let is_next = header.origin() == origin && number > *had && follows;
                    run_end = if is_next { Some(number) } else { run_end };
                    is_next
                });
                let Some(run_end) = run_end else { break };
                *had = run_end;
                self.hand_to(fetch.target, fetch.topic, &held);
                self.tell_cut_at(fetch.target);
            }
        }
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

    fn end_gate_at(&mut self, target: Target, topic: TopicId, outcome: Outcome) {
        let Target { shard, queue, subscription } = target;
        if shard == self.routing.own {
            self.end_gate(queue, subscription, topic, outcome);
        } else {
            let item = ParcelItem::FetchEnds { queue, subscription, topic, outcome };
            self.neighbours.of(shard).tell(item);
        }
    }
}

impl FetchId {
    fn new(number: u64, owner: ShardIndex) -> Self {
        Self(number * SHARDS_MAX as u64 + owner.index() as u64)
    }

    /// The shard that keeps the fetch.
    pub(super) fn owner(self) -> ShardIndex {
        ShardIndex::new((self.0 % SHARDS_MAX as u64) as usize)
    }
}
