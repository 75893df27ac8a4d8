//! A queueing model of one shard between a publisher and a subscriber, from which follows how long messages
//! take at a given rate.
//!
//! Three stages in a row, each of which works in batches: it takes all that lies before it, up to a bound, and
//! is busy for a fixed time and a time for each message. The shard has a core of its own; publisher and
//! subscriber share the other one: who has it goes on as long as there is something to do, for a slice of time if the
//! other one waits. A stage with nothing to do
//! sleeps, and is woken by the first batch that comes, after a random time if its core is idle. The
//! publisher follows a schedule: it writes what is due, and sleeps until the next message is, a given pause at the
//! least. The machine is taken to be nobody else's: no core ever stands still.
//!
//! Such a row of batch servers with vacations has no closed form that anybody would want to read, so the
//! recursion is carried out, batch by batch, with random numbers that are always the same.
//! Pure: no clock, no files. Times are nanoseconds.

use std::collections::VecDeque;

use crate::statistics::SplitMix;

/// How long a stage is busy with a batch. Half of the fixed time lies before the batch goes on, being woken and looking
/// around; the other half behind it, waking others and going to sleep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Work {
    pub(crate) per_batch_ns: f64,
    pub(crate) per_message_ns: f64,
    /// Most messages of a batch.
    pub(crate) batch_max: u64,
}

/// A time that varies, as a log-normal distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Varying {
    pub(crate) median_ns: f64,
    /// Standard deviation of its natural logarithm.
    pub(crate) spread: f64,
}

/// All that the model knows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Parameters {
    pub(crate) publisher: Work,
    pub(crate) shard: Work,
    pub(crate) subscriber: Work,
    /// From an event to the first instruction of the stage that slept for it, on an idle core.
    pub(crate) wake_up: Varying,
    /// The least time between two writes of the publisher.
    pub(crate) pause_ns: f64,
    /// How long one stage keeps a core from another one that is ready.
    pub(crate) slice_ns: f64,
}

/// Latencies of messages, from the time at which each was meant to be sent: how many fall into each of many narrow
/// ranges.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies {
    ranges: Vec<f64>,
    messages: f64,
}

/// How the shard fared.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) latencies: Latencies,
    /// Share of the time in which the shard was busy.
    pub(crate) shard_busy: f64,
    /// Messages of a turn of the shard, on average.
    pub(crate) turn_messages: f64,
}

/// Messages of a batch whose latencies are noted, evenly spread over it.
const NOTED_PER_BATCH: u64 = 20;
/// Width of a range of latencies, as a share of them.
const RANGE: f64 = 0.005;
const SEED: u64 = 3;
/// Time at the beginning that does not count.
const WARMUP_NS: f64 = 50e6;

/// Lets messages flow for so long.
pub(crate) fn simulate(parameters: &Parameters, rate_per_s: f64, seconds: f64) -> Outcome {
    let mut row = Row::new(parameters, rate_per_s);
    let end_ns = WARMUP_NS + seconds * 1e9;
    while row.now_ns < end_ns {
        row.step();
    }
    Outcome {
        latencies: row.latencies,
        shard_busy: row.shard_busy_ns / row.now_ns,
        turn_messages: row.shard_messages as f64 / row.shard_turns.max(1) as f64,
    }
}

impl Latencies {
    /// The latency that a share of the messages does not exceed.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let wanted = self.messages * share;
        let mut seen = 0.0;
        for (range, messages) in self.ranges.iter().enumerate() {
            seen += messages;
            if seen >= wanted && seen > 0.0 {
                return ((range as f64 + 0.5) * RANGE).exp();
            }
        }
        0.0
    }

    fn note(&mut self, latency_ns: f64, messages: f64) {
        let range = (latency_ns.max(1.0).ln() / RANGE) as usize;
        if range >= self.ranges.len() {
            self.ranges.resize(range + 1, 0.0);
        }
        self.ranges[range] += messages;
        self.messages += messages;
    }
}

/// Messages that travel together.
#[derive(Debug, Clone, Copy)]
struct Batch {
    /// When the next stage can see them.
    visible_ns: f64,
    first: u64,
    count: u64,
}

/// A core, which does one thing at a time.
#[derive(Debug, Default)]
struct Core {
    free_ns: f64,
}

impl Core {
    /// Does something that takes `work_ns` from `start_ns` on; says when it ends.
    fn run(&mut self, start_ns: f64, work_ns: f64) -> f64 {
        self.free_ns = start_ns + work_ns;
        self.free_ns
    }

    fn is_idle(&self, at_ns: f64) -> bool {
        self.free_ns <= at_ns
    }
}

/// The three stages and their two cores.
struct Row<'a> {
    parameters: &'a Parameters,
    interval_ns: f64,
    now_ns: f64,
    sent: u64,
    load: Core,
    /// Whether the subscriber had the load's core last, and since when.
    is_subscribers: bool,
    slice_began_ns: f64,
    shard: Core,
    to_shard: VecDeque<Batch>,
    to_subscriber: VecDeque<Batch>,
    /// When the publisher's timer ends, and when it runs if nothing else kept its core awake.
    publisher_timer_ns: f64,
    publisher_awake_ns: f64,
    shard_ready_ns: f64,
    subscriber_ready_ns: f64,
    random: Random,
    latencies: Latencies,
    shard_busy_ns: f64,
    shard_messages: u64,
    shard_turns: u64,
}

/// Who does something next.
enum Next {
    Publisher,
    Shard,
    Subscriber,
}

impl<'a> Row<'a> {
    fn new(parameters: &'a Parameters, rate_per_s: f64) -> Self {
        Self {
            parameters,
            interval_ns: 1e9 / rate_per_s,
            now_ns: 0.0,
            sent: 0,
            load: Core::default(),
            is_subscribers: false,
            slice_began_ns: 0.0,
            shard: Core::default(),
            to_shard: VecDeque::new(),
            to_subscriber: VecDeque::new(),
            publisher_timer_ns: 0.0,
            publisher_awake_ns: 0.0,
            shard_ready_ns: 0.0,
            subscriber_ready_ns: 0.0,
            random: Random::new(SEED),
            latencies: Latencies::default(),
            shard_busy_ns: 0.0,
            shard_messages: 0,
            shard_turns: 0,
        }
    }

    fn step(&mut self) {
        let start = |ready_ns: f64, core: &Core| ready_ns.max(core.free_ns);
        // A timer that ends while the core is at work needs no wake-up.
        let publisher_ready_ns = if self.load.is_idle(self.publisher_timer_ns) {
            self.publisher_awake_ns
        } else {
            self.publisher_timer_ns
        };
        let is_waited_for = !self.to_subscriber.is_empty();
        let subscriber_ready_ns =
            if is_waited_for { self.subscriber_ready_ns } else { f64::INFINITY };
        let is_subscribers = self.is_subscribers_turn(publisher_ready_ns, subscriber_ready_ns);
        let mut next = if is_subscribers {
            (start(subscriber_ready_ns, &self.load), Next::Subscriber)
        } else {
            (start(publisher_ready_ns, &self.load), Next::Publisher)
        };
        if !self.to_shard.is_empty() {
            let at_ns = start(self.shard_ready_ns, &self.shard);
            if at_ns < next.0 {
                next = (at_ns, Next::Shard);
            }
        }
        self.now_ns = next.0;
        if !matches!(next.1, Next::Shard) {
            if is_subscribers != self.is_subscribers || self.now_ns > self.load.free_ns {
                self.slice_began_ns = self.now_ns;
            }
            self.is_subscribers = is_subscribers;
        }
        match next.1 {
            Next::Publisher => self.publish(),
            Next::Shard => self.turn(),
            Next::Subscriber => self.read(),
        }
    }

    /// Who has the load's core next.
    fn is_subscribers_turn(&self, publisher_ready_ns: f64, subscriber_ready_ns: f64) -> bool {
        let free_ns = self.load.free_ns;
        if publisher_ready_ns > free_ns || subscriber_ready_ns > free_ns {
            return subscriber_ready_ns < publisher_ready_ns;
        }
        let has_time_left = free_ns - self.slice_began_ns < self.parameters.slice_ns;
        self.is_subscribers == has_time_left
    }

    fn due(&self, at_ns: f64) -> u64 {
        ((at_ns / self.interval_ns) as u64 + 1).saturating_sub(self.sent)
    }

    fn publish(&mut self) {
        let work = self.parameters.publisher;
        let count = self.due(self.now_ns).min(work.batch_max);
        let end_ns = self.load.run(self.now_ns, work.takes(count));
        if count > 0 {
            let visible_ns = end_ns - work.per_batch_ns / 2.0;
            if self.to_shard.is_empty() {
                self.shard_ready_ns = visible_ns + self.wake_up(self.shard.is_idle(visible_ns));
            }
            self.to_shard.push_back(Batch { visible_ns, first: self.sent, count });
            self.sent += count;
        }
        if self.due(end_ns) > work.batch_max {
            (self.publisher_timer_ns, self.publisher_awake_ns) = (end_ns, end_ns);
        } else {
            let next_ns = self.sent as f64 * self.interval_ns;
            self.publisher_timer_ns = next_ns.max(end_ns + self.parameters.pause_ns);
            self.publisher_awake_ns = self.publisher_timer_ns + self.wake_up(true);
        }
    }

    fn turn(&mut self) {
        let work = self.parameters.shard;
        let Some(batch) = take(&mut self.to_shard, self.now_ns, work.batch_max) else { return };
        let end_ns = self.shard.run(self.now_ns, work.takes(batch.count));
        self.shard_busy_ns += end_ns - self.now_ns;
        self.shard_messages += batch.count;
        self.shard_turns += 1;
        if let Some(waiting) = self.to_shard.front() {
            self.shard_ready_ns = if waiting.visible_ns <= end_ns {
                end_ns
            } else {
                waiting.visible_ns + self.wake_up(true)
            };
        }
        let visible_ns = end_ns - work.per_batch_ns / 2.0;
        if self.to_subscriber.is_empty() {
            self.subscriber_ready_ns = visible_ns + self.wake_up(self.load.is_idle(visible_ns));
        }
        self.to_subscriber.push_back(Batch { visible_ns, ..batch });
    }

    fn read(&mut self) {
        let work = self.parameters.subscriber;
        let Some(batch) = take(&mut self.to_subscriber, self.now_ns, work.batch_max) else {
            return;
        };
        let end_ns = self.load.run(self.now_ns, work.takes(batch.count));
        // The clock is read once the bytes are there.
        let read_ns = self.now_ns + work.per_batch_ns / 2.0;
        if self.now_ns > WARMUP_NS {
            let noted = batch.count.min(NOTED_PER_BATCH);
            for number in 0..noted {
                let middle = (number as f64 + 0.5) / noted as f64 * batch.count as f64 - 0.5;
                let intended_ns = (batch.first as f64 + middle) * self.interval_ns;
                self.latencies.note(read_ns - intended_ns, batch.count as f64 / noted as f64);
            }
        }
        if let Some(waiting) = self.to_subscriber.front() {
            self.subscriber_ready_ns = if waiting.visible_ns <= end_ns {
                end_ns
            } else {
                waiting.visible_ns + self.wake_up(true)
            };
        }
    }

    fn wake_up(&mut self, is_idle: bool) -> f64 {
        if is_idle { self.random.varying(self.parameters.wake_up) } else { 0.0 }
    }
}

impl Work {
    fn takes(&self, messages: u64) -> f64 {
        self.per_batch_ns + self.per_message_ns * messages as f64
    }
}

/// All that is visible, as one batch, up to a bound.
fn take(waiting: &mut VecDeque<Batch>, now_ns: f64, count_max: u64) -> Option<Batch> {
    let mut taken: Option<Batch> = None;
    while let Some(front) = waiting.front_mut() {
        let room = count_max - taken.map_or(0, |taken| taken.count);
        if room == 0 || (taken.is_some() && front.visible_ns > now_ns) {
            break;
        }
        let count = front.count.min(room);
        let first = taken.map_or(front.first, |taken| taken.first);
        taken = Some(Batch {
            visible_ns: front.visible_ns,
            first,
            count: taken.map_or(0, |taken| taken.count) + count,
        });
        front.first += count;
        front.count -= count;
        if front.count == 0 {
            waiting.pop_front();
        }
    }
    taken
}

/// Random times.
#[derive(Debug)]
struct Random(SplitMix);

impl Random {
    fn new(seed: u64) -> Self {
        Self(SplitMix::new(seed))
    }

    /// Above 0, up to 1.
    fn share(&mut self) -> f64 {
        const STEPS: usize = 1 << 53;
        (self.0.below(STEPS) + 1) as f64 / STEPS as f64
    }

    fn varying(&mut self, time: Varying) -> f64 {
        // The transform of Box and Muller (1958).
        let radius = (-2.0 * self.share().ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.share()).cos();
        time.median_ns * (time.spread * normal).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing varies, and nothing takes time but a pause of the publisher, which keeps tests short.
    fn ideal() -> Parameters {
        let work = Work { per_batch_ns: 0.0, per_message_ns: 0.0, batch_max: 5_000 };
        Parameters {
            publisher: work,
            shard: work,
            subscriber: work,
            wake_up: Varying { median_ns: 0.0, spread: 0.0 },
            pause_ns: 5_000.0,
            slice_ns: 1e6,
        }
    }

    fn assert_near(value: f64, wanted: f64) {
        assert!((value - wanted).abs() <= 0.01 * wanted + 1.0, "{value} instead of {wanted}");
    }

    #[test]
    fn sparse_messages_take_the_sum_of_all_stages_and_three_wake_ups() {
        let wake_up = Varying { median_ns: 40_000.0, spread: 0.0 };
        let work = |per_batch_ns| Work { per_batch_ns, per_message_ns: 0.0, batch_max: 100 };
        let (publisher, shard, subscriber) = (work(3_000.0), work(7_000.0), work(2_000.0));
        let parameters = Parameters { publisher, shard, subscriber, wake_up, ..ideal() };
        let outcome = simulate(&parameters, 1_000.0, 0.5);
        // 3 × 40 µs, and half of 3, 7 and 2.
        assert_near(outcome.latencies.quantile(0.5), 126_000.0);
        assert_near(outcome.latencies.quantile(0.99), 126_000.0);
        assert_near(outcome.shard_busy * 1e3, 7.0);
        assert_near(outcome.turn_messages, 1.0);
    }

    #[test]
    fn a_publisher_that_pauses_makes_its_first_message_wait_and_the_last_one_not() {
        let parameters = Parameters { pause_ns: 100_000.0, ..ideal() };
        let latencies = simulate(&parameters, 1e6, 0.2).latencies;
        // Of a hundred messages twenty are noted.
        for (share, wanted_ns) in [(0.5, 50_000.0), (0.99, 99_000.0)] {
            let off_ns = (latencies.quantile(share) - wanted_ns).abs();
            assert!(off_ns <= 5_000.0, "{share}: {}", latencies.quantile(share));
        }
    }

    #[test]
    fn a_shard_that_is_busy_for_longer_takes_more_at_a_time() {
        let shard = Work { per_batch_ns: 50_000.0, per_message_ns: 100.0, batch_max: 5_000 };
        let parameters = Parameters { shard, ..ideal() };
        // What comes within a turn, r·(50 µs + 100 ns·n) = n, is the next one.
        let outcome = simulate(&parameters, 5e6, 0.2);
        assert_near(outcome.turn_messages, 500.0);
        assert_near(outcome.shard_busy * 1e3, 1_000.0);
        assert!(simulate(&parameters, 8e6, 0.2).turn_messages > 1_900.0);
    }

    #[test]
    fn beyond_its_capacity_a_shard_falls_ever_further_behind() {
        let shard = Work { per_batch_ns: 50_000.0, per_message_ns: 100.0, batch_max: 500 };
        // 50 µs for 500 messages, and 100 ns for each.
        let capacity = 5e6;
        let parameters = Parameters { shard, ..ideal() };
        let p99 = |rate: f64| simulate(&parameters, rate, 0.2).latencies.quantile(0.99);
        assert!(p99(0.95 * capacity) < 0.5e6, "{}", p99(0.95 * capacity));
        assert!(p99(1.1 * capacity) > 10e6, "{}", p99(1.1 * capacity));
    }

    #[test]
    fn who_has_the_core_keeps_it_for_a_slice_from_another_one_that_waits() {
        let parameters = Parameters { slice_ns: 1e6, ..ideal() };
        let mut row = Row::new(&parameters, 1e6);
        (row.load.free_ns, row.slice_began_ns) = (5e6, 4.5e6);
        assert!(!row.is_subscribers_turn(5e6, 4e6), "half a slice is left to the publisher");
        assert!(row.is_subscribers_turn(5.1e6, 4e6), "the publisher pauses");
        row.slice_began_ns = 3e6;
        assert!(row.is_subscribers_turn(5e6, 4e6), "the publisher's slice is over");
        row.is_subscribers = true;
        assert!(!row.is_subscribers_turn(5e6, 4e6), "the subscriber's slice is over");
        assert!(!row.is_subscribers_turn(5e6, f64::INFINITY), "there is nothing to read");
    }

    #[test]
    fn wake_ups_that_vary_make_the_tail_and_leave_the_median() {
        let wake_up = |spread| Varying { median_ns: 40_000.0, spread };
        let at = |spread| {
            let parameters = Parameters { wake_up: wake_up(spread), ..ideal() };
            simulate(&parameters, 1_000.0, 20.0).latencies
        };
        let (steady, varying) = (at(0.0), at(0.5));
        assert_near(steady.quantile(0.99) / steady.quantile(0.5), 1.0);
        let ratio = varying.quantile(0.99) / varying.quantile(0.5);
        assert!((1.7..2.6).contains(&ratio), "{ratio}");
    }

    #[test]
    fn the_same_parameters_give_the_same_figures() {
        let wake_up = Varying { median_ns: 40_000.0, spread: 0.5 };
        let parameters = Parameters { wake_up, ..ideal() };
        let p99 = || simulate(&parameters, 1e5, 0.3).latencies.quantile(0.99);
        assert_eq!(p99().to_bits(), p99().to_bits());
    }
}
