//! Clients: transactions, savepoints, resets.

use super::*;
use crate::session::state::answer::{Answer, SessionState, ShownSetting};
use crate::sql::Scope;

/// Whether a change is a transaction of its own.
#[derive(Clone, Copy)]
enum When {
    Autocommit,
    InTransaction,
}

struct Client {
    table: SettingsTable,
    settings: ClientSettings,
}

impl Client {
    fn new(base: &[(&str, &str)]) -> Client {
        let mut table = table();
        let base = of(&mut table, base);
        let settings = ClientSettings::new(&mut table, base);
        Client { table, settings }
    }

    fn set(&mut self, name: &str, value: &str, when: When) {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        let set = self.settings.set(&mut self.table, name, value, Scope::Session);
        assert_eq!(set, Ok(()));
        self.end_statement(when);
    }

    fn set_local(&mut self, name: &str, value: &str) {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        let set = self.settings.set(&mut self.table, name, value, Scope::Local);
        assert_eq!(set, Ok(()));
    }

    fn reset(&mut self, reset: Reset<'_>, when: When) {
        assert_eq!(self.settings.reset(&mut self.table, reset, Scope::Session), Ok(()));
        self.end_statement(when);
    }

    fn end_statement(&mut self, when: When) {
        if matches!(when, Autocommit) {
            self.settings.commit(&mut self.table);
        }
    }

    fn shown(&self) -> String {
        shown(&self.table, self.settings.current())
    }

    /// Ends the client; nothing may stay in the table.
    fn end(mut self) {
        self.settings.close(&mut self.table);
        assert!(self.table.is_empty());
    }
}

use When::{Autocommit, InTransaction};

#[test]
fn a_client_is_small() {
    assert!(size_of::<ClientSettings>() <= 16);
}

#[test]
fn behaviour_30_a_rollback_undoes_set() {
    let mut client = Client::new(&[("a", "1")]);
    client.set("b", "1", Autocommit);
    client.set("a", "2", InTransaction);
    client.set("b", "2", InTransaction);
    assert_eq!(client.shown(), "a=2 b=2");
    assert!(client.settings.changed_in_transaction());
    client.settings.rollback(&mut client.table);
    assert_eq!(client.shown(), "a=1 b=1");
    client.set("a", "3", InTransaction);
    client.settings.commit(&mut client.table);
    client.settings.rollback(&mut client.table);
    assert_eq!(client.shown(), "a=3 b=1");
    client.end();
}

#[test]
fn behaviour_30_savepoints_undo_in_their_order() {
    let mut client = Client::new(&[]);
    let Client { table, settings } = &mut client;
    // Before any change a savepoint stands where the transaction began.
    settings.savepoint(table, b"early").unwrap();
    settings.set(table, b"x", b"1", Scope::Session).unwrap();
    settings.savepoint(table, b"s").unwrap();
    settings.set(table, b"x", b"2", Scope::Session).unwrap();
    settings.savepoint(table, b"s").unwrap();
    settings.set(table, b"x", b"3", Scope::Session).unwrap();
    settings.rollback_to(table, b"s");
    assert_eq!(shown(table, settings.current()), "x=2");
    settings.release(table, b"s");
    settings.rollback_to(table, b"s");
    assert_eq!(shown(table, settings.current()), "x=1");
    settings.rollback_to(table, b"s");
    assert_eq!(shown(table, settings.current()), "x=1");
    settings.rollback_to(table, b"early");
    assert_eq!(shown(table, settings.current()), "");
    settings.set(table, b"x", b"4", Scope::Session).unwrap();
    settings.savepoint(table, b"s").unwrap();
    settings.release(table, b"early");
    settings.rollback(table);
    assert_eq!(shown(table, settings.current()), "");
    client.end();
}

#[test]
fn resets_return_to_the_clients_own_startup_values() {
    let mut client = Client::new(&[("a", "1"), ("c", "1")]);
    client.set("a", "2", Autocommit);
    client.set("b", "2", Autocommit);
    client.set("role", "r", Autocommit);
    client.reset(Reset::Name(b"b"), Autocommit);
    client.reset(Reset::Name(b"a"), Autocommit);
    assert_eq!(client.shown(), "a=1 c=1 role=r");
    client.set("b", "2", Autocommit);
    client.reset(Reset::All, InTransaction);
    assert_eq!(client.shown(), "a=1 c=1 role=r");
    client.settings.rollback(&mut client.table);
    assert_eq!(client.shown(), "a=1 b=2 c=1 role=r");
    client.reset(Reset::Discard, Autocommit);
    assert_eq!(client.shown(), "a=1 c=1");
    client.end();
}

#[test]
fn a_new_session_user_has_no_role() {
    let mut client = Client::new(&[("role", "base")]);
    client.set("role", "r", Autocommit);
    client.set("session_authorization", "s", Autocommit);
    assert_eq!(client.shown(), "session_authorization=s");
    client.set("role", "r", Autocommit);
    assert_eq!(client.shown(), "role=r session_authorization=s");
    client.reset(Reset::Name(b"session_authorization"), Autocommit);
    assert_eq!(client.shown(), "role=base");
    client.end();
}

#[test]
fn the_servers_own_spelling_is_kept() {
    let mut client = Client::new(&[]);
    client.set("datestyle", "DMY", InTransaction);
    client.settings.reported(&mut client.table, b"DateStyle", b"ISO, DMY");
    client.settings.reported(&mut client.table, b"TimeZone", b"UTC");
    assert_eq!(client.shown(), "datestyle=ISO, DMY");
    client.settings.rollback(&mut client.table);
    assert_eq!(client.shown(), "");
    client.end();
}

#[test]
fn what_cannot_be_tracked_is_said_and_changes_nothing() {
    let mut client = Client::new(&[]);
    client.set("application_name", "Zoë", Autocommit);
    let Client { table, settings } = &mut client;
    let set = settings.set(table, b"client_encoding", b"LATIN1", Scope::Session);
    assert_eq!(set, Err(Untracked::Ask));
    let set = settings.set(table, b"x.y", &[b'x'; 20_000], Scope::Session);
    assert_eq!(set, Err(Untracked::TooMany));
    assert_eq!(settings.set(table, b"transaction_isolation", b"x", Scope::Session), Ok(()));
    assert!(!settings.changed_in_transaction());
    assert_eq!(client.shown(), "application_name=Zoë");
    client.set("x", "1", InTransaction);
    let Client { table, settings } = &mut client;
    for _ in 0..256 {
        settings.savepoint(table, b"s").unwrap();
    }
    assert_eq!(settings.savepoint(table, b"s"), Err(Untracked::TooMany));
    client.end();
}

#[test]
fn set_local_ends_with_the_transaction_and_with_its_savepoint() {
    let mut client = Client::new(&[]);
    client.set("x", "1", Autocommit);
    client.set_local("x", "2");
    assert_eq!(client.shown(), "x=2");
    client.settings.savepoint(&mut client.table, b"s").unwrap();
    client.set_local("x", "3");
    client.set("y", "1", InTransaction);
    client.settings.rollback_to(&mut client.table, b"s");
    assert_eq!(client.shown(), "x=2");
    client.set("x", "4", InTransaction);
    client.set_local("x", "5");
    client.settings.commit(&mut client.table);
    assert_eq!(client.shown(), "x=4");
    client.set_local("x", "6");
    client.settings.rollback(&mut client.table);
    assert_eq!(client.shown(), "x=4");
    client.end();
}

/// Case 9: what SET LOCAL has brought to its default, RESET ALL passes over.
#[test]
fn reset_all_passes_over_what_stands_at_its_default_for_the_transaction() {
    let mut client = Client::new(&[("timezone", "UTC")]);
    for (name, value) in [("work_mem", "5MB"), ("timezone", "Asia/Tokyo"), ("x", "1")] {
        client.set(name, value, Autocommit);
    }
    let Client { table, settings } = &mut client;
    for name in [&b"work_mem"[..], b"timezone"] {
        settings.reset(table, Reset::Name(name), Scope::Local).unwrap();
    }
    let mut passed_over = settings.defaults_of_transaction(table);
    passed_over.sort();
    assert_eq!(passed_over, [b"timezone"[..].into(), b"work_mem"[..].into()]);
    settings.set(table, b"x", b"2", Scope::Local).unwrap();
    settings.reset(table, Reset::All, Scope::Session).unwrap();
    assert_eq!(client.shown(), "timezone=UTC");
    client.settings.commit(&mut client.table);
    assert_eq!(client.shown(), "timezone=Asia/Tokyo work_mem=5MB");
    client.end();
}

#[test]
fn an_answer_takes_the_place_of_the_books_but_keeps_the_clients_spelling() {
    let mut client = Client::new(&[("timezone", "UTC"), ("app.base", "b")]);
    client.set("seq_page_cost", "1.23456789", Autocommit);
    client.set("work_mem", "5MB", Autocommit);
    client.set("role", "old", Autocommit);
    let shown = |name: &str, value: &str, is_real| ShownSetting {
        name: name.as_bytes().into(),
        value: value.as_bytes().into(),
        is_real,
        is_default: false,
    };
    let back = ShownSetting { is_default: true, ..shown("bytea_output", "hex", false) };
    let answer = Answer {
        session: Some(SessionState {
            role: b"boss"[..].into(),
            session_user: b"app"[..].into(),
            temporary: false,
            channels: Vec::new(),
            cursors: false,
            event_triggers: false,
            other_set_config: false,
        }),
        settings: Some(vec![
            shown("seq_page_cost", "1.23457", true),
            shown("work_mem", "6MB", false),
            shown("app.base", "", false),
            back,
            shown("app.new", "x", false),
            shown("transaction_isolation", "read committed", false),
        ]),
        ..Answer::default()
    };
    let server = client.settings.shown(&mut client.table, &answer, b"app").unwrap();
    let expected = "app.new=x role=boss seq_page_cost=1.23456789 work_mem=6MB";
    assert_eq!(shown_of(&client.table, server), expected);
    // What was reset is at the client's own startup value, which the server does not know.
    let expected =
        "app.base=b app.new=x role=boss seq_page_cost=1.23456789 timezone=UTC work_mem=6MB";
    assert_eq!(client.shown(), expected);
    client.table.release(server);
    client.end();
}

use super::shown as shown_of;

/// Sets, resets, savepoints, commits and rollbacks in any order, told to the client and to a model
/// that copies whole states; and after each reset the server stands where the client does.
#[test]
fn any_history_stands_where_a_model_does() {
    for seed in 1..=2_000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut client = Client::new(&[("a", "0"), ("b", "0")]);
        let base = client.shown();
        // The state at BEGIN and at each savepoint.
        let mut stack: Vec<(String, String)> = Vec::new();
        for _ in 0..40 {
            let when = if stack.is_empty() { Autocommit } else { InTransaction };
            let savepoint = ["s", "t"][random.below(2)].to_owned();
            match random.below(8) {
                0 if stack.is_empty() => stack.push((String::new(), client.shown())),
                1 if !stack.is_empty() => {
                    client.settings.commit(&mut client.table);
                    stack.clear();
                }
                2 if !stack.is_empty() => {
                    client.settings.rollback(&mut client.table);
                    assert_eq!(client.shown(), stack[0].1, "seed {seed}");
                    stack.clear();
                }
                3 if !stack.is_empty() => {
                    let name = savepoint.as_bytes();
                    client.settings.savepoint(&mut client.table, name).expect("few");
                    stack.push((savepoint, client.shown()));
                }
                4 => {
                    if let Some(at) = stack.iter().rposition(|(name, _)| *name == savepoint) {
                        client.settings.rollback_to(&mut client.table, savepoint.as_bytes());
                        assert_eq!(client.shown(), stack[at].1, "seed {seed}");
                        stack.truncate(at + 1);
                    }
                }
                5 => {
                    if let Some(at) = stack.iter().rposition(|(name, _)| *name == savepoint) {
                        client.settings.release(&mut client.table, savepoint.as_bytes());
                        stack.truncate(at);
                    }
                }
                6 => {
                    let names: [&[u8]; 4] = [b"a", b"c", b"role", b"session_authorization"];
                    let name = Reset::Name(names[random.below(4)]);
                    let reset = if random.below(4) == 0 { Reset::All } else { name };
                    reset_and_check(&mut client, reset, when, seed);
                }
                _ => {
                    let name = ["a", "b", "c", "role", "session_authorization"][random.below(5)];
                    client.set(name, ["0", "1", "2"][random.below(3)], when);
                }
            }
        }
        reset_and_check(&mut client, Reset::Discard, Autocommit, seed);
        assert_eq!(client.shown(), base, "seed {seed}");
        client.end();
    }
}

fn reset_and_check(client: &mut Client, reset: Reset<'_>, when: When, seed: u64) {
    let mut server = Server::default();
    let before = client.settings.current();
    client.table.retain(before);
    server.run(replay(&client.table, SettingsId::EMPTY, before).as_bytes());
    server.run(&match reset {
        Reset::All => b"RESET ALL".to_vec(),
        Reset::Discard => b"DISCARD ALL".to_vec(),
        Reset::Name(name) => [b"RESET ", name].concat(),
    });
    client.reset(reset, when);
    let mut out = Vec::new();
    let reached = after_reset(&mut client.table, before, reset);
    replay_sql(&client.table, reached, client.settings.current(), &mut out);
    client.table.release(reached);
    server.run(&out);
    assert!(server.stands_at(&client.table, client.settings.current()), "seed {seed}");
    client.table.release(before);
}

/// Where a server connection that stood at `id` stands after `reset`.
fn after_reset(table: &mut SettingsTable, id: SettingsId, reset: Reset<'_>) -> SettingsId {
    let is_identity = |name: &[u8]| matches!(name, b"role" | b"session_authorization");
    match reset {
        Reset::Discard => SettingsId::EMPTY,
        Reset::All => table.without(id, |name| !is_identity(name)),
        Reset::Name(b"session_authorization") => table.without(id, is_identity),
        Reset::Name(name) => table.without(id, |other| other == name),
    }
}
