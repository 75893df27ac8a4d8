//! The tables of docs/SCALING.md.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::host::{HOST, Workload};
use super::results::{grouped, noise, number};
use super::sweeps::Curve;
use crate::bench::tables::{figure, replace_between};

const FILE: &str = "docs/SCALING.md";

/// Puts the text of a part in its place.
pub(super) fn write(name: &str, text: &str) -> Result<()> {
    println!("\n{text}");
    let begin = format!("<!-- {name}: begin; written by `cargo xtask scaling` -->");
    replace_between(FILE, &begin, &format!("<!-- {name}: end -->"), text)
}

/// Curves with what they are about.
pub(super) fn curves(about: &str, commit: &str, curves: &[Curve]) -> String {
    let mut text = format!("{about} Measured of {commit}. {}\n", noise(curves));
    for curve in curves {
        text.push_str(&curve.report());
    }
    text
}

/// What a large host would give.
pub(super) fn host(
    payload: &[Curve],
    subscribers: &[Curve],
    connections: &[Curve],
    nodes: &[Curve],
) -> Result<String> {
    let host = HOST;
    let workload = |name: &str, payload_bytes: f64, copies: f64, curves: &[Curve], x: f64| {
        let point = curves.first().and_then(|curve| curve.at(x)).filter(|point| point.x == x);
        let (user_ns, kernel_ns) = point
            .and_then(|point| point.split)
            .with_context(|| format!("there is no cost of {name}: measure all sweeps again"))?;
        Ok::<_, anyhow::Error>(Workload {
            name: name.to_owned(),
            payload_bytes,
            copies,
            user_ns,
            kernel_ns,
        })
    };
    let workloads = [
        workload("T1, 128 B", 128.0, 1.0, payload, 128.0)?,
        workload("F64, 128 B", 128.0, 64.0, subscribers, 64.0)?,
        workload("T1, 16 KiB", 16_384.0, 1.0, payload, 16_384.0)?,
    ];
    let mut text = String::from(
        "Measured on two cores, per message with all its deliveries; everything to the right of it is computed.\n\n\
         | workload | user, kernel ns (measured) | 56 cores bear | link bears | memory bears | ends first | deliveries/s then | \
         payload out then | cores then |\n|---|---:|---:|---:|---:|---|---:|---:|---:|\n",
    );
    for workload in &workloads {
        let bounds = workload.bounds(&host);
        let of = |resource: &str| {
            let bound = bounds.iter().find(|bound| bound.resource == resource);
            figure(bound.map_or(0.0, |bound| bound.messages_per_s))
        };
        let first = bounds[0];
        let _ = writeln!(
            text,
            "| {} | {}, {} | {} | {} | {} | **{}** | {} | {:.0} Gbit/s | {:.1} |",
            workload.name,
            number(workload.user_ns),
            number(workload.kernel_ns),
            of("cores"),
            of("link"),
            of("memory"),
            first.resource,
            figure(first.messages_per_s * workload.copies),
            workload.payload_gbits_per_s(first.messages_per_s),
            workload.cores_at(&host, first.messages_per_s),
        );
    }
    text.push_str(
        "\nMessages a second. What the assumptions do to it: the kernel's part twice and four times as dear on a network card as on \
         the loopback interface; and what a single publisher gets, which has one connection and one shard:\n\n\
         | workload | cores bear, kernel × 2 | kernel × 4 | cores that the full link takes, kernel × 1, × 2, × 4 | \
         memory at the full link, worst and best | one publisher, messages/s |\n|---|---:|---:|---:|---:|---:|\n",
    );
    for workload in &workloads {
        let bounds = workload.bounds(&host);
        let link = bounds
            .iter()
            .find(|bound| bound.resource == "link")
            .map_or(0.0, |bound| bound.messages_per_s);
        let cores = |card: f64| {
            let dear = super::host::Host { card, ..host };
            (host.cores * 1e9 / workload.cpu_ns(&dear), workload.cores_at(&dear, link))
        };
        let ((_, one), (bear_two, two), (bear_four, four)) = (cores(1.0), cores(2.0), cores(4.0));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {one:.1}, {two:.1}, {four:.1} | {:.0}, {:.0} GB/s | {} |",
            workload.name,
            figure(bear_two),
            figure(bear_four),
            link * workload.memory_bytes() / 1e9,
            link * workload.memory_bytes_least() / 1e9,
            figure(workload.one_shard(&host)),
        );
    }
    let growth = |name: &str| {
        let curve = connections.iter().find(|curve| curve.name.starts_with(name))?;
        let (first, last) = (curve.points.first()?, curve.points.last()?);
        Some((last.median - first.median) * 1e6 / (last.x - first.x))
    };
    if let Some((user, kernel)) = growth("memory of the daemon").zip(growth("memory of the kernel"))
    {
        let _ = writeln!(
            text,
            "\nA million idle connections: {:.1} GB of the daemon and {:.1} GB of the kernel ({} and {} B each; the kernel's counts \
             both ends, of which a server has one).",
            user / 1e3,
            kernel / 1e3,
            grouped(user),
            grouped(kernel)
        );
    }
    let link = |name: &str| {
        let curve = nodes.iter().find(|curve| curve.name.starts_with(name))?;
        Some(curve.at(1.0)?.median)
    };
    if let Some((sends, receives)) =
        link("the publisher's node, per message").zip(link("a subscriber's node"))
    {
        let dearer = sends.max(receives);
        let per_s = 1e9 / dearer;
        let _ = writeln!(
            text,
            "\nA link between two nodes is one connection of one shard at either end. Of 128 B it carries at most {} messages a second \
             ({} ns at the publisher's node, {} at the subscriber's): {:.0} Gbit/s on the wire, {:.0} % of the card.",
            figure(per_s),
            number(sends),
            number(receives),
            per_s * 176.0 * 8.0 / 1e9 / host.goodput,
            per_s * 176.0 / host.goodput / host.link_bytes_per_s * 100.0
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::curve;
    use super::*;

    #[test]
    fn a_host_is_computed_from_what_was_measured_alone() {
        let payload = [curve("per message", &[(128.0, 80.0), (16_384.0, 4_000.0)])];
        let subscribers = [curve("per message", &[(1.0, 80.0), (64.0, 1_200.0)])];
        let memory = [
            curve("memory of the daemon", &[(1_000.0, 2.0), (2_000.0, 4.0)]),
            curve("memory of the kernel, both ends", &[(1_000.0, 9.0), (2_000.0, 18.0)]),
        ];
        let nodes = [
            curve("the publisher's node, per message", &[(1.0, 80.0)]),
            curve("a subscriber's node, per message", &[(1.0, 100.0)]),
        ];
        let text = host(&payload, &subscribers, &memory, &nodes).expect("all is there");
        // 56 cores ÷ 80 ns ÷ 1.16; 12.5 GB/s × 1,448 ÷ 1,538 ÷ 176 bytes.
        assert!(text.contains("| T1, 128 B | 20.0, 60.0 | 603.4 M | 66.9 M |"), "{text}");
        assert!(text.contains("2.0 GB of the daemon and 9.0 GB of the kernel"), "{text}");
        assert!(text.contains("at most 10.0 M messages a second"), "{text}");
        let error = host(&subscribers, &subscribers, &memory, &nodes).expect_err("no 16 KiB");
        assert!(error.to_string().contains("128 B"), "{error}");
    }
}
