//! The three programs of `docs/USE_CASES.md`: each starts its own daemons, checks what it shows, and ends them.

use std::path::Path;

use anyhow::Result;

use crate::invocation::Invocation;
use crate::{grpc_clients, repository};

const EXAMPLES: &str = "docs/examples/use_cases";

/// Runs all of them with the binaries that tests run.
pub(crate) fn check() -> Result<()> {
    let examples = Path::new(EXAMPLES);
    let nexusd = repository::debug_binary("nexusd");
    let cli = repository::debug_binary("nexusd-cli");
    let sensors = repository::root().join(examples).join("sensors.sh");
    Invocation::new(sensors).arg(&nexusd).arg(cli).run()?;
    Invocation::new(repository::debug_binary("examples").join("orders")).arg(&nexusd).run()?;
    let (python, path) = grpc_clients::python()?;
    Invocation::new(python)
        .env("PYTHONPATH", path)
        .arg(examples.join("notifications.py"))
        .arg(nexusd)
        .run()
}
