//! How a client begins and how it ends.

use std::time::Duration;

use nexusd_client::{Client, ConnectionState, Error};
use nexusd_wire::control::{self, ErrorCode, Role};
use nexusd_wire::{FrameEncoder, FrameKind, NodeId};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::daemon::{MAX_PAYLOAD, NODE, ScriptedDaemon, soon};

#[tokio::test]
async fn the_client_introduces_itself_and_learns_who_the_daemon_is() {
    let daemon = ScriptedDaemon::start().await;
    let script = async {
        let mut link = daemon.accept().await;
        let hello = link.expect(FrameKind::Hello).await;
        hello.see(|frame| {
            let hello = frame.body::<control::Hello<'_>>().unwrap();
            assert_eq!((hello.major(), hello.minor()), (1, 0));
            assert_eq!(hello.role(), Role::Client);
            assert_eq!(hello.name(), Some("billing"));
            assert!(hello.software().unwrap().starts_with("nexusd-client/"));
        });
        link.send(|encoder, out| {
            encoder.welcome(out, 0, NODE, "nexusd/9", "blue", MAX_PAYLOAD, 16 << 10);
        })
        .await;
        link
    };
    let builder = daemon.client().name("billing");
    let (client, _link) = tokio::join!(soon(builder.connect()), script);
    let ConnectionState::Connected(found) = client.unwrap().state() else {
        panic!("the client is connected");
    };
    assert_eq!(found.node, NODE);
    assert_eq!((&*found.software, &*found.cluster), ("nexusd/9", "blue"));
    assert_eq!(found.max_payload, MAX_PAYLOAD as usize);
    assert_eq!(found.place, daemon.address().to_string());
}

#[tokio::test]
async fn frames_that_come_with_the_welcome_are_not_lost() {
    let daemon = ScriptedDaemon::start().await;
    let script = async {
        let mut link = daemon.accept().await;
        link.expect(FrameKind::Hello).await;
        link.send(|encoder, out| {
            encoder.welcome(out, 0, NODE, "", "", MAX_PAYLOAD, 16 << 10);
            FrameEncoder::ping_or_pong(out, FrameKind::Ping, 5);
        })
        .await;
        let pong = link.expect(FrameKind::Pong).await;
        assert_eq!(pong.header().sequence().0, 5);
    };
    let (client, ()) = tokio::join!(soon(daemon.client().connect()), script);
    client.unwrap();
}

#[tokio::test]
async fn connecting_fails_at_once_where_nobody_listens_and_where_the_address_is_none() {
    let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    assert!(matches!(soon(Client::connect(&address)).await, Err(Error::NotConnected { .. })));
    assert!(matches!(Client::connect("localhost:none").await, Err(Error::BadAddress { .. })));
}

#[tokio::test]
async fn connecting_fails_with_what_the_daemon_says() {
    let daemon = ScriptedDaemon::start().await;
    let script = async {
        let mut link = daemon.accept().await;
        link.expect(FrameKind::Hello).await;
        link.send_error(ErrorCode::VersionMismatch, "this daemon speaks 2.0", true).await;
        // The client does not try again.
        assert!(link.next().await.is_none());
    };
    let (client, ()) = tokio::join!(soon(daemon.client().connect()), script);
    let error = client.unwrap_err();
    assert!(matches!(error, Error::VersionMismatch { .. }));
    assert_eq!(error.to_string(), "no common protocol version: this daemon speaks 2.0");
}

#[tokio::test]
async fn a_port_for_http_is_told_as_such() {
    let http = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = http.local_addr().unwrap().to_string();
    let script = async {
        let (mut socket, _) = http.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        socket
    };
    let (client, _socket) = tokio::join!(soon(Client::connect(&address)), script);
    let error = client.unwrap_err();
    assert!(error.to_string().contains("it is a port for HTTP (--health-port"), "{error}");
}

#[tokio::test]
async fn a_daemon_that_never_answers_is_given_up() {
    let daemon = ScriptedDaemon::start().await;
    let builder = daemon.client().connect_timeout(Duration::from_millis(50));
    let (client, _link) = tokio::join!(soon(builder.connect()), daemon.accept());
    assert!(matches!(client, Err(Error::NotConnected { .. })));
}

#[tokio::test]
async fn closing_sends_everything_and_takes_leave() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let other = client.clone();
    for payload in ["1", "2", "3"] {
        client.publish("t", payload).await.unwrap();
    }
    let script = async {
        let lines = link.lines(5).await;
        assert_eq!(lines[3..], ["message 0 #3 3", "Goodbye"]);
        drop(link);
    };
    let (closed, ()) = tokio::join!(soon(client.close()), script);
    closed.unwrap();
    assert!(matches!(other.publish("t", "4").await, Err(Error::Closed)));
    assert!(matches!(other.subscribe("t").await, Err(Error::Closed)));
    assert!(matches!(other.state(), ConnectionState::Disconnected { cause: None }));
    soon(other.close()).await.unwrap();
}

#[tokio::test]
async fn closing_without_a_connection_tells_that_messages_were_not_sent() {
    let daemon = ScriptedDaemon::start().await;
    let client = daemon.client().connect_in_background().unwrap();
    client.publish("t", "1").await.unwrap();
    let closed = soon(client.close()).await;
    assert!(matches!(closed, Err(Error::NotConnected { .. })));

    let client = daemon.client().connect_in_background().unwrap();
    soon(client.close()).await.unwrap();
}

#[tokio::test]
async fn the_last_handle_dropped_takes_leave_too() {
    let daemon = ScriptedDaemon::start().await;
    let (client, mut link) = daemon.connected().await;
    let (subscription, _) = tokio::join!(client.subscribe("t"), link.confirm(9));
    client.publish("t", "1").await.unwrap();
    drop(client);
    link.lines(2).await;
    link.send_bare(FrameKind::Ping).await;
    link.expect(FrameKind::Pong).await;
    drop(subscription);
    assert_eq!(link.lines(2).await, ["Unsubscribe", "Goodbye"]);
}

#[test]
fn the_end_of_the_runtime_ends_the_client() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, mut subscription) = runtime.block_on(async {
        let daemon = ScriptedDaemon::start().await;
        let (client, mut link) = daemon.connected().await;
        let (subscription, _) = tokio::join!(client.subscribe("t"), link.confirm(9));
        (client, subscription.unwrap())
    });
    drop(runtime);
    assert!(matches!(client.try_publish("t", "1"), Err(Error::Closed)));
    assert!(subscription.try_next().is_none());
    assert!(matches!(subscription.end_reason(), Some(Error::Closed)));
    assert!(matches!(Client::builder("localhost").connect_in_background(), Err(Error::Closed)));
}

#[cfg(target_os = "linux")]
mod unix {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{
        SocketAddr, UnixListener as StdUnixListener, UnixStream as StdUnixStream,
    };

    use tokio::net::UnixListener;

    use super::*;
    use crate::daemon::Link;

    /// Welcomes under a node id of its own.
    async fn welcome(listener: &UnixListener, node: NodeId) -> Link<tokio::net::UnixStream> {
        let (stream, _) = soon(listener.accept()).await.unwrap();
        let mut link = Link::over(stream);
        link.expect(FrameKind::Hello).await;
        link.send(|encoder, out| encoder.welcome(out, 0, node, "", "", MAX_PAYLOAD, 16 << 10))
            .await;
        link
    }

    fn abstract_listener(port: u16) -> UnixListener {
        let name = SocketAddr::from_abstract_name(format!("nexusd/{port}")).unwrap();
        let listener = StdUnixListener::bind_addr(&name).unwrap();
        listener.set_nonblocking(true).unwrap();
        UnixListener::from_std(listener).unwrap()
    }

    #[tokio::test]
    async fn the_unix_socket_is_preferred_on_this_machine_unless_switched_off() {
        let daemon = ScriptedDaemon::start().await;
        let port = daemon.address().port();
        let listener = abstract_listener(port);
        let (client, _link) =
            tokio::join!(soon(daemon.client().connect()), welcome(&listener, NodeId(4)));
        let ConnectionState::Connected(found) = client.unwrap().state() else {
            panic!("the client is connected");
        };
        assert_eq!(found.place, format!("unix:@nexusd/{port}"));
        assert_eq!(found.node, NodeId(4));

        let builder = daemon.client().prefer_unix_socket(false);
        let (client, _link) = daemon.connected_by(builder).await;
        let ConnectionState::Connected(found) = client.state() else {
            panic!("the client is connected");
        };
        assert_eq!(found.place, daemon.address().to_string());
    }

    #[tokio::test]
    async fn a_unix_socket_can_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nexusd.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let address = format!("unix:{}", path.display());
        let (client, mut link) =
            tokio::join!(soon(Client::connect(&address)), welcome(&listener, NODE));
        client.unwrap().publish("t", "1").await.unwrap();
        assert_eq!(link.lines(2).await, ["bind 0 t", "message 0 #1 1"]);
    }

    #[tokio::test]
    async fn connections_are_made_by_whoever_says_how_and_made_again_when_they_break() {
        let (sender, mut given) = tokio::sync::mpsc::unbounded_channel();
        let builder = Client::builder("no address at all: it is not looked at")
            .reconnect_delays(Duration::from_millis(1), Duration::from_millis(1))
            .connect_by(move || {
                let (ours, theirs) = StdUnixStream::pair()?;
                let _ = sender.send(theirs);
                Ok(ours)
            });
        let client = builder.connect_in_background().unwrap();
        for message in ["1", "2"] {
            let stream = soon(given.recv()).await.unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut link = Link::over(tokio::net::UnixStream::from_std(stream).unwrap());
            link.welcome_as(NODE).await;
            client.publish("t", message).await.unwrap();
            assert_eq!(
                link.lines(2).await,
                ["bind 0 t".to_owned(), format!("message 0 #{message} {message}")]
            );
        }
    }
}
