//! A relay on glommio's own streams, for one question: what would shards cost inside glommio?
//!
//! It speaks the load generator's relay protocol: the first eight bytes of a connection say
//! publisher (`P`) or subscriber (`S`) and are returned; what publishers send goes to every subscriber. Run it
//! pinned, and point the load generator at it and at its own relay on the bare ring:
//!
//! ```text
//! cargo run --release -p nexusd --example glommio_relay -- 127.0.0.1:7000 0
//! nexusd-loadgen --target relay --addr 127.0.0.1:7000 --server-pid PID --workload T1 --rate 100k
//! nexusd-loadgen --target relay --spawn --workload T1 --rate 100k
//! ```
//!
//! `docs/adr/0001-threads.md` holds what came out.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::cell::RefCell;
use std::rc::Rc;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};

type Subscribers = Rc<RefCell<Vec<Rc<RefCell<TcpStream>>>>>;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(Ok(core))) =
        (arguments.next(), arguments.next().map(|core| core.parse()))
    else {
        eprintln!("usage: glommio_relay ADDRESS:PORT CORE");
        std::process::exit(2);
    };
    let executor = LocalExecutorBuilder::new(Placement::Fixed(core)).make().expect("an executor");
    executor.run(async move {
        let listener = TcpListener::bind(&address).expect("a free port");
        println!("glommio relay ready, pid {}", std::process::id());
        let subscribers = Subscribers::default();
        while let Ok(stream) = listener.accept().await {
            glommio::spawn_local(serve(stream, Rc::clone(&subscribers))).detach();
        }
    });
}

/// One publisher at a time writes, because the measurement has one: nobody else borrows a subscriber
/// while a write waits.
#[allow(clippy::await_holding_refcell_ref)]
async fn serve(mut stream: TcpStream, subscribers: Subscribers) {
    let _ = stream.set_nodelay(true);
    let mut greeting = [0; 8];
    if stream.read_exact(&mut greeting).await.is_err() || stream.write_all(&greeting).await.is_err()
    {
        return;
    }
    if greeting[0] == b'S' {
        subscribers.borrow_mut().push(Rc::new(RefCell::new(stream)));
        return;
    }
    let mut buffer = vec![0; 64 << 10];
    while let Ok(received @ 1..) = stream.read(&mut buffer).await {
        let now: Vec<_> = subscribers.borrow().clone();
        for subscriber in now {
            if subscriber.borrow_mut().write_all(&buffer[..received]).await.is_err() {
                subscribers.borrow_mut().retain(|held| !Rc::ptr_eq(held, &subscriber));
            }
        }
    }
}
