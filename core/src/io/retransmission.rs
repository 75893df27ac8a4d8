//! How long TCP waits, at most, before it sends once more what was not acknowledged.
//!
//! It doubles its wait with each attempt that nobody answers: behind a netsplit of three seconds the next
//! one comes three seconds later, and by then the silence has made the peer dead. Linux 6.15 lets a socket
//! bound that wait. On an older one a link lives through shorter netsplits only.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

/// The option, which libc does not name yet (`include/uapi/linux/tcp.h`).
const TCP_RTO_MAX_MS: libc::c_int = 44;
/// The least that the kernel takes.
const WAIT_MAX_MS: libc::c_int = 1_000;

/// Bounds it for a connection to another node or, before they are accepted, for those of a listener.
/// Returns whether the kernel can.
pub(super) fn bound(socket: BorrowedFd<'_>) -> bool {
    let value = WAIT_MAX_MS;
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is borrowed and open, and the kernel reads `len` bytes, all of a value that lives
    // longer than the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_RTO_MAX_MS,
            (&raw const value).cast(),
            len,
        )
    };
    result == 0
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    /// What the kernel would wait, in milliseconds.
    fn wait_max_ms(socket: BorrowedFd<'_>) -> libc::c_int {
        let (mut value, mut len) = (0, size_of::<libc::c_int>() as libc::socklen_t);
        // SAFETY: the descriptor is borrowed and open, and the kernel writes at most `len` bytes to a value
        // of that size.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                TCP_RTO_MAX_MS,
                (&raw mut value).cast(),
                &raw mut len,
            )
        };
        assert_eq!(result, 0);
        value
    }

    #[test]
    fn connections_have_the_bound_of_their_listener() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        if !bound(listener.as_fd()) {
            // An older kernel.
            return;
        }
        let address = listener.local_addr().expect("bound");
        let dialled = TcpStream::connect(address).expect("a connection");
        assert!(wait_max_ms(dialled.as_fd()) > WAIT_MAX_MS, "what it is without");
        assert!(bound(dialled.as_fd()));
        let (accepted, _) = listener.accept().expect("a connection");
        for socket in [accepted.as_fd(), dialled.as_fd()] {
            assert_eq!(wait_max_ms(socket), WAIT_MAX_MS);
        }
    }
}
