//! What is on the screen: the panes, the answer that is shown, its order and filter. It reads no
//! clock and writes nowhere.

use std::collections::BTreeMap;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::history::{History, Sample};
use super::pane::Pane;
use super::table::Table;

/// Longest filter, in characters.
const MAX_FILTER: usize = 60;

/// A pane's table with the figures of its moment.
#[derive(Debug)]
pub(super) struct Answer {
    /// The pane that was asked for.
    pub(super) pane: Pane,
    /// The pane's table.
    pub(super) table: Table,
    /// The figures of the sparklines.
    pub(super) sample: Sample,
}

/// The order of a pane's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Name of the column.
    pub(super) column: String,
    /// The greatest comes first.
    pub(super) is_descending: bool,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing more than to draw the screen anew.
    Draw,
    /// To end.
    Quit,
}

/// What covers the table, or takes the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// The table is shown.
    #[default]
    Table,
    /// The table is shown, and keys change the filter.
    Filter,
    /// The keys are explained.
    Help,
}

/// The state of the screen.
#[derive(Debug)]
pub(super) struct State {
    place: String,
    version: String,
    /// Why there is no connection; `None` while there is one.
    lost: Option<String>,
    panes: Vec<Pane>,
    selected: Pane,
    table: Option<Table>,
    orders: BTreeMap<Pane, Order>,
    filter: String,
    mode: Mode,
    row: usize,
    column: usize,
    history: History,
}

impl State {
    /// The state before the first answer of the console at `place`, with a pane selected.
    pub(super) fn new(place: String, selected: Pane) -> Self {
        Self {
            place,
            version: String::new(),
            lost: None,
            panes: Vec::new(),
            selected,
            table: None,
            orders: BTreeMap::new(),
            filter: String::new(),
            mode: Mode::Table,
            row: 0,
            column: 0,
            history: History::default(),
        }
    }

    /// A connection is there, to a program of this version that has these panes.
    pub(super) fn handle_connected(&mut self, version: String, panes: Vec<Pane>) {
        self.version = version;
        self.lost = None;
        if !panes.contains(&self.selected)
            && let Some(first) = panes.first()
        {
            self.select(*first);
        }
        self.panes = panes;
    }

    /// An answer has come at `now`, a time since any fixed moment. One for a pane that is not
    /// selected any more counts for the sparklines only.
    pub(super) fn handle_answer(&mut self, answer: Answer, now: Duration) {
        self.history.add(answer.sample, now);
        if answer.pane == self.selected {
            self.table = Some(answer.table);
            self.row = self.row.min(self.rows().saturating_sub(1));
        }
    }

    /// The connection is lost for this reason; the last answer stays.
    pub(super) fn handle_lost(&mut self, why: String) {
        self.lost = Some(why);
    }

    /// A key was pressed.
    pub(super) fn handle_key(&mut self, key: KeyEvent) -> Outcome {
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match (self.mode, key.code) {
            (_, KeyCode::Char('c' | 'd')) if with_control => return Outcome::Quit,
            (Mode::Filter, code) => self.edit(code),
            (_, KeyCode::Char('q')) => return Outcome::Quit,
            (Mode::Help, _) => self.mode = Mode::Table,
            (Mode::Table, code) => self.command(code),
        }
        Outcome::Draw
    }

    fn edit(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.mode = Mode::Table,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Table;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if !c.is_control() && self.filter.chars().count() < MAX_FILTER => {
                self.filter.push(c);
            }
            _ => {}
        }
        self.row = 0;
    }

    fn command(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(-1),
            KeyCode::Char('s') => self.order_by_next_column(),
            KeyCode::Char('r') => self.reverse(),
            KeyCode::Down => self.scroll(1),
            KeyCode::Up => self.scroll(-1),
            KeyCode::PageDown => self.scroll(10),
            KeyCode::PageUp => self.scroll(-10),
            KeyCode::Home => self.row = 0,
            KeyCode::Char('>') => {
                let columns = self.table.as_ref().map_or(0, |table| table.columns().len());
                self.column = (self.column + 1).min(columns.saturating_sub(2));
            }
            KeyCode::Char('<') => self.column = self.column.saturating_sub(1),
            _ => {}
        }
    }

    /// Selects the pane that is this many tabs away, round and round.
    fn turn(&mut self, by: isize) {
        let at = self.panes.iter().position(|pane| *pane == self.selected).unwrap_or(0);
        let count = self.panes.len() as isize;
        if count > 0 {
            self.select(self.panes[(at as isize + by).rem_euclid(count) as usize]);
        }
    }

    fn select(&mut self, pane: Pane) {
        self.selected = pane;
        self.table = None;
        self.row = 0;
        self.column = 0;
    }

    /// Numbers begin with the greatest, texts with the first letter. After the last column the rows
    /// are in the console's own order again.
    fn order_by_next_column(&mut self) {
        let Some(table) = &self.table else { return };
        let at = self.orders.get(&self.selected).and_then(|order| table.column(&order.column));
        let next = at.map_or(0, |at| at + 1);
        match table.columns().get(next) {
            Some(column) => {
                let is_descending = table.is_numeric(next);
                let order = Order { column: column.clone(), is_descending };
                self.orders.insert(self.selected, order);
            }
            None => drop(self.orders.remove(&self.selected)),
        }
    }

    fn reverse(&mut self) {
        if let Some(order) = self.orders.get_mut(&self.selected) {
            order.is_descending = !order.is_descending;
        }
    }

    fn scroll(&mut self, by: isize) {
        let last = self.rows().saturating_sub(1);
        self.row = self.row.saturating_add_signed(by).min(last);
    }

    fn rows(&self) -> usize {
        self.shown().map_or(0, |table| table.rows().len())
    }

    /// The table to show: the rows that hold the filter's text in any column, in the pane's order.
    /// `None` before the first answer.
    pub(super) fn shown(&self) -> Option<Table> {
        let wanted = self.filter.to_lowercase();
        let holds = |row: &[String]| row.iter().any(|v| v.to_lowercase().contains(&wanted));
        let mut table = self.table.as_ref()?.filtered(holds);
        if let Some(order) = self.order()
            && let Some(column) = table.column(&order.column)
        {
            table.sort(column, order.is_descending);
        }
        Some(table)
    }

    /// The order of the selected pane's rows; `None` for the console's own.
    pub(super) fn order(&self) -> Option<&Order> {
        self.orders.get(&self.selected)
    }

    /// Where the console is.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The program that answers, with its version; empty before there is one.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Why there is no connection; `None` while there is one.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// The panes that the console has.
    pub(super) fn panes(&self) -> &[Pane] {
        &self.panes
    }

    /// The pane that is shown.
    pub(super) const fn selected(&self) -> Pane {
        self.selected
    }

    /// The text that rows must hold to be shown.
    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    /// What takes the keys.
    pub(super) const fn mode(&self) -> Mode {
        self.mode
    }

    /// The first row and the first column behind the one that always stays.
    pub(super) const fn offset(&self) -> (usize, usize) {
        (self.row, self.column)
    }

    /// The last minutes.
    pub(super) const fn history(&self) -> &History {
        &self.history
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::table::tests::table;
    use super::*;

    /// A state with three panes, connected, that shows two pools.
    pub(in crate::top) fn connected() -> State {
        let mut state = State::new("127.0.0.1:6432".to_owned(), Pane::Pools);
        let panes = vec![Pane::Pools, Pane::Nodes, Pane::Clients];
        state.handle_connected("pgimbal 0.1.0".to_owned(), panes);
        answer(&mut state, pools(), 1);
        state
    }

    fn pools() -> Table {
        table(
            &["database", "user", "cl_active", "cl_waiting"],
            &[&["app", "ann", "9", "0"], &["shop", "bob", "10", "3"]],
        )
    }

    pub(in crate::top) fn answer(state: &mut State, table: Table, at: u64) {
        let sample = Sample { transactions: Some(at * 100), waiting: at % 5, active: 2 };
        let answer = Answer { pane: state.selected(), table, sample };
        state.handle_answer(answer, Duration::from_secs(at));
    }

    pub(in crate::top) fn press(state: &mut State, keys: &str) {
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                key => KeyCode::Char(key),
            };
            assert_eq!(state.handle_key(KeyEvent::from(code)), Outcome::Draw, "{key:?}");
        }
    }

    fn names(state: &State) -> String {
        let table = state.shown().unwrap();
        table.rows().iter().map(|row| row[0].clone()).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn rows_are_filtered_as_one_types() {
        let mut state = connected();
        assert_eq!(names(&state), "app,shop");
        press(&mut state, "/BO");
        assert_eq!(names(&state), "shop");
        press(&mut state, "qs");
        assert_eq!((names(&state).as_str(), state.filter()), ("", "BOqs"));
        press(&mut state, "\x08\x08\n");
        assert_eq!((names(&state).as_str(), state.mode()), ("shop", Mode::Table));
        press(&mut state, "\x1b");
        assert_eq!(names(&state), "app,shop");
        press(&mut state, &format!("/{}", "x".repeat(500)));
        assert_eq!(state.filter().len(), MAX_FILTER);
    }

    #[test]
    fn each_column_is_one_key_away_and_then_the_own_order() {
        let mut state = connected();
        press(&mut state, "sss");
        assert_eq!(names(&state), "shop,app", "the greatest number first");
        press(&mut state, "r");
        assert_eq!(names(&state), "app,shop");
        press(&mut state, "ss");
        assert_eq!((state.order(), names(&state).as_str()), (None, "app,shop"));
    }

    #[test]
    fn panes_go_round_and_late_answers_are_not_shown() {
        let mut state = connected();
        press(&mut state, "\t");
        assert_eq!((state.selected(), state.shown()), (Pane::Nodes, None));
        let late = Answer { pane: Pane::Pools, table: pools(), sample: Sample::default() };
        state.handle_answer(late, Duration::from_secs(2));
        assert_eq!(state.shown(), None);
        press(&mut state, "\t\t");
        assert_eq!(state.selected(), Pane::Pools);
        state.handle_key(KeyEvent::from(KeyCode::Left));
        assert_eq!(state.selected(), Pane::Clients);
        // It comes back as a program that has less.
        state.handle_connected("PgBouncer 1.24.1".to_owned(), vec![Pane::Pools]);
        assert_eq!(state.selected(), Pane::Pools);
    }

    #[test]
    fn what_is_lost_is_said_and_the_last_answer_stays() {
        let mut state = connected();
        state.handle_lost("refused".to_owned());
        assert_eq!((state.lost(), names(&state).as_str()), (Some("refused"), "app,shop"));
        state.handle_connected("pgimbal 0.1.0".to_owned(), vec![Pane::Pools]);
        assert_eq!(state.lost(), None);
    }

    #[test]
    fn it_scrolls_no_farther_than_there_is_something() {
        let mut state = connected();
        for _ in 0..5 {
            state.handle_key(KeyEvent::from(KeyCode::Down));
            press(&mut state, ">");
        }
        assert_eq!(state.offset(), (1, 2));
        answer(&mut state, table(&["database"], &[&["app"]]), 2);
        assert_eq!(state.offset().0, 0);
        state.handle_key(KeyEvent::from(KeyCode::PageUp));
        press(&mut state, "<<<");
        assert_eq!(state.offset(), (0, 0));
    }

    #[test]
    fn q_and_control_c_end() {
        let mut state = connected();
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(state.handle_key(KeyEvent::from(KeyCode::Char('q'))), Outcome::Quit);
        press(&mut state, "?");
        assert_eq!(state.mode(), Mode::Help);
        press(&mut state, "x/q");
        assert_eq!(state.handle_key(control_c), Outcome::Quit);
    }
}
