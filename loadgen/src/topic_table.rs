//! The names of a publisher's topics, for systems whose messages carry the name and not a number.

use std::sync::Arc;

/// Names of one length, one behind the other.
#[derive(Clone, Debug)]
pub(crate) struct TopicTable {
    names: Arc<[u8]>,
    width: usize,
}

impl TopicTable {
    /// The names of `count` topics (at least one).
    pub(crate) fn new<N: AsRef<[u8]>>(count: u32, name: impl Fn(u32) -> N) -> Self {
        let width = name(0).as_ref().len();
        let mut names = Vec::with_capacity(count.max(1) as usize * width);
        for topic in 0..count.max(1) {
            names.extend_from_slice(name(topic).as_ref());
            debug_assert_eq!(names.len(), (topic as usize + 1) * width, "names of one length");
        }
        Self { names: names.into(), width }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.names.len() / self.width
    }

    /// The name of a topic.
    #[inline]
    pub(crate) fn name(&self, topic: u32) -> &[u8] {
        &self.names[topic as usize * self.width..][..self.width]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_number() {
        let table = TopicTable::new(12, |topic| format!("a/{topic:02}"));
        assert_eq!((table.len(), table.name(0), table.name(11)), (12, &b"a/00"[..], &b"a/11"[..]));
    }
}
