//! The way of published messages to the daemon: through one client of it for each connection, so that an
//! application's messages stay in order and what bounds its source address bounds it.

use std::time::Duration;

use nexusd_client::{Client, Publication, PublishAck};
use nexusd_wire::NodeId;
use tonic::{Code, Status, Streaming};

use crate::batches::BatchSender;
use crate::errors::status_of;
use crate::limits::{BATCH_BYTES, BATCH_MESSAGES};
use crate::message_id::MessageId;
use crate::progress::to_i64;
use crate::proto::{PublishRequest, PublishResponse};

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
    mut requests: Streaming<PublishRequest>,
    answers: BatchSender<PublishResponse>,
) {
    let mut batch = Vec::new();
    let end = loop {
        let next = tokio::select! {
            next = requests.message() => next,
            () = answers.closed() => return,
        };
        match next {
            Ok(Some(request)) => batch.push(request),
            Ok(None) => break None,
            Err(status) => break Some(status),
        }
        let end = fill(&mut requests, &mut batch).await;
        let responses = publish_batch(&client, node, &batch).await;
        batch.clear();
        if answers.send(Ok(responses)).await.is_err() {
            return;
        }
        if let Some(end) = end {
            break end.err();
        }
    };
    if let Some(status) = end {
        // Who has gone hears nothing.
        let _ = answers.send(Err(status)).await;
    }
}

/// Adds what has come already, up to a bound. `Some`: nothing follows.
async fn fill(
    requests: &mut Streaming<PublishRequest>,
    batch: &mut Vec<PublishRequest>,
) -> Option<Result<(), Status>> {
    let mut bytes = batch.iter().map(|request| request.payload.len()).sum::<usize>();
    while batch.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
        let next = tokio::select! {
            biased;
            next = requests.message() => next,
            () = std::future::ready(()) => return None,
        };
        match next {
            Ok(Some(request)) => {
                bytes += request.payload.len();
                batch.push(request);
            }
            Ok(None) => return Some(Ok(())),
            Err(status) => return Some(Err(status)),
        }
    }
    None
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
