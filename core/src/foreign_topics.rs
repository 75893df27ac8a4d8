//! Topics that other shards own and whose messages are wanted here: their names, and who wants them.
//!
//! An owner names a topic before the first run of it and says when it forgets it. Ids are the node's.

use nexusd_wire::TopicId;
use slab::Slab;

use crate::audience::{Audience, Listed};
use crate::shard::event::ConnectionId;
use crate::shard::routing::Routing;
use crate::subscriber_queue::SubscriberQueue;
use crate::subscription_index::SubscriptionIndex;

#[derive(Debug)]
pub(crate) struct ForeignTopic {
    name: Box<str>,
    pub(crate) audience: Audience,
}

/// All of them, by owner and slot over there.
#[derive(Debug)]
pub(crate) struct ForeignTopics {
    routing: Routing,
    by_owner: Vec<Vec<Option<Box<ForeignTopic>>>>,
    found: Vec<u32>,
    listed: Listed,
    /// Where audiences are forgotten next: an owner, and a slot over there.
    forgetting_cursor: (usize, usize),
}

impl ForeignTopics {
    pub(crate) fn new(routing: Routing, memory_bytes: usize) -> Self {
        let by_owner = (0..routing.shards()).map(|_| Vec::new()).collect();
        let listed = Listed::new(memory_bytes, routing.shards());
        Self { routing, by_owner, found: Vec::new(), listed, forgetting_cursor: (0, 0) }
    }

    /// The owner says what the topic is called. It may say so again.
    pub(crate) fn name_topic(&mut self, topic: TopicId, name: Box<str>) {
        let of_owner = &mut self.by_owner[self.routing.owner(topic).index()];
        let slot = self.routing.slot(topic);
        if of_owner.len() <= slot {
            of_owner.resize_with(slot + 1, || None);
        }
        let place = &mut of_owner[slot];
        if place.as_ref().is_none_or(|known| known.name != name) {
            if let Some(mut known) = place.take() {
                known.audience.forget(&mut self.listed);
            }
            *place = Some(Box::new(ForeignTopic { name, audience: Audience::default() }));
        }
    }

    /// The owner forgets the topic: the connections that were told its name.
    pub(crate) fn forget(&mut self, topic: TopicId) -> Vec<ConnectionId> {
        let forgotten = self.place(topic).and_then(Option::take);
        let Some(mut forgotten) = forgotten else { return Vec::new() };
        let told = std::mem::take(&mut forgotten.audience.bound);
        forgotten.audience.forget(&mut self.listed);
        told
    }

    pub(crate) fn name(&self, topic: TopicId) -> &str {
        let of_owner = &self.by_owner[self.routing.owner(topic).index()];
        let known = of_owner.get(self.routing.slot(topic)).and_then(Option::as_deref);
        debug_assert!(known.is_some(), "a topic is named before its first run");
        known.map_or("", |topic| &topic.name)
    }

    /// The topic, with its audience up to date with the index.
    #[inline]
    pub(crate) fn refreshed(
        &mut self,
        topic: TopicId,
        index: &SubscriptionIndex,
        queues: &Slab<SubscriberQueue>,
    ) -> Option<&mut ForeignTopic> {
        if self.listed.is_over() {
            self.forget_audiences();
        }
        let of_owner = self.by_owner.get_mut(self.routing.owner(topic).index())?;
        let known = of_owner.get_mut(self.routing.slot(topic))?.as_deref_mut()?;
        if known.audience.is_stale(index) {
            let before = known.audience.matches.len();
            known.audience.refresh(&known.name, index, queues, &mut self.found);
            self.listed.note(before, known.audience.matches.len());
        }
        Some(known)
    }

    /// Has topics forget who wants their messages.
    #[cold]
    fn forget_audiences(&mut self) {
        let places = self.by_owner.iter().map(Vec::len).sum::<usize>() + self.by_owner.len();
        for _ in 0..places {
            if self.listed.has_room() {
                return;
            }
            let (owner, slot) = self.forgetting_cursor;
            let of_owner = &mut self.by_owner[owner];
            if slot >= of_owner.len() {
                self.forgetting_cursor = ((owner + 1) % self.by_owner.len(), 0);
                continue;
            }
            self.forgetting_cursor = (owner, slot + 1);
            if let Some(known) = &mut of_owner[slot] {
                known.audience.forget(&mut self.listed);
            }
        }
    }

    fn place(&mut self, topic: TopicId) -> Option<&mut Option<Box<ForeignTopic>>> {
        self.by_owner.get_mut(self.routing.owner(topic).index())?.get_mut(self.routing.slot(topic))
    }
}
