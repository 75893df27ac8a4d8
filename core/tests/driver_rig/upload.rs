//! Takes uploads (`length u64`, then so many bytes), large ones in place, and answers each with a
//! checksum of eight bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use nexusd_core::limits::LARGE_FRAME_BYTES;
use nexusd_core::{Command, ConnectionId, Event, Now, Output, Report, Service};

use super::Gauge;

#[derive(Default)]
pub struct UploadGauges {
    pub landed: Gauge,
    pub received: Gauge,
    pub uploads: Gauge,
    pub closed: Gauge,
}

#[derive(Default)]
struct Session {
    length: Vec<u8>,
    body: Vec<u8>,
    filled: usize,
    answers: Vec<u8>,
    lent: Vec<u8>,
    sending: bool,
}

#[derive(Default)]
pub struct Upload {
    pub gauges: Arc<UploadGauges>,
    sessions: HashMap<ConnectionId, Session>,
    outputs: VecDeque<Output>,
    finished: bool,
    /// Pauses and resumes at every event, to find what that breaks.
    pub fidgets: bool,
    /// Closes every connection at the first `Sample`.
    pub close_on_sample: bool,
}

/// A checksum in which the place of a byte counts.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Upload {
    /// A service with some of its settings changed.
    pub fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut upload = Self::default();
        change(&mut upload);
        upload
    }

    fn finish_if_full(&mut self, connection: ConnectionId) {
        let session = self.sessions.get_mut(&connection).expect("a session");
        if session.length.len() < 8 || session.filled < session.body.len() {
            return;
        }
        self.gauges.uploads.add(1);
        session.answers.extend_from_slice(&checksum(&session.body).to_le_bytes());
        session.length.clear();
        session.body.clear();
        session.filled = 0;
        if !session.sending {
            session.sending = true;
            self.outputs.push_back(Output::Send(connection));
        }
    }

    fn fidget(&mut self, connection: ConnectionId) {
        if self.fidgets {
            self.outputs.push_back(Output::PauseReceive(connection));
            self.outputs.push_back(Output::ResumeReceive(connection));
        }
    }
}

impl Service for Upload {
    fn on_event(&mut self, _now: Now, event: Event<'_>) {
        match event {
            Event::Opened { connection, .. } => {
                self.sessions.insert(connection, Session::default());
            }
            Event::Received { connection, mut bytes } => {
                self.gauges.received.add(bytes.len());
                while !bytes.is_empty() {
                    let session = self.sessions.get_mut(&connection).expect("a session");
                    let missing = 8 - session.length.len();
                    if missing > 0 {
                        let (length, rest) = bytes.split_at(missing.min(bytes.len()));
                        session.length.extend_from_slice(length);
                        bytes = rest;
                        if let Ok(length) = session.length.as_slice().try_into() {
                            let length = u64::from_le_bytes(length) as usize;
                            session.body.resize(length, 0);
                            if length >= LARGE_FRAME_BYTES {
                                self.outputs.push_back(Output::ReceiveInPlace(connection));
                            }
                        }
                    } else {
                        let room = session.body.len() - session.filled;
                        let (body, rest) = bytes.split_at(room.min(bytes.len()));
                        session.body[session.filled..][..body.len()].copy_from_slice(body);
                        session.filled += body.len();
                        bytes = rest;
                    }
                    self.finish_if_full(connection);
                }
                self.fidget(connection);
            }
            Event::Landed { connection, bytes } => {
                assert!(bytes > 0);
                self.gauges.landed.add(bytes);
                self.sessions.get_mut(&connection).expect("a session").filled += bytes;
                self.finish_if_full(connection);
                self.fidget(connection);
            }
            Event::Sent { connection, bytes, blocked } => {
                assert!(!blocked, "answers are short");
                let session = self.sessions.get_mut(&connection).expect("a session");
                assert_eq!(bytes, session.lent.len());
                session.sending = !session.answers.is_empty();
                if session.sending {
                    self.outputs.push_back(Output::Send(connection));
                }
            }
            Event::Writable { .. } => panic!("answers are short"),
            Event::Closed { connection, .. } => {
                self.sessions.remove(&connection).expect("a session");
                self.gauges.closed.add(1);
            }
            Event::Command(Command::Sample) => {
                self.outputs.push_back(Output::Report(Report::Metrics(Box::default())));
                if self.close_on_sample {
                    self.outputs.extend(self.sessions.keys().copied().map(Output::Close));
                }
            }
            Event::Command(Command::Drain { .. }) => self.finished = true,
            Event::Command(
                Command::Publish { .. } | Command::Inspect { .. } | Command::Link(_),
            )
            | Event::Inbox
            | Event::Tick => {}
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn gather(&mut self, connection: ConnectionId, take: &mut dyn FnMut(&[u8])) {
        let session = self.sessions.get_mut(&connection).expect("a session");
        session.lent = std::mem::take(&mut session.answers);
        take(&session.lent);
    }

    fn landing_zone(&mut self, connection: ConnectionId) -> Option<&mut [u8]> {
        let session = self.sessions.get_mut(&connection)?;
        let zone = &mut session.body[session.filled..];
        (!zone.is_empty()).then_some(zone)
    }

    fn wake_at(&self) -> Option<u64> {
        None
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}
