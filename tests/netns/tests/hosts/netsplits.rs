//! A network that falls into two, for a while.

use std::time::{Duration, Instant};

use nexusd_netns::{Listener, Load, last_until, on_a_network};

use crate::{JOINED, SILENT, SUSPECTED, TRUSTED, all_linked, measured, reaches};

/// Within this everything is as before once the network is whole.
const SOON_AFTER: Duration = Duration::from_secs(1);

#[test]
fn a_netsplit_of_three_seconds_loses_nothing_and_repeats_nothing() {
    on_a_network(2, |network| {
        let nodes = [network.host(0).node(&[]), network.host(1).node(&[])];
        all_linked(&nodes);
        let there = Listener::start(&nodes[1], "t/there");
        let here = Listener::start(&nodes[0], "t/here");
        reaches(&nodes[0], "t/there", 1);
        reaches(&nodes[1], "t/here", 1);
        let loads =
            [Load::start(&nodes[0], "t/there", 10, 200), Load::start(&nodes[1], "t/here", 10, 200)];
        there.wait_for(1_000);
        let begun = Instant::now();
        network.cut_off(network.host(1));
        nodes[0].wait_for_line(SUSPECTED, 1);
        nodes[1].wait_for_line(SUSPECTED, 1);
        let suspected = begun.elapsed();
        last_until(begun, Duration::from_secs(3));
        let numbers = [loads[0].published(), loads[1].published()];
        network.heal();
        let healed = Instant::now();
        there.wait_for(numbers[0]);
        here.wait_for(numbers[1]);
        let caught_up = healed.elapsed();
        measured(&format!("suspected after {suspected:?}, caught up {caught_up:?} after healing"));
        assert!(suspected < Duration::from_secs(2), "{suspected:?}");
        for (load, listener) in loads.into_iter().zip([there, here]) {
            let published = load.finish();
            let account = listener.finish();
            assert!(account.received() >= published, "{published}: {account:?}");
            assert_eq!((account.gaps(), account.missed()), (0, 0), "{account:?}");
        }
        for node in &nodes {
            assert_eq!(node.log().matches(JOINED).count(), 1, "{}", node.log());
            assert!(!node.log().contains(" left: "), "{}", node.log());
        }
        assert!(caught_up < 2 * SOON_AFTER, "{caught_up:?}");
    });
}

#[test]
fn netsplits_of_up_to_four_seconds_leave_the_link_alive_however_long_they_are() {
    on_a_network(2, |network| {
        let nodes = [network.host(0).node(&[]), network.host(1).node(&[])];
        all_linked(&nodes);
        let pairs =
            [(0, 1, "t/there"), (1, 0, "t/here")].map(|(from, to, topic): (usize, usize, _)| {
                let listener = Listener::start(&nodes[to], topic);
                reaches(&nodes[from], topic, 1);
                let load = Load::start(&nodes[from], topic, 10, 200);
                listener.wait_for(100);
                (load, listener)
            });
        // TCP tries again a second after the netsplit at the latest or, where the kernel cannot be told so,
        // after as long as it has lasted; before five seconds are over there has to be an answer.
        let longest = if kernel_tries_every_second() { 37 } else { 25 };
        let mut took = Vec::new();
        for tenths in [4, 11, 18, 25, 32, 37].into_iter().filter(|tenths| *tenths <= longest) {
            let begun = Instant::now();
            network.cut_off(network.host(1));
            last_until(begun, Duration::from_millis(tenths * 100));
            let numbers = pairs.each_ref().map(|(load, _)| load.published());
            network.heal();
            let healed = Instant::now();
            for ((_, listener), number) in pairs.iter().zip(numbers) {
                listener.wait_for(number);
            }
            took.push((tenths, healed.elapsed()));
        }
        measured(&format!("netsplits in 0.1 s, and the time to catch up behind: {took:?}"));
        for (load, listener) in pairs {
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

/// Whether TCP can be told to try at least once a second, as Linux 6.15 and later can.
fn kernel_tries_every_second() -> bool {
    std::fs::exists("/proc/sys/net/ipv4/tcp_rto_max_ms").unwrap_or(false)
}

#[test]
fn a_long_netsplit_is_told_and_the_mesh_is_whole_again_soon_after_it() {
    on_a_network(3, |network| {
        let nodes: Vec<_> = network.hosts().iter().map(|host| host.node(&[])).collect();
        all_linked(&nodes);
        let cut_off = Listener::start(&nodes[2], "t");
        let stays = Listener::start(&nodes[1], "t");
        reaches(&nodes[0], "t", 2);
        let load = Load::start(&nodes[0], "t", 10, 200);
        cut_off.wait_for(1_000);
        stays.wait_for(1_000);
        let begun = Instant::now();
        network.cut_off(network.host(2));
        for node in &nodes[..2] {
            node.wait_for_line(SUSPECTED, 1);
        }
        let suspected = begun.elapsed();
        for node in &nodes[..2] {
            node.wait_for_line(SILENT, 1);
        }
        nodes[2].wait_for_line(SILENT, 2);
        let dead = begun.elapsed();
        cut_off.wait_for_unknown_gaps(1);
        reaches(&nodes[0], "t", 1);
        last_until(begun, Duration::from_secs(8));
        network.heal();
        let healed = Instant::now();
        nodes[2].wait_for_line(JOINED, 4);
        let rejoined = healed.elapsed();
        let number = load.published();
        cut_off.wait_for(number + 1);
        let flows = healed.elapsed();
        measured(&format!(
            "suspected after {suspected:?}, dead after {dead:?}; rejoined {rejoined:?} and messages \
             flow {flows:?} after healing"
        ));
        assert!(suspected < Duration::from_secs(2), "{suspected:?}");
        assert!(dead > Duration::from_millis(4_200), "{dead:?}");
        assert!(dead < Duration::from_millis(6_500), "{dead:?}");
        let published = load.finish();
        let account = stays.finish();
        assert!(account.received() >= published, "{account:?}");
        // On its side nothing was lost; what the node that was cut off may have had for it nobody knows.
        assert_eq!((account.missed(), account.gaps()), (0, 1), "{account:?}");
        assert_eq!(account.unknown_gaps(), 1, "{account:?}");
        let account = cut_off.finish();
        assert!(account.unknown_gaps() >= 1 && account.received() < published, "{account:?}");
        assert!(!nodes[0].log().contains(TRUSTED), "{}", nodes[0].log());
        // The next beacon tells of it, which may be a second away.
        assert!(flows < 2 * SOON_AFTER, "{flows:?}");
    });
}

#[test]
fn without_multicast_nodes_find_each_other_again_behind_a_netsplit() {
    on_a_network(3, |network| {
        let seed = format!("{}:5671", network.host(0).address());
        let flags = ["--discovery", "static", "--peers", &seed];
        let nodes: Vec<_> = network.hosts().iter().map(|host| host.node(&flags)).collect();
        all_linked(&nodes);
        let begun = Instant::now();
        network.cut_off(network.host(2));
        nodes[2].wait_for_line(SILENT, 2);
        nodes[1].wait_for_line(SILENT, 1);
        last_until(begun, Duration::from_secs(8));
        network.heal();
        let healed = Instant::now();
        nodes[2].wait_for_line(JOINED, 4);
        let rejoined = healed.elapsed();
        measured(&format!("rejoined {rejoined:?} after healing"));
        assert!(rejoined < 3 * SOON_AFTER, "{rejoined:?}");
    });
}
