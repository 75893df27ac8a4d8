//! Looks names up on a thread of its own, since the system's resolver blocks, for half a minute if its
//! servers are gone.
//!
//! The thread begins with the first name and is left alone at the end: it may be stuck in the resolver.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use nexusd_discovery::SeedId;

use super::reports::Reports;

/// Names that wait to be looked up. Beyond that a look-up fails at once.
const WAITING_MAX: usize = 64;

/// A name that was looked up.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Resolution {
    pub(super) seed: SeedId,
    /// Its addresses, at least one; or why there are none.
    pub(super) result: Result<Vec<SocketAddr>, String>,
}

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Resolver {
    reports: Arc<Reports>,
    names: Option<SyncSender<(SeedId, String)>>,
}

impl Resolver {
    /// Answers go to `reports`.
    pub(super) fn new(reports: Arc<Reports>) -> Self {
        Self { reports, names: None }
    }

    /// Begins to look up `HOST:PORT`.
    pub(super) fn resolve(&mut self, seed: SeedId, name: String) {
        // Most are addresses, which need no thread.
        if let Ok(address) = name.parse() {
            return self.reports.on_resolution(Resolution { seed, result: Ok(vec![address]) });
        }
        if let Err(reason) = self.ask(seed, name) {
            self.reports.on_resolution(Resolution { seed, result: Err(reason) });
        }
    }

    fn ask(&mut self, seed: SeedId, name: String) -> Result<(), String> {
        if self.names.is_none() {
            let thread = start(Arc::clone(&self.reports));
            self.names = Some(thread.map_err(|error| format!("no thread to look it up: {error}"))?);
        }
        let names = self.names.as_ref().map(|names| names.try_send((seed, name)));
        match names {
            Some(Ok(())) => Ok(()),
            _ => Err("the system takes long to look names up, and many wait".to_owned()),
        }
    }
}

fn start(reports: Arc<Reports>) -> io::Result<SyncSender<(SeedId, String)>> {
    let (sender, names) = mpsc::sync_channel::<(SeedId, String)>(WAITING_MAX);
    thread::Builder::new().name("resolver".to_owned()).spawn(move || {
        for (seed, name) in names {
            reports.on_resolution(Resolution { seed, result: look_up(&name) });
        }
    })?;
    Ok(sender)
}

fn look_up(name: &str) -> Result<Vec<SocketAddr>, String> {
    let addresses = name.to_socket_addrs().map_err(|error| error.to_string())?;
    let mut distinct = Vec::new();
    for address in addresses {
        if !distinct.contains(&address) {
            distinct.push(address);
        }
    }
    if distinct.is_empty() { Err("the name has no address".to_owned()) } else { Ok(distinct) }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn names_are_looked_up_beside_the_caller() {
        let reports = Arc::new(Reports::new().expect("an eventfd"));
        let mut resolver = Resolver::new(Arc::clone(&reports));
        resolver.resolve(SeedId(7), "localhost:5671".to_owned());
        let resolution = reports.wait_for_resolution();
        assert_eq!(resolution.seed, SeedId(7));
        let addresses = resolution.result.expect("every host knows this name");
        assert!(addresses.contains(&(Ipv4Addr::LOCALHOST, 5671).into()), "{addresses:?}");
    }

    #[test]
    fn an_address_is_its_own_answer() {
        let reports = Arc::new(Reports::new().expect("an eventfd"));
        let mut resolver = Resolver::new(Arc::clone(&reports));
        resolver.resolve(SeedId(7), "[::1]:5671".to_owned());
        assert!(resolver.names.is_none(), "no thread for that");
        let addresses = reports.wait_for_resolution().result.expect("it is one");
        assert_eq!(addresses, ["[::1]:5671".parse().expect("an address")]);
    }

    #[test]
    fn a_name_that_does_not_exist_is_told_with_the_reason() {
        let error = look_up("no-such-host.invalid:5671").expect_err("RFC 2606 promises that");
        assert!(!error.is_empty());
    }
}
