//! The standard input, read in a thread of its own: so Ctrl-C wins over a read that nobody answers.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::task::spawn_blocking;

/// Bytes of a line of a script: more than the longest message with all that belongs to it.
const LINE_BYTES_MAX: u64 = 96 << 20;
/// How soon a read that nobody waits for any more lets go of the terminal.
const LET_GO: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// The next line of a script, without its end; `None` behind the last one.
pub(crate) async fn next_line() -> io::Result<Option<Vec<u8>>> {
    // Locked for this line alone: the command in it may want to read, too.
    let read = || {
        let mut line = Vec::new();
        io::stdin().lock().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.len() as u64 == LINE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a line is beyond 96 MiB"));
        }
        if line.is_empty() {
            return Ok(None);
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        Ok(Some(text.strip_suffix(b"\r").unwrap_or(text).to_vec()))
    };
    spawn_blocking(read).await?
}

/// Everything up to the end, but hardly more than so many bytes.
pub(crate) async fn everything(bytes_max: usize) -> io::Result<Vec<u8>> {
    let wanted = Wanted::default();
    let is_wanted = Arc::clone(&wanted.0);
    let read = move || {
        let mut all = Vec::new();
        while all.len() <= bytes_max && wait(&is_wanted)? {
            let mut stdin = io::stdin().lock();
            let part = stdin.fill_buf()?;
            if part.is_empty() {
                break;
            }
            all.extend_from_slice(part);
            let bytes = part.len();
            stdin.consume(bytes);
        }
        Ok(all)
    };
    spawn_blocking(read).await?
}

/// Asks on the terminal; `None` if there is nobody to answer.
pub(crate) async fn is_confirmed(question: &str) -> io::Result<Option<bool>> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    let mut err = io::stderr().lock();
    write!(err, "{question} [y/N] ")?;
    err.flush()?;
    drop(err);
    let wanted = Wanted::default();
    let is_wanted = Arc::clone(&wanted.0);
    let read = move || {
        let mut answer = String::new();
        if wait(&is_wanted)? {
            io::stdin().lock().read_line(&mut answer)?;
        }
        Ok(Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")))
    };
    spawn_blocking(read).await?
}

/// Somebody waits for what is read; nobody once this is dropped.
struct Wanted(Arc<AtomicBool>);

impl Default for Wanted {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Waits until there is something to read, or nobody wants it: what is typed then is for the prompt.
fn wait(is_wanted: &AtomicBool) -> io::Result<bool> {
    let stdin = io::stdin();
    while is_wanted.load(Ordering::Relaxed) {
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&LET_GO)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(is_wanted.load(Ordering::Relaxed)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}
