//! Who asks: somebody on this host, or from elsewhere.

use std::net::{IpAddr, SocketAddr};

use crate::Fault;

/// What a proxy adds: whoever stands behind it is somewhere else.
pub const FORWARDED: [&str; 5] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

/// Where a call comes from. Whoever serves gRPC puts it among the extensions of each request; a call without
/// it counts as one from elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Caller {
    is_local: bool,
}

impl Caller {
    /// Over the unix socket.
    pub const UNIX: Self = Self { is_local: true };

    /// Over TCP, from this address.
    pub fn at(address: SocketAddr) -> Self {
        let is_local = match address.ip() {
            IpAddr::V4(address) => address.is_loopback(),
            IpAddr::V6(address) => address.to_canonical().is_loopback(),
        };
        Self { is_local }
    }

    /// Whether it is on this host.
    pub(crate) fn is_local(self) -> bool {
        self.is_local
    }

    /// Whether it may change something.
    pub(crate) fn may_change(self) -> Result<(), Fault> {
        if self.is_local {
            return Ok(());
        }
        let text = "this changes something, which is taken from this host alone: over the loopback address or \
                    the unix socket";
        Err(Fault::Forbidden(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_on_this_host_may_change_something_and_nobody_else() {
        let may = |address: &str| {
            Caller::at(SocketAddr::new(address.parse().expect("an address"), 1))
                .may_change()
                .is_ok()
        };
        assert!(may("127.0.0.1") && may("127.8.0.1") && may("::1") && may("::ffff:127.0.0.1"));
        assert!(!may("192.0.2.1") && !may("::ffff:192.0.2.1") && !may("2001:db8::1") && !may("::"));
        assert!(Caller::UNIX.may_change().is_ok());
        assert!(Caller::default().may_change().is_err(), "nobody knows where that comes from");
    }
}
