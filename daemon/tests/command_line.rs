//! The binary as an operator meets it when settings are wrong, or asked about.
#![allow(dead_code, reason = "each test file uses its part of the harness")]

mod running;

use std::io::Write;
use std::process::Output;

use running::{ALONE, nexusd, run, without_settings};

/// The one sentence on stderr, of a start that was refused with `code` before anything was said.
fn refusal(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty(), "nothing on stdout");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr:?}");
    stderr.trim_end().to_owned()
}

#[test]
fn a_bad_flag_value_is_one_sentence_and_exit_code_2() {
    assert_eq!(
        refusal(&run(&["--app-port", "http"]), 2),
        "nexusd: flag --app-port: \"http\" is not a port; it is a number from 0 to 65535"
    );
}

#[test]
fn an_unknown_flag_is_one_sentence_and_exit_code_2() {
    assert_eq!(
        refusal(&run(&["--memory-limt", "1G"]), 2),
        "nexusd: flag --memory-limt is unknown; did you mean --memory-limit?"
    );
}

#[test]
fn a_bad_variable_is_one_sentence_and_exit_code_2() {
    let output = nexusd().env("NEXUSD_LOG_LEVEL", "loud").output().expect("runs");
    let sentence = refusal(&output, 2);
    assert!(
        sentence.starts_with("nexusd: environment variable NEXUSD_LOG_LEVEL: \"loud\" "),
        "{sentence}"
    );
}

#[test]
fn an_unknown_variable_is_one_sentence_and_exit_code_2() {
    let output = nexusd().env("NEXUSD_APP_PROT", "1").output().expect("runs");
    assert_eq!(
        refusal(&output, 2),
        "nexusd: environment variable NEXUSD_APP_PROT is unknown; did you mean NEXUSD_APP_PORT?"
    );
}

#[test]
fn a_bad_file_is_one_sentence_with_its_line_and_exit_code_2() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "cluster = 'blue'\nmax-payload = '1T'").expect("space");
    let path = file.path().to_string_lossy();
    let sentence = refusal(&run(&["--config", &path]), 2);
    assert!(
        sentence.starts_with(&format!("nexusd: {path} line 2: key \"max-payload\": \"1T\" ")),
        "{sentence}"
    );
}

#[test]
fn a_missing_file_is_one_sentence_and_exit_code_2() {
    let output = nexusd().env("NEXUSD_CONFIG", "/nowhere/nexusd.toml").output().expect("runs");
    let sentence = refusal(&output, 2);
    assert!(
        sentence.starts_with(
            "nexusd: environment variable NEXUSD_CONFIG: cannot read \"/nowhere/nexusd.toml\": "
        ),
        "{sentence}"
    );
}

#[test]
fn an_address_of_another_host_is_one_sentence_and_exit_code_1() {
    let sentence =
        refusal(&run(&["--bind", "192.0.2.1", "--app-port", "0", "--log-level", "warn"]), 1);
    assert_eq!(sentence, "nexusd: cannot listen on 192.0.2.1:0: this host has no such address");
}

#[test]
fn a_cpu_that_is_not_there_is_one_sentence_and_exit_code_1() {
    let args = [&ALONE[..], &["--pin", "1023", "--log-level", "warn"]].concat();
    assert_eq!(refusal(&run(&args), 1), "nexusd: --pin 1023: this process may not run on that CPU");
}

#[test]
fn help_and_version_go_to_stdout_with_success() {
    let version = run(&["--version"]);
    assert!(version.status.success());
    assert_eq!(
        String::from_utf8_lossy(&version.stdout),
        format!("nexusd {}\n", env!("CARGO_PKG_VERSION"))
    );
    let help = run(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("--app-port <PORT>"));
    assert!(help.stderr.is_empty());
}

#[test]
fn too_few_files_are_one_sentence_and_exit_code_1() {
    let output = without_settings("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
        .arg(nexusd().get_program())
        .args(ALONE)
        .output()
        .expect("a shell");
    assert_eq!(
        refusal(&output, 1),
        "nexusd: this process may open 40 files, and needs 14160 for itself and \
         --max-connections; raise the limit (`ulimit -n`, LimitNOFILE= in systemd)"
    );
}

#[test]
fn a_profile_is_what_the_daemon_starts_with() {
    let output = without_settings("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
        .arg(nexusd().get_program())
        .args(ALONE)
        .env("NEXUSD_PROFILE", "small")
        .output()
        .expect("a shell");
    let sentence = refusal(&output, 1);
    assert!(sentence.contains("may open 40 files, and needs 3112 "), "{sentence}");
}

#[test]
fn with_io_uring_asked_for_too_little_lockable_memory_is_one_sentence_and_exit_code_1() {
    let output = without_settings("sh")
        .args(["-c", "ulimit -l 64 && exec \"$0\" \"$@\""])
        .arg(nexusd().get_program())
        .args(ALONE)
        .args(["--io", "uring"])
        .output()
        .expect("a shell");
    let sentence = refusal(&output, 1);
    assert!(sentence.contains("ulimit -l"), "{sentence}");
}
