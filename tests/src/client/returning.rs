//! How a client comes back to its subscriptions after a connection that broke.

use nexusd_wire::control::{GapMode, Role};
use nexusd_wire::{FrameEncoder, SubscriptionId};

use super::Client;
use crate::address::Address;
use crate::heard::{Complaint, Heard, Subscribed};

impl Client {
    /// Connects to go on with a subscription, and is welcomed.
    pub fn connect_for(address: &Address, subscription: SubscriptionId) -> Self {
        let mut client = Self::open(address);
        client.hello_for(subscription);
        client.welcome();
        client
    }

    /// Says Hello, to go on with a subscription.
    pub fn hello_for(&mut self, subscription: SubscriptionId) {
        let (out, resume) = (&mut self.outgoing, Some(subscription));
        FrameEncoder::new().hello_again(out, 0, Role::Client, "a test", "nexusd-tests", resume);
    }

    /// Says how many messages of each subscription it has had.
    pub fn acknowledge(&mut self, received: &[(SubscriptionId, u64)]) {
        FrameEncoder::new().stream_ack(&mut self.outgoing, received);
    }

    /// Asks to go on with a subscription of which it has had so many messages, without waiting for
    /// it; returns the request's number.
    pub fn ask_to_resume(
        &mut self,
        subscription: SubscriptionId,
        received: u64,
        mode: GapMode,
    ) -> u64 {
        self.request += 1;
        let out = &mut self.outgoing;
        FrameEncoder::new().resume(out, self.request, subscription, received, mode);
        self.request
    }

    /// Goes on with a subscription of which it has had so many messages.
    ///
    /// # Panics
    /// If the daemon does not.
    pub fn resume(&mut self, subscription: SubscriptionId, received: u64) -> Subscribed {
        let asked = self.ask_to_resume(subscription, received, GapMode::None);
        let subscribed = self.subscribed(asked);
        assert_eq!(subscribed.subscription, subscription, "its id stays");
        subscribed
    }

    /// Asks to park a subscription, without waiting for it; returns the request's number.
    pub fn ask_to_pause(&mut self, subscription: SubscriptionId) -> u64 {
        self.request += 1;
        FrameEncoder::new().unsubscribe(&mut self.outgoing, self.request, subscription, true);
        self.request
    }

    /// Parks a subscription, and waits until that is confirmed; returns how long it stays, in
    /// milliseconds.
    pub fn pause(&mut self, subscription: SubscriptionId) -> u64 {
        let asked = self.ask_to_pause(subscription);
        self.wait_for("UnsubscribeResult", |heard| match heard {
            Heard::Unsubscribed { request, success, message, pause_ttl_ms }
                if *request == asked =>
            {
                assert!(success, "{message}");
                Some(*pause_ttl_ms)
            }
            _ => None,
        })
    }

    /// Waits until the request of this number is refused.
    pub fn refusal(&mut self, asked: u64) -> Complaint {
        self.wait_for("Error", |heard| match heard {
            Heard::Error(complaint) if complaint.request == asked => Some(complaint.clone()),
            _ => None,
        })
    }
}
