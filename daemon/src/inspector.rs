//! Asks the shards and the mesh thread what they hold, for whoever operates the node.
//!
//! A shard is asked by a command in its mailbox and answers through its reports (`questions.rs`); lists come in
//! pages, which are joined here. Nothing waits without an end: a shard that does not answer in time is an error.
//! Few lists are made at a time, so that no number of curious people keeps the shards from their messages.

mod questions;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nexusd_core::inspection::{Answer, Entries, Request, Subject};
use nexusd_core::io::mailbox::CommandSender;
use nexusd_core::limits::INSPECTION_ENTRIES;
use nexusd_core::{Command, Metrics};
pub(crate) use questions::Questions;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::mesh::{MeshPicture, Reports, Viewer};

/// Lists that are made at a time; further ones wait.
const LISTS_AT_A_TIME: usize = 2;
/// Bytes of a list, as it is told: what a gRPC client takes unless it says otherwise, with some room.
pub(crate) const LIST_BYTES_MAX: usize = 3 << 20;
/// Time for one answer. A shard that works off a burst answers within milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for a whole list; what there is by then is told, and that there is more.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without a sign of life after which a shard is not late but stuck: no burst takes so long.
const STUCK_AFTER: Duration = Duration::from_secs(60);

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

/// A shard, and why it gave no sign of life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Silent {
    shard: usize,
    /// How long it is waited for.
    seconds: u64,
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} has given no sign of life for {} s", self.shard, self.seconds)
    }
}

/// The entries of a list of the whole node.
#[derive(Debug)]
pub(crate) struct Listed<T> {
    pub(crate) entries: Vec<T>,
    /// There are more.
    pub(crate) is_truncated: bool,
}

/// Asks what the node holds.
#[derive(Debug)]
pub(crate) struct Inspector {
    shards: Vec<CommandSender>,
    questions: Arc<Questions>,
    /// The way to the mesh thread, if there is one.
    mesh: Option<Arc<Reports>>,
    lists: Semaphore,
}

impl Inspector {
    pub(crate) fn new(
        shards: Vec<CommandSender>,
        questions: Arc<Questions>,
        mesh: Option<Arc<Reports>>,
    ) -> Self {
        Self { shards, questions, mesh, lists: Semaphore::new(LISTS_AT_A_TIME) }
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// What a shard answers.
    pub(crate) async fn ask(&self, shard: usize, request: Request) -> Result<Answer, Unanswered> {
        self.put(shard, request)?.answer(Instant::now() + ANSWER_TIMEOUT).await
    }

    /// Asks, and does not wait.
    fn put(&self, shard: usize, request: Request) -> Result<Question<'_>, Unanswered> {
        let shard = self.shards.get(shard).ok_or(Unanswered::Ended)?;
        let (number, receiver) = self.questions.open().ok_or(Unanswered::Busy)?;
        let question = Question { inspector: self, shard, number, receiver };
        match shard.send(Command::Inspect { number, request: Box::new(request) }) {
            Ok(()) => Ok(question),
            Err(_) => Err(question.give_up()),
        }
    }

    /// Whether every shard that has not ended is there, however much it is asked besides: the first that gives
    /// no sign of life in time.
    pub(crate) async fn pulse(&self) -> Result<(), Silent> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        (0..self.shards.len()).for_each(|shard| self.feel(shard));
        for (shard, sender) in self.shards.iter().enumerate() {
            let mut pulse = self.questions.pulse(shard);
            let comes = pulse.wait_for(|pulse| pulse.since.is_none());
            let is_late = timeout_at(deadline, comes).await.is_err();
            if is_late && !sender.is_gone() {
                let since = pulse.borrow().since.unwrap_or_else(Instant::now);
                let seconds = since.elapsed().max(ANSWER_TIMEOUT).as_secs();
                return Err(Silent { shard, seconds });
            }
        }
        Ok(())
    }

    /// A shard that is stuck: it has given no sign of life for so long that only a restart helps. It is asked for
    /// one and not waited for, so what does is known when this is asked again.
    pub(crate) fn stuck(&self) -> Option<Silent> {
        (0..self.shards.len()).find_map(|shard| {
            self.feel(shard);
            let since = self.questions.pulse(shard).borrow().since;
            let silent = since.map(|since| since.elapsed()).filter(|it| *it > STUCK_AFTER)?;
            let is_gone = self.shards[shard].is_gone();
            (!is_gone).then_some(Silent { shard, seconds: silent.as_secs() })
        })
    }

    fn feel(&self, shard: usize) {
        self.questions.feel(shard, |command| self.shards[shard].send(command).is_ok());
    }

    /// What all shards counted until now. Without one that has ended it would be less than before.
    pub(crate) async fn count(&self) -> Result<Metrics, Unanswered> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let ask = |shard| self.put(shard, Request::Metrics);
        let asked: Vec<_> = (0..self.shards.len()).map(ask).collect::<Result<_, _>>()?;
        let mut sum = Metrics::default();
        for question in asked {
            if let Answer::Metrics(metrics) = question.answer(deadline).await? {
                sum += *metrics;
            }
        }
        Ok(sum)
    }

    /// A shard does something; whether it did. To clients it does not if there is no such client.
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
        complete: impl AsyncFn(&Listing<'_>, Vec<T>) -> Result<(Vec<U>, usize), Unanswered>,
    ) -> Result<Listed<U>, Unanswered> {
        let deadline = Instant::now() + LIST_TIMEOUT;
        let turn = timeout_at(deadline, self.lists.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Unanswered::Busy) };
        let listing = Listing { inspector: self, deadline };
        let mut entries = Vec::new();
        match listing.fill(&mut entries, &subject, limit, of_page, complete).await {
            Ok(is_truncated) => Ok(Listed { entries, is_truncated }),
            Err(Unanswered::Busy) if Instant::now() >= deadline => {
                Ok(Listed { entries, is_truncated: true })
            }
            Err(cause) => Err(cause),
        }
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

/// A question that a shard was asked.
struct Question<'a> {
    inspector: &'a Inspector,
    shard: &'a CommandSender,
    number: u64,
    receiver: oneshot::Receiver<Answer>,
}

impl Question<'_> {
    async fn answer(mut self, deadline: Instant) -> Result<Answer, Unanswered> {
        match timeout_at(deadline, &mut self.receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Unanswered::Ended),
            // It lies in the mailbox still.
            Err(_) if !self.shard.is_gone() => Err(Unanswered::Busy),
            Err(_) => Err(self.give_up()),
        }
    }

    /// It will not be answered; why.
    fn give_up(self) -> Unanswered {
        self.inspector.questions.close(self.number);
        if self.shard.is_gone() { Unanswered::Ended } else { Unanswered::Busy }
    }
}

/// A list that is being made.
pub(crate) struct Listing<'a> {
    inspector: &'a Inspector,
    deadline: Instant,
}

impl Listing<'_> {
    /// Whether there are more.
    async fn fill<T, U>(
        &self,
        listed: &mut Vec<U>,
        subject: &Subject,
        limit: usize,
        of_page: impl Fn(usize, Entries) -> Vec<T>,
        complete: impl AsyncFn(&Self, Vec<T>) -> Result<(Vec<U>, usize), Unanswered>,
    ) -> Result<bool, Unanswered> {
        let mut bytes = 0;
        for shard in 0..self.inspector.shards() {
            let mut next = Some(0);
            while let Some(cursor) = next {
                let left = limit - listed.len();
                // With no room left, one more tells whether there are more.
                let wanted = left.clamp(1, INSPECTION_ENTRIES);
                let Some(page) = self.page(shard, subject, cursor, wanted).await? else { break };
                let entries = of_page(shard, page.0);
                next = page.1;
                if left == 0 && !entries.is_empty() {
                    return Ok(true);
                }
                let (entries, weight) = complete(self, entries).await?;
                bytes += weight;
                if bytes > LIST_BYTES_MAX {
                    return Ok(true);
                }
                listed.extend(entries);
            }
        }
        Ok(false)
    }

    /// The next page of a list; none of a shard that has ended, as shards do one by one when a node stops.
    async fn page(
        &self,
        shard: usize,
        subject: &Subject,
        cursor: u64,
        entries: usize,
    ) -> Result<Option<(Entries, Option<u64>)>, Unanswered> {
        let now = Instant::now();
        if now >= self.deadline {
            return Err(Unanswered::Busy);
        }
        let deadline = self.deadline.min(now + ANSWER_TIMEOUT);
        let request = Request::List { subject: subject.clone(), cursor, entries };
        let answer = match self.inspector.put(shard, request) {
            Ok(question) => question.answer(deadline).await,
            Err(cause) => Err(cause),
        };
        match answer {
            Ok(Answer::Page { entries, next }) => Ok(Some((entries, next))),
            Ok(_) | Err(Unanswered::Busy) => Err(Unanswered::Busy),
            Err(Unanswered::Ended) => Ok(None),
        }
    }

    /// All entries that shards have of a list about things that were named, added up entry by entry.
    pub(crate) async fn sum_up<T: Default + Clone>(
        &self,
        subject: &Subject,
        count: usize,
        add: impl Fn(&mut [T], Entries) -> usize,
    ) -> Result<Vec<T>, Unanswered> {
        let mut sums = vec![T::default(); count];
        for shard in 0..self.inspector.shards() {
            let (mut done, mut next) = (0, Some(0));
            while let Some(cursor) = next {
                let page = self.page(shard, subject, cursor, INSPECTION_ENTRIES).await?;
                let Some((entries, further)) = page else { break };
                next = further;
                let left = sums.get_mut(done..).unwrap_or_default();
                done += add(left, entries);
            }
        }
        Ok(sums)
    }
}

#[cfg(test)]
mod tests;
