//! The words of a command before clap reads them: commands may be written in any case.

use clap::Command;

/// Writes the names of commands among these words as clap knows them: `Client LIST` becomes `client list`.
/// What is no name of a command is left alone, and so is everything behind it.
pub(crate) fn normalise(command: &Command, words: &mut [String]) {
    let mut command = command;
    let mut is_help = false;
    let mut at = 0;
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
        if !is_help && name == "help" {
            words[at - 1] = name;
            is_help = true;
            continue;
        }
        let Some(inner) = command.find_subcommand(&name) else {
            return;
        };
        words[at - 1] = name;
        command = inner;
    }
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
        normalise(&command, &mut words);
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
    }
}
