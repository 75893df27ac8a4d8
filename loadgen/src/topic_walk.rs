//! In which order a publisher goes over its topics, and the number of each message within its topic.
//!
//! The order is the same in every run. Round-robin and random orders are computed step by step;
//! Zipf's, whose popular topics lie anywhere among the others, is drawn beforehand and repeated, so
//! that a step costs a load from memory that is read in sequence.
//! Invariant: the numbers within a topic are dense and begin at 0.

use clap::ValueEnum;

/// What all random orders begin with.
const SEED: u64 = 0x006e_6578_7573_6420;
/// Steps of Zipf's order before it repeats.
const DRAWS: usize = 1 << 22;

/// An order of topics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Order {
    /// One after the other, and again.
    RoundRobin,
    /// Each as likely as any other.
    Random,
    /// The nth most popular with a probability proportional to 1/n.
    Zipf,
}

impl Order {
    /// The name as given on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
            Self::Zipf => "zipf",
        }
    }
}

/// The topic of one message, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    /// The publisher's topic, from 0.
    pub(crate) topic: u32,
    /// The message's number within it, from 0.
    pub(crate) number: u64,
}

/// Where a publisher has come in its topics.
#[derive(Debug)]
pub(crate) struct TopicWalk {
    choice: Choice,
    /// Messages of each topic so far.
    sent: Vec<u64>,
}

#[derive(Debug)]
enum Choice {
    RoundRobin { next: u32 },
    Random(fastrand::Rng),
    Drawn { topics: Vec<u32>, at: usize },
}

impl TopicWalk {
    /// The beginning of a walk over `topics` topics (at least one).
    pub(crate) fn new(topics: u32, order: Order) -> Self {
        let topics = topics.max(1);
        let choice = match order {
            Order::RoundRobin => Choice::RoundRobin { next: 0 },
            Order::Random => Choice::Random(fastrand::Rng::with_seed(SEED)),
            Order::Zipf => Choice::Drawn { topics: draw_zipf(topics, DRAWS), at: 0 },
        };
        Self { choice, sent: vec![0; topics as usize] }
    }

    /// Chooses the next topic, and counts a message there.
    #[inline]
    pub(crate) fn step(&mut self) -> Step {
        let topics = self.sent.len() as u32;
        let topic = match &mut self.choice {
            Choice::RoundRobin { next } => {
                let topic = *next;
                *next = if topic + 1 == topics { 0 } else { topic + 1 };
                topic
            }
            Choice::Random(random) => random.u32(..topics),
            Choice::Drawn { topics, at } => {
                let topic = topics[*at];
                *at = if *at + 1 == topics.len() { 0 } else { *at + 1 };
                topic
            }
        };
        let sent = &mut self.sent[topic as usize];
        let number = *sent;
        *sent += 1;
        Step { topic, number }
    }

    /// Messages of each topic so far.
    pub(crate) fn into_sent(self) -> Vec<u64> {
        self.sent
    }
}

/// Draws `draws` topics by Zipf's law with exponent 1, by inverting its distribution function.
fn draw_zipf(topics: u32, draws: usize) -> Vec<u32> {
    let mut random = fastrand::Rng::with_seed(SEED);
    // Popular topics are not neighbours: neither their names nor the server's memory of them.
    let mut by_rank: Vec<u32> = (0..topics).collect();
    random.shuffle(&mut by_rank);
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=topics)
        .map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        })
        .collect();
    (0..draws)
        .map(|_| {
            let wanted = random.f64() * sum;
            let rank = cumulative.partition_point(|sum| *sum <= wanted);
            by_rank[rank.min(by_rank.len() - 1)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(order: Order, topics: u32, steps: usize) -> (Vec<Step>, Vec<u64>) {
        let mut walk = TopicWalk::new(topics, order);
        let steps = (0..steps).map(|_| walk.step()).collect();
        (steps, walk.into_sent())
    }

    #[test]
    fn round_robin_takes_every_topic_in_turn() {
        let (steps, _) = walked(Order::RoundRobin, 3, 7);
        let topics: Vec<u32> = steps.iter().map(|step| step.topic).collect();
        assert_eq!(topics, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn numbers_within_a_topic_are_dense_in_every_order() {
        for order in [Order::RoundRobin, Order::Random, Order::Zipf] {
            let (steps, sent) = walked(order, 10, 1_000);
            let mut next = vec![0; 10];
            for step in steps {
                assert_eq!(step.number, next[step.topic as usize], "{order:?}");
                next[step.topic as usize] += 1;
            }
            assert_eq!(sent, next, "{order:?}");
        }
    }

    #[test]
    fn an_order_is_the_same_in_every_run() {
        for order in [Order::Random, Order::Zipf] {
            assert_eq!(walked(order, 50, 500), walked(order, 50, 500), "{order:?}");
        }
    }

    #[test]
    fn the_nth_most_popular_topic_gets_its_share_by_zipfs_law() {
        let draws = 1 << 20;
        let mut counts = vec![0_u32; 1_000];
        for topic in draw_zipf(1_000, draws) {
            counts[topic as usize] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let harmonic: f64 = (1..=1_000).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1, 2, 10] {
            let expected = draws as f64 / harmonic / f64::from(rank);
            let share = f64::from(counts[rank as usize - 1]) / expected;
            assert!((share - 1.0).abs() < 0.05, "rank {rank}: {share}");
        }
        assert!(counts[0] > 0 && counts[999] > 0);
    }
}
