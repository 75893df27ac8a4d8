//! What an operator can set, and the way from flags, environment and file to it.
//!
//! Every setting stands once, in the table of `config/setting.rs`; the three sources only differ in
//! how they spell its name. Sources are applied weakest first (defaults as the profile has them, file,
//! environment, flags), each value is checked even when a stronger source overrides it, and the first
//! fault ends the start: nothing is ignored in silence.
//!
//! Parsing touches nothing: arguments, variables and the reader of the file are parameters, so that
//! tests and fuzzers reach every line.

mod address;
mod command_line;
mod environment;
mod error;
mod file;
mod mesh;
mod profile;
mod quantity;
mod setting;
mod source;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nexusd_core::Limits;
use nexusd_core::io::listener::UnixAddress;
use nexusd_core::limits::SHARDS_MAX;

pub use error::ConfigError;
use error::Origin;
pub use mesh::{ClusterSecret, DiscoveryMode, InterfaceChoice, PeerRetry};
pub use profile::Profile;
pub use quantity::Thousandths;
use quantity::{show_duration, show_size};
pub use source::{Source, Sources};

/// The default of `--mcast-addr`.
const MULTICAST_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 42, 1);

/// Everything a node is started with. [`Config::default`] holds the documented defaults.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Name of the cluster (`--cluster`).
    pub cluster: String,
    /// Addresses to listen on for applications and other nodes (`--bind`); at least one, none of them
    /// twice.
    pub bind: Vec<IpAddr>,
    /// TCP port for applications, the same on all addresses; 0 takes a free one (`--app-port`).
    pub app_port: u16,
    /// TCP port for links to other nodes and UDP port for their beacons, the same on all addresses; 0
    /// takes a free one (`--mesh-port`).
    pub mesh_port: u16,
    /// How other nodes are found, if at all (`--discovery`).
    pub discovery: DiscoveryMode,
    /// What only nodes of the cluster know (`--cluster-key`); `None` admits every node.
    pub cluster_key: Option<ClusterSecret>,
    /// Where other nodes reach this one (`--advertise`); `None` is where its beacons come from.
    pub advertise: Option<IpAddr>,
    /// Interfaces for beacons (`--interface`); none is all that are suitable.
    pub interfaces: Vec<InterfaceChoice>,
    /// Multicast groups for beacons, at most one of each family (`--mcast-addr`).
    pub multicast_groups: Vec<IpAddr>,
    /// UDP port of the multicast groups (`--mcast-port`).
    pub multicast_port: u16,
    /// Other nodes that should be found (`--expected-peers`).
    pub expected_peers: usize,
    /// Links to other nodes beyond which none is dialled (`--max-links`).
    pub links_max: usize,
    /// Nodes to find the cluster through, as `host:port` (`--peers`).
    pub peers: Vec<String>,
    /// How those are tried until they are there (`--peer-retry-…`).
    pub peer_retry: PeerRetry,
    /// The unix socket for applications (`--unix-socket`).
    pub unix_socket: UnixSocket,
    /// Whose defaults `limits` began with (`--profile`); nothing else depends on it.
    pub profile: Profile,
    /// Bounds of the data plane.
    pub limits: Limits,
    /// How the shards talk to the kernel (`--io`).
    pub io: IoEngine,
    /// Number of shards (`--shards`); `None` is what [`Config::shard_count`] finds.
    pub shards: Option<usize>,
    /// The CPU the first shard stays on, each further one on the next (`--pin`); `None` leaves it to
    /// the kernel.
    pub pin: Option<usize>,
    /// Microseconds a shard looks for work before it sleeps (`--spin-us`).
    pub spin_us: u32,
    /// TCP port for the JSON interface and the signs of life, on all addresses (`--health-port`).
    pub health_port: HttpPort,
    /// TCP port for metrics (`--metrics-port`), …
    pub metrics_port: HttpPort,
    /// … unless there are none (`--metrics-enabled`), …
    pub metrics_enabled: bool,
    /// … their path (`--metrics-path`), …
    pub metrics_path: String,
    /// … and for how long a page is served before it is made anew (`--metrics-update-interval`).
    pub metrics_update_interval: Duration,
    /// Time to flush subscribers on the way out (`--drain-timeout`).
    pub drain_timeout: Duration,
    /// What is logged (`--log-level`).
    pub log_level: LogLevel,
    /// How it is logged (`--log-format`).
    pub log_format: LogFormat,
    /// Where the values come from; nothing depends on it.
    pub sources: Sources,
}

/// A port of the daemon's own that speaks HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpPort {
    /// There is none.
    Off,
    /// This one; 0 takes a free one.
    At(u16),
}

/// The unix socket beside the TCP port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UnixSocket {
    /// The abstract name `@nexusd/<app-port>`, which clients on the same host try first.
    Auto,
    /// No unix socket.
    None,
    /// This one.
    At(UnixAddress),
}

/// How a shard talks to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoEngine {
    /// io_uring; where the kernel refuses it, epoll.
    Auto,
    /// io_uring, or no start.
    Uring,
    /// epoll, which every kernel has.
    Epoll,
}

/// The least important event that is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What makes the daemon fail.
    Error,
    /// What an operator should look at.
    Warn,
    /// Start, stop and changes of state.
    Info,
    /// Connections and decisions.
    Debug,
    /// Everything.
    Trace,
}

/// The form of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What a command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Invocation {
    /// Run a node.
    Run(Box<Config>),
    /// Print this text (`--help`, `--version`) and end with success.
    Print(String),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: "default".to_owned(),
            bind: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            app_port: 5672,
            mesh_port: 5671,
            discovery: DiscoveryMode::Multicast,
            cluster_key: None,
            advertise: None,
            interfaces: Vec::new(),
            multicast_groups: vec![IpAddr::V4(MULTICAST_GROUP)],
            multicast_port: 5670,
            expected_peers: 0,
            links_max: nexusd_discovery::limits::LINKS_MAX,
            peers: Vec::new(),
            peer_retry: PeerRetry::default(),
            unix_socket: UnixSocket::Auto,
            profile: Profile::Medium,
            limits: Limits::default(),
            io: IoEngine::Auto,
            shards: None,
            pin: None,
            spin_us: 0,
            health_port: HttpPort::At(8080),
            metrics_port: HttpPort::At(9090),
            metrics_enabled: true,
            metrics_path: "/metrics".to_owned(),
            metrics_update_interval: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            sources: Sources::default(),
        }
    }
}

/// Settings that can change while a node runs. Those of [`Limits`] are what [`Limits::take_on`] takes.
const RELOADABLE: [&str; 12] = [
    "log-level",
    "drain-timeout",
    "max-topics",
    "max-connections-per-source",
    "accept-rate-per-source",
    "publish-rate-per-source",
    "subscriber-queue-limit",
    "subscriber-queue-bytes",
    "backpressure-policy",
    "block-timeout-ms",
    "default-message-ttl",
    "ttl-reaper-interval",
];

impl Config {
    /// The configuration that these sources together ask for.
    ///
    /// `args` begins with the program's name. Of `environment` only variables that begin with
    /// `NEXUSD_` matter. `read_file` is called with the path that `--config` or `NEXUSD_CONFIG` names,
    /// and with those of secrets.
    pub fn from_sources(
        args: impl IntoIterator<Item = OsString>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        mut read_file: impl FnMut(&Path) -> io::Result<String>,
    ) -> Result<Invocation, ConfigError> {
        let mut flags = match command_line::parse(args)? {
            command_line::Parsed::Flags(flags) => flags,
            command_line::Parsed::Print(text) => return Ok(Invocation::Print(text)),
        };
        let mut variables = environment::parse(environment)?;

        let mut values = Vec::new();
        let mut read_file = |origin: &Origin, path: &Path| {
            read_file(path).map_err(|error| ConfigError::UnreadableFile {
                origin: origin.clone(),
                path: path.to_owned(),
                reason: error.to_string(),
            })
        };
        if let Some((origin, path)) = flags.config_file.or(variables.config_file) {
            let path = PathBuf::from(path);
            let text = read_file(&origin, &path)?;
            values.append(&mut file::parse(&path, &text)?);
        }
        values.append(&mut variables.values);
        values.append(&mut flags.values);
        for given in values.iter_mut().filter(|given| given.setting.is_secret()) {
            if let Some(path) = given.value.strip_prefix('@') {
                let text = read_file(&given.origin, Path::new(path))?;
                // Editors end a file with a line's end.
                given.value = text.trim_end_matches(['\n', '\r']).to_owned();
            }
        }
        // The strongest source's profile. If it is none, that is found when its turn comes below.
        let profile = values.iter().rfind(|given| given.setting.name == "profile");
        let profile = profile.and_then(|given| Profile::named(&given.value));
        let mut config = Self::of_profile(profile.unwrap_or(Profile::Medium))?;
        let sources = Sources::of(&values);
        config.apply(values)?;
        config.sources = sources;
        config.check()?;
        Ok(Invocation::Run(Box::new(config)))
    }

    /// Checks every value, and what no value can be blamed for alone. A configuration made of
    /// sources has passed; [`crate::Node::start`] checks those made in code.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut scratch = self.clone();
        // A secret is not shown, and there is no bad one.
        let shown = setting::SETTINGS.iter().filter(|setting| !setting.is_secret());
        scratch.apply(shown.map(|setting| Given {
            setting,
            origin: Origin::flag(setting.name),
            value: (setting.show)(self),
        }))?;
        let shards = self.shards.unwrap_or(1);
        if self.shards_by_memory() < shards {
            let each =
                if shards > 1 { format!(" for each of {shards} shards") } else { String::new() };
            let sentence = format!(
                "--memory-limit {} is too small for --max-payload {}: it must be at least twice as \
                 large{each}",
                show_size(self.limits.memory_bytes as u64),
                show_size(u64::from(self.limits.payload_bytes)),
            );
            return Err(ConfigError::Conflict { sentence });
        }
        self.check_ports().map_err(|sentence| ConfigError::Conflict { sentence })?;
        self.check_mesh().map_err(|sentence| ConfigError::Conflict { sentence })
    }

    fn check_ports(&self) -> Result<(), String> {
        let http = |port| match port {
            HttpPort::At(port) => port,
            HttpPort::Off => 0,
        };
        let is_meshed = self.discovery != DiscoveryMode::Off;
        let ports = [
            ("--mesh-port", if is_meshed { self.mesh_port } else { 0 }),
            ("--app-port", self.app_port),
            ("--health-port", http(self.health_port)),
            ("--metrics-port", if self.metrics_enabled { http(self.metrics_port) } else { 0 }),
        ];
        for (at, (name, port)) in ports.iter().enumerate() {
            if let Some((other, _)) = ports[at + 1..].iter().find(|(_, other)| other == port)
                && *port != 0
            {
                return Err(format!("{name} and {other} are both {port}; they must differ"));
            }
        }
        Ok(())
    }

    fn check_mesh(&self) -> Result<(), String> {
        let PeerRetry { interval, interval_max, .. } = self.peer_retry;
        if interval > interval_max {
            return Err(format!(
                "--peer-retry-interval {} is longer than --peer-retry-max-interval {}",
                show_duration(interval),
                show_duration(interval_max),
            ));
        }
        if self.discovery == DiscoveryMode::Off || self.mesh_port == 0 {
            return Ok(());
        }
        if self.discovery == DiscoveryMode::Multicast && self.mesh_port == self.multicast_port {
            return Err(format!(
                "--mesh-port and --mcast-port are both {}; they must differ",
                self.mesh_port
            ));
        }
        Ok(())
    }

    /// How many shards the node has: as many as asked for, or one for each CPU that this process may
    /// use and the memory suffices for.
    pub fn shard_count(&self) -> usize {
        self.shards.unwrap_or_else(|| {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            cpus.min(self.shards_by_memory()).clamp(1, SHARDS_MAX)
        })
    }

    /// The most shards that the memory suffices for: with less for each, one large message would push
    /// everything else out of its log.
    fn shards_by_memory(&self) -> usize {
        self.limits.memory_bytes / (self.limits.payload_bytes as usize * 2).max(1)
    }

    /// Whether a setting can change while the node runs.
    pub fn is_reloadable(name: &str) -> bool {
        RELOADABLE.contains(&name)
    }

    /// Takes on those settings of another configuration that can change while the node runs; the names of those
    /// that did, and of those that differ and cannot.
    pub(crate) fn take_on(&mut self, new: &Self) -> (Vec<&'static str>, Vec<&'static str>) {
        let (mut applied, mut need_restart) = (Vec::new(), Vec::new());
        // Half of a profile would be none.
        let is_of_profile = |name: &str| {
            self.profile != new.profile && new.sources.of_setting(name) == Source::Default
        };
        let can_change: Vec<_> =
            RELOADABLE.into_iter().filter(|name| !is_of_profile(name)).collect();
        for setting in setting::SETTINGS {
            let value = (setting.show)(new);
            let is_changed = match setting.name {
                // Its value is not shown.
                setting::CLUSTER_KEY => self.cluster_key != new.cluster_key,
                _ => value != (setting.show)(self),
            };
            if !is_changed {
                continue;
            }
            // What is shown can be read.
            if can_change.contains(&setting.name) && (setting.read)(self, &value).is_ok() {
                self.sources.take_on(setting.name, &new.sources);
                applied.push(setting.name);
            } else {
                need_restart.push(setting.name);
            }
        }
        (applied, need_restart)
    }

    /// All settings by their flags' names, as they could be given in a source. Of a secret it says only
    /// whether it is set.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, String)> {
        setting::SETTINGS.iter().map(|setting| (setting.name, (setting.show)(self)))
    }

    fn apply(&mut self, values: impl IntoIterator<Item = Given>) -> Result<(), ConfigError> {
        for given in values {
            let Given { setting, origin, value } = given;
            (setting.read)(self, &value)
                .map_err(|reason| ConfigError::bad_value(setting, origin, value, reason))?;
        }
        Ok(())
    }
}

/// One value that a source gives for a setting.
#[derive(Debug)]
struct Given {
    setting: &'static setting::Setting,
    origin: Origin,
    value: String,
}

impl LogLevel {
    /// The level of this name.
    pub fn named(name: &str) -> Option<Self> {
        let levels = [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
        levels.into_iter().find(|level| level.to_string() == name)
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

#[cfg(test)]
mod manual;
#[cfg(test)]
mod tests;
