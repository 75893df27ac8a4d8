//! How many calls there are at a time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

use crate::limits::STREAMS_MAX;
use crate::uploads::{BoxError, Held, Upload, Uploads};

/// The places, for all calls.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    calls: Arc<Semaphore>,
    uploads: Uploads,
}

impl Admission {
    /// Where a message of a request has at most so many bytes.
    pub(crate) fn new(message_bytes_max: usize) -> Self {
        let calls = Arc::new(Semaphore::new(STREAMS_MAX));
        Self { calls, uploads: Uploads::new(message_bytes_max) }
    }
}

impl<S> Layer<S> for Admission {
    type Service = Admitted<S>;

    fn layer(&self, inner: S) -> Admitted<S> {
        Admitted { inner, admission: self.clone() }
    }
}

/// A service that takes no more calls than it may.
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
        let Ok(place) = Arc::clone(&self.admission.calls).try_acquire_owned() else {
            let status = Status::resource_exhausted(format!(
                "the daemon has {STREAMS_MAX} calls, which is its limit; close some"
            ));
            return Box::pin(async move {
                Ok(status.into_http::<R>().map(|body| Answer { body, _place: None }))
            });
        };
        let held = Held::default();
        let upload =
            |body| tonic::body::Body::new(Upload::new(body, &self.admission.uploads, held.clone()));
        let answered = self.inner.call(request.map(upload));
        Box::pin(async move {
            let answer = answered.await?;
            // The request is answered.
            drop(held);
            Ok(answer.map(|body| Answer { body, _place: Some(place) }))
        })
    }
}

/// The body of a call's answer, which holds its place until it ends.
#[derive(Debug)]
pub(crate) struct Answer<R> {
    body: R,
    _place: Option<OwnedSemaphorePermit>,
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
