//! A client's Parse.

use std::cell::Cell;
use std::rc::Rc;

use pgimbal_wire::encode;
use pgimbal_wire::extended::Parse;
use pgimbal_wire::frame::{HEADER_LEN, Header};

use super::query::kind_of;
use super::{ClientTurn, Message, Step};
use crate::owed::{DescribeInFlight, NameChange, Origin, Owed, ParseInFlight, UnnamedBefore};
use crate::plan::Stop;
use crate::prepared::{
    CLIENT_STATEMENTS_LIMIT, SERVER_NAME_PREFIX, Statement, StatementId, StatementKind,
};
use crate::server_statements::Found;
use crate::session::{ClientBody, Phase, Unnamed};
use crate::text::{self, Scanner};

impl ClientTurn<'_> {
    pub(super) fn parse(&mut self, header: Header) -> Step {
        let limit = self.pool.config.pool.max_statement_bytes;
        let kept = header.total as usize <= limit;
        let message = self.linked(header, if kept { header.total as usize } else { 0 })?;
        let parse = match Parse::view(message.body, message.body_len()) {
            Ok(Some(parse)) => parse,
            Ok(None) => return Err(self.hold_more(message)),
            Err(malformed) => return Err(self.violation(&malformed.to_string())),
        };
        self.settled_name(parse.name)?;
        self.server()?.since_ready.segment_open = true;
        if parse.name.is_empty() {
            self.parse_unnamed(message, parse, kept)
        } else if self.knows(parse.name) {
            self.parse_duplicate(message, parse)
        } else if kept && self.pool.config.pool.max_prepared_statements > 0 {
            self.parse_named(message, parse)
        } else {
            self.parse_unkept(message, parse)
        }
    }

    fn parse_unnamed(&mut self, message: Message<'_>, parse: Parse<'_>, kept: bool) -> Step {
        let before = self.unnamed_before(Origin::Client);
        if kept && message.is_whole() {
            let kind = kind_of(&text::judge(parse.text, self.reading()));
            let mut body =
                self.session.unnamed.take().map(|before| before.body).unwrap_or_default();
            body.clear();
            body.extend_from_slice(&message.body[1..]);
            self.session.set_unnamed(Some(Unnamed { body, kind }));
            if self.session.pin.statements().unkept {
                self.refresh_statement_pins();
            }
        } else {
            self.session.set_unnamed(None);
            self.session.unnamed_is_unkept = true;
            self.pin_unkept();
        }
        let is_unkept = self.session.unnamed_is_unkept;
        let owner = self.session.own_unnamed();
        let server = self.server()?;
        server.unnamed = owner;
        server.owed.push(Owed::Unnamed(Origin::Client, before));
        self.forward(message);
        if is_unkept {
            self.judge_unkept(message, parse);
        }
        Ok(())
    }

    /// Judges a text now, or while it passes, because it will not be at hand when it is bound.
    fn judge_unkept(&mut self, message: Message<'_>, parse: Parse<'_>) {
        let mut scanner = Box::new(Scanner::new(self.reading()));
        scanner.feed(parse.text);
        // Behind name and text there is a NUL each.
        if message.body.len() > parse.name.len() + 1 + parse.text.len() {
            self.note_unfollowed(&scanner.finish());
        } else {
            self.session.body = ClientBody::Text(message.missing(), scanner);
        }
    }

    /// What a request of the unnamed statement is undone to, should it be skipped; `None` if it
    /// cannot be.
    pub(super) fn unnamed_before(&mut self, origin: Origin) -> Option<Box<UnnamedBefore>> {
        let server = self.server.as_deref().filter(|server| server.owed.may_skip())?;
        let session = &mut self.session;
        let client =
            (origin == Origin::Client).then(|| (session.unnamed.take(), session.unnamed_is_unkept));
        Some(Box::new(UnnamedBefore { client, server: server.unnamed }))
    }

    /// Keeps a statement whose Parse was answered without a server: it is put in where it is bound.
    pub(crate) fn keep_unsent(&mut self, message: Message<'_>, parse: Parse<'_>) {
        if !message.is_whole() || self.pool.config.pool.max_prepared_statements == 0 {
            return;
        }
        let body = &message.body[parse.name.len() + 1..];
        if parse.name.is_empty() {
            let kind = StatementKind::Special;
            return self.session.set_unnamed(Some(Unnamed { body: body.to_vec(), kind }));
        }
        let settings = self.tables.parse_fingerprint(self.session.settings.current());
        let changes = self.pool.shared.database.schema_changes();
        let special = |_: &[u8]| StatementKind::Special;
        let statement = self.tables.statements.intern(body, settings, changes, special);
        self.rename(parse.name, Some(statement));
    }

    /// A client's Close of a statement that was answered without a server.
    pub(crate) fn forget_unsent(&mut self, name: &[u8]) {
        match name {
            [] => self.session.set_unnamed(None),
            _ if self.knows(name) => drop(self.rename(name, None)),
            _ => {}
        }
    }

    /// A text that is kept: any server can be given it, so its statement can be shared.
    fn parse_named(&mut self, message: Message<'_>, parse: Parse<'_>) -> Step {
        if self
            .session
            .statements
            .as_ref()
            .is_some_and(|names| names.len() >= CLIENT_STATEMENTS_LIMIT)
        {
            return Err(self.violation("too many prepared statements"));
        }
        self.make_room()?;
        let body = &message.body[parse.name.len() + 1..];
        let reading = self.reading();
        let settings = self.tables.parse_fingerprint(self.session.settings.current());
        let changes = self.pool.shared.database.schema_changes();
        let statement = self
            .tables
            .statements
            .parse(body, settings, changes, |text| kind_of(&text::judge(text, reading)));
        let change = self.rename(parse.name, Some(Rc::clone(&statement)));
        self.forward_parse(message, parse.name, &statement, change)?;
        // Whether an older statement may be shared instead depends on what the rows look like.
        let mut server_name = Vec::with_capacity(48);
        statement.write_server_name(&mut server_name);
        self.plan.make_for_server(|out| {
            encode::describe(out, encode::NameKind::Statement, &server_name);
        });
        let name = parse.name.into();
        self.server()?.owed.push(Owed::Describe(Box::new(DescribeInFlight { name, statement })));
        Ok(())
    }

    fn forward_parse(
        &mut self,
        message: Message<'_>,
        name: &[u8],
        statement: &Rc<Statement>,
        change: NameChange,
    ) -> Step {
        // One without a kept text is this session's alone and must not be evicted: it is not listed.
        let listed = statement.body.is_some();
        if listed {
            self.make_room()?;
            self.server()?.statements.insert(statement.id);
        }
        self.server()?.owed.push(Owed::Parse(Box::new(ParseInFlight {
            statement: listed.then(|| Rc::clone(statement)),
            change: Some(change),
        })));
        let rest = message.body_len() - name.len() - 1;
        let mut server_name = Vec::with_capacity(48);
        statement.write_server_name(&mut server_name);
        self.make_head(pgimbal_wire::tag::frontend::PARSE, &server_name, rest);
        self.forward_from(message, message.start + HEADER_LEN + name.len() + 1);
        Ok(())
    }

    /// A text above the limit lives on this server connection only, and keeps the session there.
    fn parse_unkept(&mut self, message: Message<'_>, parse: Parse<'_>) -> Step {
        let serial = self.next_unkept();
        let statement = Rc::new(Statement {
            id: serial,
            content: serial,
            body: None,
            settings: 0,
            kind: StatementKind::Plain,
            rows: Cell::new(None),
        });
        let change = self.rename(parse.name, Some(Rc::clone(&statement)));
        self.pin_unkept();
        self.forward_parse(message, parse.name, &statement, change)?;
        self.judge_unkept(message, parse);
        Ok(())
    }

    /// A name that is in use already: PostgreSQL itself says so, and rolls back what it must.
    fn parse_duplicate(&mut self, message: Message<'_>, parse: Parse<'_>) -> Step {
        let mut name = Vec::with_capacity(parse.name.len());
        write_client_name(parse.name, &mut name);
        self.session.close_after_sync.push(name.as_slice().into());
        let server = self.server()?;
        server.owed.push(Owed::Parse(Box::new(ParseInFlight { statement: None, change: None })));
        server.owed.pass();
        self.plan.make_for_server(|out| encode::parse(out, &name, b"", &[0, 0]));
        if name == parse.name {
            self.forward(message);
        } else {
            let rest = message.body_len() - parse.name.len() - 1;
            self.make_head(pgimbal_wire::tag::frontend::PARSE, &name, rest);
            self.forward_from(message, message.start + HEADER_LEN + parse.name.len() + 1);
        }
        Ok(())
    }

    /// Puts a Parse of a kept statement in front of the message that needs it.
    pub(super) fn put_in(&mut self, statement: &Rc<Statement>) -> Step {
        let Some(body) = statement.body.as_deref() else { return Ok(()) };
        self.make_room()?;
        self.pool.stats.parses_put_in += 1;
        let server = self.server()?;
        server.statements.insert(statement.id);
        server.owed.push(Owed::Parse(Box::new(ParseInFlight {
            statement: Some(Rc::clone(statement)),
            change: None,
        })));
        self.plan.make_for_server(|out| {
            encode::message(out, pgimbal_wire::tag::frontend::PARSE, |out| {
                statement.write_server_name(out);
                out.push(0);
                out.extend_from_slice(body);
            });
        });
        Ok(())
    }

    /// Closes the least recently used statements while the server has as many as it may. It has
    /// more for a while when all of them are needed; those that are not sure to be there yet are
    /// waited for.
    fn make_room(&mut self) -> Step {
        let limit = self.pool.config.pool.max_prepared_statements.max(1) as usize;
        loop {
            let server = self.server()?;
            let Some(victim) = server.statements.to_evict(limit, server.transaction) else {
                let unsure = server.statements.len() >= limit && server.statements.any_unsure();
                return if unsure { self.await_owed() } else { Ok(()) };
            };
            server.statements.leave(victim);
            server.owed.push(Owed::Evict(victim));
            let mut name = Vec::with_capacity(48);
            crate::prepared::write_server_name(victim, &mut name);
            self.plan.make_for_server(|out| encode::close(out, encode::NameKind::Statement, &name));
        }
    }

    /// The header and first name of a message whose other `rest` bytes of body pass as they are.
    fn make_head(&mut self, tag: u8, name: &[u8], rest: usize) {
        self.plan.make_for_server(|out| {
            out.push(tag);
            out.extend_from_slice(&((4 + name.len() + 1 + rest) as u32).to_be_bytes());
            out.extend_from_slice(name);
            out.push(0);
        });
    }

    /// A statement that is about to be parsed on another server is from then on one that was
    /// parsed under the settings of that time: nobody else may take it for one under the old ones.
    pub(super) fn under_current_settings(
        &mut self,
        name: &[u8],
        statement: Rc<Statement>,
    ) -> Rc<Statement> {
        let settings = self.tables.parse_fingerprint(self.session.settings.current());
        let Some(body) = statement.body.as_deref().filter(|_| statement.settings != settings)
        else {
            return statement;
        };
        let changes = self.pool.shared.database.schema_changes();
        let kind = statement.kind;
        let current = self.tables.statements.intern(body, settings, changes, |_| kind);
        self.rename(name, Some(Rc::clone(&current)));
        self.refresh_statement_pins();
        current
    }

    /// Whether the server has a statement, once that is sure.
    pub(super) fn found(&mut self, statement: &Statement) -> Result<Found, Stop> {
        if self.server()?.statements.find(statement.id) == Found::Unsure {
            self.await_owed()?;
        }
        Ok(self.server()?.statements.find(statement.id))
    }

    /// Waits until it is sure what the client's `name` means.
    pub(super) fn settled_name(&mut self, name: &[u8]) -> Step {
        let server = self.server()?;
        let unsure = match name {
            [] => server.owed.is_unnamed_unsure(),
            _ => server.owed.is_name_unsure(name),
        };
        if unsure { self.await_owed() } else { Ok(()) }
    }

    pub(crate) fn knows(&self, name: &[u8]) -> bool {
        self.session.statements.as_ref().is_some_and(|known| known.get(name).is_some())
    }

    /// Gives a name another meaning and returns how to undo that.
    pub(super) fn rename(&mut self, name: &[u8], to: Option<Rc<Statement>>) -> NameChange {
        let names = self.session.statements.get_or_insert_default();
        NameChange { name: name.into(), before: names.set(name, to) }
    }

    fn next_unkept(&mut self) -> StatementId {
        self.session.unkept_serial += 1;
        let id = self.session.id;
        // Kept statements have hashes as identities: the pattern cannot be met by accident.
        StatementId(
            (0x7567_6c79_u128 << 96)
                | (u128::from(id.serial) << 64)
                | (u128::from(self.session.unkept_serial) << 16)
                | u128::from(self.tables.worker),
        )
    }

    fn pin_unkept(&mut self) {
        let slot = self.pin_place().unwrap_or(None);
        let mut pins = self.session.pin.statements();
        pins.unkept = true;
        self.session.pin.set_statements(pins, slot);
    }

    /// Looks again at the reasons for a pin that lie in prepared statements.
    pub(super) fn refresh_statement_pins(&mut self) {
        let slot = self.pin_place().unwrap_or(None);
        crate::link::refresh_statement_pins(self.session, self.tables, slot);
    }

    /// Waits until everything owed has come, then goes on.
    pub(super) fn raise_barrier(&mut self) {
        self.session.phase = Phase::Barrier;
    }
}

/// A client's name of a statement that the servers do not know, as it is forwarded: unchanged,
/// unless it looks like one of the proxy's own.
pub(super) fn write_client_name(name: &[u8], out: &mut Vec<u8>) {
    if name.starts_with(SERVER_NAME_PREFIX) {
        out.extend_from_slice(SERVER_NAME_PREFIX);
        out.push(b':');
    }
    out.extend_from_slice(name);
}
