//! Who may connect, and how fast a source may publish: the bounds of the node, and those of each
//! source address, that an operator has set.
//!
//! What is beyond a bound is refused with an error that names the flag. Nothing here is asked for a
//! message; the bytes of a receive are read with a number of messages that they may hold.

use std::sync::Arc;

use nexusd_wire::control::{ErrorCode, PublishStatus};
use nexusd_wire::{ErrorReport, FrameKind, Header, MessageFlags};

use super::event::{ConnectionId, Door, Now, PeerAddress};
use super::{Shard, fatal, open_connection};
use crate::connection::Connection;
use crate::limits::{LINKS_MAX, Limits, RATE_ERROR_INTERVAL_US};
use crate::sources::{Excess, Source, SourceAddress};

impl Shard {
    /// Refuses a connection that has just opened, if it is one too many. One that comes from another
    /// shard was admitted there.
    pub(super) fn admit_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerAddress,
        door: Door,
        is_moved: bool,
        now: Now,
    ) {
        let limits = &self.config.limits;
        if self.drain.is_some() {
            self.fail(id, &fatal(ErrorCode::Draining, "the daemon is stopping"), now);
        } else if !matches!(door, Door::Apps | Door::Edge) {
            let links = self.connections.iter().flatten().filter(|connection| {
                !matches!(connection.session.door, Door::Apps | Door::Edge)
                    && !connection.close_asked
            });
            if links.count() > LINKS_MAX / self.plane.routing.shards() {
                self.plane.metrics.connections_refused += 1;
                let text = "the node has as many links as it may";
                self.fail(id, &fatal(ErrorCode::LimitReached, text), now);
            }
        } else if !is_moved && self.plane.node.connections() > limits.connections {
            self.plane.metrics.connections_refused += 1;
            let text = format!(
                "the daemon has {} connections, which is its limit (--max-connections)",
                limits.connections
            );
            self.fail(id, &fatal(ErrorCode::LimitReached, &text), now);
        } else if limits.are_set_per_source()
            && let Some(address) = SourceAddress::of(peer)
        {
            self.admit_source(id, address, is_moved, now);
        }
    }

    fn admit_source(&mut self, id: ConnectionId, address: SourceAddress, is_moved: bool, now: Now) {
        let limits = &self.config.limits;
        let opened = if is_moved {
            let unlimited =
                Limits { connections_per_source: 0, accept_rate_per_source: 0, ..limits.clone() };
            self.plane.node.sources.open(address, &unlimited, now.mono_us)
        } else {
            self.plane.node.sources.open(address, limits, now.mono_us)
        };
        let text = match opened {
            Ok(source) => {
                if let Some(connection) = open_connection(&mut self.connections, id) {
                    connection.session.source = Some(source);
                }
                return;
            }
            Err(Excess::Connections) => {
                self.plane.metrics.source_connections_refused += 1;
                format!(
                    "{address} has {} connections, which is the limit of one source \
                     (--max-connections-per-source)",
                    limits.connections_per_source
                )
            }
            Err(Excess::AcceptRate) => {
                self.plane.metrics.source_accepts_refused += 1;
                format!(
                    "{address} opens more than {} connections a second, which is the limit of one \
                     source (--accept-rate-per-source)",
                    limits.accept_rate_per_source
                )
            }
        };
        self.fail(id, &fatal(ErrorCode::LimitReached, &text), now);
    }

    /// Answers a publish beyond the rate of its source. Without an acknowledgement to come, one in a
    /// second is told, so that a flood of messages causes no flood of errors.
    pub(super) fn refuse_too_fast(&mut self, id: ConnectionId, header: &Header, at: u64) {
        self.plane.metrics.source_messages_refused += 1;
        let Some(connection) = open_connection(&mut self.connections, id) else {
            return;
        };
        let Connection { session, outbound, .. } = connection;
        if header.flags().contains(MessageFlags::ACK) {
            session.acks.refuse(header.sequence().0, PublishStatus::LimitReached);
            return;
        }
        let Some(source) = &session.source else { return };
        let is_told = |told_us: u64| self.now_us < told_us + RATE_ERROR_INTERVAL_US;
        if session.told_too_fast_us.is_some_and(is_told) {
            session.refused_untold += 1;
            return;
        }
        let mut message = format!(
            "{} publishes more than {} messages a second, which is the limit of one source \
             (--publish-rate-per-source)",
            source.address, self.config.limits.publish_rate_per_source
        );
        let untold = std::mem::take(&mut session.refused_untold);
        if untold > 0 {
            message += &format!("; {untold} more were refused since this was last said");
        }
        session.told_too_fast_us = Some(self.now_us);
        let (code, kind) = (ErrorCode::LimitReached, FrameKind::Message.0);
        let report =
            ErrorReport { code, message: &message, fatal: false, request: 0, offset: at, kind };
        self.encoder.error(&mut outbound.control, &report);
    }
}

/// Where the source of a connection stood when its bytes began to be read.
pub(super) struct Paced {
    source: Arc<Source>,
    may_publish: u64,
}

/// Before a connection's bytes are read: finds out how many messages of them may be accepted, if that
/// is bounded.
pub(super) fn pace(connection: &mut Connection, limits: &Limits, now: Now) -> Option<Paced> {
    if limits.publish_rate_per_source == 0 {
        return None;
    }
    let source = Arc::clone(connection.session.source.as_ref()?);
    let may_publish = source.may_publish(limits, now.mono_us);
    connection.session.may_publish = Some(may_publish);
    connection.session.count_if_needed();
    Some(Paced { source, may_publish })
}

impl Paced {
    /// Behind the bytes: tells the source how many were accepted.
    pub(super) fn end(self, connection: &mut Connection, limits: &Limits, now: Now) {
        let left = connection.session.may_publish.take().unwrap_or(self.may_publish);
        connection.session.count_if_needed();
        self.source.has_published(self.may_publish.saturating_sub(left), limits, now.mono_us);
    }
}
