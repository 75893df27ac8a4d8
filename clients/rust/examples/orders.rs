//! Orders between services: a shop, and a billing that is killed amid its work and comes back.
//!
//! One program in two roles. Without `--billing` it is the shop: it starts a daemon on a free port, starts the
//! billing as a process of its own, kills that, and checks what the billing's ledger says in the end.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use nexusd_client::{
    Client, Event, NodeId, OverflowPolicy, Position, Publication, SubscribeOptions,
};

const USAGE: &str = "\
Shows a shop whose orders reach a billing that is killed and comes back.

Usage: orders [NEXUSD]

NEXUSD is the daemon's program; without it the one that cargo has put beside this program.";

const TOPIC: &str = "shop/orders/placed";
/// The newest orders, which the daemon keeps for a billing that was away.
const HISTORY: &str = "500";
/// Orders that are many more than that.
const MANY: u64 = 5_000;
/// What stands in an order behind its number.
const ITEMS: &str = "\
1 table, oak, 200 by 90 cm, oiled; 6 chairs, oak, seats of grey felt; 1 lamp, brass, 40 cm; \
1 carpet, wool, 240 by 340 cm, undyed; 2 shelves, ash, 80 by 200 cm; 1 mirror, round, 60 cm; \
12 plates, stoneware, blue; 12 glasses, pressed; 1 vase, stoneware, blue. \
To: 17 Mill Lane, Newtown, second floor; not before ten in the morning; call before arrival. \
Paid in advance. Gift wrapping: none. Old furniture is taken along: 1 table, 4 chairs.";
/// What it takes to bill one.
const WORK: Duration = Duration::from_millis(1);
/// Longest wait for a line of a program, and of everything.
const STEP: Duration = Duration::from_secs(20);
const ALL: Duration = Duration::from_secs(60);

type Result<T> = std::result::Result<T, Box<dyn StdError + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["--billing", address, ledger] => bill(address, Path::new(ledger)).await,
        [] => in_time(sell(None)).await,
        [nexusd] if !nexusd.starts_with('-') => in_time(sell(Some(nexusd.into()))).await,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orders: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn in_time(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::time::timeout(ALL, work).await.map_err(|_| "it took too long")?
}

// ---- The billing ----

/// Bills orders until it is killed. What it has done stands in the ledger, one line for each thing, and each line is
/// written before the next order is taken.
async fn bill(address: &str, path: &Path) -> Result<()> {
    let client = Client::builder(address).name("billing").connect().await?;
    let before = Ledger::read(path)?;
    let mut ledger = OpenOptions::new().create(true).append(true).open(path)?;
    // Rather than lose an order that the billing is too slow for, the shop waits. It begins behind the last order
    // that was billed, as far as the daemon keeps orders. (Orders that come from shops at several nodes of a mesh
    // need a position for each of these.)
    let last =
        before.last.map(|(origin, sequence)| Position { topic: TOPIC.into(), sequence, origin });
    let options = SubscribeOptions::new().policy(OverflowPolicy::Block).behind(last);
    let mut orders = client.subscribe_with(TOPIC, options).await?;
    println!("ready");
    while let Some(event) = orders.next().await {
        match event {
            Event::Message(order) => {
                tokio::time::sleep(WORK).await;
                let text = String::from_utf8_lossy(order.payload());
                let number = text.split(' ').next().unwrap_or_default();
                let (node, at) = (order.origin(), order.origin_sequence());
                ledger.write_all(format!("billed {number} {node} {at}\n").as_bytes())?;
                println!("billed {number}");
            }
            // A loss has a place, a reason and numbers: somebody can look after it.
            Event::Gap(gap) => {
                for range in &gap.ranges {
                    let line = format!("missed {} {}\n", range.first, range.last);
                    ledger.write_all(line.as_bytes())?;
                }
                if gap.ranges.is_empty() {
                    ledger.write_all(b"missed unknown\n")?;
                }
                println!("missed {:?}, {:?}", gap.missed, gap.reason);
            }
            _ => {}
        }
    }
    Err(orders.end_reason().map_or("the subscription has ended".into(), Into::into))
}

/// What the billing has written down.
#[derive(Default)]
struct Ledger {
    /// The node that accepted the last order, and the number that it has there.
    last: Option<(NodeId, u64)>,
    /// Orders, in the order in which they were billed.
    billed: Vec<u64>,
    /// Numbers of messages that did not come.
    missed: Vec<RangeInclusive<u64>>,
    /// There may be others, of which nobody knows.
    misses_unknown: bool,
}

impl Ledger {
    fn read(path: &Path) -> Result<Self> {
        let mut ledger = Self::default();
        if !path.exists() {
            return Ok(ledger);
        }
        for line in BufReader::new(File::open(path)?).lines() {
            let line = line?;
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["billed", order, node, sequence] => {
                    ledger.billed.push(order.parse()?);
                    ledger.last =
                        Some((NodeId(u128::from_str_radix(node, 16)?), sequence.parse()?));
                }
                ["missed", "unknown"] => ledger.misses_unknown = true,
                ["missed", first, last] => ledger.missed.push(first.parse()?..=last.parse()?),
                _ => return Err(format!("a line of the ledger: {line}").into()),
            }
        }
        Ok(ledger)
    }
}

// ---- The shop ----

/// What became of orders, as acknowledgements tell it.
#[derive(Default)]
struct Sales {
    /// Orders by the number of their message.
    orders: BTreeMap<u64, u64>,
    /// How many were handed to the billing, and how many to nobody.
    delivered: u64,
    unwanted: u64,
}

impl Sales {
    /// The newest order.
    fn last(&self) -> u64 {
        self.orders.len() as u64
    }

    /// Publishes orders until the daemon has noticed that the billing is gone, and says how many nobody has got.
    async fn place_until_nobody_is_there(&mut self, shop: &Client) -> Result<u64> {
        let before = self.unwanted;
        while self.unwanted == before {
            self.place(shop, 1).await?;
        }
        Ok(self.unwanted)
    }

    /// Publishes so many further orders, and waits until all are acknowledged.
    async fn place(&mut self, shop: &Client, count: u64) -> Result<()> {
        let begin = self.last() + 1;
        let numbers: Vec<u64> = (begin..begin + count).collect();
        let payloads: Vec<String> = numbers.iter().map(|it| format!("{it} {ITEMS}")).collect();
        let orders: Vec<_> = payloads.iter().map(|it| Publication::new(TOPIC, it)).collect();
        for (number, result) in numbers.into_iter().zip(shop.send_batch_acked(&orders).await) {
            let ack = result?;
            self.orders.insert(ack.sequence, number);
            match ack.delivered {
                0 => self.unwanted += 1,
                1 => self.delivered += 1,
                _ => return Err(format!("there is one billing, not {ack:?}").into()),
            }
        }
        Ok(())
    }
}

async fn sell(nexusd: Option<PathBuf>) -> Result<()> {
    let folder = Folder::new()?;
    let ledger = folder.0.join("ledger");
    let nexusd = nexusd.map_or_else(beside_this_program, Ok)?;
    let mut daemon = Command::new(nexusd);
    daemon
        .args(["--bind", "127.0.0.1", "--app-port", "0", "--unix-socket", "none"])
        .args(["--discovery", "off", "--health-port", "off", "--metrics-port", "off"])
        .args(["--message-buffer-size", HISTORY, "--log-level", "warn"])
        // Who is gone has no queue: an acknowledgement counts who is there.
        .args(["--paused-subscription-ttl", "0"]);
    let daemon = Program::start(daemon)?;
    let ready = daemon.line()?;
    let address = ready.split(' ').find_map(|word| word.strip_prefix("tcp="));
    let address = address.ok_or("the ready line names an address")?;
    let start_billing = || {
        let mut billing = Command::new(std::env::current_exe()?);
        billing.arg("--billing").arg(address).arg(&ledger);
        let billing = Program::start(billing)?;
        billing.until("ready")?;
        Ok::<_, Box<dyn StdError + Send + Sync>>(billing)
    };
    let shop = Client::builder(address).name("shop").connect().await?;
    let mut sales = Sales::default();

    println!("1. Nobody bills yet: the shop learns it with the acknowledgement");
    sales.place(&shop, 1).await?;
    must(sales.unwanted == 1, "nobody wants the first order")?;
    println!("   order 1 is accepted, and delivered to nobody");

    println!("2. The billing is there");
    let billing = start_billing()?;
    sales.place(&shop, 100).await?;
    must(sales.delivered == 100, "each order is handed to it")?;
    billing.until("billed 101")?;
    println!("   100 orders are accepted, each delivered to one; all are billed");

    println!("3. It is killed amid its work, and comes back");
    sales.place(&shop, 100).await?;
    billing.until("billed 120")?;
    drop(billing);
    let billed = Ledger::read(&ledger)?.billed.len();
    println!("   killed with {billed} of 200 orders billed");
    let told = sales.place_until_nobody_is_there(&shop).await?;
    sales.place(&shop, 300).await?;
    must(sales.unwanted == told + 300, "nobody takes them")?;
    let last = sales.last();
    println!("   orders up to {last} are accepted, and delivered to nobody");
    let billing = start_billing()?;
    billing.until(&format!("billed {last}"))?;
    let Ledger { billed, missed, misses_unknown, .. } = Ledger::read(&ledger)?;
    must(billed.iter().copied().eq(2..=last), "each order is billed, once and in its turn")?;
    must(missed.is_empty() && !misses_unknown, "none is missed")?;
    println!("   it is back: orders 2 to {last} are billed, each once, in their order");

    println!("4. It is away for longer than the daemon keeps orders");
    drop(billing);
    sales.place_until_nobody_is_there(&shop).await?;
    sales.place(&shop, MANY).await?;
    println!("   {MANY} orders are accepted meanwhile");
    let billing = start_billing()?;
    sales.place(&shop, 1).await?;
    let last = sales.last();
    billing.until(&format!("billed {last}"))?;
    let Ledger { billed, missed, misses_unknown, .. } = Ledger::read(&ledger)?;
    let missed: Vec<u64> =
        missed.into_iter().flatten().filter_map(|it| sales.orders.get(&it).copied()).collect();
    let all: BTreeSet<u64> = billed.iter().chain(&missed).copied().collect();
    must(billed.is_sorted() && billed.len() + missed.len() == all.len(), "none comes twice")?;
    must(all.iter().copied().eq(2..=last), "each order is billed, or told as missed")?;
    must(!misses_unknown, "what is missed is known")?;
    let (Some(from), Some(to)) = (missed.first(), missed.last()) else {
        return Err("must be: some are missed, for so many are not kept".into());
    };
    println!("   it is back, and told what it missed: orders {from} to {to}");
    println!("   the {} behind them are billed", last - to);
    println!("all is as it must be");
    Ok(())
}

fn must(is_so: bool, sentence: &str) -> Result<()> {
    if is_so { Ok(()) } else { Err(format!("must be: {sentence}").into()) }
}

/// The daemon, where cargo puts it: this program is in the folder `examples` beside it.
fn beside_this_program() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.ancestors().nth(2).ok_or("this program is in a folder")?;
    Ok(folder.join("nexusd"))
}

/// A program that was started, and its lines. Dropping it kills it, as `kill -9` does.
struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    fn start(mut command: Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        // Settings of other daemons.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("NEXUSD_") {
                command.env_remove(variable);
            }
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let output = child.stdout.take().ok_or("it has an output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                // Nobody may be interested any more; it is read all the same.
                let _ = sender.send(line);
            }
        });
        Ok(Self { child, lines })
    }

    fn line(&self) -> Result<String> {
        Ok(self.lines.recv_timeout(STEP).map_err(|error| format!("no line: {error}"))?)
    }

    fn until(&self, wanted: &str) -> Result<()> {
        while self.line().map_err(|error| format!("`{wanted}` must come: {error}"))? != wanted {}
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder for the ledger, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("nexusd-orders-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
