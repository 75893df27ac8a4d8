//! The bytes of requests that are being collected, of all calls together.
//!
//! A request is collected before it is looked at, and kept until it is answered. Short ones are bounded by the
//! number of calls. Longer ones are reckoned as they come, not as they are announced; where nothing is left,
//! the call fails, and all others go on. A long one has to come in time, or it would keep its bytes for ever.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use crate::limits::{REQUEST_TIMEOUT, SHORT_REQUEST_BYTES};
use crate::sources::{Budget, Source, Taken};

/// What stands before each message of a request: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a call was granted for the message that came last, as long as it may be kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(Arc<Mutex<Option<Taken>>>);

impl Held {
    fn replace(&self, taken: Option<Taken>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = taken;
    }
}

/// The body of a request, message by message.
#[derive(Debug)]
pub(crate) struct Upload<B> {
    body: B,
    budget: Budget,
    message_bytes_max: usize,
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    length: usize,
    /// Bytes of the message that have not come.
    missing: usize,
    /// For what has come of it.
    granted: Option<Taken>,
    /// When the rest of a long one has to have come.
    late: Option<Pin<Box<Sleep>>>,
    /// For the one before.
    held: Held,
}

impl<B> Upload<B> {
    /// What is granted for a message stays with the call until the next one has come, or all that hold `held`
    /// are gone.
    pub(crate) fn new(body: B, source: &Source, held: Held) -> Self {
        Self {
            body,
            budget: source.requests.clone(),
            message_bytes_max: source.message_bytes_max(),
            prefix: [0; PREFIX_BYTES],
            prefix_bytes: 0,
            length: 0,
            missing: 0,
            granted: None,
            late: None,
            held,
        }
    }

    /// Goes on in the messages; fails if one is too long, or more has come than can be held.
    fn count(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        while !bytes.is_empty() {
            if self.missing == 0 {
                let taken = bytes.len().min(PREFIX_BYTES - self.prefix_bytes);
                let prefix = &mut self.prefix[self.prefix_bytes..self.prefix_bytes + taken];
                prefix.copy_from_slice(&bytes[..taken]);
                self.prefix_bytes += taken;
                bytes = &bytes[taken..];
                if self.prefix_bytes == PREFIX_BYTES {
                    self.begin()?;
                }
                continue;
            }
            let taken = bytes.len().min(self.missing);
            if self.length > SHORT_REQUEST_BYTES {
                self.reckon(taken)?;
            }
            self.missing -= taken;
            bytes = &bytes[taken..];
            if self.missing == 0 {
                self.late = None;
                self.held.replace(self.granted.take());
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Status> {
        self.prefix_bytes = 0;
        let [_, length @ ..] = self.prefix;
        self.length = u32::from_be_bytes(length) as usize;
        let most = self.message_bytes_max;
        if self.length > most {
            return Err(Status::invalid_argument(format!(
                "a message of {} bytes exceeds the limit of {most} (--max-payload, and 64 KiB)",
                self.length
            )));
        }
        self.missing = self.length;
        if self.length > SHORT_REQUEST_BYTES {
            self.late = Some(Box::pin(sleep(REQUEST_TIMEOUT)));
        }
        Ok(())
    }

    fn reckon(&mut self, bytes: usize) -> Result<(), Status> {
        let granted = self.budget.try_take(bytes).map_err(|_| {
            Status::resource_exhausted("too many long requests at a time; try again")
        })?;
        match &mut self.granted {
            Some(all) => all.merge(granted),
            none => *none = Some(granted),
        }
        Ok(())
    }
}

impl<B> Body for Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                let Some(late) = &mut self.late else { return Poll::Pending };
                return late.as_mut().poll(cx).map(|()| {
                    let text = "the rest of a long request did not come within 30 s";
                    Some(Err(Status::deadline_exceeded(text).into()))
                });
            }
        };
        if let Some(data) = frame.data_ref()
            && let Err(status) = self.count(data)
        {
            return Poll::Ready(Some(Err(status.into())));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::{SourceAddress, Sources};

    const LONG: usize = SHORT_REQUEST_BYTES + 1;

    fn message(bytes: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend_from_slice(&(bytes as u32).to_be_bytes());
        message.resize(PREFIX_BYTES + bytes, 7);
        message
    }

    fn source() -> Arc<Source> {
        Sources::new(LONG, 8, Arc::default()).source(SourceAddress::of(None, None))
    }

    #[tokio::test]
    async fn a_long_message_is_reckoned_as_it_comes_until_the_next_one_has_or_the_call_is_over() {
        let source = source();
        let left = || source.requests.left();
        let (all, held) = (left(), Held::default());
        let mut upload = Upload::new((), &source, held.clone());
        upload.count(&message(LONG)[..105]).expect("there is room");
        assert_eq!(left(), all - 100);
        upload.count(&message(LONG)[105..]).expect("there is room");
        assert_eq!(left(), all - LONG, "it is kept");
        for byte in message(30) {
            upload.count(&[byte]).expect("short ones are not reckoned");
        }
        assert_eq!(left(), all);
        upload.count(&message(LONG)).expect("there is room");
        drop(upload);
        assert_eq!(left(), all - LONG, "the call keeps it");
        drop(held);
        assert_eq!(left(), all);
    }

    #[tokio::test]
    async fn what_cannot_be_held_fails_and_what_is_announced_harms_nobody() {
        let source = source();
        let all = source.requests.left();
        let announced = Upload::new((), &source, Held::default())
            .count(&message(LONG)[..PREFIX_BYTES])
            .map(|()| source.requests.left());
        assert_eq!(announced.expect("there is room"), all);
        let most = source.requests.try_take(all).expect("all of it");
        let mut upload = Upload::new((), &source, Held::default());
        upload.count(&message(SHORT_REQUEST_BYTES)).expect("short ones go on");
        let refused = upload.count(&message(LONG)).expect_err("there is no room");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop(most);
        let too_long = Upload::new((), &source, Held::default()).count(&message(LONG + 1));
        let refused = too_long.expect_err("no message is so long");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }

    /// A body that has said something, and says no more.
    struct Silent(Option<Bytes>);

    impl Body for Silent {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0.take().map_or(Poll::Pending, |said| Poll::Ready(Some(Ok(Frame::data(said)))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_message_has_to_come_in_time_and_between_messages_there_is_time() {
        let source = source();
        let next = async |said: &[u8]| {
            let said = Silent(Some(Bytes::copy_from_slice(said)));
            let mut upload = Upload::new(said, &source, Held::default());
            let mut next =
                async || std::future::poll_fn(|cx| Pin::new(&mut upload).poll_frame(cx)).await;
            next().await.expect("a frame").expect("what was said");
            tokio::time::timeout(REQUEST_TIMEOUT * 2, next()).await
        };
        let late = next(&message(LONG)[..100]).await.expect("it ends");
        let late = late.expect("a failure").expect_err("a failure");
        let late = late.downcast::<Status>().expect("a status");
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
        assert!(next(&message(LONG)).await.is_err(), "the next one may take its time");
    }
}
