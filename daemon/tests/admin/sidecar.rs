//! The service for applications, as far as operators see it: what is refused, who is connected, what is wanted.

use nexusd_grpc::proto::sidecar_service_client::SidecarServiceClient;
use nexusd_grpc::proto::{
    GetPeersRequest, Header, PublishRequest, PublishResponse, SubscribeRequest,
};

use super::*;

async fn sidecar(address: SocketAddr) -> SidecarServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    SidecarServiceClient::new(endpoint.connect().await.expect("a connection"))
}

#[test]
fn messages_that_the_shim_refuses_are_counted_as_the_daemons_are() {
    let daemon = start(&["--max-payload", "100K"]);
    let request = |topic: &str, payload: usize, ttl_ms| PublishRequest {
        topic: topic.to_owned(),
        payload: vec![7; payload].into(),
        ttl_ms,
        ..PublishRequest::default()
    };
    let headers = vec![Header { key: "k".repeat(1_000), value: "v".into() }; 20];
    let refused = [
        request("", 0, 0),
        request("a/#", 0, 0),
        request("$SYS/x", 0, 0),
        request("a", 0, -1),
        request("a", (100 << 10) + 1, 0),
        PublishRequest { headers, ..request("a", 0, 0) },
    ];
    let count = refused.len() as u64;
    block_on(async {
        let mut sidecar = sidecar(apps(&daemon)).await;
        for request in refused.clone() {
            sidecar.publish(request).await.expect_err("it is refused");
        }
        sidecar.publish(request("a", 300 << 10, 0)).await.expect_err("it is not even read");
        sidecar.publish(request("a", 1, 0)).await.expect("it is accepted");
        let answers = sidecar.publish_stream(futures_lite::stream::iter(refused)).await;
        let mut answers = answers.expect("a stream").into_inner();
        for _ in 0..count {
            assert!(!answers.message().await.expect("an answer").expect("one each").success);
        }
        assert!(answers.message().await.expect("an end").is_none());
    });
    let page = call(metrics(&daemon), "GET", "/metrics", "").body;
    let line = format!("\nnexusd_rejected_messages_total {}\n", 2 * count + 1);
    assert!(page.contains(&line), "{page}");
}

#[test]
fn who_asks_grpc_for_what_there_is_not_is_told_where_to_look() {
    let daemon = start(&[]);
    block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", apps(&daemon)));
        let channel = endpoint.expect("an address").connect().await.expect("a connection");
        for path in ["/nexusd.sidecar.SidecarService/Publsh", "/nexusd.Sidecar/Publish"] {
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            grpc.ready().await.expect("a connection");
            let codec = tonic_prost::ProstCodec::<PublishRequest, PublishResponse>::default();
            let request = tonic::Request::new(PublishRequest::default());
            let answer = grpc.unary(request, PathAndQuery::from_static(path), codec).await;
            let status = answer.expect_err("there is no such method");
            assert_eq!(status.code(), Code::Unimplemented);
            assert!(status.message().contains("reflection"), "{path}: {status}");
        }
    });
}

#[test]
fn a_subscriber_of_grpc_is_shown_as_such_and_told_who_ended_its_stream() {
    let daemon = start(&[]);
    let health = health(&daemon);
    block_on(async {
        let mut sidecar = sidecar(apps(&daemon)).await;
        let request = SubscribeRequest { topics: vec!["a".to_owned()], ..Default::default() };
        let mut events = sidecar.subscribe(request).await.expect("a stream").into_inner();
        events.message().await.expect("an event").expect("it begins");
        sidecar
            .publish(PublishRequest { topic: "b".to_owned(), ..Default::default() })
            .await
            .expect("accepted");
        let listed = get(health, "/api/v1/clients");
        let clients = listed["clients"].as_array().expect("a list");
        assert_eq!(clients.len(), 2, "{clients:?}");
        for client in clients {
            let software = client["software"].as_str().expect("a text");
            assert!(
                software.starts_with("nexusd-grpc/") && software.contains("(tonic/"),
                "{software}"
            );
            let id = client["client_id"].as_str().expect("an id");
            assert_eq!(call(health, "POST", &format!("/api/v1/clients/{id}/kill"), "").status, 200);
        }
        let status = events.message().await.expect_err("it is ended");
        assert_eq!(status.code(), Code::Aborted);
        assert_eq!(status.message(), "an operator closed the connection");
    });
}

#[test]
fn the_sidecar_service_lists_filters_and_peers() {
    let first = start_node(&[]);
    let second = start_node(&["--peers", first.told("mesh")]);
    let mut subscribers = [Application::connect(apps(&first)), Application::connect(apps(&first))];
    subscribers.iter_mut().for_each(|subscriber| subscriber.subscribe("prices/#"));
    block_on(async {
        let mut sidecar = sidecar(apps(&first)).await;
        let asked = GetTopicsRequest { include_counts: true };
        let topics = sidecar.get_topics(asked).await.expect("an answer").into_inner().topics;
        assert_eq!(topics.into_iter().collect::<Vec<_>>(), [("prices/#".to_owned(), 2)]);
        let deadline = Instant::now() + SOON;
        let peer = loop {
            let asked = GetPeersRequest { include_state: true };
            let peers = sidecar.get_peers(asked).await.expect("an answer").into_inner().peers;
            if let [peer] = &peers[..] {
                break peer.clone();
            }
            assert!(Instant::now() < deadline, "{peers:?}");
        };
        assert_eq!(
            (peer.instance_uuid.as_str(), peer.status.as_str()),
            (second.told("node"), "alive")
        );
        assert!(peer.last_seen_ms > 1_600_000_000_000, "{peer:?}");
        // What it wants is told to whoever asks for it.
        let mut remote = Application::connect(apps(&second));
        remote.subscribe_to(&["weather/+", "news/#"]);
        loop {
            let asked = |include_state| GetPeersRequest { include_state };
            let peers = sidecar.get_peers(asked(true)).await.expect("an answer").into_inner().peers;
            let short = sidecar.get_peers(asked(false)).await.expect("an answer").into_inner();
            if let [peer] = &peers[..]
                && peer.topics == ["news/#", "weather/+"]
            {
                assert!(peer.topics_count == 2 && !peer.topics_truncated, "{peer:?}");
                assert!(short.peers[0].topics.is_empty() && short.peers[0].topics_count == 2);
                break;
            }
            assert!(Instant::now() < deadline, "{peers:?}");
        }
    });
}
