//! A stream of answers that are made many at a time.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::mpsc;
use tonic::Status;

/// Batches on their way to a stream.
const BATCHES: usize = 1;

/// Where batches come from.
pub(crate) type BatchSender<T> = mpsc::Sender<Result<Vec<T>, Status>>;

/// Yields them one by one. An error is the last.
pub(crate) struct Batches<T> {
    receiver: mpsc::Receiver<Result<Vec<T>, Status>>,
    batch: VecDeque<T>,
}

/// A stream and its source.
pub(crate) fn batches<T>() -> (BatchSender<T>, Batches<T>) {
    let (sender, receiver) = mpsc::channel(BATCHES);
    (sender, Batches { receiver, batch: VecDeque::new() })
}

impl<T: Unpin> Stream for Batches<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(item) = self.batch.pop_front() {
                return Poll::Ready(Some(Ok(item)));
            }
            match ready!(self.receiver.poll_recv(cx)) {
                Some(Ok(batch)) => self.batch = batch.into(),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }
}
