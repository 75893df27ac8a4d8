//! The framing of whichever target is measured. It is chosen once per read, not per message.

use nexusd_wire::{Frame, NodeId};

use super::grpc::GrpcFraming;
use super::mqtt::MqttFraming;
use super::native::{self, NativeFraming};
use super::nats::NatsFraming;
use super::redis::RedisFraming;
use super::zenoh::ZenohFraming;
use super::{Framing, FramingError, FramingTotals};

/// Of one connection.
#[derive(Debug)]
pub(crate) enum TargetFraming {
    /// Of the daemon, the pump and the relay.
    Native(NativeFraming),
    /// Of the daemon over gRPC.
    Grpc(GrpcFraming),
    /// Of NATS.
    Nats(NatsFraming),
    /// Of Redis.
    Redis(RedisFraming),
    /// Of an MQTT broker.
    Mqtt(MqttFraming),
    /// Of a Zenoh router.
    Zenoh(ZenohFraming),
}

/// The same for whichever it is.
macro_rules! whichever {
    ($framing:expr, $it:ident => $does:expr) => {
        match $framing {
            TargetFraming::Native($it) => $does,
            TargetFraming::Grpc($it) => $does,
            TargetFraming::Nats($it) => $does,
            TargetFraming::Redis($it) => $does,
            TargetFraming::Mqtt($it) => $does,
            TargetFraming::Zenoh($it) => $does,
        }
    };
}

impl TargetFraming {
    /// The daemon whose Welcome has come.
    pub(crate) fn node(&self) -> Option<NodeId> {
        match self {
            Self::Native(framing) => framing.node(),
            _ => None,
        }
    }

    /// Whether so many filters of a subscriber have been confirmed.
    pub(crate) fn is_subscribed(&self, filters: u64) -> bool {
        match self {
            Self::Native(framing) => framing.is_subscribed(),
            Self::Grpc(framing) => framing.is_subscribed,
            Self::Nats(framing) => framing.pongs > 0,
            Self::Redis(framing) => framing.confirmed == filters,
            Self::Mqtt(framing) => framing.is_subscribed,
            Self::Zenoh(framing) => framing.is_confirmed(),
        }
    }

    /// What a client says last, so that nothing is kept for it.
    pub(crate) fn farewell(&self) -> Vec<u8> {
        match self {
            Self::Native(_) => native::farewell(),
            _ => Vec::new(),
        }
    }

    /// Like [`NativeFraming::on_frames`], which workloads need that only the daemon has.
    pub(crate) fn on_frames(
        &mut self,
        bytes: &[u8],
        on_frame: &mut impl FnMut(&Frame<'_>) -> Result<(), FramingError>,
    ) -> Result<(), FramingError> {
        match self {
            Self::Native(framing) => framing.on_frames(bytes, on_frame),
            _ => Err(FramingError::Malformed("frames of the daemon are asked for".to_owned())),
        }
    }
}

impl Framing for TargetFraming {
    #[inline]
    fn on_bytes(
        &mut self,
        bytes: &[u8],
        on_payload: &mut impl FnMut(&[u8]),
    ) -> Result<(), FramingError> {
        whichever!(self, it => it.on_bytes(bytes, on_payload))
    }

    #[inline]
    fn credit(&self) -> u64 {
        whichever!(self, it => it.credit())
    }

    #[inline]
    fn on_written(&mut self, bytes: &[u8]) {
        whichever!(self, it => it.on_written(bytes));
    }

    fn take_reply(&mut self) -> Vec<u8> {
        whichever!(self, it => it.take_reply())
    }

    fn come_back(&mut self) -> Vec<u8> {
        whichever!(self, it => it.come_back())
    }

    fn totals(&self) -> FramingTotals {
        whichever!(self, it => it.totals())
    }
}
