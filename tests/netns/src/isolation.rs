//! Runs a test in a world of its own: a process in namespaces for network, mounts and processes.
//!
//! The test's binary starts itself once more in there, with that one test. What the test makes has no name
//! outside, and the kernel ends it all with the first process in there: nothing is left behind, and nothing
//! can be mixed up, whatever becomes of the test.

use std::any::type_name;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nexusd_tests::{Release, note, skip};

use crate::network::Network;

/// Set in there: the name of the test.
const INSIDE: &str = "NEXUSD_NETNS_TEST";
/// How long a test may take.
const PATIENCE: Duration = Duration::from_secs(100);
/// Hides what there is on this host, and gives `ip netns` a place for names of its own.
const FURNISH: &str = "mount -t tmpfs nexusd-netns /run && mkdir /run/netns && ip link set lo up";

/// Runs a test on a network of so many hosts, or says why that cannot be. It must be called by a test of
/// libtest, directly, with a closure of its own.
///
/// # Panics
/// If the test fails.
pub fn on_a_network<T: FnOnce(Network)>(hosts: u8, test: T) {
    let name = test_of::<T>();
    if std::env::var(INSIDE).as_ref() == Ok(&name) {
        return test(Network::new(hosts));
    }
    if let Some(obstacle) = obstacle() {
        let is_ci = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty() && ci != "false");
        assert!(!is_ci, "{obstacle}");
        return skip(obstacle);
    }
    run_inside(&name);
}

/// Why tests cannot have a network of their own here, if they cannot.
pub fn obstacle() -> Option<&'static str> {
    static OBSTACLE: OnceLock<Option<String>> = OnceLock::new();
    let found = OBSTACLE.get_or_init(|| {
        let probe = "ip netns add probe && ip netns exec probe nft list ruleset && ip netns del probe";
        let output = world().args(["sh", "-ec", &format!("{FURNISH} && {probe}")]).output();
        let reason = match output {
            Ok(output) if output.status.success() => return None,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
            Err(error) => error.to_string(),
        };
        Some(format!(
            "network namespaces cannot be had here ({reason}); they take root, or a kernel that gives \
             them to everybody, and ip, nft and unshare"
        ))
    });
    found.as_deref()
}

/// A command line that goes on in namespaces of its own, and is killed with the thread that starts it.
fn world() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid"]);
    command.args(["--fork", "--kill-child", "--mount-proc"]);
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    // Where Debian keeps what administrators use.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // The owner of our own entry in /proc is our effective user.
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

/// The test that a closure stands in, as libtest names it.
fn test_of<T>() -> String {
    let name = type_name::<T>();
    let name = name.split("::{{closure}}").next().unwrap_or(name);
    // The crate is no part of it.
    name.split_once("::").map_or(name, |(_, name)| name).to_owned()
}

fn run_inside(name: &str) {
    let this = std::env::current_exe().expect("the path of the test binary");
    // Built, if they must be, out here.
    let binaries = [Release::This, Release::Next].map(|it| (it.variable(), it.path()));
    let mut child = world()
        .args(["sh", "-ec", &format!("{FURNISH} && exec \"$@\""), "sh"])
        .arg(this)
        .args(["--exact", name, "--nocapture", "--include-ignored"])
        .env(INSIDE, name)
        .envs(binaries)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("setpriv and unshare run");
    let out = read(child.stdout.take().expect("piped"));
    let err = read(child.stderr.take().expect("piped"));
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().expect("our child") {
            Some(status) => break Some(status),
            None if begun.elapsed() > PATIENCE => {
                // With it goes everything in there.
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    let (out, err) = (out.join().expect("no panic"), err.join().expect("no panic"));
    // A name that libtest does not know would pass as well, as none.
    if status.is_some_and(|status| status.success()) && out.contains("test result: ok. 1 passed") {
        // What it measured.
        return note(err.trim_end());
    }
    match status {
        Some(status) => panic!("{name}, in there: {status}\n{out}\n{err}"),
        None => panic!("{name} did not end within {PATIENCE:?}\n{out}\n{err}"),
    }
}

fn read(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        // What was read until an error is all there is.
        let _ = from.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}
