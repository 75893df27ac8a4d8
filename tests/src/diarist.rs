//! A subscriber that writes down each message it has had, and goes on from there when it is started
//! again after it was killed.
//!
//! `nexusd-diarist ADDRESS FILTER DIARY`: the first line of the file DIARY names the subscription,
//! each further one is the topic, number and payload of a message. Without a diary it subscribes. It
//! prints a line once the daemon has confirmed that it is subscribed or goes on, and reads until it is
//! killed. It ends by itself, with an error, if the daemon tells it of a loss.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use nexusd_tests::{Address, Client, Delivery};
use nexusd_wire::{SubscribeRequest, SubscriptionId};

/// Messages that are acknowledged together.
const ACKNOWLEDGED_TOGETHER: u64 = 50;

/// What an earlier life has left.
struct Diary {
    file: File,
    /// Which subscription, and how many of its messages are written down.
    begun: Option<(SubscriptionId, u64)>,
}

impl Diary {
    fn open(path: &str) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut lines = text.lines();
        let begun = match lines.next() {
            Some(id) => {
                let id = u128::from_str_radix(id, 16).map_err(io::Error::other)?;
                Some((SubscriptionId(id), lines.count() as u64))
            }
            None => None,
        };
        Ok(Self { file, begun })
    }

    /// Writes a line, which stays if the process is killed behind this.
    fn write(&mut self, line: &str) -> io::Result<()> {
        self.file.write_all(format!("{line}\n").as_bytes())
    }

    fn note(&mut self, message: &Delivery) -> io::Result<()> {
        let payload = String::from_utf8_lossy(&message.payload);
        self.write(&format!("{} {} {payload}", message.topic, message.sequence))
    }
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, address, filter, diary] = &arguments[..] else {
        return Err(io::Error::other("usage: nexusd-diarist ADDRESS FILTER DIARY"));
    };
    let address: Address = address.parse().map_err(io::Error::other)?;
    let mut diary = Diary::open(diary)?;
    let (mut client, subscription, mut received) = match diary.begun {
        Some((subscription, received)) => {
            let mut client = Client::connect_for(&address, subscription);
            client.resume(subscription, received);
            writeln!(io::stdout(), "goes on")?;
            (client, subscription, received)
        }
        None => {
            let mut client = Client::connect(&address);
            let subscription = client.subscribe_with(&SubscribeRequest {
                filters: &[filter],
                counted: true,
                queue_messages: Some(0),
                queue_bytes: Some(64 << 20),
                ..SubscribeRequest::default()
            });
            diary.write(&subscription.to_string())?;
            writeln!(io::stdout(), "is subscribed")?;
            (client, subscription, 0)
        }
    };
    loop {
        diary.note(&client.next_message())?;
        received += 1;
        if received.is_multiple_of(ACKNOWLEDGED_TOGETHER) {
            client.acknowledge(&[(subscription, received)]);
            client.flush();
        }
    }
}
