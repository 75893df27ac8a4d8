//! What TOP can show, and in which orders.

/// One page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum View {
    Overview,
    Topics,
    Subscriptions,
    Peers,
}

impl View {
    pub(super) const ALL: [Self; 4] =
        [Self::Overview, Self::Topics, Self::Subscriptions, Self::Peers];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Topics => "Topics",
            Self::Subscriptions => "Subscriptions",
            Self::Peers => "Peers",
        }
    }

    /// The orders of its rows, the usual one first.
    pub(super) fn orders(self) -> &'static [Order] {
        match self {
            Self::Overview => &[Order::Rate],
            Self::Topics => &[Order::Rate, Order::Messages, Order::Subscriptions, Order::Name],
            Self::Subscriptions => &[Order::Queue, Order::Fill, Order::Dropped, Order::Rate],
            Self::Peers => &[Order::Address, Order::Queue, Order::Latency, Order::Rate],
        }
    }

    /// The one so many further, around the end.
    pub(super) fn turned(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}

/// What rows are ordered by, the greatest first; names and addresses from the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    Rate,
    Messages,
    Subscriptions,
    Name,
    Queue,
    Fill,
    Dropped,
    Address,
    Latency,
}

impl Order {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Messages => "messages",
            Self::Subscriptions => "subscriptions",
            Self::Name => "name",
            Self::Queue => "queue",
            Self::Fill => "fill",
            Self::Dropped => "dropped",
            Self::Address => "address",
            Self::Latency => "latency",
        }
    }
}
