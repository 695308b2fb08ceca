//! The extended protocol.

use super::run::{Ran, aborted, duplicate, unknown};
use super::sql::{self, is_exit};
use super::{Asked, Backend, Failure, Origin, Portal, Prepared, Transaction, text_of};
use crate::message;

impl Backend {
    pub(super) fn extended(&mut self, tag: u8, body: &[u8]) -> Result<(), Failure> {
        match tag {
            b'P' => self.parse(body),
            b'B' => self.bind(body),
            b'D' => self.describe(body),
            b'E' => self.execute(body),
            b'C' => {
                self.begin_implicit();
                let name = text_of(&body[1..]);
                match body[0] {
                    b'S' => drop(self.statements.remove(&name)),
                    _ => drop(self.portals.remove(&name)),
                }
                self.reply(message::message(b'3', &[]));
                Ok(())
            }
            _ => {
                self.die(Some("invalid frontend message type"));
                Ok(())
            }
        }
    }

    fn parse(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.begin_implicit();
        let name = text_of(body);
        let text = text_of(&body[name.len() + 1..]);
        if name.is_empty() {
            self.statements.remove("");
        }
        let mut list = sql::statements(&text).map_err(|error| Failure("42601", error))?;
        if list.len() > 1 {
            let text = "cannot insert multiple commands into a prepared statement";
            return Err(Failure("42601", text.into()));
        }
        let statement = list.pop().unwrap_or_default();
        if self.has_failed() && !statement.is_empty() && !is_exit(&statement) {
            return Err(aborted());
        }
        if self.statements.contains_key(&name) {
            return Err(duplicate(&name));
        }
        let zone = self.gucs.get("timezone");
        let origin = match name.starts_with("pgimbal_ask_") {
            true => Origin::Question(name.clone()),
            false => Origin::Parse,
        };
        self.statements.insert(name, Prepared { statement, zone, origin });
        self.reply(message::message(b'1', &[]));
        Ok(())
    }

    fn bind(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.begin_implicit();
        let portal = text_of(body);
        let rest = &body[portal.len() + 1..];
        let name = text_of(rest);
        let counts = &rest[name.len() + 1..];
        let prepared = self.statements.get(&name).cloned().ok_or_else(|| unknown(&name))?;
        if self.has_failed() && !is_exit(&prepared.statement) {
            return Err(aborted());
        }
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            return Err(Failure("42P03", format!("cursor \"{portal}\" already exists")));
        }
        // Format codes: none. Parameters: none, or one.
        let parameter = match counts[2..4] {
            [0, 1] => String::from_utf8_lossy(&counts[8..counts.len() - 2]).into_owned(),
            _ => String::new(),
        };
        let left = Some(3);
        self.portals.insert(portal, Portal { prepared, parameter, left });
        self.reply(message::message(b'2', &[]));
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.begin_implicit();
        let name = text_of(&body[1..]);
        let prepared = match body[0] {
            b'S' => self.statements.get(&name).ok_or_else(|| unknown(&name))?,
            _ => &self.portals.get(&name).ok_or_else(|| no_portal(&name))?.prepared,
        };
        let rows = prepared.returns_rows();
        if rows && self.has_failed() {
            return Err(aborted());
        }
        if body[0] == b'S' {
            self.reply(message::message(b't', &[0, 0]));
        }
        self.reply(if rows { message::row_description() } else { message::message(b'n', &[]) });
        Ok(())
    }

    fn execute(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.begin_implicit();
        let name = text_of(body);
        let limit = u32::from_be_bytes(body[name.len() + 1..][..4].try_into().expect("four"));
        let failed = self.has_failed();
        let portal = self.portals.get_mut(&name).ok_or_else(|| no_portal(&name))?;
        if portal.prepared.statement.is_empty() {
            self.reply(message::message(b'I', &[]));
            return Ok(());
        }
        if failed && !is_exit(&portal.prepared.statement) {
            return Err(aborted());
        }
        if portal.prepared.is_rows() {
            return self.fetch(&name, limit);
        }
        if portal.left.take().is_none() {
            if !portal.prepared.returns_rows() {
                return Err(Failure("55000", format!("portal \"{name}\" cannot be run")));
            }
            self.reply(message::message(b'C', b"SELECT 0\0"));
            return Ok(());
        }
        let (prepared, parameter) = (portal.prepared.clone(), portal.parameter.clone());
        match self.run(&prepared, &parameter, Asked::Execute)? {
            Ran::Done | Ran::Later => Ok(()),
        }
    }

    /// `rows $1`: three rows, as many at a time as are asked for.
    fn fetch(&mut self, name: &str, limit: u32) -> Result<(), Failure> {
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let left = portal.left.unwrap_or(0);
        let taken = if limit == 0 { left } else { left.min(limit as usize) };
        portal.left = Some(left - taken);
        let suspended = limit > 0 && left > 0 && taken == limit as usize;
        let parameter = portal.parameter.clone();
        for n in 0..taken {
            self.reply(message::row(format!("{parameter}:{}", left - n).as_bytes()));
        }
        self.reply(match suspended {
            true => message::message(b's', &[]),
            false => message::message(b'C', format!("SELECT {taken}\0").as_bytes()),
        });
        Ok(())
    }

    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.transaction, Transaction::Failed(_))
    }
}

impl Prepared {
    fn is_rows(&self) -> bool {
        sql::is(&self.statement, &["rows"])
    }
}

fn no_portal(name: &str) -> Failure {
    Failure("34000", format!("portal \"{name}\" does not exist"))
}
