//! How statements run: simple queries, transactions, settings.

use std::cell::RefCell;
use std::rc::Rc;

use super::sql::{self, is, is_exit, value, word_at};
use super::state::check_value;
use super::{Asked, Asleep, Backend, Balk, CopyIn, Failure, Origin, Prepared, Token, Transaction};
use crate::message;
use crate::nodes::Nodes;

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
        if text.starts_with(CATALOG) {
            let failure = Failure("42501", "refused by the simulation".into());
            return self.fail(failure, Asked::Query(Vec::new()));
        }
        match sql::statements(&text) {
            Err(error) => self.fail(Failure("42601", error), Asked::Query(Vec::new())),
            Ok(list) if list.is_empty() => {
                self.reply(message::message(b'I', &[]));
                self.end_query();
            }
            Ok(_)
                if let Some(Balk::Settings(code)) = self.balks
                    && is_replay(&text) =>
            {
                self.balks = None;
                let failure = Failure(code, "refused by the simulation".into());
                self.fail(failure, Asked::Query(Vec::new()));
            }
            Ok(list) => self.go_on(Asked::Query(list)),
        }
    }

    /// Runs what is left of a query; of an Execute nothing is.
    pub(super) fn go_on(&mut self, from: Asked) {
        let Asked::Query(mut left) = from else { return };
        while !left.is_empty() {
            let statement = left.remove(0);
            let zone = self.gucs.get("timezone");
            let prepared = Prepared { zone, statement, origin: Origin::Parse };
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
        if let Origin::Question(name) = &prepared.origin
            && !matches!(&name[..], "pgimbal_ask_begin" | "pgimbal_ask_end")
        {
            return self.answer(name, parameter);
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
            ("select", "pg_advisory_unlock") => {
                let held = self.locks > 0;
                self.locks -= u32::from(held);
                self.rows(&[if held { "t" } else { "f" }.into()])
            }
            ("select", "pg_catalog.pg_advisory_unlock_all") => {
                self.locks = 0;
                self.rows(&[String::new()])
            }
            ("select", "set_config" | "pg_catalog.set_config") => {
                let (name, value) = (argument(3), argument(5));
                check_value(&name, &value)?;
                match word_at(statement, 7) {
                    Some("true") => self.gucs.set_local(&name, &value),
                    _ => self.gucs.set(&name, &value),
                }
                self.rows(&[value])
            }
            ("select", "seen") => {
                let seen = |(nodes, at): &(Rc<RefCell<Nodes>>, usize)| nodes.borrow_mut().see(*at);
                self.rows(&[self.node.as_ref().map(seen).unwrap_or_default()])
            }
            ("select", _) => self.rows(&[argument(1)]),
            ("zone", _) => self.rows(&[format!("{}@{}", argument(1), prepared.zone)]),
            ("show", name) => self.rows(&[self.gucs.get(name)]),
            ("inspect", _) => {
                let shown = format!(
                    "{} | {:?} {:?} {}",
                    self.gucs.shown(),
                    self.channels,
                    self.temporary,
                    self.locks
                );
                self.rows(&[shown])
            }
            ("insert", _) if self.read_only || self.is_on_standby() => {
                let text = "cannot execute INSERT in a read-only transaction";
                return Err(Failure("25006", text.into()));
            }
            ("insert", _) => {
                self.pending.push(argument(1));
                "INSERT 0 1".into()
            }
            ("fail", _) => return Err(Failure("22012", format!("failed {}", argument(1)))),
            ("do", _) => self.code(&argument(1))?,
            ("sleep", _) => return self.sleep(argument(1), from),
            ("copy", _) => return self.copy_statement(statement, from),
            ("listen" | "unlisten" | "notify" | "create" | "drop" | "close", _) => {
                self.objects(statement)
            }
            ("prepare", name) => self.prepare(name, statement)?,
            ("execute", name) => {
                let prepared = self.statements.get(name).cloned().ok_or_else(|| unknown(name))?;
                prepared.check_executed()?;
                return self.run(&prepared, &argument(3), from);
            }
            ("deallocate", _) => self.deallocate(statement)?,
            ("discard", "all") if used => {
                let text = "DISCARD ALL cannot run inside a transaction block".to_owned();
                return Err(Failure("25001", text));
            }
            ("discard", _) => self.discard(statement),
            ("set" | "reset", _) => self.setting(statement)?,
            _ => self.transaction_statement(statement)?,
        };
        self.reply(message::message(b'C', format!("{tag}\0").as_bytes()));
        Ok(Ran::Done)
    }

    fn is_on_standby(&self) -> bool {
        self.node.as_ref().is_some_and(|(nodes, index)| nodes.borrow().is_standby(*index))
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
}

/// How the question for the catalog begins.
const CATALOG: &str = "BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY;";

/// Whether the proxy brings settings to a client's: no client writes like that.
fn is_replay(text: &str) -> bool {
    ["SET \"", "RESET \"", "SELECT pg_catalog.set_config("].iter().any(|s| text.starts_with(s))
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
