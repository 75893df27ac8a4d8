//! The frames by which nodes tell each other what they want: a NodeState in parts, a change in as few
//! InterestDeltas as hold it.

use nexusd_wire::{FrameEncoder, InterestChange, Member, NodeStatePart};

use crate::interest::{Change, Interest};
use crate::limits::{PART_BYTES, PART_FILTER_BYTES};

/// The filters of a NodeState, ready to be sent, and what the set is called.
///
/// Its first part is missing where there is more than one: it is told with members, which each peer
/// is told others of.
#[derive(Debug)]
pub(crate) struct States {
    pub(crate) hash: u64,
    pub(crate) parts: Vec<Vec<u8>>,
}

/// What all others were told, in parts behind the first. Empty if the first part holds all of it.
pub(crate) fn states(encoder: &mut FrameEncoder, interest: &Interest) -> States {
    debug_assert!(!interest.has_changed(), "what is sent has the name that it was told with");
    let hash = interest.told();
    let chunks = chunks(interest.filters());
    if chunks.len() <= 1 {
        return States { hash, parts: Vec::new() };
    }
    let last = chunks.len();
    let parts = chunks.iter().zip(1..).map(|(filters, part)| {
        let is_last = part as usize == last;
        let mut frames = Vec::new();
        let state = NodeStatePart { hash, part, is_last, filters, members: &[] };
        encoder.node_state(&mut frames, &state);
        frames
    });
    States { hash, parts: parts.collect() }
}

/// The first part of a NodeState, for one peer.
pub(crate) fn first_state(
    encoder: &mut FrameEncoder,
    interest: &Interest,
    states: &States,
    members: &[Member],
) -> Vec<u8> {
    let is_last = states.parts.is_empty();
    let filters: Vec<&str> = if is_last { interest.filters().collect() } else { Vec::new() };
    let mut frames = Vec::new();
    let state = NodeStatePart { hash: states.hash, part: 0, is_last, filters: &filters, members };
    encoder.node_state(&mut frames, &state);
    frames
}

/// A change, in deltas that follow each other; `new_name` names the sets in between.
pub(crate) fn deltas(
    encoder: &mut FrameEncoder,
    change: &Change,
    mut new_name: impl FnMut() -> u64,
) -> Vec<Vec<u8>> {
    let removed = chunks(change.removed.iter().map(|filter| &**filter));
    let added = chunks(change.added.iter().map(|filter| &**filter));
    let mut halves: Vec<(&[&str], &[&str])> = match (&removed[..], &added[..]) {
        // Most changes are small.
        ([removed], [added]) if bytes(removed) + bytes(added) <= PART_BYTES => {
            vec![(removed, added)]
        }
        _ => {
            let removed = removed.iter().map(|filters| (&filters[..], &[][..]));
            removed.chain(added.iter().map(|filters| (&[][..], &filters[..]))).collect()
        }
    };
    if halves.is_empty() {
        // The set has a new name.
        halves.push((&[], &[]));
    }
    let (last, mut before) = (halves.len() - 1, change.before);
    let frames = halves.into_iter().enumerate().map(|(at, (removed, added))| {
        let hash = if at == last { change.after } else { new_name() };
        let mut frames = Vec::new();
        encoder.interest_delta(&mut frames, &InterestChange { before, hash, added, removed });
        before = hash;
        frames
    });
    frames.collect()
}

/// Cuts a list of filters so that each part fits a frame.
fn chunks<'a>(filters: impl Iterator<Item = &'a str>) -> Vec<Vec<&'a str>> {
    let (mut chunks, mut left) = (Vec::<Vec<&str>>::new(), 0);
    for filter in filters {
        let cost = filter.len() + PART_FILTER_BYTES;
        match chunks.last_mut() {
            Some(chunk) if cost <= left => {
                left -= cost;
                chunk.push(filter);
            }
            _ => {
                left = PART_BYTES.saturating_sub(cost);
                chunks.push(vec![filter]);
            }
        }
    }
    chunks
}

fn bytes(filters: &[&str]) -> usize {
    filters.iter().map(|filter| filter.len() + PART_FILTER_BYTES).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexusd_wire::{Cut, FrameCutter, FrameKind, NodeId, control};

    /// Longest control frame of the data plane, in bytes.
    const CONTROL_BYTES_MAX: u32 = 256 << 10;

    fn interest(filters: usize) -> Interest {
        let mut interest = Interest::new(1);
        for number in 0..filters {
            interest.count(&format!("some/topic/of/many/{number}"), true);
        }
        interest
    }

    /// Calls `see` with the kind and body of each frame.
    fn read(frames: &[u8], mut see: impl FnMut(nexusd_wire::Frame<'_>)) {
        let mut cutter = FrameCutter::new(0, CONTROL_BYTES_MAX, usize::MAX);
        let mut input = frames;
        while let Cut::Frame(frame) = cutter.next(&mut input).expect("frames") {
            assert!(frame.bytes().len() <= 64 << 10, "{}", frame.bytes().len());
            see(frame);
        }
    }

    #[test]
    fn a_state_of_many_filters_goes_in_parts_that_make_the_whole() {
        let member = Member {
            node: NodeId(5),
            start_us: 6,
            mesh_address: "192.0.2.1:5671".parse().expect("an address"),
            app_port: 7,
        };
        for filters in [0, 1, 100, 20_000] {
            let (mut interest, mut encoder) = (interest(filters), FrameEncoder::new());
            interest.take_change();
            let states = states(&mut encoder, &interest);
            let mut frames = first_state(&mut encoder, &interest, &states, &[member]);
            frames.extend(states.parts.concat());
            let (mut seen, mut parts, mut lasts) = (Vec::new(), 0, 0);
            read(&frames, |frame| {
                assert_eq!(frame.kind(), FrameKind::NodeState);
                let state = frame.body::<control::NodeState<'_>>().expect("whole");
                assert_eq!((state.hash(), state.part()), (interest.told(), parts));
                assert_eq!(state.members().map_or(0, |list| list.len()), usize::from(parts == 0));
                seen.extend(state.filters().into_iter().flatten().map(String::from));
                parts += 1;
                lasts += usize::from(state.is_last());
            });
            assert_eq!(lasts, 1);
            assert!(seen.iter().eq(interest.filters()));
        }
    }

    #[test]
    fn a_small_change_is_one_delta() {
        let (mut interest, mut encoder) = (interest(3), FrameEncoder::new());
        let change = interest.take_change().expect("a change");
        let frames = deltas(&mut encoder, &change, || unreachable!("nothing is in between"));
        assert_eq!(frames.len(), 1);
    }

    #[test]
    fn a_large_change_goes_in_deltas_that_follow_each_other() {
        let (mut interest, mut encoder) = (interest(5_000), FrameEncoder::new());
        interest.take_change();
        for number in 0..5_000 {
            interest.count(&format!("some/topic/of/many/{number}"), false);
            interest.count(&format!("another/topic/of/many/{number}"), true);
        }
        let change = interest.take_change().expect("a change");
        let frames = deltas(&mut encoder, &change, || interest.new_name());
        assert!(frames.len() > 4, "{}", frames.len());
        let (mut name, mut added, mut removed) = (change.before, 0, 0);
        read(&frames.concat(), |frame| {
            let delta = frame.body::<control::InterestDelta<'_>>().expect("whole");
            assert_eq!(delta.before(), name);
            name = delta.hash();
            added += delta.added().map_or(0, |list| list.len());
            removed += delta.removed().map_or(0, |list| list.len());
        });
        assert_eq!((name, added, removed), (change.after, 5_000, 5_000));
    }
}
