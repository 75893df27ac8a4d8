//! What is to be done next: at once, or, of frames for peers, at a pace that links can follow.
//!
//! Frames keep their order. Those that all peers get are kept once, whoever still waits for them.

use std::collections::VecDeque;
use std::sync::Arc;

use nexusd_wire::NodeId;

use crate::frames::States;
use crate::limits::{FRAME_BYTES_PER_TURN, FRAME_TURN_US, FRAMES_WAITING_MAX};
use crate::output::Output;

/// Frames for one peer.
#[derive(Clone, Debug)]
pub(crate) enum Frames {
    /// For it alone.
    Own(Vec<u8>),
    /// For all.
    Shared(Arc<[u8]>),
    /// Parts of a NodeState, from this one on.
    States(Arc<States>, usize),
}

#[derive(Debug)]
pub(crate) struct Outbox {
    outputs: VecDeque<Output>,
    frames: VecDeque<(NodeId, Frames)>,
    /// Bytes of frames that may still be given out in this turn.
    budget: usize,
    turn_ends_us: u64,
}

impl Default for Outbox {
    fn default() -> Self {
        let (outputs, frames) = (VecDeque::new(), VecDeque::new());
        Self { outputs, frames, budget: FRAME_BYTES_PER_TURN, turn_ends_us: 0 }
    }
}

impl Outbox {
    pub(crate) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn send(&mut self, peer: NodeId, frames: Frames) {
        self.frames.push_back((peer, frames));
    }

    /// The link to a peer is gone, or another connection: what waits for it is for nobody.
    pub(crate) fn forget(&mut self, peer: NodeId) {
        self.frames.retain(|(other, _)| *other != peer);
    }

    /// Whether so much waits that nothing should be added that can wait.
    pub(crate) fn is_full(&self) -> bool {
        self.frames.len() >= FRAMES_WAITING_MAX
    }

    pub(crate) fn on_time(&mut self, now_us: u64) {
        if now_us >= self.turn_ends_us {
            self.budget = FRAME_BYTES_PER_TURN;
            self.turn_ends_us = now_us + FRAME_TURN_US;
        }
    }

    pub(crate) fn poll(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        while self.budget > 0 {
            let (peer, frames) = self.frames.pop_front()?;
            let frames = match frames {
                Frames::Own(frames) => frames,
                Frames::Shared(frames) => frames.to_vec(),
                Frames::States(states, part) => {
                    let Some(frames) = states.parts.get(part).cloned() else { continue };
                    self.frames.push_front((peer, Frames::States(states, part + 1)));
                    frames
                }
            };
            self.budget = self.budget.saturating_sub(frames.len());
            return Some(Output::Send { peer, frames });
        }
        None
    }

    pub(crate) fn wake_at(&self) -> Option<u64> {
        (!self.frames.is_empty()).then_some(self.turn_ends_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(1);

    fn sent(outbox: &mut Outbox) -> Vec<Vec<u8>> {
        let outputs = std::iter::from_fn(|| outbox.poll());
        outputs
            .map(|output| match output {
                Output::Send { frames, .. } => frames,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn what_is_urgent_overtakes_frames_and_frames_keep_their_order() {
        let mut outbox = Outbox::default();
        let states = Arc::new(States { hash: 1, parts: vec![vec![1], vec![2]] });
        outbox.send(PEER, Frames::Own(vec![0]));
        outbox.send(PEER, Frames::States(states, 0));
        outbox.send(PEER, Frames::Shared(Arc::from([3])));
        outbox.push(Output::Forget { peer: NodeId(2) });
        assert_eq!(outbox.poll(), Some(Output::Forget { peer: NodeId(2) }));
        assert_eq!(sent(&mut outbox), [[0], [1], [2], [3]]);
    }

    #[test]
    fn many_bytes_take_turns() {
        let mut outbox = Outbox::default();
        outbox.on_time(0);
        for _ in 0..40 {
            outbox.send(PEER, Frames::Own(vec![0; FRAME_BYTES_PER_TURN / 16]));
        }
        assert_eq!(sent(&mut outbox).len(), 16);
        assert_eq!(outbox.wake_at(), Some(FRAME_TURN_US));
        outbox.on_time(FRAME_TURN_US - 1);
        assert_eq!(sent(&mut outbox).len(), 0);
        outbox.on_time(FRAME_TURN_US);
        assert_eq!(sent(&mut outbox).len(), 16);
    }

    #[test]
    fn what_waits_for_a_link_that_is_gone_is_for_nobody() {
        let mut outbox = Outbox::default();
        outbox.send(PEER, Frames::Own(vec![1]));
        outbox.send(NodeId(2), Frames::Own(vec![2]));
        outbox.forget(PEER);
        assert_eq!(sent(&mut outbox), [[2]]);
    }
}
