//! Redis pub/sub in RESP2. A publisher turns replies off; a subscriber is confirmed by the answer to each of
//! its subscriptions.

use super::straddle::{Straddle, line, number};
use super::{Framing, FramingError, Wish};
use crate::batch::{FrameTemplate, TopicName};
use crate::topic_table::TopicTable;

/// The frame of one message to a channel.
pub(super) fn message_template(channels: &TopicTable, payload_bytes: usize) -> FrameTemplate {
    let channel = channels.name(0);
    let head = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n", channel.len());
    let name = TopicName::of_several(head.len(), channels);
    let length = format!("\r\n${payload_bytes}\r\n");
    let mut bytes = [head.as_bytes(), channel, length.as_bytes()].concat();
    let payload = bytes.len()..bytes.len() + payload_bytes;
    bytes.resize(payload.end, 0);
    bytes.extend_from_slice(b"\r\n");
    FrameTemplate::by_name(bytes, payload, name)
}

/// What a subscriber says first. A pattern's `*` does not stop at a level; where our filters match no deeper
/// topics, that makes no difference.
pub(super) fn subscriber_opening(wish: &Wish<'_>) -> Vec<u8> {
    let mut out = String::new();
    for filter in wish.filters {
        let is_pattern = filter.contains(['+', '#']);
        let verb = if is_pattern { "$10\r\nPSUBSCRIBE" } else { "$9\r\nSUBSCRIBE" };
        let filter = filter.replace(['+', '#'], "*");
        out += &format!("*2\r\n{verb}\r\n${}\r\n{filter}\r\n", filter.len());
    }
    out.into_bytes()
}

/// What a publisher says first: the PING is answered, and nothing behind it.
pub(super) fn publisher_opening() -> Vec<u8> {
    b"*1\r\n$4\r\nPING\r\n*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n".to_vec()
}

/// Cuts what a Redis server sends.
#[derive(Debug, Default)]
pub(crate) struct RedisFraming {
    straddle: Straddle,
    /// Subscriptions that were confirmed, or PONGs.
    pub(super) confirmed: u64,
}

impl Framing for RedisFraming {
    #[inline]
    fn on_bytes(
        &mut self,
        bytes: &[u8],
        on_payload: &mut impl FnMut(&[u8]),
    ) -> Result<(), FramingError> {
        let Self { straddle, confirmed } = self;
        straddle.feed(bytes, |bytes| {
            let Some((first, mut at)) = line(bytes) else { return Ok(None) };
            match first.first() {
                Some(b'*') => {}
                Some(b'-') => {
                    let text = String::from_utf8_lossy(&first[1..]).into_owned();
                    return Err(FramingError::Refused(text));
                }
                Some(b'+') => {
                    *confirmed += 1;
                    return Ok(Some(at));
                }
                _ => return Err(malformed(first)),
            }
            let parts = number(&first[1..]).filter(|parts| matches!(parts, 3 | 4));
            let parts = parts.ok_or_else(|| malformed(first))?;
            let Some(kind) = bulk(bytes, &mut at)? else { return Ok(None) };
            let Some(_channel_or_pattern) = bulk(bytes, &mut at)? else { return Ok(None) };
            match (kind, parts) {
                (b"message", 3) | (b"pmessage", 4) => {
                    if parts == 4 && bulk(bytes, &mut at)?.is_none() {
                        return Ok(None);
                    }
                    let Some(payload) = bulk(bytes, &mut at)? else { return Ok(None) };
                    on_payload(payload);
                }
                (b"subscribe" | b"psubscribe", 3) => {
                    let Some((_count, length)) = line(&bytes[at..]) else { return Ok(None) };
                    at += length;
                    *confirmed += 1;
                }
                _ => return Err(malformed(kind)),
            }
            Ok(Some(at))
        })
    }

    fn come_back(&mut self) -> Vec<u8> {
        self.straddle.clear();
        Vec::new()
    }
}

/// The string of a named length at `at`, which moves behind it; `None` if its end has not come.
#[inline]
fn bulk<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, FramingError> {
    let Some((head, length)) = line(&bytes[*at..]) else { return Ok(None) };
    let size = head.strip_prefix(b"$").and_then(number).ok_or_else(|| malformed(head))?;
    let begin = *at + length;
    if bytes.len() < begin + size + 2 {
        return Ok(None);
    }
    *at = begin + size + 2;
    Ok(Some(&bytes[begin..begin + size]))
}

fn malformed(bytes: &[u8]) -> FramingError {
    let shown = &bytes[..bytes.len().min(80)];
    FramingError::Malformed(format!("the answer {:?}", String::from_utf8_lossy(shown)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_confirmations_are_cut_wherever_reads_end() {
        let stream = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n\
            *3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\nhello\r\n\
            *4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n$2\r\n\r\n\r\n";
        for piece in 1..stream.len() {
            let (mut framing, mut got) = (RedisFraming::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                framing.on_bytes(bytes, &mut |it| got.push(it.to_vec())).expect("RESP");
            }
            assert_eq!(got, [&b"hello"[..], b"\r\n"], "pieces of {piece}");
            assert_eq!(framing.confirmed, 1);
        }
    }

    #[test]
    fn an_error_ends_the_run_in_its_words() {
        let error = RedisFraming::default().on_bytes(b"-ERR no\r\n", &mut |_| {});
        assert_eq!(error, Err(FramingError::Refused("ERR no".to_owned())));
    }

    #[test]
    fn a_template_is_one_publish_with_room_for_its_payload() {
        let template = message_template(&TopicTable::new(1, |_| "run/0".to_owned()), 16);
        assert!(template.bytes.starts_with(b"*3\r\n$7\r\nPUBLISH\r\n$5\r\nrun/0\r\n$16\r\n"));
        assert_eq!(template.payload.end + 2, template.bytes.len());
    }
}
