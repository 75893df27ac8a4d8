//! Names and filters: the examples of MQTT 3.1.1 §4.7, and agreement with rules written down
//! another way.

use nexusd_wire::{NameError, TOPIC_BYTES_MAX, check_filter, check_topic, filter_matches};
use proptest::prelude::*;

/// The rules again, by recursion over levels.
fn oracle_matches(filter: &str, topic: &str) -> bool {
    fn levels_match(filter: &[&str], topic: &[&str]) -> bool {
        match (filter.first(), topic.first()) {
            (None, None) => true,
            (Some(&"#"), _) => true,
            (Some(wanted), Some(level)) => {
                (*wanted == "+" || wanted == level) && levels_match(&filter[1..], &topic[1..])
            }
            _ => false,
        }
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    let hidden = topic[0].starts_with('$') && matches!(filter[0], "+" | "#");
    !hidden && levels_match(&filter, &topic)
}

fn oracle_accepts_topic(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.contains(|c: char| c.is_control() || c == '+' || c == '#')
}

fn oracle_accepts_filter(name: &str) -> bool {
    let levels: Vec<&str> = name.split('/').collect();
    (1..=255).contains(&name.len())
        && !name.contains(char::is_control)
        && levels.iter().enumerate().all(|(index, level)| {
            !level.contains(['+', '#'])
                || *level == "+"
                || (*level == "#" && index == levels.len() - 1)
        })
}

/// Names made of what matters: separators, wildcards, `$`, and few letters, so that they collide.
fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec!["/", "/", "/", "+", "+", "#", "$", "a", "b", "ab", "é", "\u{1}"]),
        0..10,
    )
    .prop_map(|parts| parts.concat())
}

/// Well-formed names alone, of few levels.
fn levels(choices: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(choices), 1..6).prop_map(|levels| levels.join("/"))
}

proptest! {
    #[test]
    fn names_are_accepted_by_the_rules(name in name()) {
        prop_assert_eq!(check_topic(&name).is_ok(), oracle_accepts_topic(&name));
        prop_assert_eq!(check_filter(&name).is_ok(), oracle_accepts_filter(&name));
    }

    #[test]
    fn any_text_is_accepted_by_the_rules(name in any::<String>()) {
        prop_assert_eq!(check_topic(&name).is_ok(), oracle_accepts_topic(&name));
        prop_assert_eq!(check_filter(&name).is_ok(), oracle_accepts_filter(&name));
    }

    #[test]
    fn filters_match_by_the_rules(
        filter in levels(&["a", "b", "", "+", "+", "$s"]),
        rest in any::<bool>(),
        topic in levels(&["a", "b", "", "$s"]),
    ) {
        let filter = if rest { format!("{filter}/#") } else { filter };
        prop_assert_eq!(filter_matches(&filter, &topic), oracle_matches(&filter, &topic));
    }

    #[test]
    fn a_topic_is_a_filter_that_matches_itself_alone(
        topic in levels(&["a", "b", "", "$s"]),
        other in levels(&["a", "b", "", "$s"]),
    ) {
        prop_assert_eq!(filter_matches(&topic, &other), topic == other);
    }
}

/// Every statement of MQTT 3.1.1 §4.7 about what matches what.
#[test]
fn the_examples_of_the_specification_hold() {
    const EXAMPLES: [(&str, &str, bool); 29] = [
        // 4.7.1.2, multi-level wildcard
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("sport/#", "sport", true),
        ("#", "sport/tennis/player1", true),
        ("#", "/", true),
        // 4.7.1.3, single-level wildcard
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player2", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/tennis/#", "sport/tennis", true),
        ("+/tennis/#", "sport/tennis/player1/ranking", true),
        ("sport/+/player1", "sport/tennis/player1", true),
        ("sport/+/player1", "sport/player1", false),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("+", "sport", true),
        // 4.7.2, topics beginning with $
        ("#", "$SYS/monitor/Clients", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("$SYS/#", "$SYS/monitor/Clients", true),
        ("$SYS/#", "$SYS", true),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ("sport/+", "sport/$SYS", true),
        // 4.7.3, topic semantics
        ("ACCOUNTS", "Accounts", false),
        ("/finance", "finance", false),
        ("Accounts payable", "Accounts payable", true),
        ("a//b", "a/b", false),
    ];
    for (filter, topic, matches) in EXAMPLES {
        assert_eq!(check_filter(filter), Ok(()), "{filter}");
        assert_eq!(check_topic(topic), Ok(()), "{topic}");
        assert_eq!(filter_matches(filter, topic), matches, "{filter} {topic}");
        assert_eq!(oracle_matches(filter, topic), matches, "the oracle: {filter} {topic}");
    }
}

#[test]
fn the_refusals_of_the_specification_hold() {
    use NameError::{HashNotLast, Wildcard, WildcardInsideLevel};
    assert_eq!(check_filter("sport/tennis#"), Err(WildcardInsideLevel('#')));
    assert_eq!(check_filter("sport/tennis/#/ranking"), Err(HashNotLast));
    assert_eq!(check_filter("sport+"), Err(WildcardInsideLevel('+')));
    assert_eq!(check_filter("##"), Err(WildcardInsideLevel('#')));
    assert_eq!(check_topic("sport/+"), Err(Wildcard('+')));
    assert_eq!(check_topic("#"), Err(Wildcard('#')));
}

#[test]
fn names_are_bounded_in_bytes() {
    for check in [check_topic, check_filter] {
        assert_eq!(check(""), Err(NameError::Empty));
        assert_eq!(check(&"a".repeat(TOPIC_BYTES_MAX)), Ok(()));
        assert_eq!(check(&"a".repeat(256)), Err(NameError::TooLong(256)));
        assert_eq!(check(&"é".repeat(128)), Err(NameError::TooLong(256)));
        assert_eq!(check("a/\0"), Err(NameError::ControlCharacter(2)));
        assert_eq!(check("é\u{7f}"), Err(NameError::ControlCharacter(2)));
        assert_eq!(check("\u{85}"), Err(NameError::ControlCharacter(0)));
        assert_eq!(check("/"), Ok(()));
        assert_eq!(check("$SYS/x"), Ok(()));
    }
}
