//! What must have happened: who published what, who is to have it, and what each subscription was told.
//!
//! The rule of order: what a subscription gets of one publisher and topic has growing numbers. The rule of
//! losses: between two of them, and between what is owed first and the first that comes, whatever is missing
//! was told by a Gap at that place, by name, by number or as a loss of unknown size. What is owed first is
//! known for a publisher of another node from when that node knows what this one wants. The rule of numbers:
//! a node's own numbers of a topic have no holes that no Gap names, unless it fetched something for somebody.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use nexusd_wire::control::GapReason;
use nexusd_wire::{NodeId, SubscriptionId};

mod expiry;
mod full_queues;
mod stream;

pub use stream::{State, Stream};

use stream::Progress;

use super::outages::Outages;
use super::values::{Value, Values};
use crate::violation::{Violation, ensure};

/// What was published earlier is nowhere under way any more.
const UNDER_WAY_US: u64 = 30_000_000;

/// A node among all that ever started: its host, and the count of its start there.
pub type Incarnation = (usize, u32);

/// A client that publishes.
#[derive(Debug)]
pub struct Publisher {
    /// Its node.
    pub at: Incarnation,
    /// That one's id.
    pub node: NodeId,
    /// What it published, by topic, in order.
    pub by_topic: BTreeMap<usize, Vec<u32>>,
    /// Its node said goodbye, and how much it had accepted.
    pub was_told: bool,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was written; the node may have accepted it.
    Written,
    /// It was acknowledged: accepted, and handed to so many.
    Accepted(u32),
    /// It was refused.
    Refused,
}

/// A message.
#[derive(Debug)]
pub struct Publication {
    /// Who published it.
    pub publisher: u32,
    /// Where to.
    pub topic: usize,
    /// Its number, from 0, among those of the publisher and topic.
    pub number: u32,
    /// What became of it.
    pub fate: Fate,
    /// The number that its node gave it, as far as known.
    pub sequence: Option<u64>,
    /// When its client wrote it.
    pub written_us: u64,
    /// Its time to live; 0: for ever.
    pub ttl_us: u64,
}

/// A message as it came.
#[derive(Debug)]
pub struct Delivered<'a> {
    /// To this subscription.
    pub stream: usize,
    /// Of this topic.
    pub topic: usize,
    /// From this node; `None`: the subscription's.
    pub origin: Option<NodeId>,
    /// The node's number.
    pub sequence: u64,
    /// Its origin's.
    pub origin_sequence: u64,
    /// Its payload.
    pub payload: &'a [u8],
    /// When its node accepted it, by that one's clock.
    pub timestamp_us: u64,
    /// Of a retained value, which message it is.
    pub key_hash: u32,
    /// The subscription had asked for the values that there are.
    pub is_handed_over: bool,
    /// When its node put its first byte on the connection.
    pub begun_us: u64,
}

/// A loss as it was told.
#[derive(Debug)]
pub struct Loss {
    /// Topic, first and last number.
    pub entries: Vec<(usize, u64, u64)>,
    /// In all.
    pub missed: u64,
    /// Why.
    pub reason: GapReason,
}

/// All of it.
#[derive(Debug)]
pub struct Oracle {
    topics: Vec<&'static str>,
    /// The first topic whose messages become its retained value.
    first_value: usize,
    /// What is known of those.
    pub values: Values,
    /// By number.
    pub publishers: BTreeMap<u32, Publisher>,
    /// By number.
    pub publications: Vec<Publication>,
    /// By number.
    pub streams: Vec<Stream>,
    /// Nothing may be lost.
    pub is_lossless: bool,
    /// What is missing unless it was refused, and where.
    suspects: Vec<(u32, String)>,
    /// Nodes that fetched for a subscription what others hold: that takes numbers which are nobody else's.
    fetching: BTreeSet<Incarnation>,
    /// Something changed in what a node wants, since this was last asked.
    pub changed: Vec<Incarnation>,
    /// Messages that came.
    pub deliveries: u64,
    /// What subscriptions hear, if anybody wants to know.
    pub heard: Option<Vec<String>>,
    /// The time.
    pub now_us: u64,
    /// Who did nothing, or could not be reached, and when.
    pub outages: Outages,
    /// How old a message gets on a link that nothing cuts off, without getting older for its receiver.
    pub link_us: u64,
    /// For so long a full queue holds publishers back.
    pub block_timeout_us: u64,
    /// Wall clocks, ahead of virtual time, by host; empty: they are set now and then.
    pub walls_ahead_us: Vec<u64>,
    /// When messages of each topic may be over.
    mortal: BTreeMap<usize, Vec<u64>>,
}

impl Oracle {
    /// One that knows of nothing yet.
    pub fn new(mut topics: Vec<&'static str>, values: &[&'static str], is_lossless: bool) -> Self {
        let first_value = topics.len();
        topics.extend(values);
        Self {
            topics,
            first_value,
            values: Values::default(),
            publishers: BTreeMap::new(),
            publications: Vec::new(),
            streams: Vec::new(),
            is_lossless,
            suspects: Vec::new(),
            fetching: BTreeSet::new(),
            changed: Vec::new(),
            deliveries: 0,
            heard: None,
            now_us: 0,
            outages: Outages::default(),
            link_us: 0,
            block_timeout_us: 0,
            walls_ahead_us: Vec::new(),
            mortal: BTreeMap::new(),
        }
    }

    /// The number of a topic.
    pub fn topic_named(&self, name: &str) -> Option<usize> {
        self.topics.iter().position(|topic| *topic == name)
    }

    /// The name of a topic.
    pub fn name(&self, topic: usize) -> &'static str {
        self.topics[topic]
    }

    /// A client will publish.
    pub fn publisher(&mut self, client: u32, at: Incarnation, node: NodeId) {
        let by_topic = BTreeMap::new();
        self.publishers.insert(client, Publisher { at, node, by_topic, was_told: false });
    }

    /// A node said goodbye to a client.
    pub fn told_goodbye(&mut self, client: u32) {
        if let Some(publisher) = self.publishers.get_mut(&client) {
            publisher.was_told = true;
        }
    }

    /// A node has sent all that it had for the subscriptions of a client.
    pub fn told_all(&mut self, node: NodeId, streams: &[usize]) {
        for &stream in streams {
            let stream = &mut self.streams[stream];
            stream.told_all = (stream.state == State::Open).then_some(node);
        }
    }

    /// A message is written; the subscriptions of its own node that are confirmed will have it.
    pub fn publish(&mut self, client: u32, topic: usize, ttl_us: u64) -> u32 {
        let publication = self.publications.len() as u32;
        let publisher = self.publishers.get_mut(&client).expect("it was announced");
        let earlier = publisher.by_topic.entry(topic).or_default();
        let number = earlier.len() as u32;
        earlier.push(publication);
        let at = publisher.at;
        self.publications.push(Publication {
            publisher: client,
            topic,
            number,
            fate: Fate::Written,
            sequence: None,
            written_us: self.now_us,
            ttl_us,
        });
        if ttl_us > 0 {
            self.mortal.entry(topic).or_default().push(self.now_us + ttl_us);
        }
        let name = self.topics[topic];
        let streams = self.streams.iter_mut().filter(|stream| stream.state != State::Ended);
        streams.filter(|stream| stream.wants(name)).for_each(|stream| stream.offered += 1);
        if topic < self.first_value {
            self.owe(publication, at);
        }
        publication
    }

    /// The topics whose messages become their retained values.
    pub fn value_topics(&self) -> Range<usize> {
        self.first_value..self.topics.len()
    }

    /// What a node's open subscriptions want of this message will come to them.
    pub fn owe(&mut self, publication: u32, to: Incarnation) {
        let Publication { publisher, topic, number, .. } = self.publications[publication as usize];
        for stream in &mut self.streams {
            if stream.at == to && stream.state == State::Open && stream.wants(self.topics[topic]) {
                let unknowns = stream.unknowns;
                let fresh = Progress { next: 0, owed_from: None, is_heard: false, unknowns };
                let progress = stream.progress.entry((publisher, topic)).or_insert(fresh);
                progress.owed_from.get_or_insert(number);
            }
        }
    }

    /// A subscription is asked for.
    pub fn subscribe(&mut self, client: u32, at: Incarnation, filters: Vec<&'static str>) -> usize {
        let mut stream = Stream::new(client, at, filters);
        let recently = self.publications.iter().rev();
        let recently = recently.take_while(|it| it.written_us + UNDER_WAY_US >= self.now_us);
        stream.offered = recently.filter(|it| stream.wants(self.topics[it.topic])).count() as u64;
        self.streams.push(stream);
        self.changed.push(at);
        self.streams.len() - 1
    }

    /// A subscription that has ended and was told of no loss, if there is one.
    pub fn ended_cleanly(&self) -> Option<usize> {
        let is_clean = |stream: &Stream| {
            let has_named = stream.named.values().any(|named| *named > 0);
            let has_lost = stream.unknowns > 0 || stream.unnamed > 0 || stream.overflows > 0;
            stream.state == State::Ended && !stream.is_taken_up && !has_named && !has_lost
        };
        let has_heard = |stream: &Stream| {
            let mut all = stream.progress.iter();
            all.any(|((_, topic), progress)| progress.is_heard && *topic < self.first_value)
        };
        self.streams.iter().position(|stream| is_clean(stream) && has_heard(stream))
    }

    /// A subscription takes up where an ended one was, at whatever node: it is to have all that came behind.
    /// Returns how far that had come, by topic and node, and its node, if that has said that nothing follows.
    pub fn take_up(
        &mut self,
        ended: usize,
        stream: usize,
    ) -> (Vec<(usize, NodeId, u64)>, Option<NodeId>) {
        let mut newest: BTreeMap<(usize, NodeId), u64> = BTreeMap::new();
        let mut goes_on = BTreeMap::new();
        let first_value = self.first_value;
        let heard = self.streams[ended].progress.iter();
        for (&(publisher, topic), it) in heard.filter(|(of, it)| it.is_heard && of.1 < first_value)
        {
            let who = &self.publishers[&publisher];
            let last = who.by_topic[&topic][it.next as usize - 1];
            let Some(sequence) = self.publications[last as usize].sequence else { continue };
            let known = newest.entry((topic, who.node)).or_default();
            *known = sequence.max(*known);
            let owed_from = it.owed_from.map(|from| from.max(it.next));
            let fresh = Progress { next: it.next, owed_from, is_heard: true, unknowns: 0 };
            goes_on.insert((publisher, topic), fresh);
        }
        // What it had before its node was known to want it was on its way for another one. Behind these it is
        // to have what follows its positions, and the newest is the only one of which that is sure.
        for ((publisher, topic), it) in &mut goes_on {
            let who = &self.publishers[publisher];
            let last = who.by_topic[topic][it.next as usize - 1];
            let is_newest = self.publications[last as usize].sequence
                == newest.get(&(*topic, who.node)).copied();
            it.owed_from = it.owed_from.or(is_newest.then_some(it.next));
        }
        self.streams[ended].is_taken_up = true;
        let stream = &mut self.streams[stream];
        stream.progress = goes_on;
        stream.takes_up = true;
        self.fetching.insert(stream.at);
        let newest = newest.into_iter().map(|((topic, node), last)| (topic, node, last));
        (newest.collect(), self.streams[ended].told_all)
    }

    /// Nodes that fetched something for a subscription.
    pub fn fetching(&self) -> impl Iterator<Item = &Incarnation> {
        self.fetching.iter()
    }

    /// It is confirmed.
    pub fn confirmed(&mut self, stream: usize, subscription: SubscriptionId) {
        let stream = &mut self.streams[stream];
        stream.subscription = Some(subscription);
        if stream.state == State::Asked {
            stream.state = State::Open;
        }
        self.changed.push(stream.at);
    }

    /// Its end is asked for.
    pub fn ending(&mut self, stream: usize) {
        self.streams[stream].state = State::Ending;
        self.changed.push(self.streams[stream].at);
    }

    /// It is no more.
    pub fn ended(&mut self, stream: usize) {
        self.streams[stream].state = State::Ended;
        self.changed.push(self.streams[stream].at);
    }

    /// A node is no more.
    pub fn node_ended(&mut self, at: Incarnation) {
        for stream in self.streams.iter_mut().filter(|stream| stream.at == at) {
            stream.state = State::Ended;
        }
    }

    /// Which of some subscriptions has this id.
    pub fn stream_of(&self, among: &[usize], subscription: SubscriptionId) -> Option<usize> {
        let is_it = |at: &&usize| self.streams[**at].subscription == Some(subscription);
        among.iter().find(is_it).copied()
    }

    /// A topic begins anew: what its next number is says nothing.
    pub fn forget_numbers(&mut self, stream: usize, topic: usize) {
        self.streams[stream].numbers.remove(&topic);
    }

    /// A message was acknowledged.
    pub fn accepted(
        &mut self,
        publication: u32,
        sequence: u64,
        delivered: u32,
    ) -> Result<(), Violation> {
        let it = &mut self.publications[publication as usize];
        ensure!(it.fate == Fate::Written, "message {publication} was answered twice");
        it.fate = Fate::Accepted(delivered);
        let known = it.sequence.replace(sequence);
        ensure!(
            known.is_none_or(|known| known == sequence),
            "message {publication} was acknowledged as {sequence} and delivered as {known:?}"
        );
        Ok(())
    }

    /// A message was refused.
    pub fn refused(&mut self, publication: u32) {
        self.publications[publication as usize].fate = Fate::Refused;
    }

    /// A message came to a subscription.
    pub fn delivered(&mut self, it: &Delivered<'_>) -> Result<(), Violation> {
        let at = it.stream;
        let name = self.topics[it.topic];
        self.deliveries += 1;
        let is_value = it.topic >= self.first_value;
        let publication = match is_value {
            true => Some(it.key_hash),
            false => it.payload.first_chunk().map(|first| u32::from_le_bytes(*first)),
        };
        let publication = publication.unwrap_or(u32::MAX);
        let is_clear = self.values.is_clear(publication);
        let Some(known) = self.publications.get_mut(publication as usize) else {
            return Err(Violation(format!("stream {at} got what nobody published, on {name}")));
        };
        let filling = it.payload.get(4..).unwrap_or_default();
        ensure!(
            filling.iter().all(|byte| *byte == publication as u8)
                && it.payload.is_empty() == is_clear,
            "stream {at}: the payload of message {publication} was changed"
        );
        ensure!(
            known.topic == it.topic,
            "stream {at}: message {publication} came as one of {name}"
        );
        let publisher = &self.publishers[&known.publisher];
        let stream = &mut self.streams[at];
        ensure!(
            stream.wants(name),
            "stream {at} wants {:?} and got message {publication} of {name}",
            stream.filters
        );
        stream.received += 1;
        let is_own = publisher.at == stream.at;
        ensure!(
            it.origin == (!is_own).then_some(publisher.node),
            "stream {at}: message {publication} of {} came as one of {:?}",
            publisher.node,
            it.origin
        );
        let sequence = if is_own { it.sequence } else { it.origin_sequence };
        let earlier = known.sequence.replace(sequence);
        ensure!(
            earlier.is_none_or(|earlier| earlier == sequence),
            "stream {at}: message {publication} has the number {sequence}, and had {earlier:?}"
        );
        let (node, by, of) = (publisher.node, publisher.at, stream.at);
        let is_strict = !self.fetching.contains(&of);
        let (publisher, number) = (known.publisher, known.number);
        let expired = self.mortal.get(&it.topic).map_or(0, |ends| expiry::over(ends, it.begun_us));
        if let Some(heard) = &mut self.heard {
            let sequence = it.sequence;
            heard.push(format!("stream {at} hears message {publication} of {name} as {sequence}"));
        }
        if is_value {
            let value = Value { timestamp_us: it.timestamp_us, node, publication };
            self.values.heard(of, it.topic, value);
            // Who accepted it had it first.
            self.values.heard(by, it.topic, value);
            if it.is_handed_over {
                self.values.handed_over(at, it.topic, value);
                return Ok(());
            }
            // Of values only the newest is owed, but none comes twice, nor behind a newer one of its publisher.
            let newest = stream.newest_values.insert((publisher, it.topic), number);
            ensure!(
                newest.is_none_or(|newest| newest < number),
                "stream {at} got value {number} of publisher {publisher} to {name} (message \
                 {publication}) behind {newest:?}"
            );
            return stream.take_number(at, name, it.topic, it.sequence, (is_strict, expired));
        }
        stream.take_number(at, name, it.topic, it.sequence, (is_strict, expired))?;
        let unknowns = stream.unknowns;
        let fresh = Progress { next: 0, owed_from: None, is_heard: false, unknowns };
        let progress = stream.progress.entry((publisher, it.topic)).or_insert(fresh);
        ensure!(
            progress.next <= number,
            "stream {at} got number {number} of publisher {publisher} to {name} (message \
             {publication}) when the next one was {}: it came twice or out of order",
            progress.next
        );
        let owed = progress.owed_numbers(number);
        let is_excused = unknowns > progress.unknowns;
        (progress.next, progress.is_heard, progress.unknowns) = (number + 1, true, unknowns);
        if !is_excused {
            self.find_missing(at, publisher, it.topic, owed, it.begun_us);
        }
        self.check_age(publication, it)
    }

    /// Messages did not come until then: each was told as lost, was refused, or its time was over.
    fn find_missing(
        &mut self,
        at: usize,
        publisher: u32,
        topic: usize,
        numbers: Range<u32>,
        by_us: u64,
    ) {
        let stream = &mut self.streams[at];
        for number in numbers.clone() {
            let publication = self.publishers[&publisher].by_topic[&topic][number as usize];
            let it = &self.publications[publication as usize];
            if it.fate == Fate::Refused || it.may_be_over(by_us) {
                continue;
            }
            let named = stream.named.entry(topic).or_default();
            if *named > 0 {
                *named -= 1;
            } else if stream.unnamed > 0 {
                stream.unnamed -= 1;
            } else {
                let text = format!(
                    "stream {at} (client {} of node {:?}, filters {:?}) never got number {number} \
                     (message {publication}) of publisher {publisher} of node {:?} to {} and was \
                     not told; the next one it got was {}",
                    stream.client,
                    stream.at,
                    stream.filters,
                    self.publishers[&publisher].at,
                    self.topics[topic],
                    numbers.end
                );
                self.suspects.push((publication, text));
            }
        }
    }

    /// A subscription was told of a loss.
    pub fn lost(&mut self, at: usize, loss: &Loss) -> Result<(), Violation> {
        ensure!(
            !self.is_lossless,
            "stream {at} was told of a loss of {} messages ({:?}), but nothing may be lost",
            loss.missed,
            loss.reason
        );
        if let Some(heard) = &mut self.heard {
            heard.push(format!("stream {at} is told of {loss:?}"));
        }
        if loss.reason == GapReason::SlowConsumer {
            self.check_overflow(at)?;
        }
        let stream = &mut self.streams[at];
        let is_strict = !self.fetching.contains(&stream.at);
        let is_of_link = loss.reason == GapReason::LinkLost && loss.missed < u64::MAX;
        let has_overflown = is_of_link || loss.reason == GapReason::SlowConsumer;
        stream.overflows += u64::from(has_overflown);
        let mut named = 0;
        for &(topic, first, last) in &loss.entries {
            ensure!(first <= last, "stream {at} was told of a gap from {first} to {last}");
            let name = self.topics[topic];
            ensure!(stream.wants(name), "stream {at} was told of a gap in {name}");
            let (had, _) = stream.numbers.get(&topic).copied().unwrap_or_default();
            let first = match stream.has_come_back {
                // It was told before the connection broke.
                true if last <= had => continue,
                true => first.max(had + 1),
                false => first,
            };
            let ends = self.mortal.get(&topic);
            let expired = ends.map_or(0, |ends| expiry::over(ends, self.now_us));
            stream.take_number(at, name, topic, first, (is_strict, expired))?;
            let unknowns = stream.unknowns;
            stream.numbers.insert(topic, (last, unknowns));
            *stream.named.entry(topic).or_default() += last - first + 1;
            named += last - first + 1;
        }
        if loss.missed == u64::MAX {
            stream.unknowns += 1;
        } else {
            ensure!(loss.missed >= named, "stream {at}: a gap names more than it tells");
            stream.unnamed += loss.missed - named;
            stream.unnamed_numbers += loss.missed - named;
        }
        Ok(())
    }

    /// Whether anything is missing that was not refused.
    pub fn check_suspects(&self) -> Result<(), Violation> {
        for (publication, text) in &self.suspects {
            ensure!(self.publications[*publication as usize].fate == Fate::Refused, "{text}");
        }
        Ok(())
    }

    /// Looks whether the open subscriptions have had all of a publisher's messages to a topic, up to the last
    /// one, or were told otherwise. Its node has stopped in good order and said how far it came, or else those
    /// that were acknowledged count.
    pub fn check_tail(&mut self, publisher: u32, topic: usize, has_crashed: bool) {
        let it = &self.publishers[&publisher];
        let has_crashed = has_crashed || !it.was_told;
        let Some(all) = it.by_topic.get(&topic) else { return };
        let is_accepted = |publication: &u32| {
            matches!(self.publications[*publication as usize].fate, Fate::Accepted(_))
        };
        let end = match has_crashed {
            false => all.len(),
            true => all.iter().rposition(is_accepted).map_or(0, |last| last + 1),
        } as u32;
        let by_us = self.now_us;
        for at in 0..self.streams.len() {
            let stream = &self.streams[at];
            let Some(progress) = stream.progress.get(&(publisher, topic)).copied() else {
                continue;
            };
            let is_told = progress.unknowns != stream.unknowns;
            if stream.state == State::Open && !is_told {
                self.find_missing(at, publisher, topic, progress.owed_numbers(end), by_us);
            }
        }
    }

    /// Whether a subscription has had a message.
    pub fn has_had(&self, stream: usize, publication: u32) -> bool {
        let Publication { publisher, topic, number, .. } = self.publications[publication as usize];
        let progress = self.streams[stream].progress.get(&(publisher, topic));
        progress.is_some_and(|progress| progress.next > number && progress.is_heard)
    }

    /// The filters of a node's subscriptions; `None` while that is not sure.
    pub fn filters_of(&self, at: Incarnation) -> Option<BTreeSet<&'static str>> {
        let mut filters = BTreeSet::new();
        for stream in self.streams.iter().filter(|stream| stream.at == at) {
            match stream.state {
                State::Open => filters.extend(stream.filters.iter().copied()),
                State::Ended => {}
                State::Asked | State::Ending => return None,
            }
        }
        Some(filters)
    }
}
