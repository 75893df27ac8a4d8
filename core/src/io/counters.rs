//! What a driver counts for itself, whichever it is. Tests and benchmarks read it; operators get theirs
//! from the service.

/// What a driver counts for itself. Counters only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DriverCounters {
    /// System calls made to wait; on io_uring they also submit.
    pub enters: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed at once because there were too many.
    pub refused: u64,
    /// Accepts that failed for want of file descriptors or memory.
    pub accepts_failed: u64,
    /// Receives that found no free buffer.
    pub receives_starved: u64,
}
