//! Prints why tests cannot have a network of their own here; nothing if they can.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    match nexusd_netns::obstacle() {
        Some(obstacle) => writeln!(io::stdout(), "{obstacle}"),
        None => Ok(()),
    }
}
