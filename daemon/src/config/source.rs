//! Where the value of a setting comes from: what an operator who looks for a fault wants to know first. And which
//! values may be no more than a slip of the pen.

use std::collections::BTreeMap;

use super::Given;
use super::error::Origin;
use super::quantity::digits;

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
pub struct Sources {
    by_name: BTreeMap<&'static str, Source>,
    cautions: Vec<String>,
}

impl Sources {
    /// Of values in the order in which they are applied.
    pub(super) fn of(values: &[Given]) -> Self {
        let source = |given: &Given| match given.origin {
            Origin::Flag(_) => Source::Flag,
            Origin::Variable(_) => Source::Environment,
            Origin::Key { .. } => Source::File,
        };
        let holds = |at: usize| {
            let is_same = |later: &Given| later.setting.name == values[at].setting.name;
            !values[at + 1..].iter().any(is_same)
        };
        Self {
            by_name: values.iter().map(|given| (given.setting.name, source(given))).collect(),
            cautions: (0..values.len())
                .filter(|at| holds(*at))
                .filter_map(|at| caution(&values[at]))
                .collect(),
        }
    }

    /// The value of that setting now comes from where another configuration has it from.
    pub(super) fn take_on(&mut self, name: &'static str, new: &Self) {
        match new.by_name.get(name) {
            Some(source) => drop(self.by_name.insert(name, *source)),
            None => drop(self.by_name.remove(name)),
        }
    }

    /// Where the value of that setting comes from.
    pub fn of_setting(&self, name: &str) -> Source {
        self.by_name.get(name).copied().unwrap_or_default()
    }

    /// Values that hold and may not be what was meant, in a sentence each.
    pub fn cautions(&self) -> &[String] {
        &self.cautions
    }
}

/// Of a time that is usually seconds, but was given as a number below 1,000: it is milliseconds.
fn caution(given: &Given) -> Option<String> {
    let number = digits(&given.value).filter(|number| (1..1_000).contains(number))?;
    given.setting.is_usually_seconds().then(|| {
        format!(
            "{}: \"{number}\" is {number}ms: a number without a unit is in milliseconds; write \
             {number}s for seconds",
            given.origin
        )
    })
}
