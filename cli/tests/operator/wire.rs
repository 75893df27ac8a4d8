//! The way to a daemon, which a test can cut; what connects anew gets through again.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Takes connections and passes them on to an address.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) address: String,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    /// Listens on a free port of 127.0.0.1 until the test's process ends.
    pub(crate) fn to(target: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let open = Arc::<Mutex<Vec<TcpStream>>>::default();
        let (target, connections) = (target.to_owned(), Arc::clone(&open));
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(&target) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
                    thread::spawn(move || pass_on(from, to));
                }
                connections.lock().unwrap_or_else(PoisonError::into_inner).extend([near, far]);
            }
        });
        Self { address, open }
    }

    /// Ends all connections there are.
    pub(crate) fn cut(&self) {
        for end in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Its peer may have closed it already.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}
