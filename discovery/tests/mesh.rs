//! Many nodes in a network of virtual time: how they find each other, and what faults they get over.
//!
//! Each test prints its seeds; `MESH_SEED` takes another first one, `MESH_SEEDS` more of them where random
//! faults happen, `MESH_NODES` another number of nodes where there are a thousand.

#![allow(clippy::print_stdout, reason = "tests say their seed, and what they measure")]

#[path = "mesh/connection.rs"]
mod connection;
#[path = "mesh/host.rs"]
mod host;
#[path = "mesh/network.rs"]
mod network;

use nexusd_discovery::{Config, Departure, Notice};

use network::{Network, Weather};

const SECOND_US: u64 = 1_000_000;
const MS_US: u64 = 1_000;

fn number(variable: &str, otherwise: u64) -> u64 {
    let set = std::env::var(variable);
    set.map_or(otherwise, |text| text.parse().expect("a variable that is a number"))
}

fn first_seed() -> u64 {
    number("MESH_SEED", 1)
}

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    (first_seed()..).take(count as usize)
}

fn multicast() -> Config {
    Config::default()
}

/// All begin with the first host, whose name they have.
fn static_seed() -> Config {
    Config { is_multicast: false, seeds: vec!["nexusd-0:5671".into()], ..Config::default() }
}

fn lossy() -> Weather {
    Weather { datagram_loss: 0.01, segment_loss: 0.01, ..Weather::default() }
}

fn network(hosts: usize, config: Config, weather: Weather, seed: u64) -> Network {
    let mut network = Network::new(hosts, config, weather, seed);
    let first = network.hosts[0].address;
    network.names.insert("nexusd-0:5671".into(), vec![first]);
    network
}

/// One where everybody knows everybody.
fn converged(hosts: usize, config: Config, weather: Weather, seed: u64) -> Network {
    let mut network = network(hosts, config, weather, seed);
    network.start_all(50 * MS_US);
    network.run_until("all know all", 60 * SECOND_US, 50 * MS_US, Network::is_converged);
    network
}

/// Starts all hosts at once, prints how long it takes until all know all, and what it costs.
fn measure(what: &str, hosts: usize, config: Config, weather: Weather, seed: u64) -> u64 {
    let mut network = network(hosts, config, weather, seed);
    network.start_all(10 * MS_US);
    let took_us =
        network.run_until("all know all", 120 * SECOND_US, 10 * MS_US, Network::is_converged);
    println!("{what}: {hosts} nodes know each other after {} ms", took_us / 1_000);
    print_traffic("  until then, per node", &network, 1);
    for host in &mut network.hosts {
        host.traffic = Default::default();
    }
    network.run_for(10 * SECOND_US);
    assert!(network.is_converged());
    print_traffic("  from then on, per node and second", &network, 10);
    took_us
}

fn print_traffic(what: &str, network: &Network, parts: u64) {
    let most = |of: fn(&host::Traffic) -> u64| {
        network.hosts.iter().map(|host| of(&host.traffic)).max().unwrap_or(0)
    };
    let mean = |of: fn(&host::Traffic) -> u64| {
        let sum: u64 = network.hosts.iter().map(|host| of(&host.traffic)).sum();
        sum as f64 / network.hosts.len() as f64 / parts as f64
    };
    println!(
        "{what}: {:.1} datagrams of {:.0} B in all, {:.1} sends over links of {:.0} B in all, \
         {:.1} dials; at most {} dials taken in all, {} in 100 ms",
        mean(|it| it.datagrams),
        mean(|it| it.datagram_bytes),
        mean(|it| it.sends),
        mean(|it| it.send_bytes),
        mean(|it| it.dials),
        most(|it| it.dials_taken),
        most(|it| it.dials_taken_most),
    );
}

#[test]
fn ten_nodes_know_each_other_within_a_second_by_multicast() {
    for seed in seeds(20) {
        let took_us = measure("multicast", 10, multicast(), Weather::default(), seed);
        assert!(took_us < SECOND_US, "seed {seed}: {took_us} us");
    }
}

#[test]
fn ten_nodes_know_each_other_within_two_seconds_by_one_seed_with_losses() {
    for seed in seeds(20) {
        let took_us = measure("one seed", 10, static_seed(), lossy(), seed);
        assert!(took_us < 2 * SECOND_US, "seed {seed}: {took_us} us");
    }
}

#[test]
fn a_hundred_nodes_know_each_other_within_five_seconds() {
    for seed in seeds(3) {
        let took_us = measure("multicast", 100, multicast(), lossy(), seed);
        assert!(took_us < 5 * SECOND_US, "seed {seed}: {took_us} us");
        let took_us = measure("one seed", 100, static_seed(), lossy(), seed);
        assert!(took_us < 5 * SECOND_US, "seed {seed}: {took_us} us");
    }
}

#[test]
#[ignore = "takes minutes; run with --release"]
fn a_thousand_nodes_know_each_other_within_fifteen_seconds() {
    let (seed, nodes) = (first_seed(), number("MESH_NODES", 1_000) as usize);
    let took_us = measure("multicast", nodes, multicast(), lossy(), seed);
    assert!(took_us < 15 * SECOND_US, "seed {seed}: {took_us} us");
    let took_us = measure("one seed", nodes, static_seed(), lossy(), seed);
    assert!(took_us < 15 * SECOND_US, "seed {seed}: {took_us} us");
}

#[test]
fn a_node_that_joins_many_is_known_within_seconds_and_not_stormed() {
    for (what, config) in [("multicast", multicast()), ("one seed", static_seed())] {
        let mut network = network(100, config, lossy(), first_seed());
        for host in 0..99 {
            network.start(host);
        }
        network.run_for(20 * SECOND_US);
        assert!(network.is_converged());
        network.start(99);
        let took_us = network
            .run_until("it is known", 5 * SECOND_US, 10 * MS_US, |network| network.is_converged());
        let most = network.hosts[99].traffic.dials_taken_most;
        println!(
            "{what}: known to 99 after {} ms, dialled {most} times in 100 ms",
            took_us / 1_000
        );
        assert!(took_us < 3 * SECOND_US, "{took_us}");
    }
}

#[test]
fn what_a_node_wants_from_now_on_is_known_at_once() {
    let mut network = converged(10, multicast(), Weather::default(), first_seed());
    network.run_for(2 * SECOND_US);
    network.want(3, &["fresh/#"], true);
    let took_us = network.run_until("all know", SECOND_US, 100, |network| network.knows(7, 3));
    assert!(took_us < 2 * MS_US, "{took_us} us");
    network.run_for(MS_US);
    assert!(network.is_converged());
}

#[test]
fn many_changes_in_little_time_are_all_known_and_their_hash_is_computed_once_a_beacon() {
    let mut network = converged(10, multicast(), Weather::default(), first_seed());
    network.run_for(2 * SECOND_US);
    let before = network.daemon(3).discovery.counters();
    for round in 0..1_000 {
        let filter = format!("round/{round}");
        network.want(3, &[&filter], true);
        network.run_for(5 * MS_US);
        if round % 3 == 0 {
            network.want(3, &[&filter], false);
        }
    }
    network.run_until("all know", 2 * SECOND_US, 10 * MS_US, Network::is_converged);
    let after = network.daemon(3).discovery.counters();
    let hashes = after.hashes_computed - before.hashes_computed;
    assert!(hashes <= 7, "{hashes} hashes in 5 s");
    assert!(after.deltas_sent - before.deltas_sent <= 9 * 520, "told at most every 10 ms");
    let asked: u64 =
        network.daemons().map(|daemon| daemon.discovery.counters().states_requested).sum();
    assert_eq!(asked, 0, "nothing had to be repaired");
}

#[test]
fn a_hundred_thousand_filters_are_known_to_all() {
    let mut network = converged(10, multicast(), Weather::default(), first_seed());
    let filters: Vec<String> = (0..100_000).map(|n| format!("plant/{n}/sensor/#")).collect();
    let filters: Vec<&str> = filters.iter().map(|filter| &**filter).collect();
    network.want(0, &filters, true);
    network.run_until("all know", 5 * SECOND_US, 10 * MS_US, Network::is_converged);
    network.kill(5);
    network.run_for(100 * MS_US);
    network.start(5);
    network.run_until("it knows", 5 * SECOND_US, 10 * MS_US, Network::is_converged);
}

#[test]
fn lost_beacons_kill_no_link() {
    let mut network = converged(10, multicast(), Weather::default(), first_seed());
    network.weather.datagram_loss = 1.0;
    network.run_for(600 * SECOND_US);
    assert!(network.is_converged());
}

#[test]
fn a_killed_node_is_gone_at_once() {
    let mut network = converged(10, multicast(), lossy(), first_seed());
    let node = network.daemon(4).node;
    network.kill(4);
    let took_us = network.run_until("it is forgotten", 5 * SECOND_US, MS_US, |network| {
        network.daemons().all(|daemon| daemon.discovery.peer(node).is_none())
    });
    println!("forgotten by all after {} ms", took_us / 1_000);
    assert!(took_us < 2 * SECOND_US, "a refused dial tells: {took_us}");
    let told = network
        .was_told(0, |notice| matches!(notice, Notice::Left { node: it, .. } if *it == node));
    assert_eq!(told, 1);
}

#[test]
fn a_node_that_restarts_is_known_again_and_its_former_self_forgotten() {
    for config in [multicast(), static_seed()] {
        for restarted in [0, 4] {
            let mut network = converged(10, config.clone(), lossy(), first_seed());
            let node = network.daemon(restarted).node;
            network.kill(restarted);
            network.run_for(10 * MS_US);
            network.start(restarted);
            let took_us =
                network.run_until("all know all", 10 * SECOND_US, MS_US, Network::is_converged);
            println!("known again after {} ms", took_us / 1_000);
            assert!(took_us < 4 * SECOND_US, "{took_us}");
            assert!(network.daemons().all(|daemon| daemon.discovery.peer(node).is_none()));
        }
    }
}

#[test]
fn a_host_without_power_is_suspected_and_dead_after_five_seconds() {
    let mut network = converged(10, multicast(), Weather::default(), first_seed());
    let node = network.daemon(4).node;
    network.cut_power(4);
    network.run_for(2 * SECOND_US);
    let suspected = |notice: &Notice| matches!(notice, Notice::Suspected { .. });
    assert!((0..10).filter(|&host| host != 4).all(|host| network.was_told(host, suspected) == 1));
    network.run_for(2_900 * MS_US);
    assert!(network.daemons().all(|daemon| daemon.discovery.peer(node).is_some()));
    network.run_for(200 * MS_US);
    assert!(network.daemons().all(|daemon| daemon.discovery.peer(node).is_none()));
    let left = |notice: &Notice| matches!(notice, Notice::Left { reason: Departure::Silent, node: it, .. } if *it == node);
    assert!((0..10).filter(|&host| host != 4).all(|host| network.was_told(host, left) == 1));
}

#[test]
fn a_node_that_stops_is_gone_when_its_links_end_and_is_not_looked_for() {
    for config in [multicast(), static_seed()] {
        let mut network = converged(10, config, Weather::default(), first_seed());
        let node = network.daemon(4).node;
        network.stop(4);
        network.run_for(250 * MS_US);
        assert!(network.is_linked(0, 4), "what is on its way comes first");
        network.run_for(100 * MS_US);
        assert!(network.daemons().all(|daemon| daemon.discovery.peer(node).is_none()));
        let dials: u64 = network.hosts.iter().map(|host| host.traffic.dials).sum();
        network.run_for(120 * SECOND_US);
        assert_eq!(dials, network.hosts.iter().map(|host| host.traffic.dials).sum::<u64>());
    }
}

#[test]
fn a_netsplit_heals() {
    let (one, other): (Vec<usize>, Vec<usize>) = ((0..5).collect(), (5..10).collect());
    for (what, config) in [("multicast", multicast()), ("one seed", static_seed())] {
        for (seconds, limit_s) in [(1, 2), (3, 2), (8, 8), (60, 8), (600, 8)] {
            let mut network = converged(10, config.clone(), lossy(), first_seed());
            network.split(&one, &other, true);
            network.run_for(seconds * SECOND_US);
            network.split(&one, &other, false);
            let took_us = network.run_until(
                "all know all",
                limit_s * SECOND_US,
                10 * MS_US,
                Network::is_converged,
            );
            println!("{what}: healed {} ms after a split of {seconds} s", took_us / 1_000);
        }
    }
}

#[test]
fn what_is_heard_one_way_only_heals_too() {
    for config in [multicast(), static_seed()] {
        for (from, to) in [(2, 7), (7, 2), (0, 7), (7, 0)] {
            let mut network = converged(10, config.clone(), lossy(), first_seed());
            network.block(from, to);
            network.run_for(30 * SECOND_US);
            network.unblock(from, to);
            network.run_until("all know all", 10 * SECOND_US, 10 * MS_US, Network::is_converged);
        }
    }
}

#[test]
fn two_nodes_that_could_not_reach_each_other_at_first_find_each_other_later() {
    let mut network = network(10, static_seed(), Weather::default(), first_seed());
    network.split(&[3], &[6], true);
    network.start_all(10 * MS_US);
    network.run_for(40 * SECOND_US);
    assert!(!network.is_linked(3, 6) && network.is_linked(3, 5));
    network.split(&[3], &[6], false);
    network.run_until("all know all", 10 * SECOND_US, 10 * MS_US, Network::is_converged);
}

#[test]
fn links_over_which_nothing_is_wanted_are_closed_and_come_back_when_something_is() {
    let mut network = converged(10, multicast(), Weather::default(), first_seed());
    for host in 0..10 {
        network.want_nothing(host);
    }
    network.run_for(59 * SECOND_US);
    assert!(network.is_converged());
    network.run_for(3 * SECOND_US);
    assert!(network.daemons().all(|daemon| daemon.discovery.links() == 0));
    network.run_for(600 * SECOND_US);
    for daemon in network.daemons() {
        assert_eq!(daemon.discovery.peers().count(), 9, "they are known while they are heard");
        assert_eq!(daemon.discovery.links(), 0);
        assert!(daemon.discovery.peers().all(|peer| daemon.discovery.is_idle(peer)));
    }
    network.want(6, &["something"], true);
    let took_us = network.run_until("it is linked", SECOND_US, MS_US, |network| {
        (0..10).all(|host| host == 6 || network.knows(host, 6))
    });
    println!("linked to all again after {} ms", took_us / 1_000);
    assert!(took_us < 100 * MS_US, "{took_us}");
    let wanting = &network.daemon(6).discovery;
    assert!(!wanting.peers().any(|peer| wanting.is_idle(peer)));
}

#[test]
fn a_link_to_a_seed_stays_when_nothing_is_wanted() {
    let mut network = converged(10, static_seed(), Weather::default(), first_seed());
    for host in 0..10 {
        network.want_nothing(host);
    }
    network.run_for(200 * SECOND_US);
    for host in 1..10 {
        assert!(network.is_linked(host, 0), "{host}");
        assert_eq!(network.daemon(host).discovery.links(), 1);
        assert_eq!(network.daemon(host).discovery.peers().count(), 9, "beacons go by unicast");
    }
    let dials: u64 = network.hosts.iter().map(|host| host.traffic.dials).sum();
    network.run_for(600 * SECOND_US);
    assert_eq!(dials, network.hosts.iter().map(|host| host.traffic.dials).sum::<u64>());
    network.want(6, &["something"], true);
    let took_us = network.run_until("it is linked", SECOND_US, MS_US, |network| {
        (0..10).all(|host| host == 6 || network.knows(host, 6))
    });
    assert!(took_us < 100 * MS_US, "{took_us}");
}

#[test]
fn nobody_is_dialled_beyond_the_cap_on_links() {
    let config = Config { links_max: 4, ..multicast() };
    let mut network = network(10, config, Weather::default(), first_seed());
    network.start_all(10 * MS_US);
    network.run_for(30 * SECOND_US);
    let full = |notice: &Notice| matches!(notice, Notice::LinksFull { .. });
    assert!((0..10).all(|host| network.was_told(host, full) <= 1));
    assert!((0..10).any(|host| network.was_told(host, full) == 1));
    let dialled: u64 = network.hosts.iter().map(|host| host.traffic.dials).sum();
    assert!(dialled <= 45, "{dialled}");
    network.check();
}

#[test]
fn nodes_that_start_one_after_the_other_with_a_list_of_all_find_each_other() {
    // As a StatefulSet does: a name appears when its node does.
    let names: Vec<String> = (0..5).map(|n| format!("nexusd-{n}:5671")).collect();
    let config = Config { is_multicast: false, seeds: names.clone(), ..Config::default() };
    let mut network = Network::new(5, config, lossy(), first_seed());
    for (host, name) in names.iter().enumerate() {
        let address = network.hosts[host].address;
        network.names.insert(name.clone(), vec![address]);
        network.start(host);
        network.run_for(7 * SECOND_US);
    }
    network.run_until("all know all", 30 * SECOND_US, 10 * MS_US, Network::is_converged);
    network.run_for(60 * SECOND_US);
    let own = |notice: &Notice| matches!(notice, Notice::SeedIsThisNode { .. });
    let absent = |notice: &Notice| matches!(notice, Notice::SeedAbsent { .. });
    assert!((0..5).all(|host| network.was_told(host, own) == 1));
    assert!((0..5).all(|host| network.was_told(host, absent) == 0));
}

#[test]
fn one_list_of_addresses_behind_one_name_serves_all() {
    let mut network = network(10, static_seed(), lossy(), first_seed());
    let all = network.hosts.iter().map(|host| host.address).collect();
    network.names.insert("nexusd-0:5671".into(), all);
    network.start_all(10 * MS_US);
    network.run_until("all know all", 5 * SECOND_US, 10 * MS_US, Network::is_converged);
}

#[test]
fn nodes_of_two_clusters_on_one_network_leave_each_other_alone() {
    let mut network = network(10, multicast(), Weather::default(), first_seed());
    for host in 0..10 {
        network.start_with(host, |config| config.cluster = format!("cluster-{}", host % 2));
    }
    network.run_for(10 * SECOND_US);
    for host in 0..10 {
        let daemon = network.daemon(host);
        assert_eq!(daemon.discovery.links(), 4);
        assert_eq!(daemon.discovery.peers().count(), 4);
    }
}

#[test]
fn a_node_that_multicast_does_not_reach_joins_by_a_seed() {
    let mut network = network(10, multicast(), lossy(), first_seed());
    for host in 0..9 {
        network.start(host);
    }
    network.start_with(9, |config| {
        config.is_multicast = false;
        config.seeds = vec!["nexusd-0:5671".into()];
    });
    network.run_until("all know all", 3 * SECOND_US, 10 * MS_US, Network::is_converged);
    for host in 0..10 {
        network.want_nothing(host);
    }
    network.run_for(200 * SECOND_US);
    assert!(network.is_linked(9, 0), "its seed");
    assert!(!network.is_linked(9, 3) && !network.is_linked(3, 4), "nothing is wanted");
    network.want(3, &["something"], true);
    network.run_until("it is linked", SECOND_US, MS_US, |network| network.knows(9, 3));
}

/// Anything may happen to anybody; when it ends, all find each other again.
fn live_through(config: Config, seed: u64) {
    let mut network = network(8, config, lossy(), seed);
    let mut dice = fastrand::Rng::with_seed(seed ^ 0x5eed);
    network.start_all(SECOND_US);
    network.run_for(dice.u64(SECOND_US..3 * SECOND_US));
    let mut splits = Vec::new();
    for _ in 0..60 {
        let (host, other) = (dice.usize(..8), dice.usize(..8));
        let is_up = network.hosts[host].daemon.is_some();
        match dice.u8(..8) {
            0 if is_up => network.kill(host),
            1 if is_up => network.cut_power(host),
            2 if is_up => {
                network.stop(host);
                network.run_for(400 * MS_US);
            }
            3 | 4 if !is_up => network.start(host),
            5 if host != other => {
                network.block(host, other);
                splits.push((host, other));
            }
            6 => {
                if let Some((from, to)) = splits.pop() {
                    network.unblock(from, to);
                }
            }
            _ if is_up => {
                let filter = format!("wanted/{}", dice.u8(..20));
                let is_wanted = !network.daemon(host).wanted.contains(&filter);
                network.want(host, &[&filter], is_wanted);
            }
            _ => {}
        }
        network.run_for(dice.u64(..4 * SECOND_US));
    }
    for (from, to) in splits {
        network.unblock(from, to);
    }
    for host in 0..8 {
        if network.hosts[host].daemon.is_none() {
            network.start(host);
        }
    }
    let took_us =
        network.run_until("all know all", 150 * SECOND_US, 10 * MS_US, Network::is_converged);
    println!("all know all {} ms after the last fault", took_us / 1_000);
}

#[test]
fn whatever_happens_all_find_each_other_again_by_multicast() {
    for seed in seeds(number("MESH_SEEDS", 200)) {
        live_through(multicast(), seed);
    }
}

#[test]
fn whatever_happens_all_find_each_other_again_by_one_seed() {
    for seed in seeds(number("MESH_SEEDS", 200)) {
        live_through(static_seed(), seed);
    }
}
