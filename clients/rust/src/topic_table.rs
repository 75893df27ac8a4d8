//! The ids that stand for topics in what this client publishes.
//!
//! Ids are dense from 0 and outlive connections: a new connection is told all of them first, so
//! frames that were encoded for the last one stay right. When the table is full a new topic takes
//! the id of another, oldest first. Invariant: for every frame not yet sent, the table knows which
//! name its id had at that place of the stream.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use nexusd_wire::{FrameEncoder, NameError, TopicId, check_topic};

/// Why a topic has no id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unbindable {
    Name(NameError),
    /// It belongs to the daemon.
    System,
}

#[derive(Debug)]
pub(crate) struct TopicTable {
    ids: HashMap<Arc<str>, TopicId, foldhash::fast::RandomState>,
    names: Vec<Arc<str>>,
    topics_max: usize,
    /// Whose id goes next when all are in use.
    next_replaced: usize,
    /// The binds that were not sent yet.
    unsent: VecDeque<UnsentBind>,
}

#[derive(Debug)]
struct UnsentBind {
    /// Stream position of the TopicBind.
    position: u64,
    index: usize,
    /// What the id stands for before it, if anything.
    before: Option<Arc<str>>,
}

impl TopicTable {
    pub(crate) fn new(topics_max: usize) -> Self {
        Self {
            ids: HashMap::default(),
            names: Vec::new(),
            topics_max,
            next_replaced: 0,
            unsent: VecDeque::new(),
        }
    }

    /// `name` as the table holds it, if it does, so that `stands_for` knows it.
    pub(crate) fn intern(&self, name: &str) -> Arc<str> {
        match self.ids.get_key_value(name) {
            Some((name, _)) => Arc::clone(name),
            None => name.into(),
        }
    }

    /// The id of a topic that has one. Names in the table are well formed.
    #[inline]
    pub(crate) fn id_of(&self, name: &str) -> Option<TopicId> {
        self.ids.get(name).copied()
    }

    /// Whether `topic` still stands for `name`, this very allocation of it.
    #[inline]
    pub(crate) fn stands_for(&self, topic: TopicId, name: &Arc<str>) -> bool {
        self.names.get(topic.0 as usize).is_some_and(|bound| Arc::ptr_eq(bound, name))
    }

    /// Gives a topic an id that it does not have yet, and appends the TopicBind to the stream
    /// `out`, which goes on at `position`.
    pub(crate) fn bind(
        &mut self,
        name: Arc<str>,
        position: u64,
        encoder: &mut FrameEncoder,
        out: &mut Vec<u8>,
    ) -> TopicId {
        let (index, before) = if self.names.len() < self.topics_max {
            self.names.push(Arc::clone(&name));
            (self.names.len() - 1, None)
        } else {
            let index = self.next_replaced;
            self.next_replaced = (index + 1) % self.topics_max;
            let before = std::mem::replace(&mut self.names[index], Arc::clone(&name));
            self.ids.remove(&before);
            (index, Some(before))
        };
        self.unsent.push_back(UnsentBind { position, index, before });
        let topic = TopicId(index as u32);
        encoder.topic_bind(out, topic, &name);
        self.ids.insert(name, topic);
        topic
    }

    /// The stream was sent up to `position`.
    pub(crate) fn sent(&mut self, position: u64) {
        while self.unsent.front().is_some_and(|bind| bind.position < position) {
            self.unsent.pop_front();
        }
    }

    /// `bytes` bytes at `position` were taken out of the stream unsent.
    pub(crate) fn cut_out(&mut self, position: u64, bytes: u64) {
        for bind in &mut self.unsent {
            if bind.position > position {
                bind.position -= bytes;
            }
        }
    }

    /// Appends the binds that a new connection begins with: what all ids stand for at the place of
    /// the stream up to which it was sent.
    pub(crate) fn restart(&self, encoder: &mut FrameEncoder, out: &mut Vec<u8>) {
        let mut names = self.names.clone();
        for bind in self.unsent.iter().rev() {
            match &bind.before {
                Some(before) => names[bind.index] = Arc::clone(before),
                // Ids are given in order, so the last one given is the last in the table.
                None => names.truncate(bind.index),
            }
        }
        for (index, name) in names.iter().enumerate() {
            encoder.topic_bind(out, TopicId(index as u32), name);
        }
    }
}

/// Whether clients may publish to `name`.
pub(crate) fn check_publishable(name: &str) -> Result<(), Unbindable> {
    check_topic(name).map_err(Unbindable::Name)?;
    match name.strip_prefix("$SYS") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Err(Unbindable::System),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use nexusd_wire::{Cut, FrameCutter, FrameKind, control};

    use super::*;

    fn binds(bytes: &[u8]) -> Vec<(u32, String)> {
        let mut cutter = FrameCutter::new(1 << 20, 1 << 20, usize::MAX);
        let mut input = bytes;
        let mut found = Vec::new();
        while let Ok(Cut::Frame(frame)) = cutter.next(&mut input) {
            assert_eq!(frame.kind(), FrameKind::TopicBind);
            let body = frame.body::<control::TopicBind<'_>>().unwrap();
            found.push((frame.header().topic().0, body.name().to_owned()));
        }
        found
    }

    /// The table, and where each bind ended in the stream.
    fn table_with(topics_max: usize, names: &[&str]) -> (TopicTable, Vec<u64>) {
        let mut table = TopicTable::new(topics_max);
        let mut stream = Vec::new();
        let mut ends = Vec::new();
        for name in names {
            let position = stream.len() as u64;
            table.bind((*name).into(), position, &mut FrameEncoder::new(), &mut stream);
            ends.push(stream.len() as u64);
        }
        (table, ends)
    }

    #[test]
    fn ids_are_dense_and_a_full_table_gives_the_oldest_away() {
        let (table, _) = table_with(2, &["a", "b", "c"]);
        assert_eq!(table.id_of("a"), None);
        assert_eq!(table.id_of("b"), Some(TopicId(1)));
        assert_eq!(table.id_of("c"), Some(TopicId(0)));
    }

    #[test]
    fn a_new_connection_is_told_the_names_that_unsent_frames_mean() {
        let (mut table, ends) = table_with(2, &["a", "b", "c", "d"]);
        let mut out = Vec::new();
        table.restart(&mut FrameEncoder::new(), &mut out);
        assert!(out.is_empty(), "all binds are still in the stream");

        // The third bind gives `a`'s id to `c`.
        let expected: [&[&str]; 4] = [&["a"], &["a", "b"], &["c", "b"], &["c", "d"]];
        for (end, names) in ends.iter().zip(expected) {
            out.clear();
            table.sent(*end);
            table.restart(&mut FrameEncoder::new(), &mut out);
            let found = binds(&out);
            let found: Vec<_> = found.iter().map(|(_, name)| name.as_str()).collect();
            assert_eq!(found, names);
        }
    }

    #[test]
    fn system_topics_and_wildcards_are_not_publishable() {
        assert_eq!(check_publishable("$SYS/x"), Err(Unbindable::System));
        assert_eq!(check_publishable("$SYS"), Err(Unbindable::System));
        assert_eq!(check_publishable("$SYSTEM"), Ok(()));
        assert!(matches!(check_publishable("a/+"), Err(Unbindable::Name(_))));
    }
}
