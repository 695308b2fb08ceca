//! A client's simple query.

use pgimbal_config::PoolMode;
use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::{Report, SqlState};
use pgimbal_wire::frame::Header;

use super::{ClientTurn, Message, Step};
use crate::effect::{Effect, Effects};
use crate::owed::{Owed, ParseInFlight};
use crate::plan::Stop;
use crate::prepared::StatementKind;
use crate::server::{Body, Ending, UnnamedStatement};
use crate::session::{ClientBody, Phase};
use crate::shared::PinSlot;
use crate::text::{self, Chain, Scanner, Statement, Statements, Taint, Taints, Verdict};

/// Why a text is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// BEGIN in statement pooling.
    TransactionBlock,
    /// As many sessions of the pool are pinned as may be.
    PinsExhausted,
}

impl Refusal {
    const fn report(self) -> Report<'static> {
        match self {
            Self::TransactionBlock => Report::error(
                SqlState::FEATURE_NOT_SUPPORTED,
                "transaction blocks are not allowed in statement pooling",
            )
            .hint("Use a pool in transaction mode (pool_mode = \"transaction\")."),
            Self::PinsExhausted => Report::error(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                "too many sessions of this pool keep their server connection",
            )
            .detail("The statement would tie session state to one server connection.")
            .hint("See SHOW CLIENTS for who is pinned and why, or raise max_pinned."),
        }
    }
}

impl ClientTurn<'_> {
    pub(super) fn query(&mut self, header: Header) -> Step {
        let message = self.linked(header, 0)?;
        self.settled_name(&[])?;
        if !message.is_whole() {
            return self.long_query(message);
        }
        let Some((0, text)) = message.body.split_last() else {
            return Err(self.violation("invalid string in message"));
        };
        let mut verdict = text::judge(text, self.reading());
        let effects = self.effects_of(text, &mut verdict);
        let slot = match self.admit(&verdict) {
            Ok(slot) => slot,
            Err(refusal) => return self.refuse_query(message, refusal),
        };
        self.note_verdict(&verdict, slot);
        if let [Effect::Deallocate(name)] = &effects[..] {
            self.lend_name(name)?;
        }
        self.send_query(message, effects);
        Ok(())
    }

    /// What a text will have done once it has succeeded. A longer one of which that can be said
    /// taints nothing.
    fn effects_of(&self, text: &[u8], verdict: &mut Verdict<'_>) -> Vec<Effect> {
        match &verdict.statements {
            Statements::One(statement) => Effect::of(statement).into_iter().collect(),
            Statements::Many if !verdict.taints.is_empty() => {
                let Some(sequence) = text::sequence(text, self.reading()) else {
                    return Vec::new();
                };
                let effects: Vec<Effect> = sequence.iter().filter_map(Effect::of).collect();
                // The servers know a client's statement under another name: one at a time.
                if effects.iter().any(|effect| matches!(effect, Effect::Deallocate(_))) {
                    return Vec::new();
                }
                verdict.taints = Taints::NONE;
                effects
            }
            _ => Vec::new(),
        }
    }

    /// A FunctionCall is answered as a query is.
    pub(super) fn function_call(&mut self, header: Header) -> Step {
        let message = self.linked(header, 0)?;
        if !is_large_object(message.body) {
            // The protocol shows a number; what the function does to the session, nobody can see.
            match self.pin_place() {
                Ok(slot) => self.session.pin.taint(Taint::SessionFunction.into(), slot),
                Err(()) => return self.refuse_query(message, Refusal::PinsExhausted),
            }
        }
        let server = self.server()?;
        server.owed.push(Owed::Query(None));
        server.since_ready.segment_open = false;
        self.pool.stats.queries += 1;
        self.forward(message);
        Ok(())
    }

    /// Whether the pool lets a text through, with the place for a session that it pins.
    pub(super) fn admit(&self, verdict: &Verdict<'_>) -> Result<Option<PinSlot>, Refusal> {
        if self.pool.config.pool.mode == PoolMode::Statement && verdict.marks.begins() {
            return Err(Refusal::TransactionBlock);
        }
        if verdict.taints.is_empty() {
            return Ok(None);
        }
        self.pin_place().map_err(|()| Refusal::PinsExhausted)
    }

    /// Notes what a text that is let through means for session and server connection.
    pub(super) fn note_verdict(&mut self, verdict: &Verdict<'_>, slot: Option<PinSlot>) {
        if !verdict.taints.is_empty() {
            self.session.pin.taint(verdict.taints, slot);
        }
        if let Some(server) = self.server.as_deref_mut() {
            server.since_ready.ending = ending(server.since_ready.ending, verdict);
            server.schema_change |= verdict.marks.may_change_schema();
        }
    }

    fn send_query(&mut self, message: Message<'_>, effects: Vec<Effect>) {
        // A simple query destroys the unnamed statement.
        let was_unkept = self.session.unnamed_is_unkept;
        self.session.set_unnamed(None);
        if was_unkept {
            self.refresh_statement_pins();
        }
        if !effects.is_empty() {
            self.session.phase = Phase::Barrier;
        }
        if let Some(server) = self.server.as_deref_mut() {
            // A query in a segment that fails in front of it is skipped: the server keeps whatever
            // it has.
            server.unnamed = match server.owed.may_skip() {
                true => UnnamedStatement::Foreign,
                false => UnnamedStatement::Absent,
            };
            let effects = (!effects.is_empty()).then(|| Box::new(Effects(effects)));
            server.owed.push(Owed::Query(effects));
            // Its own end settles what came before it, too.
            server.since_ready.segment_open = false;
        }
        self.pool.stats.queries += 1;
        self.forward(message);
    }

    /// A text above the limit passes while it is judged; nothing of it can be refused any more.
    fn long_query(&mut self, message: Message<'_>) -> Step {
        let mut scanner = Box::new(Scanner::new(self.reading()));
        scanner.feed(message.body);
        self.send_query(message, Vec::new());
        self.session.body = ClientBody::Text(message.missing(), scanner);
        Ok(())
    }

    /// The end of a long text has passed; so many bytes of its message are to come.
    pub(super) fn long_text_ended(&mut self, left: u32) {
        let rest = if left > 0 { Body::Forward(left) } else { Body::None };
        let body = std::mem::replace(&mut self.session.body, ClientBody::Plain(rest));
        if let ClientBody::Text(_, mut scanner) = body {
            self.note_unfollowed(&scanner.finish());
        }
    }

    /// Notes what a text means that is on its way, refused or not, and of which it is not followed
    /// when it is run: the session is pinned, beyond the limit if need be.
    pub(super) fn note_unfollowed(&mut self, verdict: &Verdict<'_>) {
        let slot = self.pin_place().unwrap_or(None);
        self.note_verdict(verdict, slot);
        let Statements::One(statement) = &verdict.statements else { return };
        if Effect::of(statement).is_some() {
            let slot = self.pin_place().unwrap_or(None);
            self.session.pin.taint(Taint::Unjudged.into(), slot);
        }
    }

    /// Answers a query that is not let through. Inside a transaction the server must raise the
    /// error, so that the transaction fails as it would on PostgreSQL.
    fn refuse_query(&mut self, message: Message<'_>, refusal: Refusal) -> Step {
        let report = refusal.report();
        self.await_owed()?;
        let server = self.server()?;
        let is_alone = server.status == TransactionStatus::Idle && !server.since_ready.segment_open;
        self.at = message.end();
        if is_alone {
            self.pool.stats.error(report.code);
            self.plan.make_for_client(|out| {
                report.encode_error(out);
                encode::ready_for_query(out, TransactionStatus::Idle);
            });
        } else {
            self.session.set_unnamed(None);
            let server = self.server()?;
            server.unnamed = UnnamedStatement::Absent;
            server.owed.push(Owed::Query(None));
            server.since_ready.segment_open = false;
            self.plan.make_for_server(|out| encode::query(out, &raising(&report)));
        }
        Ok(())
    }

    /// Stops in front of a message that depends on what is owed.
    pub(super) fn await_owed(&mut self) -> Step {
        let server = self.server()?;
        if server.owed.is_empty() {
            return Ok(());
        }
        if server.since_ready.segment_open {
            // Without it the server may sit on the replies for which we wait.
            self.plan.make_for_server(encode::flush);
        }
        self.session.phase = Phase::Barrier;
        Err(Stop::Full)
    }

    /// Bind of a statement that is not let through: the server raises the error when it runs.
    pub(super) fn refuse_bind(&mut self, portal: &[u8], refusal: Refusal) -> Step {
        const NAME: &[u8] = b"pgimbal_refusal";
        let report = refusal.report();
        let server = self.server()?;
        server.owed.swallow(1);
        server.owed.push(Owed::Parse(Box::new(ParseInFlight { statement: None, change: None })));
        server.owed.pass();
        self.plan.make_for_server(|out| {
            encode::close(out, encode::NameKind::Statement, NAME);
            encode::parse(out, NAME, &raising(&report), &[0, 0]);
            encode::bind_head(out, portal, NAME, 6);
            out.extend_from_slice(&[0; 6]);
        });
        Ok(())
    }

    /// The client names a statement that the servers know under another name: lends the linked
    /// server the client's name, so that PostgreSQL itself judges what the client does with it.
    ///
    /// Nothing may be owed then: in a transaction that fails meanwhile the name would stay.
    pub(super) fn lend_name(&mut self, name: &[u8]) -> Step {
        self.settled_name(name)?;
        if !self.knows(name) {
            return Ok(());
        }
        self.await_owed()?;
        let server = self.server()?;
        // In an open segment the failed transaction may have ended already.
        if server.status != TransactionStatus::Failed || server.since_ready.segment_open {
            server
                .owed
                .push(Owed::Parse(Box::new(ParseInFlight { statement: None, change: None })));
            self.plan.make_for_server(|out| encode::parse(out, name, b"", &[0, 0]));
        }
        Ok(())
    }
}

/// Whether a FunctionCall is one of the large-object functions that drivers call so: they are bound
/// to the transaction. OIDs of built-in functions never change (pg_proc.dat).
fn is_large_object(body: &[u8]) -> bool {
    let Some(oid) = body.first_chunk::<4>() else { return true };
    matches!(
        u32::from_be_bytes(*oid),
        715 | 764 | 945 | 952..=958 | 964 | 1004 | 3170..=3172 | 3457..=3460
    )
}

/// What a text adds to what is known of the end of a transaction block.
fn ending(before: Ending, verdict: &Verdict<'_>) -> Ending {
    let rolls_back =
        matches!(verdict.statements, Statements::One(Statement::Rollback { chain: Chain::No }));
    match before {
        _ if !verdict.marks.may_commit() => before,
        Ending::No if rolls_back => Ending::Rollback,
        _ => Ending::MayCommit,
    }
}

/// What a text means when a statement of it is executed.
pub(super) fn kind_of(verdict: &Verdict<'_>) -> StatementKind {
    let effect = match &verdict.statements {
        Statements::One(statement) => Effect::of(statement).is_some(),
        _ => false,
    };
    let marks = verdict.marks;
    if effect
        || !verdict.taints.is_empty()
        || marks.may_commit()
        || marks.begins()
        || marks.may_change_schema()
    {
        StatementKind::Special
    } else {
        StatementKind::Plain
    }
}

/// A statement that raises `report` on the server.
fn raising(report: &Report<'_>) -> Vec<u8> {
    let text = |text: Option<&str>| text.unwrap_or_default().replace('\'', "''");
    format!(
        "DO $pgimbal$BEGIN RAISE EXCEPTION USING ERRCODE = '{}', MESSAGE = '{}', DETAIL = '{}', HINT = '{}'; END$pgimbal$",
        report.code.as_str(),
        text(Some(report.message)),
        text(report.detail),
        text(report.hint),
    )
    .into_bytes()
}
