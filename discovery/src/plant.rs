//! Bugs that can be planted in discovery, to prove that the simulator finds them.
//!
//! As in the data plane: each [`Plant`] names one mistake at one place, which asks `is_planted`; without
//! the feature `plant` that is the constant `false`. With it, at most one plant is active per thread. Never
//! compiled into a daemon.

macro_rules! plants {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// One deliberate mistake.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Plant {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Plant {
            /// Every plant.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The plant of this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|plant| plant.name() == name)
            }

            /// Its name on a command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

plants! {
    /// An earlier start takes the place of a later one.
    StaleStartAccepted = "stale-start-accepted",
    /// What is stored of one peer is noted at another one.
    StoredAtAnother = "stored-at-another",
    /// A peer that was suspected stays so.
    SuspectedForEver = "suspected-for-ever",
    /// A change of interest is told to all peers but one, and beacons that tell of it are passed over.
    DeltaNotTold = "delta-not-told",
    /// A link that broke is not dialled again.
    NeverRedialled = "never-redialled",
    /// A filter that two subscriptions want is not wanted any more once one of them ends.
    InterestMiscounted = "interest-miscounted",
    /// A node that is new is not sent what this one wants.
    StateNeverSent = "state-never-sent",
    /// Members that peers tell of are passed over, and beacons of nodes without a link too.
    StrangersIgnored = "strangers-ignored",
}

/// Whether `plant` is active on this thread.
#[cfg(not(feature = "plant"))]
#[inline(always)]
pub(crate) const fn is_planted(_plant: Plant) -> bool {
    false
}

#[cfg(feature = "plant")]
pub(crate) use active::is_planted;
#[cfg(feature = "plant")]
pub use active::plant;

#[cfg(feature = "plant")]
mod active {
    use std::cell::Cell;

    use super::Plant;

    thread_local! {
        static ACTIVE: Cell<Option<Plant>> = const { Cell::new(None) };
    }

    /// Makes `plant` the one that is active on this thread; `None` plants nothing.
    pub fn plant(plant: Option<Plant>) {
        ACTIVE.set(plant);
    }

    #[inline]
    pub(crate) fn is_planted(plant: Plant) -> bool {
        ACTIVE.get() == Some(plant)
    }
}
