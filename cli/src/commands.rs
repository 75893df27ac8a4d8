//! What commands do: each group of them asks the daemon and shows what it says. `beacons`, `event` and `topology`
//! are parts of DISCOVER, SUBSCRIBE and MESH.

pub(crate) mod beacons;
pub(crate) mod client;
pub(crate) mod debug;
pub(crate) mod discover;
pub(crate) mod event;
pub(crate) mod info;
pub(crate) mod mesh;
pub(crate) mod monitor;
pub(crate) mod ping;
pub(crate) mod publish;
pub(crate) mod pubsub;
pub(crate) mod subscribe;
pub(crate) mod topology;

use crate::console;

/// Says of filters that are written as other systems write theirs that they match no more than they say.
pub(crate) fn note_foreign_wildcards(filters: &[String]) {
    for filter in filters.iter().filter(|filter| has_foreign_wildcard(filter)) {
        console::note(&format!(
            "note: `{filter}` matches that name alone: levels are parted by /, + stands for one level, a final # for \
             the rest; * and > are no wildcards"
        ));
    }
}

fn has_foreign_wildcard(filter: &str) -> bool {
    !filter.contains(['+', '#']) && (filter.contains('*') || filter.ends_with('>'))
}

/// A line below a list that was cut off.
pub(crate) fn cut_off(is_truncated: bool, remedy: &str) -> String {
    if is_truncated { format!("\nThere are more; {remedy}.") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_of_other_systems_are_known() {
        for filter in ["a.b.*", "a/*", "a.>", ">", "*"] {
            assert!(has_foreign_wildcard(filter), "{filter}");
        }
        for filter in ["a/b", "a/+/*", "a/#", "#", "a->b"] {
            assert!(!has_foreign_wildcard(filter), "{filter}");
        }
    }
}
