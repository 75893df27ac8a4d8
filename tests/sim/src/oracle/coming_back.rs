//! Subscriptions that outlive their connections: parked, resumed, replayed.

use std::collections::BTreeMap;

use nexusd_wire::control::{self, ErrorCode, GapMode, GapReason};

use super::{Oracle, StreamState};
use crate::violation::{Violation, ensure};

/// No conversation: the stream is parked.
pub const NOBODY: u32 = u32::MAX - 1;
/// A subscription whose time is over is gone no later than this behind it.
const REAPING_SLACK_US: u64 = 1_500_000;

/// A Resume as its client wrote it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resuming {
    /// Its number.
    pub request: u64,
    /// The stream it names.
    pub stream: usize,
    /// Messages the client says it has had.
    pub count: u64,
    /// What is to be done about what is lost.
    pub mode: GapMode,
    /// The count is more than was ever sent, or the subscription is the connection's own.
    pub is_wrong: bool,
    /// When the shard was fed it.
    pub fed_at: u64,
    /// Messages dropped in all queues by then.
    pub dropped_before: u64,
}

/// What was replayed of one topic.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct ReplayedTopic {
    count: u64,
    latest: u64,
    is_complete: bool,
}

/// What a subscription gets for having come back.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    /// When the shard was fed what asked for it.
    pub(super) fed_at: u64,
    /// What SubscriptionInfo said.
    missed: i64,
    is_started: bool,
    /// Messages told as lost since.
    pub(super) told: u64,
    topics: BTreeMap<usize, ReplayedTopic>,
    /// Messages that were on their way to the client when its connection ended, and may be lost.
    pub(super) on_the_way: u64,
    /// Anything has come since.
    has_begun: bool,
    /// Messages dropped in all queues when it was asked for.
    dropped_before: u64,
}

impl Replay {
    /// What SubscriptionInfo says of it.
    pub(super) fn announce(&mut self, info: &control::SubscriptionInfo<'_>) {
        (self.missed, self.is_started) = (info.missed_count(), info.replay_started());
    }

    /// A replay that a Subscribe asked for by its positions.
    pub(super) fn of_positions(fed_at: u64, dropped_before: u64) -> Self {
        Self {
            fed_at,
            missed: 0,
            is_started: false,
            told: 0,
            topics: BTreeMap::new(),
            on_the_way: 0,
            has_begun: false,
            dropped_before,
        }
    }
}

impl Oracle {
    /// The stream's connection is gone, or its client asked for a pause; it was parked between
    /// `since_us` and now. `may_be_gone`: or perhaps ended.
    pub fn stream_parked(&mut self, index: usize, since_us: u64, may_be_gone: bool) {
        // One that was never confirmed may not have been parked, but ended.
        let may_be_gone = may_be_gone || self.streams[index].subscription.is_none();
        if may_be_gone {
            self.stream_may_end(index);
        }
        let now_us = self.now_us;
        let stream = &mut self.streams[index];
        if stream.state == StreamState::Ended {
            return;
        }
        if stream.state == StreamState::Fed {
            stream.is_doubtful = true;
        }
        stream.state = StreamState::Parked;
        stream.conversation = NOBODY;
        stream.may_be_gone |= may_be_gone;
        let since_us = stream.away_since_us.map_or(since_us, |away_us| away_us.min(since_us));
        stream.parked_between_us = (since_us.min(now_us), now_us);
        stream.was_parked = true;
        stream.note_away();
        if !self.parked.contains(&index) {
            self.parked.push(index);
        }
    }

    /// How long a subscription stays parked.
    pub fn parked_ttl_us(&self) -> u64 {
        self.parked_ttl_us
    }

    /// A message of a stream that was taken over meanwhile is on the old connection's wire.
    pub fn on_stale_message(&mut self) -> Result<(), Violation> {
        self.delivered += 1;
        Ok(())
    }

    /// The shard was fed a StreamAck.
    pub fn ack_fed(&mut self, index: usize, count: u64) {
        let stream = &mut self.streams[index];
        // A count that cannot be is passed over.
        if count <= stream.had && count > stream.acked {
            stream.acked = count;
        }
    }

    /// The shard has dealt with it: so much need not be kept any more.
    pub fn ack_settled(&mut self, index: usize, count: u64) {
        let stream = &mut self.streams[index];
        if count <= stream.acked {
            stream.history.forget(count);
        }
    }

    /// A stream that is parked, for all that is known, may have gone on and ended.
    pub fn stream_may_be_gone(&mut self, index: usize) {
        self.stream_may_end(index);
        self.streams[index].may_be_gone = true;
    }

    /// Whether the stream may be gone by now.
    pub fn may_be_gone(&self, index: usize) -> bool {
        let stream = &self.streams[index];
        stream.may_be_gone || stream.is_doubtful || stream.state == StreamState::Ended
    }

    /// Parked streams whose time is over end.
    pub(super) fn expire_parked(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        for at in (0..self.parked.len()).rev() {
            let index = self.parked[at];
            let stream = &self.streams[index];
            if stream.state != StreamState::Parked {
                match stream.away_since_us {
                    Some(since_us) if stream.state != StreamState::Ended => {
                        if self.now_us >= since_us + self.parked_ttl_us {
                            self.stream_may_be_gone(index);
                        }
                    }
                    _ => drop(self.parked.swap_remove(at)),
                }
                continue;
            }
            let (low, high) = stream.parked_between_us;
            if self.now_us >= low + self.parked_ttl_us {
                self.stream_may_end(index);
                self.streams[index].may_be_gone = true;
            }
            if self.now_us >= high + self.parked_ttl_us + REAPING_SLACK_US
                && self.streams[index].resumes_pending == 0
            {
                self.stream_ended(index);
                self.parked.swap_remove(at);
            }
        }
    }

    /// Streams that are, or may be, parked.
    pub fn has_parked(&self) -> bool {
        self.streams.iter().any(|stream| stream.state == StreamState::Parked && stream.in_high)
    }

    /// From now on the stream may be without its client.
    pub fn may_be_away(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        stream.was_parked = true;
        stream.note_away();
        stream.away_since_us.get_or_insert(self.now_us);
        if !self.parked.contains(&index) {
            self.parked.push(index);
        }
    }

    /// A client will go on behind so many messages, and have no more than them.
    pub fn client_forgets(&mut self, index: usize, count: u64) {
        let stream = &mut self.streams[index];
        stream.had = count;
        // What it says it has had it will not be sent again.
        stream.acked = stream.acked.max(count);
    }

    /// Whoever goes on with a stream took it from nobody: its last conversation had paused it, and hears of that only
    /// now.
    pub fn taken_while_parked(&mut self, index: usize, conversation: u32) {
        self.streams[index].taken_from.retain(|&from| from != conversation);
    }

    /// The shard was fed a Resume.
    pub fn resume_fed(&mut self, resuming: Resuming) -> Resuming {
        self.step += 1;
        if !resuming.is_wrong {
            if self.streams[resuming.stream].state != StreamState::Parked {
                self.may_be_away(resuming.stream);
            }
            self.streams[resuming.stream].resumes_pending += 1;
        }
        Resuming { fed_at: self.step, dropped_before: self.dropped, ..resuming }
    }

    /// Nobody waits for the answer to a Resume any more.
    pub fn resume_given_up(&mut self, resuming: &Resuming) {
        let stream = &mut self.streams[resuming.stream];
        if resuming.is_wrong {
            return;
        }
        stream.resumes_pending -= 1;
        stream.retained_rounds += u64::from(resuming.mode == GapMode::RetainedOnly);
        self.perhaps_requeued += stream.history.sent() - stream.had;
        // Whether the stream has changed hands is not known; with its connection it is parked again.
        if stream.state == StreamState::Parked {
            stream.parked_between_us.1 = self.now_us;
        }
    }

    /// A Resume was refused.
    pub fn resume_refused(
        &mut self,
        resuming: &Resuming,
        code: ErrorCode,
        is_at_home: bool,
    ) -> Result<(), Violation> {
        let stream = &self.streams[resuming.stream];
        match code {
            ErrorCode::NotFound => ensure!(
                // Of two that go on with a stream which somebody has, one is not answered otherwise.
                !is_at_home
                    || self.may_be_gone(resuming.stream)
                    || stream.state == StreamState::Open,
                "stream {} {:?} is {:?} and was not found",
                resuming.stream,
                stream.filters,
                stream.state
            ),
            ErrorCode::Rejected => ensure!(
                resuming.is_wrong,
                "a Resume of {:?} behind {} messages was rejected; {} were sent",
                stream.filters,
                resuming.count,
                stream.history.sent()
            ),
            code => ensure!(false, "a Resume was answered with {code:?}"),
        }
        self.streams[resuming.stream].resumes_pending -= u32::from(!resuming.is_wrong);
        Ok(())
    }

    /// A Resume was answered: the stream goes on, behind the messages that its client has had.
    pub fn resumed(
        &mut self,
        resuming: &Resuming,
        conversation: u32,
        is_at_home: bool,
        info: &control::SubscriptionInfo<'_>,
    ) -> Result<(), Violation> {
        let Resuming { stream: index, count, mode, fed_at, dropped_before, .. } = *resuming;
        let stream = &mut self.streams[index];
        ensure!(
            stream.state != StreamState::Ended,
            "stream {index} {:?} was ended and is resumed",
            stream.filters
        );
        ensure!(is_at_home, "{:?} was found at a shard that does not keep it", stream.filters);
        ensure!(!resuming.is_wrong, "a Resume behind {count} messages was not rejected");
        ensure!(
            stream.subscription == Some(info.subscription().into()),
            "a Resume was answered for another subscription"
        );
        ensure!(
            info.gap_detected() == (info.missed_count() != 0),
            "a gap is {} with {} messages missed",
            info.gap_detected(),
            info.missed_count()
        );
        self.has_recovered |= mode == GapMode::ReplayBuffer;
        // The answer stood behind much else, and somebody took the stream from there before it came.
        if fed_at < stream.had_since {
            stream.resumes_pending -= 1;
            return Ok(());
        }
        stream.had_since = fed_at;
        if stream.state != StreamState::Parked {
            stream.taken_from.push(stream.conversation);
        }
        // When it began is not known if its Subscribe was never seen to be dealt with.
        stream.is_doubtful |= stream.settled_at == 0;
        stream.state = StreamState::Open;
        stream.conversation = conversation;
        stream.retained_rounds += u64::from(mode == GapMode::RetainedOnly && info.gap_detected());
        stream.resumes_pending -= 1;
        stream.may_be_gone = false;
        stream.away_since_us = None;
        let again = stream.take_back(count);
        self.requeued += again.messages;
        self.missed -= again.missed;
        self.link_lost -= again.link_lost;
        // What an earlier replay had not come to is still to come.
        let earlier = stream.replay.take().map_or(0, |earlier| earlier.on_the_way);
        stream.replay = Some(Box::new(Replay {
            missed: info.missed_count(),
            is_started: info.replay_started(),
            on_the_way: again.messages + again.link_lost + earlier,
            ..Replay::of_positions(fed_at, dropped_before)
        }));
        Ok(())
    }

    /// A message comes because its subscription came back.
    pub(super) fn check_replayed(
        &mut self,
        at: usize,
        topic: usize,
        number: u64,
    ) -> Result<(), Violation> {
        let name = &self.topics[topic].name;
        let stream = &mut self.streams[at];
        let Some(replay) = &mut stream.replay else {
            return Err(Violation(format!("{name} {number}: replayed, but nobody came back")));
        };
        ensure!(replay.is_started, "{name} {number}: replayed, but no replay was announced");
        replay.has_begun = true;
        let replayed = replay.topics.entry(topic).or_default();
        ensure!(
            !replayed.is_complete,
            "{name} {number}: replayed behind the topic's ReplayComplete"
        );
        replayed.count += 1;
        replayed.latest = number;
        Ok(())
    }

    /// A message comes as published.
    pub(super) fn check_live(
        &mut self,
        at: usize,
        topic: usize,
        index: u32,
        number: u64,
    ) -> Result<(), Violation> {
        let Some(replay) = &mut self.streams[at].replay else { return Ok(()) };
        let name = &self.topics[topic].name;
        let publication = &self.publications[index as usize];
        replay.has_begun = true;
        ensure!(
            self.shards > 1
                || publication.settled_at == 0
                || publication.settled_at > replay.fed_at,
            "{name} {number}: comes as live, but was queued when the subscription came back"
        );
        let replayed = replay.topics.get(&topic);
        ensure!(
            replayed.is_none_or(|replayed| replayed.is_complete),
            "{name} {number}: live before the topic's ReplayComplete"
        );
        Ok(())
    }

    /// A ReplayComplete is on the wire.
    pub fn on_replay_complete(
        &mut self,
        at: usize,
        topic: usize,
        complete: &control::ReplayComplete<'_>,
    ) -> Result<(), Violation> {
        let may_expire = self.may_have_expired(topic);
        let name = &self.topics[topic].name;
        let dropped = self.dropped;
        let stream = &mut self.streams[at];
        let Some(replay) = &mut stream.replay else {
            return Err(Violation(format!("{name}: ReplayComplete, but nobody came back")));
        };
        ensure!(replay.is_started, "{name}: ReplayComplete, but no replay was announced");
        let replayed = replay.topics.entry(topic).or_default();
        ensure!(!replayed.is_complete, "{name}: ReplayComplete twice");
        replayed.is_complete = true;
        let (count, latest) = (complete.replayed_count(), complete.latest_sequence());
        // Of what was queued for the replay some may have gone since.
        let may_be_fewer = may_expire || dropped > replay.dropped_before;
        let is_right = if may_be_fewer {
            count >= replayed.count && latest >= replayed.latest
        } else {
            (count, latest) == (replayed.count, replayed.latest)
        };
        ensure!(
            is_right && count > 0,
            "{name}: ReplayComplete tells {count} messages up to {latest}; {} came, up to {}",
            replayed.count,
            replayed.latest
        );
        Ok(())
    }

    /// A Gap tells messages that were lost with a connection, as a number.
    pub(super) fn on_link_lost(&mut self, at: usize, missed: u64) -> Result<(), Violation> {
        let may_have_recycled = self.may_have_recycled();
        let stream = &mut self.streams[at];
        let Some(replay) = &mut stream.replay else {
            return Err(Violation("messages lost with a connection, but nobody came back".into()));
        };
        ensure!(
            !stream.is_counted || stream.may_have_forgotten || may_have_recycled,
            "{missed} messages were lost with the connection of a subscription that counts, and \
             fit its queue"
        );
        ensure!(
            missed <= replay.on_the_way,
            "{missed} messages were told as lost with the connection; {} were on their way",
            replay.on_the_way
        );
        replay.on_the_way -= missed;
        self.link_lost += missed;
        Ok(())
    }

    /// What came back has had all it was promised.
    pub(super) fn check_replay(&self, at: usize) -> Result<(), Violation> {
        let stream = &self.streams[at];
        let Some(replay) = &stream.replay else { return Ok(()) };
        for (&topic, replayed) in &replay.topics {
            ensure!(
                replayed.is_complete,
                "{}: {} messages were replayed, and no ReplayComplete came",
                self.topics[topic].name,
                replayed.count
            );
        }
        let has_dropped = self.dropped > replay.dropped_before;
        ensure!(
            !replay.is_started || !replay.topics.is_empty(),
            "{:?}: a replay was announced and none came",
            stream.filters
        );
        ensure!(
            replay.missed < 0
                || replay.told == replay.missed as u64
                || (has_dropped && replay.told > replay.missed as u64),
            "{:?}: {} messages were missed, and gaps told {}",
            stream.filters,
            replay.missed,
            replay.told
        );
        Ok(())
    }

    /// Whether a gap of this reason can be told because a subscription came back.
    pub(super) fn is_of_coming_back(reason: GapReason) -> bool {
        matches!(reason, GapReason::LinkLost | GapReason::ReplayWindow)
    }
}
