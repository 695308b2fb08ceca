//! How statements run: simple queries, transactions, settings.

use super::sql::{self, is, is_exit, value, word_at};
use super::{Asked, Asleep, Backend, CopyIn, Failure, Prepared, Snapshot, Token, Transaction};
use crate::message;

/// What a statement leaves to its caller.
pub(super) enum Ran {
    /// It is done; its CommandComplete was sent.
    Done,
    /// It goes on later.
    Later,
}

impl Backend {
    pub(super) fn query(&mut self, text: String) {
        self.statements.remove("");
        self.portals.remove("");
        self.begin_implicit();
        match sql::statements(&text) {
            Err(error) => self.fail(Failure("42601", error), Asked::Query(Vec::new())),
            Ok(list) if list.is_empty() => {
                self.reply(message::message(b'I', &[]));
                self.end_query();
            }
            Ok(list) => self.go_on(Asked::Query(list)),
        }
    }

    /// Runs what is left of a query; of an Execute nothing is.
    pub(super) fn go_on(&mut self, from: Asked) {
        let Asked::Query(mut left) = from else { return };
        while !left.is_empty() {
            let statement = left.remove(0);
            let prepared = Prepared { zone: self.gucs.get("timezone"), statement };
            self.begin_implicit();
            if prepared.returns_rows() && !is(&prepared.statement, &["copy"]) {
                self.reply(message::row_description());
            }
            match self.run(&prepared, "", Asked::Query(left.clone())) {
                Ok(Ran::Done) => {}
                Ok(Ran::Later) => return,
                Err(failure) => return self.fail(failure, Asked::Query(Vec::new())),
            }
        }
        self.end_query();
    }

    fn end_query(&mut self) {
        if matches!(self.transaction, Transaction::Implicit(_)) {
            self.commit();
        }
        self.ready();
    }

    pub(super) fn function_call(&mut self) {
        if matches!(self.transaction, Transaction::Failed(_)) {
            return self.fail(aborted(), Asked::Query(Vec::new()));
        }
        self.reply(message::message(b'V', &[0xff; 4]));
        self.end_query();
    }

    /// Runs one statement.
    #[allow(clippy::too_many_lines, reason = "one arm for each statement that the model knows")]
    pub(super) fn run(
        &mut self,
        prepared: &Prepared,
        parameter: &str,
        from: Asked,
    ) -> Result<Ran, Failure> {
        let statement = &prepared.statement[..];
        if matches!(self.transaction, Transaction::Failed(_)) && !is_exit(statement) {
            return Err(aborted());
        }
        self.queries += 1;
        let argument = |at: usize| match statement.get(at) {
            Some(Token::Word(word)) if word == "$1" => parameter.to_owned(),
            Some(token) => value(token),
            None => String::new(),
        };
        let used = match &mut self.transaction {
            Transaction::Implicit(snapshot) => std::mem::replace(&mut snapshot.used, true),
            _ => true,
        };
        let words =
            (word_at(statement, 0).unwrap_or_default(), word_at(statement, 1).unwrap_or_default());
        let tag = match words {
            ("select", "pg_advisory_lock") => {
                self.locks += 1;
                self.rows(&[String::new()])
            }
            ("select", "set_config" | "pg_catalog.set_config") => {
                let (name, value) = (argument(3), argument(5));
                match word_at(statement, 7) {
                    Some("true") => self.gucs.set_local(&name, &value),
                    _ => self.gucs.set(&name, &value),
                }
                self.rows(&[value])
            }
            ("select", _) => self.rows(&[argument(1)]),
            ("zone", _) => self.rows(&[format!("{}@{}", argument(1), prepared.zone)]),
            ("show", name) => self.rows(&[self.gucs.get(name)]),
            ("inspect", _) => {
                let shown = format!("{} | {:?} {}", self.gucs.shown(), self.temporary, self.locks);
                self.rows(&[shown])
            }
            ("insert", _) if self.read_only => {
                let text = "cannot execute INSERT in a read-only transaction";
                return Err(Failure("25006", text.into()));
            }
            ("insert", _) => {
                self.pending.push(argument(1));
                "INSERT 0 1".into()
            }
            ("fail", _) => return Err(Failure("22012", format!("failed {}", argument(1)))),
            ("do", _) => return Err(raised(&argument(1))),
            ("sleep", _) => return self.sleep(argument(1), from),
            ("copy", _) => return self.copy_statement(statement, from),
            ("listen" | "unlisten" | "create" | "drop", _) => self.objects(statement),
            ("prepare", name) => {
                if self.statements.contains_key(name) {
                    return Err(duplicate(name));
                }
                let zone = self.gucs.get("timezone");
                let prepared = Prepared { statement: statement[3..].to_vec(), zone };
                self.statements.insert(name.to_owned(), prepared);
                "PREPARE".into()
            }
            ("execute", name) => {
                let prepared = self.statements.get(name).cloned().ok_or_else(|| unknown(name))?;
                return self.run(&prepared, "", from);
            }
            ("deallocate", "all") => {
                self.statements.retain(|name, _| name.is_empty());
                "DEALLOCATE ALL".into()
            }
            ("deallocate", name) => {
                self.statements.remove(name).ok_or_else(|| unknown(name))?;
                "DEALLOCATE".into()
            }
            ("discard", _) if used => {
                let text = "DISCARD ALL cannot run inside a transaction block".to_owned();
                return Err(Failure("25001", text));
            }
            ("discard", _) => {
                self.statements.retain(|name, _| name.is_empty());
                self.portals.clear();
                self.gucs.reset_all();
                self.temporary.clear();
                self.locks = 0;
                // Like every statement that cannot run in a transaction block, it commits at once.
                self.commit();
                "DISCARD ALL".into()
            }
            ("set" | "reset", _) => self.setting(statement),
            _ => self.transaction_statement(statement)?,
        };
        self.reply(message::message(b'C', format!("{tag}\0").as_bytes()));
        Ok(Ran::Done)
    }

    fn rows(&mut self, rows: &[String]) -> String {
        for row in rows {
            self.reply(message::row(row.as_bytes()));
        }
        format!("SELECT {}", rows.len())
    }

    fn sleep(&mut self, token: String, from: Asked) -> Result<Ran, Failure> {
        if self.cancelled.contains(&token) {
            return Err(Failure("57014", "canceling statement due to user request".into()));
        }
        self.asleep = Some(Asleep { token: token.clone(), from });
        if self.finished.contains(&token) {
            let Some(asleep) = self.asleep.take() else { return Ok(Ran::Later) };
            drop(asleep);
            let tag = self.rows(&[token]);
            self.reply(message::message(b'C', format!("{tag}\0").as_bytes()));
            return Ok(Ran::Done);
        }
        Ok(Ran::Later)
    }

    fn copy_statement(&mut self, statement: &[Token], from: Asked) -> Result<Ran, Failure> {
        if is(statement, &["copy", "t", "to"]) {
            self.reply(message::message(b'H', &[0, 0, 0]));
            for n in 0..3 {
                self.reply(message::copy_data(&format!("row {n}\n")));
            }
            self.reply(message::copy_done());
            self.reply(message::message(b'C', b"COPY 3\0"));
            return Ok(Ran::Done);
        }
        self.reply(message::message(b'G', &[0, 0, 0]));
        self.send();
        self.copy = Some(CopyIn { rows: Vec::new(), from });
        Ok(Ran::Later)
    }

    fn objects(&mut self, statement: &[Token]) -> String {
        match (word_at(statement, 0), word_at(statement, 1)) {
            (Some("create"), _) => {
                self.temporary.insert(value(&statement[3]));
                "CREATE TABLE".into()
            }
            (Some("drop"), _) => {
                self.temporary.remove(&value(&statement[2]));
                "DROP TABLE".into()
            }
            (Some(word), _) => word.to_uppercase(),
            _ => String::new(),
        }
    }

    fn setting(&mut self, statement: &[Token]) -> String {
        let local = is(statement, &["set", "local"]);
        let name = word_at(statement, 1 + usize::from(local)).unwrap_or_default();
        match word_at(statement, 0) {
            Some("reset") if name == "all" => self.gucs.reset_all(),
            Some("reset") => self.gucs.reset(name),
            _ if local => self.gucs.set_local(name, &value(&statement[4])),
            _ => self.gucs.set(name, &value(&statement[3])),
        }
        word_at(statement, 0).unwrap_or_default().to_uppercase()
    }

    fn transaction_statement(&mut self, statement: &[Token]) -> Result<String, Failure> {
        let first = word_at(statement, 0).unwrap_or_default();
        if is(statement, &["rollback", "to"]) {
            return self.rollback_to(word_at(statement, 2).unwrap_or_default());
        }
        match first {
            "begin" => {
                self.read_only = is(statement, &["begin", "transaction", "read", "only"]);
                match std::mem::replace(&mut self.transaction, Transaction::None) {
                    Transaction::Implicit(snapshot) => {
                        self.transaction = Transaction::Block(snapshot)
                    }
                    other => {
                        self.transaction = other;
                        self.warn("there is already a transaction in progress");
                    }
                }
                Ok("BEGIN".into())
            }
            "commit" | "end" | "rollback" | "abort" => {
                let commits = matches!(first, "commit" | "end");
                match std::mem::replace(&mut self.transaction, Transaction::None) {
                    Transaction::Failed(snapshot) => {
                        self.rolled_back(&snapshot);
                        return Ok("ROLLBACK".into());
                    }
                    Transaction::Block(snapshot) if !commits => self.rolled_back(&snapshot),
                    Transaction::Block(_) => self.commit(),
                    Transaction::Implicit(snapshot) => {
                        self.warn("there is no transaction in progress");
                        if commits {
                            self.commit();
                        } else {
                            self.rolled_back(&snapshot);
                        }
                    }
                    Transaction::None => {}
                }
                Ok(if commits { "COMMIT" } else { "ROLLBACK" }.into())
            }
            "savepoint" | "release" => {
                self.savepoint(first, word_at(statement, 1).unwrap_or_default())
            }
            _ => Err(Failure("42601", format!("syntax error at or near \"{first}\""))),
        }
    }

    fn savepoint(&mut self, what: &str, name: &str) -> Result<String, Failure> {
        let (standing, pending) = (self.gucs.standing.clone(), self.pending.len());
        let Transaction::Block(snapshot) = &mut self.transaction else {
            let text = format!("{} can only be used in transaction blocks", what.to_uppercase());
            return Err(Failure("25P01", text));
        };
        if what == "savepoint" {
            snapshot.savepoints.push((name.to_owned(), standing, pending));
        } else {
            let at = snapshot.savepoints.iter().rposition(|(known, ..)| known == name);
            snapshot.savepoints.truncate(at.ok_or_else(|| no_savepoint(name))?);
        }
        Ok(what.to_uppercase())
    }

    fn rollback_to(&mut self, name: &str) -> Result<String, Failure> {
        let (Transaction::Block(snapshot) | Transaction::Failed(snapshot)) = &mut self.transaction
        else {
            let text = "ROLLBACK TO SAVEPOINT can only be used in transaction blocks";
            return Err(Failure("25P01", text.into()));
        };
        let at = snapshot.savepoints.iter().rposition(|(known, ..)| known == name);
        let at = at.ok_or_else(|| no_savepoint(name))?;
        snapshot.savepoints.truncate(at + 1);
        let (_, standing, pending) = snapshot.savepoints[at].clone();
        self.gucs.standing = standing;
        self.pending.truncate(pending);
        self.transaction = match std::mem::replace(&mut self.transaction, Transaction::None) {
            Transaction::Failed(snapshot) => Transaction::Block(snapshot),
            other => other,
        };
        Ok("ROLLBACK".into())
    }

    fn warn(&mut self, text: &str) {
        self.reply(message::report(b'N', "WARNING", "25P01", text));
    }

    pub(super) fn begin_implicit(&mut self) {
        if matches!(self.transaction, Transaction::None) {
            self.transaction = Transaction::Implicit(Snapshot {
                before: self.gucs.standing.clone(),
                savepoints: Vec::new(),
                used: false,
            });
        }
    }

    pub(super) fn commit(&mut self) {
        self.transaction = Transaction::None;
        self.read_only = false;
        self.gucs.committed();
        self.committed.append(&mut self.pending);
        self.portals.clear();
    }

    pub(super) fn rolled_back(&mut self, snapshot: &Snapshot) {
        self.gucs.standing = snapshot.before.clone();
        self.read_only = false;
        self.gucs.committed();
        self.pending.clear();
        self.portals.clear();
    }
}

impl Prepared {
    pub(super) fn returns_rows(&self) -> bool {
        let word = word_at(&self.statement, 0);
        matches!(word, Some("select" | "zone" | "show" | "inspect" | "sleep" | "execute" | "rows"))
    }
}

pub(super) fn aborted() -> Failure {
    let text = "current transaction is aborted, commands ignored until end of transaction block";
    Failure("25P02", text.into())
}

pub(super) fn unknown(name: &str) -> Failure {
    if name.is_empty() {
        return Failure("26000", "unnamed prepared statement does not exist".into());
    }
    Failure("26000", format!("prepared statement \"{name}\" does not exist"))
}

pub(super) fn duplicate(name: &str) -> Failure {
    Failure("42P05", format!("prepared statement \"{name}\" already exists"))
}

fn no_savepoint(name: &str) -> Failure {
    Failure("3B001", format!("savepoint \"{name}\" does not exist"))
}

/// What `RAISE EXCEPTION USING ERRCODE = '…', MESSAGE = '…'` raises.
fn raised(body: &str) -> Failure {
    let message = body.split("MESSAGE = '").nth(1).and_then(|rest| rest.split("',").next());
    let code = if body.contains("'53400'") { "53400" } else { "0A000" };
    Failure(code, message.unwrap_or_default().to_owned())
}
