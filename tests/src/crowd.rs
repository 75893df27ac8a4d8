//! Many clients in one process, which leave all at once when it is killed.
//!
//! `nexusd-crowd COUNT TOPIC ADDRESS…`: connects COUNT clients over the addresses in turn, subscribes
//! each to TOPIC, prints a line, waits until each has heard the first message of TOPIC, prints a line
//! and waits for the end of its input.

use std::io::{self, Write};

use nexusd_tests::{Address, Client, open_files_limit, wait_for_the_end};
use nexusd_wire::SubscribeRequest;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, count, topic, ways @ ..] = &arguments[..] else {
        return Err(io::Error::other("usage: nexusd-crowd COUNT TOPIC ADDRESS…"));
    };
    let count: usize = count.parse().map_err(io::Error::other)?;
    let ways = ways.iter().map(|way| way.parse::<Address>().map_err(io::Error::other));
    let ways = ways.collect::<io::Result<Vec<Address>>>()?;
    open_files_limit();
    let mut crowd: Vec<Client> = ways.iter().cycle().take(count).map(Client::open).collect();
    let mut asked = Vec::new();
    for client in &mut crowd {
        client.hello();
        let request = SubscribeRequest { filters: &[topic], ..Default::default() };
        asked.push(client.ask_to_subscribe(&request));
        client.flush();
    }
    for (client, asked) in crowd.iter_mut().zip(asked) {
        client.subscribed(asked);
    }
    writeln!(io::stdout(), "all are subscribed")?;
    for client in &mut crowd {
        assert_eq!(client.next_message().sequence, 1);
    }
    writeln!(io::stdout(), "all have heard")?;
    wait_for_the_end()
}
