//! The words of a command before clap reads them: commands may be written in any case.

use clap::Command;

/// Writes the names of commands among these words as clap knows them: `Client LIST` becomes `client list`.
/// What is no name of a command is left alone, and so is everything behind it; but of HELP, which is about commands
/// alone, a value that a command takes (`help mesh topology`) is left out. The first `at` words are no part of it.
pub(crate) fn normalise(command: &Command, words: &mut Vec<String>, mut at: usize) {
    let mut command = command;
    let mut is_help = false;
    while let Some(word) = words.get(at) {
        at += 1;
        if word == "--" {
            return;
        }
        if word.starts_with('-') && word.len() > 1 {
            at += usize::from(has_value_behind(command, word));
            continue;
        }
        let name = word.to_lowercase();
        // Behind a command that has none below it, it is a value.
        if !is_help && name == "help" && command.has_subcommands() {
            words[at - 1] = name;
            is_help = true;
            continue;
        }
        let Some(inner) = command.find_subcommand(&name) else {
            if is_help && is_value(command, &name) {
                words.truncate(at - 1);
            }
            return;
        };
        words[at - 1] = name;
        command = inner;
    }
}

/// Whether this is one of the values that the command can be given.
fn is_value(command: &Command, name: &str) -> bool {
    let mut values = command.get_positionals().flat_map(|it| it.get_possible_values());
    values.any(|value| value.get_name() == name)
}

/// Whether the next word is the value of this option.
fn has_value_behind(command: &Command, word: &str) -> bool {
    // The options that stand before a command are the same everywhere.
    let option = match word.strip_prefix("--") {
        Some(long) if long.contains('=') => return false,
        Some(long) => command.get_arguments().find(|it| it.get_long() == Some(long)),
        None => {
            let mut letters = word.chars().skip(1);
            let (Some(letter), None) = (letters.next(), letters.next()) else {
                return false;
            };
            command.get_arguments().find(|it| it.get_short() == Some(letter))
        }
    };
    option.is_some_and(|option| option.get_action().takes_values())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::command;

    fn normalised(line: &str) -> String {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let mut command = command();
        command.build();
        normalise(&command, &mut words, 0);
        words.join(" ")
    }

    #[test]
    fn commands_may_be_written_in_any_case() {
        assert_eq!(normalised("PUBLISH T HELLO"), "publish T HELLO");
        assert_eq!(normalised("PubSub NUMSUB T"), "pubsub numsub T");
        assert_eq!(normalised("-h HOST --json Client KILL ID"), "-h HOST --json client kill ID");
        assert_eq!(normalised("--host=A INFO Memory"), "--host=A info Memory");
        assert_eq!(normalised("HELP Client KILL"), "help client kill");
    }

    #[test]
    fn what_is_no_command_is_left_alone() {
        assert_eq!(normalised("Publsh T"), "Publsh T");
        assert_eq!(normalised("SUBSCRIBE INFO"), "subscribe INFO");
        assert_eq!(normalised("PUBLISH --type INFO T X"), "publish --type INFO T X");
        assert_eq!(normalised("-- INFO"), "-- INFO");
        assert_eq!(normalised("PUBLISH HELP HELP"), "publish HELP HELP");
    }

    #[test]
    fn help_takes_the_value_of_a_command_for_the_command() {
        assert_eq!(normalised("help MESH Topology"), "help mesh");
        assert_eq!(normalised("help mesh nonsense"), "help mesh nonsense");
    }
}
