//! Prints what is published to topics that match filters, and every loss.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::process::ExitCode;

use nexusd_client::{Client, Error, Event, Message, OverflowPolicy, SubscribeOptions};

const USAGE: &str = "\
Prints messages until it is stopped.

Usage: subscribe [OPTIONS] FILTER...

A FILTER is a topic in which + stands for one level and a final # for the rest.

Options:
  --daemon ADDRESS   HOST:PORT or unix:PATH (default localhost:5672)
  --count N          end after N messages
  --block            hold publishers back instead of losing messages when this is too slow
  --queue N          messages the daemon queues for this subscription
  -h, --help         this text";

struct Arguments {
    daemon: String,
    count: u64,
    options: SubscribeOptions,
    filters: Vec<String>,
}

impl Arguments {
    /// `None` if the arguments are not what the usage says.
    fn read() -> Option<Self> {
        let mut found = Self {
            daemon: "localhost:5672".to_owned(),
            count: u64::MAX,
            options: SubscribeOptions::new(),
            filters: Vec::new(),
        };
        let mut given = std::env::args().skip(1);
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "--daemon" => found.daemon = given.next()?,
                "--count" => found.count = given.next()?.parse().ok()?,
                "--block" => found.options = found.options.policy(OverflowPolicy::Block),
                "--queue" => {
                    let messages = given.next()?.parse().ok()?;
                    found.options = found.options.queue_messages(messages);
                }
                option if option.starts_with('-') => return None,
                _ => found.filters.push(argument),
            }
        }
        (!found.filters.is_empty()).then_some(found)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args().any(|it| it == "-h" || it == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some(arguments) = Arguments::read() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("subscribe: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Error> {
    let client = Client::builder(&arguments.daemon)
        .on_state(|state| eprintln!("-- {state:?}"))
        .connect()
        .await?;
    let mut subscription = client.subscribe_with(&arguments.filters, arguments.options).await?;
    let mut received = 0;
    while received < arguments.count {
        match subscription.next().await {
            Some(Event::Message(message)) => {
                received += 1;
                print(&message);
            }
            Some(Event::Gap(gap)) => println!("-- {gap:?}"),
            Some(_) => {}
            None => return Err(subscription.end_reason().unwrap_or(Error::Closed)),
        }
    }
    client.close().await
}

fn print(message: &Message) {
    print!("{} #{}", message.topic(), message.sequence());
    if let Some(content_type) = message.content_type() {
        print!(" {content_type}");
    }
    for (key, value) in message.headers() {
        print!(" {key}={}", String::from_utf8_lossy(value));
    }
    println!(": {}", String::from_utf8_lossy(message.payload()));
}
