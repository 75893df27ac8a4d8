//! The identifiers that travel in frames. Newtypes, so that no two of them can be swapped.

use std::fmt;

use crate::control;

/// A topic, within the space that gave the id: the publisher's connection for frames a client
/// sends, the daemon for frames it delivers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicId(pub u32);

/// The number of a message within its topic, from 1, dense. 0 means "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Sequence(pub u64);

/// A daemon: 128 bits, new at each start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u128);

/// A subscription: 128 random bits, so that ids of an earlier daemon start never match.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SubscriptionId(pub u128);

macro_rules! wide_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), self.0)
            }
        }
        impl From<&control::$name> for $name {
            fn from(id: &control::$name) -> Self {
                Self((u128::from(id.high()) << 64) | u128::from(id.low()))
            }
        }
        impl From<$name> for control::$name {
            fn from(id: $name) -> Self {
                control::$name::new((id.0 >> 64) as u64, id.0 as u64)
            }
        }
    };
}
wide_id!(NodeId);
wide_id!(SubscriptionId);
