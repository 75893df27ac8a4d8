//! NATS core, as its protocol documentation has it: lines of text, and payloads of a length they name.
//!
//! Publishers ask for no `+OK`. A subscriber is confirmed by the PONG behind its SUB.

use super::straddle::{Straddle, line, number};
use super::{Framing, FramingError, Wish};
use crate::batch::{FrameTemplate, TopicName};
use crate::topic_table::TopicTable;

const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":false,\
                       \"echo\":false,\"lang\":\"rust\",\"version\":\"0\",\"name\":\"loadgen\"}\r\n";
const PUB: &[u8] = b"PUB ";
const PING: &str = "PING\r\n";
const PONG: &str = "PONG\r\n";

/// The frame of one message to a subject.
pub(super) fn message_template(subjects: &TopicTable, payload_bytes: usize) -> FrameTemplate {
    let mut bytes = [PUB, subjects.name(0), format!(" {payload_bytes}\r\n").as_bytes()].concat();
    let payload = bytes.len()..bytes.len() + payload_bytes;
    bytes.resize(payload.end, 0);
    bytes.extend_from_slice(b"\r\n");
    let name = TopicName::of_several(PUB.len(), subjects);
    FrameTemplate::by_name(bytes, payload, name)
}

/// What a subscriber says first.
pub(super) fn subscriber_opening(wish: &Wish<'_>) -> Vec<u8> {
    let mut out = CONNECT.to_owned();
    for (at, filter) in wish.filters.iter().enumerate() {
        out += &format!("SUB {} {}\r\n", subject(filter), at + 1);
    }
    (out + PING).into_bytes()
}

/// What a publisher says first.
pub(super) fn publisher_opening() -> Vec<u8> {
    format!("{CONNECT}{PING}").into_bytes()
}

/// A topic or filter in the words of NATS.
pub(super) fn subject(topic: &str) -> String {
    topic
        .split('/')
        .map(|level| match level {
            "+" => "*",
            "#" => ">",
            level => level,
        })
        .collect::<Vec<_>>()
        .join(".")
}

/// Cuts what a NATS server sends.
#[derive(Debug, Default)]
pub(crate) struct NatsFraming {
    straddle: Straddle,
    /// PONGs: everything said before the PING has been dealt with.
    pub(super) pongs: u64,
    reply: Vec<u8>,
}

impl Framing for NatsFraming {
    #[inline]
    fn on_bytes(
        &mut self,
        bytes: &[u8],
        on_payload: &mut impl FnMut(&[u8]),
    ) -> Result<(), FramingError> {
        let Self { straddle, pongs, reply } = self;
        straddle.feed(bytes, |bytes| {
            let Some((line, begin)) = line(bytes) else { return Ok(None) };
            let Some(rest) = line.strip_prefix(b"MSG ") else {
                on_line(line, pongs, reply)?;
                return Ok(Some(begin));
            };
            let last = rest.rsplit(|byte| *byte == b' ').next();
            let size = last.and_then(number).ok_or_else(|| malformed(line))?;
            let Some(payload) = bytes.get(begin..begin + size) else { return Ok(None) };
            if bytes.len() < begin + size + 2 {
                return Ok(None);
            }
            on_payload(payload);
            Ok(Some(begin + size + 2))
        })
    }

    fn take_reply(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.reply)
    }

    fn come_back(&mut self) -> Vec<u8> {
        self.straddle.clear();
        Vec::new()
    }
}

#[cold]
fn on_line(line: &[u8], pongs: &mut u64, reply: &mut Vec<u8>) -> Result<(), FramingError> {
    match line {
        b"PING" => reply.extend_from_slice(PONG.as_bytes()),
        b"PONG" => *pongs += 1,
        b"+OK" => {}
        line if line.starts_with(b"INFO ") => {}
        line if line.starts_with(b"-ERR") => {
            let text = String::from_utf8_lossy(&line[4..]);
            return Err(FramingError::Refused(text.trim().to_owned()));
        }
        line => return Err(malformed(line)),
    }
    Ok(())
}

fn malformed(line: &[u8]) -> FramingError {
    let shown = &line[..line.len().min(80)];
    FramingError::Malformed(format!("the line {:?}", String::from_utf8_lossy(shown)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payloads(framing: &mut NatsFraming, bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        for bytes in bytes.chunks(piece) {
            framing.on_bytes(bytes, &mut |it| payloads.push(it.to_vec())).expect("NATS");
        }
        payloads
    }

    #[test]
    fn messages_are_cut_wherever_reads_end_and_pings_are_answered() {
        let stream =
            b"INFO {}\r\nPONG\r\nMSG a.b 1 5\r\nhello\r\nPING\r\nMSG a.b 1 inbox 4\r\n\r\n\r\n\r\n";
        for piece in 1..stream.len() {
            let mut framing = NatsFraming::default();
            let got = payloads(&mut framing, stream, piece);
            assert_eq!(got, [&b"hello"[..], b"\r\n\r\n"], "pieces of {piece}");
            assert_eq!((framing.pongs, framing.take_reply()), (1, PONG.as_bytes().to_vec()));
        }
    }

    #[test]
    fn an_error_ends_the_run_in_its_words() {
        let error = NatsFraming::default().on_bytes(b"-ERR 'Slow Consumer'\r\n", &mut |_| {});
        assert_eq!(error, Err(FramingError::Refused("'Slow Consumer'".to_owned())));
    }

    #[test]
    fn a_template_is_one_publish_with_room_for_its_payload() {
        let template = message_template(&TopicTable::new(1, |_| "run.0".to_owned()), 16);
        assert!(
            template.bytes.starts_with(b"PUB run.0 16\r\n") && template.bytes.ends_with(b"\r\n")
        );
        assert_eq!(template.payload.len(), 16);
        assert_eq!(template.payload.end + 2, template.bytes.len());
        let wish = Wish { filters: &["a/+/c", "d/#"], ..Wish::default() };
        let opening = String::from_utf8(subscriber_opening(&wish)).expect("text");
        assert!(opening.ends_with("SUB a.*.c 1\r\nSUB d.> 2\r\nPING\r\n"), "{opening}");
    }
}
