//! Networks that lose some packets, and connections that are reset.

use std::time::{Duration, Instant};

use nexusd_netns::{Listener, Load, on_a_network};

use crate::{JOINED, all_linked, measured, reaches};

#[test]
fn nodes_find_each_other_though_every_other_beacon_is_lost_and_lost_beacons_kill_no_link() {
    on_a_network(4, |network| {
        network.break_by(&["ip protocol udp numgen random mod 100 < 50 drop"]);
        let begun = Instant::now();
        let nodes: Vec<_> = network.hosts().iter().map(|host| host.node(&[])).collect();
        all_linked(&nodes);
        measured(&format!(
            "4 nodes were linked in {:?}, half of all beacons lost",
            begun.elapsed()
        ));
        // From now on all of them are.
        network.break_by(&["ip protocol udp drop"]);
        let listener = Listener::start(&nodes[3], "t");
        reaches(&nodes[0], "t", 1);
        let load = Load::start(&nodes[0], "t", 1, 100);
        let silent = Instant::now();
        // Longer than a node that has no link is remembered.
        nexusd_netns::last_until(silent, Duration::from_secs(7));
        let published = load.finish();
        let account = listener.finish();
        assert!(account.received() >= published && account.gaps() == 0, "{account:?}");
        for node in &nodes {
            assert!(!node.log().contains(" left: "), "{}", node.log());
        }
    });
}

#[test]
fn a_link_that_loses_packets_delivers_all_in_order_and_nobody_is_taken_for_dead() {
    on_a_network(2, |network| {
        let nodes = [network.host(0).node(&[]), network.host(1).node(&[])];
        all_linked(&nodes);
        let listener = Listener::start(&nodes[1], "t");
        reaches(&nodes[0], "t", 1);
        let mut figures = Vec::new();
        let load = Load::start(&nodes[0], "t", 20, 200);
        for percent in [1, 5, 10] {
            let rule = format!("ip protocol tcp numgen random mod 100 < {percent} drop");
            network.break_by(&[&rule]);
            let (begun, before) = (Instant::now(), listener.received());
            nexusd_netns::last_until(begun, Duration::from_secs(3));
            let rate = (listener.received() - before) as f64 / begun.elapsed().as_secs_f64();
            figures.push(format!("{percent} %: {rate:.0}/s"));
        }
        network.heal();
        let published = load.finish();
        let account = listener.finish();
        measured(&format!("delivered at a loss of {}", figures.join(", ")));
        assert!(account.received() >= published, "{published}: {account:?}");
        assert_eq!((account.gaps(), account.missed()), (0, 0), "{account:?}");
        for node in &nodes {
            assert!(!node.log().contains(" left: "), "{}", node.log());
        }
    });
}

#[test]
fn connections_that_are_reset_again_and_again_lose_nothing_and_repeat_nothing() {
    on_a_network(2, |network| {
        let nodes = [network.host(0).node(&[]), network.host(1).node(&[])];
        all_linked(&nodes);
        let there = Listener::start(&nodes[1], "t/there");
        let here = Listener::start(&nodes[0], "t/here");
        reaches(&nodes[0], "t/there", 1);
        reaches(&nodes[1], "t/here", 1);
        let loads =
            [Load::start(&nodes[0], "t/there", 50, 300), Load::start(&nodes[1], "t/here", 50, 300)];
        let mut longest = Duration::ZERO;
        for round in 0..20 {
            there.wait_for(there.newest() + 500);
            // From either side in turn.
            let (from, to) = (network.host(round % 2), network.host(1 - round % 2));
            let reset = from.reset_connections_with(to);
            assert!(reset >= 1, "a link stands");
            let begun = Instant::now();
            let numbers = [loads[0].published(), loads[1].published()];
            there.wait_for(numbers[0] + 50);
            here.wait_for(numbers[1] + 50);
            longest = longest.max(begun.elapsed());
        }
        measured(&format!("20 resets under load, each mended in {longest:?} at most"));
        for (load, listener) in loads.into_iter().zip([there, here]) {
            let published = load.finish();
            let account = listener.finish();
            assert!(account.received() >= published, "{published}: {account:?}");
            assert_eq!((account.gaps(), account.missed()), (0, 0), "{account:?}");
        }
        for node in &nodes {
            assert_eq!(node.log().matches(JOINED).count(), 1, "{}", node.log());
        }
    });
}
