//! Clients of gRPC as everybody has them, against a real daemon: the examples in `docs/examples/grpc`.
//!
//! What they need comes from PyPI and npm, in the versions that are listed beside them, into folders of the user's
//! cache ([`repository::tools`]). Each keeps a copy of its list, written last: a folder that was made from another
//! list, or was never finished, is made anew.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::daemon::Daemon;
use crate::invocation::Invocation;
use crate::{repository, tool};

const EXAMPLES: &str = "docs/examples/grpc";
/// The copy of the list.
const MADE_FROM: &str = "made-from";

/// Runs all of them against a daemon of this program, and another of its mesh.
pub(crate) fn check(program: &Path) -> Result<()> {
    let examples = Path::new(EXAMPLES);
    let (python, path) = python()?;
    let python =
        |script| Invocation::new(&python).env("PYTHONPATH", &path).arg(examples.join(script));
    let (node, modules) = node()?;
    let daemons = Daemon::start_mesh(program, 2, "grpc-clients", &["--shards", "2"])?;
    let addresses = daemons.iter().map(|daemon| daemon.address.as_str());
    let first = addresses.clone().next().context("there are two")?;
    python("python/reflection.py").arg(first).run()?;
    python("python/generated.py").args(addresses).run()?;
    let example = examples.join("node/client.js");
    Invocation::new(node).env("NODE_PATH", modules).arg(example).arg(first).run()?;
    daemons.into_iter().try_for_each(Daemon::stop)
}

/// Python, and where it finds its packages and the stubs, which are generated each time.
pub(crate) fn python() -> Result<(PathBuf, OsString)> {
    let python = tool::PYTHON.require()?;
    // Packages with compiled parts are for one version of Python on one kind of machine.
    let kind = "import sys, sysconfig as s; print(sys.implementation.cache_tag, s.get_platform(), sep='-')";
    let kind = Invocation::new(&python).args(["-c", kind]).output()?;
    let list = repository::root().join(EXAMPLES).join("python/requirements.txt");
    let folder = repository::tools().join(format!("grpc-examples-{}", kind.trim()));
    let packages = packages(folder, &list, |folder| {
        Invocation::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            // Everything is listed, and nothing is compiled here.
            .args(["--no-deps", "--only-binary", ":all:", "--target"])
            .arg(folder)
            .arg("--requirement")
            .arg(&list)
            .run()
    })?;
    let stubs = repository::target().join("grpc-examples");
    fs::create_dir_all(&stubs).with_context(|| format!("cannot make {}", stubs.display()))?;
    let path = std::env::join_paths([&packages, &stubs]).context("a folder with a colon")?;
    let out = |name: &str| format!("--{name}_out={}", stubs.display());
    Invocation::new(&python)
        .env("PYTHONPATH", &path)
        .args(["-m", "grpc_tools.protoc", "-I", "grpc/proto", &out("python"), &out("grpc_python")])
        .arg("sidecar.proto")
        .run()?;
    Ok((python, path))
}

/// Node.js, and where it finds its packages.
fn node() -> Result<(PathBuf, PathBuf)> {
    let beside = repository::root().join(EXAMPLES).join("node");
    let folder = repository::tools().join("grpc-examples-node");
    let packages = packages(folder, &beside.join("package-lock.json"), |folder| {
        for name in ["package.json", "package-lock.json"] {
            fs::copy(beside.join(name), folder.join(name))
                .with_context(|| format!("cannot copy {name} to {}", folder.display()))?;
        }
        Invocation::new(tool::NPM.require()?)
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"])
            .current_dir(folder)
            .run()
    })?;
    Ok((tool::NODE.require()?, packages.join("node_modules")))
}

/// The packages of this list, as `install` puts them into this folder.
fn packages(
    folder: PathBuf,
    list: &Path,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let wanted = fs::read(list).with_context(|| format!("cannot read {}", list.display()))?;
    let made_from = folder.join(MADE_FROM);
    if fs::read(&made_from).is_ok_and(|list| list == wanted) {
        return Ok(folder);
    }
    let place = folder.display();
    eprintln!("Fetching what {} names into {place}, once.", list.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {place}"))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {place}"))?;
    install(&folder)?;
    fs::write(&made_from, wanted).with_context(|| format!("cannot write into {place}"))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_fetched_once_for_each_list_and_again_after_a_failure() {
        let place = repository::target().join(format!("packages-{}", std::process::id()));
        fs::create_dir_all(&place).expect("a folder below target");
        let (list, folder) = (place.join("list"), place.join("packages"));
        let mut fetched = 0;
        for (contents, fails) in [("a", true), ("a", false), ("a", false), ("b", false)] {
            fs::write(&list, contents).expect("a file");
            let made = packages(folder.clone(), &list, |folder| {
                fetched += 1;
                assert!(!folder.join("left").exists(), "nothing is left of what was there");
                fs::write(folder.join("left"), contents)?;
                if fails { anyhow::bail!("no network") } else { Ok(()) }
            });
            assert_eq!(made.is_err(), fails);
        }
        fs::remove_dir_all(&place).expect("it is there");
        assert_eq!(fetched, 3);
    }
}
