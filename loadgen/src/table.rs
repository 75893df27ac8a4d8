//! The result for people: a table with a line per run, and what there is to say about it below.

mod unit;

use comfy_table::{Cell, CellAlignment, Table, presets};

use self::unit::Unit;
use crate::core_distance::APART_NS;
use crate::flood::Flooded;
use crate::latency::LatencySummary;
use crate::report::RunRecord;
use crate::stalled::StalledReport;
use crate::workload::Workload;

/// A table of runs, and what they were measured on.
pub(crate) fn render(records: &[RunRecord]) -> String {
    let mut text = String::new();
    let (converging, others): (Vec<_>, Vec<_>) =
        records.iter().partition(|run| run.workload == Workload::C.name());
    let (idle, busy): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|run| run.idle.clients.is_some());
    let (throughput, latency): (Vec<_>, Vec<_>) =
        busy.into_iter().partition(|run| run.rate.is_none());
    if !throughput.is_empty() {
        text += &format!("{}\n\n", throughput_table(&throughput));
    }
    if !latency.is_empty() {
        text += &format!("{}\n\n", latency_table(&latency));
    }
    if !idle.is_empty() {
        text += &format!("{}\n\n", idle_table(&idle));
    }
    if !converging.is_empty() {
        text += &format!("{}\n\n", convergence_table(&converging));
    }
    for run in records {
        for note in notes(run) {
            let rate =
                run.rate.map_or_else(String::new, |rate| format!(" at {}/s", count(rate as f64)));
            text += &format!("{}{rate}, {}: {note}\n", name(run), size(run.size));
        }
    }
    if let Some(run) = records.first() {
        text += &format!("{}\n", conditions(run));
    }
    text
}

fn throughput_table(records: &[&RunRecord]) -> Table {
    let mut table = table(&[
        "throughput",
        "size",
        "window",
        "sent/s",
        "delivered/s",
        "per CPU-second",
        "of the first",
        "user time",
        "per send",
        "RSS",
        "valid",
    ]);
    for run in records {
        add_row(
            &mut table,
            [
                name(run),
                size(run.size),
                run.window.map_or_else(dash, |window| window.to_string()),
                count(run.sent_per_s),
                count(run.received_per_s),
                run.messages_per_cpu_s.map_or_else(dash, count),
                run.first_run
                    .and_then(|first| first.messages_per_cpu_s_ratio)
                    .map_or_else(dash, |ratio| format!("{:.1} %", ratio * 100.0)),
                run.user_ns_per_delivery.map_or_else(dash, |ns| format!("{ns:.0} ns")),
                run.bytes_per_send.map_or_else(dash, |bytes| format!("{}B", count(bytes))),
                run.server_rss_kb.map_or_else(dash, memory),
                validity(run),
            ],
        );
    }
    table
}

fn idle_table(records: &[&RunRecord]) -> Table {
    let unit =
        Unit::of_seconds(records.iter().flat_map(|run| [run.idle.connect_s, run.idle.reconnect_s]));
    let mut table = table(&[
        "idle clients",
        &format!("connected in {}", unit.name()),
        &format!("again in {}", unit.name()),
        "user memory",
        "kernel memory",
        "RSS",
        "valid",
    ]);
    let seconds = |time: Option<f64>| time.map_or_else(dash, |time| unit.show(time * 1e6));
    let each = |bytes: Option<f64>| bytes.map_or_else(dash, |bytes| format!("{bytes:.0} B each"));
    for run in records {
        add_row(
            &mut table,
            [
                name(run),
                seconds(run.idle.connect_s),
                seconds(run.idle.reconnect_s),
                each(run.idle.user_bytes_per_client),
                each(run.idle.kernel_bytes_per_client),
                run.server_rss_kb.map_or_else(dash, memory),
                validity(run),
            ],
        );
    }
    table
}

fn convergence_table(records: &[&RunRecord]) -> Table {
    let times = |run: &&RunRecord| [run.mesh.converged_s, run.mesh.converged_after_ready_s];
    let unit = Unit::of_seconds(records.iter().flat_map(times));
    let mut table = table(&[
        "convergence",
        "found by",
        &format!("converged in {}", unit.name()),
        &format!("{} after the last was ready", unit.name()),
        "routes",
        "probes",
        "RSS of all",
        "valid",
    ]);
    let seconds = |time: Option<f64>| time.map_or_else(dash, |time| unit.show(time * 1e6));
    for run in records {
        add_row(
            &mut table,
            [
                name(run),
                run.mesh.discovery.unwrap_or_default().to_owned(),
                seconds(run.mesh.converged_s),
                seconds(run.mesh.converged_after_ready_s),
                run.mesh.routes.map_or_else(dash, |routes| routes.to_string()),
                run.mesh.probes.map_or_else(dash, |probes| probes.to_string()),
                run.server_rss_kb.map_or_else(dash, memory),
                validity(run),
            ],
        );
    }
    table
}

fn latency_table(records: &[&RunRecord]) -> Table {
    let all = |run: &&RunRecord| [run.latency_us, run.send_latency_us, run.ack_latency_us];
    let unit = Unit::of(records.iter().flat_map(all).flatten().map(|latency| latency.p50));
    let mut table = table(&[
        &format!("latency in {}", unit.name()),
        "size",
        "rate",
        "from",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "CPU",
        "valid",
    ]);
    for run in records {
        let cpu = run
            .server_cpu_s
            .map_or_else(dash, |cpu| format!("{:.1} %", 100.0 * cpu / run.duration_s));
        let [p50, p90, p99, p999, p9999, max] = percentiles(run.latency_us, unit);
        let rate = run.rate.map_or_else(dash, |rate| count(rate as f64));
        add_row(
            &mut table,
            [
                name(run),
                size(run.size),
                rate,
                "intended".to_owned(),
                p50,
                p90,
                p99,
                p999,
                p9999,
                max,
                cpu,
                validity(run),
            ],
        );
        if run.send_latency_us.is_some() {
            add_row(&mut table, further_row("send", run.send_latency_us, unit));
        }
        if run.ack_latency_us.is_some() {
            add_row(&mut table, further_row("to the ack", run.ack_latency_us, unit));
        }
    }
    table
}

/// Another latency of the run in the row above.
fn further_row(from: &str, latency: Option<LatencySummary>, unit: Unit) -> [String; 12] {
    let [p50, p90, p99, p999, p9999, max] = percentiles(latency, unit);
    let [name, size, rate, cpu, validity] = [(); 5].map(|()| String::new());
    [name, size, rate, from.to_owned(), p50, p90, p99, p999, p9999, max, cpu, validity]
}

/// Dashes if nothing was recorded.
fn percentiles(latency: Option<LatencySummary>, unit: Unit) -> [String; 6] {
    let Some(latency) = latency else {
        return [(); 6].map(|()| dash());
    };
    let LatencySummary { p50, p90, p99, p999, p9999, max, .. } = latency;
    [p50, p90, p99, p999, p9999, max].map(|us| unit.show(us))
}

fn name(run: &RunRecord) -> String {
    format!("{} {} {}", run.target, run.workload, run.label)
}

/// What the figures were measured on.
fn conditions(run: &RunRecord) -> String {
    let unknown = || "unknown".to_owned();
    let server = match run.cores.server_cores.as_slice() {
        [] => "the server wherever it runs".to_owned(),
        cores => format!("the server on {}", named_cores(cores)),
    };
    format!(
        "CPU: {}, {} cores; Linux {}; {server}, the load on {}; commit {}",
        run.machine.cpu_model.clone().unwrap_or_else(unknown),
        run.machine.cpus,
        run.machine.kernel.clone().unwrap_or_else(unknown),
        named_cores(&run.cores.load_cores),
        run.machine.commit.clone().unwrap_or_else(unknown),
    )
}

fn named_cores(cores: &[usize]) -> String {
    let names: Vec<String> = cores.iter().map(usize::to_string).collect();
    let noun = if names.len() == 1 { "core" } else { "cores" };
    format!("{noun} {}", names.join(", "))
}

/// What a reader of the figures has to know.
fn notes(run: &RunRecord) -> Vec<String> {
    let mut notes = run.objections.clone();
    if run.noisy {
        // Without a view of other processes their part is not known.
        let others = run.other_cpu_s.map_or_else(String::new, |others| {
            format!("other programs took {:.0} % of a core; ", 100.0 * others / run.duration_s)
        });
        notes.push(format!(
            "disturbed: {others}{} hiccups, the longest {:.1} ms",
            run.hiccups,
            run.hiccup_longest_us / 1e3
        ));
    }
    if let Some(distance_ns) = run.core_distance_ns.filter(|distance_ns| *distance_ns >= APART_NS) {
        notes.push(format!(
            "the cores were {distance_ns:.0} ns apart, as far as cores without a cache in common: \
             compare it with such runs alone"
        ));
    }
    if let (false, Some(converged_s)) = (run.workload == Workload::C.name(), run.mesh.converged_s) {
        let each = run.nodes.iter().enumerate().map(|(number, node)| {
            let core = node.server_core.map_or_else(String::new, |core| format!(" on core {core}"));
            let messages = node.messages_per_cpu_s.map_or_else(dash, count);
            let resident = node.server_rss_kb.map_or_else(dash, memory);
            format!("node {number}{core}: {messages} deliveries per CPU-second, {resident}")
        });
        notes.extend(each);
        notes.push(format!("each node routed to each other one after {}", seconds(converged_s)));
    }
    if let Some(first_ms) = run.mesh.subscribe_to_first_ms {
        let first = microseconds(first_ms * 1e3);
        notes.push(format!("from the Subscribe to the first message from the other node {first}"));
    }
    if let (Some(acked), Some(every)) = (run.acked, run.ack_every) {
        let of = if every == 1 { String::new() } else { format!(" (one in {every})") };
        notes.push(format!("{acked} of {} messages were acknowledged{of}, in order", run.sent));
    }
    if let (Some(stream_acks), None) = (run.stream_acks, run.resumed) {
        notes.push(format!("subscribers acknowledged what they had {stream_acks} times"));
    }
    if let Some(resumed) = run.resumed {
        notes.push(format!("{resumed} connections were broken, and {}", return_times(run)));
    }
    if run.gaps > 0 {
        let messages = match run.told_lost {
            u64::MAX => "an unknown number of".to_owned(),
            messages => messages.to_string(),
        };
        notes.push(format!("{} gaps told of {messages} messages lost", run.gaps));
    }
    if let Some(stalled) = run.stalled {
        notes.push(what_became_of(&stalled));
    }
    if let Some(flood) = run.flood {
        let read = match flood.wanted_by {
            Flooded::Reader => format!("{}/s of them read", count(flood.received_per_s)),
            Flooded::Nobody => "nobody wanted them".to_owned(),
        };
        notes.push(format!("the flood sent {} messages/s, {read}", count(flood.sent_per_s)));
    }
    if let Some(quiet) = run.without_flood {
        let beside = run.latency();
        let beside = [beside.map(|latency| latency.p50), beside.map(|latency| latency.p99)];
        let told = |name, alone: Option<f64>, beside: Option<f64>, ratio: Option<f64>| {
            let [alone, beside] = [alone, beside].map(|us| us.map_or_else(dash, microseconds));
            let ratio = ratio.map_or_else(dash, |ratio| format!("{ratio:.2}"));
            format!("{name} {alone} alone, {beside} beside the flood, ratio {ratio}")
        };
        notes.push(told("p50", quiet.p50_us, beside[0], quiet.p50_ratio));
        notes.push(told("p99", quiet.p99_us, beside[1], quiet.p99_ratio));
    }
    if let Some(without) = run.without_stalled {
        let percent =
            |ratio: Option<f64>| ratio.map_or_else(dash, |ratio| format!("{:.1} %", ratio * 100.0));
        notes.push(format!(
            "of the run without a stalled subscriber: throughput {}, per CPU-second {}, p99 {}",
            percent(Some(without.received_ratio)),
            percent(without.messages_per_cpu_s_ratio),
            percent(without.p99_ratio)
        ));
    }
    notes
}

fn what_became_of(stalled: &StalledReport) -> String {
    let StalledReport { sent, received, told_lost, gaps, exact, untold_lost, cut_off, .. } =
        stalled;
    match exact {
        Some(exact) => {
            let exact = if *exact { "exact" } else { "NOT exact" };
            format!(
                "the stalled subscriber received {received} and was told of {told_lost} lost in {gaps} \
                 gaps, of {sent} sent: {exact}"
            )
        }
        None => {
            let connection = if *cut_off { "was cut off" } else { "stayed connected" };
            format!(
                "the stalled subscriber {connection}; it received {received} of {sent} sent, and \
                 {untold_lost} were lost without a word"
            )
        }
    }
}

/// How long subscribers were without messages when their connections broke.
fn return_times(run: &RunRecord) -> String {
    let Some(LatencySummary { p50, p99, max, .. }) = run.resume_latency_us else {
        return "no message came behind".to_owned();
    };
    let [p50, p99, max] = [p50, p99, max].map(microseconds);
    format!("messages came again within p50 {p50}, p99 {p99}, max {max}")
}

fn validity(run: &RunRecord) -> String {
    match (run.valid, run.noisy) {
        (true, false) => "yes".into(),
        (true, true) => "yes, noisy".into(),
        (false, _) => "NO".into(),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

/// Adds a row: a name, and numbers, which are aligned right.
fn add_row<const N: usize>(table: &mut Table, cells: [String; N]) {
    table.add_row(cells.into_iter().enumerate().map(|(at, text)| {
        let alignment = if at == 0 { CellAlignment::Left } else { CellAlignment::Right };
        Cell::new(text).set_alignment(alignment)
    }));
}

fn dash() -> String {
    "–".into()
}

/// Three digits and a unit of a thousand or a million.
fn count(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2} M", value / 1e6),
        value if value >= 1e3 => format!("{:.1} k", value / 1e3),
        value => format!("{value:.0}"),
    }
}

fn size(bytes: usize) -> String {
    format!("{bytes} B")
}

fn memory(kilobytes: u64) -> String {
    format!("{:.1} MiB", kilobytes as f64 / 1_024.0)
}

fn seconds(value: f64) -> String {
    microseconds(value * 1e6)
}

fn microseconds(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2} s", value / 1e6),
        value if value >= 1e4 => format!("{:.1} ms", value / 1e3),
        value => format!("{value:.0} µs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_their_unit() {
        assert_eq!(count(12_345_678.0), "12.35 M");
        assert_eq!(count(98_765.4), "98.8 k");
        assert_eq!(count(12.0), "12");
        assert_eq!(microseconds(83.4), "83 µs");
        assert_eq!(microseconds(12_340.0), "12.3 ms");
        assert_eq!(microseconds(2_500_000.0), "2.50 s");
        assert_eq!(memory(15_872), "15.5 MiB");
    }
}
