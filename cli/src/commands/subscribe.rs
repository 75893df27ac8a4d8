//! SUBSCRIBE: prints what comes, until it is stopped.

use std::sync::atomic::{AtomicBool, Ordering};

use nexusd_client::{Client, ConnectionState, Error, Event, SubscribeOptions};

use super::event::{self, Told};
use super::note_foreign_wildcards;
use crate::arguments::SubscribeArguments;
use crate::console::{self, Console};
use crate::error::CliError;
use crate::remote::Remote;
use crate::stops::Stops;

pub(crate) async fn run(
    arguments: SubscribeArguments,
    remote: &Remote,
    console: Console,
    stops: &Stops,
) -> Result<(), CliError> {
    let Some(client) = stops.unless_stopped(remote.client_that_tells(teller())).await else {
        return Ok(());
    };
    let client = client?;
    let ended = stops.unless_stopped(print(arguments, &client, console)).await;
    // However it ends, the daemon keeps nothing for a subscriber that does not come back.
    let closed = client.close().await;
    match ended {
        Some(ended) => ended.and(closed.map_err(CliError::from)),
        // Nobody waits for what the farewell has to say.
        None => Ok(()),
    }
}

async fn print(
    arguments: SubscribeArguments,
    client: &Client,
    console: Console,
) -> Result<(), CliError> {
    let SubscribeArguments { filters, count, retained } = arguments;
    let options = SubscribeOptions::new().retained(retained).wait_mesh(true);
    note_foreign_wildcards(&filters);
    let names = filters.join(" ");
    let mut subscription = client.subscribe_with(filters, options).await?;
    if console.is_terminal() {
        console::note(&format!("-- subscribed to {names}; Ctrl-C ends it"));
    }
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(next) = subscription.next().await else {
            return Err(CliError::Ended(subscription.end_reason().unwrap_or(Error::Closed)));
        };
        left -= u64::from(matches!(next, Event::Message(_)));
        console.show_next(&Told::from(&next), || event::text(console, &next))?;
    }
    Ok(())
}

/// Makes what says on stderr that nothing comes for a while, and that it goes on. The subscription does so by
/// itself; what is lost meanwhile it tells.
fn teller() -> impl Fn(&ConnectionState) + Send + Sync {
    let was_connected = AtomicBool::new(false);
    move |state| match state {
        // One that this program closes is not made anew.
        ConnectionState::Disconnected { cause: Some(cause) } if !matches!(cause, Error::Closed) => {
            console::note(&format!("-- {cause}; trying again"));
        }
        // The first one needs no words.
        ConnectionState::Connected(daemon) if was_connected.swap(true, Ordering::Relaxed) => {
            console::note(&format!("-- connected to node {}", daemon.node));
        }
        _ => {}
    }
}
