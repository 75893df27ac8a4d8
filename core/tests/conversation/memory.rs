//! What happens when the memory is used up.

use nexusd_wire::MessageFlags;
use nexusd_wire::control::OverflowPolicy;

use crate::desk::{Desk, Heard};

#[test]
fn messages_behind_a_running_send_make_room_instead_of_those_that_are_published() {
    const COUNT: u64 = 400;
    let mut desk = Desk::new();
    let subscriber = desk.greet();
    let publisher = desk.greet();
    desk.subscribe_with(subscriber, &["t"], OverflowPolicy::DropOldest, 0);
    desk.heard(subscriber);
    desk.bind(publisher, 0, "t");
    desk.hold_sends(subscriber);
    // Several times the memory there is; the send of the first message does not end meanwhile.
    for _ in 0..COUNT {
        desk.publish(publisher, 0, &[7; 60_000], MessageFlags::default());
    }
    assert_eq!(desk.heard(publisher), [], "nothing was refused");
    desk.let_go(subscriber);
    let mut next = 1;
    let mut gaps = 0;
    for heard in desk.heard(subscriber) {
        match heard {
            Heard::Message { sequence, .. } => {
                assert_eq!(sequence, next);
                next += 1;
            }
            Heard::Gap { entries, missed } => {
                assert!(next > 1, "what was being sent comes before the gap");
                assert_eq!(entries, [(0, next, next + missed - 1)]);
                next += missed;
                gaps += 1;
            }
            _ => {}
        }
    }
    assert_eq!((next, gaps), (COUNT + 1, 1), "all is delivered or told as lost, in order");
}
