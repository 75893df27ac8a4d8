//! What error numbers of socket calls mean to a driver. Whatever is not named here ends the connection,
//! or lets the listener rest.

/// Nothing happened that matters: the call may be made again when there is reason to.
pub(super) fn is_passing(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::EINTR | libc::ECANCELED)
}

/// An accept failed, but not for want of anything: the connection was gone before we came, or the kernel
/// had no room for completions.
pub(super) fn is_passing_for_accept(errno: i32) -> bool {
    is_passing(errno) || errno == libc::ECONNABORTED
}

/// A send found that the peer is gone.
pub(super) fn says_peer_is_gone(errno: i32) -> bool {
    matches!(errno, libc::EPIPE | libc::ECONNRESET)
}
