//! What statements leave in their session: settings, objects, statements made by SQL.

use super::run::{Ran, duplicate, unknown};
use super::sql::{self, is, value, word_at};
use super::{Asked, Backend, Failure, Origin, Prepared, Token};

/// What the code of DO may run.
const IN_CODE: &[&str] =
    &["select", "set", "reset", "insert", "fail", "create", "drop", "deallocate"];

/// What EXECUTE may run.
const EXECUTED: &[&str] = &["select", "set", "insert", "zone", "fail", "show"];

impl Backend {
    pub(super) fn objects(&mut self, statement: &[Token]) -> String {
        match (word_at(statement, 0), word_at(statement, 1)) {
            (Some("create"), _) => {
                self.temporary.insert(value(&statement[3]));
                "CREATE TABLE".into()
            }
            (Some("drop"), _) => {
                self.temporary.remove(&value(&statement[2]));
                "DROP TABLE".into()
            }
            (Some("listen"), Some(channel)) => {
                self.channels.insert(channel.to_owned());
                "LISTEN".into()
            }
            (Some("notify"), Some(channel)) => {
                self.notified.push(channel.to_owned());
                "NOTIFY".into()
            }
            (Some("unlisten"), None) => {
                self.channels.clear();
                "UNLISTEN".into()
            }
            (Some("unlisten"), Some(channel)) => {
                self.channels.remove(channel);
                "UNLISTEN".into()
            }
            (Some("close"), _) => "CLOSE CURSOR ALL".into(),
            (Some(word), _) => word.to_uppercase(),
            _ => String::new(),
        }
    }

    pub(super) fn setting(&mut self, statement: &[Token]) -> Result<String, Failure> {
        let local = is(statement, &["set", "local"]);
        let name = word_at(statement, 1 + usize::from(local)).unwrap_or_default();
        let to = |at: usize| -> Result<String, Failure> {
            let value = statement.get(at).map(value).unwrap_or_default();
            check_value(name, &value)?;
            Ok(value)
        };
        match word_at(statement, 0) {
            Some("reset") if name == "all" => self.gucs.reset_all(),
            Some("reset") if is(statement, &["reset", "session", "authorization"]) => {
                self.gucs.reset("role");
            }
            Some("reset") => self.gucs.reset(name),
            // What random() goes on from; nothing shows it.
            _ if name == "seed" => {}
            _ if local => self.gucs.set_local(name, &to(4)?),
            _ => self.gucs.set(name, &to(3)?),
        }
        Ok(word_at(statement, 0).unwrap_or_default().to_uppercase())
    }

    pub(super) fn prepare(&mut self, name: &str, statement: &[Token]) -> Result<String, Failure> {
        if self.statements.contains_key(name) {
            return Err(duplicate(name));
        }
        let zone = self.gucs.get("timezone");
        let prepared = Prepared { statement: statement[3..].to_vec(), zone, origin: Origin::Sql };
        self.statements.insert(name.to_owned(), prepared);
        Ok("PREPARE".into())
    }

    pub(super) fn deallocate(&mut self, statement: &[Token]) -> Result<String, Failure> {
        let name = word_at(statement, 1).unwrap_or_default();
        if name == "all" {
            self.statements.retain(|name, _| name.is_empty());
            return Ok("DEALLOCATE ALL".into());
        }
        self.statements.remove(name).ok_or_else(|| unknown(name))?;
        Ok("DEALLOCATE".into())
    }

    pub(super) fn discard(&mut self, statement: &[Token]) -> String {
        let what = word_at(statement, 1).unwrap_or_default();
        match what {
            "temp" => self.temporary.clear(),
            "all" => {
                self.statements.retain(|name, _| name.is_empty());
                self.portals.clear();
                self.gucs.reset_all();
                self.gucs.reset("role");
                self.temporary.clear();
                self.channels.clear();
                self.locks = 0;
                // Like every statement that cannot run in a transaction block, it commits at once.
                self.commit();
            }
            _ => {}
        }
        format!("DISCARD {}", what.to_uppercase())
    }

    /// DO: runs the statements of a body, of which nothing is told but that all have run.
    pub(super) fn code(&mut self, body: &str) -> Result<String, Failure> {
        let list = sql::statements(body).map_err(|error| Failure("42601", error))?;
        let told = self.held.len();
        let mut ended = Ok(());
        for statement in list {
            let first = word_at(&statement, 0).unwrap_or_default();
            if !IN_CODE.contains(&first) {
                ended = Err(Failure("42601", format!("syntax error at or near \"{first}\"")));
                break;
            }
            let zone = self.gucs.get("timezone");
            let prepared = Prepared { statement, zone, origin: Origin::Parse };
            match self.run(&prepared, "", Asked::Execute) {
                Ok(Ran::Done | Ran::Later) => {}
                Err(failure) => {
                    ended = Err(failure);
                    break;
                }
            }
        }
        self.held.truncate(told);
        ended.map(|()| "DO".into())
    }
}

/// A value that no server takes.
pub(super) fn check_value(name: &str, value: &str) -> Result<(), Failure> {
    if value.trim_matches('"') != "Bad" {
        return Ok(());
    }
    Err(Failure("22023", format!("invalid value for parameter \"{name}\": \"Bad\"")))
}

impl Prepared {
    /// The model lets EXECUTE run a few statements only.
    pub(super) fn check_executed(&self) -> Result<(), Failure> {
        let first = word_at(&self.statement, 0).unwrap_or_default();
        match EXECUTED.contains(&first) {
            true => Ok(()),
            false => Err(Failure("0A000", "EXECUTE does not run this".into())),
        }
    }
}
