//! How far a subscription's client has come, as far as that can be known.
//!
//! gRPC has no acknowledgements: what was given to a stream may never have come. So the daemon is told late: it
//! keeps the newest messages (the *tail*) and sends them again when the client comes back, who says what of
//! them it has had. What it missed and is acknowledged, it is told as a gap.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use nexusd_wire::NodeId;

use crate::limits::{EVENTS_TOGETHER, POSITIONS_MAX, TAIL_BYTES, TAIL_MESSAGES};
use crate::message_id::MessageId;
use crate::proto;

/// A message that was given to the client's stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Given {
    pub(crate) topic: Arc<str>,
    pub(crate) sequence: u64,
    pub(crate) origin: NodeId,
    pub(crate) origin_sequence: u64,
    pub(crate) bytes: usize,
}

/// What was given to a client, and what of it is acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    acknowledged: u64,
    /// The newest of each topic that is acknowledged, of the first topics.
    positions: HashMap<Arc<str>, u64>,
    /// Given, and not acknowledged.
    tail: VecDeque<Given>,
    tail_bytes: usize,
    tail_messages_max: usize,
}

impl Progress {
    /// Of a subscription whose queue holds so many messages; `None`: as many as the daemon pleases.
    pub(crate) fn new(queue_messages: Option<u32>) -> Self {
        let quarter = queue_messages.map_or(TAIL_MESSAGES, |messages| messages as usize / 4);
        Self {
            acknowledged: 0,
            positions: HashMap::new(),
            tail: VecDeque::new(),
            tail_bytes: 0,
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

    /// A message is given to the client.
    pub(crate) fn note(&mut self, given: Given) {
        self.tail_bytes += given.bytes;
        self.tail.push_back(given);
    }

    /// The count to tell the daemon, if the tail is too long.
    pub(crate) fn acknowledge(&mut self) -> Option<u64> {
        if self.tail.len() <= self.tail_messages_max && self.tail_bytes <= TAIL_BYTES {
            return None;
        }
        let (messages, bytes) = (self.tail_messages_max * 3 / 4, TAIL_BYTES * 3 / 4);
        while self.tail.len() > messages || self.tail_bytes > bytes {
            let Some(Given { topic, sequence, bytes, .. }) = self.tail.pop_front() else { break };
            self.tail_bytes -= bytes;
            self.acknowledged += 1;
            if let Some(position) = self.positions.get_mut(&topic) {
                *position = sequence.max(*position);
            } else if self.positions.len() < POSITIONS_MAX {
                self.positions.insert(topic, sequence);
            }
        }
        Some(self.acknowledged)
    }

    /// The client comes back and says what it has had. From now on the tail comes again.
    pub(crate) fn come_back(&mut self, had: Had) -> Comeback {
        let tail = std::mem::take(&mut self.tail);
        self.tail_bytes = 0;
        match had {
            Had::Untold => Comeback::default(),
            Had::UpTo { origin, number, topic } => {
                let is_it = |given: &Given| {
                    (given.origin, given.origin_sequence) == (origin, number)
                        && *given.topic == *topic
                };
                match tail.iter().rposition(is_it) {
                    Some(at) => Comeback {
                        skipped: Skipped::Given(tail.into_iter().take(at + 1).collect()),
                        ..Comeback::default()
                    },
                    // It is older than the tail, and what came behind it is acknowledged.
                    None => Comeback { gap: Some(gap(-1, Vec::new())), ..Comeback::default() },
                }
            }
            Had::Positions(positions) => {
                let mut ranges = Vec::new();
                for (topic, &had) in &positions {
                    let acknowledged = self.positions.get(topic.as_str()).copied().unwrap_or(0);
                    if acknowledged > had {
                        let (first, last) = (had.saturating_add(1), acknowledged);
                        let (first, last) = (to_i64(first), to_i64(last));
                        ranges.push(proto::MissedRange { topic: topic.clone(), first, last });
                    }
                }
                let missed = ranges.iter().map(|range| range.last - range.first + 1).sum();
                Comeback {
                    gap: (!ranges.is_empty()).then(|| gap(missed, ranges)),
                    skipped: Skipped::Positions(positions),
                }
            }
        }
    }
}

/// Numbers beyond what the interface can say are its largest.
pub(crate) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn gap(missed: i64, mut ranges: Vec<proto::MissedRange>) -> proto::Gap {
    let told = ranges.len().min(64);
    let elsewhere = ranges.drain(told..).map(|range| range.last - range.first + 1).sum();
    proto::Gap { reason: "link_lost".to_owned(), missed, ranges, elsewhere }
}

/// What a client says that it has had.
#[derive(Debug)]
pub(crate) enum Had {
    /// Nothing: it is given the whole tail again.
    Untold,
    /// All up to this message.
    UpTo { origin: NodeId, number: u64, topic: String },
    /// All up to these numbers of these topics.
    Positions(HashMap<String, u64>),
}

impl Had {
    /// What the last message says, if any.
    pub(crate) fn up_to(id: &MessageId<'_>) -> Self {
        Self::UpTo { origin: id.origin, number: id.number, topic: id.topic.to_owned() }
    }
}

/// How a client goes on.
#[derive(Debug, Default)]
pub(crate) struct Comeback {
    /// What it has missed and does not come again.
    pub(crate) gap: Option<proto::Gap>,
    /// What it has had and comes again.
    pub(crate) skipped: Skipped,
}

/// Messages that come again and that the client has had.
#[derive(Debug, Default)]
pub(crate) enum Skipped {
    #[default]
    None,
    /// These, in this order.
    Given(VecDeque<Given>),
    /// Up to these numbers.
    Positions(HashMap<String, u64>),
}

impl Skipped {
    /// Whether this message, which comes again, is one of them.
    pub(crate) fn takes(&mut self, again: &Given) -> bool {
        match self {
            Self::None => false,
            Self::Given(given) => {
                let is_it = |it: &Given| it.sequence == again.sequence && it.topic == again.topic;
                let Some(at) = given.iter().position(is_it) else { return false };
                // Those before it have expired.
                given.drain(..=at);
                true
            }
            Self::Positions(positions) => {
                positions.get(&*again.topic).is_some_and(|had| *had >= again.sequence)
            }
        }
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

    /// 1,500 messages of `a` and `b` in turn.
    fn progress() -> Progress {
        let mut progress = Progress::new(None);
        for at in 0..1_500u64 {
            progress.note(message(if at % 2 == 0 { "a" } else { "b" }, at / 2 + 1));
            progress.acknowledge();
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
        assert_eq!(progress.positions["a"], progress.acknowledged().div_ceil(2));
    }

    #[test]
    fn a_small_queue_is_acknowledged_sooner() {
        let mut progress = Progress::new(Some(8));
        assert_eq!(progress.together_max(), 1);
        for sequence in 1..=3 {
            progress.note(message("a", sequence));
        }
        assert_eq!(progress.acknowledge(), Some(2));
        assert_eq!(progress.acknowledge(), None);
    }

    #[test]
    fn long_messages_are_acknowledged_sooner() {
        let mut progress = Progress::new(None);
        progress.note(Given { bytes: TAIL_BYTES, ..message("a", 1) });
        assert_eq!(progress.acknowledge(), None);
        progress.note(Given { bytes: TAIL_BYTES / 2, ..message("a", 2) });
        assert_eq!(progress.acknowledge(), Some(1));
    }

    #[test]
    fn who_names_the_last_message_gets_those_behind_it() {
        let mut comeback = progress().come_back(up_to("b", 740));
        assert!(comeback.gap.is_none());
        // Some have expired meanwhile.
        assert!(comeback.skipped.takes(&message("a", 700)));
        assert!(!comeback.skipped.takes(&message("a", 699)), "what stood before was passed");
        assert!(comeback.skipped.takes(&message("b", 740)));
        assert!(!comeback.skipped.takes(&message("a", 741)));
    }

    #[test]
    fn who_names_an_acknowledged_message_is_told_that_something_is_missing() {
        let mut comeback = progress().come_back(up_to("a", 1));
        assert_eq!(comeback.gap.map(|gap| gap.missed), Some(-1));
        assert!(!comeback.skipped.takes(&message("a", 740)));
    }

    #[test]
    fn who_tells_positions_is_told_what_is_missing_of_each_topic() {
        let mut progress = progress();
        let acknowledged = progress.positions["a"];
        let positions = [("a".to_owned(), acknowledged - 5), ("b".to_owned(), 745)];
        let mut comeback = progress.come_back(Had::Positions(positions.into()));
        let gap = comeback.gap.expect("something is missing");
        assert_eq!((gap.missed, gap.ranges.len(), gap.elsewhere), (5, 1, 0));
        assert_eq!(gap.ranges[0].first, acknowledged as i64 - 4);
        assert!(comeback.skipped.takes(&message("b", 745)));
        assert!(!comeback.skipped.takes(&message("b", 746)));
        assert!(!comeback.skipped.takes(&message("a", acknowledged + 1)));
    }

    #[test]
    fn who_tells_nothing_gets_the_tail_again() {
        let mut comeback = progress().come_back(Had::Untold);
        assert!(comeback.gap.is_none());
        assert!(!comeback.skipped.takes(&message("a", 750)));
    }
}
