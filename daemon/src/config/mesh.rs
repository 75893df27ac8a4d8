//! What can be set about the mesh: how nodes find each other, and on which ways.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nexusd_wire::ClusterKey;

use super::quantity::{Thousandths, digits, read_duration_within};

/// Fewest bytes of a cluster's key: what a hundred bits take when written as letters and digits.
const KEY_BYTES_MIN: usize = 16;
/// Most bytes of a cluster's key.
const KEY_BYTES_MAX: usize = 4 << 10;
/// Most peers that can be named.
const PEERS_MAX: usize = 1_000;
/// Longest name of a host, in bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;
/// Longest name of an interface, in bytes: the kernel's `IFNAMSIZ` less a NUL.
const INTERFACE_BYTES_MAX: usize = 15;
/// Shortest and longest time between two attempts to reach a named peer.
const RETRY_INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_hours(1));

/// How nodes find each other (`--discovery`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiscoveryMode {
    /// By beacons to a multicast group, and through the peers that are named.
    Multicast,
    /// Through the peers that are named alone.
    Static,
    /// Not at all: a node on its own.
    Off,
}

/// An interface for beacons (`--interface`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InterfaceChoice {
    /// By its name.
    Name(String),
    /// The one that has this address.
    Address(IpAddr),
}

/// How long and how often a named peer that cannot be reached is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerRetry {
    /// Attempts before it is logged and tried at the longest interval (`--peer-retry-count`).
    pub count: u32,
    /// Time between the first two attempts (`--peer-retry-interval`).
    pub interval: Duration,
    /// Longest time between two attempts (`--peer-retry-max-interval`).
    pub interval_max: Duration,
    /// Each time between two attempts is this much longer than the one before, in thousandths
    /// (`--peer-retry-backoff-factor`).
    pub backoff_factor: Thousandths,
    /// Share of that time that is added or taken away at random, in thousandths
    /// (`--peer-retry-jitter`).
    pub jitter: Thousandths,
}

impl Default for PeerRetry {
    fn default() -> Self {
        Self {
            count: 10,
            interval: Duration::from_secs(2),
            interval_max: Duration::from_mins(1),
            backoff_factor: Thousandths(2_000),
            jitter: Thousandths(200),
        }
    }
}

/// The secret that the nodes of a cluster share (`--cluster-key`). Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret(String);

impl ClusterSecret {
    /// Takes a secret, or says what is wrong with it, as the rest of a sentence that begins with the
    /// value.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.len() < KEY_BYTES_MIN {
            return Err(format!(
                "is too short; it takes at least {KEY_BYTES_MIN} bytes that nobody can guess, such as \
                 what `openssl rand -hex 32` writes"
            ));
        }
        if text.len() > KEY_BYTES_MAX {
            return Err(format!("is too long; it takes at most {KEY_BYTES_MAX} bytes"));
        }
        Ok(Self(text.to_owned()))
    }

    /// What beacons are signed with.
    pub fn key(&self) -> ClusterKey {
        ClusterKey::new(self.0.as_bytes())
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KEY_IS_SET)
    }
}

/// What stands for a key where settings are shown.
pub(super) const KEY_IS_SET: &str = "set";

pub(super) fn read_discovery(text: &str) -> Result<DiscoveryMode, String> {
    match text {
        "multicast" => Ok(DiscoveryMode::Multicast),
        "static" => Ok(DiscoveryMode::Static),
        "off" => Ok(DiscoveryMode::Off),
        _ => Err("is not a way of discovery; choose multicast, static or off".to_owned()),
    }
}

pub(super) fn show_discovery(mode: DiscoveryMode) -> String {
    match mode {
        DiscoveryMode::Multicast => "multicast",
        DiscoveryMode::Static => "static",
        DiscoveryMode::Off => "off",
    }
    .to_owned()
}

pub(super) fn read_advertise(text: &str) -> Result<Option<IpAddr>, String> {
    if text == "auto" {
        return Ok(None);
    }
    let address: IpAddr =
        text.parse().map_err(|_| "is not an address; choose auto, or an IPv4 or IPv6 address")?;
    if address.is_unspecified() || address.is_multicast() {
        return Err("is not the address of one host".to_owned());
    }
    Ok(Some(address))
}

pub(super) fn read_interfaces(text: &str) -> Result<Vec<InterfaceChoice>, String> {
    if text == "all" {
        return Ok(Vec::new());
    }
    read_list(text, |part| {
        if let Ok(address) = part.parse() {
            return Ok(InterfaceChoice::Address(address));
        }
        let fits = (1..=INTERFACE_BYTES_MAX).contains(&part.len());
        if !fits || part.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            return Err("is not a list of interfaces; choose all, or names and addresses such as \
                        eth0,10.0.0.7"
                .to_owned());
        }
        Ok(InterfaceChoice::Name(part.to_owned()))
    })
}

pub(super) fn show_interfaces(interfaces: &[InterfaceChoice]) -> String {
    show_list(interfaces, "all")
}

impl fmt::Display for InterfaceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

pub(super) fn read_groups(text: &str) -> Result<Vec<IpAddr>, String> {
    let groups = read_list(text, |part| {
        let group = part.parse::<IpAddr>().ok().filter(IpAddr::is_multicast);
        group.ok_or_else(|| {
            "is not a multicast group; write one such as 239.255.42.1, or two such as \
             239.255.42.1,ff02::4e58:1"
                .to_owned()
        })
    })?;
    if groups.iter().filter(|group| group.is_ipv4()).count() > 1
        || groups.iter().filter(|group| group.is_ipv6()).count() > 1
    {
        return Err("names more than one group of IPv4 or of IPv6".to_owned());
    }
    Ok(groups)
}

pub(super) fn read_multicast_port(text: &str) -> Result<u16, String> {
    digits(text).and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0).ok_or_else(
        || "is not a port that nodes can share; it is a number from 1 to 65535".to_owned(),
    )
}

pub(super) fn read_peers(text: &str) -> Result<Vec<String>, String> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let peers = read_list(text, |part| {
        if is_host_and_port(part) {
            return Ok(part.to_owned());
        }
        Err("is not a list of peers; write host:port such as node-2:5671,10.0.0.7:5671, and \
             [fd00::7]:5671 for IPv6"
            .to_owned())
    })?;
    if peers.len() > PEERS_MAX {
        return Err(format!("names more than {PEERS_MAX} peers"));
    }
    Ok(peers)
}

fn is_host_and_port(text: &str) -> bool {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() != 0;
    }
    let is_port = |port| digits(port).is_some_and(|port| (1..=65_535).contains(&port));
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let of_a_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        (1..=HOST_BYTES_MAX).contains(&host.len()) && host.chars().all(of_a_name) && is_port(port)
    })
}

pub(super) fn show_peers(peers: &[String]) -> String {
    show_list(peers, "none")
}

pub(super) fn read_retry_interval(text: &str) -> Result<Duration, String> {
    read_duration_within(text, RETRY_INTERVALS.0..=RETRY_INTERVALS.1)
}

/// Reads parts separated by commas, none of them twice.
fn read_list<T: PartialEq>(
    text: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let mut list = Vec::new();
    for part in text.split(',').map(str::trim) {
        let item = read(part)?;
        if list.contains(&item) {
            return Err(format!("names {part} twice"));
        }
        list.push(item);
    }
    Ok(list)
}

/// Writes what [`read_list`] reads, or the word for nothing.
pub(super) fn show_list(list: &[impl ToString], nothing: &str) -> String {
    if list.is_empty() {
        return nothing.to_owned();
    }
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_by_anything() {
        let secret = ClusterSecret::new("correct horse battery").expect("a long one");
        assert_eq!(format!("{secret:?}"), "set");
        assert!(ClusterSecret::new("fifteen bytes..").is_err());
        assert!(ClusterSecret::new("sixteen bytes...").is_ok());
        assert!(ClusterSecret::new(&"x".repeat(KEY_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn peers_are_names_or_addresses_with_a_port() {
        for peer in
            ["node-2:5671", "a.b_c.example:1", "10.0.0.7:5671", "[fd00::7]:65535", "müller:9"]
        {
            assert_eq!(read_peers(peer), Ok(vec![peer.to_owned()]));
        }
        for bad in ["node-2", "node-2:", ":5671", "a:0", "a:65536", "fd00::7:5671", "a b:1", "a:1,"]
        {
            assert!(read_peers(bad).is_err(), "{bad}");
        }
        assert_eq!(read_peers("a:1, a:1"), Err("names a:1 twice".to_owned()));
        let many: Vec<_> = (0..=PEERS_MAX).map(|number| format!("n{number}:1")).collect();
        assert_eq!(read_peers(&many.join(",")), Err("names more than 1000 peers".to_owned()));
    }

    #[test]
    fn a_group_of_each_family_can_be_had() {
        let both = read_groups("239.255.42.1, ff02::4e58:1").expect("two groups");
        assert_eq!(show_list(&both, ""), "239.255.42.1,ff02::4e58:1");
        for bad in ["", "10.0.0.1", "239.0.0.1,239.0.0.2", "ff02::1,ff02::2", "239.0.0.1:5670"] {
            assert!(read_groups(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn interfaces_are_names_and_addresses() {
        let some = read_interfaces("eth0,fe80::1, 10.0.0.7").expect("three");
        assert_eq!(some[0], InterfaceChoice::Name("eth0".to_owned()));
        assert_eq!(show_interfaces(&some), "eth0,fe80::1,10.0.0.7");
        assert_eq!(read_interfaces("all"), Ok(Vec::new()));
    }
}
