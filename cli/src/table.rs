//! Tables and lists of names and values, for people.

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Row, Table,
};

use crate::console::Console;
use crate::format::printable;

/// Characters between two columns.
const PADDING: usize = 2;
/// Characters in which a folded text can still be read.
const FOLDED_MIN: usize = 16;

/// What stands in a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Column {
    /// Words, from the left.
    Text(&'static str),
    /// An id, which is of use as a whole alone.
    Id(&'static str),
    /// Numbers, from the right.
    Number(&'static str),
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Text(title) | Self::Id(title) | Self::Number(title) => title,
        }
    }

    fn alignment(self) -> CellAlignment {
        match self {
            Self::Text(_) | Self::Id(_) => CellAlignment::Left,
            Self::Number(_) => CellAlignment::Right,
        }
    }
}

/// Lays rows out under their columns.
pub(crate) fn table(
    console: &Console,
    columns: &[Column],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    table_of_width(console, console.width(), columns, rows)
}

fn table_of_width(
    console: &Console,
    width: Option<u16>,
    columns: &[Column],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = plain(console, width);
    let title = |column: &Column| {
        let cell = Cell::new(column.title()).set_alignment(column.alignment());
        cell.add_attribute(Attribute::Bold)
    };
    table.set_header(columns.iter().map(title));
    for row in rows {
        let cells = row.into_iter().zip(columns).map(|(text, column)| {
            let colour = colour(&text);
            let cell = Cell::new(printable(&text)).set_alignment(column.alignment());
            match colour {
                Some(colour) => cell.fg(colour),
                None => cell,
            }
        });
        table.add_row(Row::from(cells.collect::<Vec<_>>()));
    }
    if let Some(width) = width {
        fold(&mut table, columns, width.into());
    }
    trimmed(&mut table, columns.len())
}

/// Lets the widest text alone be folded; where that would leave it too little, the terminal breaks the lines.
fn fold(table: &mut Table, columns: &[Column], width: usize) {
    let widths = table.column_max_content_widths();
    let widest = columns
        .iter()
        .zip(&widths)
        .enumerate()
        .filter(|(_, (column, _))| matches!(column, Column::Text(_)))
        .max_by_key(|(_, (_, width))| **width);
    let Some((folded, _)) = widest else { return };
    let whole = widths.iter().enumerate().filter(|(at, _)| *at != folded);
    let taken: usize = whole.map(|(_, width)| usize::from(*width) + PADDING).sum();
    if taken + FOLDED_MIN + PADDING > width {
        table.set_content_arrangement(ContentArrangement::Disabled);
        return;
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        if at != folded {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

/// Lays names and their values out, under a heading.
pub(crate) fn list(console: &Console, heading: &str, entries: &[(&str, String)]) -> String {
    let mut table = plain(console, console.width());
    for (name, value) in entries {
        table.add_row([Cell::new(format!("  {name}")), Cell::new(printable(value))]);
    }
    format!("{}\n{}", console.bold(heading), trimmed(&mut table, 2))
}

fn plain(console: &Console, width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    match width {
        // Long cells are folded; a script reads lines as they are.
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if console.is_coloured() {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

fn trimmed(table: &mut Table, columns: usize) -> String {
    for column in 0..columns {
        if let Some(column) = table.column_mut(column) {
            column.set_padding((0, PADDING as u16));
        }
    }
    table.trim_fmt()
}

/// What an operator should see at a glance.
fn colour(text: &str) -> Option<Color> {
    match text {
        "alive" | "running" | "connected" => Some(Color::Green),
        "suspected" | "draining" | "leaving" | "parked" => Some(Color::Yellow),
        "no answer" => Some(Color::Red),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_at_the_right_and_nothing_trails() {
        let columns = [Column::Text("TOPIC"), Column::Number("MESSAGES"), Column::Text("RETAINED")];
        let rows = [["a/b", "12", "yes"], ["c", "1,234,567,890", "no"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        let text = table(&Console::plain(), &columns, rows);
        let expected = "\
TOPIC       MESSAGES  RETAINED
a/b               12  yes
c      1,234,567,890  no";
        assert_eq!(text, expected);
    }

    #[test]
    fn ids_stay_whole_and_the_widest_text_is_folded() {
        let id = "5f1c2d3e".repeat(4);
        let columns = [Column::Id("ID"), Column::Text("STATE"), Column::Text("FILTERS")];
        let row = vec![id.clone(), "connected".to_owned(), "plant/mill/speed ".repeat(4)];
        let text = |width| table_of_width(&Console::plain(), width, &columns, [row.clone()]);
        let folded = text(Some(80));
        assert!(folded.lines().count() > 2, "{folded}");
        assert!(folded.lines().all(|line| line.chars().count() <= 80), "{folded}");
        assert!(folded.contains(&format!("{id}  connected  plant/mill/speed")), "{folded}");
        // Too narrow for that.
        assert_eq!(text(Some(50)), text(None));
        assert_eq!(text(None).lines().count(), 2);
    }

    #[test]
    fn what_daemons_say_cannot_move_the_cursor() {
        let evil = "\u{1b}[2J\n\u{9b}\u{202e}".to_owned();
        let columns = [Column::Text("A"), Column::Text("B")];
        let text = table(&Console::plain(), &columns, [vec![evil.clone(), evil.clone()]]);
        assert!(!text.replace('\n', "").contains(char::is_control), "{text:?}");
        assert_eq!(text.lines().count(), 2, "{text:?}");
        let text = list(&Console::plain(), &format!("Client {evil}"), &[("name", evil)]);
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(text.contains(r"\u{1b}[2J\n\u{9b}\u{202e}"), "{text:?}");
    }

    #[test]
    fn a_list_stands_below_its_heading() {
        let entries = [("version", "0.1.0".to_owned()), ("peers", "2".to_owned())];
        assert_eq!(
            list(&Console::plain(), "server", &entries),
            "server\n  version  0.1.0\n  peers    2"
        );
    }
}
