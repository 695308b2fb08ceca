//! A client's Parse.

use std::rc::Rc;

use pgimbal_config::PoolMode;
use pgimbal_wire::encode;
use pgimbal_wire::extended::Parse;
use pgimbal_wire::frame::{HEADER_LEN, Header};

use super::{ClientTurn, Message, Step};
use crate::recovery::effects::SegmentEffects;
use crate::server::Server;
use crate::server::pending::{
    DescribeInFlight, NameChange, NameFor, Origin as Owner, ParseInFlight, Pending, UnnamedBefore,
};
use crate::server::prepared::{ParsedUnder, SERVER_NAME_PREFIX, Statement, StatementId};
use crate::session::front::ReadText;
use crate::session::pin::PinReason;
use crate::session::{ClientBody, LocalSettings, Phase, Unnamed};
use crate::sql::{Classified, Kinds, Scanner};

impl ClientTurn<'_> {
    pub(super) fn parse(&mut self, header: Header) -> Step {
        let limit = self.pool.config.pool.max_statement_bytes;
        let kept = header.total as usize <= limit && self.has_room_for(header.total as usize)?;
        let message = self.held(header, if kept { header.total as usize } else { 0 })?;
        let view = Parse::view(message.body, message.body_len());
        let text = match view {
            Ok(Some(parse)) if kept && message.is_whole() => Some(parse.text),
            _ => None,
        };
        if self.is_refused_ahead(text) {
            return Ok(());
        }
        self.ready_link()?;
        let parse = match view {
            Ok(Some(parse)) => parse,
            Ok(None) => return Err(self.hold_more(message)),
            Err(malformed) => return Err(self.violation(&malformed.to_string())),
        };
        self.settled_name(parse.name)?;
        let mut read = text.map(|text| self.read(text));
        let step = self.parse_read(message, parse, &mut read);
        self.keep_if_waits(message, read);
        step
    }

    /// A Parse whose text was `read`, unless it is not kept. What was read is taken by what becomes
    /// of it.
    fn parse_read(
        &mut self,
        message: Message<'_>,
        parse: Parse<'_>,
        read: &mut Option<ReadText>,
    ) -> Step {
        let total = message.header.total as usize;
        if let Some(known) = read
            && !self.has_room_to_know(total, &known.classified)?
        {
            *read = None;
        }
        let Some(ReadText { classified, .. }) = read else {
            self.admit_unread()?;
            return self.parse_admitted(message, parse, read);
        };
        if self.is_refused(classified) || self.admit(classified)?.is_refused() {
            return Ok(());
        }
        self.await_facts(classified)?;
        self.parse_admitted(message, parse, read)
    }

    fn parse_admitted(
        &mut self,
        message: Message<'_>,
        parse: Parse<'_>,
        read: &mut Option<ReadText>,
    ) -> Step {
        self.server()?.since_ready.segment_open = true;
        let is_duplicate = !parse.name.is_empty() && self.knows(parse.name);
        if let Some(ReadText { classified, .. }) = read {
            if !is_duplicate {
                self.name_for_segment(parse.text, classified)?;
            }
            self.note_in_flight(message.header.total as usize + classified.bytes());
            self.effects = SegmentEffects::of_parse(classified);
        }
        let mut classified = || read.take().map(|read| read.classified);
        if parse.name.is_empty() {
            return self.parse_unnamed(message, parse, classified());
        }
        if self.pool.config.pool.mode == PoolMode::Session {
            // Its names are its own from login to reset.
            return self.parse_in_session_mode(message, parse.name, classified());
        }
        if is_duplicate {
            return self.parse_duplicate(message, parse);
        }
        self.probe_name(parse)?;
        if read.is_none() || self.pool.config.pool.max_prepared_statements == 0 {
            return self.parse_uncached(message, parse);
        }
        self.may_name_another()?;
        self.make_room()?;
        match read.take() {
            Some(read) => self.parse_named(message, parse, read.classified),
            None => Ok(()),
        }
    }

    /// The body of a Parse behind its name, where that differs from what the client sent: names of
    /// pgimbal's own are out of reach.
    fn escaped_body(&self, parse: Parse<'_>, classified: Option<&Classified>) -> Option<Vec<u8>> {
        let escaped = self.escape(parse.text, classified?)?;
        Some([&escaped[..], &[0], parse.param_types.unwrap_or(&[0, 0])].concat())
    }

    fn parse_unnamed(
        &mut self,
        message: Message<'_>,
        parse: Parse<'_>,
        classified: Option<Classified>,
    ) -> Step {
        let before = self.unnamed_before(Owner::Client, parse.text);
        let escaped = self.escaped_body(parse, classified.as_ref());
        match classified {
            Some(classified) => {
                let reused = self.session.unnamed.take().map(|before| before.body);
                let mut body = reused.unwrap_or_default();
                body.clear();
                body.extend_from_slice(escaped.as_deref().unwrap_or(&message.body[1..]));
                let class = classified.into();
                self.session.set_unnamed(Some(Unnamed { body, class, shape: None }));
                if self.session.pin.has(PinReason::LargeStatement) {
                    self.refresh_statement_pins();
                }
            }
            None => {
                self.session.set_unnamed(None);
                self.session.unnamed_is_unkept = true;
                self.refresh_statement_pins();
            }
        }
        let is_unkept = self.session.unnamed_is_unkept;
        let owner = self.session.own_unnamed();
        let server = self.server()?;
        server.unnamed = owner;
        server.pending.push(Pending::Unnamed(Owner::Client, before));
        match escaped {
            Some(body) => self.send_body(message, b"", &body),
            None => self.forward(message),
        }
        if is_unkept {
            self.classify_unkept(message, parse);
        }
        Ok(())
    }

    /// In session mode a statement lives under the client's own name on the one server connection;
    /// what it does is followed for the sake of RESET, which is to bring startup values back.
    fn parse_in_session_mode(
        &mut self,
        message: Message<'_>,
        name: &[u8],
        classified: Option<Classified>,
    ) -> Step {
        match classified.filter(|classified| !classified.is_plain()) {
            Some(classified) => {
                self.may_name_another()?;
                let statement = Statement::of_session(self.next_unkept(), classified);
                let change = Some(self.rename(name, Some(Rc::new(statement))));
                let parse = ParseInFlight { statement: None, change, is_probed: false };
                self.server()?.pending.push(Pending::Parse(Box::new(parse)));
            }
            None => self.server()?.pending.pass(),
        }
        self.forward(message);
        Ok(())
    }

    /// Classifies a text now, or while it passes, because it will not be at hand when it is bound.
    fn classify_unkept(&mut self, message: Message<'_>, parse: Parse<'_>) {
        let mut scanner = Box::new(Scanner::new(self.readings(), self.calls()));
        scanner.feed(parse.text);
        // Behind name and text there is a NUL each.
        if message.body.len() > parse.rest + parse.text.len() {
            self.raise_unfollowed(&scanner.finish());
        } else {
            self.session.body = ClientBody::Text(message.missing(), scanner);
        }
    }

    /// What a request of the unnamed statement is undone to, should it be skipped; `None` if it
    /// cannot be.
    pub(super) fn unnamed_before(
        &mut self,
        origin: Owner,
        text: &[u8],
    ) -> Option<Box<UnnamedBefore>> {
        // A text that cannot be converted is refused before anything is destroyed.
        let may_not_happen = |server: &&mut Server| server.pending.may_skip() || !text.is_ascii();
        let server = self.server.as_deref_mut().filter(may_not_happen)?;
        let session = &mut self.session;
        let client =
            (origin == Owner::Client).then(|| (session.unnamed.take(), session.unnamed_is_unkept));
        Some(Box::new(UnnamedBefore { client, server: server.unnamed }))
    }

    /// Keeps a statement whose Parse was answered without a server: it is reprepared where it is
    /// bound.
    pub(crate) fn keep_unsent(
        &mut self,
        message: Message<'_>,
        parse: Parse<'_>,
        classified: Classified,
    ) {
        if !message.is_whole() || self.pool.config.pool.max_prepared_statements == 0 {
            return;
        }
        let body = &message.body[parse.rest..];
        if !self.may_keep_unsent(message.header.total as usize + classified.bytes()) {
            return;
        }
        let class = classified.into();
        if parse.name.is_empty() {
            let unnamed = Unnamed { body: body.to_vec(), class, shape: None };
            return self.session.set_unnamed(Some(unnamed));
        }
        let settings = self.tables.parse_fingerprint(self.session.settings.current());
        let changes = self.pool.shared.database.schema_changes();
        let statement = self.tables.statements.parse(body, settings, changes, class);
        self.note_parsed_under(&statement);
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

    /// A text that is kept, and for whose statement there is room: any server can be given it, so
    /// its statement can be shared.
    fn parse_named(
        &mut self,
        message: Message<'_>,
        parse: Parse<'_>,
        classified: Classified,
    ) -> Step {
        let escaped = self.escaped_body(parse, Some(&classified));
        let body = escaped.as_deref().unwrap_or(&message.body[parse.rest..]);
        let settings = self.parsed_under();
        let changes = self.pool.shared.database.schema_changes();
        let class = classified.into();
        let statement = self.tables.statements.parse(body, settings, changes, class);
        if self.settings_are_known() {
            self.note_parsed_under(&statement);
        }
        let change = self.rename(parse.name, Some(Rc::clone(&statement)));
        self.forward_parse(message, parse, &statement, change, escaped)?;
        // Whether an older statement may be shared instead depends on what the rows look like.
        let mut server_name = Vec::with_capacity(48);
        statement.write_server_name(&mut server_name);
        self.plan.make_for_server(|out| {
            encode::describe(out, encode::NameKind::Statement, &server_name);
        });
        let describe = DescribeInFlight { name: parse.name.into(), statement, parameters: None };
        self.server()?.pending.push(Pending::Describe(Box::new(describe)));
        Ok(())
    }

    /// The settings under which the server parses what is sent now. A statement that is parsed
    /// under settings that are not known is its client's own.
    fn parsed_under(&mut self) -> ParsedUnder {
        match self.session.local {
            LocalSettings::Known if self.settings_are_known() => {
                self.tables.parse_fingerprint(self.session.settings.current())
            }
            LocalSettings::Known | LocalSettings::Unknown => {
                let table = &self.tables;
                let known = table.parse_fingerprint(self.session.settings.current());
                let settings = &self.session.settings;
                let may_change = [settings.after_commit(), settings.after_rollback()]
                    .into_iter()
                    .any(|later| known.is_fixed_otherwise(table.parse_fingerprint(later)));
                match known {
                    // What is known of them may no longer hold.
                    ParsedUnder::Settings { fixed, .. } if may_change => {
                        ParsedUnder::Settings { all: self.next_unkept().0 as u64, fixed }
                    }
                    _ => ParsedUnder::Unknown,
                }
            }
            LocalSettings::Named => {
                let unique = self.next_unkept().0 as u64;
                ParsedUnder::Settings { all: unique, fixed: unique }
            }
        }
    }

    /// The statement is parsed under the present settings.
    pub(super) fn note_parsed_under(&self, statement: &Statement) {
        let table = &self.tables.settings;
        let current = table.parse_affecting(self.session.settings.current());
        let _ = statement.parsed_under.set(table.shared(current));
    }

    /// Whether it is known under which settings the server parses what is sent now.
    pub(super) fn settings_are_known(&self) -> bool {
        self.session.local == LocalSettings::Known && !self.session.raised.meets(Kinds::SETTINGS)
    }

    fn forward_parse(
        &mut self,
        message: Message<'_>,
        parse: Parse<'_>,
        statement: &Rc<Statement>,
        change: NameChange,
        escaped: Option<Vec<u8>>,
    ) -> Step {
        // One without a kept text is this session's alone and must not be evicted: it is not
        // listed.
        let listed = statement.body.is_some();
        if listed {
            self.make_room()?;
            self.server()?.statements.insert(statement.id);
        }
        let is_probed = self.has_unread_statements();
        self.server()?.pending.push(Pending::Parse(Box::new(ParseInFlight {
            statement: listed.then(|| Rc::clone(statement)),
            change: Some(change),
            is_probed,
        })));
        let mut server_name = Vec::with_capacity(48);
        statement.write_server_name(&mut server_name);
        if let Some(body) = escaped {
            self.send_body(message, &server_name, &body);
            return Ok(());
        }
        let rest = message.body_len() - parse.rest;
        self.make_head(pgimbal_wire::tag::frontend::PARSE, &server_name, rest);
        self.forward_from(message, message.start + HEADER_LEN + parse.rest);
        Ok(())
    }

    /// Sends a Parse under `name` with this body behind it in place of the client's.
    fn send_body(&mut self, message: Message<'_>, name: &[u8], body: &[u8]) {
        self.plan.make_for_server(|out| {
            encode::message(out, pgimbal_wire::tag::frontend::PARSE, |out| {
                out.extend_from_slice(name);
                out.push(0);
                out.extend_from_slice(body);
            });
        });
        self.at = message.end();
    }

    /// A text above the limit lives on this server connection only, and keeps the session there.
    fn parse_uncached(&mut self, message: Message<'_>, parse: Parse<'_>) -> Step {
        self.may_name_another()?;
        let statement = Rc::new(Statement::large(self.next_unkept()));
        let change = self.rename(parse.name, Some(Rc::clone(&statement)));
        self.refresh_statement_pins();
        self.forward_parse(message, parse, &statement, change, None)?;
        self.classify_unkept(message, parse);
        Ok(())
    }

    /// A name that is in use already: PostgreSQL itself says so, and rolls back what it must.
    fn parse_duplicate(&mut self, message: Message<'_>, parse: Parse<'_>) -> Step {
        let mut name = Vec::with_capacity(parse.name.len());
        write_client_name(parse.name, &mut name);
        let is_temporary = self.is_temporary(&name);
        if !is_temporary {
            self.server()?
                .pending
                .push(Pending::TemporaryName(NameFor::Probe, Some(name.as_slice().into())));
            self.close_later(name.as_slice().into());
            self.plan.make_for_server(|out| encode::parse(out, &name, b"", &[0, 0]));
        }
        self.server()?.pending.pass();
        if name == parse.name {
            self.forward(message);
        } else {
            let rest = message.body_len() - parse.rest;
            self.make_head(pgimbal_wire::tag::frontend::PARSE, &name, rest);
            self.forward_from(message, message.start + HEADER_LEN + parse.rest);
        }
        Ok(())
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

    /// Waits until it is sure what the client's `name` means.
    pub(super) fn settled_name(&mut self, name: &[u8]) -> Step {
        let server = self.server()?;
        let unsure = match name {
            [] => server.pending.is_unnamed_unsure(),
            _ => server.pending.is_name_unsure(name),
        };
        if unsure { self.await_replies() } else { Ok(()) }
    }

    pub(crate) fn knows(&self, name: &[u8]) -> bool {
        self.session.statements.as_ref().is_some_and(|known| known.get(name).is_some())
    }

    /// Gives a name another meaning and returns how to undo that.
    pub(super) fn rename(&mut self, name: &[u8], to: Option<Rc<Statement>>) -> NameChange {
        let names = self.session.statements.get_or_insert_default();
        NameChange { name: name.into(), before: names.set(name, to) }
    }

    pub(super) fn next_unkept(&mut self) -> StatementId {
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

    /// Looks again at the reasons for a pin that lie in prepared statements.
    pub(super) fn refresh_statement_pins(&mut self) {
        crate::session::setup::refresh_statement_pins(
            self.session,
            self.pool,
            self.tables,
            self.now,
        );
    }

    /// Waits until every pending reply has come, then goes on.
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
