//! Where answers go: as tables or as JSON, in colours only where somebody sees them.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::error::CliError;
use crate::format::{document as safe, printable};

/// The standard output, and how it is written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Console {
    is_json: bool,
    is_terminal: bool,
    is_coloured: bool,
}

impl Console {
    /// The one of this process.
    pub(crate) fn new(is_json: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_coloured = is_terminal && !is_dumb && !is_set("NO_COLOR");
        Self { is_json, is_terminal, is_coloured }
    }

    /// One that is no terminal.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { is_json: false, is_terminal: false, is_coloured: false }
    }

    /// The same for a command of its own.
    pub(crate) fn with_json(self, is_json: bool) -> Self {
        Self { is_json: self.is_json || is_json, ..self }
    }

    pub(crate) fn is_json(self) -> bool {
        self.is_json
    }

    pub(crate) fn is_coloured(self) -> bool {
        self.is_coloured
    }

    pub(crate) fn is_terminal(self) -> bool {
        self.is_terminal
    }

    /// The columns of the terminal; `None` if it is none.
    pub(crate) fn width(self) -> Option<u16> {
        let (width, _) = self.is_terminal.then(crossterm::terminal::size)?.ok()?;
        (width > 0).then_some(width)
    }

    /// Shows an answer: the document itself, or what `text` makes of it.
    pub(crate) fn show(
        self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.is_json {
            self.line(&safe(serde_json::to_string_pretty(document).map_err(io::Error::from)?))
        } else {
            self.line(&text())
        }
    }

    /// Shows one of many: a document on a line, or what `text` makes of it.
    pub(crate) fn show_next(
        self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.is_json {
            self.line(&safe(serde_json::to_string(document).map_err(io::Error::from)?))
        } else {
            self.line(&text())
        }
    }

    /// Writes a line, at once.
    pub(crate) fn line(self, text: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()?;
        Ok(())
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.styled("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.styled("2", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.styled("33", text)
    }

    /// A text of whomever, on one line.
    fn styled(self, style: &str, text: &str) -> String {
        let text = printable(text);
        if self.is_coloured { format!("\x1b[{style}m{text}\x1b[0m") } else { text.into_owned() }
    }
}

/// Tells an error, on stderr.
pub(crate) fn tell(error: &CliError) {
    note(&format!("error: {error}"));
}

/// Says something that is no answer, on stderr.
pub(crate) fn note(text: &str) {
    // Daemons have their say in it. Nothing is left to be done where stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{}", printable(text));
}
