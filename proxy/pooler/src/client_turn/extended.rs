//! A client's Bind, Describe, Execute, Close, Sync and Flush.

use std::rc::Rc;

use pgimbal_wire::encode::{self, NameKind};
use pgimbal_wire::extended::{Bind, Execute, Malformed, Target};
use pgimbal_wire::frame::{HEADER_LEN, Header};
use pgimbal_wire::tag::frontend;

use super::parse::write_client_name;
use super::query::Refusal;
use super::{ClientTurn, Message, Step};
use crate::effect::Effect;
use crate::owed::{Origin, Owed, ParseInFlight};
use crate::plan::Stop;
use crate::prepared::{Statement, StatementKind};
use crate::server::UnnamedStatement;
use crate::server_statements::{Found, Portal};
use crate::session::{Link, Phase};
use crate::text::{self, Statements, Taint};

/// Portals bound to a SET and the like that wait for their Execute; drivers have one at a time.
const BOUND_EFFECTS_LIMIT: usize = 32;

impl<'a> ClientTurn<'a> {
    pub(super) fn bind(&mut self, header: Header) -> Step {
        let (message, bind) = self.view(header, Bind::view)?;
        self.settled_name(bind.statement)?;
        self.server()?.since_ready.segment_open = true;
        self.session.bound_effects.retain(|(portal, _)| **portal != *bind.portal);
        if let Some(special) = self.special_text(bind.statement)
            && let Err(refusal) = self.bind_special(&special, bind.portal)
        {
            self.drop_message(header);
            return self.refuse_bind(bind.portal, refusal);
        }
        if bind.statement.is_empty() {
            self.need_unnamed()?;
            self.server()?.owed.pass();
            self.forward(message);
            return Ok(());
        }
        let mut name = Vec::new();
        self.need_named(bind.statement, Some(bind.portal), &mut name)?;
        self.server()?.owed.pass();
        let rest = (message.body_len() - bind.rest) as u32;
        self.plan.make_for_server(|out| encode::bind_head(out, bind.portal, &name, rest));
        self.forward_from(message, message.start + HEADER_LEN + bind.rest);
        Ok(())
    }

    pub(super) fn describe(&mut self, header: Header) -> Step {
        let (message, target) = self.view(header, Target::view)?;
        self.server()?.since_ready.segment_open = true;
        match target {
            Target::Portal(_) => self.forward(message),
            Target::Statement([]) => {
                self.settled_name(&[])?;
                self.need_unnamed()?;
                self.forward(message);
            }
            Target::Statement(name) => {
                self.settled_name(name)?;
                let mut server_name = Vec::new();
                self.need_named(name, None, &mut server_name)?;
                self.plan.make_for_server(|out| {
                    encode::describe(out, NameKind::Statement, &server_name);
                });
                self.at = message.end();
            }
        }
        self.server()?.owed.pass();
        Ok(())
    }

    pub(super) fn execute(&mut self, header: Header) -> Step {
        let (message, execute) = self.view(header, Execute::view)?;
        self.server()?.since_ready.segment_open = true;
        let effects = &self.session.bound_effects;
        let Some(at) = effects.iter().position(|(portal, _)| **portal == *execute.portal) else {
            self.pool.stats.queries += 1;
            self.server()?.owed.pass();
            self.forward(message);
            return Ok(());
        };
        if let Effect::Deallocate(name) = &effects[at].1 {
            let name = name.clone();
            self.lend_name(&name)?;
            if self.knows(&name) {
                // Lent for nothing, should there be no such portal.
                self.session.close_after_sync.push(name);
            }
        }
        self.pool.stats.queries += 1;
        let effect = self.session.bound_effects.swap_remove(at).1;
        self.server()?.owed.push(Owed::Execute(Box::new(effect)));
        self.forward(message);
        // What follows depends on it, and the server sends nothing before Sync or Flush.
        self.plan.make_for_server(encode::flush);
        self.raise_barrier();
        Ok(())
    }

    pub(super) fn close(&mut self, header: Header) -> Step {
        let message = self.held(header, 0)?;
        let target = match Target::view(message.body, message.body_len()) {
            Ok(Some(target)) => target,
            Ok(None) => return Err(self.hold_more(message)),
            Err(malformed) => return Err(self.violation(&malformed.to_string())),
        };
        if let Target::Statement(name) = target
            && self.session.link != Link::Unlinked
        {
            self.linked(header, message.body.len())?;
            self.settled_name(name)?;
        }
        match target {
            Target::Statement(name) if self.knows(name) => self.close_known(message, name),
            Target::Statement([]) if self.session.link == Link::Unlinked => {
                self.session.set_unnamed(None);
                self.plan.make_for_client(encode::close_complete);
                self.at = message.end();
                Ok(())
            }
            Target::Statement(_) | Target::Portal(_) => {
                let message = self.linked(header, 0)?;
                if target == Target::Statement(&[]) {
                    let before = self.unnamed_before(Origin::Client);
                    self.session.set_unnamed(None);
                    let server = self.server()?;
                    server.unnamed = UnnamedStatement::Absent;
                    server.owed.push(Owed::Unnamed(Origin::Client, before));
                } else {
                    self.server()?.owed.pass();
                }
                self.server()?.since_ready.segment_open = true;
                self.forward(message);
                Ok(())
            }
        }
    }

    /// The statement stays on the server for others; the client is told what it expects.
    fn close_known(&mut self, message: Message<'_>, name: &[u8]) -> Step {
        if self.session.link == Link::Unlinked {
            self.rename(name, None);
            self.plan.make_for_client(encode::close_complete);
            self.at = message.end();
            return Ok(());
        }
        let change = self.rename(name, None);
        let unkept = change.before.as_ref().is_some_and(|statement| statement.body.is_none());
        let statement = change.before.clone();
        let server = self.server()?;
        match statement.filter(|_| unkept) {
            Some(statement) => {
                server.since_ready.segment_open = true;
                // Undone like a Parse, should it be skipped.
                server.owed.push(Owed::Parse(Box::new(ParseInFlight {
                    statement: None,
                    change: Some(change),
                })));
                let mut server_name = Vec::new();
                statement.write_server_name(&mut server_name);
                self.plan
                    .make_for_server(|out| encode::close(out, NameKind::Statement, &server_name));
                self.refresh_statement_pins();
            }
            None => {
                server.owed.push(Owed::Closed(Box::new(change)));
            }
        }
        self.at = message.end();
        Ok(())
    }

    pub(super) fn sync(&mut self, header: Header) -> Step {
        if self.ignored_in_copy(header)? {
            return Ok(());
        }
        if self.session.phase == Phase::Skipping {
            self.session.phase = Phase::Open;
        }
        let message = self.linked(header, 0)?;
        self.forward(message);
        let probes = std::mem::take(&mut self.session.close_after_sync);
        let server = self.server()?;
        server.owed.push(Owed::Sync);
        server.statements.end_segment();
        server.since_ready.segment_open = false;
        if !probes.is_empty() {
            server.owed.swallow(probes.len() as u32);
            server.owed.push(Owed::OwnSync);
            server.statements.end_segment();
            self.plan.make_for_server(|out| {
                for name in &probes {
                    encode::close(out, NameKind::Statement, name);
                }
                encode::sync(out);
            });
        }
        if !self.server()?.restore.is_empty() {
            // What follows runs under the client's own settings, which are brought back first.
            self.raise_barrier();
        }
        Ok(())
    }

    pub(super) fn flush(&mut self, header: Header) -> Step {
        if self.ignored_in_copy(header)? {
            return Ok(());
        }
        let message = self.linked(header, 0)?;
        self.forward(message);
        Ok(())
    }

    /// A message of which `view` must see the names, on a linked server connection.
    fn view<V>(
        &mut self,
        header: Header,
        view: impl FnOnce(&'a [u8], usize) -> Result<Option<V>, Malformed>,
    ) -> Result<(Message<'a>, V), Stop> {
        let message = self.linked(header, 0)?;
        match view(message.body, message.body_len()) {
            Ok(Some(seen)) => Ok((message, seen)),
            Ok(None) => Err(self.hold_more(message)),
            Err(malformed) => Err(self.violation(&malformed.to_string())),
        }
    }

    /// The text of a statement that is more than rows when it is executed.
    fn special_text(&self, name: &[u8]) -> Option<Vec<u8>> {
        if name.is_empty() {
            let unnamed = self.session.unnamed.as_ref()?;
            let end = unnamed.body.iter().position(|&b| b == 0)?;
            return (unnamed.kind == StatementKind::Special).then(|| unnamed.body[..end].to_vec());
        }
        let statement = self.session.statements.as_ref()?.get(name)?;
        (statement.kind == StatementKind::Special).then(|| statement.text().to_vec())
    }

    fn bind_special(&mut self, text: &[u8], portal: &[u8]) -> Result<(), Refusal> {
        let verdict = text::judge(text, self.reading());
        let slot = self.admit(&verdict)?;
        self.note_verdict(&verdict, slot);
        if let Statements::One(statement) = &verdict.statements
            && let Some(effect) = Effect::of(statement)
        {
            if self.session.bound_effects.len() >= BOUND_EFFECTS_LIMIT {
                let slot = self.pin_place().map_err(|()| Refusal::PinsExhausted)?;
                self.session.pin.taint(Taint::SetUnread.into(), slot);
                return Ok(());
            }
            self.session.bound_effects.push((portal.into(), effect));
        }
        Ok(())
    }

    /// Makes sure that the server's unnamed statement is this client's, or that there is none.
    fn need_unnamed(&mut self) -> Step {
        let mine = self.session.own_unnamed();
        let current = self.server()?.unnamed;
        if current == mine {
            return Ok(());
        }
        let before = self.unnamed_before(Origin::Proxy);
        match &self.session.unnamed {
            Some(unnamed) => {
                self.plan.make_for_server(|out| {
                    encode::message(out, frontend::PARSE, |out| {
                        out.push(0);
                        out.extend_from_slice(&unnamed.body);
                    });
                });
                self.pool.stats.parses_put_in += 1;
                let server = self.server()?;
                server.unnamed = mine;
                server.owed.push(Owed::Unnamed(Origin::Proxy, before));
            }
            None if current != UnnamedStatement::Absent => {
                self.plan.make_for_server(|out| encode::close(out, NameKind::Statement, b""));
                let server = self.server()?;
                server.unnamed = UnnamedStatement::Absent;
                server.owed.push(Owed::Unnamed(Origin::Proxy, before));
            }
            None => {}
        }
        Ok(())
    }

    /// Makes sure that the server has the statement that the client calls `name`, and writes what
    /// the server calls it. A name that nobody knows is left for the server to refuse.
    fn need_named(
        &mut self,
        name: &[u8],
        portal: Option<&[u8]>,
        server_name: &mut Vec<u8>,
    ) -> Step {
        let known: Option<Rc<Statement>> =
            self.session.statements.as_ref().and_then(|names| names.get(name)).cloned();
        let Some(statement) = known else {
            write_client_name(name, server_name);
            return Ok(());
        };
        let server = self.server()?;
        let transaction = server.transaction;
        let statement = if self.found(&statement)? == Found::Missing {
            let statement = self.under_current_settings(name, statement);
            if self.found(&statement)? == Found::Missing {
                self.put_in(&statement)?;
            }
            statement
        } else {
            statement
        };
        let portal = match portal {
            Some(name) if !name.is_empty() => Portal::Named(transaction),
            _ => Portal::Unnamed(transaction),
        };
        self.server()?.statements.bind(statement.id, portal);
        statement.write_server_name(server_name);
        Ok(())
    }
}
