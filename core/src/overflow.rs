//! What a queue gives up, and how that is told.
//!
//! Messages are dropped from the front, oldest first, many at a time: an overflowing queue is cut to
//! 7/8 of its bound, and an extent goes whole where that leaves 6/8 of those, so that a subscriber
//! who is stalled for good costs next to nothing. Binds in the dropped stretch are kept in front, a
//! Gap takes the messages' place, and a frame that is half on the wire stays. Nothing here decides
//! *whether* to drop: that is policy, in `shard/backpressure.rs`, or memory, in `shard/memory.rs`.

use nexusd_wire::control::{DeliveryMode, GapReason};
use nexusd_wire::{Header, Sequence, TopicId};

use crate::gap::Gap;
use crate::limits::{GAPS_TOGETHER_MAX, OVERFLOW_KEEP_EIGHTHS, OVERFLOW_LEAVE_EIGHTHS};
use crate::log::{Extent, Log, SegmentId};
use crate::plant::{Plant, is_planted};
use crate::subscriber_queue::{Item, Name, SubscriberQueue, share};

/// Cuts a queue that is beyond its bounds to 7/8 of them; returns the messages dropped.
pub(crate) fn cut_to_limit(queue: &mut SubscriberQueue, log: &mut Log) -> u64 {
    let keep = if is_planted(Plant::OverflowDropsAll) { 0 } else { OVERFLOW_KEEP_EIGHTHS };
    let messages = share(queue.limits.messages, keep).max(1);
    let bytes = share(queue.limits.bytes, keep);
    drop_oldest(queue, log, GapReason::SlowConsumer, messages, bytes)
}

/// Drops the front of the queue through its last message in `segment`, which no running send reads;
/// returns the messages dropped. What a running send reads stays in front of the gap, and a frame
/// that is half on the wire may still be in the segment afterwards.
pub(crate) fn drop_through(queue: &mut SubscriberQueue, log: &mut Log, segment: SegmentId) -> u64 {
    let (mut passed, mut through) = (0, 0);
    for item in queue.items.iter().skip(queue.planned) {
        if let Item::Extent(extent) = item {
            passed += u64::from(extent.messages);
            if extent.segment == segment {
                through = passed;
            }
        }
    }
    // A half-sent frame stays, and no younger message goes for it.
    let stays = u64::from(through > 0 && queue.front_sent > 0 && !queue.in_flight);
    let keep = queue.messages - through + stays;
    drop_oldest(queue, log, GapReason::Memory, keep, u64::MAX)
}

/// Takes as many of the newest messages out of a queue that is beyond its bounds as do not fit it, and
/// notes them behind what is kept; returns how many. All of them belong to `run`, which was queued
/// last.
pub(crate) fn refuse_newest(queue: &mut SubscriberQueue, log: &mut Log, run: &Extent) -> u64 {
    let (over_messages, over_bytes) = queue.excess();
    let most_messages = u64::from(run.messages).saturating_sub(over_messages);
    let most_bytes = u64::from(run.len).saturating_sub(over_bytes);
    let (mut kept_messages, mut kept_bytes) = (0, 0);
    while kept_messages < most_messages {
        let stride = log.header(run.segment, run.start + kept_bytes as u32).stride() as u64;
        if kept_bytes + stride > most_bytes {
            break;
        }
        kept_messages += 1;
        kept_bytes += stride;
    }
    let (messages, bytes) =
        (u64::from(run.messages) - kept_messages, u64::from(run.len) - kept_bytes);
    if messages == 0 {
        return 0;
    }
    let mut refused = Extent {
        start: run.start + kept_bytes as u32,
        len: bytes as u32,
        messages: messages as u32,
        ..*run
    };
    let mut lost = Gap::new(GapReason::SlowConsumer);
    match run.topic {
        Some(topic) => {
            lost.note(topic, log.header(refused.segment, refused.start).sequence(), messages);
        }
        None => _ = drop_front(&mut refused, log, &mut lost, messages, bytes),
    }
    if let Some(Item::Extent(last)) = queue.items.back_mut() {
        last.len -= bytes as u32;
        last.messages -= messages as u32;
        if last.len == 0 {
            queue.items.pop_back();
            log.release(run.segment);
        }
    }
    queue.subtract(DeliveryMode::Live, messages, bytes);
    let is_being_sent = queue.items.len() <= queue.planned;
    match queue.items.back_mut() {
        Some(Item::Gap(gap)) if gap.reason() == GapReason::SlowConsumer && !is_being_sent => {
            log.discharge_gap(gap);
            gap.absorb(&lost);
            log.charge_gap(gap);
        }
        _ => {
            log.charge_gap(&lost);
            queue.items.push_back(Item::Gap(Box::new(lost)));
        }
    }
    messages
}

/// Drops messages from the front until at most `keep_messages` and `keep_bytes` are left.
fn drop_oldest(
    queue: &mut SubscriberQueue,
    log: &mut Log,
    reason: GapReason,
    keep_messages: u64,
    keep_bytes: u64,
) -> u64 {
    // What stays in front of the messages that are kept, in order.
    let mut kept: Vec<Item> = if queue.in_flight {
        queue.items.drain(..queue.planned).collect()
    } else {
        queue.detach_partial_frame(log).map(Item::Extent).into_iter().collect()
    };
    let mut gap = Box::new(Gap::new(reason));
    let mut completed = Vec::new();
    let (mut dropped, mut gaps) = (0, 0);
    while queue.messages > keep_messages || queue.bytes > keep_bytes {
        match queue.items.front_mut() {
            None => break,
            Some(Item::Bind(topic)) => {
                queue.binds.push_back(Name::Topic(*topic));
                queue.items.pop_front();
            }
            Some(Item::NodeBind(origin)) => {
                queue.binds.push_back(Name::Node(*origin));
                queue.items.pop_front();
            }
            Some(Item::ReplayComplete(_) | Item::Answer(_)) => {
                completed.extend(queue.items.pop_front());
            }
            // The loss goes on where an earlier one, not told yet, ended. Losses of both kinds stand
            // in their order, but not without end.
            Some(Item::Gap(earlier))
                if earlier.reason() == gap.reason() || gaps + 2 >= GAPS_TOGETHER_MAX =>
            {
                log.discharge_gap(earlier);
                if !gap.is_empty() {
                    gap.absorb(earlier);
                } else {
                    std::mem::swap(&mut gap, earlier);
                }
                queue.items.pop_front();
            }
            Some(Item::Gap(_)) => {
                if !gap.is_empty() {
                    log.charge_gap(&gap);
                    kept.push(Item::Gap(std::mem::replace(&mut gap, Box::new(Gap::new(reason)))));
                    gaps += 1;
                }
                kept.extend(queue.items.pop_front());
                gaps += 1;
            }
            Some(Item::Extent(front)) => {
                let over_messages = queue.messages.saturating_sub(keep_messages);
                let over_bytes = queue.bytes.saturating_sub(keep_bytes);
                // Bounds that are kept already do not count.
                let leaves_enough = |over: u64, left: u64, keep: u64| {
                    over == 0 || left >= share(keep, OVERFLOW_LEAVE_EIGHTHS).max(1)
                };
                let (messages, bytes) = (u64::from(front.messages), u64::from(front.len));
                let whole = front.topic.filter(|_| {
                    leaves_enough(over_messages, queue.messages - messages, keep_messages)
                        && leaves_enough(over_bytes, queue.bytes - bytes, keep_bytes)
                });
                let (messages, bytes) = match whole {
                    Some(topic) => {
                        let first = log.header(front.segment, front.start).sequence();
                        note_lost(&mut gap, front.mode, topic, first, messages);
                        (front.messages, front.len) = (0, 0);
                        (messages, bytes)
                    }
                    None => drop_front(front, log, &mut gap, over_messages, over_bytes),
                };
                let (mode, is_empty) = (front.mode, front.messages == 0);
                queue.subtract(mode, messages, bytes);
                dropped += messages;
                if is_empty && let Some(Item::Extent(front)) = queue.items.pop_front() {
                    log.release(front.segment);
                }
            }
        }
    }
    if !gap.is_empty() && is_planted(Plant::GapMisplaced) {
        log.charge_gap(&gap);
        queue.items.push_back(Item::Gap(gap));
    } else if !gap.is_empty() && !is_planted(Plant::GapMissing) {
        log.charge_gap(&gap);
        kept.push(Item::Gap(gap));
    }
    kept.append(&mut completed);
    for item in kept.into_iter().rev() {
        queue.items.push_front(item);
    }
    dropped
}

/// Notes dropped messages of a topic. A retained value stays unnamed: its number stands before, or among,
/// those of live messages, and a gap's numbers say how far a topic has come.
fn note_lost(gap: &mut Gap, mode: DeliveryMode, topic: TopicId, first: Sequence, messages: u64) {
    match mode {
        DeliveryMode::Retained => gap.note_unnamed(messages),
        _ => gap.note(topic, first, messages),
    }
}

/// Drops whole frames off the front of an extent until at least `over_messages` and `over_bytes` are
/// gone, or the extent is used up, and notes them; returns the messages and bytes dropped.
fn drop_front(
    extent: &mut Extent,
    log: &Log,
    gap: &mut Gap,
    over_messages: u64,
    over_bytes: u64,
) -> (u64, u64) {
    let mut rest = log.bytes(extent.segment, extent.start, extent.len);
    let (mut messages, mut bytes) = (0, 0);
    while let Some(first) = Header::peek(rest)
        && (messages < over_messages || bytes < over_bytes)
    {
        let before = messages;
        // What stood between two messages may have expired.
        while let Some(header) = Header::peek(rest)
            && header.topic() == first.topic()
            && header.sequence().0 - first.sequence().0 == messages - before
            && (messages < over_messages || bytes < over_bytes)
        {
            let stride = header.stride();
            rest = rest.get(stride..).unwrap_or_default();
            messages += 1;
            bytes += stride as u64;
        }
        note_lost(gap, extent.mode, first.topic(), first.sequence(), messages - before);
    }
    extent.start += bytes as u32;
    extent.len -= bytes as u32;
    extent.messages -= messages as u32;
    (messages, bytes)
}
