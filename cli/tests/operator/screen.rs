//! A terminal that nobody sits at: tmux, driven by its commands.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nexusd_tests::eventually;

/// Terminals of this process so far.
static SCREENS: AtomicU32 = AtomicU32::new(0);

/// A terminal of 80 columns and 24 rows with a program in it; ends when dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    /// The socket of a tmux server of its own.
    socket: String,
}

impl Screen {
    /// Starts a shell in it, with this environment.
    pub(crate) fn start(environment: &[(&str, &str)]) -> Self {
        let number = SCREENS.fetch_add(1, Ordering::Relaxed);
        let screen = Self { socket: format!("nexusd-cli-{}-{number}", std::process::id()) };
        let mut arguments = vec!["new-session", "-d", "-x", "80", "-y", "24"];
        let variables: Vec<String> =
            environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        for variable in &variables {
            arguments.extend(["-e", variable]);
        }
        arguments.extend(["env", "PS1=$ ", "sh"]);
        screen.tmux(&arguments);
        screen
    }

    /// Gives it so many columns and rows.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// Types a text, as it stands.
    pub(crate) fn type_text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Presses a key by tmux's name for it.
    pub(crate) fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Types a line, and Enter.
    pub(crate) fn enter(&self, line: &str) {
        self.type_text(line);
        self.press("Enter");
    }

    /// What is shown.
    pub(crate) fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The same with its colours.
    pub(crate) fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until what is shown fulfils this, and returns it.
    pub(crate) fn wait(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let mut text = String::new();
        let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, || {
                text = self.text();
                is_it(&text)
            });
        }));
        assert!(shown.is_ok(), "still not: {what}; the terminal shows:\n{text}");
        text
    }

    /// Waits until this is shown.
    pub(crate) fn wait_for(&self, part: &str) -> String {
        self.wait(part, |text| text.contains(part))
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.socket, "-f", "/dev/null"])
            .args(arguments)
            .output()
            .expect("tmux is installed: `cargo xtask setup test`");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.socket, "kill-server"]).output();
    }
}
