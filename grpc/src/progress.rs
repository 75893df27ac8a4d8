//! How far a subscription's client has come, as far as that can be known.
//!
//! gRPC has no acknowledgements: what was given to a stream may never have come. So the daemon is told late: it
//! keeps the newest messages (the *tail*) and sends them again when the client comes back, who says what of
//! them it has had. What it may have missed and is acknowledged, it is told as a gap.
//!
//! Invariant: what is acknowledged was yielded by the client's stream. A message that only waits for it is not.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use nexusd_wire::NodeId;

use crate::limits::{EVENTS_TOGETHER, NAME_BYTES_BESIDE, POSITIONS_MAX, TAIL_BYTES, TAIL_MESSAGES};
use crate::message_id::MessageId;
use crate::proto;
use crate::sources::Taken;

/// A message that is the client's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Given {
    pub(crate) topic: Arc<str>,
    pub(crate) sequence: u64,
    pub(crate) origin: NodeId,
    pub(crate) origin_sequence: u64,
    pub(crate) bytes: usize,
}

/// The first and the last of a topic that are acknowledged.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    first: u64,
    last: u64,
}

/// What was given to a client, and what of it is acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    acknowledged: u64,
    newest_acknowledged: Option<Given>,
    /// Of the first topics.
    topics: HashMap<Arc<str>, Acknowledged>,
    /// There are more.
    has_more_topics: bool,
    /// Not acknowledged: what the stream has yielded, what is on its way there, and what waits here.
    tail: VecDeque<Given>,
    tail_bytes: usize,
    /// How many of the tail are on their way, in two batches, and wait.
    on_their_way: [usize; 2],
    waiting: usize,
    /// What the client had not had of the tail when it came back, and has not come again yet.
    again: VecDeque<Given>,
    tail_messages_max: usize,
}

impl Progress {
    /// Of a subscription whose queue holds so many messages; `None`: as many as the daemon pleases.
    pub(crate) fn new(queue_messages: Option<u32>) -> Self {
        let quarter = queue_messages.map_or(TAIL_MESSAGES, |messages| messages as usize / 4);
        Self {
            acknowledged: 0,
            newest_acknowledged: None,
            topics: HashMap::new(),
            has_more_topics: false,
            tail: VecDeque::new(),
            tail_bytes: 0,
            on_their_way: [0; 2],
            waiting: 0,
            again: VecDeque::new(),
            tail_messages_max: quarter.clamp(1, TAIL_MESSAGES),
        }
    }

    /// Messages of which the daemon was told that they have come.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Messages that should go to the client together.
    pub(crate) fn together_max(&self) -> usize {
        (self.tail_messages_max / 8).clamp(1, EVENTS_TOGETHER)
    }

    /// Memory that it takes, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let given = self.tail.capacity() + self.again.capacity();
        let topics = self.topics.capacity() * size_of::<(Arc<str>, Acknowledged)>();
        size_of::<Self>() + given * size_of::<Given>() + topics + self.names_bytes()
    }

    /// What the names of topics take, each of which many know.
    fn names_bytes(&self) -> usize {
        let given = self.tail.iter().chain(&self.again).chain(&self.newest_acknowledged);
        let all = given.map(|given| &given.topic).chain(self.topics.keys());
        let mut seen = HashSet::new();
        all.filter(|name| seen.insert(Arc::as_ptr(name)))
            .map(|name| name.len() + NAME_BYTES_BESIDE)
            .sum()
    }

    /// A message waits to be given to the client, or is one that it has had.
    pub(crate) fn note(&mut self, given: Given) {
        if let Some(at) = self.again.iter().position(|again| is_same(again, &given)) {
            // Those before it have expired.
            self.again.drain(..=at);
        }
        self.tail_bytes += given.bytes;
        self.waiting += 1;
        self.tail.push_back(given);
    }

    /// All that waited is on its way to the stream, which has yielded all of the batch before the last.
    pub(crate) fn hand_over(&mut self) {
        self.on_their_way = [self.on_their_way[1], std::mem::take(&mut self.waiting)];
    }

    /// The count to tell the daemon, if the tail is too long.
    pub(crate) fn acknowledge(&mut self) -> Option<u64> {
        let kept = self.waiting + self.on_their_way[0] + self.on_their_way[1];
        if self.tail.len() <= self.tail_messages_max && self.tail_bytes <= TAIL_BYTES {
            return None;
        }
        let before = self.acknowledged;
        let (messages, bytes) = (self.tail_messages_max * 3 / 4, TAIL_BYTES * 3 / 4);
        while self.tail.len() > kept && (self.tail.len() > messages || self.tail_bytes > bytes) {
            let Some(given) = self.tail.pop_front() else { break };
            self.tail_bytes -= given.bytes;
            self.count(given);
        }
        (self.acknowledged > before).then_some(self.acknowledged)
    }

    /// Counts a message as acknowledged.
    fn count(&mut self, given: Given) {
        self.acknowledged += 1;
        let Given { sequence, .. } = given;
        if let Some(topic) = self.topics.get_mut(&given.topic) {
            topic.last = sequence.max(topic.last);
            topic.first = sequence.min(topic.first);
        } else if self.topics.len() < POSITIONS_MAX {
            let range = Acknowledged { first: sequence, last: sequence };
            self.topics.insert(Arc::clone(&given.topic), range);
        } else {
            self.has_more_topics = true;
        }
        self.newest_acknowledged = Some(given);
    }

    /// The client comes back and says what it has had. What stands at the front of the tail is acknowledged, the
    /// rest of it comes again.
    pub(crate) fn come_back(&mut self, had: Had) -> Comeback {
        let mut tail = std::mem::take(&mut self.tail);
        tail.append(&mut self.again);
        (self.tail_bytes, self.on_their_way, self.waiting) = (0, [0; 2], 0);
        let (known, gap) = match &had {
            Had::Untold if self.acknowledged == 0 => (0, None),
            // Nobody can know.
            Had::Untold => (0, Some(unknown())),
            Had::UpTo { origin, number, topic } => {
                let is_it = |given: &Given| {
                    (given.origin, given.origin_sequence) == (*origin, *number)
                        && *given.topic == **topic
                };
                let is_newest = self.newest_acknowledged.as_ref().is_some_and(is_it);
                match tail.iter().rposition(is_it) {
                    Some(at) => (at + 1, None),
                    None if is_newest => (0, None),
                    // It is older, and what came behind it is acknowledged.
                    None => (0, Some(unknown())),
                }
            }
            Had::Positions(positions) => {
                let is_had = |given: &&Given| {
                    positions.get(&*given.topic).is_some_and(|had| *had >= given.sequence)
                };
                (tail.iter().take_while(is_had).count(), self.missed_behind(positions))
            }
        };
        tail.drain(..known).for_each(|given| self.count(given));
        self.again = tail;
        let skipped = match had {
            Had::Positions(positions) => positions,
            _ => HashMap::new(),
        };
        Comeback { gap, skipped: Skipped(skipped), ..Comeback::default() }
    }

    /// What is acknowledged, and the client has not had.
    fn missed_behind(&self, had: &HashMap<String, u64>) -> Option<proto::Gap> {
        let mut ranges = Vec::new();
        for (topic, acknowledged) in &self.topics {
            let had = had.get(&**topic).copied().unwrap_or(0);
            let first = acknowledged.first.max(had.saturating_add(1));
            if acknowledged.last >= first {
                let (first, last) = (to_i64(first), to_i64(acknowledged.last));
                ranges.push(proto::MissedRange { topic: topic.to_string(), first, last });
            }
        }
        ranges.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
        match self.has_more_topics {
            true => Some(gap(-1, ranges)),
            false => missed(ranges),
        }
    }
}

fn is_same(one: &Given, other: &Given) -> bool {
    one.sequence == other.sequence && one.topic == other.topic
}

/// Numbers beyond what the interface can say are its largest.
pub(crate) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A loss of which nobody knows how large it is, if there is one.
pub(crate) fn unknown() -> proto::Gap {
    gap(-1, Vec::new())
}

/// A loss of these messages, if there are any.
pub(crate) fn missed(ranges: Vec<proto::MissedRange>) -> Option<proto::Gap> {
    let missed = ranges.iter().map(|range| range.last - range.first + 1).sum();
    (missed > 0).then(|| gap(missed, ranges))
}

fn gap(missed: i64, mut ranges: Vec<proto::MissedRange>) -> proto::Gap {
    let told = ranges.len().min(64);
    let elsewhere = ranges.drain(told..).map(|range| range.last - range.first + 1).sum();
    proto::Gap { reason: "link_lost".to_owned(), missed, ranges, elsewhere }
}

/// What a client says that it has had.
#[derive(Clone, Debug)]
pub(crate) enum Had {
    /// Nothing: it is given the whole tail again.
    Untold,
    /// All up to this message.
    UpTo { origin: NodeId, number: u64, topic: String },
    /// All up to these numbers of these topics, and nothing of others.
    Positions(HashMap<String, u64>),
}

impl Had {
    /// What the last message says.
    pub(crate) fn up_to(id: &MessageId<'_>) -> Self {
        Self::UpTo { origin: id.origin, number: id.number, topic: id.topic.to_owned() }
    }
}

/// How a client goes on.
#[derive(Debug, Default)]
pub(crate) struct Comeback {
    /// What it may have missed and does not come again.
    pub(crate) gap: Option<proto::Gap>,
    /// What it missed and was found elsewhere, …
    pub(crate) found: Vec<proto::Message>,
    /// … and the room for that.
    pub(crate) room: Option<Taken>,
    /// What it has had and comes again.
    pub(crate) skipped: Skipped,
}

/// Messages that come again though the client has had them, as it says: up to these numbers of these topics.
#[derive(Debug, Default)]
pub(crate) struct Skipped(HashMap<String, u64>);

impl Skipped {
    /// What they take in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.0.keys().map(|topic| topic.len() + NAME_BYTES_BESIDE).sum()
    }

    /// Whether this message, which comes again, is one of them.
    pub(crate) fn takes(&self, again: &Given) -> bool {
        self.0.get(&*again.topic).is_some_and(|had| *had >= again.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: NodeId = NodeId(7);

    fn message(topic: &str, sequence: u64) -> Given {
        let origin_sequence = sequence + 100;
        Given { topic: topic.into(), sequence, origin: ORIGIN, origin_sequence, bytes: 10 }
    }

    /// What is given to a stream that takes it at once.
    fn give(progress: &mut Progress, given: Given) {
        progress.note(given);
        progress.hand_over();
        progress.acknowledge();
    }

    /// 1,500 messages of `a` and `b` in turn.
    fn progress() -> Progress {
        let mut progress = Progress::new(None);
        for at in 0..1_500u64 {
            give(&mut progress, message(if at % 2 == 0 { "a" } else { "b" }, at / 2 + 1));
        }
        progress
    }

    fn up_to(topic: &str, sequence: u64) -> Had {
        Had::UpTo { origin: ORIGIN, number: sequence + 100, topic: topic.to_owned() }
    }

    #[test]
    fn the_daemon_is_told_late_and_keeps_the_newest() {
        let progress = progress();
        let kept = progress.tail.len();
        assert!((TAIL_MESSAGES / 2..=TAIL_MESSAGES).contains(&kept), "{kept}");
        assert_eq!(progress.acknowledged() + kept as u64, 1_500);
        assert_eq!(progress.topics["a"].last, progress.acknowledged().div_ceil(2));
    }

    #[test]
    fn what_the_stream_has_not_yielded_is_never_acknowledged() {
        let mut progress = Progress::new(Some(8));
        assert_eq!(progress.together_max(), 1);
        for sequence in 1..=9 {
            progress.note(message("a", sequence));
            assert_eq!(progress.acknowledge(), None, "it waits");
        }
        progress.hand_over();
        assert_eq!(progress.acknowledge(), None, "it is on its way");
        progress.note(Given { bytes: 4 << 20, ..message("a", 10) });
        progress.hand_over();
        assert_eq!(progress.acknowledge(), None, "the stream may have half of it");
        progress.note(message("a", 11));
        progress.hand_over();
        assert_eq!(progress.acknowledge(), Some(9));
        progress.hand_over();
        assert_eq!(progress.acknowledge(), Some(10));
    }

    #[test]
    fn who_names_the_last_message_gets_those_behind_it() {
        let mut progress = progress();
        let comeback = progress.come_back(up_to("b", 740));
        assert!(comeback.gap.is_none());
        assert_eq!(progress.acknowledged(), 1_480);
        assert_eq!(progress.again.front(), Some(&message("a", 741)));
    }

    #[test]
    fn who_comes_back_again_before_all_has_come_again_misses_and_repeats_nothing() {
        let mut progress = progress();
        progress.come_back(up_to("b", 740));
        // Of what comes again one message has expired; then the connection breaks once more.
        give(&mut progress, message("b", 741));
        give(&mut progress, message("a", 742));
        let comeback = progress.come_back(up_to("b", 741));
        assert!(comeback.gap.is_none());
        assert_eq!(progress.acknowledged(), 1_481);
        let comeback = progress.come_back(up_to("b", 743));
        assert!(comeback.gap.is_none(), "it was given before the first break");
    }

    #[test]
    fn who_names_an_acknowledged_message_is_told_that_something_is_missing() {
        let comeback = progress().come_back(up_to("a", 1));
        assert_eq!(comeback.gap.map(|gap| gap.missed), Some(-1));
        let mut progress = progress();
        let newest = progress.newest_acknowledged.clone().expect("some are acknowledged");
        let comeback = progress.come_back(up_to(&newest.topic, newest.sequence));
        assert!(comeback.gap.is_none(), "all behind it comes again");
    }

    #[test]
    fn who_tells_positions_is_told_what_is_missing_of_each_topic() {
        let mut progress = progress();
        let (a, b) = (progress.topics["a"].last, progress.topics["b"].last);
        let positions = [("a".to_owned(), a - 5)];
        let comeback = progress.come_back(Had::Positions(positions.into()));
        let gap = comeback.gap.expect("something is missing");
        assert_eq!((gap.missed, gap.elsewhere), (5 + b as i64, 0), "b too, of which it had none");
        assert_eq!((gap.ranges[0].first, gap.ranges[0].last), (a as i64 - 4, a as i64));
        assert_eq!((gap.ranges[1].first, gap.ranges[1].last), (1, b as i64));
        assert!(!comeback.skipped.takes(&message("b", 745)));
        assert!(comeback.skipped.takes(&message("a", a - 5)));
        let had = [("a".to_owned(), 745), ("b".to_owned(), 745)];
        let comeback = progress.come_back(Had::Positions(had.into()));
        assert!(comeback.gap.is_none());
        assert!(comeback.skipped.takes(&message("b", 745)));
        assert!(!comeback.skipped.takes(&message("b", 746)));
    }

    #[test]
    fn what_came_before_the_subscription_is_not_missing() {
        let mut progress = Progress::new(Some(4));
        (100..110).for_each(|sequence| give(&mut progress, message("a", sequence)));
        let had = [("a".to_owned(), 50)];
        let gap = progress.come_back(Had::Positions(had.into())).gap.expect("some are missing");
        let acknowledged = progress.acknowledged() as i64;
        assert_eq!((gap.missed, gap.ranges[0].first), (acknowledged, 100));
    }

    #[test]
    fn of_too_many_topics_nobody_knows_what_is_missing() {
        let mut progress = Progress::new(Some(4));
        for topic in 0..POSITIONS_MAX + 10 {
            give(&mut progress, message(&format!("topic/{topic}"), 1));
        }
        let gap = progress.come_back(Had::Positions(HashMap::new())).gap.expect("a gap");
        assert_eq!((gap.missed, gap.ranges.len()), (-1, 64));
    }

    #[test]
    fn who_tells_nothing_gets_the_tail_again_and_is_told_what_nobody_knows() {
        let comeback = progress().come_back(Had::Untold);
        assert_eq!(comeback.gap.map(|gap| gap.missed), Some(-1));
        assert!(!comeback.skipped.takes(&message("a", 750)));
        let mut few = Progress::new(None);
        give(&mut few, message("a", 1));
        assert!(few.come_back(Had::Untold).gap.is_none(), "all of it comes again");
    }
}
