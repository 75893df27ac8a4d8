//! One subscription as it outlives connections: what was asked for, how the daemon knows it, and how
//! far it has come.
//!
//! Each connection resumes it by its id, or, where the daemon does not know that, subscribes anew and
//! tells how far it had come, topic by topic. Whether something may be missing that no Gap of the
//! daemon tells is decided here. Invariant: the identity is that of the last confirmation; it stays
//! until there is another, however many connections it takes.

use std::sync::Arc;
use std::time::Duration;

use nexusd_wire::control::{self, OverflowPolicy as WirePolicy};
use nexusd_wire::{FrameEncoder, NodeId, Sequence, SubscribeRequest, SubscriptionId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::Error;
use crate::event::{Event, Gap};
use crate::filters::{encoded_bytes, is_topic};
use crate::inbox::Inbox;
use crate::limits;
use crate::paused::Paused;
use crate::positions::{Position, Positions};
use crate::progress::{AckLimits, Progress};
use crate::subscribe_options::{GapMode, OverflowPolicy, SubscribeOptions};

/// What the daemon is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) filters: Arc<[String]>,
    pub(crate) options: SubscribeOptions,
}

/// How a daemon knows a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    pub(crate) id: SubscriptionId,
    pub(crate) node: NodeId,
}

/// What the present connection was asked last, until it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Nothing,
    Subscribe,
    Resume,
    /// To subscribe in place of one that is lost; whether messages may be missing that are not
    /// replayed.
    Anew {
        owes_gap: bool,
    },
}

/// One subscription.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) wanted: Wanted,
    pub(crate) inbox: Arc<Inbox>,
    /// Who waits for the first confirmation. `None` once there was one.
    pub(crate) answer: Option<oneshot::Sender<Result<(), Error>>>,
    identity: Option<Identity>,
    asked: Asked,
    progress: Progress,
    ack_limits: AckLimits,
    /// A connection that names it in its Hello may find it where this one does not.
    may_be_elsewhere: bool,
    /// When the daemon that had it ended well: it has sent all that was its.
    left_well_at: Option<Instant>,
}

impl Entry {
    /// A subscription that the daemon was never asked for.
    pub(crate) fn new(
        wanted: Wanted,
        inbox: Arc<Inbox>,
        answer: oneshot::Sender<Result<(), Error>>,
    ) -> Self {
        let options = &wanted.options;
        Self {
            ack_limits: AckLimits::of_queue(options.queue_messages, options.queue_bytes),
            wanted,
            inbox,
            answer: Some(answer),
            identity: None,
            asked: Asked::Nothing,
            progress: Progress::default(),
            may_be_elsewhere: false,
            left_well_at: None,
        }
    }

    /// Makes it one that begins behind these positions.
    pub(crate) fn behind(mut self, positions: &[Position]) -> Self {
        self.progress = Progress::resumed(0, Positions::of(positions, true));
        self
    }

    /// Makes it one that goes on where `paused` stands. `may_be_elsewhere`: one that is not found is
    /// told to who waits, and not subscribed anew.
    pub(crate) fn going_on(mut self, paused: &Paused, may_be_elsewhere: bool) -> Self {
        self.identity = Some(Identity { id: paused.subscription, node: paused.node });
        let positions = Positions::of(&paused.positions, paused.positions_are_complete);
        self.progress = Progress::resumed(paused.received, positions);
        self.may_be_elsewhere = may_be_elsewhere;
        self
    }

    /// Whether the present connection was asked for it and has not answered.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.asked != Asked::Nothing
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Appends what a connection to `node` has to be asked first.
    pub(crate) fn ask(
        &mut self,
        request: u64,
        node: NodeId,
        encoder: &mut FrameEncoder,
        out: &mut Vec<u8>,
    ) {
        match self.identity {
            // Messages of a daemon that was here before may be gone with it.
            None if !self.progress.positions.is_empty() => {
                let is_in_doubt = !self.progress.positions.all_name(node);
                let is_covered = self.encode_subscribe(request, None, true, encoder, out);
                self.asked = Asked::Anew { owes_gap: is_in_doubt || !is_covered };
            }
            None => {
                self.asked = Asked::Subscribe;
                self.encode_subscribe(request, Some(node), false, encoder, out);
            }
            Some(identity) if identity.node == node => {
                self.asked = Asked::Resume;
                let mode = match self.wanted.options.gap_mode {
                    GapMode::None => control::GapMode::None,
                    GapMode::RetainedOnly => control::GapMode::RetainedOnly,
                    GapMode::ReplayBuffer => control::GapMode::ReplayBuffer,
                };
                encoder.resume(out, request, identity.id, self.progress.received, mode);
            }
            Some(_) => self.ask_anew(request, node, self.is_in_doubt(), encoder, out),
        }
    }

    /// Whether another daemon may have had messages for it that are gone: the one that kept it, unless that
    /// sent all, and in the course of time others that have come and gone since.
    fn is_in_doubt(&self) -> bool {
        self.left_well_at.is_none_or(|left_at| left_at.elapsed() > limits::LEFT_WELL_FOR)
    }

    /// Appends a Subscribe in place of the subscription that is lost. `is_in_doubt`: whether more
    /// may be missing than what follows the positions.
    pub(crate) fn ask_anew(
        &mut self,
        request: u64,
        node: NodeId,
        is_in_doubt: bool,
        encoder: &mut FrameEncoder,
        out: &mut Vec<u8>,
    ) {
        let is_covered = self.encode_subscribe(request, Some(node), true, encoder, out);
        self.asked = Asked::Anew { owes_gap: is_in_doubt || !is_covered };
    }

    /// Whether the positions it tells cover all it can have missed. They are told to this node; `None`: all are.
    fn encode_subscribe(
        &self,
        request: u64,
        node: Option<NodeId>,
        is_anew: bool,
        encoder: &mut FrameEncoder,
        out: &mut Vec<u8>,
    ) -> bool {
        let Wanted { filters, options } = &self.wanted;
        let taken = encoded_bytes(filters) + limits::ENDED_NODES_MAX * size_of::<NodeId>();
        let room = limits::SUBSCRIBE_BYTES_MAX.saturating_sub(taken);
        let (told, is_complete) = match options.gap_mode {
            GapMode::ReplayBuffer => self.progress.positions.told_within(room, node),
            GapMode::None | GapMode::RetainedOnly => (Vec::new(), false),
        };
        let positions: Vec<_> = told
            .iter()
            .map(|position| nexusd_wire::Position {
                topic: &position.topic,
                sequence: Sequence(position.sequence),
                origin: Some(position.origin),
            })
            .collect();
        let ended = self.progress.positions.ended_of(&told);
        let texts: Vec<&str> = filters.iter().map(String::as_str).collect();
        encoder.subscribe(
            out,
            &SubscribeRequest {
                request,
                filters: &texts,
                policy: options.policy.map(|policy| match policy {
                    OverflowPolicy::DropOldest => WirePolicy::DropOldest,
                    OverflowPolicy::DropNewest => WirePolicy::DropNewest,
                    OverflowPolicy::Block => WirePolicy::Block,
                    OverflowPolicy::Disconnect => WirePolicy::Disconnect,
                }),
                queue_messages: options.queue_messages,
                queue_bytes: options.queue_bytes,
                receive_retained: options.retained
                    || (is_anew && options.gap_mode == GapMode::RetainedOnly),
                counted: options.counted,
                positions: &positions,
                wait_mesh: options.wait_mesh,
                ended: &ended,
            },
        );
        let is_known = |filter: &String| is_topic(filter) && self.progress.positions.has(filter);
        is_complete && filters.iter().all(is_known)
    }

    /// The daemon has confirmed what it was asked. Tells the gap that was put into the inbox, if
    /// messages may be missing that no Gap of the daemon tells.
    pub(crate) fn confirm(&mut self, identity: Identity, tells_unknown_gap: bool) -> Option<Gap> {
        let asked = std::mem::replace(&mut self.asked, Asked::Nothing);
        self.identity = Some(identity);
        self.inbox.identify(identity);
        self.may_be_elsewhere = false;
        if asked != Asked::Resume {
            self.progress.restart();
        }
        if let Some(answer) = self.answer.take() {
            // An application that has given up waiting also drops its handle, which ends it.
            let _ = answer.send(Ok(()));
        }
        if asked == (Asked::Anew { owes_gap: true }) && !tells_unknown_gap {
            let gap = Gap::reconnected();
            self.inbox.append_notice(Event::Gap(gap.clone()));
            return Some(gap);
        }
        None
    }

    /// Whether a request that was refused for this reason has to be followed by a Subscribe.
    pub(crate) fn subscribes_after(&self, error: &Error) -> bool {
        let is_not_found = matches!(error, Error::NotFound { .. });
        self.asked == Asked::Resume
            && if is_not_found { !self.may_be_elsewhere } else { self.answer.is_none() }
    }

    /// Messages that occupy `bytes`, numbered by `node`, come into the inbox.
    pub(crate) fn on_received(&mut self, messages: &[Event], bytes: usize, node: NodeId) -> Owed {
        let options = &self.wanted.options;
        let is_first = self.progress.is_acknowledged();
        self.progress.on_received(messages, bytes);
        if options.gap_mode == GapMode::ReplayBuffer {
            self.progress.note_positions(messages, node);
        }
        Owed {
            is_first: is_first && options.counted,
            is_due: options.counted && self.progress.is_ack_due(self.ack_limits),
        }
    }

    /// A message of this number is known to be lost.
    pub(crate) fn on_lost(&mut self, topic: &Arc<str>, sequence: u64, node: NodeId) {
        if self.wanted.options.gap_mode == GapMode::ReplayBuffer {
            self.progress.positions.note(topic, sequence, node);
        }
    }

    /// What to acknowledge on the present connection, if there is something.
    pub(crate) fn acknowledge(&mut self) -> Option<(SubscriptionId, u64)> {
        let id = self.identity?.id;
        Some((id, self.progress.acknowledge()?))
    }

    /// The connection that was asked is gone. The next one tells the count anyway. `had_all_of`: the daemon
    /// at its end, if that ended well and all that it had for the subscription has come.
    pub(crate) fn on_disconnected(&mut self, had_all_of: Option<NodeId>) {
        self.left_well_at = had_all_of.map(|_| Instant::now());
        if let Some(node) = had_all_of {
            self.progress.positions.note_ended(node);
        }
        self.progress.acknowledge();
        self.asked = Asked::Nothing;
    }

    /// What it takes to go on with it; `None` if no daemon has confirmed it.
    pub(crate) fn paused(&self, ttl: Option<Duration>) -> Option<Paused> {
        let Identity { id, node } = self.identity?;
        let (positions, are_complete) =
            self.progress.positions.told_within(limits::SUBSCRIBE_BYTES_MAX, None);
        Some(Paused {
            options: self.wanted.options.clone(),
            ttl,
            positions,
            positions_are_complete: are_complete,
            ..Paused::new(self.wanted.filters.to_vec(), id, node, self.progress.received)
        })
    }
}

/// The acknowledgement that is owed for what has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Owed {
    /// None was owed before.
    pub(crate) is_first: bool,
    /// It is owed now.
    pub(crate) is_due: bool,
}
