//! In steady state a driver allocates nothing.
#![cfg(feature = "uring")]

mod driver_rig;

use std::fmt::Debug;
use std::io::{Read, Write};
use std::thread;

use driver_rig::{connect, loopback};
use nexusd_core::io::driver::{Driver, Park, drain_outputs};
use nexusd_core::io::epoll::{EpollDriver, EpollOptions};
use nexusd_core::io::listener::{ListenAddress, Listener};
use nexusd_core::io::mailbox::{CommandReceiver, mailbox};
use nexusd_core::io::ring::{UringDriver, UringOptions};
use nexusd_core::{ConnectionId, Event, Now, Output, Service};

/// Counts bytes and answers each kibibyte with one byte, out of fixed memory, on two connections.
#[derive(Default)]
struct Teller {
    received: [usize; 2],
    told: [usize; 2],
    sending: [bool; 2],
    wants: [Option<ConnectionId>; 2],
    total: usize,
}

static ANSWER: [u8; 1_024] = [7; 1_024];

impl Teller {
    fn owed(&self, index: usize) -> usize {
        (self.received[index] / 1_024 - self.told[index]).min(ANSWER.len())
    }

    fn flush(&mut self, connection: ConnectionId) {
        let index = connection.index as usize;
        if self.owed(index) > 0 && !self.sending[index] {
            self.sending[index] = true;
            self.wants[index] = Some(connection);
        }
    }
}

impl Service for Teller {
    fn on_event(&mut self, _now: Now, event: Event<'_>) {
        match event {
            Event::Received { connection, bytes } => {
                self.received[connection.index as usize] += bytes.len();
                self.total += bytes.len();
                self.flush(connection);
            }
            Event::Sent { connection, bytes, .. } => {
                let index = connection.index as usize;
                self.told[index] += bytes;
                self.sending[index] = false;
                self.flush(connection);
            }
            _ => {}
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.wants.iter_mut().find_map(Option::take).map(Output::Send)
    }

    fn gather(&mut self, connection: ConnectionId, take: &mut dyn FnMut(&[u8])) {
        let owed = self.owed(connection.index as usize);
        // Two slices that are no neighbours, so that the gathering path is taken.
        take(&ANSWER[owed - owed / 2..owed]);
        take(&ANSWER[..owed - owed / 2]);
    }

    fn landing_zone(&mut self, _connection: ConnectionId) -> Option<&mut [u8]> {
        None
    }

    fn wake_at(&self) -> Option<u64> {
        None
    }

    fn is_finished(&self) -> bool {
        false
    }
}

#[test]
fn a_hundred_megabytes_go_through_io_uring_without_an_allocation() {
    a_hundred_megabytes_go_through_without_an_allocation(|listeners, receiver| {
        UringDriver::new(&UringOptions::default(), listeners, receiver, Box::new(|_| {}))
            .expect("a driver")
    });
}

#[test]
fn a_hundred_megabytes_go_through_epoll_without_an_allocation() {
    a_hundred_megabytes_go_through_without_an_allocation(|listeners, receiver| {
        EpollDriver::new(&EpollOptions::default(), listeners, receiver, Box::new(|_| {}))
            .expect("a driver")
    });
}

fn a_hundred_megabytes_go_through_without_an_allocation<D: Driver<Error: Debug>>(
    driver: impl FnOnce(Vec<Listener>, CommandReceiver) -> D,
) {
    const WARM_UP: usize = 20 << 20;
    const MEASURED: usize = 100 << 20;
    let listener: Listener = loopback();
    let ListenAddress::Tcp(address) = listener.local_address() else {
        panic!("a TCP address");
    };
    let client = move || {
        let client = connect(address);
        let reader = client.try_clone().expect("a second handle");
        let writing = thread::spawn(move || {
            let block = vec![1; 1 << 20];
            for _ in 0..(WARM_UP + MEASURED) >> 20 {
                (&client).write_all(&block).expect("a write");
            }
            client
        });
        let mut answers = vec![0; (WARM_UP + MEASURED) >> 10];
        (&reader).read_exact(&mut answers).expect("the answers");
        assert!(answers.iter().all(|byte| *byte == 7));
        drop(writing.join());
    };
    let clients = [thread::spawn(client), thread::spawn(client)];

    let (_commands, receiver) = mailbox(8).expect("a mailbox");
    let mut driver = driver(vec![listener], receiver);
    let mut teller = Teller::default();
    let mut run_until = |total: usize| {
        let mut park = Park::Until(None);
        while teller.total < total {
            driver.wait(&mut teller, park).expect("a turn");
            park = drain_outputs(&mut driver, &mut teller);
        }
    };
    run_until(2 * WARM_UP);
    let counted = allocation_counter::measure(|| run_until(2 * WARM_UP + MEASURED));
    assert_eq!(counted.count_total, 0, "allocations: {counted:?}");

    // Let the clients finish; the loop would otherwise sleep once they are done.
    while clients.iter().any(|client| !client.is_finished()) {
        driver
            .wait(&mut teller, Park::Until(Some(nexusd_core::io::clock::now().mono_us + 1_000)))
            .expect("a turn");
        while drain_outputs(&mut driver, &mut teller) == Park::Never {}
    }
    for client in clients {
        client.join().expect("a client that got its answers");
    }
}
