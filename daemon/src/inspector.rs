//! Asks the shards and the mesh thread what they hold, for whoever operates the node.
//!
//! A shard is asked by a command in its mailbox and answers through its reports; lists come in pages, which
//! are joined here. Nothing waits without an end: a shard that does not answer in time is an error. Few lists
//! are made at a time, so that no number of curious people keeps the shards from their messages.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nexusd_core::inspection::{Answer, Entries, Reply, Request, Subject};
use nexusd_core::io::mailbox::CommandSender;
use nexusd_core::limits::INSPECTION_ENTRIES;
use nexusd_core::{Command, ConnectionId, Metrics};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::mesh::{MeshPicture, Reports, Viewer};

/// Lists that are made at a time; further ones wait.
const LISTS_AT_A_TIME: usize = 2;
/// Questions that wait for an answer.
const QUESTIONS_MAX: usize = 256;
/// Bytes of a list, as it is told: what a gRPC client takes unless it says otherwise, with some room.
const LIST_BYTES_MAX: usize = 3 << 20;
/// Time for one answer. A shard that works off a burst answers within milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for a whole list; what there is by then is told, and that there is more.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// Its mailbox is full, or it does not answer in time.
    #[error("a shard does not answer in time; the node is overloaded")]
    Busy,
    /// It has ended.
    #[error("the node is stopping")]
    Ended,
}

/// The entries of a list of the whole node.
#[derive(Debug)]
pub(crate) struct Listed<T> {
    pub(crate) entries: Vec<T>,
    /// There are more.
    pub(crate) is_truncated: bool,
}

/// Takes the answers of the shards.
#[derive(Default, Debug)]
pub(crate) struct Answers {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    asked: AtomicU64,
}

impl Answers {
    /// A shard has answered. Nobody waits any more for what comes too late.
    pub(crate) fn on_reply(&self, Reply { number, answer }: Reply) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        if let Some(waiting) = waiting {
            // As above.
            let _ = waiting.send(answer);
        }
    }

    /// A number to ask with, and what the answer comes through; `None` if too much is asked already. What is
    /// vital is never too much.
    fn expect(&self, is_vital: bool) -> Option<(Expected<'_>, oneshot::Receiver<Answer>)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= QUESTIONS_MAX && !is_vital {
            return None;
        }
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        waiting.insert(number, sender);
        Some((Expected { answers: self, number }, receiver))
    }
}

/// A question that is forgotten when nobody waits for its answer any more.
struct Expected<'a> {
    answers: &'a Answers,
    number: u64,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        let waiting = &self.answers.waiting;
        waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// Asks what the node holds.
#[derive(Debug)]
pub(crate) struct Inspector {
    shards: Vec<CommandSender>,
    answers: Arc<Answers>,
    /// The way to the mesh thread, if there is one.
    mesh: Option<Arc<Reports>>,
    lists: Semaphore,
}

impl Inspector {
    pub(crate) fn new(
        shards: Vec<CommandSender>,
        answers: Arc<Answers>,
        mesh: Option<Arc<Reports>>,
    ) -> Self {
        Self { shards, answers, mesh, lists: Semaphore::new(LISTS_AT_A_TIME) }
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// What a shard answers.
    pub(crate) async fn ask(&self, shard: usize, request: Request) -> Result<Answer, Unanswered> {
        self.ask_as(shard, request, false).await
    }

    /// Whether a shard is there and answers, however much it is asked besides.
    pub(crate) async fn answers(&self, shard: usize) -> Result<(), Unanswered> {
        // The cheapest question that there is.
        let nobody = ConnectionId { index: u32::MAX, generation: u32::MAX };
        let subject = Subject::Clients(Some(nobody));
        let request = Request::List { subject, cursor: 0, entries: 1 };
        self.ask_as(shard, request, true).await.map(drop)
    }

    async fn ask_as(
        &self,
        shard: usize,
        request: Request,
        is_vital: bool,
    ) -> Result<Answer, Unanswered> {
        let shard = self.shards.get(shard).ok_or(Unanswered::Ended)?;
        let (expected, answer) = self.answers.expect(is_vital).ok_or(Unanswered::Busy)?;
        let number = expected.number;
        let request = Box::new(request);
        if shard.send(Command::Ask { number, request }).is_err() {
            return Err(if shard.is_gone() { Unanswered::Ended } else { Unanswered::Busy });
        }
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Unanswered::Ended),
            Err(_) if shard.is_gone() => Err(Unanswered::Ended),
            Err(_) => Err(Unanswered::Busy),
        }
    }

    /// The next page of a list; none of a shard that has ended, as shards do one by one when a node stops.
    async fn ask_for_page(
        &self,
        shard: usize,
        request: Request,
    ) -> Result<Option<(Entries, Option<u64>)>, Unanswered> {
        match self.ask(shard, request).await {
            Ok(Answer::Page { entries, next }) => Ok(Some((entries, next))),
            Ok(_) | Err(Unanswered::Busy) => Err(Unanswered::Busy),
            Err(Unanswered::Ended) => Ok(None),
        }
    }

    /// What all shards counted until now. Without one that has ended it would be less than before.
    pub(crate) async fn count(&self) -> Result<Metrics, Unanswered> {
        let mut sum = Metrics::default();
        for shard in 0..self.shards.len() {
            match self.ask(shard, Request::Metrics).await {
                Ok(Answer::Metrics(metrics)) => sum += *metrics,
                Ok(_) => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(sum)
    }

    /// Something is done to a client, by the shard that serves it; whether there is such a client.
    pub(crate) async fn act(&self, shard: usize, request: Request) -> Result<bool, Unanswered> {
        if shard >= self.shards.len() {
            return Ok(false);
        }
        Ok(matches!(self.ask(shard, request).await?, Answer::Done(true)))
    }

    /// At most so many entries of a list, over all shards; `of_page` takes them out of each page.
    /// `complete` may ask further questions about those of one page, and says what they weigh in bytes.
    pub(crate) async fn list<T, U>(
        &self,
        subject: Subject,
        limit: usize,
        of_page: impl Fn(usize, Entries) -> Vec<T>,
        complete: impl AsyncFn(&Self, Vec<T>) -> Result<(Vec<U>, usize), Unanswered>,
    ) -> Result<Listed<U>, Unanswered> {
        let deadline = Instant::now() + LIST_TIMEOUT;
        let turn = timeout_at(deadline, self.lists.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Unanswered::Busy) };
        let mut listed = Listed { entries: Vec::new(), is_truncated: false };
        let mut bytes = 0;
        for shard in 0..self.shards.len() {
            let mut next = Some(0);
            while let Some(cursor) = next {
                let left = limit - listed.entries.len();
                // With no room left, one more tells whether there are more.
                let entries = left.clamp(1, INSPECTION_ENTRIES);
                let request = Request::List { subject: subject.clone(), cursor, entries };
                let Some((entries, further)) = self.ask_for_page(shard, request).await? else {
                    break;
                };
                next = further;
                let page = of_page(shard, entries);
                if (left == 0 && !page.is_empty()) || Instant::now() > deadline {
                    listed.is_truncated = true;
                    return Ok(listed);
                }
                let (page, weight) = complete(self, page).await?;
                bytes += weight;
                if bytes > LIST_BYTES_MAX {
                    listed.is_truncated = true;
                    return Ok(listed);
                }
                listed.entries.extend(page);
            }
        }
        Ok(listed)
    }

    /// All entries that shards have of a list about things that were named, added up entry by entry.
    pub(crate) async fn sum_up<T: Default + Clone>(
        &self,
        subject: &Subject,
        count: usize,
        add: impl Fn(&mut [T], Entries) -> usize,
    ) -> Result<Vec<T>, Unanswered> {
        let mut sums = vec![T::default(); count];
        for shard in 0..self.shards.len() {
            let (mut done, mut next) = (0, Some(0));
            while let Some(cursor) = next {
                let entries = INSPECTION_ENTRIES;
                let request = Request::List { subject: subject.clone(), cursor, entries };
                let Some((entries, further)) = self.ask_for_page(shard, request).await? else {
                    break;
                };
                next = further;
                let left = sums.get_mut(done..).unwrap_or_default();
                done += add(left, entries);
            }
        }
        Ok(sums)
    }

    /// The mesh as it is now; `None` for a node on its own.
    pub(crate) async fn mesh(&self) -> Result<Option<MeshPicture>, Unanswered> {
        let Some(mesh) = &self.mesh else { return Ok(None) };
        let (sender, receiver) = oneshot::channel();
        mesh.on_viewer(Viewer::new(move |picture| {
            // Whoever asked may have gone.
            let _ = sender.send(picture);
        }));
        match timeout(ANSWER_TIMEOUT, receiver).await {
            Ok(Ok(picture)) => Ok(Some(picture)),
            Ok(Err(_)) | Err(_) => Err(Unanswered::Busy),
        }
    }
}
