//! Which node's messages have reached which other node.
//!
//! Each ordered pair of nodes is a route. It is *claimed* when an acknowledgement counts a delivery, and
//! *proven* when such a message has arrived. A claimed route is not probed again unless its message is
//! long overdue. Each that was acknowledged as delivered must arrive, once, or it counts as lost.

use crate::sequence_check::Faults;

/// How long a message may be on its way before another one is sent after it.
const OVERDUE_NS: u64 = 200_000_000;

/// The routes of all nodes, by their numbers.
#[derive(Debug)]
pub(super) struct Routes {
    nodes: usize,
    routes: Vec<Route>,
    unproven: usize,
}

#[derive(Clone, Copy, Default, Debug)]
struct Route {
    /// Messages that were acknowledged, or that nobody acknowledges, and those of them that were said to be on
    /// their way.
    acknowledged: u64,
    claimed: u64,
    /// Since when a message should be there, on the run's clock.
    claimed_ns: u64,
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

    /// The nodes that one is to probe.
    pub(super) fn due(&self, from: usize, now_ns: u64) -> impl Iterator<Item = usize> {
        (0..self.nodes).filter(move |to| {
            let Route { claimed, claimed_ns, arrived, .. } = self.routes[from * self.nodes + to];
            let is_overdue = now_ns.saturating_sub(claimed_ns) > OVERDUE_NS;
            *to != from && arrived == 0 && (claimed == 0 || is_overdue)
        })
    }

    /// A probe was acknowledged as delivered to so many.
    pub(super) fn on_ack(&mut self, from: usize, to: usize, delivered: u32, now_ns: u64) {
        let route = &mut self.routes[from * self.nodes + to];
        route.acknowledged += 1;
        route.claimed += u64::from(delivered);
        route.claimed_ns = now_ns;
    }

    /// A probe was sent that nobody acknowledges: it may arrive or not.
    pub(super) fn on_unanswered(&mut self, from: usize, to: usize) {
        self.routes[from * self.nodes + to].acknowledged += 1;
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
        for Route { acknowledged, claimed, arrived, .. } in &self.routes {
            faults.lost += claimed.saturating_sub(*arrived);
            // What a node accepted before it knew who wants it comes, too, though nobody said so.
            faults.duplicated += arrived.saturating_sub(*acknowledged);
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
        let claimed = |at: &usize| is_missing(at) && self.routes[*at].claimed > 0;
        let lost = match (0..self.routes.len()).filter(claimed).count() {
            0 => String::new(),
            lost => format!("; over {lost} of them a message is said to be on its way"),
        };
        Some(format!(
            "{} of {} routes are missing, such as that from node {} to node {}{lost}",
            self.unproven,
            self.count(),
            first / self.nodes,
            first % self.nodes,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_probed_until_an_acknowledgement_counts_it_and_proven_by_arrival() {
        let mut routes = Routes::new(3);
        assert_eq!(routes.due(1, 50).collect::<Vec<_>>(), [0, 2]);
        routes.on_ack(1, 0, 0, 50);
        routes.on_ack(1, 2, 1, 50);
        assert_eq!(routes.due(1, 60).collect::<Vec<_>>(), [0]);
        assert_eq!((routes.unproven(), routes.are_settled()), (6, false));
        routes.on_arrival(1, 2);
        assert_eq!((routes.unproven(), routes.are_settled()), (5, true));
        assert_eq!(routes.faults(), Faults::default());
    }

    #[test]
    fn a_message_that_is_long_overdue_is_sent_again_and_counts_as_lost() {
        let mut routes = Routes::new(2);
        routes.on_ack(0, 1, 1, 50);
        assert_eq!(routes.due(0, 50 + OVERDUE_NS).count(), 0);
        assert_eq!(routes.due(0, 51 + OVERDUE_NS).count(), 1);
        routes.on_ack(0, 1, 1, 51 + OVERDUE_NS);
        routes.on_arrival(0, 1);
        assert_eq!(routes.due(0, 60 + 2 * OVERDUE_NS).count(), 0);
        assert_eq!(routes.faults(), Faults { lost: 1, ..Faults::default() });
    }

    #[test]
    fn where_nothing_is_acknowledged_a_route_is_probed_until_something_arrives_and_twice_is_too_often()
     {
        let mut routes = Routes::new(2);
        routes.on_unanswered(0, 1);
        assert_eq!(routes.due(0, 50).count(), 1);
        routes.on_arrival(0, 1);
        assert_eq!((routes.due(0, 60).count(), routes.are_settled()), (0, true));
        assert_eq!(routes.faults(), Faults::default());
        routes.on_arrival(0, 1);
        assert_eq!(routes.faults(), Faults { duplicated: 1, ..Faults::default() });
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
        routes.on_ack(0, 1, 1, 0);
        routes.on_ack(1, 0, 1, 0);
        routes.on_arrival(1, 0);
        routes.on_arrival(1, 0);
        let expected = Faults { lost: 1, duplicated: 1, ..Faults::default() };
        assert_eq!(routes.faults(), expected);
    }
}
