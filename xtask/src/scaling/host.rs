//! What a host with 64 cores and a link of 100 Gbit/s would give, computed from costs that were measured on
//! two cores.
//!
//! Four resources are asked how many messages a second they bear, and the least of the answers is the
//! host's: cores for shards, the link in its busier direction, memory bandwidth, and, for a single publisher, the one
//! shard and the one connection that it has.
//! Pure: every assumption is a number in here, and each stands in the report.

/// What a message costs on the machine that was measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) payload_bytes: f64,
    /// Subscribers of each message.
    pub(crate) copies: f64,
    /// CPU of the server for a message with all its deliveries.
    pub(crate) user_ns: f64,
    pub(crate) kernel_ns: f64,
}

/// The host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Host {
    /// Cores that shards have.
    pub(crate) cores: f64,
    /// Cost of a message whose topic another shard owns, beside one that stays.
    pub(crate) crossing: f64,
    /// Cost of the kernel's part on a network card, beside the loopback interface.
    pub(crate) card: f64,
    /// Each direction.
    pub(crate) link_bytes_per_s: f64,
    /// Share of it that is TCP's payload.
    pub(crate) goodput: f64,
    /// Memory bandwidth that programs get.
    pub(crate) memory_bytes_per_s: f64,
}

/// 64 cores, 100 Gbit/s, eight channels of DDR5-4800.
pub(crate) const HOST: Host = Host {
    // Eight of the 64 are left to interrupts of the card, to the control thread and to the mesh thread.
    cores: 56.0,
    // Measured with two shards: BENCHMARKS.md, "Two shards".
    crossing: 1.16,
    card: 1.0,
    link_bytes_per_s: 100e9 / 8.0,
    // 1,448 bytes of payload in 1,538 bytes on the wire.
    goodput: 1_448.0 / 1_538.0,
    // Seven tenths of 8 × 38.4 GB/s.
    memory_bytes_per_s: 0.7 * 8.0 * 38.4e9,
};

/// Bytes of a frame beside its payload.
pub(crate) const FRAME_BYTES: f64 = 48.0;

/// How often a byte that comes in crosses the memory bus: the card writes it, the kernel copies it to the
/// receive buffer, the shard copies it to the log; each copy reads and writes.
const CROSSINGS_IN: f64 = 5.0;
/// The same for each byte that leaves: the kernel reads the log and writes a socket buffer, the card reads that.
const CROSSINGS_OUT: f64 = 3.0;
/// The least, with caches as good as they can be: the card writes to the cache and reads from it, buffers and the
/// log's tail stay there. The log itself goes to memory once, socket buffers as well.
const CROSSINGS_IN_LEAST: f64 = 1.0;
const CROSSINGS_OUT_LEAST: f64 = 1.0;

/// What a resource bears.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bound {
    pub(crate) resource: &'static str,
    pub(crate) messages_per_s: f64,
}

impl Workload {
    fn frame_bytes(&self) -> f64 {
        self.payload_bytes + FRAME_BYTES
    }

    /// CPU time of a shard for a message with all its deliveries.
    pub(crate) fn cpu_ns(&self, host: &Host) -> f64 {
        (self.user_ns + self.kernel_ns * host.card) * host.crossing
    }

    /// Bytes over the memory bus for a message with all its deliveries.
    pub(crate) fn memory_bytes(&self) -> f64 {
        self.frame_bytes() * (CROSSINGS_IN + CROSSINGS_OUT * self.copies)
    }

    /// The same with caches as good as they can be.
    pub(crate) fn memory_bytes_least(&self) -> f64 {
        self.frame_bytes() * (CROSSINGS_IN_LEAST + CROSSINGS_OUT_LEAST * self.copies)
    }

    /// What each resource bears, for as many publishers as the host likes; the least first.
    pub(crate) fn bounds(&self, host: &Host) -> Vec<Bound> {
        let bound = |resource, messages_per_s| Bound { resource, messages_per_s };
        let goodput = host.link_bytes_per_s * host.goodput;
        let mut bounds = vec![
            bound("cores", host.cores * 1e9 / self.cpu_ns(host)),
            bound("link", goodput / (self.frame_bytes() * self.copies.max(1.0))),
            bound("memory", host.memory_bytes_per_s / self.memory_bytes()),
        ];
        bounds.sort_by(|one, other| one.messages_per_s.total_cmp(&other.messages_per_s));
        bounds
    }

    /// Messages a second of a single publisher, whose topic one shard owns.
    pub(crate) fn one_shard(&self, host: &Host) -> f64 {
        1e9 / (self.user_ns + self.kernel_ns * host.card)
    }

    /// Payload that leaves, in gigabits a second, at so many messages.
    pub(crate) fn payload_gbits_per_s(&self, messages_per_s: f64) -> f64 {
        messages_per_s * self.copies * self.payload_bytes * 8.0 / 1e9
    }

    /// Cores that a rate takes.
    pub(crate) fn cores_at(&self, host: &Host, messages_per_s: f64) -> f64 {
        messages_per_s * self.cpu_ns(host) / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(payload_bytes: f64, copies: f64, cpu_ns: f64) -> Workload {
        let (user_ns, kernel_ns) = (cpu_ns * 0.2, cpu_ns * 0.8);
        Workload { name: String::new(), payload_bytes, copies, user_ns, kernel_ns }
    }

    const EVEN: Host = Host {
        cores: 10.0,
        crossing: 1.0,
        card: 1.0,
        link_bytes_per_s: 10e9,
        goodput: 1.0,
        memory_bytes_per_s: 80e9,
    };

    #[test]
    fn the_resource_that_ends_first_stands_first() {
        // 1,000 bytes on the wire: ten million a second fill the link, ten million the memory, and ten
        // cores that take 2 µs for each end at five million.
        let bounds = workload(952.0, 1.0, 2_000.0).bounds(&EVEN);
        let expected = [("cores", 5e6), ("link", 1e7), ("memory", 1e7)];
        for (bound, (resource, messages_per_s)) in bounds.iter().zip(expected) {
            assert_eq!(bound.resource, resource);
            assert!((bound.messages_per_s / messages_per_s - 1.0).abs() < 1e-9, "{bounds:?}");
        }
    }

    #[test]
    fn fan_out_fills_the_link_with_copies() {
        let workload = workload(952.0, 10.0, 2_000.0);
        let bounds = workload.bounds(&EVEN);
        assert_eq!(bounds[0].resource, "link");
        assert!((bounds[0].messages_per_s - 1e6).abs() < 1.0);
        assert!((workload.cores_at(&EVEN, 1e6) - 2.0).abs() < 1e-9);
        assert!((workload.payload_gbits_per_s(1e6) - 76.16).abs() < 1e-6);
    }

    #[test]
    fn a_card_that_costs_more_than_loopback_costs_cores_of_the_kernel_alone() {
        let dear = Host { card: 2.0, ..EVEN };
        let workload = workload(952.0, 1.0, 1_000.0);
        assert!((workload.cpu_ns(&dear) - 1_800.0).abs() < 1e-9);
        assert!((workload.one_shard(&dear) - 1e9 / 1_800.0).abs() < 1e-3);
    }

    #[test]
    fn caches_can_only_save_memory() {
        let workload = workload(952.0, 4.0, 1_000.0);
        assert!((workload.memory_bytes() - 17_000.0).abs() < 1e-9);
        assert!((workload.memory_bytes_least() - 5_000.0).abs() < 1e-9);
    }
}
