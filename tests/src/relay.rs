//! A stretch of network between two nodes that a test can break: a relay for TCP connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::soon;

/// Bytes passed on at a time, so that some are always under way.
const CHUNK_BYTES: usize = 16 << 10;

/// Takes connections until it breaks, and passes them on to an address.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    /// Both ends of each.
    made: Receiver<[TcpStream; 2]>,
    fault: Arc<Fault>,
}

/// What becomes of bytes instead of being passed on.
#[derive(Default, Debug)]
struct Fault {
    swallows: AtomicBool,
    swallowed: AtomicU64,
}

impl Relay {
    /// Listens on a free port of 127.0.0.1.
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let (sender, made) = mpsc::channel();
        let fault = Arc::new(Fault::default());
        let shared = Arc::clone(&fault);
        // It ends when somebody comes behind the break, or with the test's process.
        thread::spawn(move || {
            while let Ok((near, _)) = listener.accept()
                && !shared.swallows.load(Ordering::Relaxed)
            {
                let Ok(far) = TcpStream::connect(target) else { continue };
                let ends = [near, far];
                for (from, to) in [(0, 1), (1, 0)] {
                    let (Ok(from), Ok(to)) = (ends[from].try_clone(), ends[to].try_clone()) else {
                        return;
                    };
                    let fault = Arc::clone(&shared);
                    thread::spawn(move || fault.pass_on(from, to));
                }
                // A test that is over does not want to know.
                let _ = sender.send(ends);
            }
        });
        Self { address, made, fault }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks as a network does that is lost: first what is sent goes nowhere, although the sender's
    /// kernel is told that it has arrived, at least so many bytes; then both ends hear that the connection
    /// is closed. Returns how many bytes were lost.
    ///
    /// # Panics
    /// If too little is sent.
    pub fn break_after_losing(&self, bytes: u64) -> u64 {
        self.fault.swallows.store(true, Ordering::Relaxed);
        soon("what was sent is lost", || self.fault.swallowed.load(Ordering::Relaxed) >= bytes);
        for end in self.made.try_iter().flatten() {
            // Its peer may have closed it already.
            let _ = end.shutdown(Shutdown::Both);
        }
        self.fault.swallowed.load(Ordering::Relaxed)
    }
}

impl Fault {
    fn pass_on(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = [0; CHUNK_BYTES];
        while let Ok(count) = from.read(&mut bytes)
            && count > 0
        {
            if self.swallows.load(Ordering::Relaxed) {
                self.swallowed.fetch_add(count as u64, Ordering::Relaxed);
            } else if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    }
}
