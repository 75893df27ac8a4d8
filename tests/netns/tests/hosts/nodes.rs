//! Hosts and nodes that freeze, die or lose their cable.

use std::time::{Duration, Instant};

use nexusd_netns::{Listener, Load, last_until, on_a_network};

use crate::{JOINED, SILENT, SUSPECTED, all_linked, measured, reaches};

#[test]
fn a_host_that_freezes_is_dead_in_five_seconds_and_back_when_it_goes_on() {
    on_a_network(3, |network| {
        let nodes: Vec<_> = network.hosts().iter().map(|host| host.node(&[])).collect();
        all_linked(&nodes);
        let frozen = Listener::start(&nodes[2], "t");
        let other = Listener::start(&nodes[1], "t");
        reaches(&nodes[0], "t", 2);
        let load = Load::start(&nodes[0], "t", 10, 200);
        frozen.wait_for(500);
        let begun = Instant::now();
        nodes[2].freeze();
        network.cut_off(network.host(2));
        nodes[0].wait_for_line(SUSPECTED, 1);
        let suspected = begun.elapsed();
        nodes[0].wait_for_line(SILENT, 1);
        let dead = begun.elapsed();
        last_until(begun, Duration::from_secs(8));
        network.heal();
        nodes[2].thaw();
        let thawed = Instant::now();
        nodes[0].wait_for_line(JOINED, 3);
        let rejoined = thawed.elapsed();
        frozen.wait_for(load.published() + 1);
        let flows = thawed.elapsed();
        measured(&format!(
            "suspected after {suspected:?}, dead after {dead:?}; rejoined {rejoined:?} and messages \
             flow {flows:?} after it went on"
        ));
        assert!(suspected < Duration::from_secs(2), "{suspected:?}");
        assert!(dead > Duration::from_millis(4_200), "{dead:?}");
        assert!(dead < Duration::from_millis(6_500), "{dead:?}");
        assert!(flows < Duration::from_secs(2), "{flows:?}");
        frozen.wait_for_unknown_gaps(1);
        let published = load.finish();
        let account = other.finish();
        assert!(account.received() >= published && account.missed() == 0, "{account:?}");
        // What the frozen node may have had for it nobody knows.
        assert_eq!((account.gaps(), account.unknown_gaps()), (1, 1), "{account:?}");
        frozen.finish();
    });
}

#[test]
fn a_node_that_is_killed_is_given_up_at_once_and_its_next_start_is_linked_at_once() {
    on_a_network(3, |network| {
        let mut nodes: Vec<_> = network.hosts().iter().map(|host| host.node(&[])).collect();
        all_linked(&nodes);
        let mut longest = [Duration::ZERO; 2];
        for round in 1..=3 {
            let begun = Instant::now();
            nodes[2].kill();
            for node in &nodes[..2] {
                node.wait_for_line(" left: nobody listens there any more", round);
            }
            longest[0] = longest[0].max(begun.elapsed());
            nodes[2] = network.host(2).node(&[]);
            let begun = Instant::now();
            nodes[2].wait_for_line(JOINED, 2);
            longest[1] = longest[1].max(begun.elapsed());
        }
        let [gone, back] = longest;
        measured(&format!(
            "3 times: given up in {gone:?}, linked {back:?} after being ready, at most"
        ));
        // On a machine without CPU to spare the kernel takes seconds to end what a killed process had in
        // flight on its ring, and with that its sockets. That nobody listens is seen then, not by silence.
        assert!(gone < Duration::from_secs(5) && back < Duration::from_secs(1), "{longest:?}");
    });
}

#[test]
fn a_host_whose_cable_is_pulled_comes_back_with_it() {
    on_a_network(2, |network| {
        let nodes = [network.host(0).node(&[]), network.host(1).node(&[])];
        all_linked(&nodes);
        let listener = Listener::start(&nodes[1], "t");
        reaches(&nodes[0], "t", 1);
        let begun = Instant::now();
        network.host(1).plug(false);
        nodes[0].wait_for_line(SILENT, 1);
        nodes[1].wait_for_line(SILENT, 1);
        let dead = begun.elapsed();
        network.host(1).plug(true);
        let back = Instant::now();
        nodes[0].wait_for_line(JOINED, 2);
        nodes[1].wait_for_line(JOINED, 2);
        let rejoined = back.elapsed();
        measured(&format!("dead after {dead:?}, rejoined {rejoined:?} after it was put back"));
        reaches(&nodes[0], "t", 1);
        assert!(dead < Duration::from_millis(6_500), "{dead:?}");
        // The interfaces are looked at every three seconds, and beacons come every second.
        assert!(rejoined < Duration::from_secs(6), "{rejoined:?}");
        drop(listener);
    });
}
