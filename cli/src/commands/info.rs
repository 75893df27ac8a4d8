//! INFO: what a daemon is and does.

use nexusd_admin::proto::{GetInfoRequest, Info, Memory, Metric, Server, Setting};
use serde_json::json;

use crate::arguments::InfoSection;
use crate::console::Console;
use crate::error::CliError;
use crate::format::{bytes, milliseconds, number, utc, yes};
use crate::remote::Remote;
use crate::table::Column::{Number, Text};
use crate::table::{list, table};

pub(crate) async fn run(
    section: InfoSection,
    remote: &Remote,
    console: Console,
) -> Result<(), CliError> {
    let info = remote.get_info(GetInfoRequest {}).await?;
    let part = match section {
        InfoSection::Server => json!({ "server": info.server }),
        InfoSection::Stats => json!({ "stats": info.stats }),
        InfoSection::Memory => json!({ "memory": info.memory }),
        InfoSection::Config => json!({ "config": info.config }),
        InfoSection::All => json!(info),
    };
    console.show(&part, || text(&console, section, &info))
}

fn text(console: &Console, section: InfoSection, info: &Info) -> String {
    let Info { server, memory, stats, config } = info;
    let is_wanted = |part| section == part || section == InfoSection::All;
    let mut parts = Vec::new();
    if is_wanted(InfoSection::Server) {
        parts.extend(server.as_ref().map(|server| server_text(console, server)));
    }
    if is_wanted(InfoSection::Memory) {
        parts.extend(memory.as_ref().map(|memory| memory_text(console, *memory)));
    }
    if is_wanted(InfoSection::Stats) {
        parts.push(stats_text(console, stats));
    }
    if is_wanted(InfoSection::Config) {
        parts.push(config_text(console, config));
    }
    parts.join("\n\n")
}

fn server_text(console: &Console, server: &Server) -> String {
    let unix = if server.unix_socket.is_empty() { "none" } else { &server.unix_socket };
    let entries = [
        ("version", server.version.clone()),
        ("node", server.node_id.clone()),
        ("cluster", server.cluster.clone()),
        ("state", server.state.clone()),
        ("started", utc(server.started_ms)),
        ("uptime", milliseconds(server.uptime_ms)),
        ("process", server.pid.to_string()),
        ("shards", server.shards.to_string()),
        ("io", server.io.clone()),
        ("applications", listed(&server.app_addresses)),
        ("unix socket", unix.to_owned()),
        ("mesh", listed(&server.mesh_addresses)),
        ("kernel", server.kernel.clone()),
        ("peers", number(server.peers.into())),
        ("topics", number(server.topics)),
        ("subscriptions", number(server.subscriptions)),
        ("connections", number(server.connections)),
    ];
    list(console, "Server", &entries)
}

/// Addresses that are listened on.
fn listed(addresses: &[String]) -> String {
    let shown = |address: &String| {
        let is_every = address.starts_with("0.0.0.0:") || address.starts_with("[::]:");
        if is_every { format!("{address} (every address of the host)") } else { address.clone() }
    };
    addresses.iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn memory_text(console: &Console, memory: Memory) -> String {
    let entries = [
        ("resident", bytes(memory.resident_bytes)),
        ("limit", bytes(memory.limit_bytes)),
        ("log", bytes(memory.log_bytes)),
        ("queued", bytes(memory.queued_bytes)),
        ("retained", bytes(memory.retained_bytes)),
    ];
    list(console, "Memory", &entries)
}

fn stats_text(console: &Console, stats: &[Metric]) -> String {
    let columns = [Text("STATISTIC"), Number("VALUE"), Text("KIND"), Text("MEANING")];
    let rows = stats.iter().enumerate().map(|(at, metric)| {
        let Metric { name, kind, value, .. } = metric.clone();
        vec![name, number(value), kind, meaning(metric, &stats[..at])]
    });
    table(console, &columns, rows)
}

/// What it counts. A sentence that one above begins with is not said again.
fn meaning(metric: &Metric, above: &[Metric]) -> String {
    let Some((sentence, rest)) = metric.help.split_once(". ") else { return metric.help.clone() };
    let says_it =
        |other: &&Metric| other.help.split_once(". ").is_some_and(|(begin, _)| begin == sentence);
    match above.iter().find(says_it) {
        Some(first) => format!("As {}. {rest}", first.name),
        None => metric.help.clone(),
    }
}

fn config_text(console: &Console, config: &[Setting]) -> String {
    let columns = [Text("SETTING"), Text("VALUE"), Text("SOURCE"), Text("RELOADABLE")];
    let rows = config.iter().map(|setting| {
        let Setting { name, value, source, is_reloadable } = setting.clone();
        vec![name, value, source, yes(is_reloadable).to_owned()]
    });
    table(console, &columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reasons_have_in_common_is_said_once() {
        let metric = |name: &str, help: &str| Metric {
            name: name.to_owned(),
            kind: "counter".to_owned(),
            value: 0,
            help: help.to_owned(),
        };
        let stats = [
            metric("slow", "Lost ones, by reason. This one: slow."),
            metric("memory", "Lost ones, by reason. This one: memory."),
            metric("topics", "Topics now."),
        ];
        let expected = "\
STATISTIC  VALUE  KIND     MEANING
slow           0  counter  Lost ones, by reason. This one: slow.
memory         0  counter  As slow. This one: memory.
topics         0  counter  Topics now.";
        assert_eq!(stats_text(&Console::plain(), &stats), expected);
    }

    #[test]
    fn a_section_is_shown_alone() {
        let metric = Metric {
            name: "messages_in".to_owned(),
            kind: "counter".to_owned(),
            value: 1_234_567,
            help: "messages published".to_owned(),
        };
        let info = Info {
            server: Some(Server { version: "0.1.0".to_owned(), ..Server::default() }),
            memory: Some(Memory { limit_bytes: 384 << 20, ..Memory::default() }),
            stats: vec![metric],
            config: Vec::new(),
        };
        let stats = text(&Console::plain(), InfoSection::Stats, &info);
        let expected = "\
STATISTIC        VALUE  KIND     MEANING
messages_in  1,234,567  counter  messages published";
        assert_eq!(stats, expected);
        let memory = text(&Console::plain(), InfoSection::Memory, &info);
        assert!(memory.starts_with("Memory\n  resident  0 B\n  limit     384 MiB"), "{memory}");
        let all = text(&Console::plain(), InfoSection::All, &info);
        assert!(all.contains("Server\n") && all.contains("Memory\n") && all.contains("SETTING"));
    }
}
