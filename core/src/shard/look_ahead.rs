//! What messages to ever other topics need of memory, fetched ahead of them.
//!
//! A message to a topic that has not been used for a while meets its binding, then the topic, then the list of
//! its queues, each in no cache and each known from the one before. One after the other that takes longer than
//! all else. So the processor is told of all bytes that were received at once, in rounds: what one round
//! fetches, the next one reads. These are hints: what the bytes say is neither checked nor believed.

use nexusd_wire::{FrameCutter, Header, TopicId};

use super::plane::Plane;
use crate::limits::{LOOK_AHEAD_TOPICS, LOOK_AHEAD_TURNS, LOOKED_AHEAD_MAX};
use crate::prefetch::prefetch;
use crate::session::{Binding, Session};

impl Plane {
    /// Before a connection's bytes are dealt with.
    #[inline]
    pub(super) fn look_ahead(&mut self, session: &Session, cutter: &FrameCutter, bytes: &[u8]) {
        if session.turns >= LOOK_AHEAD_TURNS && self.topics.len() >= LOOK_AHEAD_TOPICS {
            self.fetch_ahead(&session.bindings, cutter.behind_stash(bytes));
        }
    }

    #[inline(never)]
    fn fetch_ahead(&mut self, bindings: &[Binding], mut frames: &[u8]) {
        let mut ahead = std::mem::take(&mut self.ahead);
        ahead.clear();
        while ahead.len() < LOOKED_AHEAD_MAX
            && let Some(header) = Header::peek(frames)
        {
            let id = header.topic();
            ahead.push(id);
            if let Some(binding) = bindings.get(id.0 as usize) {
                prefetch(binding);
            }
            frames = frames.get(header.stride()..).unwrap_or_default();
        }
        ahead.retain_mut(|id| match bindings.get(id.0 as usize) {
            Some(&Binding::Topic(topic)) => {
                self.topics.prefetch(topic);
                *id = topic;
                true
            }
            _ => false,
        });
        ahead.iter().for_each(|&topic: &TopicId| self.topics.prefetch_audience(topic));
        self.ahead = ahead;
    }
}
