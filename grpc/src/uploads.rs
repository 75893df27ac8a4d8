//! The bytes of requests that are being collected, of all calls together.
//!
//! A request is collected before it is looked at, and kept until it is answered. Short ones are bounded by the
//! number of calls. Longer ones are reckoned as they come, not as they are announced; where nothing is left,
//! the call fails, and all others go on.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::limits::{SHORT_REQUEST_BYTES, UPLOAD_BYTES_MAX};

/// What stands before each message of a request: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The budget.
#[derive(Clone, Debug)]
pub(crate) struct Uploads {
    bytes: Arc<Semaphore>,
    message_bytes_max: usize,
}

impl Uploads {
    /// Where a message of a request has at most so many bytes.
    pub(crate) fn new(message_bytes_max: usize) -> Self {
        let bytes = Arc::new(Semaphore::new(UPLOAD_BYTES_MAX + message_bytes_max));
        Self { bytes, message_bytes_max }
    }
}

/// What a call was granted for the message that came last, as long as it may be kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Held {
    fn replace(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }
}

/// The body of a request, message by message.
#[derive(Debug)]
pub(crate) struct Upload<B> {
    body: B,
    uploads: Uploads,
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    length: usize,
    /// Bytes of the message that have not come.
    missing: usize,
    /// For what has come of it.
    granted: Option<OwnedSemaphorePermit>,
    /// For the one before.
    held: Held,
}

impl<B> Upload<B> {
    /// What is granted for a message stays with the call until the next one has come, or all that hold `held`
    /// are gone.
    pub(crate) fn new(body: B, uploads: &Uploads, held: Held) -> Self {
        Self {
            body,
            uploads: uploads.clone(),
            prefix: [0; PREFIX_BYTES],
            prefix_bytes: 0,
            length: 0,
            missing: 0,
            granted: None,
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
                self.held.replace(self.granted.take());
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Status> {
        self.prefix_bytes = 0;
        let [_, length @ ..] = self.prefix;
        self.length = u32::from_be_bytes(length) as usize;
        let most = self.uploads.message_bytes_max;
        if self.length > most {
            return Err(Status::invalid_argument(format!(
                "a message of {} bytes exceeds the limit of {most} (--max-payload, and 64 KiB)",
                self.length
            )));
        }
        self.missing = self.length;
        Ok(())
    }

    fn reckon(&mut self, bytes: usize) -> Result<(), Status> {
        let granted = Arc::clone(&self.uploads.bytes).try_acquire_many_owned(bytes as u32);
        let granted = granted.map_err(|_| {
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
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
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

    const LONG: usize = SHORT_REQUEST_BYTES + 1;

    fn message(bytes: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend_from_slice(&(bytes as u32).to_be_bytes());
        message.resize(PREFIX_BYTES + bytes, 7);
        message
    }

    fn left(uploads: &Uploads) -> usize {
        uploads.bytes.available_permits()
    }

    #[test]
    fn a_long_message_is_reckoned_as_it_comes_until_the_next_one_has_or_the_call_is_over() {
        let uploads = Uploads::new(LONG);
        let (all, held) = (left(&uploads), Held::default());
        let mut upload = Upload::new((), &uploads, held.clone());
        upload.count(&message(LONG)[..105]).expect("there is room");
        assert_eq!(left(&uploads), all - 100);
        upload.count(&message(LONG)[105..]).expect("there is room");
        assert_eq!(left(&uploads), all - LONG, "it is kept");
        for byte in message(30) {
            upload.count(&[byte]).expect("short ones are not reckoned");
        }
        assert_eq!(left(&uploads), all);
        upload.count(&message(LONG)).expect("there is room");
        drop(upload);
        assert_eq!(left(&uploads), all - LONG, "the call keeps it");
        drop(held);
        assert_eq!(left(&uploads), all);
    }

    #[test]
    fn what_cannot_be_held_fails_and_what_is_announced_harms_nobody() {
        let uploads = Uploads::new(LONG);
        let announced = Upload::new((), &uploads, Held::default())
            .count(&message(LONG)[..PREFIX_BYTES])
            .map(|()| left(&uploads));
        assert_eq!(announced.expect("there is room"), UPLOAD_BYTES_MAX + LONG);
        let most = Arc::clone(&uploads.bytes)
            .try_acquire_many_owned((UPLOAD_BYTES_MAX + LONG) as u32)
            .expect("all of it");
        let mut upload = Upload::new((), &uploads, Held::default());
        upload.count(&message(SHORT_REQUEST_BYTES)).expect("short ones go on");
        let refused = upload.count(&message(LONG)).expect_err("there is no room");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop(most);
        let too_long = Upload::new((), &uploads, Held::default()).count(&message(LONG + 1));
        let refused = too_long.expect_err("no message is so long");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}
