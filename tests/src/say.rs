//! What a test tells whoever runs it, beside passing and failing.

use std::io::Write;

/// Says that a test is left out and why; the test returns then.
pub fn skip(why: &str) {
    note(&format!("SKIPPED: {why}"));
}

/// Says what a test measured.
pub fn note(what: &str) {
    // Whoever closed stderr does not want to know.
    let _ = writeln!(std::io::stderr(), "{what}");
}
