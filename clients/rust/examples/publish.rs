//! Publishes lines: those given on the command line, or those of standard input.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::io::BufRead;
use std::process::ExitCode;
use std::time::Duration;

use nexusd_client::{Client, Error, Publication};

const USAGE: &str = "\
Publishes messages and ends.

Usage: publish [OPTIONS] TOPIC [PAYLOAD]...

Without a PAYLOAD each line of standard input is one.

Options:
  --daemon ADDRESS    HOST:PORT or unix:PATH (default localhost:5672)
  --type MEDIA-TYPE   content type of the payloads
  --header KEY=VALUE  a header; may be given several times
  --ttl-ms N          time to live
  --retain            retain the last one: later subscribers that ask for it get it first
  -h, --help          this text";

#[derive(Default)]
struct Arguments {
    daemon: Option<String>,
    content_type: Option<String>,
    headers: Vec<(String, String)>,
    ttl: Duration,
    retain: bool,
    /// The topic, then payloads.
    rest: Vec<String>,
}

impl Arguments {
    /// `None` if the arguments are not what the usage says.
    fn read() -> Option<Self> {
        let mut found = Self::default();
        let mut given = std::env::args().skip(1);
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "--daemon" => found.daemon = Some(given.next()?),
                "--type" => found.content_type = Some(given.next()?),
                "--header" => {
                    let header = given.next()?;
                    let (key, value) = header.split_once('=')?;
                    found.headers.push((key.to_owned(), value.to_owned()));
                }
                "--ttl-ms" => found.ttl = Duration::from_millis(given.next()?.parse().ok()?),
                "--retain" => found.retain = true,
                option if option.starts_with('-') => return None,
                _ => found.rest.push(argument),
            }
        }
        (!found.rest.is_empty()).then_some(found)
    }

    fn publication<'a>(&'a self, topic: &'a str, payload: &'a str) -> Publication<'a> {
        let mut publication = Publication::new(topic, payload).ttl(self.ttl).retain(self.retain);
        if let Some(content_type) = &self.content_type {
            publication = publication.content_type(content_type);
        }
        for (key, value) in &self.headers {
            publication = publication.header(key, value);
        }
        publication
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
            eprintln!("publish: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Error> {
    let daemon = arguments.daemon.as_deref().unwrap_or("localhost:5672");
    let client =
        Client::builder(daemon).on_error(|error| eprintln!("publish: {error}")).connect().await?;
    let (topic, payloads) = arguments.rest.split_first().expect("read() demands a topic");
    for payload in payloads {
        client.send(&arguments.publication(topic, payload)).await?;
    }
    if payloads.is_empty() {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            client.send(&arguments.publication(topic, &line)).await?;
        }
    }
    // Without it the program could end before everything is sent.
    client.close().await
}
