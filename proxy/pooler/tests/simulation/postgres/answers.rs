//! What the model server says to the proxy's questions, which it knows by their names.

use super::run::Ran;
use super::{Backend, Balk, Failure, Origin};
use crate::message;

/// What the proxy logs in as.
const USER: &str = "user";

impl Backend {
    /// Runs the statement of a question.
    pub(super) fn answer(&mut self, name: &str, parameter: &str) -> Result<Ran, Failure> {
        if let Some(Balk::Question(code)) = self.balks {
            self.balks = None;
            return Err(Failure(code, "refused by the simulation".into()));
        }
        let rows = match name {
            "pgimbal_ask_session" => vec![vec![
                Some(hex(&self.gucs.get("role"))),
                Some(hex(USER)),
                truth(!self.temporary.is_empty()),
                self.listed_channels(),
                truth(false),
                truth(false),
                truth(false),
            ]],
            "pgimbal_ask_settings" => self.settings(parameter),
            "pgimbal_ask_locks" => vec![vec![truth(self.locks > 0)]],
            "pgimbal_ask_statements" => {
                let named = || self.statements.iter().filter(|(name, _)| !name.is_empty());
                let from_sql =
                    named().filter(|(_, prepared)| prepared.origin == Origin::Sql).count();
                let parsed = named().count() - from_sql;
                vec![vec![Some(parsed.to_string()), Some(from_sql.to_string())]]
            }
            "pgimbal_ask_origin" | "pgimbal_ask_slots" => vec![vec![truth(false)]],
            _ => panic!("a question that nobody knows: {name}"),
        };
        for row in &rows {
            self.reply(message::columns(row));
        }
        self.reply(message::message(b'C', format!("SELECT {}\0", rows.len()).as_bytes()));
        Ok(Ran::Done)
    }

    /// The channels as the proxy asks for them.
    fn listed_channels(&self) -> Option<String> {
        let listed: Vec<String> = self.channels.iter().map(|channel| hex(channel)).collect();
        (!listed.is_empty()).then(|| listed.join(","))
    }

    /// What `pg_settings` lists as set in the session, then the custom settings that are asked for
    /// by name.
    fn settings(&self, names: &str) -> Vec<Vec<Option<String>>> {
        let listed = self.gucs.set_in_session().into_iter();
        let custom = names.split(',').filter(|name| !name.is_empty());
        let custom = custom.map(|name| (name.to_owned(), self.gucs.custom(name)));
        listed
            .map(|(name, value)| (name, Some(value)))
            .chain(custom)
            .map(|(name, value)| {
                vec![Some(name), value.as_deref().map(hex), truth(false), truth(false)]
            })
            .collect()
    }
}

fn truth(is: bool) -> Option<String> {
    Some(if is { "t" } else { "f" }.into())
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}
