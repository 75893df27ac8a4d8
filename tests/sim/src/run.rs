//! One seed from start to end.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::Once;

use crate::cluster::{Cluster, Gauges};
use crate::coverage::Coverage;
use crate::trace::Trace;
use crate::violation::Violation;
use crate::world::World;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// What happened, if it was wanted.
    pub trace: Vec<String>,
}

thread_local! {
    /// A run is going on in this thread: its panics are violations.
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
    /// Where the panic of this thread's run was, and what it said.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes panics inside runs silent, because they are reported as violations. Without it they are
/// reported and printed.
pub fn take_over_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_RUNNING.get() {
                return others(info);
            }
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let what = info.payload_as_str().unwrap_or("a panic without words");
            PANIC.set(Some(format!("panic at {place}: {what}")));
        }));
    });
}

/// Runs a seed for that many operations, on a node of at most `shards` shards. A panic, in a shard
/// or in a check, is a violation.
pub fn run_seed(
    seed: u64,
    shards: usize,
    operations: u64,
    wants_trace: bool,
    coverage: &mut Coverage,
) -> Outcome {
    let gauges = Rc::new(Gauges::default());
    let trace = Trace::new(wants_trace);
    let (mut world, config) =
        World::new(seed, shards, operations, coverage, trace, Rc::clone(&gauges));
    let mut shards = Cluster::new(&config, world.shards(), seed, gauges, wants_trace);
    let violation = catch(|| {
        nexusd_core::run(&mut world, &mut shards)?;
        world.check_finished()
    });
    let (operations, faults) = (world.operations(), world.faults());
    let trace = world.into_trace().into_lines();
    coverage.run(operations, faults);
    Outcome { violation, trace }
}

/// Runs something whose panics are violations.
pub(crate) fn catch(run: impl FnOnce() -> Result<(), Violation>) -> Option<Violation> {
    IS_RUNNING.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    IS_RUNNING.set(false);
    match result {
        Ok(result) => result.err(),
        Err(_) => Some(Violation(PANIC.take().unwrap_or_else(|| "a panic".to_owned()))),
    }
}
