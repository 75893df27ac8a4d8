//! The prompt without a terminal: a script of commands.

use crate::canned::{Canned, NODES};
use crate::cli::script;

#[test]
fn a_script_does_one_command_after_the_other() {
    let daemon = Canned::start();
    let said = script(&daemon.address, "# a remark\nping\n\nMESH status\nQUIT\nping\n");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert_eq!(said.out.matches("PONG").count(), 1, "{}", said.out);
    assert!(said.out.contains("queued for them  12,345 messages"), "{}", said.out);
}

#[test]
fn a_script_goes_on_behind_a_failure_and_tells_it_at_the_end() {
    let daemon = Canned::start();
    let said = script(&daemon.address, "client info 9-9-9\nmesh up\nnonsense\nping 'x\nping\n");
    assert_eq!(said.code, Some(1));
    assert!(said.out.starts_with("PONG"), "{}", said.out);
    for part in ["there is no client 9-9-9", "'up'", "'nonsense'", "a quote is not closed"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
}

#[test]
fn the_prompt_turns_to_other_daemons() {
    let (first, second) = (Canned::start(), Canned::start());
    let lines = format!("disconnect\nping\nCONNECT {}\nping\nhelp client kill\n", second.address);
    let said = script(&first.address, &lines);
    assert_eq!(said.code, Some(1));
    assert_eq!(
        said.err,
        "error: not connected: CONNECT HOST:PORT, or CONNECT and a number that DISCOVER shows\n"
    );
    assert!(said.out.contains(&format!("disconnected from {}\n", first.address)), "{}", said.out);
    let connected = format!("connected to node {} at {}\n", NODES[0], second.address);
    assert!(said.out.contains(&connected), "{}", said.out);
    assert!(said.out.contains(&format!("PONG from node {} at {}", NODES[0], second.address)));
    assert!(said.out.contains("Ends its connection"), "{}", said.out);
}
