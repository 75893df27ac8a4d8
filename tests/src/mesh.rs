//! What the nodes of one test have in common, so that they find each other and nobody else.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::daemon::Daemon;
use crate::soon;

/// Meshes of this process so far.
static MESHES: AtomicU32 = AtomicU32::new(0);

/// A mesh on the loopback interface: a cluster and a port for multicast of its own.
#[derive(Debug)]
pub struct Mesh {
    cluster: String,
    port: String,
}

impl Mesh {
    /// One without nodes.
    #[expect(clippy::new_without_default, reason = "no two are alike")]
    pub fn new() -> Self {
        // Another mesh may get the port as well; that is what the cluster's name is for.
        let free = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        let port = free.local_addr().expect("bound").port();
        let number = MESHES.fetch_add(1, Ordering::Relaxed);
        let cluster = format!("tests-{}-{number}", std::process::id());
        Self { cluster, port: port.to_string() }
    }

    /// Its nodes' `--cluster`.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Its nodes' `--mcast-port`.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// A node that looks for others by multicast.
    pub fn node(&self) -> Daemon {
        self.node_with(&[])
    }

    /// The same with further flags.
    pub fn node_with(&self, flags: &[&str]) -> Daemon {
        let mut all = vec!["--cluster", &self.cluster, "--mcast-port", &self.port];
        all.extend(flags);
        if !flags.contains(&"--mesh-port") {
            all.extend(["--mesh-port", "0"]);
        }
        Daemon::start_node(&all)
    }

    /// A node on a free port that knows nobody but whoever may be at these addresses.
    pub fn node_with_seeds(&self, seeds: &[SocketAddr]) -> Daemon {
        let seeds: Vec<String> = seeds.iter().map(SocketAddr::to_string).collect();
        let seeds = seeds.join(",");
        let mut flags = vec!["--discovery", "static", "--cluster", &self.cluster];
        flags.extend(["--mesh-port", "0"]);
        if !seeds.is_empty() {
            flags.extend(["--peers", &seeds]);
        }
        Daemon::start_node(&flags)
    }

    /// A node in the place of one that has ended.
    pub fn node_again(&self, port: u16) -> Daemon {
        // The kernel takes a moment to end what a killed process had in flight on its ring.
        soon("the port is free", || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
        self.node_with(&["--mesh-port", &port.to_string()])
    }
}
