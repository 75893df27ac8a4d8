//! Tables that give up whole columns where a terminal is narrow, so that those that matter stay readable.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table};

use crate::format::printable;

/// What the column with names keeps at least.
const NAMES_MIN: u16 = 20;
/// Between two columns.
const SPACING: u16 = 1;

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Stands at the right if it ends with `>`.
    title: &'static str,
    /// `None`: the one with names, which takes what the others leave.
    width: Option<u16>,
    /// Its turn to go where there is no room for all; 0 is not taken away.
    turn: u8,
}

impl Column {
    /// The column with names, of which a table has one. It stays.
    pub(super) const fn names(title: &'static str) -> Self {
        Self { title, width: None, turn: 0 }
    }

    /// One that goes at its turn, from 1.
    pub(super) const fn new(title: &'static str, width: u16, turn: u8) -> Self {
        Self { title, width: Some(width), turn }
    }
}

/// Draws the columns for which there is room.
pub(super) fn table<'a, const COLUMNS: usize>(
    frame: &mut Frame<'_>,
    area: Rect,
    columns: &[Column; COLUMNS],
    rows: impl Iterator<Item = ([Cell<'a>; COLUMNS], Style)>,
) {
    let is_shown = shown(columns, area.width);
    let title = |column: &Column| match column.title.strip_suffix('>') {
        Some(title) => right(title.to_owned()),
        None => Cell::from(column.title),
    };
    let of_shown = |cells: [Cell<'a>; COLUMNS]| {
        let cells = cells.into_iter().zip(is_shown);
        Row::new(cells.filter_map(|(cell, is_shown)| is_shown.then_some(cell)))
    };
    let there = columns.iter().zip(is_shown).filter(|(_, is_shown)| *is_shown);
    let widths =
        there.map(|(column, _)| column.width.map_or(Constraint::Fill(1), Constraint::Length));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let rows = rows.map(|(cells, style)| of_shown(cells).style(style));
    let titles = of_shown(std::array::from_fn(|at| title(&columns[at]))).style(bold);
    let table = Table::new(rows, widths).header(titles).column_spacing(SPACING);
    frame.render_widget(table, area);
}

/// Which columns there is room for.
fn shown<const COLUMNS: usize>(columns: &[Column; COLUMNS], width: u16) -> [bool; COLUMNS] {
    let mut is_shown = [true; COLUMNS];
    let mut needed: u16 =
        columns.iter().map(|column| column.width.unwrap_or(NAMES_MIN) + SPACING).sum();
    let mut leaving: Vec<usize> = (0..COLUMNS).filter(|at| columns[*at].turn > 0).collect();
    leaving.sort_by_key(|at| columns[*at].turn);
    // There is no space behind the last one.
    for at in leaving {
        if needed <= width + SPACING {
            break;
        }
        is_shown[at] = false;
        needed -= columns[at].width.unwrap_or_default() + SPACING;
    }
    is_shown
}

/// A text that cannot move the cursor.
pub(super) fn text<'a>(text: &str) -> Cell<'a> {
    Cell::from(printable(text).into_owned())
}

pub(super) fn right<'a>(text: String) -> Cell<'a> {
    Cell::from(Line::from(text).right_aligned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] =
        [Column::names("NAME"), Column::new("FIRST", 10, 2), Column::new("LAST>", 5, 1)];

    #[test]
    fn columns_go_whole_and_in_their_turn() {
        // 20 + 1 + 10 + 1 + 5, and the same without the last and without both.
        assert_eq!(shown(&COLUMNS, 37), [true, true, true]);
        assert_eq!(shown(&COLUMNS, 36), [true, true, false]);
        assert_eq!(shown(&COLUMNS, 31), [true, true, false]);
        assert_eq!(shown(&COLUMNS, 30), [true, false, false]);
        assert_eq!(shown(&COLUMNS, 0), [true, false, false]);
    }
}
