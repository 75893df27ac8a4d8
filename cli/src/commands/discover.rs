//! DISCOVER: finds daemons by their beacons, and asks each of them for the rest.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use nexusd_admin::proto::{GetInfoRequest, Server};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use super::beacons::{Heard, listen};
use crate::arguments::Options;
use crate::console::Console;
use crate::error::CliError;
use crate::format::{milliseconds, number};
use crate::remote::Remote;
use crate::table::Column::{Number, Text};
use crate::table::table;
use crate::target::Target;

/// Two and a half beacon intervals: enough for two of each node, should one be lost.
pub(crate) const LISTEN: Duration = Duration::from_millis(2_500);
/// How long a daemon may take to say what it is.
const ANSWER: Duration = Duration::from_secs(1);
/// Daemons that are asked at the same time.
const ASKED_MAX: usize = 64;

/// A daemon that was found.
#[derive(Clone, Serialize, Debug)]
pub(crate) struct Found {
    index: usize,
    #[serde(serialize_with = "as_text")]
    #[serde(rename = "address")]
    pub(crate) target: Target,
    node_id: String,
    cluster: String,
    mesh_address: String,
    started_ms: u64,
    /// What it says of itself; nothing if it does not answer.
    #[serde(flatten)]
    answer: Option<Answer>,
    error: Option<String>,
}

#[derive(Clone, Serialize, Debug)]
struct Answer {
    version: String,
    status: String,
    uptime_ms: i64,
    topics: u64,
    subscriptions: u64,
    peers: u32,
}

fn as_text<S: serde::Serializer>(target: &Target, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(target)
}

/// Listens so long, and asks those that were heard.
pub(crate) async fn discover(options: &Options, time: Duration) -> Result<Vec<Found>, CliError> {
    let heard = listen(&options.discovery, time).await?;
    let mut found = Vec::with_capacity(heard.len());
    let mut asked = JoinSet::new();
    for (at, heard) in heard.into_iter().enumerate() {
        if asked.len() >= ASKED_MAX {
            found.extend(asked.join_next().await.transpose().map_err(std::io::Error::from)?);
        }
        asked.spawn(ask(at + 1, heard));
    }
    while let Some(answer) = asked.join_next().await {
        found.push(answer.map_err(std::io::Error::from)?);
    }
    found.sort_unstable_by_key(|found: &Found| found.index);
    Ok(found)
}

/// Asks a daemon at each address it may have.
async fn ask(index: usize, heard: Heard) -> Found {
    // There is one at least, that of the first beacon.
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut address = heard.addresses.first().copied().unwrap_or(local);
    let mut answer = Err("no address is known".to_owned());
    for next in heard.addresses {
        answer = said(at(next, heard.app_port)).await;
        if answer.is_ok() {
            address = next;
            break;
        }
    }
    let (answer, error) = match answer {
        Ok(answer) => (Some(answer), None),
        Err(error) => (None, Some(error)),
    };
    Found {
        index,
        target: at(address, heard.app_port).into(),
        node_id: heard.node.to_string(),
        cluster: heard.cluster,
        mesh_address: at(address, heard.mesh_port).to_string(),
        started_ms: heard.start_us / 1_000,
        answer,
        error,
    }
}

fn at(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

async fn said(address: SocketAddr) -> Result<Answer, String> {
    let asked = async {
        let remote = Remote::connect(address.into(), ANSWER).await?;
        remote.get_info(GetInfoRequest {}).await
    };
    let info = asked.await.map_err(|error| error.to_string())?;
    let Server { version, state, uptime_ms, topics, subscriptions, peers, .. } =
        info.server.unwrap_or_default();
    Ok(Answer { version, status: state, uptime_ms, topics, subscriptions, peers })
}

pub(crate) fn show(console: Console, found: &[Found]) -> Result<(), CliError> {
    console.show(&json!({ "daemons": found }), || text(&console, found))
}

fn text(console: &Console, found: &[Found]) -> String {
    if found.is_empty() {
        return "no daemon was heard; --mcast-addr and --mcast-port say where beacons go, --timeout \
                listens longer"
            .to_owned();
    }
    let columns = [
        Number("#"),
        Text("ADDRESS"),
        Text("VERSION"),
        Text("STATUS"),
        Text("UPTIME"),
        Number("TOPICS"),
        Number("SUBS"),
        Number("PEERS"),
    ];
    let rows = found.iter().map(|found| {
        let mut row = vec![found.index.to_string(), found.target.to_string()];
        match &found.answer {
            Some(answer) => row.extend([
                answer.version.clone(),
                answer.status.clone(),
                milliseconds(answer.uptime_ms),
                number(answer.topics),
                number(answer.subscriptions),
                number(answer.peers.into()),
            ]),
            None => row.extend(["-", "no answer", "-", "-", "-", "-"].map(str::to_owned)),
        }
        row
    });
    table(console, &columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: usize, answer: Option<Answer>) -> Found {
        let target = Target { host: "10.0.0.7".to_owned(), port: 5_672 };
        Found {
            index,
            target,
            node_id: "5f".to_owned(),
            cluster: "default".to_owned(),
            mesh_address: "10.0.0.7:5671".to_owned(),
            started_ms: 1_700_000_000_000,
            error: answer.is_none().then(|| "no daemon answers".to_owned()),
            answer,
        }
    }

    #[test]
    fn daemons_have_the_columns_that_are_promised() {
        let answer = Answer {
            version: "0.1.0".to_owned(),
            status: "running".to_owned(),
            uptime_ms: 3_725_000,
            topics: 1_234,
            subscriptions: 12,
            peers: 2,
        };
        let expected = "\
#  ADDRESS        VERSION  STATUS     UPTIME  TOPICS  SUBS  PEERS
1  10.0.0.7:5672  0.1.0    running    1h 2m    1,234    12      2
2  10.0.0.7:5672  -        no answer  -            -     -      -";
        let text = text(&Console::plain(), &[found(1, Some(answer)), found(2, None)]);
        assert_eq!(text, expected);
    }

    #[test]
    fn a_silent_daemon_is_told_with_its_address_and_reason() {
        let document = serde_json::to_value(found(1, None)).expect("a document");
        assert_eq!(document["address"], "10.0.0.7:5672");
        assert_eq!(document["error"], "no daemon answers");
    }
}
