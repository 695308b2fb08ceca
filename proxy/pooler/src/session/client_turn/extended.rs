//! A client's Bind, Describe, Execute, Close, Sync and Flush.

use pgimbal_config::PoolMode;
use pgimbal_wire::encode::{self, NameKind};
use pgimbal_wire::extended::{Execute, Malformed, Target};
use pgimbal_wire::frame::Header;

use super::bind::{Needed, PLAIN};
use super::parse::write_client_name;
use super::{ClientTurn, Message, Step};
use crate::plan::Stop;
use crate::recovery::effects::SegmentEffects;
use crate::server::pending::{Origin as Owner, ParseInFlight, Pending};
use crate::server::prepared::SERVER_NAME_PREFIX;
use crate::server::{ReadingsKnown, UnnamedStatement};
use crate::session::state::portals::Rereads;
use crate::session::{Link, Phase};

impl<'a> ClientTurn<'a> {
    pub(super) fn describe(&mut self, header: Header) -> Step {
        let (message, target) = self.view(header, Target::view)?;
        if self.is_refused(&PLAIN) {
            return Ok(());
        }
        self.server()?.since_ready.segment_open = true;
        match target {
            Target::Portal(_) => self.forward(message),
            Target::Statement([]) => {
                self.settled_name(&[])?;
                if self.need_unnamed()? == Needed::Changed {
                    return self.answer_changed(header, &[]);
                }
                self.forward(message);
                let serial = self.session.unnamed_serial;
                self.server()?.pending.push(Pending::DescribeUnnamed(serial, None));
                return Ok(());
            }
            Target::Statement(name) => {
                self.settled_name(name)?;
                let mut server_name = Vec::new();
                if self.need_named(name, None, &mut server_name)? == Needed::Changed {
                    return self.answer_changed(header, name);
                }
                self.plan.make_for_server(|out| {
                    encode::describe(out, NameKind::Statement, &server_name);
                });
                self.at = message.end();
            }
        }
        self.server()?.pending.pass();
        Ok(())
    }

    pub(super) fn execute(&mut self, header: Header) -> Step {
        let (message, execute) = self.view(header, Execute::view)?;
        self.effects = SegmentEffects::EXECUTE;
        self.server()?.since_ready.segment_open = true;
        self.pool.stats.queries += 1;
        let Some((script, reads)) = self.session.portals.take(execute.portal) else {
            self.server()?.pending.pass();
            self.forward(message);
            return Ok(());
        };
        self.take_back_prepared(&script);
        self.server()?.pending.push(Pending::Execute(Box::new(script)));
        self.forward(message);
        if reads == Rereads::Perhaps {
            self.server()?.readings = ReadingsKnown::No;
        }
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
            Target::Statement(name)
                if self.knows(name) && self.pool.config.pool.mode != PoolMode::Session =>
            {
                self.close_known(message, name)
            }
            Target::Statement([]) if self.session.link == Link::Unlinked => {
                self.session.set_unnamed(None);
                self.tell(encode::close_complete);
                self.at = message.end();
                Ok(())
            }
            Target::Statement(_) | Target::Portal(_) => {
                let message = self.linked(header, 0)?;
                if target == Target::Statement(&[]) {
                    let before = self.unnamed_before(Owner::Client, b"");
                    self.session.set_unnamed(None);
                    let server = self.server()?;
                    server.unnamed = UnnamedStatement::Absent;
                    server.pending.push(Pending::Unnamed(Owner::Client, before));
                } else if let Target::Statement(name) = target
                    && name.starts_with(SERVER_NAME_PREFIX)
                    && self.pool.config.pool.mode != PoolMode::Session
                {
                    return self.close_escaped(message, name);
                } else if let Target::Statement(name) = target
                    && self.knows(name)
                {
                    let change = Some(self.rename(name, None));
                    let closed = ParseInFlight { statement: None, change, is_probed: false };
                    self.server()?.pending.push(Pending::Parse(Box::new(closed)));
                } else {
                    if let Target::Portal(portal) = target {
                        self.session.portals.close(portal);
                    }
                    self.server()?.pending.pass();
                }
                self.server()?.since_ready.segment_open = true;
                self.forward(message);
                Ok(())
            }
        }
    }

    /// A name that looks like one of pgimbal's own, which no client can reach.
    fn close_escaped(&mut self, message: Message<'_>, name: &[u8]) -> Step {
        let mut escaped = Vec::new();
        write_client_name(name, &mut escaped);
        let server = self.server()?;
        server.pending.pass();
        server.since_ready.segment_open = true;
        self.plan.make_for_server(|out| encode::close(out, NameKind::Statement, &escaped));
        self.at = message.end();
        Ok(())
    }

    /// The statement stays on the server for others; the client is told what it expects.
    fn close_known(&mut self, message: Message<'_>, name: &[u8]) -> Step {
        if self.session.link == Link::Unlinked {
            self.rename(name, None);
            self.tell(encode::close_complete);
            self.at = message.end();
            return Ok(());
        }
        self.end_temporary_name(name)?;
        let change = self.rename(name, None);
        let uncached = change.before.as_ref().is_some_and(|statement| statement.body.is_none());
        let statement = change.before.clone();
        let server = self.server()?;
        match statement.filter(|_| uncached) {
            Some(statement) => {
                server.since_ready.segment_open = true;
                // Undone like a Parse, should it be skipped.
                server.pending.push(Pending::Parse(Box::new(ParseInFlight {
                    statement: None,
                    change: Some(change),
                    is_probed: false,
                })));
                let mut server_name = Vec::new();
                statement.write_server_name(&mut server_name);
                self.plan
                    .make_for_server(|out| encode::close(out, NameKind::Statement, &server_name));
                self.refresh_statement_pins();
            }
            None => {
                server.pending.push(Pending::Closed(Box::new(change)));
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
        if !self.session.close_after_sync.is_empty() && self.has_unread_statements() {
            // What was not made real may be the name of one of those.
            self.await_replies()?;
        }
        self.forward(message);
        let probes = std::mem::take(&mut self.session.close_after_sync);
        let server = self.server()?;
        server.pending.push(Pending::Sync);
        server.in_flight.ended();
        server.statements.end_segment();
        server.since_ready.segment_open = false;
        if !probes.is_empty() {
            server.pending.swallow(probes.len() as u32);
            server.pending.push(Pending::OwnSync);
            server.statements.end_segment();
            self.plan.make_for_server(|out| {
                for name in &probes {
                    encode::close(out, NameKind::Statement, &name.name);
                }
                encode::sync(out);
            });
        }
        if self.server()?.restore.may_be_due() {
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
    pub(super) fn view<V>(
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
}
