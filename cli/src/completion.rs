//! Completion in the prompt: names of commands and options from their definition, topics and clients from
//! the daemon that is connected.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Arg, Command};
use nexusd_admin::proto::{ListClientsRequest, ListTopicsRequest};
use reedline::{Completer, CompletionResult, Span, Suggestion};
use tokio::runtime::{Handle, Runtime};
use tokio::time::timeout;

use crate::arguments::prompt_command;
use crate::format::printable;
use crate::remote::Remote;

/// How long Tab may wait for the daemon.
const WAIT: Duration = Duration::from_millis(500);
/// Names that are offered at most.
const NAMES_MAX: u32 = 200;

/// The daemon that is connected, shared by the prompt and its completions.
#[derive(Clone, Default, Debug)]
pub(crate) struct Here(Arc<Mutex<Option<Remote>>>);

impl Here {
    pub(crate) fn set(&self, remote: Option<Remote>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = remote;
    }

    fn remote(&self) -> Option<Remote> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What Tab offers.
pub(crate) struct Completions {
    command: Command,
    here: Here,
    runtime: Handle,
}

impl Completions {
    pub(crate) fn new(here: Here, runtime: &Runtime) -> Self {
        let mut command = prompt_command();
        command.build();
        Self { command, here, runtime: runtime.handle().clone() }
    }

    /// What an argument may be.
    fn values(&self, argument: &Arg, begun: &str) -> Vec<(String, String)> {
        let values = values(argument, begun);
        match kind(argument) {
            Some(kind) if values.is_empty() => self.known(kind, begun),
            _ => values,
        }
    }

    /// Names that the daemon knows.
    fn known(&self, kind: Kind, begun: &str) -> Vec<(String, String)> {
        let Some(remote) = self.here.remote() else {
            return Vec::new();
        };
        let names = async {
            match kind {
                Kind::Topics => {
                    let request = ListTopicsRequest { filter: String::new(), limit: 10_000 };
                    let topics = remote.list_topics(request).await?.topics;
                    Ok(topics.into_iter().map(|topic| (topic.name, String::new())).collect())
                }
                Kind::Clients => {
                    let request = ListClientsRequest { client_id: String::new(), limit: NAMES_MAX };
                    let clients = remote.list_clients(request).await?.clients;
                    let named = clients
                        .into_iter()
                        .map(|client| (client.client_id, printable(&client.name).into_owned()));
                    Ok::<_, crate::error::CliError>(named.collect::<Vec<_>>())
                }
            }
        };
        // Whoever does not answer is not waited for; the next command tells.
        let names = self.runtime.block_on(async { timeout(WAIT, names).await });
        let mut names = names.ok().and_then(Result::ok).unwrap_or_default();
        // Nothing that would have to be escaped stands in the line as it is.
        names.retain(|(name, _)| {
            name.starts_with(begun) && matches!(printable(name), Cow::Borrowed(_))
        });
        names.sort_unstable();
        names.truncate(NAMES_MAX as usize);
        names
    }
}

impl Completer for Completions {
    fn complete(&mut self, line: &str, at: usize) -> CompletionResult {
        let line = line.get(..at).unwrap_or(line);
        let start = line.rfind([' ', '\t']).map_or(0, |space| space + 1);
        let (before, begun) = line.split_at(start);
        let words: Vec<&str> = before.split_whitespace().collect();
        let (command, place) = place(&self.command, &words);
        let offered = match place {
            Place::OptionValue(argument) => self.values(argument, begun),
            _ if begun.starts_with('-') => options(command, begun),
            Place::Value(argument) => self.values(argument, begun),
            Place::Name => names(command, &words, begun),
            Place::Nothing => Vec::new(),
        };
        let span = Span { start, end: at };
        if offered.is_empty() {
            // The word as it stands, which is taken at once: an empty menu would say so in capitals.
            let value = begun.to_owned();
            let same =
                Suggestion { value, span, append_whitespace: false, ..Suggestion::default() };
            return CompletionResult::fresh(vec![same]);
        }
        let suggest = |(value, description): (String, String)| Suggestion {
            value,
            description: Some(description).filter(|it| !it.is_empty()),
            span,
            append_whitespace: true,
            ..Suggestion::default()
        };
        CompletionResult::fresh(offered.into_iter().map(suggest).collect::<Vec<_>>())
    }
}

/// What the word at the cursor is.
enum Place<'a> {
    /// The name of a command.
    Name,
    /// This value of a command.
    Value(&'a Arg),
    /// The value of an option.
    OptionValue(&'a Arg),
    Nothing,
}

/// Names that a daemon knows.
#[derive(Clone, Copy)]
enum Kind {
    Topics,
    Clients,
}

/// The command that these words name, and what belongs behind them.
fn place<'a>(root: &'a Command, words: &[&str]) -> (&'a Command, Place<'a>) {
    let mut command = root;
    let mut values = 0;
    let mut option = None;
    for word in words {
        if option.take().is_some() {
            continue;
        }
        if word.starts_with('-') {
            option = option_of(command, word);
            continue;
        }
        match command.find_subcommand(word.to_lowercase()) {
            Some(inner) => command = inner,
            None => values += 1,
        }
    }
    if let Some(option) = option {
        return (command, Place::OptionValue(option));
    }
    if values == 0 && command.has_subcommands() {
        return (command, Place::Name);
    }
    let mut positionals: Vec<&Arg> = command.get_positionals().collect();
    let is_many = |argument: &&Arg| argument.get_num_args().is_some_and(|it| it.max_values() > 1);
    if let Some(last) = positionals.last().copied().filter(is_many) {
        positionals.resize(positionals.len().max(values + 1), last);
    }
    let place = positionals.get(values).map_or(Place::Nothing, |argument| Place::Value(argument));
    (command, place)
}

/// The option that this word is, if it takes a value behind it.
fn option_of<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let is_it = |argument: &&Arg| match word.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        None => argument.get_short().is_some_and(|short| word == format!("-{short}")),
    };
    command.get_arguments().find(is_it).filter(|argument| argument.get_action().takes_values())
}

/// Commands that begin so, in the case that they are written in.
fn names(command: &Command, words: &[&str], begun: &str) -> Vec<(String, String)> {
    let written = if begun.is_empty() { words.last().copied().unwrap_or("") } else { begun };
    let is_lower = written.chars().any(char::is_lowercase);
    let wanted = begun.to_lowercase();
    let about = |it: &Command| it.get_about().map(ToString::to_string).unwrap_or_default();
    let begins = command.get_subcommands().filter(|it| it.get_name().starts_with(&wanted));
    let in_case = |name: &str| if is_lower { name.to_owned() } else { name.to_uppercase() };
    begins.map(|it| (in_case(it.get_name()), about(it))).collect()
}

fn options(command: &Command, begun: &str) -> Vec<(String, String)> {
    let mut options: Vec<_> = command
        .get_arguments()
        .filter_map(|argument| {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            Some((format!("--{}", argument.get_long()?), help))
        })
        .filter(|(name, _)| name.starts_with(begun))
        .collect();
    options.sort_unstable();
    options
}

fn values(argument: &Arg, begun: &str) -> Vec<(String, String)> {
    let is_lower = begun.chars().any(char::is_lowercase);
    let wanted = begun.to_lowercase();
    let values = argument.get_possible_values();
    let begins = values.iter().filter(|value| value.get_name().starts_with(&wanted));
    begins
        .map(|value| {
            let help = value.get_help().map(ToString::to_string).unwrap_or_default();
            let name = value.get_name();
            (if is_lower { name.to_owned() } else { name.to_uppercase() }, help)
        })
        .collect()
}

fn kind(argument: &Arg) -> Option<Kind> {
    match argument.get_id().as_str() {
        "topic" | "topics" | "filter" | "filters" => Some(Kind::Topics),
        "id" => Some(Kind::Clients),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is offered where no daemon is connected.
    fn offered(line: &str) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut completions = Completions::new(Here::default(), &runtime);
        let suggestions = completions.complete(line, line.len()).suggestions().to_vec();
        suggestions
            .into_iter()
            .map(|it| format!("{}{}", &line[..it.span.start], it.value))
            .collect()
    }

    #[test]
    fn commands_are_offered_in_the_case_they_are_begun_in() {
        assert_eq!(offered("ME"), ["MESH"]);
        assert_eq!(offered("me"), ["mesh"]);
        assert_eq!(offered("P"), ["PING", "PUBLISH", "PUBSUB"]);
        assert_eq!(offered("nonsense x"), ["nonsense x"], "a word stays as it is");
        assert!(offered("").contains(&"INFO".to_owned()));
    }

    #[test]
    fn what_stands_behind_a_group_is_offered() {
        assert_eq!(offered("MESH T"), ["MESH TOPOLOGY"]);
        assert_eq!(offered("mesh "), ["mesh PEERS", "mesh STATUS", "mesh TOPOLOGY", "mesh GOSSIP"]);
        assert_eq!(offered("client k"), ["client kill"]);
        assert_eq!(offered("DEBUG LOG d"), ["DEBUG LOG debug"]);
    }

    #[test]
    fn options_are_offered_behind_a_command() {
        assert_eq!(offered("publish t x --re"), ["publish t x --retain"]);
        assert_eq!(offered("publish t --re"), ["publish t --retain"]);
        assert!(offered("pubsub topics --").contains(&"pubsub topics --limit".to_owned()));
    }
}
