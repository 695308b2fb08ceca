//! The screen, drawn from the state.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, RenderDirection, Row, Sparkline};

use super::history::Series;
use super::state::{Mode, State};
use super::table::Table;

/// Lines of a sparkline with its name.
const SPARKLINES: u16 = 3;

/// The least height of a screen that has sparklines.
const WITH_SPARKLINES: u16 = 14;

/// Greatest width of a column.
const MAX_WIDTH: usize = 40;

/// Columns whose number says that somebody waits: shown in another style unless 0.
const ALARMING: [&str; 4] = ["cl_waiting", "maxwait", "waiting", "wait"];

const HELP: &str = "\
Tab, arrows left/right   next and last pane
arrows up/down, PgUp/Dn  scroll the rows
<  >                     scroll the columns
/                        show only rows with a text (Enter: keep, Esc: all)
s                        sort by the next column
r                        reverse the order
?                        this help
q, Ctrl-C                quit

Any key goes back.";

/// How things are marked: with colours, or without (`NO_COLOR`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    /// Whether colours are used.
    pub(super) has_colours: bool,
}

impl Theme {
    fn colour(self, colour: Color) -> Style {
        if self.has_colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn alarm(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }
}

/// Draws the whole screen, of any size. Where there are fewer than 14 lines, it has no sparklines.
pub(super) fn render(frame: &mut Frame<'_>, state: &State, theme: Theme) {
    let area = frame.area();
    let sparklines = if area.height >= WITH_SPARKLINES { SPARKLINES } else { 0 };
    let [title, tabs, figures, main, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(sparklines),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(title_line(state, theme), title);
    frame.render_widget(tab_line(state, area.width), tabs);
    if sparklines > 0 {
        let areas = Layout::horizontal([Constraint::Fill(1); 3]).spacing(1).areas::<3>(figures);
        for (series, area) in state.history().series().into_iter().zip(areas) {
            sparkline(frame, series, area, theme);
        }
    }
    match (state.mode(), state.shown()) {
        (Mode::Help, _) => frame.render_widget(Paragraph::new(HELP), main),
        (_, Some(table)) => rows(frame, state, &table, main, theme),
        (_, None) => frame.render_widget(Paragraph::new("no answer yet"), main),
    }
    frame.render_widget(key_line(state), keys);
}

fn title_line(state: &State, theme: Theme) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut spans = vec![Span::styled("pgimbal top  ", bold), Span::raw(state.place().to_owned())];
    match state.lost() {
        Some(why) => {
            let text = format!("  NO CONNECTION, trying again: {why}");
            spans.push(Span::styled(text, theme.alarm()));
        }
        None => spans.push(Span::raw(format!("  {}", state.version()))),
    }
    Line::from(spans)
}

/// The names of the panes. Where they are too many for the width, as many of the first are left out
/// as the selected one needs to be seen.
fn tab_line(state: &State, width: u16) -> Line<'static> {
    let tabs: Vec<(String, bool)> = state
        .panes()
        .iter()
        .map(|pane| (format!(" {} ", pane.name()), *pane == state.selected()))
        .collect();
    let up_to_selected = tabs.iter().position(|(_, selected)| *selected).map_or(0, |at| at + 1);
    let mut first = 0;
    // Names are of one byte for a column, and a blank follows each.
    let taken = |first: usize| tabs[first..up_to_selected].iter().map(|(t, _)| t.len() + 1).sum();
    while first + 1 < up_to_selected && usize::from(width) + 1 < taken(first) {
        first += 1;
    }
    let tab = |(text, is_selected): &(String, bool)| {
        let style = match is_selected {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        [Span::styled(text.clone(), style), Span::raw(" ")]
    };
    Line::from(tabs[first..].iter().flat_map(tab).collect::<Vec<_>>())
}

fn sparkline(frame: &mut Frame<'_>, (name, values): Series<'_>, area: Rect, theme: Theme) {
    let now = values.back().copied();
    let title = format!("{name} {}", now.map_or("-".to_owned(), |now| now.to_string()));
    let newest_first: Vec<u64> = values.iter().rev().copied().collect();
    let widget = Sparkline::default()
        .block(Block::new().title(title))
        .direction(RenderDirection::RightToLeft)
        .style(theme.colour(Color::Cyan))
        .data(newest_first);
    frame.render_widget(widget, area);
}

fn rows(frame: &mut Frame<'_>, state: &State, table: &Table, area: Rect, theme: Theme) {
    if area.height == 0 || area.width == 0 || table.columns().is_empty() {
        return;
    }
    let (first_row, first_column) = state.offset();
    let visible = usize::from(area.height.saturating_sub(1));
    let rows = table.rows().get(first_row..).unwrap_or_default();
    let rows = &rows[..rows.len().min(visible)];
    let header = |column: usize| {
        let name = &table.columns()[column];
        match state.order().filter(|order| order.column == *name) {
            Some(order) => format!("{name}{}", if order.is_descending { "▼" } else { "▲" }),
            None => name.clone(),
        }
    };
    let columns: Vec<(usize, u16)> = fitting(table, rows, first_column, area.width, &header);
    let is_numeric: Vec<bool> = columns.iter().map(|(c, _)| table.is_numeric(*c)).collect();
    let line = |text: String, is_numeric: bool| match is_numeric {
        true => Line::from(text).alignment(Alignment::Right),
        false => Line::from(text),
    };
    let cells = columns.iter().zip(&is_numeric);
    let head = Row::new(cells.clone().map(|((c, _), numeric)| line(header(*c), *numeric)))
        .style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
    let body = rows.iter().map(|row| {
        Row::new(cells.clone().map(|((column, _), numeric)| {
            let value = &row[*column];
            let is_alarming = ALARMING.contains(&table.columns()[*column].as_str())
                && value.parse::<u64>().is_ok_and(|number| number > 0);
            let style = if is_alarming { theme.alarm() } else { Style::new() };
            Cell::from(line(value.clone(), *numeric)).style(style)
        }))
    });
    let widths = columns.iter().map(|(_, width)| Constraint::Length(*width));
    frame.render_widget(ratatui::widgets::Table::new(body, widths).header(head), area);
}

/// The columns that fit beside each other with a blank between them, each with its width: the first
/// one of the table, and then those from the offset on. The first is there however narrow it is.
fn fitting(
    table: &Table,
    rows: &[Vec<String>],
    offset: usize,
    width: u16,
    header: &impl Fn(usize) -> String,
) -> Vec<(usize, u16)> {
    let mut left = usize::from(width);
    let mut columns = Vec::new();
    for column in std::iter::once(0).chain(1 + offset..table.columns().len()) {
        let of_row = |row: &Vec<String>| Line::raw(row[column].as_str()).width();
        let widest = rows.iter().map(of_row).max().unwrap_or(0).min(MAX_WIDTH);
        let wanted = widest.max(Line::raw(header(column)).width());
        let given = if columns.is_empty() { wanted.min(left) } else { wanted };
        if given > left {
            break;
        }
        columns.push((column, given as u16));
        left = left.saturating_sub(given + 1);
    }
    columns
}

fn key_line(state: &State) -> Line<'static> {
    if state.mode() == Mode::Filter {
        return Line::from(format!("/{}█", state.filter()));
    }
    let filter = match state.filter() {
        "" => String::new(),
        text => format!("  [filter: {text}]"),
    };
    let dropped = state.shown().map_or(0, |table| table.dropped());
    let dropped = if dropped > 0 { format!("  [{dropped} more rows]") } else { String::new() };
    Line::from(format!("q quit  Tab pane  / filter  s sort  r reverse  ? help{filter}{dropped}"))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::pane::Pane;
    use super::super::state::tests::{answer, connected, press};
    use super::super::table::tests::table;
    use super::*;

    fn terminal(
        state: &State,
        width: u16,
        height: u16,
        has_colours: bool,
    ) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| render(frame, state, Theme { has_colours })).unwrap();
        terminal
    }

    fn lines(state: &State, width: u16, height: u16) -> Vec<String> {
        let terminal = terminal(state, width, height, true);
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn a_screen_of_80_by_24_has_everything() {
        let mut state = connected();
        for at in 2..5 {
            let pools = table(&["database", "cl_waiting"], &[&["app", "0"], &["shop", "12"]]);
            answer(&mut state, pools, at);
        }
        press(&mut state, "s");
        let lines = lines(&state, 80, 24);
        assert_eq!(lines[0], "pgimbal top  127.0.0.1:6432  pgimbal 0.1.0");
        assert_eq!(lines[1], " pools   nodes   clients");
        assert!(lines[2].starts_with("transactions/s 100"), "{lines:#?}");
        assert!(lines[2].contains("clients waiting 4") && lines[2].contains("servers active 2"));
        assert!(lines[4].contains('█'), "{lines:#?}");
        assert_eq!(lines[5], "database▲ cl_waiting");
        assert_eq!(lines[6], "app                0");
        assert_eq!(lines[7], "shop              12");
        assert!(lines[23].starts_with("q quit"), "{lines:#?}");
        press(&mut state, "/sho");
        let lines = super::tests::lines(&state, 80, 24);
        assert!(lines[6].starts_with("shop") && lines[7].is_empty(), "{lines:#?}");
        assert_eq!(lines[23], "/sho█");
    }

    #[test]
    fn every_size_can_be_drawn() {
        let mut state = connected();
        let wide = "é漢".repeat(50);
        answer(&mut state, table(&["database", "user"], &[&[&wide, "\x1b[31m"]]), 2);
        for (width, height) in [(1, 1), (2, 3), (10, 5), (20, 13), (40, 14), (300, 100)] {
            terminal(&state, width, height, true);
        }
        state.handle_lost("no answer".to_owned());
        press(&mut state, "?");
        for (width, height) in [(1, 1), (20, 6), (80, 24)] {
            terminal(&state, width, height, true);
        }
    }

    #[test]
    fn columns_that_do_not_fit_can_be_scrolled_to() {
        let mut state = connected();
        let columns = ["database", "a_long_column", "another_column", "the_last_column"];
        answer(&mut state, table(&columns, &[&["app", "1", "2", "3"]]), 2);
        let header = |state: &State| lines(state, 40, 8)[2].clone();
        assert_eq!(header(&state), "database a_long_column another_column");
        press(&mut state, ">");
        assert_eq!(header(&state), "database another_column the_last_column");
    }

    #[test]
    fn the_selected_pane_is_seen_whatever_the_width() {
        let mut state = connected();
        state.handle_connected("pgimbal".to_owned(), Pane::ALL.to_vec());
        for _ in Pane::ALL {
            let name = state.selected().name();
            for width in [12, 40, 80, 120] {
                let tabs = lines(&state, width, 8)[1].clone();
                assert!(tabs.contains(&format!(" {name}")), "{width} {name}: {tabs}");
                assert!(width < 120 || tabs.starts_with(" pools"), "{tabs}");
            }
            press(&mut state, "\t");
        }
    }

    #[test]
    fn without_colours_there_are_none() {
        let mut state = connected();
        state.handle_lost("refused".to_owned());
        let colours = |has_colours| {
            let terminal = terminal(&state, 80, 24, has_colours);
            terminal.backend().buffer().content().iter().any(|cell| cell.fg != Color::Reset)
        };
        assert!(colours(true) && !colours(false));
        let shown = lines(&state, 80, 24)[0].clone();
        assert_eq!(shown, "pgimbal top  127.0.0.1:6432  NO CONNECTION, trying again: refused");
    }

    #[test]
    fn names_of_clients_do_not_reach_the_terminal_as_commands() {
        let mut state = connected();
        answer(&mut state, table(&["user"], &[&["a\x1b]0;x\x07b"]]), 2);
        let shown = lines(&state, 80, 24).join("\n");
        assert!(shown.contains("a\\x1b]0;x\\x07b"), "{shown}");
        assert!(!shown.contains(['\x1b', '\x07']));
    }
}
