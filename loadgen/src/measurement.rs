//! What one run measured, and whether it counts.

use crate::acks::AckReport;
use crate::comebacks::ComebackReport;
use crate::flood::FloodReport;
use crate::hiccup::Hiccups;
use crate::idle::IdleFigures;
use crate::latency::Latencies;
use crate::mesh::MeshFigures;
use crate::nodes::NodeCost;
use crate::quantity::Rate;
use crate::sequence_check::Faults;
use crate::server::account::CpuTime;
use crate::server::sends::SendCounts;
use crate::stalled::StalledReport;
use crate::target::FramingTotals;
use crate::workload::Case;

/// A schedule counts as kept from this share of its rate on.
const RATE_KEPT: f64 = 0.99;
/// A run is noisy when others use more than this share of its cores.
const OTHERS_SHARE_MAX: f64 = 0.05;

/// What one run measured.
#[derive(Debug)]
pub(crate) struct Measurement {
    /// Length of the measured interval, in seconds.
    pub(crate) elapsed_s: f64,
    /// Messages handed to sockets within it.
    pub(crate) sent: u64,
    /// Messages received within it, over all subscribers that read.
    pub(crate) received: u64,
    /// Messages sent in all, warm-up included.
    pub(crate) sent_in_all: u64,
    /// Messages of the schedule that were never sent.
    pub(crate) unsent: u64,
    /// What was wrong, over everything.
    pub(crate) faults: Faults,
    /// What subscribers that read were told about losses, and their acknowledgements.
    pub(crate) totals: FramingTotals,
    /// From the intended time to the read; at an unlimited rate from the send. Of a sample where messages are many.
    pub(crate) latencies: Latencies,
    /// From the send to the read.
    pub(crate) send_latencies: Latencies,
    /// What each server cost.
    pub(crate) nodes: Vec<NodeCost>,
    /// CPU time of the generator within the interval.
    pub(crate) load_cpu: Option<CpuTime>,
    /// CPU time that anybody else used on the cores of server and load within the interval.
    pub(crate) other_cpu_ns: Option<u64>,
    /// Sends the server made, if it tells.
    pub(crate) server_sends: Option<SendCounts>,
    /// What the machine did meanwhile.
    pub(crate) hiccups: Hiccups,
    /// How far apart the cores of server and load were, before or after it, whichever was further; if there are two.
    pub(crate) core_distance_ns: Option<f64>,
    /// What the stalled subscriber found, if there was one.
    pub(crate) stalled: Option<StalledReport>,
    /// What flooded the server meanwhile.
    pub(crate) flood: Option<FloodReport>,
    /// What acknowledgements said, if they were asked for.
    pub(crate) acks: Option<AckReport>,
    /// What coming back took, if connections were to break.
    pub(crate) comebacks: Option<ComebackReport>,
    /// What idle clients cost, in the workload that has them.
    pub(crate) idle: IdleFigures,
    /// How the nodes came together, if there are several.
    pub(crate) mesh: MeshFigures,
    /// What kept them from it, in words.
    pub(crate) not_converged: Option<String>,
}

/// Messages per second of CPU time; `None` if that is nothing.
pub(crate) fn per_cpu_second(messages: u64, cpu: CpuTime) -> Option<f64> {
    (cpu.nanoseconds() > 0).then(|| messages as f64 / cpu.seconds())
}

impl Measurement {
    /// Everything that keeps this run from counting; empty if it is valid.
    pub(crate) fn objections(&self, case: &Case) -> Vec<String> {
        let mut objections = Vec::new();
        objections.extend(self.not_converged.clone());
        let mut object = |count: u64, what: &str| {
            if count > 0 {
                objections.push(format!("{count} messages {what}"));
            }
        };
        object(self.faults.lost, "lost");
        object(self.faults.duplicated, "duplicated");
        object(self.faults.reordered, "out of order");
        object(self.faults.foreign, "that nobody sent");
        object(self.unsent, "of the schedule never sent");
        if let Some(acks) = &self.acks {
            object(acks.missing, "never acknowledged");
            object(acks.out_of_order, "acknowledged out of order");
            object(acks.refused, "refused by their acknowledgement");
        }
        if let Some(comebacks) = &self.comebacks {
            if comebacks.breaks == 0 {
                objections.push("no connection was broken".into());
            }
            if self.totals.told_lost != self.faults.lost {
                objections.push(format!(
                    "{} messages were told as lost, but {} were",
                    self.totals.told_lost, self.faults.lost
                ));
            }
        }
        if let Rate::PerSecond(rate) = case.rate {
            let rates =
                [("sent", self.sent, 1), ("received", self.received, case.shape.copies() as u64)];
            for (what, messages, copies) in rates {
                let share = messages as f64 / self.elapsed_s / (rate * copies) as f64;
                if share < RATE_KEPT {
                    objections.push(format!(
                        "only {:.1} % of the offered rate was {what}",
                        share * 100.0
                    ));
                }
            }
        }
        match &self.stalled {
            Some(stalled) if stalled.exact == Some(false) => objections.push(format!(
                "the stalled subscriber received {} and was told of {} lost, but {} were sent",
                stalled.received, stalled.told_lost, stalled.sent
            )),
            Some(stalled) if stalled.misplaced > 0 => objections.push(format!(
                "the stalled subscriber received {} messages twice, out of order or from nobody",
                stalled.misplaced
            )),
            _ => {}
        }
        if self.flood.is_some_and(|flood| flood.sent_per_s == 0.0) {
            objections.push("there was no flood".into());
        }
        if self.received == 0 {
            objections.push("nothing was received".into());
        }
        objections
    }

    /// Whether the figures deserve a warning: others used the cores, or, on a schedule, the cores
    /// were not ours too often. At an unlimited rate the load itself keeps a core for milliseconds
    /// in single system calls, which the meter cannot tell from anybody else.
    pub(crate) fn is_noisy(&self, case: &Case) -> bool {
        let core_seconds = self.hiccups.cores as f64 * self.elapsed_s;
        let others = self.other_cpu_ns.unwrap_or(0) as f64 / 1e9;
        others > OTHERS_SHARE_MAX * core_seconds
            || (case.rate != Rate::Max && self.hiccups.are_many())
    }
}
