//! Where things lie in this repository, so that commands work from any folder below it.

use std::path::{Path, PathBuf};

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> &'static Path {
    // The manifest folder is fixed at build time, and cargo rebuilds xtask when the tree moves.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where cargo puts what it builds; everything xtask writes goes below it as well.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => std::path::absolute(&folder).unwrap_or_else(|_| PathBuf::from(folder)),
        None => root().join("target"),
    }
}

/// Where tools of fixed versions are built and kept, so that a second clone does not build them once more:
/// the user's cache, or below `target` where there is none.
pub(crate) fn tools() -> PathBuf {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    cache.map_or_else(|| target().join("tools"), |cache| cache.join("nexusd/tools"))
}

/// A binary of this workspace as tests run it.
pub(crate) fn debug_binary(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

/// Where release binaries are.
pub(crate) fn release() -> PathBuf {
    target().join("release")
}

/// A release binary of this workspace.
pub(crate) fn release_binary(name: &str) -> PathBuf {
    release().join(name)
}
