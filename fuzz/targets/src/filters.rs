//! Names against the rules, and the index of filters against the plain statement of what matches.

use nexusd_core::SubscriptionIndex;
use nexusd_wire::{check_filter, check_topic, filter_matches};

/// Queues that hold filters.
const QUEUES: u32 = 4;

/// Lets filters come and go and looks topics up among them.
///
/// Bytes: text of lines. `+` inserts the filter behind it, `-` removes it, each for the queue that
/// the line's number gives; every other line is a topic to look up.
pub fn filters(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut index = SubscriptionIndex::new(1);
    let mut held: Vec<(&str, u32)> = Vec::new();
    let mut found = Vec::new();
    for (number, line) in text.split('\n').enumerate() {
        let queue = number as u32 % QUEUES;
        match line.split_at_checked(1) {
            Some(("+", filter)) => {
                check_name(filter);
                if check_filter(filter).is_ok() && !held.contains(&(filter, queue)) {
                    index.insert(filter, queue);
                    held.push((filter, queue));
                }
            }
            Some(("-", filter)) => {
                if let Some(at) = held.iter().position(|&(held, _)| held == filter) {
                    let (filter, queue) = held.swap_remove(at);
                    index.remove(filter, queue);
                }
            }
            _ => {
                check_name(line);
                if check_topic(line).is_ok() {
                    index.matches(line, &mut found);
                    assert_eq!(found, naive_matches(&held, line), "{line:?} among {held:?}");
                }
            }
        }
    }
    for (filter, queue) in held {
        index.remove(filter, queue);
    }
    index.matches("a", &mut found);
    assert!(found.is_empty());
}

fn naive_matches(held: &[(&str, u32)], topic: &str) -> Vec<u32> {
    let mut queues: Vec<u32> = held
        .iter()
        .filter(|(filter, _)| filter_matches(filter, topic))
        .map(|(_, queue)| *queue)
        .collect();
    queues.sort_unstable();
    queues.dedup();
    queues
}

/// Each rule by itself, in its shortest words.
fn check_name(name: &str) {
    let is_name = (1..=255).contains(&name.len()) && !name.contains(char::is_control);
    let is_topic = is_name && !name.contains(['+', '#']);
    assert_eq!(check_topic(name).is_ok(), is_topic, "{name:?}");
    let levels: Vec<&str> = name.split('/').collect();
    let wildcards_stand_alone =
        levels.iter().all(|level| level.len() == 1 || !level.contains(['+', '#']));
    let rest_is_last = !levels[..levels.len() - 1].contains(&"#");
    let is_filter = is_name && wildcards_stand_alone && rest_is_last;
    assert_eq!(check_filter(name).is_ok(), is_filter, "{name:?}");
    if is_topic {
        assert!(filter_matches(name, name), "{name:?}");
    }
}
