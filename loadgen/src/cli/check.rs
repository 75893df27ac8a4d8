//! Which flags fit together. What does not is refused in one sentence, before anything is started.

use std::time::Duration;

use super::{Cli, usage};
use crate::error::LoadError;
use crate::policy::Policy;
use crate::quantity::Rate;
use crate::server::DaemonIo;
use crate::stamp::STAMP_BYTES;
use crate::target::Target;
use crate::workload::Workload;

/// The shortest time between two breaks of a connection.
const RESUME_EVERY_MIN: Duration = Duration::from_millis(10);

impl Cli {
    /// One sentence about what does not fit, if anything.
    pub(super) fn check(&self, workload: Workload) -> Result<(), LoadError> {
        if let Some(size) = self.size.iter().find(|size| **size < STAMP_BYTES) {
            return Err(usage(format!(
                "--size {size} is too small: a payload carries a counter and a time, \
                 {STAMP_BYTES} bytes"
            )));
        }
        if self.duration < Duration::from_millis(100) {
            return Err(usage("--duration must be at least 100ms"));
        }
        if self.fan_out.contains(&0) {
            return Err(usage("--fan-out must be at least 1"));
        }
        if workload != Workload::P && !self.fan_out.is_empty() {
            return Err(usage("--fan-out belongs to --workload P"));
        }
        if workload != Workload::L && !self.capacity_shares.is_empty() {
            return Err(usage("--capacity-shares belongs to --workload L"));
        }
        let is_daemon = matches!(self.target, Target::Nexusd | Target::NexusdGrpc);
        if self.io == DaemonIo::Epoll && !is_daemon {
            return Err(usage(
                "--io epoll belongs to --target nexusd; pump and relay have io_uring",
            ));
        }
        if workload == Workload::B && matches!(self.target, Target::Pump | Target::Relay) {
            return Err(usage(
                "--workload B needs a server that does without a stalled subscriber; pump and relay \
                 wait for it for ever",
            ));
        }
        if workload == Workload::Q && self.target != Target::Nexusd {
            return Err(usage(
                "--workload Q needs a server that drops what nobody wants; pump and relay wait for a \
                 reader",
            ));
        }
        if workload == Workload::Q && self.rate == Some(Rate::Max) {
            return Err(usage("--workload Q measures a quiet pair: give its --rate in messages/s"));
        }
        if workload == Workload::W && matches!(self.target, Target::Pump | Target::Relay) {
            return Err(usage(
                "--workload W needs a server that knows filters; pump and relay know none",
            ));
        }
        self.check_peer(workload)?;
        self.check_topics(workload)?;
        self.check_idle(workload)?;
        self.check_mesh(workload)?;
        self.check_resume(workload)?;
        self.check_daemon(workload)
    }

    /// What the generator can ask of other systems.
    fn check_peer(&self, workload: Workload) -> Result<(), LoadError> {
        let is_ours = matches!(workload, Workload::Q | Workload::C);
        if self.target.program().is_some() && is_ours {
            return Err(usage(format!(
                "--workload {} cannot be run with --target {}: it needs what only nexusd has",
                workload.name(),
                self.target.name()
            )));
        }
        if self.target == Target::NexusdGrpc
            && matches!(workload, Workload::W | Workload::S | Workload::Q)
        {
            return Err(usage(format!(
                "--workload {} cannot be run with --target nexusd-grpc, whose streams are of T1, T2, F, P, L, \
                 B and K",
                workload.name()
            )));
        }
        if (self.target, workload) == (Target::Zenoh, Workload::W) {
            return Err(usage(
                "--workload W cannot be run with --target zenoh: its router is not through with the \
                 first 10,000 filters and topics after two minutes",
            ));
        }
        Ok(())
    }

    fn check_topics(&self, workload: Workload) -> Result<(), LoadError> {
        if workload != Workload::K && !self.topics.is_empty() {
            return Err(usage("--topics belongs to --workload K"));
        }
        if workload != Workload::W && !self.filters.is_empty() {
            return Err(usage("--filters belongs to --workload W"));
        }
        if !matches!(workload, Workload::K | Workload::W) && !self.order.is_empty() {
            return Err(usage("--order belongs to --workload K and W"));
        }
        Ok(())
    }

    fn check_idle(&self, workload: Workload) -> Result<(), LoadError> {
        if workload != Workload::S {
            return match self.clients {
                Some(_) => Err(usage("--clients belongs to --workload S")),
                None => Ok(()),
            };
        }
        if matches!(self.target, Target::Pump | Target::Relay) {
            return Err(usage(
                "--workload S needs a server that knows subscriptions; pump and relay know none",
            ));
        }
        match self.flag_of_traffic() {
            Some(flag) => {
                Err(usage(format!("--workload S has idle clients: {flag} changes nothing there")))
            }
            None => Ok(()),
        }
    }

    fn check_mesh(&self, workload: Workload) -> Result<(), LoadError> {
        if !workload.is_meshed() {
            return match (self.nodes, self.seed) {
                (Some(2..), _) => Err(usage("--nodes belongs to --workload M1, M3 and C")),
                (_, true) => Err(usage("--seed belongs to --workload M1, M3 and C")),
                _ => Ok(()),
            };
        }
        let name = workload.name();
        match (workload, self.target) {
            (_, Target::Nexusd) => {}
            (Workload::M1 | Workload::M3, target) if target.has_mesh() => {}
            (Workload::M1 | Workload::M3, target) => {
                return Err(usage(format!(
                    "--workload {name} needs servers that pass on to each other what is published at \
                     one of them, those of --target nexusd, nats or zenoh; {} is a server on its own",
                    target.name()
                )));
            }
            _ => return Err(usage(format!("--workload {name} needs --target nexusd"))),
        }
        if self.seed && self.target != Target::Nexusd {
            return Err(usage(
                "--seed belongs to --target nexusd: other systems are told addresses",
            ));
        }
        if self.addr.is_some() || self.unix.is_some() {
            return Err(usage(format!(
                "--workload {name} starts its nodes itself: it needs neither --addr nor --unix"
            )));
        }
        if self.nodes == Some(1) {
            return Err(usage(format!("--workload {name} needs at least --nodes 2")));
        }
        match (workload, self.flag_of_traffic()) {
            (Workload::C, Some(flag)) => {
                Err(usage(format!("--workload C has no traffic: {flag} changes nothing there")))
            }
            _ => Ok(()),
        }
    }

    /// A flag that is given and says something of traffic.
    fn flag_of_traffic(&self) -> Option<&'static str> {
        let flags = [
            ("--rate", self.rate.is_some()),
            ("--ack", self.ack.is_some()),
            ("--policy", self.policy.is_some()),
            ("--counted", self.counted),
            ("--resume", self.resume.is_some()),
        ];
        flags.iter().find(|(_, is_given)| *is_given).map(|(flag, _)| *flag)
    }

    fn check_resume(&self, workload: Workload) -> Result<(), LoadError> {
        let Some(every) = self.resume else {
            return Ok(());
        };
        if matches!(workload, Workload::B | Workload::Q) {
            return Err(usage(format!(
                "--workload {} compares subscribers that stay connected: --resume breaks their \
                 connections",
                workload.name()
            )));
        }
        if every < RESUME_EVERY_MIN {
            return Err(usage("--resume must be at least 10ms"));
        }
        if every >= self.warmup + self.duration {
            return Err(usage("--resume must be shorter than --warmup and --duration together"));
        }
        Ok(())
    }

    /// What only the daemon knows.
    fn check_daemon(&self, workload: Workload) -> Result<(), LoadError> {
        let of_daemon = [
            ("--ack", self.ack.is_some()),
            ("--policy", self.policy.is_some()),
            ("--counted", self.counted),
            ("--resume", self.resume.is_some()),
            ("--shards", self.shards.is_some() && self.target != Target::NexusdGrpc),
        ];
        if let (Some((flag, _)), true) =
            (of_daemon.iter().find(|(_, is_given)| *is_given), self.target != Target::Nexusd)
        {
            return Err(usage(format!("{flag} belongs to --target nexusd")));
        }
        if self.shards.is_some() && (self.addr.is_some() || self.unix.is_some()) {
            return Err(usage(
                "--shards belongs to a daemon that is started here, not to --addr or --unix",
            ));
        }
        if workload == Workload::B
            && matches!(self.policy, Some(Policy::Block | Policy::Disconnect))
        {
            return Err(usage(
                "--workload B needs a --policy that drops: drop-oldest or drop-newest",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::request;

    #[test]
    fn what_does_not_fit_together_is_refused_in_one_sentence() {
        for (arguments, expected) in [
            ("--size 128", "--workload T1"),
            ("--workload T1 --size 15", "16 bytes"),
            ("--workload T1 --size 128,8", "16 bytes"),
            ("--workload B --target relay", "stalled subscriber"),
            ("--workload T1 --target relay --io epoll", "--target nexusd"),
            ("--workload T1 --capacity-shares 10", "--workload L"),
            ("--workload T1 --fan-out 2", "--workload P"),
            ("--workload T1 --addr nowhere", "127.0.0.1:5672"),
            ("--workload T1 --server-pid 1", "--addr or --unix"),
            ("--workload T1 --addr 127.0.0.1:1 --spawn", "cannot be used with"),
            ("--workload T1 --topics 5", "--workload K"),
            ("--workload K --topics 17M", "16777216"),
            ("--workload K --filters 400", "--workload W"),
            ("--workload W --filters 500", "multiple of 400"),
            ("--workload W --filters 4M", "at most 400000"),
            ("--workload T1 --order zipf", "--workload K and W"),
            ("--workload W --target relay", "filters"),
            ("--workload Q --target relay", "nobody wants"),
            ("--workload Q --rate max", "--rate"),
            ("--workload T1 --target relay --ack", "--target nexusd"),
            ("--workload T1 --target pump --policy block", "--target nexusd"),
            ("--workload T1 --shards 2 --addr 127.0.0.1:1", "started here"),
            ("--workload B --policy block", "drop-newest"),
            ("--workload T1 --clients 5", "--workload S"),
            ("--workload S --target pump", "know none"),
            ("--workload S --rate 5", "idle clients"),
            ("--workload S --resume", "idle clients"),
            ("--workload T1 --nodes 2", "--workload M1"),
            ("--workload T1 --seed", "--workload M1"),
            ("--workload M1 --nodes 1", "--nodes 2"),
            ("--workload M1 --nodes 0", "from 1 to"),
            ("--workload C --nodes 1000", "from 1 to"),
            ("--workload M3 --target relay", "--target nexusd"),
            ("--workload W --target zenoh", "two minutes"),
            ("--workload M3 --target redis", "on its own"),
            ("--workload M1 --target mqtt", "nexusd, nats or zenoh"),
            ("--workload M1 --target zenoh --seed", "--seed"),
            ("--workload C --target nats", "only nexusd has"),
            ("--workload C --addr 127.0.0.1:1", "itself"),
            ("--workload C --rate 5", "no traffic"),
            ("--seed", "--workload T1"),
            ("--workload T1 --target relay --counted", "--target nexusd"),
            ("--workload T1 --target pump --resume 1", "--target nexusd"),
            ("--workload B --resume", "stay connected"),
            ("--workload Q --resume", "stay connected"),
            ("--workload T1 --resume 0", "10ms"),
            ("--workload T1 --resume 6", "shorter"),
            ("--counted", "--workload T1"),
            ("--resume", "--workload T1"),
            ("--workload T9", "invalid value"),
            ("--workload T1 --rate fast", "20k"),
        ] {
            let error = request(arguments).expect_err(arguments);
            assert!(error.contains(expected), "{arguments}: {error}");
        }
    }
}
