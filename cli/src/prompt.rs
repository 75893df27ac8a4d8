//! The prompt: a line, its answer, the next line; with history and completion. Where lines do not come
//! from a terminal they are read as they are, so that a file of commands is a script.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use ratatui::crossterm::terminal::disable_raw_mode;
use reedline::{
    ColumnarMenu, Emacs, FileBackedHistory, KeyCode, KeyModifiers, MenuBuilder as _, Prompt,
    PromptEditMode, PromptHistorySearch, Reedline, ReedlineEvent, ReedlineMenu, Signal,
    default_emacs_keybindings,
};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::arguments::{Options, parse, prompt_command};
use crate::completion::{Completions, Here};
use crate::console;
use crate::error::CliError;
use crate::input::next_line;
use crate::session::{Next, Session, Source};
use crate::stops::{Signals, Stop, Stops};

/// Lines that the history keeps.
const HISTORY_LINES: usize = 1_000;
const COMPLETIONS: &str = "completions";
/// A line may begin with it.
const PROGRAM: &str = "nexusd-cli";

/// Reads and carries out commands until the end.
pub(crate) fn run(options: Options, runtime: &Runtime) -> Result<ExitCode, CliError> {
    let is_typed = io::stdin().is_terminal() && io::stdout().is_terminal();
    let source = if is_typed { Source::Prompt } else { Source::Script };
    let mut session = Session::new(options, source)?;
    runtime.block_on(session.turn_to_index())?;
    // Signals are caught where a runtime is.
    let _guard = runtime.enter();
    match source {
        Source::Script => script(session, runtime),
        _ => interactive(session, runtime),
    }
}

fn interactive(mut session: Session, runtime: &Runtime) -> Result<ExitCode, CliError> {
    let mut stops = Stops::new()?;
    session.console().line("NexusD. HELP lists commands, Tab completes them, QUIT ends.")?;
    let here = Here::default();
    let mut editor =
        editor(session.console().is_coloured(), Completions::new(here.clone(), runtime));
    if let Some(target) = session.target() {
        // Whoever is not there may come.
        carry_out(&["CONNECT".to_owned(), target.to_string()], &mut session, runtime, &stops);
    }
    loop {
        here.set(session.connected().cloned());
        let prompt = Line(match session.target() {
            Some(target) => format!("nexusd {target}> "),
            None => "nexusd (not connected)> ".to_owned(),
        });
        let idle = end_with_the_terminal(runtime)?;
        if let Some(stop) = ends_all(&stops) {
            return Ok(stop);
        }
        // A signal to the last command is none to the editor, which has the terminal now.
        drop(stops);
        let read = editor.read_line(&prompt);
        // The terminal may go at any time. Where the history cannot be kept there is still the one in memory.
        let _ = editor.sync_history();
        stops = Stops::new()?;
        idle.abort();
        match read? {
            Signal::Success(line) => match words(&line) {
                Some(words) => {
                    if let Outcome::Quit = carry_out(&words, &mut session, runtime, &stops) {
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

/// Ends the program when its terminal has gone, and when it is told to, while a line is typed: the editor would read
/// from a terminal that is no more for ever, and the first command that catches these signals keeps them from ending
/// the program.
fn end_with_the_terminal(runtime: &Runtime) -> Result<JoinHandle<()>, CliError> {
    let mut signals = Signals::new()?;
    Ok(runtime.spawn(async move {
        loop {
            let stop = signals.next().await;
            // The editor takes Ctrl-C as a key.
            if stop != Stop::Interrupt {
                // Where the terminal has gone there is nothing to give back.
                let _ = disable_raw_mode();
                std::process::exit(stop.exit_code().into());
            }
        }
    }))
}

/// What the prompt ends with if it was told to; Ctrl-C ends the command alone.
fn ends_all(stops: &Stops) -> Option<ExitCode> {
    let stop = stops.first().filter(|stop| *stop != Stop::Interrupt)?;
    Some(ExitCode::from(stop.exit_code()))
}

/// Fails if one of the commands did, and goes on behind it; a signal ends it.
fn script(mut session: Session, runtime: &Runtime) -> Result<ExitCode, CliError> {
    let stops = Stops::new()?;
    let mut code = ExitCode::SUCCESS;
    let mut number = 0u64;
    while let Some(line) = runtime.block_on(stops.unless_stopped(next_line())) {
        let Some(line) = line? else { break };
        number += 1;
        let outcome = script_line(&line, &mut session, runtime, &stops);
        if stops.first().is_some() {
            break;
        }
        match outcome {
            Outcome::Done => {}
            Outcome::Failed => {
                console::note(&format!("  in line {number}"));
                code = ExitCode::FAILURE;
            }
            Outcome::Quit => break,
        }
    }
    Ok(stops.first().map_or(code, |stop| ExitCode::from(stop.exit_code())))
}

fn script_line(line: &[u8], session: &mut Session, runtime: &Runtime, stops: &Stops) -> Outcome {
    let outcome = match std::str::from_utf8(line) {
        Ok(line) if line.trim_start().starts_with('#') => return Outcome::Done,
        Ok(line) => match words(line) {
            Some(words) => return carry_out(&words, session, runtime, stops),
            None => failed(&unclosed()),
        },
        Err(_) => failed(&CliError::NoText),
    };
    // Whom it names cannot be known, so what follows is not for the daemon before.
    if is_connect(String::from_utf8_lossy(line).split_whitespace()) {
        session.leave();
    }
    outcome
}

fn is_connect<'a>(words: impl IntoIterator<Item = &'a str>) -> bool {
    let mut words = words.into_iter().skip_while(|word| *word == PROGRAM || word.starts_with('-'));
    words.next().is_some_and(|word| word.eq_ignore_ascii_case("connect"))
}

/// What became of a line.
enum Outcome {
    Done,
    Failed,
    Quit,
}

fn failed(error: &CliError) -> Outcome {
    console::tell(error);
    Outcome::Failed
}

/// Carries a line out, and tells its errors.
fn carry_out(words: &[String], session: &mut Session, runtime: &Runtime, stops: &Stops) -> Outcome {
    if words.is_empty() {
        return Outcome::Done;
    }
    let invocation = match parse(prompt_command(), words.to_vec()) {
        Ok(invocation) => invocation,
        Err(error) => {
            // Also help, which is no failure.
            print_usage(&error);
            if !error.use_stderr() {
                return Outcome::Done;
            }
            if session.source() == Source::Script && is_connect(words.iter().map(String::as_str)) {
                session.leave();
            }
            return Outcome::Failed;
        }
    };
    let Some(action) = invocation.command else {
        return Outcome::Done;
    };
    match runtime.block_on(session.run(action, &invocation.options, stops)) {
        Ok(Next::Go) => Outcome::Done,
        Ok(Next::Quit) => Outcome::Quit,
        Err(error) if error.is_closed_output() => Outcome::Quit,
        Err(error) => failed(&error),
    }
}

/// Says how a command is written: the prompt has no program's name, which clap leaves a space for.
fn print_usage(error: &clap::Error) {
    let text = error.render().to_string();
    let text = text
        .replace("Usage:  ", "Usage: ")
        .replace("Usage: [OPTIONS] [COMMAND]", "Usage: COMMAND [OPTIONS]");
    let text = text.replace("For more information, try '--help'.", "HELP lists the commands.");
    // Who cannot see it is not there.
    let _ = match error.use_stderr() {
        true => io::stderr().write_all(text.as_bytes()),
        false => io::stdout().write_all(text.as_bytes()),
    };
}

/// The words of a line, as a shell takes it apart: quotes hold words together, a backslash takes a character
/// as it is, within double quotes only a quote or a backslash. `#` is a filter and begins no remark. `None` if a quote is not closed.
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
            (None, '\\') => word.get_or_insert_default().push(characters.next()?),
            (Some('"'), '\\') => {
                let (next, word) = (characters.next()?, word.get_or_insert_default());
                // Of all others it is a character like any other.
                if !matches!(next, '"' | '\\') {
                    word.push(character);
                }
                word.push(next);
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    // A line that begins with the program's name was written for a shell.
    if words.first().is_some_and(|word| word == PROGRAM) {
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
        assert_eq!(words(r#""a\nb" "a\\b""#).expect("closed"), [r"a\nb", r"a\b"]);
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
