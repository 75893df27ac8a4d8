//! What can be asked for, on the command line and in the prompt.

use std::net::IpAddr;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{
    Arg, ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
};
use clap_complete::Shell;

use crate::target::LOCALHOST;
use crate::words::normalise;

const EXAMPLES: &str = "\
Commands may be written in any case. Without one there is a prompt.

Examples:
  nexusd-cli publish greetings hello
  nexusd-cli subscribe 'plant/+/temperature'
  nexusd-cli -h 10.0.0.7 mesh topology
  nexusd-cli --json pubsub topics | jq '.topics[].name'
  nexusd-cli discover";

/// What stands below the help of one command.
const MORE: &str = "Options for every command: nexusd-cli --help";
const PROMPT_MORE: &str = "HELP shows the options for every command.";
const TIMES: &str = "A TIME is 1500 or 1500ms, 2s, 5m or 1h.";

const PROMPT_EXAMPLES: &str = "\
Commands may be written in any case; HELP and a command says more of it.

Examples:
  publish greetings hello
  subscribe 'plant/+/temperature'
  mesh topology
  discover
  connect 2";

/// A command, and whom it is for.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "nexusd-cli",
    version,
    about = "Asks NexusD daemons, publishes, subscribes, and shows a mesh live.",
    after_help = EXAMPLES,
    disable_help_flag = true,
    max_term_width = 100
)]
pub(crate) struct Invocation {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Option<Action>,
}

/// What every command takes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "For every command")]
pub(crate) struct Options {
    /// The daemon's host, by name or address; it may bring its port along [default: 127.0.0.1]
    #[arg(short = 'h', long, value_name = "HOST", global = true)]
    pub(crate) host: Option<String>,
    /// Its port for applications [default: 5672]
    #[arg(short, long, value_name = "PORT", global = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// The daemon with this number in the list of DISCOVER
    #[arg(short = 'n', value_name = "INDEX", global = true, conflicts_with_all = ["host", "port"])]
    pub(crate) index: Option<usize>,
    /// Answers as JSON, for scripts
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How long to wait for an answer [default: 2s]; of DISCOVER, for beacons [default: 2500ms]. A TIME is 1500 or
    /// 1500ms, 2s, 5m or 1h
    #[arg(long, value_name = "TIME", global = true, value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// This text
    #[arg(long, action = ArgAction::Help, global = true)]
    help: Option<bool>,
    #[command(flatten)]
    pub(crate) discovery: DiscoveryOptions,
}

/// Where beacons are heard, for DISCOVER and `-n`.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "For DISCOVER and -n")]
pub(crate) struct DiscoveryOptions {
    /// Multicast groups [default: 239.255.42.1]
    #[arg(long, value_name = "ADDRESS", global = true, value_delimiter = ',')]
    pub(crate) mcast_addr: Vec<IpAddr>,
    /// Their UDP port [default: 5670]
    #[arg(long, value_name = "PORT", global = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) mcast_port: Option<u16>,
    /// Daemons of this cluster alone
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) cluster: Option<String>,
}

impl Options {
    /// `--host`, or this host.
    pub(crate) fn host(&self) -> &str {
        self.host.as_deref().unwrap_or(LOCALHOST)
    }

    /// `--timeout`, or two seconds.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(2))
    }
}

/// The commands.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Action {
    /// Finds daemons by their beacons
    Discover,
    /// Talks to another daemon from now on (in the prompt)
    Connect {
        /// HOST, HOST:PORT, or a number that DISCOVER shows
        daemon: String,
    },
    /// Talks to no daemon (in the prompt)
    Disconnect,
    /// Asks whether the daemon is there, and how long it takes to answer
    Ping,
    /// Publishes a message
    Publish(PublishArguments),
    /// Prints messages until it is stopped
    Subscribe(SubscribeArguments),
    /// Reserved: this version has no request/reply
    Request {
        /// A topic
        topic: String,
        /// The payload
        #[arg(allow_negative_numbers = true)]
        payload: String,
    },
    /// Prints what is published, and how often, until it is stopped
    Monitor(MonitorArguments),
    /// Shows topics, rates, queues, slow consumers and peers live
    Top {
        /// How often the daemon is asked
        #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
        interval: Duration,
    },
    /// Says what the daemon is and does
    Info {
        /// What of it
        #[arg(value_enum, ignore_case = true, default_value = "all", hide_default_value = true)]
        section: InfoSection,
    },
    /// Says who else is in the mesh
    Mesh {
        /// What of it
        #[arg(value_enum, ignore_case = true, default_value = "peers", hide_default_value = true)]
        section: MeshSection,
    },
    /// Says what is published and wanted
    Pubsub {
        #[command(subcommand)]
        question: Option<PubsubAction>,
    },
    /// Says who is connected; names and ends connections
    Client {
        #[command(subcommand)]
        question: Option<ClientAction>,
    },
    /// For those who look after a daemon: latency, log level, settings, its end
    #[command(arg_required_else_help = true)]
    Debug {
        #[command(subcommand)]
        action: DebugAction,
    },
    /// Prints a script that lets a shell complete these commands
    Completions {
        /// The shell
        #[arg(ignore_case = true)]
        shell: Shell,
    },
    /// Prints the manual page
    Man,
    /// Leaves the prompt
    #[command(visible_alias = "exit")]
    Quit,
}

impl Action {
    /// Whether it goes on until it is stopped, and ends in good order then.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(
            self,
            Self::Subscribe(_)
                | Self::Monitor(_)
                | Self::Top { .. }
                | Self::Debug { action: DebugAction::Ping { .. } }
        )
    }
}

/// What is published.
#[derive(Args, Clone, Debug)]
pub(crate) struct PublishArguments {
    /// A topic
    pub(crate) topic: String,
    /// The payload; `-` reads it from the standard input
    #[arg(allow_negative_numbers = true)]
    pub(crate) payload: String,
    /// Keeps it as the topic's value for later subscribers; an empty one takes the value away
    #[arg(long)]
    pub(crate) retain: bool,
    /// Its content type, such as application/json
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// How long it may be delivered
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    pub(crate) ttl: Option<Ttl>,
    /// A header; may be repeated
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
}

/// How long a message may be delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ttl {
    pub(crate) time: Duration,
    /// It was given as a number below 1,000 without a unit, which may have been meant as seconds.
    pub(crate) may_be_seconds: bool,
}

/// What is subscribed to.
#[derive(Args, Clone, Debug)]
pub(crate) struct SubscribeArguments {
    /// Topics, in which + stands for one level and a final # for the rest
    #[arg(required = true, value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// Ends after so many messages
    #[arg(long, value_name = "MESSAGES", value_parser = count)]
    pub(crate) count: Option<u64>,
    /// Prints the retained values of these topics first
    #[arg(long)]
    pub(crate) retained: bool,
}

/// What is watched.
#[derive(Args, Clone, Debug)]
pub(crate) struct MonitorArguments {
    /// Topics, in which + stands for one level and a final # for the rest
    #[arg(value_name = "FILTER", default_value = "#")]
    pub(crate) filters: Vec<String>,
    /// How often rates are printed
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub(crate) interval: Duration,
    /// Ends after so many reports
    #[arg(long, value_name = "REPORTS", value_parser = count)]
    pub(crate) count: Option<u64>,
    /// So many topics each time, those with the highest rates
    #[arg(long, value_name = "TOPICS", default_value_t = 10)]
    pub(crate) topics: usize,
}

/// Parts of INFO.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InfoSection {
    /// Version, addresses, how long it runs
    Server,
    /// Everything that is counted
    Stats,
    /// What memory is used for
    Memory,
    /// Settings, and where each comes from
    Config,
    /// Everything
    All,
}

/// Parts of MESH.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MeshSection {
    /// The other nodes
    Peers,
    /// The mesh at a glance
    Status,
    /// Who sees whom, as a tree
    Topology,
    /// How far nodes know what others want
    Gossip,
}

/// Questions about topics.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum PubsubAction {
    /// Topics, with the number of subscriptions and messages
    Topics(Listing),
    /// How many subscriptions want each of these topics
    Numsub {
        /// Topics
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
    },
    /// Retained values
    Retained(Listing),
}

/// What of a list is shown.
#[derive(Args, Clone, Debug)]
pub(crate) struct Listing {
    /// Those that match; + stands for one level, a final # for the rest
    pub(crate) filter: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

impl Default for Listing {
    fn default() -> Self {
        Self { filter: None, limit: 1_000 }
    }
}

/// Questions about clients.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum ClientAction {
    /// Clients that are connected
    List {
        /// At most so many
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Everything about one of them
    Info {
        /// As CLIENT LIST shows it
        id: String,
    },
    /// Ends its connection
    Kill {
        /// As CLIENT LIST shows it
        id: String,
    },
    /// Gives it another name
    #[command(name = "setname")]
    SetName {
        /// As CLIENT LIST shows it
        id: String,
        /// The name
        name: String,
    },
}

/// Looking after a daemon.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum DebugAction {
    /// Shows what the daemon logs, or changes it
    Log {
        /// off, error, warn, info, debug or trace
        #[arg(ignore_case = true, value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
        level: Option<String>,
    },
    /// Measures how long answers take
    Ping {
        /// So many times
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        count: u32,
        /// How long to wait between them
        #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration)]
        interval: Duration,
    },
    /// Subscriptions, with their queues and losses
    Subscriptions {
        /// At most so many
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Has the daemon read its configuration again
    Reload,
    /// Ends the daemon in good order
    Drain {
        /// Without asking first
        #[arg(long)]
        yes: bool,
    },
}

/// The definition of all this.
pub(crate) fn command() -> clap::Command {
    Invocation::command()
}

/// The same for lines in the prompt.
pub(crate) fn prompt_command() -> clap::Command {
    let command = command().no_binary_name(true).name("").bin_name("").after_help(PROMPT_EXAMPLES);
    // They are for shells.
    ["completions", "man"]
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(name, |inner| inner.hide(true)))
}

/// Reads the words behind the program's name.
pub(crate) fn parse(command: clap::Command, words: Vec<String>) -> Result<Invocation, clap::Error> {
    let mut command = command;
    // So that options are known at every command.
    command.build();
    let mut words = words;
    let names = usize::from(!command.is_no_binary_name_set());
    if let Some(first) = words.get_mut(names).filter(|first| *first == "?") {
        "help".clone_into(first);
    }
    normalise(&command, &mut words, names);
    let more = if command.is_no_binary_name_set() { PROMPT_MORE } else { MORE };
    command = command.mut_subcommands(|inner| with_own_help(inner, more));
    let matches =
        command.try_get_matches_from_mut(words).map_err(|error| pointed(error, &command))?;
    Invocation::from_arg_matches(&matches)
}

/// Leaves what every command takes to the help of the program. DISCOVER keeps what says how it listens.
fn with_own_help(command: clap::Command, more: &str) -> clap::Command {
    let is_discover = command.get_name() == "discover";
    let own = |argument: Arg| match argument.get_id().as_str() {
        "timeout" if is_discover => {
            argument.help_heading(None).help("How long to wait for beacons [default: 2500ms]")
        }
        "mcast_addr" | "mcast_port" | "cluster" if is_discover => argument.help_heading(None),
        _ if argument.is_global_set() => argument.hide(true),
        _ => argument,
    };
    let command = command.mut_args(own).mut_subcommands(|inner| with_own_help(inner, more));
    let takes_time = |argument: &Arg| {
        !argument.is_hide_set() && argument.get_value_names().is_some_and(|it| it == ["TIME"])
    };
    let times = if command.get_arguments().any(takes_time) { TIMES } else { "" };
    command.after_help([times, more].join("\n").trim_start().to_owned())
}

/// Says what else may have been meant: `-h` alone is help elsewhere; a name that no command has may be one within a
/// group.
fn pointed(mut error: clap::Error, command: &clap::Command) -> clap::Error {
    if is_host_without_value(&error) {
        let help = if command.is_no_binary_name_set() { "HELP" } else { "nexusd-cli --help" };
        let tip = format!("-h is the host; for help: {help}").into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
        return error;
    }
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    let has = |group: &&clap::Command| {
        let mut values = group.get_positionals().flat_map(|it| it.get_possible_values());
        group.find_subcommand(name).is_some() || values.any(|value| value.get_name() == name)
    };
    let groups = command.get_subcommands().filter(|group| group.get_name() != "help");
    let found: Vec<_> =
        groups.filter(has).map(|group| format!("{} {name}", group.get_name())).collect();
    if !found.is_empty() {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(found));
    }
    error
}

/// Whether `-h` or `--host` stands alone.
fn is_host_without_value(error: &clap::Error) -> bool {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    text(ContextKind::InvalidArg).is_some_and(|it| it.starts_with("--host "))
        && text(ContextKind::InvalidValue) == Some("")
}

/// `1500`, `1500ms`, `2s`, `5m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no time: 1500, 1500ms, 2s, 5m and 1h are some");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let unit_ms = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(bad)
}

/// A duration that remembers whether its unit may have been forgotten.
fn ttl(text: &str) -> Result<Ttl, String> {
    let is_bare = text.bytes().all(|byte| byte.is_ascii_digit());
    let time = duration(text)?;
    let is_short = (1..1_000).contains(&time.as_millis());
    Ok(Ttl { time, may_be_seconds: is_bare && is_short })
}

/// What a stream ends after. Nothing would end it before it has begun.
fn count(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) => Err("it ends after 1 or more; without --count it goes on".to_owned()),
        Ok(count) => Ok(count),
        Err(_) => Err("it is no whole number from 1 up".to_owned()),
    }
}

/// How often something is done: not more than ten times a second, for the daemon's sake.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_millis(100) {
        return Err("the shortest interval is 100ms".to_owned());
    }
    Ok(interval)
}

fn header(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a header is KEY=VALUE")?;
    if key.is_empty() {
        return Err("the header's key is empty".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, clap::Error> {
        parse(prompt_command(), line.split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn the_definition_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn h_is_the_host_and_help_is_help_alone() {
        let invocation = parsed("-h example.org -p 7000 INFO").expect("valid");
        assert_eq!(invocation.options.host(), "example.org");
        assert_eq!(invocation.options.port, Some(7_000));
        assert!(matches!(invocation.command, Some(Action::Info { section: InfoSection::All })));
        let error = parsed("publish --help").expect_err("help");
        assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp);
    }

    #[test]
    fn options_may_stand_behind_the_command() {
        let invocation = parsed("mesh STATUS --json --timeout 5s -h ::1").expect("valid");
        assert!(invocation.options.json);
        assert_eq!(invocation.options.timeout(), Duration::from_secs(5));
        assert!(matches!(invocation.command, Some(Action::Mesh { section: MeshSection::Status })));
    }

    #[test]
    fn a_message_has_all_its_options() {
        let line = "PUBLISH t x --retain --type text/plain --ttl 1500 --header a=b --header c=";
        let Some(Action::Publish(publish)) = parsed(line).expect("valid").command else {
            panic!("it publishes");
        };
        assert!(publish.retain);
        assert_eq!(publish.content_type.as_deref(), Some("text/plain"));
        assert_eq!(publish.ttl.map(|ttl| ttl.time), Some(Duration::from_millis(1_500)));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(publish.headers, [pair("a", "b"), pair("c", "")]);
    }

    #[test]
    fn a_payload_may_be_a_negative_number_and_a_topic_may_be_help() {
        let Some(Action::Publish(publish)) = parsed("publish HELP -5.5").expect("valid").command
        else {
            panic!("it publishes");
        };
        assert_eq!((publish.topic.as_str(), publish.payload.as_str()), ("HELP", "-5.5"));
    }

    #[test]
    fn names_of_shells_and_values_are_taken_in_any_case() {
        let shell = parsed("completions BASH").expect("valid").command;
        assert!(matches!(shell, Some(Action::Completions { shell: Shell::Bash })));
        let error = parsed("HELP Mesh TOPOLOGY").expect_err("help");
        assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp);
        assert!(error.to_string().contains("topology"), "{error}");
    }

    #[test]
    fn a_group_without_a_command_means_its_list() {
        let commands =
            ["CLIENT", "PUBSUB", "MESH"].map(|line| parsed(line).expect("valid").command);
        assert!(matches!(&commands[0], Some(Action::Client { question: None })));
        assert!(matches!(&commands[1], Some(Action::Pubsub { question: None })));
        assert!(matches!(&commands[2], Some(Action::Mesh { section: MeshSection::Peers })));
    }

    #[test]
    fn bad_usage_is_refused() {
        for line in [
            "publish t",
            "mesh up",
            "-n 1 -h x info",
            "--timeout soon info",
            "monitor --interval 1",
            "monitor --count 0",
            "subscribe t --count 0",
            "subscribe t --count -1",
        ] {
            let error = parsed(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_name_within_a_group_points_there() {
        let said = |line: &str| parsed(line).expect_err(line).to_string();
        assert!(said("peers").contains("'mesh peers'"), "{}", said("peers"));
        assert!(said("kill 1").contains("'client kill'"), "{}", said("kill 1"));
        assert!(said("publsh").contains("'publish'"), "{}", said("publsh"));
        assert_eq!(parsed("?").expect_err("help").kind(), clap::error::ErrorKind::DisplayHelp);
    }

    #[test]
    fn h_without_a_host_says_how_to_get_help() {
        for line in ["-h", "info -h", "--host"] {
            let said = parsed(line).expect_err(line).to_string();
            assert!(said.contains("tip: -h is the host; for help: HELP\n"), "{said}");
        }
        let words = ["nexusd-cli", "-h"].map(str::to_owned).to_vec();
        let error = parse(command(), words).expect_err("no host");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("for help: nexusd-cli --help\n"), "{error}");
        let said = parsed("-p 0 info").expect_err("no port").to_string();
        assert!(!said.contains("tip"), "{said}");
    }

    #[test]
    fn the_help_of_a_command_is_about_that_command() {
        for line in
            ["help publish", "publish --help", "HELP Debug PING", "debug --help", "mesh --help"]
        {
            let help = parsed(line).expect_err("help").to_string();
            for common in ["--host", "--json", "--timeout", "--mcast-addr", "--help"] {
                assert!(!help.contains(common), "{line}: {help}");
            }
            assert!(help.trim_end().ends_with(PROMPT_MORE), "{line}: {help}");
        }
        let words = ["nexusd-cli", "publish", "--help"].map(str::to_owned).to_vec();
        let help = parse(command(), words).expect_err("help").to_string();
        assert!(help.contains("Usage: nexusd-cli publish [OPTIONS] <TOPIC> <PAYLOAD>"), "{help}");
        assert!(help.contains("--retain") && help.trim_end().ends_with(MORE), "{help}");
    }

    #[test]
    fn discover_says_how_it_listens() {
        let help = parsed("help discover").expect_err("help").to_string();
        for own in ["--timeout <TIME>", "2500ms", "--mcast-addr", "--mcast-port", "--cluster"] {
            assert!(help.contains(own), "{own}: {help}");
        }
        assert!(!help.contains("--host") && !help.contains("For DISCOVER"), "{help}");
    }

    #[test]
    fn help_alone_shows_the_options_for_every_command() {
        for line in ["help", "--help"] {
            let help = parsed(line).expect_err("help").to_string();
            for common in ["--host", "--json", "--timeout", "--mcast-addr", "--help"] {
                assert!(help.contains(common), "{line}: {help}");
            }
        }
    }

    #[test]
    fn every_help_says_what_a_time_is() {
        for line in ["--help", "monitor --help", "debug ping --help", "discover --help"] {
            let help = parsed(line).expect_err("help").to_string();
            let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(help.contains("A TIME is 1500 or 1500ms, 2s, 5m or 1h"), "{help}");
        }
    }

    #[test]
    fn a_short_ttl_without_a_unit_may_be_meant_as_seconds() {
        for (text, expected) in [
            ("5", true),
            ("999", true),
            ("0", false),
            ("1000", false),
            ("5ms", false),
            ("5s", false),
        ] {
            assert_eq!(ttl(text).expect(text).may_be_seconds, expected, "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        let times = ["0", "1500", "20ms", "2s", "5m", "1h"].map(|text| duration(text).expect(text));
        assert_eq!(times.map(|time| time.as_millis()), [0, 1_500, 20, 2_000, 300_000, 3_600_000]);
        for text in ["", "s", "-1", "1.5s", "1d", "99999999999999999999", "18446744073709551615h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
