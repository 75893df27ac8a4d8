//! What TOP knows, and what the user looks at.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Instant;

use nexusd_admin::proto::{Peer, Server, Subscription, Topic};

use super::sample::{PeerStats, Sample};
use super::slow::{Pace, fill_percent, pace};
use super::view::{Order, View};
use crate::error::CliError;
use crate::rates::{Rates, by_name};

/// Rates that the overview draws.
const HISTORY_MAX: usize = 240;

/// Everything that is drawn.
#[derive(Debug)]
pub(super) struct State {
    pub(super) address: String,
    pub(super) is_coloured: bool,
    pub(super) view: View,
    /// The order of each view.
    orders: [Order; View::ALL.len()],
    /// The list of keys is shown.
    pub(super) shows_keys: bool,
    /// The first row that is shown.
    pub(super) offset: usize,
    pub(super) sample: Option<Sample>,
    /// Why the daemon did not answer the last time.
    pub(super) fault: Option<String>,
    stats: Rates<String>,
    topics: Rates<String>,
    sent: Rates<String>,
    dropped: Rates<String>,
    peers_in: Rates<String>,
    peers_out: Rates<String>,
    /// Messages in and out a second, the newest last.
    pub(super) history: VecDeque<(u64, u64)>,
}

/// A topic and its rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopicRow<'a> {
    pub(super) topic: &'a Topic,
    pub(super) per_second: Option<f64>,
}

/// A subscription and how it keeps up.
#[derive(Clone, Copy, Debug)]
pub(super) struct SubscriptionRow<'a> {
    pub(super) subscription: &'a Subscription,
    pub(super) pace: Pace,
    pub(super) fill_percent: f64,
    pub(super) sent_per_second: Option<f64>,
}

/// A peer and what it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerRow<'a> {
    pub(super) peer: &'a Peer,
    pub(super) in_per_second: Option<f64>,
    pub(super) out_per_second: Option<f64>,
}

impl State {
    pub(super) fn new(address: String, is_coloured: bool) -> Self {
        Self {
            address,
            is_coloured,
            view: View::Overview,
            orders: View::ALL.map(|view| view.orders()[0]),
            shows_keys: false,
            offset: 0,
            sample: None,
            fault: None,
            stats: Rates::default(),
            topics: Rates::default(),
            sent: Rates::default(),
            dropped: Rates::default(),
            peers_in: Rates::default(),
            peers_out: Rates::default(),
            history: VecDeque::new(),
        }
    }

    /// Takes what the daemon answered.
    pub(super) fn take(&mut self, sample: Sample) {
        let at = sample.at;
        self.stats.update(at, by_name(&sample.info.stats), true);
        let topics = sample.topics.topics.iter().map(|it| (it.name.clone(), it.messages));
        // One that is new counts from where its shard was, not from nothing.
        self.topics.update(at, topics, false);
        let subscriptions = &sample.subscriptions.subscriptions;
        let is_complete = !sample.subscriptions.is_truncated;
        let sent = subscriptions.iter().map(|it| (it.subscription_id.clone(), it.sent_messages));
        self.sent.update(at, sent, is_complete);
        let dropped =
            subscriptions.iter().map(|it| (it.subscription_id.clone(), it.dropped_messages));
        self.dropped.update(at, dropped, is_complete);
        let of_peers = |name: &str| -> Vec<(String, Instant, u64)> {
            let value = |(id, stats): (&String, &PeerStats)| {
                let metric = stats.metrics.iter().find(|metric| metric.name == name)?;
                Some((id.clone(), stats.at, metric.value))
            };
            sample.peer_stats.iter().filter_map(value).collect()
        };
        // A peer that did not answer the last time is not one that counts from nothing.
        self.peers_in.update_each(at, of_peers("messages_in"), false);
        self.peers_out.update_each(at, of_peers("messages_out"), false);
        if let (Some(messages_in), Some(messages_out)) =
            (self.stats.of("messages_in"), self.stats.of("messages_out"))
        {
            if self.history.len() == HISTORY_MAX {
                self.history.pop_front();
            }
            self.history.push_back((messages_in.round() as u64, messages_out.round() as u64));
        }
        self.sample = Some(sample);
        self.fault = None;
        self.scroll(0);
    }

    /// Notes that the daemon did not answer.
    pub(super) fn fail(&mut self, error: &CliError) {
        self.fault = Some(error.to_string());
    }

    pub(super) fn server(&self) -> Option<&Server> {
        self.sample.as_ref()?.info.server.as_ref()
    }

    /// How fast a counter of the daemon grows.
    pub(super) fn rate(&self, name: &str) -> Option<f64> {
        self.stats.of(name)
    }

    /// The value of a counter or gauge of the daemon.
    pub(super) fn value(&self, name: &str) -> Option<u64> {
        let stats = &self.sample.as_ref()?.info.stats;
        stats.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    pub(super) fn order(&self) -> Order {
        self.orders[self.view as usize]
    }

    /// Orders the rows of this view by the next of its keys.
    pub(super) fn turn_order(&mut self) {
        let orders = self.view.orders();
        let at = orders.iter().position(|order| *order == self.order()).unwrap_or_default();
        self.orders[self.view as usize] = orders[(at + 1) % orders.len()];
        self.offset = 0;
    }

    pub(super) fn look_at(&mut self, view: View) {
        self.view = view;
        self.offset = 0;
    }

    /// Moves so many rows, and never beyond the last one.
    pub(super) fn scroll(&mut self, rows: isize) {
        let last = self.rows().saturating_sub(1);
        self.offset = self.offset.saturating_add_signed(rows).min(last);
    }

    fn rows(&self) -> usize {
        self.sample.as_ref().map_or(0, |sample| match self.view {
            View::Overview => 0,
            View::Topics => sample.topics.topics.len(),
            View::Subscriptions => sample.subscriptions.subscriptions.len(),
            View::Peers => sample.peers.len(),
        })
    }

    pub(super) fn topics(&self, order: Order) -> Vec<TopicRow<'_>> {
        let topics = self.sample.iter().flat_map(|sample| &sample.topics.topics);
        let mut rows: Vec<_> = topics
            .map(|topic| TopicRow { topic, per_second: self.topics.of(&topic.name) })
            .collect();
        rows.sort_by(|one, other| {
            let by_name = || one.topic.name.cmp(&other.topic.name);
            let greatest = match order {
                Order::Messages => other.topic.messages.cmp(&one.topic.messages),
                Order::Subscriptions => other.topic.subscriptions.cmp(&one.topic.subscriptions),
                Order::Name => by_name(),
                _ => greater(one.per_second, other.per_second)
                    .then(other.topic.messages.cmp(&one.topic.messages)),
            };
            greatest.then_with(by_name)
        });
        rows
    }

    pub(super) fn subscriptions(&self, order: Order) -> Vec<SubscriptionRow<'_>> {
        let all = self.sample.iter().flat_map(|sample| &sample.subscriptions.subscriptions);
        let mut rows: Vec<_> = all
            .map(|subscription| {
                let id = &subscription.subscription_id;
                let dropped = self.dropped.of(id).unwrap_or_default();
                SubscriptionRow {
                    subscription,
                    pace: pace(subscription, dropped),
                    fill_percent: fill_percent(subscription),
                    sent_per_second: self.sent.of(id),
                }
            })
            .collect();
        rows.sort_by(|one, other| {
            let queued = |row: &SubscriptionRow<'_>| Reverse(row.subscription.queued_messages);
            let dropped = |row: &SubscriptionRow<'_>| Reverse(row.subscription.dropped_messages);
            let first = match order {
                Order::Dropped => dropped(one).cmp(&dropped(other)),
                Order::Rate => greater(one.sent_per_second, other.sent_per_second),
                Order::Fill => other.fill_percent.total_cmp(&one.fill_percent),
                _ => queued(one).cmp(&queued(other)),
            };
            first
                .then_with(|| queued(one).cmp(&queued(other)))
                .then_with(|| dropped(one).cmp(&dropped(other)))
                .then_with(|| {
                    one.subscription.subscription_id.cmp(&other.subscription.subscription_id)
                })
        });
        rows
    }

    pub(super) fn peers(&self, order: Order) -> Vec<PeerRow<'_>> {
        let all = self.sample.iter().flat_map(|sample| &sample.peers);
        let mut rows: Vec<_> = all
            .map(|peer| PeerRow {
                peer,
                in_per_second: self.peers_in.of(&peer.node_id),
                out_per_second: self.peers_out.of(&peer.node_id),
            })
            .collect();
        rows.sort_by(|one, other| {
            let first = match order {
                Order::Queue => other.peer.queued_bytes.cmp(&one.peer.queued_bytes),
                Order::Latency => other.peer.latency_us.cmp(&one.peer.latency_us),
                Order::Rate => greater(one.in_per_second, other.in_per_second),
                _ => one.peer.address.cmp(&other.peer.address),
            };
            first.then_with(|| one.peer.node_id.cmp(&other.peer.node_id))
        });
        rows
    }
}

/// The greater rate first; those that are not known last.
fn greater(one: Option<f64>, other: Option<f64>) -> std::cmp::Ordering {
    other.unwrap_or(-1.0).total_cmp(&one.unwrap_or(-1.0))
}
