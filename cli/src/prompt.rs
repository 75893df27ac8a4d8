//! The prompt: a line, its answer, the next line; with history and completion. Where lines do not come
//! from a terminal they are read as they are, so that a file of commands is a script.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use ratatui::crossterm::terminal::disable_raw_mode;
use reedline::{
    ColumnarMenu, Emacs, FileBackedHistory, KeyCode, KeyModifiers, MenuBuilder as _, Prompt,
    PromptEditMode, PromptHistorySearch, Reedline, ReedlineEvent, ReedlineMenu, Signal,
    default_emacs_keybindings,
};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::{Action, Options, parse, prompt_command};
use crate::completion::{Completions, Here};
use crate::console;
use crate::error::CliError;
use crate::session::{Next, Session};

/// Lines that the history keeps.
const HISTORY_LINES: usize = 1_000;
const COMPLETIONS: &str = "completions";

/// Reads and carries out commands until the end.
pub(crate) fn run(options: Options, runtime: &Runtime) -> Result<ExitCode, CliError> {
    let mut session = Session::new(options, true)?;
    runtime.block_on(session.turn_to_index())?;
    if io::stdin().is_terminal() && session.console().is_terminal() {
        interactive(session, runtime)
    } else {
        script(session, runtime)
    }
}

fn interactive(mut session: Session, runtime: &Runtime) -> Result<ExitCode, CliError> {
    end_with_the_terminal(runtime)?;
    session.console().line("NexusD. HELP lists commands, Tab completes them, QUIT ends.")?;
    let here = Here::default();
    let mut editor =
        editor(session.console().is_coloured(), Completions::new(here.clone(), runtime));
    if let Some(target) = session.target() {
        // Whoever is not there may come.
        carry_out(&["CONNECT".to_owned(), target.to_string()], &mut session, runtime);
    }
    loop {
        here.set(session.connected().cloned());
        let prompt = Line(match session.target() {
            Some(target) => format!("nexusd {target}> "),
            None => "nexusd (not connected)> ".to_owned(),
        });
        match editor.read_line(&prompt)? {
            Signal::Success(line) => match words(&line) {
                Some(words) => {
                    if let Outcome::Quit = carry_out(&words, &mut session, runtime) {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                None => console::tell(&unclosed()),
            },
            Signal::CtrlC => {}
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Ends the program when its terminal has gone, and when it is told to. The editor would read from a terminal that
/// is no more for ever; and the first command that catches these signals keeps them from ending the program.
fn end_with_the_terminal(runtime: &Runtime) -> Result<(), CliError> {
    // Signals are caught where a runtime is.
    let _guard = runtime.enter();
    let (mut hung_up, mut terminated) =
        (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
    runtime.spawn(async move {
        let number = tokio::select! {
            _ = hung_up.recv() => SignalKind::hangup().as_raw_value(),
            _ = terminated.recv() => SignalKind::terminate().as_raw_value(),
        };
        // Where the terminal has gone there is nothing to give back.
        let _ = disable_raw_mode();
        std::process::exit(128 + number);
    });
    Ok(())
}

/// Fails if one of the commands did, and goes on behind it.
fn script(mut session: Session, runtime: &Runtime) -> Result<ExitCode, CliError> {
    let mut code = ExitCode::SUCCESS;
    for line in io::stdin().lines() {
        let line = line?;
        if line.trim_start().starts_with('#') {
            continue;
        }
        let outcome = match words(&line) {
            Some(words) => carry_out(&words, &mut session, runtime),
            None => {
                console::tell(&unclosed());
                Outcome::Failed
            }
        };
        match outcome {
            Outcome::Done => {}
            Outcome::Failed => code = ExitCode::FAILURE,
            Outcome::Quit => break,
        }
    }
    Ok(code)
}

/// What became of a line.
enum Outcome {
    Done,
    Failed,
    Quit,
}

/// Carries a line out, and tells its errors.
fn carry_out(words: &[String], session: &mut Session, runtime: &Runtime) -> Outcome {
    if words.is_empty() {
        return Outcome::Done;
    }
    let invocation = match parse(prompt_command(), words.to_vec()) {
        Ok(invocation) => invocation,
        Err(error) => {
            // Also help, which is no failure.
            let _ = error.print();
            return if error.use_stderr() { Outcome::Failed } else { Outcome::Done };
        }
    };
    let Some(action) = invocation.command else {
        return Outcome::Done;
    };
    match runtime.block_on(interruptible(session, action, &invocation.options)) {
        Ok(Next::Go) => Outcome::Done,
        Ok(Next::Quit) => Outcome::Quit,
        Err(error) if error.is_closed_output() => Outcome::Quit,
        Err(error) => {
            console::tell(&error);
            Outcome::Failed
        }
    }
}

/// Ctrl-C ends the command, not the prompt.
async fn interruptible(
    session: &mut Session,
    action: Action,
    options: &Options,
) -> Result<Next, CliError> {
    tokio::select! {
        // A stream that Ctrl-C ends says its farewell first.
        biased;
        next = session.run(action, options) => next,
        stopped = tokio::signal::ctrl_c() => {
            stopped?;
            Ok(Next::Go)
        }
    }
}

/// The words of a line, as a shell takes it apart: quotes hold words together, a backslash takes a character
/// as it is. `#` is a filter and begins no remark. `None` if a quote is not closed.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                // Quotes around nothing are an empty word.
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(characters.next()?),
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    // A line that begins with the program's name was written for a shell.
    if words.first().is_some_and(|word| word == "nexusd-cli") {
        words.remove(0);
    }
    quote.is_none().then_some(words)
}

fn unclosed() -> CliError {
    io::Error::new(io::ErrorKind::InvalidInput, "a quote is not closed").into()
}

fn editor(is_coloured: bool, completions: Completions) -> Reedline {
    let mut keys = default_emacs_keybindings();
    let complete = ReedlineEvent::UntilFound(vec![
        ReedlineEvent::Menu(COMPLETIONS.to_owned()),
        ReedlineEvent::MenuNext,
    ]);
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
    keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
    let menu = ColumnarMenu::default().with_name(COMPLETIONS).with_marker("");
    let editor = Reedline::create()
        .with_ansi_colors(is_coloured)
        .with_completer(Box::new(completions))
        .with_quick_completions(true)
        .with_partial_completions(true)
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_edit_mode(Box::new(Emacs::new(keys)));
    // Without a place to keep it, the history is that of this prompt alone.
    match history_file().and_then(|file| FileBackedHistory::with_file(HISTORY_LINES, file).ok()) {
        Some(history) => editor.with_history(Box::new(history)),
        None => editor,
    }
}

/// Where states of programs are kept, as the XDG base directories say.
fn history_file() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = named("XDG_STATE_HOME").or_else(|| Some(named("HOME")?.join(".local/state")))?;
    Some(folder.join("nexusd").join("cli_history"))
}

/// What stands before the cursor.
struct Line(String);

impl Prompt for Line {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.0)
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Owned(format!("(history: {}) ", search.term))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart_as_a_shell_does() {
        let taken = words(r#"nexusd-cli PUBLISH t 'two  words' "" a\ b"c d""#).expect("closed");
        assert_eq!(taken, ["PUBLISH", "t", "two  words", "", "a bc d"]);
        assert_eq!(words(r#"'a\b' "a\"b""#).expect("closed"), [r"a\b", "a\"b"]);
        assert_eq!(words("  "), Some(Vec::new()));
        for open in ["PUBLISH t 'two", "\"", "a\\"] {
            assert_eq!(words(open), None, "{open}");
        }
    }

    #[test]
    fn a_filter_is_no_remark() {
        assert_eq!(words("SUBSCRIBE # $SYS/#").expect("closed"), ["SUBSCRIBE", "#", "$SYS/#"]);
    }
}
