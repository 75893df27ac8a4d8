//! A stream of answers that are made many at a time.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::mpsc;
use tonic::Status;

use crate::sources::Taken;

/// Batches on their way to a stream. With one, whoever hands over a batch knows that the stream has yielded all
/// of the last but one.
const BATCHES: usize = 1;

/// What is sent to a stream.
#[derive(Debug)]
pub(crate) enum Batch<T> {
    /// With the room that they were granted, if they need much.
    Items(Vec<T>, Option<Taken>),
    /// Nothing follows: `Err` says why.
    End(Result<(), Status>),
}

/// Where batches come from.
pub(crate) type BatchSender<T> = mpsc::Sender<Batch<T>>;

/// Yields them one by one.
pub(crate) struct Batches<T> {
    receiver: mpsc::Receiver<Batch<T>>,
    items: VecDeque<T>,
    /// For the items, until the one behind them is asked for: only then have they left.
    room: Option<Taken>,
    is_ended: bool,
}

/// A stream and its source.
pub(crate) fn batches<T>() -> (BatchSender<T>, Batches<T>) {
    let (sender, receiver) = mpsc::channel(BATCHES);
    (sender, Batches { receiver, items: VecDeque::new(), room: None, is_ended: false })
}

impl<T: Unpin> Stream for Batches<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Poll::Ready(Some(Ok(item)));
            }
            self.room = None;
            if self.is_ended {
                return Poll::Ready(None);
            }
            match ready!(self.receiver.poll_recv(cx)) {
                Some(Batch::Items(items, room)) => {
                    (self.items, self.room) = (items.into(), room);
                }
                Some(Batch::End(end)) => {
                    self.is_ended = true;
                    return Poll::Ready(end.err().map(Err));
                }
                // Whoever made them is gone without a word.
                None => {
                    self.is_ended = true;
                    let lost = Status::internal("the daemon lost this stream");
                    return Poll::Ready(Some(Err(lost)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(batches: &mut Batches<u32>) -> Option<Result<u32, tonic::Code>> {
        let next = std::future::poll_fn(|cx| Pin::new(&mut *batches).poll_next(cx)).await;
        next.map(|item| item.map_err(|status| status.code()))
    }

    #[tokio::test]
    async fn items_come_one_by_one_up_to_the_end() {
        let (sender, mut batches) = batches();
        sender.send(Batch::Items(vec![1, 2], None)).await.expect("room");
        assert_eq!(next(&mut batches).await, Some(Ok(1)));
        sender.send(Batch::End(Ok(()))).await.expect("room");
        assert_eq!(next(&mut batches).await, Some(Ok(2)));
        assert_eq!(next(&mut batches).await, None);
    }

    #[tokio::test]
    async fn a_source_that_is_lost_is_no_good_end() {
        let (sender, mut batches) = batches();
        sender.send(Batch::Items(vec![1], None)).await.expect("room");
        drop(sender);
        assert_eq!(next(&mut batches).await, Some(Ok(1)));
        assert_eq!(next(&mut batches).await, Some(Err(tonic::Code::Internal)));
        assert_eq!(next(&mut batches).await, None);
    }
}
