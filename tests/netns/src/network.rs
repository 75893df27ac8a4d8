//! Hosts on a bridge, and the faults of networks.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use nexusd_tests::{Client, Daemon, Release};

/// A bridge with hosts at its ports. It is gone when the process is.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Host>,
}

/// A network namespace with one interface, on which a daemon has its usual ports.
#[derive(Clone, Debug)]
pub struct Host {
    number: u8,
}

impl Network {
    /// So many hosts, all of which reach each other.
    ///
    /// # Panics
    /// If the namespace it is called in has hosts already, or must not have any.
    pub(crate) fn new(hosts: u8) -> Self {
        let mut script = String::from(
            "ip link add bridge type bridge forward_delay 0\n\
             ip link set bridge up\n\
             mkdir -p /run/sockets\n",
        );
        let hosts: Vec<Host> = (1..=hosts).map(|number| Host { number }).collect();
        for host in &hosts {
            let (name, port, address) = (host.name(), host.port(), host.address());
            let _ = write!(
                script,
                "ip netns add {name}\n\
                 ip link add {port} type veth peer name eth0 netns {name}\n\
                 ip link set {port} master bridge up\n\
                 ip -n {name} link set lo up\n\
                 ip -n {name} address add {address}/24 dev eth0\n\
                 ip -n {name} link set eth0 up\n"
            );
        }
        run(Command::new("sh").args(["-ec", &script]));
        Self { hosts }
    }

    /// One of them, from 0.
    pub fn host(&self, at: usize) -> &Host {
        &self.hosts[at]
    }

    /// All of them.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Lets packets pass the bridge by these rules alone, in the language of nft's chains; `port1` is the
    /// first host's port. What they do not drop passes.
    pub fn break_by(&self, rules: &[&str]) {
        let rules = rules.join("\n");
        nft(&format!(
            "flush ruleset\n\
             table bridge faults {{\n\
               chain forward {{\n\
                 type filter hook forward priority 0; policy accept;\n\
                 {rules}\n\
               }}\n\
             }}\n"
        ));
    }

    /// Cuts a host off from all others: nothing comes or goes, and nobody is told.
    pub fn cut_off(&self, host: &Host) {
        let port = host.port();
        let (to, from) = (format!("oifname {port} drop"), format!("iifname {port} drop"));
        self.break_by(&[&to, &from]);
    }

    /// All packets pass again.
    pub fn heal(&self) {
        nft("flush ruleset\n");
    }
}

impl Host {
    fn name(&self) -> String {
        format!("host{}", self.number)
    }

    /// Its port of the bridge, as rules name it.
    pub fn port(&self) -> String {
        format!("port{}", self.number)
    }

    /// Its IPv4 address.
    pub fn address(&self) -> String {
        format!("10.77.0.{}", self.number)
    }

    /// Starts a daemon with the usual ports and these flags besides.
    pub fn node(&self, flags: &[&str]) -> Daemon {
        self.node_of(Release::This, flags)
    }

    /// The same of another release.
    pub fn node_of(&self, release: Release, flags: &[&str]) -> Daemon {
        let (name, socket) = (self.name(), format!("/run/sockets/{}", self.name()));
        let mut all = vec!["--unix-socket", &socket, "--log-level", "info"];
        all.extend(flags);
        Daemon::start_through(&["ip", "netns", "exec", &name], release, &all)
    }

    /// Ends the host's TCP connections with another one as a firewall in between does that lost its
    /// memory: both ends are reset. Returns how many there were.
    pub fn reset_connections_with(&self, other: &Host) -> usize {
        let (name, address) = (self.name(), other.address());
        let listed = run(Command::new("ip").args(["netns", "exec", &name]).args([
            "ss",
            "--no-header",
            "--kill",
            "--tcp",
            "dst",
            &address,
        ]));
        listed.lines().count()
    }

    /// Pulls its cable out, or puts it back: unlike [`Network::cut_off`] the host sees that.
    pub fn plug(&self, is_plugged: bool) {
        let state = if is_plugged { "up" } else { "down" };
        run(Command::new("ip").args(["link", "set", &self.port(), state]));
    }
}

/// A client of a host's daemon, by its unix socket, which is reached from everywhere.
pub trait Meets {
    /// Connects and is welcomed.
    fn meet(&self) -> Client;
}

impl Meets for Daemon {
    fn meet(&self) -> Client {
        Client::connect(&self.unix())
    }
}

fn nft(rules: &str) {
    let mut child =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(rules.as_bytes()).expect("nft reads");
    drop(stdin);
    let status = child.wait().expect("our child");
    assert!(status.success(), "nft: {status}\n{rules}");
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
