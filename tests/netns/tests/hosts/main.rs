//! Daemons on several hosts, and what networks do to them.
//!
//! Each test has a network of its own, so all of them run at the same time.

mod losses;
mod meeting;
mod netsplits;
mod nodes;
mod releases;
mod restarts;

use nexusd_netns::Meets as _;
use nexusd_tests::{Daemon, note};

/// What a log says of a node that has come, of one that is not heard, and of one that is gone.
const JOINED: &str = " joined";
const SUSPECTED: &str = "is not heard; messages for it wait";
const TRUSTED: &str = "is heard again";
const SILENT: &str = "left: its link was silent for too long";

/// Waits until each node is linked to all others.
fn all_linked(nodes: &[Daemon]) {
    for node in nodes {
        node.wait_for_line(JOINED, nodes.len() - 1);
    }
}

/// Waits until messages of a node to a topic go to so many subscriptions and nodes.
fn reaches(node: &Daemon, topic: &str, delivered: u32) -> std::time::Duration {
    node.meet().publish_until_delivered(topic, delivered)
}

/// Says what a test measured, under its name.
fn measured(what: &str) {
    let thread = std::thread::current();
    note(&format!("{}: {what}", thread.name().unwrap_or_default()));
}
