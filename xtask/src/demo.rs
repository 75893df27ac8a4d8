//! `cargo xtask demo`: the first thing a newcomer runs. Builds, lets three real daemons find each other,
//! shows messages that go from one to another and how fast, measures, and leaves nothing behind.

mod standing;

use std::io::{IsTerminal as _, Write as _};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::daemon::Daemon;
use crate::example::{Example, Streams};
use crate::invocation::Invocation;
use crate::mesh_view::MeshView;
use crate::{build, cores, repository};

pub(crate) const HELP: &str = "\
Usage: cargo xtask demo
       cargo xtask demo start [NODES]   starts nodes that find each other and run until they are stopped
       cargo xtask demo status          says which run
       cargo xtask demo stop            stops them

Builds the daemon, the load generator and two examples with full optimisation (ten minutes on two cores
the first time), then, on free ports of this machine:

  1. starts three daemons, which find each other
  2. starts a subscriber at one of them and a publisher at another, and shows the messages that arrive
  3. lets many messages flow from one daemon to the two others, and shows what each of them does
  4. measures throughput and latency of one daemon and of a way over two, and prints tables
  5. stops the daemons

The nodes of `start` (3 unless told) are on 127.0.0.1; the first has the default ports, each further one's are 10
higher: applications connect to 5672, 5682, 5692. Their logs are in target/demo.

Needs Rust, a C compiler and git, and Linux: 6.1 or newer with io_uring allowed for full speed.
";

/// What the columns of the tables of figures are.
const LEGEND: &str = "\
   The columns:
     size            a message's payload
     window          messages that may be under way at once
     sent/s          messages published a second: k are thousands, M millions
     delivered/s     messages a second that subscribers received
     per CPU-second  messages delivered for each second of CPU time that the daemons took
     of the first    the same as a share of the first run's, where a workload has several runs
     user time       CPU time of the daemons outside the kernel, for each message delivered
     per send        bytes that they give the kernel at a time
     RSS             memory of the daemons
     rate            messages published a second, on a schedule
     from            where a latency begins: when the message should have been sent (intended), which hides no
                     stall, or when it was (send)
     p50 … max       latencies: half of all messages took no longer than p50, 99 % no longer than p99
     CPU             CPU time of the daemons as a share of one core
     valid           every message came, once, in order and at the rate; noisy: other programs disturbed the run
     –               not measured

";

const NODES: usize = 3;
/// Messages to show.
const MESSAGES: u32 = 8;
/// Slow enough to watch.
const READING_INTERVAL: Duration = Duration::from_millis(150);
/// Lines that flow at a time, and the time between.
const PORTION: usize = 500;
const PORTION_INTERVAL: Duration = Duration::from_millis(10);
/// How often the daemons are looked at meanwhile, once a second as they speak of themselves.
const LOOKS: u32 = 5;
/// The load generator's exit code for figures that do not count.
const INVALID_RUN: i32 = 1;
/// How long both may take to have shown their messages and ended.
const MESSAGES_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) fn run(mut parser: lexopt::Parser) -> Result<()> {
    match parser.next()? {
        None => {}
        Some(lexopt::Arg::Value(word)) if word == "start" => return standing::start(parser),
        Some(lexopt::Arg::Value(word)) if word == "status" => return standing::status(parser),
        Some(lexopt::Arg::Value(word)) if word == "stop" => return standing::stop(parser),
        Some(argument) => return Err(argument.unexpected().into()),
    }
    build::programs()?;

    println!("\n1. Three daemons");
    let program = repository::release_binary("nexusd");
    let daemons = Daemon::start_mesh(&program, NODES, "demo", &[])?;
    for daemon in &daemons {
        println!("   {}", daemon.ready_line);
    }
    let view = MeshView::of(&daemons)?;
    view.wait_for_peers(&[0, 1, 2], 2)?;
    println!("   Each has found the two others, and knows what they want.");

    println!("\n2. Messages, published at the first daemon and shown by a subscriber at the third");
    show_messages(&daemons[0], &daemons[2])?;

    println!("\n3. Many of them, from the first daemon straight to the two others");
    println!(
        "   For each daemon: peers that it is linked to; messages a second that come in, those of them that peers"
    );
    println!(
        "   send, and that go out to subscribers and peers; its CPU time as a share of one core; its memory."
    );
    show_flow(&daemons, &view)?;

    println!("\n4. Figures: one daemon, then a way over two that it starts for itself");
    println!(
        "   T1 is as fast as it goes, L latency at a rate, M1 from one daemon to another. What the columns are"
    );
    println!("   stands below the last table.");
    measure(&daemons[0])?;

    println!("\n5. The first daemon stops");
    let mut daemons = daemons.into_iter();
    daemons.next().context("there are three")?.stop()?;
    view.wait_for_peers(&[1, 2], 1)?;
    println!("   It has said goodbye: the others know each other alone.");
    drop(view);
    for daemon in daemons {
        daemon.stop()?;
    }
    println!(
        "\nAll daemons have stopped. Next: start one of your own, target/release/nexusd, and publish:"
    );
    println!(
        "target/release/nexusd-cli subscribe 'sensors/#', and elsewhere … publish sensors/7/temp 21.5"
    );
    Ok(())
}

/// Starts the subscriber and the publisher among the client's examples, and lets readings flow
/// until the subscriber has shown its share. What was published before it had subscribed is not
/// for it, so nobody has to wait for anybody.
fn show_messages(from: &Daemon, to: &Daemon) -> Result<()> {
    let count = MESSAGES.to_string();
    let (wanted, topic) = (["--count", &count, "sensors/+/temp"], ["sensors/kitchen/temp"]);
    println!("   $ {}", Example::line("subscribe", to, &wanted));
    println!("   $ {}", Example::line("publish", from, &topic));
    let mut subscriber = Example::start("subscribe", to, &wanted, Streams::shown())?;
    let fed = Streams { input: Stdio::piped(), ..Streams::shown() };
    let mut publisher = Example::start("publish", from, &topic, fed)?;
    let mut lines = publisher.child.stdin.take().context("the publisher has a standard input")?;
    let deadline = Instant::now() + MESSAGES_TIMEOUT;
    let mut tenths = 205;
    while !subscriber.has_ended_well()? {
        if Instant::now() > deadline {
            bail!("the subscriber did not show {count} messages within {MESSAGES_TIMEOUT:?}");
        }
        thread::sleep(READING_INTERVAL);
        writeln!(lines, "{}.{} °C", tenths / 10, tenths % 10).context("the publisher has ended")?;
        tenths += 1;
    }
    // The end of its input ends the publisher.
    drop(lines);
    wait_for_end(&mut publisher)
}

fn wait_for_end(example: &mut Example) -> Result<()> {
    let deadline = Instant::now() + MESSAGES_TIMEOUT;
    while !example.has_ended_well()? {
        if Instant::now() > deadline {
            bail!("an example did not end within {MESSAGES_TIMEOUT:?}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Lets messages flow from the first daemon to subscribers at the others, and shows the table of all of
/// them every second: in its place on a terminal, below each other elsewhere.
fn show_flow(daemons: &[Daemon], view: &MeshView) -> Result<()> {
    let _subscribers = daemons[1..]
        .iter()
        .map(|daemon| Example::start("subscribe", daemon, &["flow/#"], Streams::unseen()))
        .collect::<Result<Vec<_>>>()?;
    let fed = Streams { input: Stdio::piped(), ..Streams::unseen() };
    let mut publisher = Example::start("publish", &daemons[0], &["flow/lines"], fed)?;
    let mut lines = publisher.child.stdin.take().context("the publisher has a standard input")?;
    let portion = "a line of some length, as a sensor or a log might say it\n".repeat(PORTION);
    let is_terminal = std::io::stdout().is_terminal();
    let begun = Instant::now();
    let (mut portions, mut looks) = (0, 0);
    while looks < LOOKS {
        lines.write_all(portion.as_bytes()).context("the publisher has ended")?;
        portions += 1;
        thread::sleep((PORTION_INTERVAL * portions).saturating_sub(begun.elapsed()));
        // The first one when a second was measured, of which messages flowed.
        if begun.elapsed() >= Duration::from_millis(1_500) + Duration::from_secs(1) * looks {
            let table = view.table();
            if is_terminal && looks > 0 {
                print!("\x1b[{}A", table.lines().count());
            }
            print!("{table}");
            // It is shown late otherwise; somebody who looks no more is no reason to fail.
            let _ = std::io::stdout().flush();
            looks += 1;
        }
    }
    drop(lines);
    wait_for_end(&mut publisher)
}

fn measure(daemon: &Daemon) -> Result<()> {
    let mut all_valid = true;
    let (first, last) = cores::for_daemon_and_load();
    let (pid, load_core, both) =
        (daemon.pid().to_string(), last.to_string(), format!("{first},{last}"));
    let running = ["--addr", &daemon.address, "--server-pid", &pid, "--load-core", &load_core];
    let own = ["--server-core", &both, "--load-core", &both];
    let runs: [(&str, &str, &[&str]); 4] = [
        ("T1", "max", &running),
        ("L", "100k", &running),
        ("M1", "max", &own),
        ("M1", "10k", &own),
    ];
    for (workload, rate, further) in runs {
        let status = Invocation::new(repository::release_binary("nexusd-loadgen"))
            .args(["--workload", workload, "--rate", rate, "--duration", "3s"])
            .args(further)
            .status()?;
        match status.code() {
            Some(0) => {}
            Some(INVALID_RUN) => all_valid = false,
            _ => bail!("the load generator failed: {status}; its reason stands above"),
        }
    }
    print!("{LEGEND}");
    if !all_valid {
        println!(
            "A run that is not valid says why below its table. On a busy machine that is common: \
             let it come to rest and repeat."
        );
    }
    Ok(())
}
