//! How a client is set up before it connects.

use std::fmt;
#[cfg(unix)]
use std::io;
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::client::Client;
use crate::error::Error;
use crate::event::{Gap, Warning};
use crate::limits;
use crate::outbox::OutboxLimits;
#[cfg(unix)]
use crate::socket::Connector;
use crate::socket::Place;
use crate::state::ConnectionState;

/// What the daemon shows beside the client's name.
const SOFTWARE: &str = concat!("nexusd-client/", env!("CARGO_PKG_VERSION"), " (Rust)");

/// Everything a client can be told before it connects; each option has a default.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example() -> Result<(), nexusd_client::Error> {
/// let client = nexusd_client::Client::builder("localhost:5672")
///     .name("billing")
///     .on_state(|state| eprintln!("{state}"))
///     .on_gap(|filters, gap| eprintln!("{filters:?} lost {:?} messages", gap.missed))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct ClientBuilder {
    address: String,
    pub(crate) options: Options,
}

/// What the builder collects.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// As given, for messages.
    pub(crate) address: Arc<str>,
    /// Where to try, best first.
    pub(crate) places: Vec<Place>,
    pub(crate) name: String,
    pub(crate) software: String,
    pub(crate) prefer_unix: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) ping_after: Duration,
    pub(crate) pong_timeout: Duration,
    pub(crate) reconnect_first: Duration,
    pub(crate) reconnect_longest: Duration,
    pub(crate) outbox_bytes: usize,
    pub(crate) outbox_messages: usize,
    pub(crate) callbacks: Callbacks,
}

type StateCallback = dyn Fn(&ConnectionState) + Send + Sync;
type GapCallback = dyn Fn(&[String], &Gap) + Send + Sync;
type WarningCallback = dyn Fn(&[String], &Warning) + Send + Sync;
type ErrorCallback = dyn Fn(&Error) + Send + Sync;

#[derive(Clone, Default)]
pub(crate) struct Callbacks {
    pub(crate) on_state: Option<Arc<StateCallback>>,
    pub(crate) on_gap: Option<Arc<GapCallback>>,
    pub(crate) on_warning: Option<Arc<WarningCallback>>,
    pub(crate) on_error: Option<Arc<ErrorCallback>>,
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}

impl ClientBuilder {
    pub(crate) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            options: Options {
                address: address.into(),
                places: Vec::new(),
                name: program_name(),
                software: SOFTWARE.to_owned(),
                prefer_unix: true,
                connect_timeout: limits::CONNECT_TIMEOUT,
                request_timeout: limits::REQUEST_TIMEOUT,
                close_timeout: limits::CLOSE_TIMEOUT,
                ping_after: limits::PING_AFTER,
                pong_timeout: limits::PONG_TIMEOUT,
                reconnect_first: Duration::from_millis(100),
                reconnect_longest: Duration::from_secs(30),
                outbox_bytes: limits::OUTBOX_BYTES,
                outbox_messages: limits::OUTBOX_MESSAGES,
                callbacks: Callbacks::default(),
            },
        }
    }

    /// What the daemon shows in its list of clients. Default: the program's name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = name.into();
        self
    }

    /// What the daemon shows beside that as the software, for programs that are a way to the daemon for others.
    /// Default: this library.
    pub fn software(mut self, software: impl Into<String>) -> Self {
        self.options.software = software.into();
        self
    }

    /// Whether the daemon's unix socket `@nexusd/<port>` is tried before TCP when the address is
    /// this machine (`localhost`, 127.0.0.0/8, `::1`). Default: yes, on Linux; it costs about a
    /// third of TCP per call. The daemon derives the name from its own port, and abstract names and
    /// loopback addresses belong to the same network namespace, so whoever welcomes the client there
    /// is taken for the daemon of that port, and its node id is not compared with that of the TCP
    /// port. If nobody does, TCP is tried at once.
    pub fn prefer_unix_socket(mut self, prefer: bool) -> Self {
        self.options.prefer_unix = prefer;
        self
    }

    /// Has every connection made by `connect` instead of dialling the address, which from then on only names the
    /// daemon in messages: for a program that the daemon is a part of, or that has its own way to it.
    #[cfg(unix)]
    pub fn connect_by(
        mut self,
        connect: impl Fn() -> io::Result<UnixStream> + Send + Sync + 'static,
    ) -> Self {
        self.options.places = vec![Place::Given(Connector::new(connect))];
        self
    }

    /// Time to connect and be welcomed, for each place that is tried. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// Time for the answer to a request or an acknowledged publish. Default: 10 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.options.request_timeout = timeout;
        self
    }

    /// Time that [`Client::close`], or the dropping of the last handle, allows for sending what is
    /// queued. Default: 5 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.options.close_timeout = timeout;
        self
    }

    /// When to find that the daemon is gone without having closed the connection: after `silence`
    /// it is pinged, after `pong` more without a byte the connection is given up. Default: 30 s and
    /// 10 s.
    pub fn ping(mut self, silence: Duration, pong: Duration) -> Self {
        self.options.ping_after = silence;
        self.options.pong_timeout = pong;
        self
    }

    /// Delays between attempts to reconnect: from `first`, doubling, up to `longest`, each varied by
    /// ±10 %, without end. Default: 100 ms and 30 s.
    pub fn reconnect_delays(mut self, first: Duration, longest: Duration) -> Self {
        self.options.reconnect_first = first;
        self.options.reconnect_longest = longest;
        self
    }

    /// How much may wait to be sent, connected or not: messages, and bytes as encoded. One message
    /// that is larger alone is taken when nothing else waits. Default: 10,000 and 8 MiB.
    pub fn outbox(mut self, messages: usize, bytes: usize) -> Self {
        self.options.outbox_messages = messages.max(1);
        self.options.outbox_bytes = bytes;
        self
    }

    /// Is called with every change of the connection state, in order. Callbacks run on the task that
    /// serves the connection: they must not block. One that panics is isolated.
    pub fn on_state(mut self, tell: impl Fn(&ConnectionState) + Send + Sync + 'static) -> Self {
        self.options.callbacks.on_state = Some(Arc::new(tell));
        self
    }

    /// Is called with every gap as it arrives, and the filters of the subscription it belongs to.
    /// The gap also stands in the subscription's stream, at its place.
    pub fn on_gap(mut self, tell: impl Fn(&[String], &Gap) + Send + Sync + 'static) -> Self {
        self.options.callbacks.on_gap = Some(Arc::new(tell));
        self
    }

    /// Is called with every warning that a subscription falls behind, and its filters. At most one a
    /// second and subscription. The warning also stands in the subscription's stream.
    pub fn on_warning(
        mut self,
        tell: impl Fn(&[String], &Warning) + Send + Sync + 'static,
    ) -> Self {
        self.options.callbacks.on_warning = Some(Arc::new(tell));
        self
    }

    /// Is called with errors that no call returns: a fire-and-forget message that the daemon
    /// refused, a subscription that it refused after a reconnection.
    pub fn on_error(mut self, tell: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.options.callbacks.on_error = Some(Arc::new(tell));
        self
    }

    /// Connects. Fails if the first attempt does; from then on the client reconnects by itself.
    pub async fn connect(self) -> Result<Client, Error> {
        Client::start(self.finish()?).await
    }

    /// Makes a client that connects in the background, for as long as it takes. Until then its
    /// outbox takes messages and its requests wait. Must be called inside a tokio runtime.
    pub fn connect_in_background(self) -> Result<Client, Error> {
        Client::start_in_background(self.finish()?)
    }

    fn finish(mut self) -> Result<Options, Error> {
        if self.options.places.is_empty() {
            let address = Address::parse(&self.address)?;
            let places = address.places(self.options.prefer_unix);
            self.options.places = places.into_iter().map(Place::At).collect();
        }
        Ok(self.options)
    }
}

impl Options {
    pub(crate) fn outbox_limits(&self) -> OutboxLimits {
        OutboxLimits { bytes: self.outbox_bytes, messages: self.outbox_messages }
    }
}

fn program_name() -> String {
    std::env::args_os()
        .next()
        .and_then(|path| {
            let path = std::path::PathBuf::from(path);
            Some(path.file_stem()?.to_string_lossy().into_owned())
        })
        .unwrap_or_default()
}
