//! Puts the state on the terminal. 80 columns and 24 rows show everything that matters.

use nexusd_admin::proto::Server;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, RenderDirection, Row, Sparkline, Table};

use super::slow::Pace;
use super::state::{PeerRow, State, SubscriptionRow, TopicRow};
use super::view::{Order, View};
use crate::commands::mesh::latency;
use crate::format::{bytes, count, milliseconds, number, printable, rate};
use crate::rates::LOSSES;

/// Characters of an id that tell it from others at a glance.
const ID_SHOWN: usize = 8;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let [title, tabs, body, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(title_line(state), title);
    frame.render_widget(tabs_line(state), tabs);
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
    frame.render_widget(footer_line(state), footer);
}

fn title_line(state: &State) -> Paragraph<'static> {
    let text = match state.server() {
        Some(server) => {
            let Server { node_id, cluster, state: doing, uptime_ms, .. } = server;
            let uptime = milliseconds(*uptime_ms);
            let (id, address) = (short(node_id), &state.address);
            format!(" NexusD {address}  node {id}  {cluster}  {doing}  up {uptime}")
        }
        None => format!(" NexusD {}", state.address),
    };
    Paragraph::new(printable(&text).into_owned())
        .style(Style::new().add_modifier(Modifier::REVERSED))
}

fn tabs_line(state: &State) -> Paragraph<'static> {
    let tab = |(at, view): (usize, &View)| {
        let style = if *view == state.view {
            Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
        } else {
            Style::new()
        };
        [Span::raw(format!(" {} ", at + 1)), Span::styled(view.title(), style), Span::raw(" ")]
    };
    Paragraph::new(Line::from_iter(View::ALL.iter().enumerate().flat_map(tab)))
}

fn footer_line(state: &State) -> Paragraph<'static> {
    if let Some(fault) = &state.fault {
        return Paragraph::new(format!(" {}", printable(fault))).style(coloured(state, Color::Red));
    }
    let mut text = " q quit  Tab next view".to_owned();
    if state.view != View::Overview {
        text += &format!("  s order ({})  ↑↓ scroll", state.order().title());
    }
    let is_cut = state.sample.as_ref().is_some_and(|sample| match state.view {
        View::Topics => sample.topics.is_truncated,
        View::Subscriptions => sample.subscriptions.is_truncated,
        View::Overview | View::Peers => false,
    });
    if is_cut {
        text += "  (the daemon has more than 10,000)";
    }
    Paragraph::new(text)
}

fn overview(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let [figures, topics_area, slow_area] =
        Layout::vertical([Constraint::Length(7), Constraint::Fill(1), Constraint::Fill(1)])
            .areas(area);
    let [left, right] =
        Layout::horizontal([Constraint::Length(46), Constraint::Fill(1)]).areas(figures);
    frame.render_widget(Paragraph::new(figures_lines(state)), left);
    history(frame, state, right);
    let busiest = state.topics(Order::Rate);
    heading(frame, "Busiest topics", topics_area, |frame, area| {
        topics(frame, area, &busiest);
    });
    let mut slow = state.subscriptions(Order::Fill);
    slow.retain(|row| row.pace != Pace::Fine);
    let title = match slow.len() {
        0 => "Slow consumers: none".to_owned(),
        count => format!("Slow consumers: {count}"),
    };
    heading(frame, &title, slow_area, |frame, area| {
        if !slow.is_empty() {
            subscriptions(frame, state, area, &slow);
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
        Line::from(format!(" {name:<10}{value:>13}  {more}"))
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

/// Rates of the last minutes.
fn history(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let [incoming, outgoing] = Layout::vertical([Constraint::Length(3); 2]).areas(area);
    let parts = [("in", incoming, Color::Cyan), ("out", outgoing, Color::Magenta)];
    for (at, (name, area, colour)) in parts.into_iter().enumerate() {
        let [label, bars] =
            Layout::horizontal([Constraint::Length(4), Constraint::Fill(1)]).areas(area);
        frame.render_widget(Paragraph::new(name), label);
        // The newest at the right.
        let newest = state.history.iter().rev().take(usize::from(bars.width));
        let values: Vec<u64> = newest
            .map(|(incoming, outgoing)| if at == 0 { *incoming } else { *outgoing })
            .collect();
        let sparkline = Sparkline::default().data(values).direction(RenderDirection::RightToLeft);
        frame.render_widget(sparkline.style(coloured(state, colour)), bars);
    }
}

fn topics(frame: &mut Frame<'_>, area: Rect, rows: &[TopicRow<'_>]) {
    let shown = rows.iter().take(usize::from(area.height)).map(|row| {
        let topic = row.topic;
        Row::new([
            text(&topic.name),
            right(row.per_second.map_or("-".to_owned(), rate)),
            right(number(topic.messages)),
            right(number(topic.subscriptions)),
            right(number(topic.peers)),
            text(if topic.is_retained { "yes" } else { "" }),
        ])
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(11),
        Constraint::Length(14),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(8),
    ];
    let titles = ["TOPIC", "RATE>", "MESSAGES>", "SUBS>", "PEERS>", "RETAINED"];
    render(frame, area, titles, shown, widths);
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
        Row::new([
            text(&it.filters.join(" ")),
            text(client),
            right(number(it.queued_messages)),
            right(format!("{:.0} %", row.fill_percent)),
            right(row.sent_per_second.map_or("-".to_owned(), rate)),
            right(number(it.dropped_messages)),
            text(pace),
        ])
        .style(style)
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Length(6),
        Constraint::Length(10),
        Constraint::Length(11),
        Constraint::Length(6),
    ];
    let titles = ["FILTERS", "CLIENT", "QUEUED>", "FILL>", "SENT>", "DROPPED>", "PACE"];
    render(frame, area, titles, shown, widths);
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
        Row::new([
            text(short(&peer.node_id)),
            text(&peer.address),
            text(&peer.status),
            right(latency(peer)),
            right(number(peer.queued_messages)),
            right(of(row.in_per_second)),
            right(of(row.out_per_second)),
        ])
        .style(style)
    });
    let widths = [
        Constraint::Length(8),
        Constraint::Fill(1),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(10),
        Constraint::Length(10),
    ];
    let titles = ["NODE", "ADDRESS", "STATUS", "LATENCY>", "QUEUED>", "IN>", "OUT>"];
    render(frame, area, titles, shown, widths);
}

/// A table; titles that end with `>` stand at the right.
fn render<'a, const COLUMNS: usize>(
    frame: &mut Frame<'_>,
    area: Rect,
    titles: [&'static str; COLUMNS],
    rows: impl Iterator<Item = Row<'a>>,
    widths: [Constraint; COLUMNS],
) {
    let title = |title: &'static str| match title.strip_suffix('>') {
        Some(title) => right(title.to_owned()),
        None => Cell::from(title),
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let table = Table::new(rows, widths).header(Row::new(titles.map(title)).style(bold));
    frame.render_widget(table, area);
}

/// A text that cannot move the cursor.
fn text<'a>(text: &str) -> Cell<'a> {
    Cell::from(printable(text).into_owned())
}

fn right<'a>(text: String) -> Cell<'a> {
    Cell::from(Line::from(text).right_aligned())
}

fn short(id: &str) -> &str {
    id.get(..ID_SHOWN).unwrap_or(id)
}

fn coloured(state: &State, colour: Color) -> Style {
    if state.is_coloured { Style::new().fg(colour) } else { Style::new() }
}

#[cfg(test)]
mod tests;
