//! The mesh thread: runs discovery, which finds other nodes and decides which links there are.
//!
//! `nexusd_discovery` decides and does nothing; this thread does what it says: it owns the sockets for
//! beacons (`beacon_sockets.rs`), dials (`dialler.rs`), looks names up (`resolver.rs`) and speaks to the
//! links on the shards (`links.rs`). It waits in one place, poll(2) in `event_loop.rs`, is never on the
//! path of a message, and never makes a shard wait. A node on its own has no such thread.

mod beacon_sockets;
mod dialler;
mod event_loop;
mod expected_peers;
mod faults;
mod interfaces;
mod links;
mod multicast;
mod picture;
mod reports;
mod resolver;
mod status;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nexusd_core::MeshConfig as Introduction;
use nexusd_core::io::clock;
use nexusd_discovery::{Discovery, Retry};
use nexusd_wire::NodeId;

use crate::config::{ClusterSecret, Config, DiscoveryMode, PeerRetry, Thousandths};
use crate::error::{StartError, StopError};
use crate::panic_hook;
use beacon_sockets::BeaconSockets;
use event_loop::EventLoop;
use interfaces::Wanted;
pub(crate) use links::{Links, Shards, link_event};
pub(crate) use picture::{MeshPicture, PeerPicture, Viewer};
pub(crate) use reports::Reports;
pub(crate) use status::SharedStatus;

const NAME: &str = "mesh";

/// What the thread is made from, beside the node's settings.
pub(crate) struct MeshThreadConfig<L> {
    pub(crate) node: NodeId,
    pub(crate) introduction: Introduction,
    /// For beacons to this node alone, one for each address of `--bind`.
    pub(crate) beacons: Vec<UdpSocket>,
    /// What chance is made of.
    pub(crate) seed: u64,
    pub(crate) reports: Arc<Reports>,
    pub(crate) links: L,
    /// Where the statistics look.
    pub(crate) status: SharedStatus,
}

/// What a node that starts now, and takes links and applications at these addresses, says of itself to
/// others: the same in its beacons and on its links.
pub(crate) fn introduction(
    settings: &Config,
    links: &[SocketAddr],
    apps: &[SocketAddr],
) -> Introduction {
    // Where only one address is listened on, nobody has to guess.
    let only = match settings.bind[..] {
        [only] if !only.is_unspecified() => Some(only),
        _ => None,
    };
    Introduction {
        start_us: clock::now().wall_us,
        address: settings.advertise.or(only),
        mesh_port: links.first().map_or(settings.mesh_port, SocketAddr::port),
        app_port: apps.first().map_or(settings.app_port, SocketAddr::port),
        is_on: settings.discovery != DiscoveryMode::Off,
        key: settings.cluster_key.as_ref().map(ClusterSecret::key),
    }
}

/// A running mesh thread.
#[derive(Debug)]
pub(crate) struct MeshThread {
    reports: Arc<Reports>,
    thread: JoinHandle<()>,
}

impl MeshThread {
    /// Joins the multicast groups and starts the thread.
    pub(crate) fn start<L: Links>(
        settings: &Config,
        config: MeshThreadConfig<L>,
    ) -> Result<Self, StartError> {
        let is_multicast = settings.discovery == DiscoveryMode::Multicast;
        let groups = is_multicast.then(|| {
            let wanted = Wanted {
                groups: settings.multicast_groups.clone(),
                bind: settings.bind.clone(),
                interfaces: settings.interfaces.clone(),
            };
            (wanted, settings.multicast_port)
        });
        let beacons = BeaconSockets::new(config.beacons, groups)?;
        let Introduction { start_us, address, mesh_port, app_port, key, is_on: _ } =
            config.introduction;
        let discovery = Discovery::new(nexusd_discovery::Config {
            node: config.node,
            start_us,
            cluster: settings.cluster.clone(),
            key,
            mesh_address: address,
            mesh_port,
            app_port,
            is_multicast,
            seeds: settings.peers.clone(),
            retry: retry(&settings.peer_retry),
            links_max: settings.links_max,
            seed: config.seed,
        });
        let reports = Arc::clone(&config.reports);
        let event_loop = EventLoop::new(
            discovery,
            config.reports,
            beacons,
            config.links,
            config.status,
            settings.expected_peers as u64,
        );
        let thread = thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || event_loop.run())
            .map_err(StartError::system("a thread"))?;
        Ok(Self { reports, thread })
    }

    /// Ends the thread and waits for that.
    pub(crate) fn stop(self) -> Result<(), StopError> {
        self.reports.on_end();
        self.thread.join().map_err(|panic| StopError::Panicked {
            thread: NAME.to_owned(),
            reason: panic_hook::reason(&*panic),
        })
    }
}

fn retry(retry: &PeerRetry) -> Retry {
    let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let fraction = |Thousandths(thousandths)| f64::from(thousandths) / 1_000.0;
    Retry {
        count: retry.count,
        interval_us: us(retry.interval),
        interval_max_us: us(retry.interval_max),
        factor: fraction(retry.backoff_factor),
        jitter: fraction(retry.jitter),
    }
}

#[cfg(test)]
mod tests;
