//! Whom commands are for, and carrying them out. In the prompt a session lasts for many of them and
//! remembers the daemon and the list of DISCOVER.

use crate::arguments::{Action, DebugAction, Invocation, Options};
use crate::commands::discover::{self, Found};
use crate::commands::{client, debug, info, mesh, monitor, ping, publish, pubsub, subscribe};
use crate::console::Console;
use crate::error::CliError;
use crate::remote::Remote;
use crate::stops::Stops;
use crate::target::Target;
use crate::{manual, top};

/// What comes after a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    Go,
    Quit,
}

/// Where commands come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// There is one, from the command line.
    Arguments,
    /// Somebody types them.
    Prompt,
    /// The standard input, and nobody reads along.
    Script,
}

/// What the commands of a process share.
#[derive(Debug)]
pub(crate) struct Session {
    /// The options that the program was started with.
    options: Options,
    console: Console,
    source: Source,
    /// The daemon that commands are for; `None` after DISCONNECT.
    target: Option<Target>,
    /// The connection to it, once there is one.
    remote: Option<Remote>,
    /// What the last DISCOVER found.
    found: Option<Vec<Found>>,
}

impl Session {
    pub(crate) fn new(options: Options, source: Source) -> Result<Self, CliError> {
        let target = Target::new(options.host(), options.port)?;
        let console = Console::new(options.json);
        Ok(Self { options, console, source, target: Some(target), remote: None, found: None })
    }

    pub(crate) fn source(&self) -> Source {
        self.source
    }

    /// Turns to no daemon.
    pub(crate) fn leave(&mut self) {
        self.target = None;
        self.remote = None;
    }

    pub(crate) fn console(&self) -> Console {
        self.console
    }

    /// The daemon that commands are for.
    pub(crate) fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    /// The connection to it, if there is one already.
    pub(crate) fn connected(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// Turns to the daemon that `-n` of the start names.
    pub(crate) async fn turn_to_index(&mut self) -> Result<(), CliError> {
        if let Some(index) = self.options.index.take() {
            let options = self.options.clone();
            self.target = Some(self.found_at(index, &options).await?);
        }
        Ok(())
    }

    /// Carries a command out, unless it is stopped; one that goes on until then ends in good order.
    pub(crate) async fn run(
        &mut self,
        action: Action,
        options: &Options,
        stops: &Stops,
    ) -> Result<Next, CliError> {
        if !action.is_stream() {
            let answer = stops.unless_stopped(self.answer(action, options)).await;
            return answer.unwrap_or(Ok(Next::Go));
        }
        let console = self.console.with_json(options.json);
        if let Some(remote) = stops.unless_stopped(self.remote(options)).await {
            stream(action, &remote?, console, stops).await?;
        }
        Ok(Next::Go)
    }

    async fn answer(&mut self, action: Action, options: &Options) -> Result<Next, CliError> {
        let console = self.console.with_json(options.json);
        match action {
            Action::Quit => return Ok(Next::Quit),
            Action::Discover => {
                let options = self.merged(options);
                let time = options.timeout.unwrap_or(discover::LISTEN);
                let found = discover::discover(&options, time).await?;
                discover::show(console, &found)?;
                self.found = Some(found);
            }
            Action::Connect { daemon } => self.connect(console, &daemon, options).await?,
            Action::Disconnect => self.disconnect(console)?,
            Action::Completions { shell } => manual::completions(shell)?,
            Action::Man => manual::page()?,
            action => {
                self.check_input(&action)?;
                let remote = self.remote(options).await?;
                ask(action, &remote, console).await?;
            }
        }
        Ok(Next::Go)
    }

    /// Refuses what would read the lines that commands come from.
    fn check_input(&self, action: &Action) -> Result<(), CliError> {
        match action {
            _ if self.source != Source::Script => Ok(()),
            Action::Publish(arguments) if arguments.payload == "-" => Err(CliError::InputTaken),
            Action::Debug { action: DebugAction::Drain { yes: false } } => {
                Err(CliError::Unconfirmed { what: "DEBUG DRAIN" })
            }
            _ => Ok(()),
        }
    }

    /// The options of a command, and where it has none those of the start.
    fn merged(&self, options: &Options) -> Options {
        let mut merged = options.clone();
        merged.timeout = merged.timeout.or(self.options.timeout);
        let (wanted, given) = (&mut merged.discovery, &self.options.discovery);
        if wanted.mcast_addr.is_empty() {
            wanted.mcast_addr.clone_from(&given.mcast_addr);
        }
        wanted.mcast_port = wanted.mcast_port.or(given.mcast_port);
        wanted.cluster = wanted.cluster.take().or_else(|| given.cluster.clone());
        merged
    }

    /// The daemon that a command is for: its own, or that of the session.
    async fn remote(&mut self, options: &Options) -> Result<Remote, CliError> {
        let timeout = self.merged(options).timeout();
        let target = match options.index {
            Some(index) => Some(self.found_at(index, options).await?),
            None if options.host.is_some() || options.port.is_some() => {
                Some(Target::new(options.host(), options.port)?)
            }
            None => None,
        };
        if let Some(target) = target {
            return Remote::connect(target, timeout).await;
        }
        let target = self.target.clone().ok_or(CliError::NotConnected)?;
        let is_own = options.timeout.is_some();
        if let Some(remote) = &self.remote
            && !is_own
        {
            return Ok(remote.clone());
        }
        let remote = Remote::connect(target, timeout).await?;
        if !is_own {
            self.remote = Some(remote.clone());
        }
        Ok(remote)
    }

    /// The daemon with this number; looks for daemons if that was not done before.
    async fn found_at(&mut self, index: usize, options: &Options) -> Result<Target, CliError> {
        let found = match &self.found {
            Some(found) => found,
            None => {
                // `--timeout` is for the answer that is wanted from it.
                let found = discover::discover(&self.merged(options), discover::LISTEN).await?;
                self.found.insert(found)
            }
        };
        let daemon = index.checked_sub(1).and_then(|at| found.get(at));
        let count = match found.len() {
            0 => "none was".to_owned(),
            1 => "one was".to_owned(),
            count => format!("{count} were"),
        };
        daemon
            .map(|found| found.target.clone())
            .ok_or(CliError::NoSuchIndex { index, found: count })
    }

    async fn connect(
        &mut self,
        console: Console,
        daemon: &str,
        options: &Options,
    ) -> Result<(), CliError> {
        if self.source == Source::Arguments {
            let instead = "-h and -p say which daemon a command is for";
            return Err(CliError::PromptOnly { command: "CONNECT", instead });
        }
        if self.source == Source::Script {
            // What follows is meant for that daemon alone. Who sits at the prompt sees whom it is for.
            self.leave();
        }
        let target = match daemon.parse() {
            Ok(index) => self.found_at(index, options).await?,
            Err(_) => Target::new(daemon, options.port)?,
        };
        let remote = Remote::connect(target.clone(), self.merged(options).timeout()).await?;
        ping::connected(&remote, console).await?;
        self.target = Some(target);
        self.remote = Some(remote);
        Ok(())
    }

    fn disconnect(&mut self, console: Console) -> Result<(), CliError> {
        if self.source == Source::Arguments {
            let instead = "every command connects and disconnects by itself";
            return Err(CliError::PromptOnly { command: "DISCONNECT", instead });
        }
        let target = self.target.clone().ok_or(CliError::NotConnected)?;
        self.leave();
        let document = serde_json::json!({ "disconnected": target.to_string() });
        console.show(&document, || format!("disconnected from {target}"))
    }
}

/// The commands that ask a daemon.
async fn ask(action: Action, remote: &Remote, console: Console) -> Result<(), CliError> {
    match action {
        Action::Ping => ping::run(remote, console).await,
        Action::Publish(arguments) => publish::run(&arguments, remote, console).await,
        Action::Request { .. } => Err(CliError::NotYet(
            "request/reply is not part of this version of NexusD yet: PUBLISH and SUBSCRIBE are",
        )),
        Action::Info { section } => info::run(section, remote, console).await,
        Action::Mesh { section } => mesh::run(section, remote, console).await,
        Action::Pubsub { question } => pubsub::run(question, remote, console).await,
        Action::Client { question } => client::run(question, remote, console).await,
        Action::Debug { action } => debug::run(action, remote, console, &Stops::none()).await,
        // Those that ask nobody, or go on; see above.
        Action::Discover
        | Action::Subscribe(_)
        | Action::Monitor(_)
        | Action::Top { .. }
        | Action::Connect { .. }
        | Action::Disconnect
        | Action::Completions { .. }
        | Action::Man
        | Action::Quit => Ok(()),
    }
}

/// The commands that go on until they are stopped.
async fn stream(
    action: Action,
    remote: &Remote,
    console: Console,
    stops: &Stops,
) -> Result<(), CliError> {
    match action {
        Action::Subscribe(arguments) => subscribe::run(arguments, remote, console, stops).await,
        Action::Monitor(arguments) => monitor::run(arguments, remote, console, stops).await,
        Action::Top { interval } => top::run(remote, interval, console, stops).await,
        Action::Debug { action } => debug::run(action, remote, console, stops).await,
        _ => Ok(()),
    }
}

/// Carries out the one command that a program was started with.
pub(crate) async fn run_once(invocation: Invocation) -> Result<(), CliError> {
    let Invocation { options, command } = invocation;
    let Some(action) = command else {
        return Ok(());
    };
    // Whatever has no farewell to say is ended by signals themselves.
    let stops = if action.is_stream() { Stops::new()? } else { Stops::none() };
    let mut session = Session::new(options.clone(), Source::Arguments)?;
    session.run(action, &options, &stops).await.map(|_| ())
}
