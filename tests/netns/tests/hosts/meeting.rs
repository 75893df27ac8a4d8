//! Nodes of several hosts find each other.

use std::time::Instant;

use nexusd_netns::{Listener, Load, Meets as _, on_a_network};

use crate::{JOINED, all_linked, measured};

#[test]
fn hosts_of_a_network_find_each_other_by_multicast_and_pass_messages_on() {
    on_a_network(3, |network| {
        let mut nodes = vec![network.host(0).node(&[]), network.host(1).node(&[])];
        all_linked(&nodes);
        let begun = Instant::now();
        nodes.push(network.host(2).node(&[]));
        all_linked(&nodes);
        measured(&format!("a third node was linked {:?} after its start", begun.elapsed()));
        for host in network.hosts() {
            let others = nodes
                .iter()
                .filter(|node| node.log().contains(&format!(" at {}:5671 joined", host.address())));
            assert_eq!(others.count(), 2, "known by the address that others reach");
        }
        let listeners = [Listener::start(&nodes[1], "t"), Listener::start(&nodes[2], "t")];
        nodes[0].meet().publish_until_delivered("t", 2);
        let load = Load::start(&nodes[0], "t", 200, 100);
        listeners[0].wait_for(10_000);
        let published = load.finish();
        for listener in listeners {
            let account = listener.finish();
            assert!(account.received() >= published, "{account:?}");
            assert_eq!((account.gaps(), account.missed()), (0, 0));
        }
    });
}

#[test]
fn a_seed_behind_a_firewall_that_lets_tcp_alone_pass_is_enough() {
    on_a_network(3, |network| {
        network.break_by(&["ip protocol udp drop"]);
        let seed = network.host(0).node(&["--discovery", "static"]);
        let peers = format!("{}:5671", network.host(0).address());
        let flags = ["--discovery", "static", "--peers", &peers];
        let begun = Instant::now();
        let nodes = [seed, network.host(1).node(&flags), network.host(2).node(&flags)];
        all_linked(&nodes);
        measured(&format!("3 nodes were linked by one seed in {:?}", begun.elapsed()));
        assert_eq!(nodes[1].log().matches(JOINED).count(), 2, "{}", nodes[1].log());
    });
}
