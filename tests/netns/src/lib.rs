//! What tests of several hosts are made of: a network of their own, real daemons on its hosts, and faults.
//!
//! [`on_a_network`] runs a test in namespaces that belong to it alone and vanish with its process, however
//! that ends. In there, a [`Network`] is a bridge with a [`Host`] at each of its ports: a network namespace
//! with one interface. Faults are made where they happen, in the bridge, so that both sides of them learn
//! as little as they do of a broken network.
//!
//! It takes `ip` (iproute2), `nft` (nftables) and `unshare` (util-linux), and root or a kernel that lets
//! everybody have namespaces. Where it cannot be, tests are skipped with the reason; where the environment
//! says `CI=true` they fail.
//!
//! Everything here panics when an expectation fails: it is called by tests alone.

mod isolation;
mod load;
mod network;

pub use isolation::{obstacle, on_a_network};
pub use load::{Listener, Load, last_until};
pub use network::{Host, Meets, Network};
