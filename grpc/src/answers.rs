//! Answers on their way to clients: what may wait for one, and how long.
//!
//! A client decides when it takes what it asked for. Until then the bytes wait in HTTP/2's queues, whose own
//! bounds a client can widen as it likes. So each call knows what of its answer has not left ([`Delivery`]): no
//! more is made while much of it waits, long answers are reckoned, and a call of which nothing leaves for a
//! minute is ended (`calls.rs`). This holds for all services alike.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::limits::{
    FAREWELL_TIMEOUT, PORTION_BYTES_BESIDE, SHORT_ANSWER_BYTES, STALLED_TIMEOUT, UNTAKEN_BYTES_MAX,
};
use crate::sources::{Budget, Taken};

/// Among the extensions of an answer: whoever makes it reckons what is long in it, and ends it if nothing is
/// taken, which its client has some time to hear.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundsItself;

/// What of a call's answer has not left.
#[derive(Debug)]
pub(crate) struct Delivery {
    state: Mutex<State>,
    emptied: Notify,
}

#[derive(Debug)]
struct State {
    /// With what portions take besides.
    bytes: usize,
    /// When something left last, or there was nothing.
    moved: Instant,
    /// How long nothing may leave.
    patience: Duration,
    /// Who waits for room.
    waker: Option<Waker>,
    /// The call is one of those that there may be, until all has left.
    place: Option<Taken>,
}

impl Default for Delivery {
    fn default() -> Self {
        let state = State {
            bytes: 0,
            moved: Instant::now(),
            patience: STALLED_TIMEOUT,
            waker: None,
            place: None,
        };
        Self { state: Mutex::new(state), emptied: Notify::new() }
    }
}

impl Delivery {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The call's place, until all of its answer has left.
    pub(crate) fn hold(&self, place: Taken) {
        self.lock().place = Some(place);
    }

    /// The call ends by itself where nothing leaves, and its client may hear that.
    pub(crate) fn be_patient(&self) {
        self.lock().patience = STALLED_TIMEOUT + FAREWELL_TIMEOUT;
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.bytes < UNTAKEN_BYTES_MAX {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn add(&self, bytes: usize) {
        let mut state = self.lock();
        if state.bytes == 0 {
            state.moved = Instant::now();
        }
        state.bytes += bytes;
    }

    /// So much has left.
    fn take(&self, bytes: usize) {
        let mut state = self.lock();
        state.bytes -= bytes;
        state.moved = Instant::now();
        let is_empty = state.bytes == 0;
        let waker = if state.bytes < UNTAKEN_BYTES_MAX { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        if is_empty {
            self.emptied.notify_waiters();
        }
    }

    /// Returns once all has left.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().bytes == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Returns once nothing has left for too long, though something waits.
    pub(crate) async fn stalled(&self) {
        let mut looked = Instant::now();
        loop {
            sleep_until(looked + STALLED_TIMEOUT).await;
            let state = self.lock();
            looked = if state.bytes == 0 { Instant::now() } else { state.moved };
            if looked.elapsed() >= state.patience {
                return;
            }
            looked += state.patience - STALLED_TIMEOUT;
        }
    }
}

/// A piece of an answer, which counts as waiting as far as it was not written.
#[derive(Debug)]
pub(crate) struct Portion {
    bytes: Bytes,
    delivery: Arc<Delivery>,
    /// For one that is long.
    _taken: Option<Taken>,
}

impl Portion {
    fn new(bytes: Bytes, delivery: &Arc<Delivery>, taken: Option<Taken>) -> Self {
        delivery.add(bytes.len() + PORTION_BYTES_BESIDE);
        Self { bytes, delivery: Arc::clone(delivery), _taken: taken }
    }
}

#[cfg(test)]
impl Portion {
    /// One of so many bytes.
    pub(crate) fn of(bytes: usize, delivery: &Arc<Delivery>) -> Self {
        Self::new(vec![7; bytes].into(), delivery, None)
    }
}

impl Drop for Portion {
    fn drop(&mut self) {
        self.delivery.take(self.bytes.len() + PORTION_BYTES_BESIDE);
    }
}

impl Buf for Portion {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.delivery.take(count);
    }
}

/// The body of a call's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `None`: it has ended.
    body: Option<tonic::body::Body>,
    delivery: Arc<Delivery>,
    /// For long ones; `None`: they are reckoned elsewhere.
    budget: Option<Budget>,
}

impl Answer {
    /// The body of an answer whose long messages are reckoned by `budget`.
    pub(crate) fn new(
        body: tonic::body::Body,
        delivery: Arc<Delivery>,
        budget: Option<Budget>,
    ) -> Self {
        Self { body: Some(body), delivery, budget }
    }

    fn portion(&mut self, bytes: Bytes) -> Frame<Portion> {
        let budget = self.budget.as_ref().filter(|_| bytes.len() > SHORT_ANSWER_BYTES);
        match budget.map(|budget| budget.try_take(bytes.len())).transpose() {
            Ok(taken) => Frame::data(Portion::new(bytes, &self.delivery, taken)),
            Err(_) => {
                self.body = None;
                let text = "too many long answers wait for their clients; try again";
                let mut trailers = HeaderMap::new();
                // These words can be said in a header.
                let _ = Status::resource_exhausted(text).add_header(&mut trailers);
                Frame::trailers(trailers)
            }
        }
    }
}

impl Body for Answer {
    type Data = Portion;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Portion>, Status>>> {
        ready!(self.delivery.poll_room(cx));
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = match ready!(Pin::new(body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(status)) => return Poll::Ready(Some(Err(status))),
            None => return Poll::Ready(None),
        };
        Poll::Ready(match frame.into_data() {
            Ok(bytes) => Some(Ok(self.portion(bytes))),
            // What is no data is trailers.
            Err(other) => other.into_trailers().ok().map(|trailers| Ok(Frame::trailers(trailers))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::sources::{SourceAddress, Sources};

    /// A body of these pieces.
    struct Pieces(Vec<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop().map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    fn answer(pieces: usize, bytes: usize, budget: &Budget) -> Answer {
        let pieces = Pieces(vec![vec![7; bytes].into(); pieces]);
        Answer::new(tonic::body::Body::new(pieces), Arc::default(), Some(budget.clone()))
    }

    fn budget() -> Budget {
        Sources::new(1, 8, Arc::default()).source(SourceAddress::of(None, None)).answers.clone()
    }

    async fn next(answer: &mut Answer) -> Option<Frame<Portion>> {
        let next = std::future::poll_fn(|cx| Pin::new(&mut *answer).poll_frame(cx)).await;
        next.map(|frame| frame.expect("no failure"))
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_made_while_much_waits_however_small_the_pieces() {
        for bytes in [1, UNTAKEN_BYTES_MAX / 4] {
            let mut answer = answer(1_000, bytes, &budget());
            let mut portions = Vec::new();
            while let Ok(next) = timeout(Duration::from_secs(1), next(&mut answer)).await {
                portions.push(next.expect("more").into_data().expect("data"));
                assert!(portions.len() <= UNTAKEN_BYTES_MAX / PORTION_BYTES_BESIDE);
            }
            let waits: usize =
                portions.iter().map(|it| it.remaining() + PORTION_BYTES_BESIDE).sum();
            assert!((UNTAKEN_BYTES_MAX..2 * UNTAKEN_BYTES_MAX).contains(&waits), "{waits}");
            portions.clear();
            assert!(next(&mut answer).await.is_some(), "there is room again");
        }
    }

    #[tokio::test]
    async fn a_long_answer_without_room_is_an_error_and_others_take_their_room_until_they_have_left()
     {
        let (budget, long) = (budget(), SHORT_ANSWER_BYTES + 1);
        let all = budget.left();
        let taken = next(&mut answer(1, long, &budget)).await;
        assert_eq!(budget.left(), all - long);
        let rest = budget.try_take(all - long).expect("all that is left");
        let mut refused = answer(1, long, &budget);
        let trailers = next(&mut refused).await.expect("an end").into_trailers().expect("trailers");
        let status = Status::from_header_map(&trailers).expect("a status");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(refused.is_end_stream() && next(&mut refused).await.is_none());
        assert!(next(&mut answer(1, long - 1, &budget)).await.expect("a piece").is_data());
        drop((taken, rest));
        assert_eq!(budget.left(), all);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_stalls_when_nothing_leaves_and_not_while_something_does() {
        let delivery = Arc::<Delivery>::default();
        let stalls = |time| timeout(time, delivery.stalled());
        assert!(stalls(STALLED_TIMEOUT * 3).await.is_err(), "nothing waits");
        let mut portion = Portion::of(10, &delivery);
        let taking = async {
            for _ in 0..9 {
                sleep(STALLED_TIMEOUT / 2).await;
                portion.advance(1);
            }
        };
        tokio::select! {
            () = taking => {}
            () = delivery.stalled() => panic!("it is slow, and no more"),
        }
        assert!(stalls(STALLED_TIMEOUT * 3).await.is_ok(), "the last bytes stay");
        assert!(timeout(STALLED_TIMEOUT, delivery.emptied()).await.is_err());
        delivery.be_patient();
        portion.advance(1);
        assert!(stalls(STALLED_TIMEOUT + FAREWELL_TIMEOUT / 2).await.is_err(), "it may hear why");
        assert!(stalls(STALLED_TIMEOUT * 3).await.is_ok(), "it had its time");
        drop(portion);
        delivery.emptied().await;
        assert!(stalls(STALLED_TIMEOUT * 3).await.is_err(), "all has left");
    }
}
