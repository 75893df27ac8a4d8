//! What happened, line by line, for people who look into one seed.

/// Collects lines if anybody wants them.
#[derive(Debug, Default)]
pub struct Trace {
    wanted: bool,
    lines: Vec<String>,
}

impl Trace {
    /// A trace that keeps lines only if `wanted`.
    pub fn new(wanted: bool) -> Self {
        Self { wanted, lines: Vec::new() }
    }

    /// Whether lines are kept; callers format nothing otherwise.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Keeps a line.
    pub fn push(&mut self, line: String) {
        self.lines.push(line);
    }

    /// The lines, oldest first.
    pub fn into_lines(self) -> Vec<String> {
        self.lines
    }
}

/// Adds a line to a trace, formatted only if wanted.
macro_rules! trace {
    ($trace:expr, $($what:tt)+) => {
        if $trace.is_wanted() {
            $trace.push(format!($($what)+));
        }
    };
}
pub(crate) use trace;
