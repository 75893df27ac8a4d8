//! What the daemon may say, and when: every frame that is put on the wire is checked here.

use nexusd_core::limits::METADATA_BYTES_MAX;
use nexusd_core::{HTTP1_ANSWER, Limits};
use nexusd_wire::control::{self, DeliveryMode, ErrorCode};
use nexusd_wire::{Cut, Frame, FrameCutter, FrameKind, SubscriptionId};

use super::{BindFate, Conversation, HTTP_BEGINNING, Offended, Reaction, Run, Sent, Stage};
use crate::coverage::{Coverage, Mark};
use crate::oracle::{Fate, Oracle, Resuming};
use crate::trace::{Trace, trace};
use crate::violation::{Violation, ensure};

/// What every Welcome must say.
pub struct Identity {
    /// The daemon.
    pub node: nexusd_wire::NodeId,
    /// Its cluster.
    pub cluster: String,
    /// Its software.
    pub software: String,
    /// Its bounds.
    pub limits: Limits,
}

/// What checking a frame needs beside the conversation.
pub struct Witnesses<'a> {
    /// What must hold.
    pub oracle: &'a mut Oracle,
    /// What was exercised.
    pub coverage: &'a mut Coverage,
    /// What happened.
    pub trace: &'a mut Trace,
    /// What a Welcome must say.
    pub identity: &'a Identity,
}

impl Conversation {
    /// The daemon put these bytes on the wire, which it had given to the socket at `given_us`.
    pub fn put_on_wire(
        &mut self,
        bytes: &[u8],
        given_us: u64,
        witnesses: &mut Witnesses<'_>,
    ) -> Result<(), Violation> {
        if self.hears_http(bytes) {
            return self.put_http_on_wire(bytes, witnesses).map_err(|Violation(what)| {
                Violation(format!("connection {}: {what}", self.number))
            });
        }
        // The cutter lends frames from inside the conversation, so it stands beside it meanwhile.
        let mut cutter = std::mem::replace(&mut self.cutter, FrameCutter::new(0, 0, 0));
        let mut input = bytes;
        if cutter.stashed() == 0 {
            self.begun_us = given_us;
        }
        let result = loop {
            match cutter.next(&mut input) {
                Ok(Cut::Frame(frame)) => {
                    self.on_wire = frame.at() + frame.bytes().len() as u64;
                    if let Err(violation) = self.on_frame(&frame, witnesses) {
                        break Err(violation);
                    }
                    self.begun_us = given_us;
                }
                Ok(Cut::Incomplete) => break Ok(()),
                Ok(Cut::Large { .. }) => {
                    break Err(Violation("a frame beyond every bound".to_owned()));
                }
                Err(error) => {
                    break Err(Violation(format!("the daemon sent what is no frame: {error}")));
                }
            }
        };
        self.on_wire = cutter.position() + cutter.stashed() as u64;
        self.cutter = cutter;
        result.map_err(|Violation(what)| Violation(format!("connection {}: {what}", self.number)))
    }

    /// Whether these bytes are of the answer to HTTP, which is told by its beginning as well.
    fn hears_http(&self, bytes: &[u8]) -> bool {
        let held = self.cutter.held_back();
        let beginning = held.iter().chain(bytes).take(HTTP_BEGINNING.len());
        !self.http.is_empty() || self.cutter.position() == 0 && beginning.eq(HTTP_BEGINNING)
    }

    /// It is the only thing said on a connection, and its last word.
    fn put_http_on_wire(
        &mut self,
        bytes: &[u8],
        witnesses: &mut Witnesses<'_>,
    ) -> Result<(), Violation> {
        if self.http.is_empty() {
            self.http.extend_from_slice(self.cutter.held_back());
        }
        self.http.extend_from_slice(bytes);
        self.on_wire = self.http.len() as u64;
        trace!(witnesses.trace, "    {} <- HTTP", self.number);
        ensure!(self.is_http_due, "an answer to HTTP that nobody spoke");
        ensure!(HTTP1_ANSWER.starts_with(&self.http), "another answer to HTTP: {:?}", self.http);
        match self.http.len() == HTTP1_ANSWER.len() {
            true => self.on_fatal_error(ErrorCode::Malformed, "HTTP", witnesses),
            false => Ok(()),
        }
    }

    /// Nothing of a frame is left half sent.
    pub fn is_between_frames(&self) -> bool {
        match self.http.is_empty() {
            true => self.cutter.stashed() == 0,
            false => self.http.len() == HTTP1_ANSWER.len(),
        }
    }

    fn on_frame(
        &mut self,
        frame: &Frame<'_>,
        witnesses: &mut Witnesses<'_>,
    ) -> Result<(), Violation> {
        let kind = frame.kind();
        witnesses.coverage.sent_to_client(kind);
        if witnesses.trace.is_wanted() {
            let line = format!("    {} <- {}", self.number, description(frame, witnesses.oracle));
            witnesses.trace.push(line);
        }
        ensure!(self.fatal_error.is_none(), "{kind:?} behind a fatal Error");
        // What another shard answers to a Resume may come late.
        ensure!(
            !self.was_sent_all || matches!(kind, FrameKind::TopicUnbind | FrameKind::Error),
            "{kind:?} behind the Goodbye that says that all was sent"
        );
        ensure!(
            self.welcome_seen
                || matches!(kind, FrameKind::Welcome | FrameKind::Error | FrameKind::Goodbye),
            "{kind:?} before Welcome"
        );
        let oracle = &mut *witnesses.oracle;
        match kind {
            FrameKind::Message => self.on_message(frame, witnesses),
            FrameKind::Welcome => self.on_welcome(frame, witnesses.identity),
            FrameKind::Ping => {
                self.react(Reaction::Pong(frame.header().sequence().0));
                Ok(())
            }
            FrameKind::Pong => {
                let due = self.pongs_due.pop_front();
                let token = frame.header().sequence().0;
                ensure!(due == Some(token), "a Pong with token {token}; due is {due:?}");
                Ok(())
            }
            FrameKind::Goodbye => self.on_goodbye(frame, oracle),
            FrameKind::Error => self.on_error(frame, witnesses),
            FrameKind::TopicBind => {
                let bind =
                    frame.body::<control::TopicBind<'_>>().map_err(|error| undecodable(&error))?;
                let topic = oracle.topic_named(bind.name());
                let id = frame.header().topic().0;
                let Some(topic) = topic else {
                    return Err(Violation(format!("topic id {id} is bound to '{}'", bind.name())));
                };
                let known = self.names.insert(id, topic);
                ensure!(
                    known.is_none_or(|known| known == topic),
                    "topic id {id} was bound to another name and not released"
                );
                Ok(())
            }
            FrameKind::TopicUnbind => {
                self.names.remove(&frame.header().topic().0);
                Ok(())
            }
            FrameKind::PublishAck => self.on_publish_ack(frame, oracle, witnesses.coverage),
            FrameKind::PublishPause | FrameKind::PublishResume => {
                let hold = kind == FrameKind::PublishPause;
                ensure!(self.is_held_on_wire != hold, "{kind:?} twice");
                self.is_held_on_wire = hold;
                if hold {
                    witnesses.coverage.mark(Mark::PublisherPaused);
                }
                self.react(Reaction::Pause(hold));
                Ok(())
            }
            FrameKind::SubscriptionInfo => {
                let info = frame
                    .body::<control::SubscriptionInfo<'_>>()
                    .map_err(|error| undecodable(&error))?;
                let asked = |resuming: &Resuming| resuming.request == info.request();
                if let Some(at) = self.resumes_due.iter().position(asked) {
                    let resuming = self.resumes_due.swap_remove(at);
                    return self.on_resumed(&resuming, &info, witnesses);
                }
                let asked = |stream: &&usize| {
                    let stream = oracle.stream(**stream);
                    stream.request == info.request() && stream.subscriber == self.number
                };
                let Some(&stream) = self.streams.iter().find(asked) else {
                    return Err(Violation(format!(
                        "SubscriptionInfo for request {}",
                        info.request()
                    )));
                };
                oracle.subscribe_confirmed(stream, &info)?;
                self.react(Reaction::Confirmed(stream));
                Ok(())
            }
            FrameKind::UnsubscribeResult => self.on_unsubscribe_result(frame, oracle),
            FrameKind::Deliver => {
                let deliver =
                    frame.body::<control::Deliver<'_>>().map_err(|error| undecodable(&error))?;
                let mode = deliver.mode();
                ensure!(mode != DeliveryMode::Redelivery, "a run of {mode:?}");
                let id = SubscriptionId::from(deliver.subscription());
                if self.was_taken(id, oracle) {
                    self.run = Some(Run::TakenOver);
                    return Ok(());
                }
                let stream = oracle.stream_for(self.number, id)?;
                let state = oracle.stream(stream).state;
                ensure!(
                    state != crate::oracle::StreamState::Ended,
                    "a run of a subscription that was ended"
                );
                self.run = Some(Run::Of(stream, mode));
                Ok(())
            }
            FrameKind::Gap => {
                let gap = frame.body::<control::Gap<'_>>().map_err(|error| undecodable(&error))?;
                let id = SubscriptionId::from(gap.subscription());
                if self.was_taken(id, oracle) {
                    return Ok(());
                }
                let stream = oracle.stream_for(self.number, id)?;
                oracle.on_gap(stream, &gap, |id| self.names.get(&id).copied())?;
                let policy = oracle.stream(stream).policy;
                witnesses.coverage.gap(policy, gap.reason());
                if gap.rest() > 0 {
                    witnesses.coverage.mark(Mark::ManyTopicsGap);
                }
                if policy == control::OverflowPolicy::Block
                    && gap.reason() == control::GapReason::SlowConsumer
                {
                    witnesses.coverage.mark(Mark::BlockTimeout);
                }
                if gap.reason() == control::GapReason::Memory {
                    witnesses.coverage.mark(Mark::MemoryGap);
                }
                Ok(())
            }
            FrameKind::BackpressureWarning => {
                let warning = frame
                    .body::<control::BackpressureWarning<'_>>()
                    .map_err(|error| undecodable(&error))?;
                let id = SubscriptionId::from(warning.subscription());
                if self.was_taken(id, oracle) {
                    return Ok(());
                }
                let stream = oracle.stream_for(self.number, id)?;
                oracle.on_warning(stream, &warning)
            }
            FrameKind::ReplayComplete => {
                let complete = frame
                    .body::<control::ReplayComplete<'_>>()
                    .map_err(|error| undecodable(&error))?;
                let id = SubscriptionId::from(complete.subscription());
                if self.was_taken(id, oracle) {
                    return Ok(());
                }
                let stream = oracle.stream_for(self.number, id)?;
                let topic = frame.header().topic().0;
                let Some(&topic) = self.names.get(&topic) else {
                    return Err(Violation(format!(
                        "ReplayComplete of topic id {topic}, which is not bound"
                    )));
                };
                oracle.on_replay_complete(stream, topic, &complete)
            }
            FrameKind::Heartbeat => {
                let may_have_one = !self.streams.is_empty() || !self.resumes_due.is_empty();
                ensure!(may_have_one, "a Heartbeat without a subscription");
                Ok(())
            }
            kind => Err(Violation(format!("the daemon sent {kind:?}"))),
        }
    }

    fn react(&mut self, reaction: Reaction) {
        self.reactions.push_back((self.on_wire, reaction));
    }

    fn on_message(
        &mut self,
        frame: &Frame<'_>,
        witnesses: &mut Witnesses<'_>,
    ) -> Result<(), Violation> {
        let id = frame.header().topic().0;
        let (stream, mode) = match self.run {
            Some(Run::Of(stream, mode)) => (stream, mode),
            Some(Run::TakenOver) => return witnesses.oracle.on_stale_message(),
            None => return Err(Violation("a message before any Deliver".to_owned())),
        };
        if witnesses.oracle.stream(stream).conversation != self.number {
            return witnesses.oracle.on_stale_message();
        }
        let Some(&topic) = self.names.get(&id) else {
            return Err(Violation(format!("a message of topic id {id}, which is not bound")));
        };
        if frame.bytes().len() > nexusd_core::limits::LARGE_FRAME_BYTES {
            witnesses.coverage.mark(Mark::LargeFrame);
        }
        self.unread.push_back((self.on_wire, stream));
        witnesses.oracle.on_message((stream, mode), topic, self.begun_us, frame)
    }

    /// Whether the stream of this subscription goes on at another connection, so that what comes here
    /// was on its way when it was taken over.
    fn was_taken(&self, id: SubscriptionId, oracle: &Oracle) -> bool {
        let stream = oracle.stream_of(id).filter(|stream| self.streams.contains(stream));
        let is_taken = |stream| oracle.stream(stream).conversation != self.number;
        self.is_abandoned && stream.is_some_and(is_taken)
    }

    fn on_resumed(
        &mut self,
        resuming: &Resuming,
        info: &control::SubscriptionInfo<'_>,
        witnesses: &mut Witnesses<'_>,
    ) -> Result<(), Violation> {
        let oracle = &mut *witnesses.oracle;
        let is_at_home = oracle.stream(resuming.stream).home() == Some(self.home);
        oracle.resumed(resuming, self.number, is_at_home, info)?;
        if !self.streams.contains(&resuming.stream) {
            self.streams.push(resuming.stream);
        }
        if self.is_doubtful {
            oracle.stream_may_be_gone(resuming.stream);
        }
        self.react(Reaction::Resumed(resuming.stream));
        Ok(())
    }

    fn on_welcome(&mut self, frame: &Frame<'_>, identity: &Identity) -> Result<(), Violation> {
        let welcome = frame.body::<control::Welcome<'_>>().map_err(|error| undecodable(&error))?;
        ensure!(self.hello_fed, "Welcome before Hello");
        ensure!(!self.welcome_seen, "Welcome twice");
        ensure!(
            nexusd_wire::NodeId::from(welcome.node()) == identity.node
                && welcome.cluster() == Some(identity.cluster.as_str())
                && welcome.software() == Some(identity.software.as_str())
                && welcome.max_payload() == identity.limits.payload_bytes
                && welcome.max_metadata() == METADATA_BYTES_MAX
                && (welcome.major(), welcome.minor())
                    == (nexusd_wire::PROTOCOL_MAJOR, nexusd_wire::PROTOCOL_MINOR),
            "a Welcome that does not tell the truth: {welcome:?}"
        );
        self.welcome_seen = true;
        self.react(Reaction::Welcomed);
        Ok(())
    }

    fn on_goodbye(&mut self, frame: &Frame<'_>, oracle: &Oracle) -> Result<(), Violation> {
        let goodbye = frame.body::<control::Goodbye<'_>>().map_err(|error| undecodable(&error))?;
        ensure!(
            self.stage == Stage::Draining || self.is_doubtful,
            "a Goodbye, but nobody asked to drain"
        );
        ensure!(!self.goodbye_seen || goodbye.is_complete(), "Goodbye twice");
        self.was_sent_all = goodbye.is_complete();
        let (mut low, mut high) = (0, 0);
        for &(_, sent) in &self.placed {
            let Sent::Publish(index) = sent else { continue };
            let publication = oracle.publication(index);
            let sequence = publication.header.sequence().0;
            match publication.fate {
                Fate::Settled => (low, high) = (sequence, sequence),
                Fate::Fed | Fate::Doubtful => high = sequence,
                // What another shard refuses was taken when it was passed on.
                Fate::Refused if oracle.shards() > 1 => high = sequence,
                Fate::Written | Fate::Refused => {}
            }
        }
        let last = goodbye.last_accepted();
        ensure!(
            (low..=high).contains(&last) || self.is_doubtful,
            "Goodbye says {last} was accepted last; it was {low} to {high}"
        );
        let unanswered = self
            .acks_due
            .iter()
            .find(|&&index| oracle.publication(index).header.sequence().0 <= last);
        ensure!(
            unanswered.is_none() || self.is_doubtful,
            "Goodbye says {last} was accepted last, but the ack of publication {unanswered:?} never came"
        );
        self.goodbye_seen = true;
        Ok(())
    }

    fn on_error(
        &mut self,
        frame: &Frame<'_>,
        witnesses: &mut Witnesses<'_>,
    ) -> Result<(), Violation> {
        let error = frame.body::<control::Error<'_>>().map_err(|error| undecodable(&error))?;
        let (code, message) = (error.code(), error.message().unwrap_or(""));
        witnesses.coverage.error(code);
        trace!(witnesses.trace, "      {code:?}: {message}");
        ensure!(!message.is_empty(), "an Error {code:?} without a message");
        if error.fatal() {
            let is_frame_for_http = self.is_http_due && code == ErrorCode::Malformed;
            ensure!(!is_frame_for_http, "HTTP was answered with a frame");
            return self.on_fatal_error(code, message, witnesses);
        }
        let is_due = |due: &Offended| due.code == code && due.request == error.request();
        if self.errors_due.front().is_some_and(is_due) {
            self.errors_due.pop_front();
            return Ok(());
        }
        let asked = |resuming: &Resuming| resuming.request == error.request();
        if let Some(at) = self.resumes_due.iter().position(asked) {
            let resuming = self.resumes_due.swap_remove(at);
            let oracle = &mut *witnesses.oracle;
            let is_at_home = oracle.stream(resuming.stream).home() == Some(self.home);
            oracle.resume_refused(&resuming, code, is_at_home)?;
            self.react(match code {
                ErrorCode::NotFound => Reaction::NotFound(resuming.stream),
                _ => Reaction::Rejected(resuming.stream),
            });
            return Ok(());
        }
        // What depends on the shard's memory and tables: the frame at fault is named by its place.
        let place = self.placed_at(error.offset());
        match place {
            Some(Sent::Publish(index)) if code == ErrorCode::LimitReached => {
                witnesses.coverage.mark(Mark::NoMemory);
                witnesses.oracle.publish_refused(index)
            }
            Some(Sent::Bind(bind)) if code == ErrorCode::LimitReached => {
                ensure!(self.binds[bind].fate == BindFate::Held, "a bind was refused twice");
                self.binds[bind].fate = BindFate::Refused;
                witnesses.oracle.bind_refused();
                witnesses.oracle.publishes_refused(self.number, bind)
            }
            _ => Err(Violation(format!(
                "an Error {code:?} ({message}) about {place:?}; due is {:?}",
                self.errors_due.front()
            ))),
        }
    }

    fn on_fatal_error(
        &mut self,
        code: ErrorCode,
        message: &str,
        witnesses: &mut Witnesses<'_>,
    ) -> Result<(), Violation> {
        let Witnesses { oracle, coverage, .. } = witnesses;
        let is_slow =
            code == ErrorCode::LimitReached && self.is_doubtful && self.may_be_disconnected(oracle);
        if is_slow {
            coverage.disconnected();
        }
        let expected = self.doom.or(self.must_be_refused) == Some(code);
        ensure!(
            expected || is_slow || (code == ErrorCode::Timeout && self.is_doubtful),
            "a fatal Error {code:?} ({message}); expected is {:?}",
            self.doom.or(self.must_be_refused)
        );
        self.fatal_error = Some(code);
        if self.stage != Stage::Doomed {
            self.stage = Stage::Doomed;
            self.ending_since_us.get_or_insert(oracle.now_us());
            if code != ErrorCode::Timeout {
                self.streams_may_end(oracle);
            }
        }
        self.react(Reaction::Leave);
        Ok(())
    }

    fn placed_at(&self, offset: u64) -> Option<Sent> {
        let at = self.placed.binary_search_by_key(&offset, |(start, _)| *start).ok()?;
        Some(self.placed[at].1)
    }

    fn on_publish_ack(
        &mut self,
        frame: &Frame<'_>,
        oracle: &mut Oracle,
        coverage: &mut Coverage,
    ) -> Result<(), Violation> {
        let acks = frame.body::<control::PublishAck<'_>>().map_err(|error| undecodable(&error))?;
        ensure!(!acks.entries().is_empty(), "a PublishAck of nothing");
        for entry in acks.entries() {
            let Some(index) = self.acks_due.pop_front() else {
                return Err(Violation(format!("an ack nobody asked for: {entry:?}")));
            };
            let sequence = oracle.publication(index).header.sequence().0;
            ensure!(
                entry.publisher_sequence() == sequence,
                "an ack of {}; due is {sequence}",
                entry.publisher_sequence()
            );
            oracle.on_ack(index, entry)?;
            coverage.mark(match oracle.publication(index).fate {
                Fate::Refused => Mark::AckRefused,
                _ if entry.blocked() > 0 => Mark::AckBlocked,
                _ => Mark::AckAccepted,
            });
        }
        Ok(())
    }

    fn on_unsubscribe_result(
        &mut self,
        frame: &Frame<'_>,
        oracle: &mut Oracle,
    ) -> Result<(), Violation> {
        let result =
            frame.body::<control::UnsubscribeResult<'_>>().map_err(|error| undecodable(&error))?;
        let sent = self.unsubscribes_due.pop_front();
        match sent {
            Some(Sent::Unsubscribe(stream) | Sent::Pause(stream)) => {
                ensure!(result.success(), "an Unsubscribe of a live subscription failed");
                let ttl_ms = match sent {
                    Some(Sent::Pause(_)) => {
                        // Somebody may have gone on with it before this answer was on the wire.
                        if oracle.stream(stream).conversation == self.number {
                            oracle.stream_parked(stream, self.paused_since_us, false);
                        } else {
                            oracle.taken_while_parked(stream, self.number);
                        }
                        self.react(Reaction::Parked(stream));
                        oracle.parked_ttl_us() / 1_000
                    }
                    _ => {
                        oracle.stream_ended(stream);
                        0
                    }
                };
                ensure!(
                    result.pause_ttl_ms() == ttl_ms,
                    "a subscription is said to stay parked for {} ms",
                    result.pause_ttl_ms()
                );
                Ok(())
            }
            Some(_) => {
                ensure!(
                    !result.success() && result.message() == Some("Subscription not found"),
                    "an Unsubscribe of an unknown id was answered {result:?}"
                );
                Ok(())
            }
            None => Err(Violation("an UnsubscribeResult nobody asked for".to_owned())),
        }
    }

    /// Every question was answered.
    pub fn check_answered(&self) -> Result<(), Violation> {
        let name = self.number;
        ensure!(
            self.acks_due.is_empty(),
            "connection {name}: {} acks never came",
            self.acks_due.len()
        );
        ensure!(
            self.pongs_due.is_empty(),
            "connection {name}: {} Pongs never came",
            self.pongs_due.len()
        );
        ensure!(
            self.errors_due.is_empty(),
            "connection {name}: {:?} never came",
            self.errors_due.front()
        );
        ensure!(
            self.unsubscribes_due.is_empty(),
            "connection {name}: {} UnsubscribeResults never came",
            self.unsubscribes_due.len()
        );
        // One that waits for an old connection's end is not answered behind a Goodbye.
        ensure!(
            self.resumes_due.is_empty() || self.stage != Stage::Going,
            "connection {name}: {} Resumes were never answered",
            self.resumes_due.len()
        );
        ensure!(!self.hello_fed || self.welcome_seen, "connection {name}: no Welcome came");
        Ok(())
    }

    /// Everything the shard owes has come.
    pub fn check_nothing_owed(&self) -> Result<(), Violation> {
        let name = self.number;
        self.check_answered()?;
        ensure!(
            !self.is_held_on_wire,
            "connection {name}: held back with PublishPause and never resumed"
        );
        ensure!(self.is_between_frames(), "connection {name}: a frame was left half sent");
        Ok(())
    }

    /// The daemon said what it had to before it closed the connection.
    pub fn check_last_words(&self) -> Result<(), Violation> {
        let name = self.number;
        ensure!(
            self.is_doubtful || self.stage != Stage::Doomed || self.fatal_error.is_some(),
            "connection {name}: closed without the fatal Error {:?}",
            self.doom
        );
        ensure!(
            self.stage != Stage::Draining
                || !self.welcome_seen
                || self.goodbye_seen
                || self.is_doubtful,
            "connection {name}: drained without a Goodbye"
        );
        Ok(())
    }
}

fn undecodable(error: &nexusd_wire::DecodeError) -> Violation {
    Violation(format!("a body that does not decode: {error}"))
}

/// A frame in words, for the trace.
fn description(frame: &Frame<'_>, oracle: &Oracle) -> String {
    let header = frame.header();
    let name = frame.kind().variant_name().unwrap_or("?");
    let stream = |id: &control::SubscriptionId| match oracle.stream_of(SubscriptionId::from(id)) {
        Some(stream) => format!("stream {stream} {:?}", oracle.stream(stream).filters),
        None => "an unknown stream".to_owned(),
    };
    let topic = header.topic().0;
    match frame.kind() {
        FrameKind::Message => {
            let publication = crate::payload::publication_of(header, frame.payload());
            let (number, bytes) = (header.sequence().0, header.total());
            format!(
                "{name} topic {topic} number {number} publication {publication} ({bytes} bytes)"
            )
        }
        FrameKind::TopicBind => match frame.body::<control::TopicBind<'_>>() {
            Ok(bind) => format!("{name} topic {topic} is '{}'", bind.name()),
            Err(error) => error.to_string(),
        },
        FrameKind::Deliver => match frame.body::<control::Deliver<'_>>() {
            Ok(deliver) => format!("{name} {}", stream(deliver.subscription())),
            Err(error) => error.to_string(),
        },
        FrameKind::SubscriptionInfo => match frame.body::<control::SubscriptionInfo<'_>>() {
            Ok(info) => format!("{name} for request {}", info.request()),
            Err(error) => error.to_string(),
        },
        FrameKind::PublishAck => match frame.body::<control::PublishAck<'_>>() {
            Ok(acks) => {
                let entries = acks.entries().iter().map(|entry| {
                    format!(
                        " {}:{} {:?}",
                        entry.publisher_sequence(),
                        entry.sequence(),
                        entry.status()
                    )
                });
                format!("{name}{}", entries.collect::<String>())
            }
            Err(error) => error.to_string(),
        },
        FrameKind::Gap => match frame.body::<control::Gap<'_>>() {
            Ok(gap) => {
                let entries = gap.entries().map(|entries| entries.iter()).into_iter().flatten();
                let entries: Vec<_> = entries.map(|e| (e.topic(), e.first(), e.last())).collect();
                format!("{name} {} {:?} {entries:?}", stream(gap.subscription()), gap.reason())
            }
            Err(error) => error.to_string(),
        },
        _ => format!("{name} {topic} {}", header.sequence().0),
    }
}
