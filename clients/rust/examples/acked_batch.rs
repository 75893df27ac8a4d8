//! Publishes messages in acknowledged batches, and tells what became of them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::process::ExitCode;
use std::time::Instant;

use nexusd_client::{Client, Error, Publication};

const USAGE: &str = "\
Publishes numbered messages in batches, and waits for the acknowledgements of each batch.

Usage: acked_batch [OPTIONS] TOPIC

Options:
  --daemon ADDRESS  HOST:PORT or unix:PATH (default localhost:5672)
  --messages N      how many (default 10000)
  --batch N         messages in one batch (default 500)
  -h, --help        this text";

struct Arguments {
    daemon: String,
    messages: usize,
    batch: usize,
    topic: String,
}

impl Arguments {
    /// `None` if the arguments are not what the usage says.
    fn read() -> Option<Self> {
        let mut found = Self {
            daemon: "localhost:5672".to_owned(),
            messages: 10_000,
            batch: 500,
            topic: String::new(),
        };
        let mut given = std::env::args().skip(1);
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "--daemon" => found.daemon = given.next()?,
                "--messages" => found.messages = given.next()?.parse().ok()?,
                "--batch" => found.batch = given.next()?.parse().ok().filter(|it| *it > 0)?,
                option if option.starts_with('-') => return None,
                _ => found.topic = argument,
            }
        }
        (!found.topic.is_empty()).then_some(found)
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
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acked_batch: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Error> {
    let client = Client::connect(&arguments.daemon).await?;
    let payloads: Vec<String> = (1..=arguments.messages).map(|n| n.to_string()).collect();
    let begun = Instant::now();
    let (mut acknowledged, mut delivered, mut dropped) = (0_u64, 0_u64, 0_u64);
    for payloads in payloads.chunks(arguments.batch) {
        let batch: Vec<_> =
            payloads.iter().map(|payload| Publication::new(&arguments.topic, payload)).collect();
        for (payload, result) in payloads.iter().zip(client.send_batch_acked(&batch).await) {
            match result {
                Ok(ack) => {
                    acknowledged += 1;
                    delivered += u64::from(ack.delivered);
                    dropped += u64::from(ack.dropped);
                }
                // Sending it again would be safe only if a duplicate does no harm.
                Err(Error::OutcomeUnknown) => eprintln!("{payload}: accepted or not, unknown"),
                Err(error) => eprintln!("{payload}: {error}"),
            }
        }
    }
    println!(
        "{acknowledged} of {} messages acknowledged in {:.1?}; {delivered} deliveries, {dropped} dropped",
        arguments.messages,
        begun.elapsed()
    );
    client.close().await
}
