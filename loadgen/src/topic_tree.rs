//! The topics of a run, and who must get which: names, filters, and the place of each delivery in a
//! dense array.
//!
//! A workload either gives each publisher one topic, or one publisher very many. Of the latter the
//! wide tree has one subscriber whose filter matches everything. The tree of rooms has a hundred
//! subscribers whose filters differ, and every message matches exactly two of them:
//!
//! | topic of a room | exact filter | `door/+` | `#` |
//! |---|---|---|---|
//! | `lamp/0`, `lamp/1` | one each | | yes |
//! | `door/0`, `door/1` | | yes | yes |
//!
//! Four topics and four filters a room, half of them with wildcards. The filters of a room belong to
//! four subscribers. Exact filters alone cannot be one of the two matches everywhere: if half of the
//! filters are exact there are half as many of them as topics.

/// Subscribers in the tree of rooms.
pub(crate) const ROOM_SUBSCRIBERS: usize = 100;
/// Topics, and filters, of a room.
pub(crate) const PER_ROOM: u32 = 4;
/// Subscriptions that a message in the tree of rooms matches.
const MATCHES: usize = 2;
/// The filter of a room that matches all of it.
const WHOLE_ROOM: u32 = PER_ROOM - 1;
/// Topics below one level of the wide tree.
const PER_LEVEL: u32 = 1_000;

/// The topics of every publisher of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TopicTree {
    /// One topic for each publisher; its subscribers name it.
    Single,
    /// One publisher has this many; the filter of the one subscriber matches all of them.
    Wide {
        /// Topics.
        topics: u32,
    },
    /// One publisher, and [`ROOM_SUBSCRIBERS`] with different filters.
    Rooms {
        /// Rooms with filters; a multiple of the subscribers.
        rooms: u32,
        /// Rooms with messages, spread evenly over the others: a divisor of `rooms`, and a multiple
        /// of the subscribers too.
        lively: u32,
    },
}

impl TopicTree {
    /// Topics of each publisher.
    pub(crate) fn topics(self) -> u32 {
        match self {
            Self::Single => 1,
            Self::Wide { topics } => topics,
            Self::Rooms { lively, .. } => lively * PER_ROOM,
        }
    }

    /// Filters of all subscribers of a publisher together, `fan_out` of them.
    pub(crate) fn filters(self, fan_out: usize) -> usize {
        match self {
            Self::Single | Self::Wide { .. } => fan_out,
            Self::Rooms { rooms, .. } => (rooms * PER_ROOM) as usize,
        }
    }

    /// Deliveries of each message.
    pub(crate) fn copies(self, fan_out: usize) -> usize {
        match self {
            Self::Single | Self::Wide { .. } => fan_out,
            Self::Rooms { .. } => MATCHES,
        }
    }

    /// The name of a publisher's topic, as long as that of any other. `base` is new for each run and publisher.
    pub(crate) fn topic(self, base: &str, topic: u32) -> String {
        match self {
            Self::Single => base.to_owned(),
            Self::Wide { .. } => {
                format!("{base}/{:04}/{:03}", topic / PER_LEVEL, topic % PER_LEVEL)
            }
            Self::Rooms { .. } => {
                let room = self.room_of(topic);
                let (what, number) = [("lamp", 0), ("lamp", 1), ("door", 0), ("door", 1)]
                    [(topic % PER_ROOM) as usize];
                format!("{base}/{room:05}/{what}/{number}")
            }
        }
    }

    /// The filters of one subscriber.
    pub(crate) fn filters_of(self, base: &str, subscriber: usize) -> Vec<String> {
        match self {
            Self::Single => vec![base.to_owned()],
            Self::Wide { .. } => vec![format!("{base}/#")],
            Self::Rooms { rooms, .. } => (0..rooms)
                .flat_map(|room| (0..PER_ROOM).map(move |filter| (room, filter)))
                .filter(|(room, filter)| owner(*room, *filter) == subscriber)
                .map(|(room, filter)| {
                    let pattern = ["lamp/0", "lamp/1", "door/+", "#"][filter as usize];
                    format!("{base}/{room:05}/{pattern}")
                })
                .collect(),
        }
    }

    /// Where deliveries of a topic to a subscriber are accounted for, below [`Self::places`]; `None`
    /// if it should not get them.
    #[inline]
    pub(crate) fn place(self, topic: u32, subscriber: usize) -> Option<usize> {
        if topic >= self.topics() {
            return None;
        }
        match self {
            Self::Single | Self::Wide { .. } => (subscriber == 0).then_some(topic as usize),
            Self::Rooms { .. } => {
                let room = self.room_of(topic);
                let first = topic as usize * MATCHES;
                let narrow = (topic % PER_ROOM).min(WHOLE_ROOM - 1);
                [narrow, WHOLE_ROOM]
                    .iter()
                    .position(|filter| owner(room, *filter) == subscriber)
                    .map(|which| first + which)
            }
        }
    }

    /// Places in all.
    pub(crate) fn places(self) -> usize {
        self.topics() as usize * self.places_per_topic()
    }

    /// Places of one topic; they follow each other.
    pub(crate) fn places_per_topic(self) -> usize {
        match self {
            Self::Single | Self::Wide { .. } => 1,
            Self::Rooms { .. } => MATCHES,
        }
    }

    /// The room of a topic. The lively rooms lie so that every subscriber gets as much as any other.
    #[inline]
    fn room_of(self, topic: u32) -> u32 {
        match self {
            Self::Rooms { rooms, lively } => {
                let step = rooms / lively;
                let first = topic / PER_ROOM * step;
                first + first / ROOM_SUBSCRIBERS as u32 % step
            }
            Self::Single | Self::Wide { .. } => 0,
        }
    }
}

/// The subscriber that has one of a room's filters: a different one for each.
fn owner(room: u32, filter: u32) -> usize {
    let quarter = ROOM_SUBSCRIBERS / PER_ROOM as usize;
    (room as usize + filter as usize * quarter) % ROOM_SUBSCRIBERS
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexusd_wire::filter_matches;

    const ROOMS: TopicTree = TopicTree::Rooms { rooms: 1_000, lively: 100 };

    #[test]
    fn every_topic_of_the_rooms_matches_two_subscriptions_and_they_have_its_places() {
        let filters: Vec<Vec<String>> =
            (0..ROOM_SUBSCRIBERS).map(|subscriber| ROOMS.filters_of("run", subscriber)).collect();
        let mut taken = vec![false; ROOMS.places()];
        for topic in 0..ROOMS.topics() {
            let name = ROOMS.topic("run", topic);
            let mut matching = 0;
            for (subscriber, filters) in filters.iter().enumerate() {
                let matches = filters.iter().filter(|filter| filter_matches(filter, &name)).count();
                let place = ROOMS.place(topic, subscriber);
                assert_eq!(place.is_some(), matches == 1, "{name}, subscriber {subscriber}");
                matching += matches;
                if let Some(place) = place {
                    assert!(!std::mem::replace(&mut taken[place], true), "{name}");
                }
            }
            assert_eq!(matching, MATCHES, "{name}");
        }
        assert!(taken.iter().all(|taken| *taken));
    }

    #[test]
    fn subscribers_of_the_rooms_share_the_filters_evenly_and_half_have_wildcards() {
        for subscriber in 0..ROOM_SUBSCRIBERS {
            let filters = ROOMS.filters_of("run", subscriber);
            assert_eq!(filters.len() * ROOM_SUBSCRIBERS, ROOMS.filters(ROOM_SUBSCRIBERS));
            let wild = filters.iter().filter(|filter| filter.contains(['+', '#'])).count();
            assert_eq!(wild * 2, filters.len());
        }
    }

    #[test]
    fn subscribers_of_the_rooms_get_equally_many_messages() {
        for rooms in [ROOMS, TopicTree::Rooms { rooms: 25_000, lively: 2_500 }] {
            let mut topics = vec![0; ROOM_SUBSCRIBERS];
            for topic in 0..rooms.topics() {
                for (subscriber, topics) in topics.iter_mut().enumerate() {
                    *topics += usize::from(rooms.place(topic, subscriber).is_some());
                }
            }

            let share = rooms.places() / ROOM_SUBSCRIBERS;
            assert!(topics.iter().all(|topics| *topics == share), "{topics:?}");
        }
    }

    #[test]
    fn every_topic_of_the_wide_tree_has_a_name_of_its_own_that_its_filter_matches() {
        let wide = TopicTree::Wide { topics: 2_500 };
        let filter = &wide.filters_of("run", 0)[0];
        let names: std::collections::HashSet<_> =
            (0..wide.topics()).map(|topic| wide.topic("run", topic)).collect();
        assert_eq!(names.len(), 2_500);
        assert!(names.iter().all(|name| filter_matches(filter, name)));
    }

    #[test]
    fn a_delivery_that_nobody_asked_for_has_no_place() {
        assert_eq!(TopicTree::Wide { topics: 10 }.place(10, 0), None);
        assert_eq!(TopicTree::Wide { topics: 10 }.place(0, 1), None);
        assert_eq!(ROOMS.place(0, 1), None);
    }
}
