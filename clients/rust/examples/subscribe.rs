//! Prints what is published to topics that match filters, and every loss; can be paused and resumed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::process::ExitCode;

use nexusd_client::{
    Client, Delivery, Error, Event, Message, NodeId, OverflowPolicy, Paused, SubscribeOptions,
    SubscriptionId,
};

const USAGE: &str = "\
Prints messages until it is stopped.

Usage: subscribe [OPTIONS] FILTER...

A FILTER is a topic in which + stands for one level and a final # for the rest.

Options:
  --daemon ADDRESS   HOST:PORT or unix:PATH (default localhost:5672)
  --count N          end after N messages
  --block            hold publishers back instead of losing messages when this is too slow
  --queue N          messages the daemon queues for this subscription
  --retained         print the retained values of matching topics first
  --pause            pause instead of ending, and print what --resume needs
  --resume TOKEN     go on with a paused subscription to the same filters
  -h, --help         this text";

struct Arguments {
    daemon: String,
    count: u64,
    options: SubscribeOptions,
    pause: bool,
    resume: Option<String>,
    filters: Vec<String>,
}

impl Arguments {
    /// `None` if the arguments are not what the usage says.
    fn read() -> Option<Self> {
        let mut found = Self {
            daemon: "localhost:5672".to_owned(),
            count: u64::MAX,
            options: SubscribeOptions::new(),
            pause: false,
            resume: None,
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
                "--retained" => found.options = found.options.retained(true),
                "--pause" => found.pause = true,
                "--resume" => found.resume = Some(given.next()?),
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
        .on_state(|state| eprintln!("-- {state}"))
        .connect()
        .await?;
    let mut subscription = match &arguments.resume {
        None => client.subscribe_with(&arguments.filters, arguments.options).await?,
        Some(token) => match paused(token, arguments.filters, arguments.options) {
            Some(paused) => client.resume(&paused).await?,
            None => return Err(Error::NotFound { reason: format!("`{token}` is no token") }),
        },
    };
    let mut received = 0;
    while received < arguments.count {
        match subscription.next().await {
            Some(Event::Message(message)) => {
                received += 1;
                print(&message);
            }
            Some(other) => println!("-- {other:?}"),
            None => return Err(subscription.end_reason().unwrap_or(Error::Closed)),
        }
    }
    if arguments.pause {
        let paused = subscription.pause().await?;
        for message in paused.unread.into_iter().filter_map(Event::into_message) {
            print(&message);
        }
        println!(
            "-- go on with --resume {}:{}:{}",
            paused.subscription, paused.node, paused.received
        );
    }
    client.close().await
}

/// The subscription that an earlier run has paused.
fn paused(token: &str, filters: Vec<String>, options: SubscribeOptions) -> Option<Paused> {
    let mut parts = token.split(':');
    let subscription = SubscriptionId(u128::from_str_radix(parts.next()?, 16).ok()?);
    let node = NodeId(u128::from_str_radix(parts.next()?, 16).ok()?);
    let received = parts.next()?.parse().ok()?;
    let mut paused = Paused::new(filters, subscription, node, received);
    paused.options = options;
    Some(paused)
}

fn print(message: &Message) {
    print!("{} #{}", message.topic(), message.sequence());
    if message.delivery() != Delivery::Live {
        print!(" ({:?})", message.delivery());
    }
    if let Some(content_type) = message.content_type() {
        print!(" {content_type}");
    }
    for (key, value) in message.headers() {
        print!(" {key}={}", String::from_utf8_lossy(value));
    }
    println!(": {}", String::from_utf8_lossy(message.payload()));
}
