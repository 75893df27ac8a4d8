//! A subscription that is parked at the daemon, and what it takes to go on with it.

use std::time::Duration;

use nexusd_wire::{NodeId, SubscriptionId};

use crate::event::Event;
use crate::positions::Position;
use crate::subscribe_options::SubscribeOptions;

/// A paused subscription: the daemon goes on queueing its messages, within the limits of its queue.
///
/// Made by [`Subscription::pause`](crate::Subscription::pause), taken up by
/// [`Client::resume`](crate::Client::resume) of the same or another client, in this process or another
/// one: what it takes are these fields, all of them plain. To keep it longer than the process, write
/// down [`subscription`](Self::subscription), [`node`](Self::node), [`received`](Self::received), the
/// filters, and the positions (they matter once the subscription has expired, or the daemon has
/// started anew), and deal with what is [`unread`](Self::unread) first.
///
/// **After a crash** it is the wrong thing. The client has told the daemon of all that had come into the
/// subscription's buffer, and what the daemon was told of it keeps for this subscription no longer. Resumed with
/// the smaller count of what the application had dealt with, it is told the difference as lost
/// ([`LinkLost`](crate::GapReason::LinkLost)), though the topic's history may hold it. An application that may be
/// killed writes down the position of each message that it has dealt with, and
/// subscribes [behind](SubscribeOptions::behind) the last ones.
///
/// ```
/// # use nexusd_client::{NodeId, Paused, SubscriptionId};
/// # fn as_written(text: &str) -> Option<Paused> {
/// let mut words = text.split(' ');
/// let subscription = SubscriptionId(u128::from_str_radix(words.next()?, 16).ok()?);
/// let node = NodeId(u128::from_str_radix(words.next()?, 16).ok()?);
/// let received = words.next()?.parse().ok()?;
/// let filters = words.map(str::to_owned).collect();
/// Some(Paused::new(filters, subscription, node, received))
/// # }
/// # let written = format!("{} {} {} t u/#", SubscriptionId(7), NodeId(9), 3);
/// # let paused = as_written(&written).unwrap();
/// # assert_eq!((paused.subscription, paused.node, paused.received), (SubscriptionId(7), NodeId(9), 3));
/// # assert_eq!(paused.filters, ["t", "u/#"]);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Paused {
    /// The filters it was made with.
    pub filters: Vec<String>,
    /// The options it was made with: they count again if it has expired.
    pub options: SubscribeOptions,
    /// The daemon's name for it: 128 bits, random. Its text is 32 hexadecimal digits.
    pub subscription: SubscriptionId,
    /// The daemon that keeps it; another one, such as this one after a restart, does not know it.
    pub node: NodeId,
    /// Messages it has had since it began, of every delivery mode; [`unread`](Self::unread) ones are
    /// among them.
    pub received: u64,
    /// How long the daemon keeps it, from the moment it was paused; `None` if that is not known,
    /// because the connection broke meanwhile.
    pub ttl: Option<Duration>,
    /// How far it had come, topic by topic, in at most 1,024 topics.
    pub positions: Vec<Position>,
    /// Whether these are all topics of which it has had messages.
    pub positions_are_complete: bool,
    /// What had come and was not yet taken by the application. The resumed subscription begins with
    /// it.
    pub unread: Vec<Event>,
}

impl Paused {
    /// A paused subscription, from what was written down of it. Options are the defaults, and there
    /// are no positions: set the fields if there were others.
    pub fn new(
        filters: Vec<String>,
        subscription: SubscriptionId,
        node: NodeId,
        received: u64,
    ) -> Self {
        Self {
            filters,
            options: SubscribeOptions::new(),
            subscription,
            node,
            received,
            ttl: None,
            positions: Vec::new(),
            positions_are_complete: false,
            unread: Vec::new(),
        }
    }
}
