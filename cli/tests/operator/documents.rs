//! With `--json` each command prints the document that its schema describes.

use std::path::Path;

use serde_json::Value;

use crate::canned::Canned;
use crate::cli::{document, run, said, script};

/// Fails unless the document is what the schema of this name says.
pub(crate) fn check(schema: &str, document: &Value) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schemas/{schema}.json"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    let faults: Vec<_> = validator
        .iter_errors(document)
        .map(|it| format!("{it} at {}", it.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{file:?}: {faults:#?}: {document:#}");
}

/// Commands that change nothing, and their schemas.
pub(crate) const QUESTIONS: [(&str, &str); 20] = [
    ("ping", "PING"),
    ("info", "INFO"),
    ("info", "info ALL"),
    ("info-server", "INFO server"),
    ("info-stats", "INFO STATS"),
    ("info-memory", "Info Memory"),
    ("info-config", "INFO CONFIG"),
    ("mesh-peers", "MESH"),
    ("mesh-peers", "mesh peers"),
    ("mesh-status", "MESH STATUS"),
    ("mesh-topology", "MESH TOPOLOGY"),
    ("mesh-gossip", "MESH GOSSIP"),
    ("pubsub-topics", "PUBSUB"),
    ("pubsub-topics", "PUBSUB TOPICS # --limit 2"),
    ("pubsub-numsub", "PUBSUB NUMSUB plant/mill/speed nobody/knows"),
    ("pubsub-retained", "PUBSUB RETAINED"),
    ("client-list", "CLIENT"),
    ("client-list", "CLIENT LIST"),
    ("debug-log", "DEBUG LOG"),
    ("debug-ping", "DEBUG PING --count 3 --interval 1"),
];

#[test]
fn every_question_is_answered_with_the_document_of_its_schema() {
    let daemon = Canned::start();
    for (schema, line) in QUESTIONS {
        let words: Vec<&str> = line.split(' ').collect();
        check(schema, &document(&daemon.address, &words));
    }
    check("debug-subscriptions", &document(&daemon.address, &["debug", "subscriptions"]));
    check("client-info", &document(&daemon.address, &["client", "info", "0-1-1"]));
    check("client-setname", &document(&daemon.address, &["client", "setname", "0-1-1", "mill"]));
    check("client-kill", &document(&daemon.address, &["client", "kill", "0-1-1"]));
    check("debug-log", &document(&daemon.address, &["debug", "log", "WARN"]));
    check("debug-reload", &document(&daemon.address, &["debug", "reload"]));
}

#[test]
fn what_the_prompt_alone_does_is_told_in_documents_too() {
    let daemon = Canned::start();
    let lines = format!("CONNECT {} --json\nDISCONNECT --json\n", daemon.address);
    let said = script(&daemon.address, &lines);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let documents: Vec<Value> = serde_json::Deserializer::from_str(&said.out)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("{error}: {}", said.out));
    let [connected, disconnected] = &documents[..] else { panic!("{}", said.out) };
    check("ping", connected);
    check("disconnect", disconnected);
    assert_eq!(connected["address"], disconnected["disconnected"]);
}

#[test]
fn every_question_has_a_table_for_people() {
    let daemon = Canned::start();
    for (_, line) in QUESTIONS {
        let words: Vec<&str> = line.split(' ').collect();
        let said = run(&daemon.address, &words);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{line}");
        assert!(!said.out.trim().is_empty() && !said.out.contains('\x1b'), "{line}: {}", said.out);
    }
}

#[test]
fn a_list_that_was_cut_off_says_so() {
    let daemon = Canned::start();
    let said = run(&daemon.address, &["pubsub", "topics", "--limit", "2"]);
    assert!(said.out.contains("There are more; --limit"), "{}", said.out);
}

#[test]
fn a_schema_refuses_what_it_does_not_know() {
    let daemon = Canned::start();
    let mut changed = document(&daemon.address, &["mesh", "peers"]);
    changed["peers"][0]["status"] = "unwell".into();
    assert!(std::panic::catch_unwind(|| check("mesh-peers", &changed)).is_err());
}

#[test]
fn bash_completes_what_stands_within_a_group() {
    let script = r#"
        source <("$1" completions bash)
        COMP_WORDS=(nexusd-cli client ""); COMP_CWORD=2
        _nexusd__cli nexusd-cli "" client
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", script, "bash", env!("CARGO_BIN_EXE_nexusd-cli")]);
    let said = said(bash);
    assert!(said.out.lines().any(|word| word == "setname"), "{} {}", said.out, said.err);
}

#[test]
fn help_version_completions_and_manual_need_no_daemon() {
    for (words, begin) in [
        (&["--help"][..], "Asks NexusD daemons"),
        (&["HELP", "Client", "KILL"], "Ends its connection"),
        (&["--version"], "nexusd-cli 0."),
        (&["completions", "bash"], "_nexusd__cli() {"),
        (&["completions", "zsh"], "#compdef nexusd-cli"),
        (&["completions", "fish"], "# Print an optspec"),
        (&["man"], ".ie"),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nexusd-cli"));
        command.args(words);
        let said = said(command);
        assert_eq!(said.code, Some(0), "{words:?}: {}", said.err);
        assert!(said.out.starts_with(begin), "{words:?}: {}", said.out);
    }
}

#[test]
fn the_manual_names_each_option_without_a_gap() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nexusd-cli"));
    command.arg("man");
    let page = said(command).out;
    let synopsis = page.lines().find(|line| line.contains("[\\fB\\-h\\fR|")).expect("a synopsis");
    assert!(synopsis.contains("[\\fB\\-n\\fR]"), "{synopsis}");
}
