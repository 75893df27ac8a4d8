//! The list of keys, before everything else.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph};

/// What each key of `input.rs` does.
const KEYS: [(&str, &str); 9] = [
    ("Tab →", "next view"),
    ("⇧Tab ←", "the view before"),
    ("1 … 4", "this view"),
    ("s", "next order of the rows"),
    ("↓ ↑ j k", "a row down, up"),
    ("PgDn PgUp", "a page down, up"),
    ("Home End", "first, last row"),
    ("? h", "these keys"),
    ("q Esc ^C", "leave"),
];
/// Fits 40 columns and 15 rows, with its frame.
const WIDTH: u16 = 38;
const HEIGHT: u16 = KEYS.len() as u16 + 2;

/// Draws it in the middle of this area.
pub(super) fn keys(frame: &mut Frame<'_>, area: Rect) {
    let area = area.centered(Constraint::Length(WIDTH), Constraint::Length(HEIGHT));
    let lines = KEYS.map(|(key, what)| Line::from(format!(" {key:<11}{what}")));
    frame.render_widget(Clear, area);
    let list = Paragraph::new(lines.to_vec()).block(Block::bordered().title(" Keys "));
    frame.render_widget(list, area);
}
