//! `docs/GUARANTEES.md` names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Adds the names of all functions in the Rust files of a folder.
fn functions_of(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of tests") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            functions_of(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a Rust file");
            let functions = text.lines().filter_map(|line| line.trim().strip_prefix("fn "));
            names.extend(functions.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut tests = BTreeSet::new();
    for folder in ["tests/integration", "tests/netns/tests", "core/tests"] {
        functions_of(&root.join(folder), &mut tests);
    }
    let text = fs::read_to_string(root.join("docs/GUARANTEES.md")).expect("the guarantees");
    let mut promises = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').collect();
        let [promise, .., named] = *cells else { panic!("no table: {line}") };
        if named.trim() == "test" {
            continue;
        }
        promises += 1;
        let names: Vec<_> = named.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {promise}");
        for name in names {
            assert!(tests.contains(name), "there is no test {name}: {promise}");
        }
    }
    assert!(promises > 20, "{promises} promises were found");
}
