//! From a connection's queues to its socket: what one gathered send holds, and what its end means.
//!
//! A send takes, in this order: the rest of a frame that the last send cut, control frames, then the
//! ready queues in turn. Messages go straight out of the log; Deliver, bind and gap frames are
//! written beside it for this send alone. Queues keep what is sent until the send has ended, so a
//! short one loses nothing: what was not taken is simply planned again.

use nexusd_wire::control::DeliveryMode;
use nexusd_wire::{FrameEncoder, WarningReport};

use super::answering::Answer;
use super::plane::Plane;
use crate::connection::{OpenRun, Outbound, Piece};
use crate::expiry::Expiry;
use crate::limits::{BUFFER_BYTES_KEPT, BYTES_PER_SEND, IOVECS_PER_SEND};
use crate::log::Extent;
use crate::plant::{Plant, is_planted};
use crate::subscriber_queue::{Item, Name, Presence, QueueId, ReplayComplete};

/// Plans the next send of a connection and pins what it reads.
pub(crate) fn plan(outbound: &mut Outbound, plane: &mut Plane, encoder: &mut FrameEncoder) {
    debug_assert!(outbound.plan.is_empty(), "one send at a time");
    outbound.inline.clear();
    let mut bytes = 0;
    let mut cut_rest = None;
    if let Some(id) = outbound.cut_queue
        && let Some(piece) = rest_of_cut_frame(id, plane)
    {
        bytes += piece.bytes() as usize;
        cut_rest = Some(id);
        outbound.plan.push(piece);
    }
    // What the last send cut goes first; control frames never wait behind a queue's messages, or a
    // subscription's first ones would come before its confirmation.
    outbound.sending.drain(..outbound.sent);
    outbound.sent = 0;
    if outbound.sending.is_empty() {
        if outbound.sending.capacity() > BUFFER_BYTES_KEPT {
            outbound.sending = Vec::new();
        }
        std::mem::swap(&mut outbound.sending, &mut outbound.control);
    } else {
        outbound.sending.append(&mut outbound.control);
    }
    let control = (outbound.sending.len() - outbound.sent) as u32;
    if control > 0 {
        outbound.plan.push(Piece::Control { bytes: control });
    }
    outbound.visited = 0;
    let mut run = outbound.run;
    for at in 0..outbound.ready.len() {
        // A warning and a queue's next item take at most three slices.
        if bytes >= BYTES_PER_SEND || outbound.plan.len() + 3 > IOVECS_PER_SEND {
            break;
        }
        outbound.visited += 1;
        let id = outbound.ready[at];
        plane.drop_expired_front(id);
        let skip_cut = cut_rest == Some(id);
        let planned = plan_queue(id, skip_cut, &mut run, &mut bytes, outbound, plane, encoder);
        protect(id, planned, plane);
    }
    if let Some(id) = cut_rest {
        protect(id, Planned { binds: 0, items: 1 }, plane);
    }
    for piece in &outbound.plan {
        if let Piece::Extent { segment, queue, .. } = piece {
            if !is_planted(Plant::SendNotProtected) {
                plane.log.pin(*segment);
            }
            plane.queues[queue.0 as usize].in_flight = true;
        }
        if let Piece::Marker { queue, .. } | Piece::Warning { queue, .. } = piece {
            plane.queues[queue.0 as usize].in_flight = true;
        }
    }
}

/// How much of a queue a send takes, in whole or in part.
#[derive(Clone, Copy)]
struct Planned {
    binds: usize,
    items: usize,
}

/// Keeps the front of the queue as it is: the send to come reads it.
fn protect(id: QueueId, planned: Planned, plane: &mut Plane) {
    let queue = &mut plane.queues[id.0 as usize];
    queue.planned_binds = queue.planned_binds.max(planned.binds);
    if !is_planted(Plant::SendNotProtected) {
        queue.planned = queue.planned.max(planned.items);
    }
}

/// The bytes of a half-sent frame that are still missing.
fn rest_of_cut_frame(id: QueueId, plane: &Plane) -> Option<Piece> {
    let queue = plane.queues.get(id.0 as usize)?;
    let Some(Item::Extent(front)) = queue.items.front() else {
        return None;
    };
    let stride = plane.log.header(front.segment, front.start).stride() as u32;
    Some(Piece::Extent {
        queue: id,
        segment: front.segment,
        start: front.start + queue.front_sent,
        bytes: stride - queue.front_sent,
        messages: 1,
    })
}

/// Adds what one queue has to send, and returns how much of it that is. `skip_cut`: its first frame
/// is planned already.
fn plan_queue(
    id: QueueId,
    mut skip_cut: bool,
    run: &mut Option<OpenRun>,
    bytes: &mut usize,
    outbound: &mut Outbound,
    plane: &Plane,
    encoder: &mut FrameEncoder,
) -> Planned {
    let queue = &plane.queues[id.0 as usize];
    let Outbound { inline, plan, .. } = outbound;
    // Nothing is said of a subscription behind its end, or its connection's last word.
    let is_there = queue.presence == Presence::Connected && !queue.is_dying;
    if queue.warning.is_due(plane.now_us) && is_there && !queue.is_link {
        plan_warning(id, bytes, inline, plan, plane, encoder);
    }
    for (at, name) in queue.binds.iter().enumerate() {
        if *bytes >= BYTES_PER_SEND || plan.len() + 2 > IOVECS_PER_SEND {
            return Planned { binds: at, items: 0 };
        }
        plan_bind(id, *name, bytes, inline, plan, plane, encoder);
    }
    let binds = queue.binds.len();
    for (at, item) in queue.items.iter().enumerate() {
        if *bytes >= BYTES_PER_SEND || plan.len() + 2 > IOVECS_PER_SEND {
            return Planned { binds, items: at };
        }
        let start = inline.len() as u32;
        match item {
            Item::Bind(topic) => {
                plan_bind(id, Name::Topic(*topic), bytes, inline, plan, plane, encoder);
            }
            Item::NodeBind(origin) => {
                plan_bind(id, Name::Node(*origin), bytes, inline, plan, plane, encoder);
            }
            Item::ReplayComplete(replay) => {
                let ReplayComplete { topic, messages, latest } = **replay;
                let subscription = queue.subscription;
                encoder.replay_complete(inline, topic, subscription, messages, latest);
                let marker = inline.len() as u32 - start;
                plan.push(Piece::Marker { queue: id, start, bytes: marker });
                *bytes += marker as usize;
            }
            Item::Answer(Answer { request, is_end, is_partial }) => {
                encoder.replay_answer(inline, *request, *is_end, *is_partial);
                let marker = inline.len() as u32 - start;
                plan.push(Piece::Marker { queue: id, start, bytes: marker });
                *bytes += marker as usize;
            }
            Item::Gap(gap) => {
                encoder.gap(inline, &gap.report(queue.subscription));
                let marker = inline.len() as u32 - start;
                plan.push(Piece::Marker { queue: id, start, bytes: marker });
                *bytes += marker as usize;
            }
            Item::Extent(extent) => {
                let mut extent = *extent;
                let was_cut = std::mem::take(&mut skip_cut);
                if was_cut {
                    let stride = plane.log.header(extent.segment, extent.start).stride() as u32;
                    extent.start += stride;
                    extent.len -= stride;
                    extent.messages -= 1;
                    if extent.len == 0 {
                        continue;
                    }
                }
                if extent.expiry.is_past(plane.now_us) {
                    // It goes when it stands in front.
                    return Planned { binds, items: at + usize::from(was_cut) };
                }
                let is_open = run.is_some() && is_planted(Plant::DeliverNotRepeated);
                let next = OpenRun { queue: id, mode: extent.mode };
                // Another node has to know how old what may expire is.
                let is_timed = queue.is_link && extent.expiry != Expiry::NEVER;
                if (*run != Some(next) || is_timed) && !is_open {
                    *run = Some(next);
                    match extent.mode {
                        _ if queue.is_link => {
                            let now_us =
                                if is_timed { aged_us(&extent, plane) } else { plane.wall_us };
                            encoder.deliver_at(inline, queue.subscription, extent.mode, now_us);
                        }
                        DeliveryMode::Live => inline.extend_from_slice(&queue.deliver_frame),
                        mode => encoder.deliver(inline, queue.subscription, mode),
                    }
                    plan.push(Piece::Deliver {
                        run: next,
                        start,
                        bytes: inline.len() as u32 - start,
                    });
                }
                plan.push(Piece::Extent {
                    queue: id,
                    segment: extent.segment,
                    start: extent.start,
                    bytes: extent.len,
                    messages: extent.messages,
                });
                *bytes += extent.len as usize;
            }
        }
    }
    Planned { binds, items: queue.items.len() }
}

/// The time that goes with the timestamps of what an extent holds: however often the wall clock was set, and
/// whoever accepted it, they are as old as it says.
#[cold]
fn aged_us(extent: &Extent, plane: &Plane) -> u64 {
    let header = plane.log.header(extent.segment, extent.start);
    extent.expiry.wall_us(header.timestamp_us(), header.ttl_ms(), plane.now_us)
}

/// Adds the warning that a queue falls behind.
#[cold]
fn plan_warning(
    id: QueueId,
    bytes: &mut usize,
    inline: &mut Vec<u8>,
    plan: &mut Vec<Piece>,
    plane: &Plane,
    encoder: &mut FrameEncoder,
) {
    let queue = &plane.queues[id.0 as usize];
    let oldest = queue.items.iter().find_map(|item| match item {
        Item::Extent(extent) => Some(plane.log.header(extent.segment, extent.start).timestamp_us()),
        _ => None,
    });
    let start = inline.len() as u32;
    let warning = WarningReport {
        subscription: queue.subscription,
        dropped: queue.warning.dropped,
        depth: queue.messages,
        limit: if queue.limits.messages == u64::MAX { 0 } else { queue.limits.messages },
        reason: queue.warning.reason,
        expired: queue.warning.expired,
        oldest_age_ms: oldest.map_or(0, |stamp| plane.wall_us.saturating_sub(stamp) / 1_000),
    };
    encoder.backpressure_warning(inline, &warning);
    let len = inline.len() as u32 - start;
    plan.push(Piece::Warning { queue: id, start, bytes: len });
    *bytes += len as usize;
}

/// Adds the name of a topic, or of another node.
fn plan_bind(
    id: QueueId,
    name: Name,
    bytes: &mut usize,
    inline: &mut Vec<u8>,
    plan: &mut Vec<Piece>,
    plane: &Plane,
    encoder: &mut FrameEncoder,
) {
    let start = inline.len() as u32;
    match name {
        Name::Topic(topic) => encoder.topic_bind(inline, topic, plane.topic_name(topic)),
        Name::Node(origin) => encoder.node_bind(inline, origin.0, plane.node.node_of(origin)),
    }
    let marker = inline.len() as u32 - start;
    plan.push(Piece::Marker { queue: id, start, bytes: marker });
    *bytes += marker as usize;
}

/// Lends the slices of the planned send, in order.
pub(crate) fn lend(outbound: &Outbound, plane: &Plane, take: &mut dyn FnMut(&[u8])) {
    for piece in &outbound.plan {
        match *piece {
            Piece::Control { .. } => take(&outbound.sending[outbound.sent..]),
            Piece::Deliver { start, bytes, .. }
            | Piece::Warning { start, bytes, .. }
            | Piece::Marker { start, bytes, .. } => {
                take(&outbound.inline[start as usize..(start + bytes) as usize]);
            }
            Piece::Extent { segment, start, bytes, .. } => {
                take(plane.log.bytes(segment, start, bytes));
            }
        }
    }
}

/// The send took the first `taken` bytes of what was lent. Writes the queues it read from to
/// `touched`; the caller looks after them (dying ones, low-water marks, overflow that waited).
pub(crate) fn settle(
    outbound: &mut Outbound,
    plane: &mut Plane,
    taken: usize,
    touched: &mut Vec<QueueId>,
) {
    touched.clear();
    let mut left = taken.min(u32::MAX as usize) as u32;
    let mut plan = std::mem::take(&mut outbound.plan);
    for piece in &plan {
        let bytes = piece.bytes();
        let sent = left.min(bytes);
        left -= sent;
        if let Piece::Extent { segment, .. } = *piece
            && !is_planted(Plant::SendNotProtected)
        {
            plane.log.unpin(segment);
        }
        if let Piece::Extent { queue, .. }
        | Piece::Marker { queue, .. }
        | Piece::Warning { queue, .. } = *piece
        {
            let read = &mut plane.queues[queue.0 as usize];
            (read.in_flight, read.planned) = (false, 0);
            if touched.last() != Some(&queue) {
                touched.push(queue);
            }
        }
        if sent == 0 {
            continue;
        }
        match *piece {
            Piece::Control { .. } => outbound.sent += sent as usize,
            Piece::Deliver { run, start, .. } => {
                outbound.run = Some(run);
                keep_rest_of_inline(outbound, start + sent, bytes - sent);
            }
            Piece::Warning { queue, start, .. } => {
                plane.queues[queue.0 as usize].warning.told(plane.now_us);
                keep_rest_of_inline(outbound, start + sent, bytes - sent);
            }
            Piece::Marker { queue, start, .. } => {
                plane.queues[queue.0 as usize].pop_marker(&mut plane.log);
                keep_rest_of_inline(outbound, start + sent, bytes - sent);
            }
            Piece::Extent { queue: id, messages, .. } => {
                let queue = &mut plane.queues[id.0 as usize];
                let before = queue.bytes;
                let whole = u64::from(queue.consume(sent, bytes, messages, &mut plane.log));
                if queue.is_over_limit() {
                    // What was replayed counts from now on, until it is acknowledged.
                    queue.is_overflowing(&mut plane.log);
                }
                outbound.cut_queue = (queue.front_sent > 0).then_some(id);
                plane.metrics.messages_out += whole;
                plane.metrics.queued_messages -= whole;
                plane.metrics.queued_bytes -= before - queue.bytes;
            }
        }
    }
    plan.clear();
    outbound.plan = plan;
    for queue in &*touched {
        plane.queues[queue.0 as usize].planned_binds = 0;
    }
    // Each queue that was visited has had its turn; those with more to send go to the end.
    for _ in 0..outbound.visited {
        let Some(id) = outbound.ready.pop_front() else {
            break;
        };
        let queue = &mut plane.queues[id.0 as usize];
        queue.is_ready = !queue.is_empty();
        if queue.is_ready {
            outbound.ready.push_back(id);
        }
    }
    outbound.visited = 0;
}

/// A frame written for this send was cut: its rest goes first in the next one.
fn keep_rest_of_inline(outbound: &mut Outbound, start: u32, bytes: u32) {
    if bytes > 0 {
        debug_assert_eq!(
            outbound.sent,
            outbound.sending.len(),
            "control frames go before inline ones"
        );
        outbound.sending.clear();
        outbound.sent = 0;
        let rest = start as usize..(start + bytes) as usize;
        outbound.sending.extend_from_slice(&outbound.inline[rest]);
    }
}
