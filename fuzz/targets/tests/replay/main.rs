//! Replays every committed seed through its target, so that what fuzzing once found stays found
//! without a fuzzer.
//!
//! `NEXUSD_BLESS=1` writes the seeds that are made of golden vectors and by hand anew.

mod seeds;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nexusd_fuzz_targets::TARGETS;

fn seeds_of(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds").join(target)
}

#[test]
fn every_seed_is_survived() {
    for (name, target) in TARGETS {
        let folder = seeds_of(name);
        let entries =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<PathBuf> =
            entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        assert!(files.len() >= 5, "{name} has seeds");
        for file in files {
            let bytes = fs::read(&file).expect("a seed");
            let replayed = std::panic::catch_unwind(|| target(&bytes));
            assert!(replayed.is_ok(), "{} fails; the reason stands above", file.display());
        }
    }
}

#[test]
fn every_target_survives_the_seeds_of_all_others() {
    let mut all = BTreeSet::new();
    for (name, _) in TARGETS {
        for entry in fs::read_dir(seeds_of(name)).expect("seeds") {
            all.insert(fs::read(entry.expect("an entry").path()).expect("a seed"));
        }
    }
    for (_, target) in TARGETS {
        for bytes in &all {
            target(bytes);
        }
    }
}

/// Seeds follow the formats they are made of.
#[test]
fn made_seeds_are_current() {
    let bless = std::env::var_os("NEXUSD_BLESS").is_some_and(|value| value == "1");
    for seed in seeds::made() {
        let path = seeds_of(seed.target).join(&seed.name);
        if bless {
            fs::create_dir_all(seeds_of(seed.target)).expect("a folder for seeds");
            fs::write(&path, &seed.bytes).expect("a seed");
        }
        let found = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(found, seed.bytes, "{}: NEXUSD_BLESS=1 writes it anew", path.display());
    }
}
