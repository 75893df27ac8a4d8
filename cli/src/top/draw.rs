//! Puts the state on the terminal. 80 columns and 24 rows show everything that matters; where there are fewer,
//! what matters least goes first, and goes whole.

mod columns;
mod keys;

use nexusd_admin::proto::Server;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, RenderDirection, Sparkline};

use self::columns::{Column, right, table, text};
use super::slow::Pace;
use super::state::{PeerRow, State, SubscriptionRow, TopicRow};
use super::view::{Order, View};
use crate::commands::mesh::latency;
use crate::format::{bytes, count, milliseconds, number, printable, rate, rate_in_short};
use crate::rates::LOSSES;

/// Characters of an id that tell it from others at a glance.
const ID_SHOWN: usize = 8;

/// Columns that the figures of the overview take.
const FIGURES_WIDTH: u16 = 40;
/// Columns of what names a graph and its scale.
const LABEL_WIDTH: u16 = 12;
/// Columns below which a graph is not worth its place.
const GRAPH_WIDTH_MIN: u16 = 6;
/// Rows of a table that shows something: heading, titles, and one more.
const TABLE_HEIGHT_MIN: u16 = 3;

const TOPICS: [Column; 6] = [
    Column::names("TOPIC"),
    Column::new("RATE>", 11, 5),
    Column::new("MESSAGES>", 14, 4),
    Column::new("SUBS>", 7, 3),
    Column::new("PEERS>", 6, 2),
    Column::new("RETAINED", 8, 1),
];
const SUBSCRIPTIONS: [Column; 7] = [
    Column::names("FILTERS"),
    Column::new("CLIENT", 10, 3),
    Column::new("QUEUED>", 9, 4),
    Column::new("FILL>", 6, 5),
    Column::new("SENT>", 10, 1),
    Column::new("DROPPED>", 11, 2),
    Column::new("PACE", 6, 6),
];
const PEERS: [Column; 7] = [
    Column::new("NODE", 8, 5),
    Column::names("ADDRESS"),
    Column::new("STATUS", 9, 6),
    Column::new("LATENCY>", 8, 3),
    Column::new("QUEUED>", 9, 4),
    Column::new("IN>", 10, 2),
    Column::new("OUT>", 10, 1),
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let [title, tabs, body, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(title_line(state, title.width), title);
    frame.render_widget(tabs_line(state, tabs.width), tabs);
    match state.view {
        View::Overview => overview(frame, state, body),
        View::Topics => {
            let rows = state.topics(state.order());
            topics(frame, body, rows.get(state.offset..).unwrap_or_default());
        }
        View::Subscriptions => {
            let rows = state.subscriptions(state.order());
            subscriptions(frame, state, body, rows.get(state.offset..).unwrap_or_default());
        }
        View::Peers => {
            let rows = state.peers(state.order());
            peers(frame, state, body, rows.get(state.offset..).unwrap_or_default());
        }
    }
    frame.render_widget(footer_line(state, footer.width), footer);
    if state.shows_keys {
        keys::keys(frame, body);
    }
}

/// As many of these parts as fit, the first ones first; the very first in any case.
fn fitting(parts: impl IntoIterator<Item = String>, width: u16) -> String {
    let mut text = String::new();
    for part in parts {
        let longer = format!("{text}{}{part}", if text.is_empty() { " " } else { "  " });
        if !text.is_empty() && Line::from(longer.as_str()).width() > usize::from(width) {
            break;
        }
        text = longer;
    }
    text
}

fn title_line(state: &State, width: u16) -> Paragraph<'static> {
    let mut parts = vec![format!("NexusD {}", state.address)];
    if let Some(server) = state.server() {
        let Server { node_id, cluster, state: doing, uptime_ms, .. } = server;
        let uptime = format!("up {}", milliseconds(*uptime_ms));
        parts.extend([doing.clone(), uptime, cluster.clone(), format!("node {}", short(node_id))]);
    }
    let parts = parts.iter().map(|part| printable(part).into_owned());
    Paragraph::new(fitting(parts, width)).style(Style::new().add_modifier(Modifier::REVERSED))
}

/// The views; where not all titles have room, those of the others are their numbers.
fn tabs_line(state: &State, width: u16) -> Paragraph<'static> {
    let line = |has_all: bool| {
        let tab = |(at, view): (usize, &View)| {
            let is_this = *view == state.view;
            let style = if is_this {
                Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
            } else {
                Style::new()
            };
            let title = if is_this || has_all { view.title() } else { "" };
            [Span::raw(format!(" {} ", at + 1)), Span::styled(title, style), Span::raw(" ")]
        };
        Line::from_iter(View::ALL.iter().enumerate().flat_map(tab))
    };
    let all = line(true);
    let is_wide = all.width() <= usize::from(width);
    Paragraph::new(if is_wide { all } else { line(false) })
}

fn footer_line(state: &State, width: u16) -> Paragraph<'static> {
    if let Some(fault) = &state.fault {
        return Paragraph::new(format!(" {}", printable(fault))).style(coloured(state, Color::Red));
    }
    if state.shows_keys {
        return Paragraph::new(" any key closes this");
    }
    let mut parts = vec!["q quit".to_owned(), "? keys".to_owned()];
    let is_cut = state.sample.as_ref().is_some_and(|sample| match state.view {
        View::Topics => sample.topics.is_truncated,
        View::Subscriptions => sample.subscriptions.is_truncated,
        View::Overview | View::Peers => false,
    });
    if is_cut {
        parts.push("more than 10,000".to_owned());
    }
    if state.view != View::Overview {
        parts.push(format!("s order ({})", state.order().title()));
    }
    parts.push("Tab next view".to_owned());
    if state.view != View::Overview {
        parts.push("↑↓ scroll".to_owned());
    }
    Paragraph::new(fitting(parts, width))
}

fn overview(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let [figures, tables] =
        Layout::vertical([Constraint::Length(7), Constraint::Fill(1)]).areas(area);
    let (left, right) = if figures.width < FIGURES_WIDTH + LABEL_WIDTH + GRAPH_WIDTH_MIN {
        (figures, None)
    } else {
        let parts = [Constraint::Length(FIGURES_WIDTH), Constraint::Fill(1)];
        let [left, right] = Layout::horizontal(parts).areas(figures);
        (left, Some(right))
    };
    frame.render_widget(Paragraph::new(figures_lines(state)), left);
    if let Some(right) = right {
        history(frame, state, right);
    }
    let mut slow = state.subscriptions(Order::Fill);
    slow.retain(|row| row.pace != Pace::Fine);
    if tables.height > 2 * TABLE_HEIGHT_MIN {
        let parts = [Constraint::Fill(1), Constraint::Length(1), Constraint::Fill(1)];
        let [topics_area, _, slow_area] = Layout::vertical(parts).areas(tables);
        busiest_topics(frame, state, topics_area);
        slow_consumers(frame, state, slow_area, &slow);
    } else if slow.is_empty() {
        busiest_topics(frame, state, tables);
    } else {
        slow_consumers(frame, state, tables, &slow);
    }
}

fn busiest_topics(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let busiest = state.topics(Order::Rate);
    heading(frame, "Busiest topics", area, |frame, area| topics(frame, area, &busiest));
}

fn slow_consumers(frame: &mut Frame<'_>, state: &State, area: Rect, slow: &[SubscriptionRow<'_>]) {
    let title = match slow.len() {
        0 => "Slow consumers: none".to_owned(),
        count => format!("Slow consumers: {count}"),
    };
    heading(frame, &title, area, |frame, area| {
        if !slow.is_empty() {
            subscriptions(frame, state, area, slow);
        }
    });
}

/// A title in bold, and something below it.
fn heading(
    frame: &mut Frame<'_>,
    title: &str,
    area: Rect,
    below: impl FnOnce(&mut Frame<'_>, Rect),
) {
    let [line, rest] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let style = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(format!(" {title}")).style(style), line);
    below(frame, rest);
}

fn figures_lines(state: &State) -> Vec<Line<'static>> {
    let rate_of = |name| state.rate(name).map_or("-".to_owned(), rate);
    let bytes_of = |name| {
        let speed = |per_second: f64| format!("{}/s", bytes(per_second.round() as u64));
        state.rate(name).map_or("-".to_owned(), speed)
    };
    let value_of = |name| state.value(name).map_or("-".to_owned(), number);
    let lost: f64 = LOSSES.iter().filter_map(|name| state.rate(name)).sum();
    let memory = state.sample.as_ref().and_then(|sample| sample.info.memory).unwrap_or_default();
    // Links to other nodes are connections, too.
    let links = state.value("links").unwrap_or_default();
    let clients = state.value("connections").map(|all| all.saturating_sub(links));
    let line = |name: &'static str, value: String, more: String| {
        Line::from(format!(" {name:<8}{value:>13}  {more}"))
    };
    let queued = bytes(state.value("queued_bytes").unwrap_or_default());
    let lost = if lost > 0.0 {
        line("lost", rate(lost), String::new()).style(coloured(state, Color::Red))
    } else {
        line("lost", "0/s".to_owned(), String::new())
    };
    let limit = bytes(memory.limit_bytes);
    vec![
        line("in", rate_of("messages_in"), bytes_of("bytes_in")),
        line("out", rate_of("messages_out"), bytes_of("bytes_out")),
        lost,
        line("queued", value_of("queued_messages"), queued),
        line("memory", bytes(memory.resident_bytes), format!("of {limit}")),
        line(
            "clients",
            clients.map_or("-".to_owned(), number),
            count(state.value("subscriptions").unwrap_or_default(), "subscription"),
        ),
    ]
}

/// Rates of the last minutes, and what the highest bar stands for.
fn history(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let [incoming, outgoing] = Layout::vertical([Constraint::Length(3); 2]).areas(area);
    let parts = [("in", incoming, Color::Cyan), ("out", outgoing, Color::Magenta)];
    for (at, (name, area, colour)) in parts.into_iter().enumerate() {
        let [label, bars] =
            Layout::horizontal([Constraint::Length(LABEL_WIDTH), Constraint::Fill(1)]).areas(area);
        // The newest at the right.
        let newest = state.history.iter().rev().take(usize::from(bars.width));
        let values: Vec<u64> = newest
            .map(|(incoming, outgoing)| if at == 0 { *incoming } else { *outgoing })
            .collect();
        let mut lines = vec![Line::from(name)];
        if let Some(max) = values.iter().max() {
            lines.push(Line::from(format!("max {}", rate_in_short(*max))));
        }
        frame.render_widget(Paragraph::new(lines), label);
        let sparkline = Sparkline::default().data(values).direction(RenderDirection::RightToLeft);
        frame.render_widget(sparkline.style(coloured(state, colour)), bars);
    }
}

fn topics(frame: &mut Frame<'_>, area: Rect, rows: &[TopicRow<'_>]) {
    let shown = rows.iter().take(usize::from(area.height)).map(|row| {
        let topic = row.topic;
        let cells = [
            text(&topic.name),
            right(row.per_second.map_or("-".to_owned(), rate)),
            right(number(topic.messages)),
            right(number(topic.subscriptions)),
            right(number(topic.peers)),
            text(if topic.is_retained { "yes" } else { "" }),
        ];
        (cells, Style::new())
    });
    table(frame, area, &TOPICS, shown);
}

fn subscriptions(frame: &mut Frame<'_>, state: &State, area: Rect, rows: &[SubscriptionRow<'_>]) {
    let shown = rows.iter().take(usize::from(area.height)).map(|row| {
        let it = row.subscription;
        let style = match row.pace {
            Pace::Fine => Style::new(),
            Pace::Slow => coloured(state, Color::Yellow).add_modifier(Modifier::BOLD),
            Pace::Losing => coloured(state, Color::Red).add_modifier(Modifier::BOLD),
        };
        let pace = match row.pace {
            Pace::Fine => "",
            Pace::Slow => "slow",
            Pace::Losing => "losing",
        };
        let client = if it.client_id.is_empty() { &it.state } else { &it.client_id };
        let cells = [
            text(&it.filters.join(" ")),
            text(client),
            right(number(it.queued_messages)),
            right(format!("{:.0} %", row.fill_percent)),
            right(row.sent_per_second.map_or("-".to_owned(), rate)),
            right(number(it.dropped_messages)),
            text(pace),
        ];
        (cells, style)
    });
    table(frame, area, &SUBSCRIPTIONS, shown);
}

fn peers(frame: &mut Frame<'_>, state: &State, area: Rect, rows: &[PeerRow<'_>]) {
    if rows.is_empty() {
        frame.render_widget(Paragraph::new(" no other node is known"), area);
        return;
    }
    let shown = rows.iter().take(usize::from(area.height)).map(|row| {
        let peer = row.peer;
        let style = match peer.status.as_str() {
            "alive" => Style::new(),
            "suspected" => coloured(state, Color::Yellow),
            _ => coloured(state, Color::Red),
        };
        let of = |per_second: Option<f64>| per_second.map_or("-".to_owned(), rate);
        let cells = [
            text(short(&peer.node_id)),
            text(&peer.address),
            text(&peer.status),
            right(latency(peer)),
            right(number(peer.queued_messages)),
            right(of(row.in_per_second)),
            right(of(row.out_per_second)),
        ];
        (cells, style)
    });
    table(frame, area, &PEERS, shown);
}

fn short(id: &str) -> &str {
    id.get(..ID_SHOWN).unwrap_or(id)
}

fn coloured(state: &State, colour: Color) -> Style {
    if state.is_coloured { Style::new().fg(colour) } else { Style::new() }
}

#[cfg(test)]
mod tests;
