//! What shells and `man` want to know about the commands; made from their definition.

use std::io::{self, Write as _};

use clap_complete::Shell;

use crate::arguments::command;
use crate::error::CliError;

/// Prints the script that lets a shell complete commands.
pub(crate) fn completions(shell: Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "nexusd-cli", &mut script);
    if shell == Shell::Bash {
        // clap_complete 4.6 writes a name with a hyphen in two ways, and finds no command below it.
        let text = String::from_utf8_lossy(&script);
        script = text.replace("nexusd__subcmd__cli", "nexusd__cli").into_bytes();
    }
    print(&script)
}

/// Prints the manual page: the tool, and each of its commands.
pub(crate) fn page() -> Result<(), CliError> {
    let mut command = command();
    command.build();
    let mut page = Vec::new();
    let manual = clap_mangen::Man::new(command.clone());
    manual.render_title(&mut page)?;
    manual.render_name_section(&mut page)?;
    page.extend(synopsis(&manual)?);
    manual.render_description_section(&mut page)?;
    manual.render_options_section(&mut page)?;
    writeln!(page, ".SH COMMANDS")?;
    for inner in command.get_subcommands() {
        describe(inner, "", &mut page)?;
    }
    manual.render_extra_section(&mut page)?;
    manual.render_version_section(&mut page)?;
    print(&page)
}

fn synopsis(manual: &clap_mangen::Man) -> io::Result<Vec<u8>> {
    let mut section = Vec::new();
    manual.render_synopsis_section(&mut section)?;
    // clap_mangen 0.3 puts a space where the long name of an option would stand that has none.
    Ok(String::from_utf8_lossy(&section).replace(r"\-n \fR", r"\-n\fR").into_bytes())
}

/// A command and those below it, each with its own arguments.
fn describe(command: &clap::Command, group: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let name = format!("{group}{}", command.get_name());
    if command.get_name() == "help" {
        return Ok(());
    }
    let inner: Vec<_> = command.get_subcommands().collect();
    writeln!(page, ".TP\n\\fB{}\\fR", escaped(&usage(command, &name)))?;
    writeln!(page, "{}", escaped(&about(command)))?;
    for argument in command.get_arguments().filter(|it| !it.is_global_set()) {
        let (Some(help), false) = (argument.get_help(), argument.is_hide_set()) else { continue };
        let values: Vec<_> = argument
            .get_possible_values()
            .iter()
            .map(|value| value.get_name().to_uppercase())
            .collect();
        // Of a flag they are true and false.
        let values = match (argument.get_action().takes_values(), values.as_slice()) {
            (true, [_, ..]) => format!(" ({})", values.join(", ")),
            _ => String::new(),
        };
        let (name, help) = (escaped(&argument.to_string()), escaped(&help.to_string()));
        writeln!(page, ".br\n\\fI{name}\\fR: {help}{values}")?;
    }
    for inner in inner {
        describe(inner, &format!("{name} "), page)?;
    }
    Ok(())
}

fn usage(command: &clap::Command, name: &str) -> String {
    let mut usage = name.to_uppercase();
    for argument in command.get_positionals() {
        let text = argument.to_string();
        usage.push(' ');
        usage.push_str(&text);
    }
    usage
}

fn about(command: &clap::Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// As roff reads it: a hyphen that can be copied, and no line that is a command.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn print(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}
