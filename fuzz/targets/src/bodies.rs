//! Control bodies and metadata, verified and read to the last field.

use std::fmt::{self, Debug, Write};

use nexusd_wire::control;
use nexusd_wire::{
    Cut, DecodeError, Frame, FrameCutter, FrameEncoder, FrameKind, Header, Metadata, aligned,
};

use crate::input::Input;

/// Takes any bytes as the body of any control frame, at any alignment in memory.
///
/// Bytes: kind (an index), offset in memory, the body.
pub fn bodies(data: &[u8]) {
    let mut input = Input(data);
    let kind = FrameKind::ENUM_VALUES[usize::from(input.byte()) % FrameKind::ENUM_VALUES.len()];
    let offset = usize::from(input.byte() % 16);
    let body = input.0;
    let mut memory = vec![0xAA; offset];
    FrameEncoder::bare(&mut memory, &Header::new(kind, 0, body.len()));
    memory.extend_from_slice(body);
    let padding = aligned(body.len()) - body.len();
    memory.resize(memory.len() + padding, 0);

    let mut cutter = FrameCutter::new(u32::MAX, u32::MAX, usize::MAX);
    let mut stream = &memory[offset..];
    let Ok(Cut::Frame(frame)) = cutter.next(&mut stream) else {
        panic!("a whole frame was given");
    };
    assert_eq!(frame.payload(), body);
    if let Err(error) = read_body(&frame) {
        assert_eq!(error.at(), 0);
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

/// Takes any bytes as metadata.
///
/// Bytes: offset in memory, the metadata.
pub fn metadata(data: &[u8]) {
    let mut input = Input(data);
    let offset = usize::from(input.byte() % 16);
    let mut memory = vec![0xAA; offset];
    memory.extend_from_slice(input.0);
    let _ = Metadata::decode(&memory[offset..]).map(|metadata| read_metadata(&metadata));
}

pub(crate) fn read_metadata(metadata: &Metadata<'_>) {
    read(metadata);
    let _ = (metadata.content_type(), metadata.correlation_id());
    let _ = (metadata.trace_parent(), metadata.trace_state());
    for (key, value) in metadata.headers() {
        read(&(key, value));
    }
}

/// Verifies the frame's body and metadata and reads every field.
pub(crate) fn read_body(frame: &Frame<'_>) -> Result<(), DecodeError> {
    match frame.kind() {
        FrameKind::Hello => read(&frame.body::<control::Hello<'_>>()?),
        FrameKind::Welcome => read(&frame.body::<control::Welcome<'_>>()?),
        FrameKind::Goodbye => read(&frame.body::<control::Goodbye<'_>>()?),
        FrameKind::Error => read(&frame.body::<control::Error<'_>>()?),
        FrameKind::TopicBind => read(&frame.body::<control::TopicBind<'_>>()?),
        FrameKind::NodeBind => read(&frame.body::<control::NodeBind<'_>>()?),
        FrameKind::PublishAck => read(&frame.body::<control::PublishAck<'_>>()?),
        FrameKind::Subscribe => read(&frame.body::<control::Subscribe<'_>>()?),
        FrameKind::SubscriptionInfo => read(&frame.body::<control::SubscriptionInfo<'_>>()?),
        FrameKind::Unsubscribe => read(&frame.body::<control::Unsubscribe<'_>>()?),
        FrameKind::UnsubscribeResult => read(&frame.body::<control::UnsubscribeResult<'_>>()?),
        FrameKind::Resume => read(&frame.body::<control::Resume<'_>>()?),
        FrameKind::ReplayComplete => read(&frame.body::<control::ReplayComplete<'_>>()?),
        FrameKind::Deliver => read(&frame.body::<control::Deliver<'_>>()?),
        FrameKind::Gap => read(&frame.body::<control::Gap<'_>>()?),
        FrameKind::BackpressureWarning => read(&frame.body::<control::BackpressureWarning<'_>>()?),
        FrameKind::StreamAck => read(&frame.body::<control::StreamAck<'_>>()?),
        FrameKind::Ack => read(&frame.body::<control::Ack<'_>>()?),
        FrameKind::Nack => read(&frame.body::<control::Nack<'_>>()?),
        FrameKind::NodeState => read(&frame.body::<control::NodeState<'_>>()?),
        FrameKind::InterestDelta => read(&frame.body::<control::InterestDelta<'_>>()?),
        FrameKind::LinkAck => read(&frame.body::<control::LinkAck<'_>>()?),
        FrameKind::Message | FrameKind::Request | FrameKind::Reply => {
            if let Some(metadata) = frame.metadata()? {
                read_metadata(&metadata);
            }
        }
        // The rest are headers alone.
        _ => {}
    }
    Ok(())
}

/// Reads every field of a generated view by writing it to nowhere.
fn read(view: &impl Debug) {
    struct Nowhere;
    impl Write for Nowhere {
        fn write_str(&mut self, _: &str) -> fmt::Result {
            Ok(())
        }
    }
    let _ = write!(Nowhere, "{view:?}");
}
