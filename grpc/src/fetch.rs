//! What a client missed and the daemon was told it had: the daemon's history may still have it.

use std::collections::HashMap;
use std::sync::Arc;

use nexusd_wire::{Position, Sequence, SubscribeRequest};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::feed::Feed;
use crate::limits::{ANSWER_TIMEOUT, FETCHED_BYTES_MAX};
use crate::native::Native;
use crate::progress::missed;
use crate::proto::message_event::Event;
use crate::proto::{Gap, Message, MissedRange};
use crate::sources::{Source, Taken};

/// What was found of a gap.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    /// The messages, topic by topic in order.
    pub(crate) messages: Vec<Message>,
    /// Room for them.
    pub(crate) room: Option<Taken>,
    /// What is left of the gap.
    pub(crate) left: Option<Gap>,
}

/// The messages of a gap that are still held, as many as there is room for. Of each topic the newest are held.
pub(crate) async fn fetch(
    native: Native,
    gap: Gap,
    source: &Arc<Source>,
) -> Result<Fetched, Status> {
    // Behind nothing there is no position: the newest is all that could be asked for.
    let asked: Vec<&MissedRange> = gap.ranges.iter().filter(|range| range.first > 1).collect();
    // The last one may be as long as any.
    let room = source.events.try_take(FETCHED_BYTES_MAX + source.message_bytes_max());
    let Some(mut room) = room.ok().filter(|_| !asked.is_empty()) else {
        return Ok(Fetched { left: Some(gap), ..Fetched::default() });
    };
    let topics: Vec<String> = asked.iter().map(|range| range.topic.clone()).collect();
    let mut positions = Vec::with_capacity(asked.len());
    for range in &asked {
        let behind = Sequence(u64::try_from(range.first - 1).unwrap_or(0));
        positions.push(Position { topic: &range.topic, sequence: behind, origin: None });
    }
    let request = SubscribeRequest { positions: &positions, ..SubscribeRequest::default() };
    let mut feed = Feed::subscribe(native, topics.into(), request, None, source).await?;
    let mut wanted: HashMap<&str, &MissedRange> =
        asked.iter().map(|range| (range.topic.as_str(), *range)).collect();
    if !feed.replays() {
        wanted.clear();
    }
    let (mut messages, mut bytes) = (Vec::new(), 0);
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while !wanted.is_empty() && bytes < FETCHED_BYTES_MAX {
        let Ok(events) = timeout_at(deadline, feed.more()).await else { break };
        for event in events? {
            match event {
                Event::ReplayMessage(message) => {
                    let Some(range) = wanted.get(message.topic.as_str()) else { continue };
                    if message.sequence_number >= range.last {
                        wanted.remove(message.topic.as_str());
                    }
                    let is_missed = |range: &MissedRange| {
                        range.topic == message.topic
                            && (range.first..=range.last).contains(&message.sequence_number)
                    };
                    if gap.ranges.iter().any(is_missed) {
                        bytes += message.payload.len();
                        messages.push(message);
                    }
                }
                Event::ReplayComplete(complete) => drop(wanted.remove(complete.topic.as_str())),
                _ => {}
            }
        }
    }
    feed.dismiss().await?;
    let left = left_of(&gap, &messages);
    room.give_back((FETCHED_BYTES_MAX + source.message_bytes_max()).saturating_sub(bytes));
    Ok(Fetched { messages, room: Some(room), left })
}

/// What of a gap is not among these messages.
fn left_of(gap: &Gap, messages: &[Message]) -> Option<Gap> {
    let mut oldest = HashMap::new();
    for message in messages {
        oldest.entry(message.topic.as_str()).or_insert(message.sequence_number);
    }
    let left = gap.ranges.iter().filter_map(|range| {
        let last = oldest.get(range.topic.as_str()).map_or(range.last, |oldest| oldest - 1);
        (last >= range.first).then(|| MissedRange { last, ..range.clone() })
    });
    missed(left.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_missing_no_more() {
        let range = |topic: &str, first, last| MissedRange { topic: topic.to_owned(), first, last };
        let gap =
            missed(vec![range("a", 5, 9), range("b", 1, 3), range("c", 4, 4)]).expect("a gap");
        let message = |topic: &str, sequence_number| Message {
            topic: topic.to_owned(),
            sequence_number,
            ..Message::default()
        };
        let found = [message("a", 8), message("c", 4), message("a", 9)];
        let left = left_of(&gap, &found).expect("something is missing");
        assert_eq!((left.missed, left.ranges), (6, vec![range("a", 5, 7), range("b", 1, 3)]));
        assert!(left_of(&missed(vec![range("c", 4, 4)]).expect("a gap"), &found).is_none());
    }
}
