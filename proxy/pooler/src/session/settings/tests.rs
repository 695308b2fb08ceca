//! Statements about settings, against a model of a server that knows nothing but the texts.

mod clients;
mod replays;

use std::collections::BTreeMap;

use super::*;

fn table() -> SettingsTable {
    SettingsTable::new(7)
}

fn of(table: &mut SettingsTable, settings: &[(&str, &str)]) -> SettingsId {
    let settings = settings.iter().map(|(n, v)| Setting::new(n.as_bytes(), v.as_bytes()));
    table.intern(settings.collect()).expect("few settings")
}

fn shown(table: &SettingsTable, id: SettingsId) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown: Vec<_> = table
        .settings(id)
        .iter()
        .map(|setting| format!("{}={}", text(&setting.name), text(&setting.value)))
        .collect();
    shown.join(" ")
}

fn replay(table: &SettingsTable, from: SettingsId, to: SettingsId) -> String {
    let mut out = Vec::new();
    replay_sql(table, from, to, &mut out);
    String::from_utf8(out).expect("ASCII in these tests")
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

/// A server connection, as far as it reads the texts of replays: through the text lexer, so that
/// what is written here is read as a client's SET would be.
#[derive(Default)]
struct Server(BTreeMap<Vec<u8>, Vec<u8>>);

impl Server {
    fn run(&mut self, sql: &[u8]) {
        use crate::sql::{Calls, Form, Operand, Reading, Readings, Scope, classify};
        // No value in these tests holds a semicolon.
        for text in sql.split(|&b| b == b';').filter(|text| !text.is_empty()) {
            let classified = classify(text, Readings::One(Reading::default()), Calls::Text);
            match classified.only() {
                Some(Form::Set(list, _)) => {
                    let [assignment] = &list[..] else { panic!("{list:?}") };
                    let (Operand::Text(name), Operand::Text(value)) =
                        (&assignment.name, &assignment.value)
                    else {
                        panic!("{assignment:?}")
                    };
                    if **name == *b"session_authorization" {
                        self.0.remove(&b"role"[..]);
                    }
                    self.0.insert(name.to_vec(), value.to_vec());
                }
                Some(Form::Reset(name, Scope::Session)) => {
                    if **name == *b"session_authorization" {
                        self.0.remove(&b"role"[..]);
                    }
                    self.0.remove(&**name);
                }
                Some(Form::ResetAll) => {
                    self.0.retain(|name, _| name == b"role" || name == b"session_authorization");
                }
                Some(Form::DiscardAll) => self.0.clear(),
                other => panic!("{}: {other:?}", text.escape_ascii()),
            }
        }
    }

    fn stands_at(&self, table: &SettingsTable, id: SettingsId) -> bool {
        let settings = table.settings(id).iter();
        settings.map(|s| (&*s.name, &*s.value)).eq(self.0.iter().map(|(n, v)| (&n[..], &v[..])))
    }
}
