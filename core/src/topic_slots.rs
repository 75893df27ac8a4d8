//! Topics by slot. The slot of one that is gone is taken by the next new one.
//!
//! A slot is vacant if its topic has no name, so that nobody has to look whether it is before using what a message
//! needs of a topic, which is another line of memory.

use std::ops::{Index, IndexMut};

use crate::topic::Topic;

/// The slots.
#[derive(Debug, Default)]
pub(crate) struct TopicSlots {
    topics: Vec<Topic>,
    vacant: Vec<u32>,
}

impl TopicSlots {
    /// How many topics there are.
    pub(crate) fn len(&self) -> usize {
        self.topics.len() - self.vacant.len()
    }

    /// Slots that topics may be in.
    pub(crate) fn slots(&self) -> usize {
        self.topics.len()
    }

    /// The topic in a slot, if there is one.
    pub(crate) fn get(&self, slot: usize) -> Option<&Topic> {
        self.topics.get(slot).filter(|topic| !topic.name.is_empty())
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut Topic> {
        self.topics.get_mut(slot).filter(|topic| !topic.name.is_empty())
    }

    /// What lies in a slot, vacant or not, for the processor to fetch.
    #[inline(always)]
    pub(crate) fn place(&self, slot: usize) -> Option<&Topic> {
        self.topics.get(slot)
    }

    /// Two topics that are there; `None` if they are the same.
    #[inline(always)]
    pub(crate) fn two(&mut self, one: usize, other: usize) -> Option<[&mut Topic; 2]> {
        self.topics.get_disjoint_mut([one, other]).ok()
    }

    /// Gives a topic a slot.
    pub(crate) fn insert(&mut self, topic: Topic) -> usize {
        debug_assert!(!topic.name.is_empty(), "without a name it is not there");
        if let Some(slot) = self.vacant.pop() {
            self.topics[slot as usize] = topic;
            return slot as usize;
        }
        self.topics.push(topic);
        self.topics.len() - 1
    }

    /// Takes a topic out.
    pub(crate) fn remove(&mut self, slot: usize) -> Topic {
        self.vacant.push(slot as u32);
        std::mem::take(&mut self[slot])
    }
}

/// A topic that is there.
impl Index<usize> for TopicSlots {
    type Output = Topic;

    #[inline(always)]
    fn index(&self, slot: usize) -> &Topic {
        let topic = &self.topics[slot];
        debug_assert!(!topic.name.is_empty(), "a topic that is forgotten is not asked for");
        topic
    }
}

impl IndexMut<usize> for TopicSlots {
    #[inline(always)]
    fn index_mut(&mut self, slot: usize) -> &mut Topic {
        let topic = &mut self.topics[slot];
        debug_assert!(!topic.name.is_empty(), "a topic that is forgotten is not asked for");
        topic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again() {
        let named = |name: &str| {
            let mut topic = Topic::default();
            topic.name = name.into();
            topic
        };
        let mut slots = TopicSlots::default();
        assert_eq!([slots.insert(named("a")), slots.insert(named("b"))], [0, 1]);
        assert_eq!(&*slots.remove(0).name, "a");
        assert!(slots.get(0).is_none() && slots.get_mut(0).is_none() && slots.get(2).is_none());
        assert_eq!((slots.len(), slots.slots()), (1, 2));
        assert_eq!(slots.insert(named("c")), 0);
        let [one, other] = slots.two(1, 0).expect("both are there");
        assert_eq!((&*one.name, &*other.name), ("b", "c"));
        assert!(slots.two(1, 1).is_none());
    }
}
