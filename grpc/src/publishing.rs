//! The way of published messages to the daemon: through one client of it for each connection, so that an
//! application's messages stay in order and what bounds its source address bounds it.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nexusd_client::{Client, Publication, PublishAck};
use nexusd_wire::NodeId;
use tokio::sync::{Mutex, watch};
use tonic::{Code, Status, Streaming};

use crate::batches::{Batch, BatchSender};
use crate::errors::status_of;
use crate::limits::{
    ANSWER_TIMEOUT, BATCH_BYTES, BATCH_MESSAGES, BATCH_TOPIC_BYTES, OUTBOX_BYTES, OUTBOX_MESSAGES,
};
use crate::message_id::MessageId;
use crate::progress::to_i64;
use crate::proto::{Header, PublishRequest, PublishResponse};
use crate::sources::Source;

/// The client of the daemon that the calls of a connection share, from the first that publishes on.
#[derive(Debug, Default)]
pub(crate) struct Publisher(Mutex<Option<Client>>);

impl Publisher {
    /// It, connected. One that has lost its connection is replaced, so that nothing waits in it to be published later
    /// than its call has failed.
    pub(crate) async fn client(
        &self,
        name: &str,
        software: impl Fn() -> String,
        connect: impl Fn() -> io::Result<UnixStream> + Send + Sync + 'static,
    ) -> Result<Client, Status> {
        let mut kept = self.0.lock().await;
        if let Some(client) = kept.as_ref().filter(|client| client.state().is_connected()) {
            return Ok(client.clone());
        }
        *kept = None;
        let client = Client::builder("the daemon")
            .name(name)
            .software(software())
            .outbox(OUTBOX_MESSAGES, OUTBOX_BYTES)
            .connect_timeout(ANSWER_TIMEOUT)
            .request_timeout(ANSWER_TIMEOUT)
            .connect_by(connect)
            .connect();
        let client = client.await.map_err(|error| status_of(&error))?;
        *kept = Some(client.clone());
        Ok(client)
    }
}

/// Publishes one message and waits for its acknowledgement.
pub(crate) async fn publish(
    client: &Client,
    node: NodeId,
    request: &PublishRequest,
) -> Result<PublishResponse, Status> {
    let publication = publication_of(request)?;
    let ack = client.send_acked(&publication).await.map_err(|error| status_of(&error))?;
    Ok(accepted(node, &request.topic, &ack))
}

/// Publishes what comes, as much together as has come, and answers each in turn, until either side ends.
pub(crate) async fn publish_all(
    client: Client,
    node: NodeId,
    source: Arc<Source>,
    mut requests: Streaming<PublishRequest>,
    answers: BatchSender<PublishResponse>,
    mut ending: watch::Receiver<bool>,
) {
    let mut batch = Vec::new();
    let end = loop {
        let next = tokio::select! {
            next = requests.message() => next,
            () = answers.closed() => return,
            _ = ending.wait_for(|ending| *ending) => {
                break Err(Status::unavailable("the daemon is stopping"));
            }
        };
        match next {
            Ok(Some(request)) => batch.push(request),
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        }
        let end = fill(&mut requests, &mut batch).await;
        // Nothing more is published before the client has taken the answers to what was.
        let Ok(place) = answers.reserve().await else { return };
        let responses = publish_batch(&client, node, &batch).await;
        for response in responses.iter().filter(|response| !response.success) {
            source.refusals().count_publish(response.error_code.into());
        }
        batch.clear();
        place.send(Batch::Items(responses, None));
        if let Some(end) = end {
            break end;
        }
    };
    if let Err(status) = &end {
        source.refusals().count_publish(status.code());
    }
    // Who has gone hears nothing.
    let _ = answers.send(Batch::End(end)).await;
}

/// Adds what has come already, up to a bound. `Some`: nothing follows.
async fn fill(
    requests: &mut Streaming<PublishRequest>,
    batch: &mut Vec<PublishRequest>,
) -> Option<Result<(), Status>> {
    let mut bytes = batch.iter().map(bytes_of).sum::<usize>();
    let mut topics = batch.iter().map(|request| request.topic.len()).sum::<usize>();
    while batch.len() < BATCH_MESSAGES && bytes < BATCH_BYTES && topics < BATCH_TOPIC_BYTES {
        let next = tokio::select! {
            biased;
            next = requests.message() => next,
            () = std::future::ready(()) => return None,
        };
        match next {
            Ok(Some(request)) => {
                bytes += bytes_of(&request);
                topics += request.topic.len();
                batch.push(request);
            }
            Ok(None) => return Some(Ok(())),
            Err(status) => return Some(Err(status)),
        }
    }
    None
}

/// What a request takes in memory: a header of two bytes is one of some fifty there.
fn bytes_of(request: &PublishRequest) -> usize {
    let headers = request.headers.iter();
    let headers: usize =
        headers.map(|it| size_of::<Header>() + it.key.len() + it.value.len()).sum();
    size_of::<PublishRequest>() + request.topic.len() + request.payload.len() + headers
}

async fn publish_batch(
    client: &Client,
    node: NodeId,
    batch: &[PublishRequest],
) -> Vec<PublishResponse> {
    let publications: Vec<_> = batch.iter().map(publication_of).collect();
    let sound: Vec<_> = publications.iter().filter_map(|it| it.as_ref().ok().cloned()).collect();
    let mut acks = client.send_batch_acked(&sound).await.into_iter();
    let answer = |(request, publication): (&PublishRequest, Result<Publication<'_>, Status>)| {
        if let Err(status) = publication {
            return refused(&status);
        }
        match acks.next() {
            Some(Ok(ack)) => accepted(node, &request.topic, &ack),
            Some(Err(error)) => refused(&status_of(&error)),
            None => refused(&Status::internal("a message without an answer")),
        }
    };
    batch.iter().zip(publications).map(answer).collect()
}

fn publication_of(request: &PublishRequest) -> Result<Publication<'_>, Status> {
    let ttl_ms = u64::try_from(request.ttl_ms)
        .map_err(|_| Status::invalid_argument("ttl_ms is less than nothing"))?;
    let mut publication = Publication::new(&request.topic, &request.payload)
        .retain(request.retain)
        .ttl(Duration::from_millis(ttl_ms));
    if !request.content_type.is_empty() {
        publication = publication.content_type(&request.content_type);
    }
    if !request.correlation_id.is_empty() {
        publication = publication.correlation_id(&request.correlation_id);
    }
    for header in &request.headers {
        publication = publication.header(&header.key, &header.value);
    }
    Ok(publication)
}

fn accepted(node: NodeId, topic: &str, ack: &PublishAck) -> PublishResponse {
    let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    PublishResponse {
        success: true,
        message_id: MessageId { origin: node, number: ack.sequence, topic }.text(),
        subscriber_count: count(ack.delivered),
        error_message: String::new(),
        subscribers_dropped: count(ack.dropped),
        subscribers_blocked: count(ack.blocked),
        sequence_number: to_i64(ack.sequence),
        error_code: Code::Ok.into(),
    }
}

fn refused(status: &Status) -> PublishResponse {
    PublishResponse {
        success: false,
        error_message: status.message().to_owned(),
        error_code: status.code().into(),
        ..PublishResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::limits::SHORT_REQUEST_BYTES;

    #[test]
    fn few_requests_that_take_much_memory_are_a_batch() {
        let headers = vec![Header::default(); 5_000];
        let request = PublishRequest { headers, ..PublishRequest::default() };
        assert!(request.encoded_len() <= SHORT_REQUEST_BYTES);
        assert!(bytes_of(&request) > BATCH_BYTES);
        let plain = PublishRequest { payload: vec![7; 128].into(), ..PublishRequest::default() };
        assert!(bytes_of(&plain) * BATCH_MESSAGES < BATCH_BYTES);
    }
}
