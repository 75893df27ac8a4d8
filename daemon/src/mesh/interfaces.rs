//! The interfaces of this host, and which of them beacons go over.
//!
//! A path is one multicast group on one interface. Which paths there are is decided here from what the
//! kernel lists and the operator asks for; `beacon_sockets.rs` opens them.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use getifaddrs::InterfaceFlags;

use crate::config::InterfaceChoice;

/// Paths at a time: hosts with more interfaces than that have them for containers.
pub(super) const PATHS_MAX: usize = 64;

/// An interface that is up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) is_loopback: bool,
    /// It says that it can multicast. The loopback interface can, and does not say so.
    pub(super) is_multicast: bool,
    pub(super) addresses: Vec<IpAddr>,
}

/// The interfaces that are up, in the kernel's order.
pub(super) fn interfaces() -> io::Result<Vec<Interface>> {
    let mut interfaces: Vec<Interface> = Vec::new();
    for entry in getifaddrs::getifaddrs()? {
        let (Some(index), Some(address)) = (entry.index, entry.address.ip_addr()) else {
            continue;
        };
        if !entry.flags.contains(InterfaceFlags::UP) {
            continue;
        }
        match interfaces.iter_mut().find(|interface| interface.index == index) {
            Some(interface) => interface.addresses.push(address),
            None => interfaces.push(Interface {
                name: entry.name,
                index,
                is_loopback: entry.flags.contains(InterfaceFlags::LOOPBACK),
                is_multicast: entry.flags.contains(InterfaceFlags::MULTICAST),
                addresses: vec![address],
            }),
        }
    }
    Ok(interfaces)
}

/// A multicast group on an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Path {
    pub(super) group: IpAddr,
    pub(super) interface: String,
    pub(super) index: u32,
    /// The address beacons come from; of IPv6 the kernel chooses one that reaches as far as the group.
    pub(super) source: IpAddr,
    pub(super) is_loopback: bool,
    /// Beacons are sent on it, not only received.
    pub(super) speaks: bool,
}

/// What the operator asks for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// `--mcast-addr`
    pub(super) groups: Vec<IpAddr>,
    /// `--bind`
    pub(super) bind: Vec<IpAddr>,
    /// `--interface`
    pub(super) interfaces: Vec<InterfaceChoice>,
}

impl Wanted {
    /// The paths over these interfaces.
    ///
    /// The loopback interface hears always, so that a node that only this host reaches is found. It
    /// speaks where there is no other, or when it was asked for: a node that other hosts reach must not
    /// become known by an address that means something else there.
    pub(super) fn paths(&self, interfaces: &[Interface]) -> Vec<Path> {
        let mut paths: Vec<Path> = self
            .groups
            .iter()
            .flat_map(|group| {
                interfaces.iter().filter_map(|interface| self.path(*group, interface))
            })
            .collect();
        if paths.iter().all(|path| path.is_loopback) {
            paths.iter_mut().for_each(|path| path.speaks = true);
        }
        paths
    }

    fn path(&self, group: IpAddr, interface: &Interface) -> Option<Path> {
        let is_chosen = !self.interfaces.is_empty();
        let suits = |address: &&IpAddr| {
            address.is_ipv4() == group.is_ipv4()
                && self.is_bound(**address)
                && (!is_chosen || self.chooses(&interface.name, **address))
        };
        let source = *interface.addresses.iter().find(suits)?;
        let is_suitable = interface.is_multicast || interface.is_loopback || is_chosen;
        is_suitable.then(|| Path {
            group,
            interface: interface.name.clone(),
            index: interface.index,
            source,
            is_loopback: interface.is_loopback,
            speaks: is_chosen || !interface.is_loopback,
        })
    }

    /// Whether links to that address of this host are accepted.
    fn is_bound(&self, address: IpAddr) -> bool {
        self.bind.iter().any(|bind| {
            *bind == address || (bind.is_unspecified() && bind.is_ipv4() == address.is_ipv4())
        })
    }

    fn chooses(&self, name: &str, address: IpAddr) -> bool {
        self.interfaces.iter().any(|choice| match choice {
            InterfaceChoice::Name(wanted) => wanted == name,
            InterfaceChoice::Address(wanted) => *wanted == address,
        })
    }

    /// What was asked for and is not there.
    pub(super) fn missing(&self, interfaces: &[Interface]) -> Vec<String> {
        let is_there = |choice: &&InterfaceChoice| {
            interfaces.iter().any(|interface| match choice {
                InterfaceChoice::Name(name) => *name == interface.name,
                InterfaceChoice::Address(address) => interface.addresses.contains(address),
            })
        };
        let missing = self.interfaces.iter().filter(|choice| !is_there(choice));
        missing.map(ToString::to_string).collect()
    }
}

impl Path {
    /// The address that beacons come from, if it can be chosen.
    pub(super) fn source_v4(&self) -> Option<Ipv4Addr> {
        match self.source {
            IpAddr::V4(source) => Some(source),
            IpAddr::V6(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "239.255.42.1";

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn interface(index: u32, name: &str, flags: &str, addresses: &[&str]) -> Interface {
        Interface {
            name: name.to_owned(),
            index,
            is_loopback: flags.contains("loopback"),
            is_multicast: flags.contains("multicast"),
            addresses: addresses.iter().map(|text| address(text)).collect(),
        }
    }

    fn host() -> Vec<Interface> {
        vec![
            interface(1, "lo", "loopback", &["127.0.0.1", "::1"]),
            interface(2, "eth0", "multicast", &["10.0.0.7", "10.0.0.8", "fe80::7"]),
            interface(3, "wg0", "", &["10.9.0.1"]),
            interface(4, "veth1", "multicast", &["fe80::9"]),
        ]
    }

    fn wanted(groups: &[&str], bind: &[&str], interfaces: &[&str]) -> Wanted {
        let choice = |text: &&str| match text.parse() {
            Ok(address) => InterfaceChoice::Address(address),
            Err(_) => InterfaceChoice::Name((*text).to_owned()),
        };
        Wanted {
            groups: groups.iter().map(|text| address(text)).collect(),
            bind: bind.iter().map(|text| address(text)).collect(),
            interfaces: interfaces.iter().map(choice).collect(),
        }
    }

    /// `interface source`, with a `!` where it speaks.
    fn paths(wanted: &Wanted, interfaces: &[Interface]) -> Vec<String> {
        let show = |path: &Path| {
            format!("{} {}{}", path.interface, path.source, if path.speaks { "!" } else { "" })
        };
        wanted.paths(interfaces).iter().map(show).collect()
    }

    #[test]
    fn all_that_can_multicast_are_taken_and_the_loopback_interface_only_hears() {
        let all = wanted(&[GROUP], &["0.0.0.0"], &[]);
        assert_eq!(paths(&all, &host()), ["lo 127.0.0.1", "eth0 10.0.0.7!"]);
        let both = wanted(&[GROUP, "ff02::7"], &["0.0.0.0", "::"], &[]);
        assert_eq!(
            paths(&both, &host()),
            ["lo 127.0.0.1", "eth0 10.0.0.7!", "lo ::1", "eth0 fe80::7!", "veth1 fe80::9!"]
        );
    }

    #[test]
    fn where_there_is_no_other_interface_the_loopback_interface_speaks() {
        let all = wanted(&[GROUP], &["0.0.0.0"], &[]);
        assert_eq!(paths(&all, &host()[..1]), ["lo 127.0.0.1!"]);
        assert!(paths(&all, &[]).is_empty());
    }

    #[test]
    fn beacons_come_from_where_links_are_accepted() {
        assert_eq!(paths(&wanted(&[GROUP], &["127.0.0.1"], &[]), &host()), ["lo 127.0.0.1!"]);
        assert_eq!(paths(&wanted(&[GROUP], &["10.0.0.8"], &[]), &host()), ["eth0 10.0.0.8!"]);
        assert!(paths(&wanted(&[GROUP], &["::"], &[]), &host()).is_empty());
    }

    #[test]
    fn those_that_are_named_are_taken_whatever_they_say_they_can() {
        let named = wanted(&[GROUP], &["0.0.0.0"], &["wg0", "10.0.0.8", "lo", "eth9"]);
        assert_eq!(paths(&named, &host()), ["lo 127.0.0.1!", "eth0 10.0.0.8!", "wg0 10.9.0.1!"]);
        assert_eq!(named.missing(&host()), ["eth9"]);
    }

    #[test]
    fn this_host_has_a_loopback_interface() {
        let interfaces = interfaces().expect("a list");
        let loopback = interfaces.iter().find(|interface| interface.is_loopback);
        assert!(loopback.is_some_and(|lo| lo.addresses.contains(&address("127.0.0.1"))));
    }
}
