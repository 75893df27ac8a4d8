//! What one send takes along, described to the kernel: the slices that a service lends, as iovecs.
//!
//! The iovecs only point. What they point to is the service's, which leaves it in place until the send
//! has ended.

use crate::io::driver::Service;
use crate::limits::IOVECS_PER_SEND;
use crate::shard::event::ConnectionId;

/// A send never waits, and a broken connection is an error, not a signal.
pub(super) const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Iovecs there is room for from the start.
const IOVECS_AT_FIRST: usize = 16;

/// The slices of one send, used again for the next.
pub(super) struct Gathered {
    iovecs: Vec<libc::iovec>,
}

impl Gathered {
    pub(super) fn new() -> Self {
        Self { iovecs: Vec::with_capacity(IOVECS_AT_FIRST) }
    }

    /// The slices that were collected last; none if there was nothing to send.
    pub(super) fn iovecs(&mut self) -> &mut [libc::iovec] {
        &mut self.iovecs
    }

    /// Collects the slices of `connection` and returns the sum of their lengths. Slices that follow
    /// each other in memory become one; what is beyond the bounds stays for the next send.
    pub(super) fn collect(&mut self, service: &mut impl Service, connection: ConnectionId) -> u32 {
        let iovecs = &mut self.iovecs;
        iovecs.clear();
        let mut bytes = 0u32;
        let mut full = false;
        service.gather(connection, &mut |slice| {
            let Some(sum) = u32::try_from(slice.len())
                .ok()
                .and_then(|len| bytes.checked_add(len))
                .filter(|sum| !full && i32::try_from(*sum).is_ok())
            else {
                full = true;
                return;
            };
            if slice.is_empty() {
                return;
            }
            if let Some(last) = iovecs.last_mut()
                && last.iov_base.addr() + last.iov_len == slice.as_ptr().addr()
            {
                last.iov_len += slice.len();
            } else if iovecs.len() < IOVECS_PER_SEND {
                iovecs.push(libc::iovec {
                    iov_base: slice.as_ptr().cast_mut().cast(),
                    iov_len: slice.len(),
                });
            } else {
                full = true;
                return;
            }
            bytes = sum;
        });
        bytes
    }
}
