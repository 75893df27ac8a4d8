//! Which node's messages have reached which other node.
//!
//! Each ordered pair of nodes is a route. It is *claimed* when an acknowledgement counts a delivery, and
//! *proven* when such a message has arrived. Only unclaimed routes are probed again, so that each probe
//! that was acknowledged as delivered must arrive, once.

use crate::sequence_check::Faults;

/// The routes of all nodes, by their numbers.
#[derive(Debug)]
pub(super) struct Routes {
    nodes: usize,
    routes: Vec<Route>,
    unproven: usize,
}

#[derive(Clone, Copy, Default, Debug)]
struct Route {
    claimed: u64,
    arrived: u64,
}

impl Routes {
    /// Those of so many nodes, none of them known to work.
    pub(super) fn new(nodes: usize) -> Self {
        let pairs = nodes * nodes;
        Self { nodes, routes: vec![Route::default(); pairs], unproven: pairs - nodes }
    }

    /// Nodes in all.
    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }

    /// Routes in all.
    pub(super) fn count(&self) -> usize {
        self.nodes * self.nodes - self.nodes
    }

    /// Routes over which no message has arrived yet.
    pub(super) fn unproven(&self) -> usize {
        self.unproven
    }

    /// The nodes that one is not yet known to route to.
    pub(super) fn unclaimed(&self, from: usize) -> impl Iterator<Item = usize> {
        (0..self.nodes).filter(move |to| *to != from && self.route(from, *to).claimed == 0)
    }

    /// A probe was acknowledged as delivered to so many.
    pub(super) fn on_ack(&mut self, from: usize, to: usize, delivered: u32) {
        self.routes[from * self.nodes + to].claimed += u64::from(delivered);
    }

    /// A probe has arrived.
    pub(super) fn on_arrival(&mut self, from: usize, to: usize) {
        let route = &mut self.routes[from * self.nodes + to];
        route.arrived += 1;
        if route.arrived == 1 && from != to {
            self.unproven -= 1;
        }
    }

    /// Whether everything that was acknowledged as delivered has arrived.
    pub(super) fn are_settled(&self) -> bool {
        self.routes.iter().all(|route| route.arrived >= route.claimed)
    }

    /// What arrived too seldom or too often.
    pub(super) fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        for Route { claimed, arrived } in &self.routes {
            faults.lost += claimed.saturating_sub(*arrived);
            faults.duplicated += arrived.saturating_sub(*claimed);
        }
        faults
    }

    /// Probes that arrived.
    pub(super) fn arrived(&self) -> u64 {
        self.routes.iter().map(|route| route.arrived).sum()
    }

    /// What is missing, in words; `None` if nothing is.
    pub(super) fn missing(&self) -> Option<String> {
        let is_missing =
            |at: &usize| at % self.nodes != at / self.nodes && self.routes[*at].arrived == 0;
        let first = (0..self.routes.len()).find(is_missing)?;
        Some(format!(
            "{} of {} routes are missing, such as that from node {} to node {}",
            self.unproven,
            self.count(),
            first / self.nodes,
            first % self.nodes,
        ))
    }

    fn route(&self, from: usize, to: usize) -> Route {
        self.routes[from * self.nodes + to]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_probed_until_an_acknowledgement_counts_it_and_proven_by_arrival() {
        let mut routes = Routes::new(3);
        assert_eq!(routes.unclaimed(1).collect::<Vec<_>>(), [0, 2]);
        routes.on_ack(1, 0, 0);
        routes.on_ack(1, 2, 1);
        assert_eq!(routes.unclaimed(1).collect::<Vec<_>>(), [0]);
        assert_eq!((routes.unproven(), routes.are_settled()), (6, false));
        routes.on_arrival(1, 2);
        assert_eq!((routes.unproven(), routes.are_settled()), (5, true));
        assert_eq!(routes.faults(), Faults::default());
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut routes = Routes::new(2);
        routes.on_arrival(0, 1);
        let missing = routes.missing().expect("one is missing");
        assert!(
            missing.starts_with("1 of 2") && missing.ends_with("node 1 to node 0"),
            "{missing}"
        );
        routes.on_arrival(1, 0);
        assert_eq!(routes.missing(), None);
    }

    #[test]
    fn what_was_acknowledged_and_never_came_is_lost_and_what_came_again_duplicated() {
        let mut routes = Routes::new(2);
        routes.on_ack(0, 1, 1);
        routes.on_ack(1, 0, 1);
        routes.on_arrival(1, 0);
        routes.on_arrival(1, 0);
        let expected = Faults { lost: 1, duplicated: 1, ..Faults::default() };
        assert_eq!(routes.faults(), expected);
    }
}
