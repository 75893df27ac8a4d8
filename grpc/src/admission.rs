//! How many calls there are at a time, and how many bytes of requests that have not come whole.
//!
//! A request is collected before it is looked at. So whoever announces a long one is granted its length from
//! a budget, until it is whole; where nothing is left the call fails, and all others go on.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

use crate::limits::{STREAMS_MAX, UPLOAD_BYTES_MAX};

/// What stands before each message of a request: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The budgets, for all calls.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    calls: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    message_bytes_max: usize,
}

impl Admission {
    /// Where a message of a request has at most so many bytes.
    pub(crate) fn new(message_bytes_max: usize) -> Self {
        Self {
            calls: Arc::new(Semaphore::new(STREAMS_MAX)),
            uploads: Arc::new(Semaphore::new(UPLOAD_BYTES_MAX + message_bytes_max)),
            message_bytes_max,
        }
    }
}

impl<S> Layer<S> for Admission {
    type Service = Admitted<S>;

    fn layer(&self, inner: S) -> Admitted<S> {
        Admitted { inner, admission: self.clone() }
    }
}

/// A service behind the budgets.
#[derive(Clone, Debug)]
pub(crate) struct Admitted<S> {
    inner: S,
    admission: Admission,
}

impl<S, B, R> Service<Request<B>> for Admitted<S>
where
    S: Service<Request<tonic::body::Body>, Response = Response<R>>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
    R: Default + 'static,
{
    type Response = Response<Answer<R>>;
    type Error = S::Error;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<Answer<R>>, S::Error>> + Send + 'static>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Ok(permit) = Arc::clone(&self.admission.calls).try_acquire_owned() else {
            let status = Status::resource_exhausted(format!(
                "the daemon has {STREAMS_MAX} calls, which is its limit; close some"
            ));
            return Box::pin(async move {
                Ok(status.into_http::<R>().map(|body| Answer { body, _permit: None }))
            });
        };
        let upload = |body| tonic::body::Body::new(Upload::new(body, &self.admission));
        let answered = self.inner.call(request.map(upload));
        Box::pin(
            async move { Ok(answered.await?.map(|body| Answer { body, _permit: Some(permit) })) },
        )
    }
}

/// The body of a call's answer, which holds its place until it ends.
#[derive(Debug)]
pub(crate) struct Answer<R> {
    body: R,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<R: Body + Unpin> Body for Answer<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request, message by message.
#[derive(Debug)]
pub(crate) struct Upload<B> {
    body: B,
    admission: Admission,
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    /// Bytes of the message that have not come.
    missing: usize,
    /// What was granted to it.
    granted: Option<OwnedSemaphorePermit>,
}

impl<B> Upload<B> {
    fn new(body: B, admission: &Admission) -> Self {
        Self {
            body,
            admission: admission.clone(),
            prefix: [0; PREFIX_BYTES],
            prefix_bytes: 0,
            missing: 0,
            granted: None,
        }
    }

    /// Goes on in the messages; fails if one announces more than can be granted.
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
            self.missing -= taken;
            bytes = &bytes[taken..];
            if self.missing == 0 {
                self.granted = None;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Status> {
        self.prefix_bytes = 0;
        let [_, length @ ..] = self.prefix;
        let length = u32::from_be_bytes(length);
        self.missing = length as usize;
        if length == 0 {
            return Ok(());
        }
        let most = self.admission.message_bytes_max;
        if self.missing > most {
            return Err(Status::invalid_argument(format!(
                "a message of {length} bytes exceeds the limit of {most} (--max-payload, and 64 KiB)"
            )));
        }
        let granted = Arc::clone(&self.admission.uploads).try_acquire_many_owned(length);
        self.granted = Some(granted.map_err(|_| {
            Status::resource_exhausted(format!(
                "too many long requests at a time; {length} bytes more cannot be held now"
            ))
        })?);
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

    fn message(bytes: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend_from_slice(&(bytes as u32).to_be_bytes());
        message.resize(PREFIX_BYTES + bytes, 7);
        message
    }

    #[test]
    fn a_message_has_its_length_granted_until_it_is_whole() {
        let admission = Admission::new(1_000);
        let all = admission.uploads.available_permits();
        let mut upload = Upload::new((), &admission);
        let stream = [message(300), message(0), message(1), message(70)].concat();
        for (at, byte) in stream.iter().enumerate() {
            upload.count(&[*byte]).expect("there is room");
            let is_within = (4..304).contains(&at);
            assert_eq!(admission.uploads.available_permits() == all - 300, is_within, "{at}");
        }
        assert_eq!(admission.uploads.available_permits(), all);
        upload.count(&stream).expect("there is room");
        assert_eq!(admission.uploads.available_permits(), all);
    }

    #[test]
    fn what_cannot_be_held_fails_and_gives_all_back() {
        let admission = Admission::new(1_000);
        let all = admission.uploads.available_permits();
        let mut first = Upload::new((), &admission);
        first.granted = Some(
            Arc::clone(&admission.uploads)
                .try_acquire_many_owned(UPLOAD_BYTES_MAX as u32)
                .expect("room"),
        );
        let mut second = Upload::new((), &admission);
        second.count(&message(1_000)).expect("the longest message has room besides");
        let refused = second.count(&message(1_001)).expect_err("no message is so long");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        let (mut third, mut fourth) = (Upload::new((), &admission), Upload::new((), &admission));
        third.count(&message(1_000)[..9]).expect("there is room for one");
        let refused = fourth.count(&message(1)).expect_err("there is no room");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop((first, second, third, fourth));
        assert_eq!(admission.uploads.available_permits(), all);
    }
}
