//! Transactions and savepoints, and what they undo.

use super::sql::{is, word_at};
use super::{Backend, Failure, Kept, Snapshot, Token, Transaction};
use crate::message;

impl Backend {
    pub(super) fn transaction_statement(&mut self, statement: &[Token]) -> Result<String, Failure> {
        let first = word_at(statement, 0).unwrap_or_default();
        if is(statement, &["rollback", "to"]) {
            return self.rollback_to(word_at(statement, 2).unwrap_or_default());
        }
        match first {
            "begin" => {
                let mut pairs = statement.windows(2);
                self.read_only = pairs.any(|pair| is(pair, &["read", "only"]));
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
        let kept = self.kept();
        let Transaction::Block(snapshot) = &mut self.transaction else {
            let text = format!("{} can only be used in transaction blocks", what.to_uppercase());
            return Err(Failure("25P01", text));
        };
        if what == "savepoint" {
            snapshot.savepoints.push((name.to_owned(), kept));
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
        let kept = snapshot.savepoints[at].1.clone();
        self.bring_back(&kept);
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
                before: self.kept(),
                savepoints: Vec::new(),
                used: false,
            });
        }
    }

    pub(super) fn commit(&mut self) {
        self.transaction = Transaction::None;
        self.read_only = false;
        self.gucs.committed();
        if let Some((nodes, index)) = &self.node {
            nodes.borrow_mut().commit(*index, &self.pending);
        }
        self.committed.append(&mut self.pending);
        self.portals.clear();
    }

    pub(super) fn rolled_back(&mut self, snapshot: &Snapshot) {
        self.bring_back(&snapshot.before);
        self.read_only = false;
        self.gucs.committed();
        self.portals.clear();
    }

    fn kept(&self) -> Kept {
        let (temporary, channels) = (self.temporary.clone(), self.channels.clone());
        Kept {
            standing: self.gucs.standing.clone(),
            temporary,
            channels,
            pending: self.pending.len(),
        }
    }

    fn bring_back(&mut self, kept: &Kept) {
        self.gucs.standing = kept.standing.clone();
        self.temporary = kept.temporary.clone();
        self.channels = kept.channels.clone();
        self.pending.truncate(kept.pending);
    }
}

fn no_savepoint(name: &str) -> Failure {
    Failure("3B001", format!("savepoint \"{name}\" does not exist"))
}
