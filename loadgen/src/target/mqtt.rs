//! MQTT 3.1.1 at QoS 0.

use super::straddle::Straddle;
use super::{Framing, FramingError, Wish};
use crate::batch::{FrameTemplate, TopicName};
use crate::topic_table::TopicTable;

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGRESP: u8 = 0xD0;
/// A clean session without keep-alive.
const CONNECT_HEAD: [u8; 10] = [0, 4, b'M', b'Q', b'T', b'T', 4, 0x02, 0, 0];

/// The frame of one message to a topic.
pub(super) fn message_template(topics: &TopicTable, payload_bytes: usize) -> FrameTemplate {
    let topic = topics.name(0);
    let mut body = string(topic);
    body.resize(body.len() + payload_bytes, 0);
    let bytes = packet(PUBLISH, &body);
    let payload = bytes.len() - payload_bytes..bytes.len();
    let name = TopicName::of_several(payload.start - topic.len(), topics);
    FrameTemplate::by_name(bytes, payload, name)
}

/// What a subscriber says first.
pub(super) fn subscriber_opening(wish: &Wish<'_>, client: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    for filter in wish.filters {
        body.extend(string(filter.as_bytes()));
        body.push(0);
    }
    [publisher_opening(client), packet(SUBSCRIBE, &body)].concat()
}

/// What a publisher says first.
pub(super) fn publisher_opening(client: &str) -> Vec<u8> {
    packet(CONNECT, &[&CONNECT_HEAD[..], &string(client.as_bytes())].concat())
}

fn string(text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], &text[..length.into()]].concat()
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    let mut rest = body.len();
    loop {
        let digit = (rest % 128) as u8;
        rest /= 128;
        out.push(if rest > 0 { digit | 0x80 } else { digit });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// Cuts what an MQTT broker sends.
#[derive(Debug, Default)]
pub(crate) struct MqttFraming {
    straddle: Straddle,
    /// Whether CONNECT, and SUBSCRIBE, were confirmed.
    pub(super) is_connected: bool,
    pub(super) is_subscribed: bool,
}

impl Framing for MqttFraming {
    #[inline]
    fn on_bytes(
        &mut self,
        bytes: &[u8],
        on_payload: &mut impl FnMut(&[u8]),
    ) -> Result<(), FramingError> {
        let Self { straddle, is_connected, is_subscribed } = self;
        straddle.feed(bytes, |bytes| {
            let Some((begin, length)) = extent(bytes)? else { return Ok(None) };
            let Some(body) = bytes.get(begin..begin + length) else { return Ok(None) };
            match bytes[0] {
                // Duplicate, retain and QoS are none of a subscriber's who asked for QoS 0.
                kind if kind & 0xF0 == PUBLISH && kind & 0x06 == 0 => {
                    let topic = body.first_chunk().map(|length| u16::from_be_bytes(*length));
                    let payload = topic.and_then(|topic| body.get(2 + usize::from(topic)..));
                    on_payload(payload.ok_or_else(|| malformed(bytes[0]))?);
                }
                CONNACK if body.get(1) == Some(&0) => *is_connected = true,
                SUBACK if body.len() > 2 && body[2..].iter().all(|code| *code == 0) => {
                    *is_subscribed = true;
                }
                CONNACK | SUBACK => {
                    return Err(FramingError::Refused(format!("return codes {body:?}")));
                }
                PINGRESP => {}
                kind => return Err(malformed(kind)),
            }
            Ok(Some(begin + length))
        })
    }

    fn come_back(&mut self) -> Vec<u8> {
        self.straddle.clear();
        Vec::new()
    }
}

/// Where a packet's body begins and how long it is; `None` if that has not come.
#[inline]
fn extent(bytes: &[u8]) -> Result<Option<(usize, usize)>, FramingError> {
    let mut length = 0;
    for at in 0..4 {
        let Some(&byte) = bytes.get(1 + at) else { return Ok(None) };
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((2 + at, length)));
        }
    }
    Err(FramingError::Malformed("a packet whose length has five bytes".to_owned()))
}

fn malformed(kind: u8) -> FramingError {
    FramingError::Malformed(format!("a packet that begins with {kind:#04x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_wherever_reads_end() {
        let long = [7; 300];
        let stream = [
            packet(CONNACK, &[0, 0]),
            packet(SUBACK, &[0, 1, 0]),
            packet(PUBLISH, &[string(b"a/b"), b"hello".to_vec()].concat()),
            packet(PUBLISH, &[string(b"a/b"), long.to_vec()].concat()),
        ]
        .concat();
        for piece in 1..stream.len() {
            let (mut framing, mut got) = (MqttFraming::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                framing.on_bytes(bytes, &mut |it| got.push(it.to_vec())).expect("MQTT");
            }
            assert_eq!(got, [&b"hello"[..], &long], "pieces of {piece}");
            assert!(framing.is_connected && framing.is_subscribed);
        }
    }

    #[test]
    fn a_refusal_ends_the_run() {
        let error = MqttFraming::default().on_bytes(&packet(CONNACK, &[0, 5]), &mut |_| {});
        assert!(matches!(error, Err(FramingError::Refused(_))), "{error:?}");
    }

    #[test]
    fn a_template_is_one_publish_with_room_for_its_payload() {
        for size in [16, 128, 16_384] {
            let template = message_template(&TopicTable::new(1, |_| "run/0".to_owned()), size);
            let (begin, length) = extent(&template.bytes).expect("valid").expect("whole");
            assert_eq!(begin + length, template.bytes.len());
            assert_eq!(template.payload, template.bytes.len() - size..template.bytes.len());
        }
    }
}
