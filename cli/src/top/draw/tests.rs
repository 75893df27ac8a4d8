//! What stands on a terminal of 80 columns and 24 rows, for daemons in several conditions.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nexusd_admin::proto::{
    Info, Memory, Metric, Peer, Server, Subscription, Subscriptions, Topic, Topics,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Modifier;

use super::draw;
use crate::error::CliError;
use crate::target::Target;
use crate::top::sample::{PeerStats, Sample};
use crate::top::state::State;
use crate::top::view::View;

fn metric(name: &str, value: u64) -> Metric {
    Metric { name: name.to_owned(), value, ..Metric::default() }
}

fn subscription(number: u64, queued: u64, sent: u64, dropped: u64) -> Subscription {
    Subscription {
        subscription_id: format!("{number:032x}"),
        client_id: format!("0-{number}-1"),
        filters: vec![format!("plant/{number}/#")],
        state: "connected".to_owned(),
        policy: "drop-oldest".to_owned(),
        queued_messages: queued,
        queued_bytes: queued * 100,
        limit_messages: 10_000,
        limit_bytes: 16 << 20,
        sent_messages: sent,
        dropped_messages: dropped,
        ..Subscription::default()
    }
}

/// A daemon with two peers, `seconds` after it was first asked.
fn sample(start: Instant, seconds: u64) -> Sample {
    let topic = |name: &str, per_second: u64, is_retained| Topic {
        name: name.to_owned(),
        subscriptions: 2,
        messages: 1_000_000 + per_second * seconds,
        is_retained,
        peers: 1,
    };
    let peer = |id: &str, status: &str, latency_us| Peer {
        node_id: id.repeat(4),
        address: "10.0.0.12:5671".to_owned(),
        status: status.to_owned(),
        is_linked: status == "alive",
        is_synced: status == "alive",
        latency_us,
        queued_messages: if status == "alive" { 0 } else { 12_345 },
        ..Peer::default()
    };
    let peers = vec![peer("8a00b1c2", "alive", Some(312)), peer("c3d4e5f6", "suspected", None)];
    let at = start + Duration::from_secs(seconds);
    let metrics =
        vec![metric("messages_in", 500 * seconds), metric("messages_out", 1_500 * seconds)];
    let peer_stats = PeerStats { at, metrics };
    Sample {
        at,
        info: Info {
            server: Some(Server {
                node_id: "5f1c2d3e".repeat(4),
                cluster: "default".to_owned(),
                state: "running".to_owned(),
                uptime_ms: 3_725_000,
                ..Server::default()
            }),
            memory: Some(Memory {
                resident_bytes: 48 << 20,
                limit_bytes: 384 << 20,
                ..Memory::default()
            }),
            stats: vec![
                metric("messages_in", 12_345 * seconds),
                metric("messages_out", 24_690 * seconds),
                metric("bytes_in", 1_234_500 * seconds),
                metric("bytes_out", 2_469_000 * seconds),
                metric("dropped_slow_consumer", 250 * seconds),
                metric("queued_messages", 17_400),
                metric("queued_bytes", 1_740_000),
                metric("connections", 14),
                metric("links", 2),
                metric("subscriptions", 3),
            ],
            config: Vec::new(),
        },
        topics: Topics {
            topics: vec![
                topic("plant/boiler/temperature", 12_000, true),
                topic("plant/mill/speed", 345, false),
                topic("idle", 0, true),
            ],
            is_truncated: false,
        },
        subscriptions: Subscriptions {
            subscriptions: vec![
                subscription(1, 12, 24_000 * seconds, 0),
                subscription(2, 7_000, 345 * seconds, 40),
                subscription(3, 10_000, 345 * seconds, 250 * seconds),
            ],
            is_truncated: false,
        },
        peers: peers.clone(),
        peer_stats: HashMap::from([(peers[0].node_id.clone(), peer_stats)]),
    }
}

fn state(view: View) -> State {
    let start = Instant::now();
    let mut state = State::new("10.0.0.11:5672".to_owned(), false);
    state.take(sample(start, 0));
    state.take(sample(start, 2));
    state.look_at(view);
    state
}

fn drawn(state: &State) -> Terminal<TestBackend> {
    drawn_on(state, 80, 24)
}

fn drawn_on(state: &State, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(frame, state)).expect("drawn");
    terminal
}

/// The rows as they are read.
fn shown(state: &State) -> String {
    shown_on(state, 80, 24)
}

fn shown_on(state: &State, width: u16, height: u16) -> String {
    let terminal = drawn_on(state, width, height);
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(usize::from(buffer.area.width));
    let text = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
    text.map(|row| row.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_overview_shows_what_matters_at_once() {
    let expected = " NexusD 10.0.0.11:5672  running  up 1h 2m  default  node 5f1c2d3e
 1 Overview  2 Topics  3 Subscriptions  4 Peers

 in           12,345/s  1.2 MiB/s       in                                     █
 out          24,690/s  2.4 MiB/s       max 12 k/s                             █
 lost            250/s                                                         █
 queued         17,400  1.7 MiB         out                                    █
 memory         48 MiB  of 384 MiB      max 25 k/s                             █
 clients            12  3 subscriptions                                        █

 Busiest topics
TOPIC                                RATE       MESSAGES    SUBS  PEERS RETAINED
plant/boiler/temperature         12,000/s      1,024,000       2      1 yes
plant/mill/speed                    345/s      1,000,690       2      1
idle                                  0/s      1,000,000       2      1 yes


 Slow consumers: 2
FILTERS                CLIENT        QUEUED   FILL       SENT     DROPPED PACE
plant/3/#              0-3-1         10,000  100 %      345/s         500 losing
plant/2/#              0-2-1          7,000   70 %      345/s          40 slow


 q quit  ? keys  Tab next view";
    assert_eq!(shown(&state(View::Overview)), expected);
}

#[test]
fn topics_are_ordered_by_their_rates() {
    let expected = " NexusD 10.0.0.11:5672  running  up 1h 2m  default  node 5f1c2d3e
 1 Overview  2 Topics  3 Subscriptions  4 Peers

TOPIC                                RATE       MESSAGES    SUBS  PEERS RETAINED
plant/boiler/temperature         12,000/s      1,024,000       2      1 yes
plant/mill/speed                    345/s      1,000,690       2      1
idle                                  0/s      1,000,000       2      1 yes
















 q quit  ? keys  s order (rate)  Tab next view  ↑↓ scroll";
    assert_eq!(shown(&state(View::Topics)), expected);
}

#[test]
fn subscriptions_are_ordered_by_their_queues() {
    let expected = " NexusD 10.0.0.11:5672  running  up 1h 2m  default  node 5f1c2d3e
 1 Overview  2 Topics  3 Subscriptions  4 Peers

FILTERS                CLIENT        QUEUED   FILL       SENT     DROPPED PACE
plant/3/#              0-3-1         10,000  100 %      345/s         500 losing
plant/2/#              0-2-1          7,000   70 %      345/s          40 slow
plant/1/#              0-1-1             12    0 %   24,000/s           0
















 q quit  ? keys  s order (queue)  Tab next view  ↑↓ scroll";
    assert_eq!(shown(&state(View::Subscriptions)), expected);
}

#[test]
fn peers_show_their_own_rates_where_they_answer() {
    let expected = " NexusD 10.0.0.11:5672  running  up 1h 2m  default  node 5f1c2d3e
 1 Overview  2 Topics  3 Subscriptions  4 Peers

NODE     ADDRESS              STATUS     LATENCY    QUEUED         IN        OUT
8a00b1c2 10.0.0.12:5671       alive       312 µs         0      500/s    1,500/s
c3d4e5f6 10.0.0.12:5671       suspected        -    12,345          -          -

















 q quit  ? keys  s order (address)  Tab next view  ↑↓ scroll";
    assert_eq!(shown(&state(View::Peers)), expected);
}

#[test]
fn a_narrow_overview_gives_up_graphs_and_what_matters_less() {
    let expected = " NexusD 10.0.0.11:5672  running
 1 Overview  2   3   4

 in           12,345/s  1.2 MiB/s
 out          24,690/s  2.4 MiB/s
 lost            250/s
 queued         17,400  1.7 MiB
 memory         48 MiB  of 384 MiB
 clients            12  3 subscriptions

 Slow consumers: 2
FILTERS                      FILL PACE
plant/3/#                   100 % losing
plant/2/#                    70 % slow
 q quit  ? keys  Tab next view";
    assert_eq!(shown_on(&state(View::Overview), 40, 15), expected);
}

#[test]
fn narrow_tables_keep_their_names() {
    let rows = |view, width| {
        let text = shown_on(&state(view), width, 20);
        text.lines().skip(3).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let expected = |titles: &str, first: &str| [titles.to_owned(), first.to_owned()];
    assert_eq!(
        rows(View::Topics, 60),
        expected(
            "TOPIC                            RATE       MESSAGES    SUBS",
            "plant/boiler/temperature     12,000/s      1,024,000       2"
        )
    );
    assert_eq!(
        rows(View::Topics, 40),
        expected(
            "TOPIC                               RATE",
            "plant/boiler/temperature        12,000/s"
        )
    );
    assert_eq!(
        rows(View::Subscriptions, 60),
        expected(
            "FILTERS                   CLIENT        QUEUED   FILL PACE",
            "plant/3/#                 0-3-1         10,000  100 % losing"
        )
    );
    assert_eq!(
        rows(View::Peers, 60),
        expected(
            "NODE     ADDRESS                STATUS     LATENCY    QUEUED",
            "8a00b1c2 10.0.0.12:5671         alive       312 µs         0"
        )
    );
    assert_eq!(
        rows(View::Peers, 40),
        expected("NODE     ADDRESS               STATUS", "8a00b1c2 10.0.0.12:5671        alive")
    );
    let text = shown_on(&state(View::Topics), 40, 20);
    assert!(text.ends_with(" q quit  ? keys  s order (rate)"), "{text}");
}

#[test]
fn a_graph_says_what_its_highest_bar_stands_for() {
    let start = Instant::now();
    let mut state = State::new(String::new(), false);
    // Once a second, all the time.
    for seconds in 0..5 {
        let mut sample = sample(start, seconds);
        sample.info.stats = vec![metric("messages_in", seconds), metric("messages_out", 0)];
        state.take(sample);
    }
    let text = shown(&state);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[4].contains("max 1/s") && lines[4].ends_with("████"), "{text}");
    assert!(lines[7].ends_with("max 0/s"), "{text}");
}

#[test]
fn the_list_of_keys_stands_before_everything() {
    let mut state = state(View::Topics);
    state.shows_keys = true;
    for (width, height) in [(40, 15), (80, 24)] {
        let text = shown_on(&state, width, height);
        for part in ["┌ Keys ─", "? h        these keys", "q Esc ^C   leave", "└─"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.ends_with("any key closes this"), "{text}");
    }
    let text = shown_on(&state, 10, 5);
    assert!(text.starts_with(" NexusD"), "{text}");
}

#[test]
fn slow_consumers_stand_out_without_colours_too() {
    let state = state(View::Subscriptions);
    let terminal = drawn(&state);
    let buffer = terminal.backend().buffer();
    // Below title, tabs and titles: the one that loses, the one that is slow, the one that keeps up.
    let is_bold = |row: u16| buffer[(0, row)].modifier.contains(Modifier::BOLD);
    assert_eq!([is_bold(4), is_bold(5), is_bold(6)], [true, true, false]);
}

#[test]
fn a_daemon_that_stops_answering_is_told_and_what_was_known_stays() {
    let mut state = state(View::Topics);
    let target = Target { host: "10.0.0.11".to_owned(), port: 5_672 };
    state.fail(&CliError::Timeout { target, ms: 2_000 });
    let text = shown(&state);
    assert!(text.contains("did not answer within 2000 ms"), "{text}");
    assert!(text.contains("plant/mill/speed"), "{text}");
}

#[test]
fn keys_order_and_scroll_the_rows() {
    let mut state = state(View::Topics);
    let first = |state: &State| {
        let text = shown(state);
        text.lines().nth(4).and_then(|row| row.split(' ').next().map(str::to_owned))
    };
    state.scroll(1);
    assert_eq!(first(&state).as_deref(), Some("plant/mill/speed"));
    state.scroll(isize::MAX);
    assert_eq!(first(&state).as_deref(), Some("idle"));
    state.scroll(isize::MIN);
    // By messages, subscriptions, name.
    for _ in 0..3 {
        state.turn_order();
    }
    assert_eq!(first(&state).as_deref(), Some("idle"));
}

#[test]
fn every_view_fits_a_terminal_of_any_size() {
    for view in View::ALL {
        let state = state(view);
        for (width, height) in [(1, 1), (10, 5), (40, 10), (300, 100)] {
            let terminal = drawn_on(&state, width, height);
            let row = |at: u16| -> String {
                (0..width).map(|x| terminal.backend().buffer()[(x, at)].symbol()).collect()
            };
            let begin: String = " NexusD 10.0.0.11:5672".chars().take(width.into()).collect();
            assert!(row(0).starts_with(&begin), "{width} x {height}: {:?}", row(0));
            if height > 1 {
                assert!(row(height - 1).starts_with(" q quit"), "{:?}", row(height - 1));
            }
        }
    }
}

#[test]
fn a_new_topic_has_no_rate_yet() {
    let start = Instant::now();
    let mut state = State::new(String::new(), false);
    let mut first = sample(start, 0);
    first.topics.topics.truncate(1);
    state.take(first);
    state.take(sample(start, 2));
    state.look_at(View::Topics);
    let text = shown(&state);
    let line = text.lines().find(|line| line.starts_with("plant/mill/speed")).expect("listed");
    assert!(!line.contains("/s "), "{line}");
}

#[test]
fn peers_are_counted_over_the_time_between_their_own_answers() {
    let start = Instant::now();
    let mut state = State::new(String::new(), false);
    let mut first = sample(start, 0);
    for stats in first.peer_stats.values_mut() {
        stats.at = start + Duration::from_secs(1);
    }
    state.take(first);
    state.take(sample(start, 2));
    state.look_at(View::Peers);
    let text = shown(&state);
    assert!(text.contains("1,000/s    3,000/s"), "{text}");
}

#[test]
fn what_the_daemon_says_cannot_move_the_cursor() {
    let mut evil = sample(Instant::now(), 0);
    if let Some(server) = &mut evil.info.server {
        server.cluster = "\u{1b}[2J\u{202e}".to_owned();
    }
    let mut state = State::new(String::new(), false);
    state.take(evil);
    let text = shown(&state);
    assert!(text.contains(r"\u{1b}[2J\u{202e}"), "{text}");
}
