//! Where the value of a setting comes from: what an operator who looks for a fault wants to know first.

use std::collections::BTreeMap;

use super::Given;
use super::error::Origin;

/// Where a value comes from, weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Source {
    /// The default, as the profile has it.
    #[default]
    Default,
    /// The configuration file.
    File,
    /// A variable.
    Environment,
    /// The command line.
    Flag,
}

impl Source {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        }
    }
}

/// Where the values that are no defaults come from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sources(BTreeMap<&'static str, Source>);

impl Sources {
    /// Of values in the order in which they are applied.
    pub(super) fn of(values: &[Given]) -> Self {
        let source = |given: &Given| match given.origin {
            Origin::Flag(_) => Source::Flag,
            Origin::Variable(_) => Source::Environment,
            Origin::Key { .. } => Source::File,
        };
        Self(values.iter().map(|given| (given.setting.name, source(given))).collect())
    }

    /// The value of that setting now comes from where another configuration has it from.
    pub(super) fn take_on(&mut self, name: &'static str, new: &Self) {
        match new.0.get(name) {
            Some(source) => drop(self.0.insert(name, *source)),
            None => drop(self.0.remove(name)),
        }
    }

    /// Where the value of that setting comes from.
    pub fn of_setting(&self, name: &str) -> Source {
        self.0.get(name).copied().unwrap_or_default()
    }
}
