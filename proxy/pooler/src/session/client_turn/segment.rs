//! Where the segment at the front of what a client has sent goes (its messages up to a Sync, Flush
//! or simple query), if that is chosen by what it says: the session's route is `auto`, or a comment
//! in front of a text names one. On a replica that was chosen so, each segment is served alone, and
//! only what reads is let through.

use pgimbal_config::{PoolMode, ReadUnparsed, Route};
use pgimbal_reads::Reason;
use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::extended::{Bind, Parse, StatementOrPortal};
use pgimbal_wire::frame::{self, HEADER_LEN, Header};
use pgimbal_wire::tag::frontend;

use super::turn::{ClientTurn, Step};
use crate::cluster::decided::Text;
use crate::cluster::parsing::Parsing;
use crate::cluster::route::{self, ROUTE_SETTING};
use crate::cluster::texts::{Texts, names_set};
use crate::plan::{HOLD_LIMIT, Stop};
use crate::pool::Pool;
use crate::server::pending::Pending;
use crate::server::prepared::{Origin, Statement};
use crate::session::routing::{Approval, Chosen, ChosenBy, Routing, Why};
use crate::session::writing::Wrote;
use crate::session::{Link, Phase, Session};
use crate::sql::{self, BlockAccess, BlockIsolation, BlockMode, Readings};
use crate::tables::Tables;

/// Chooses where the message at the front goes, before it has a server connection, or looks whether
/// it may go where the session is.
///
/// # Errors
/// [`Stop::Need`] until the segment is here, as far as it is looked at; [`Stop::Wait`] and
/// [`Stop::Leave`] if it goes elsewhere than what is in front of it.
pub(super) fn place(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    // In session mode all of a session has one server connection.
    if turn.pool.replicas().is_empty() || turn.pool.config().pool.mode == PoolMode::Session {
        return Ok(());
    }
    match turn.session.link {
        Link::Unlinked if header.tag != frontend::CLOSE => choose(turn, header),
        Link::Ready(_) => match turn.session.routing() {
            Some(routing) if routing.approval() == Approval::No => stay(turn, header),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A message was taken: what follows the end of a segment, or a Flush, has not been looked at.
pub(super) fn taken(session: &mut Session, tag: u8) {
    let ends = matches!(tag, frontend::SYNC | frontend::FLUSH | frontend::QUERY);
    if let Some(routing) = session.routing_mut().filter(|_| ends) {
        routing.set_approval(Approval::No);
    }
}

fn choose(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    let own = route::route_of(turn.session, turn.pool, turn.tables);
    let by_text = route_by_comment(turn, header);
    let chosen = match by_text.unwrap_or(own) {
        Route::Auto => Some(choose_by_segment(turn, header)?),
        route if by_text.is_some() => Some(Chosen { route, by: ChosenBy::Text, why: Why::Comment }),
        Route::Primary | Route::Replica => None,
    };
    if chosen.is_none() && turn.session.routing().is_none() {
        return Ok(());
    }
    turn.session.routing_or_new().choose(chosen);
    note_chosen(turn.session, chosen);
    Ok(())
}

/// What only reads is no write, wherever it is served.
fn note_chosen(session: &mut Session, chosen: Option<Chosen>) {
    let reads = chosen.is_some_and(|chosen| matches!(chosen.why, Why::Read | Why::ReadOnly));
    session.writing_mut().set(if reads { Wrote::No } else { Wrote::Perhaps });
}

fn choose_by_segment(turn: &mut ClientTurn<'_>, header: Header) -> Result<Chosen, Stop> {
    let chosen = |route, why| Chosen { route, by: ChosenBy::Auto, why };
    if turn.session.routing().is_some_and(|routing| routing.was_refused()) {
        return Ok(chosen(Route::Primary, Why::Refused));
    }
    Ok(match look_at(turn, header)? {
        Segment::Reads => chosen(Route::Replica, Why::Read),
        Segment::ReadOnly => chosen(Route::Replica, Why::ReadOnly),
        Segment::Not(Why::BeingParsed)
            if turn.pool.config().read_unparsed == ReadUnparsed::Wait =>
        {
            turn.session.set_link(Link::AwaitingRead(turn.now));
            turn.tables.parsing.add_waiting(turn.session.id());
            return Err(Stop::Wait);
        }
        Segment::Not(why) => chosen(Route::Primary, why),
    })
}

/// The session has a server connection, and the message at the front was not looked at.
fn stay(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    if is_in_block(turn) {
        let counts_as_read = turn.session.writing().wrote() == Wrote::No;
        if counts_as_read && !turn.session.reads_elsewhere() && may_write_in_block(turn, header) {
            turn.session.writing_mut().set(Wrote::Perhaps);
        }
        return Ok(());
    }
    if !turn.session.reads_elsewhere() {
        return count_at_home(turn, header);
    }
    let Some(server) = turn.server.as_deref_mut() else { return Err(Stop::Checkout) };
    if server.has_open_segment() {
        if is_about_bound(header.tag) {
            return Ok(());
        }
        if look_at(turn, header)? == Segment::Reads {
            turn.session.routing_or_new().set_approval(Approval::Yes);
            return Ok(());
        }
    }
    leave(turn)
}

/// Whether a message is about what was parsed and bound before it: a COMMIT that is bound has yet to
/// run where its transaction is.
const fn is_about_bound(tag: u8) -> bool {
    use frontend::{CLOSE, DESCRIBE, EXECUTE, FLUSH, SYNC};
    matches!(tag, EXECUTE | DESCRIBE | CLOSE | FLUSH | SYNC)
}

/// On the primary everything is let through; it is noted whether it only reads.
fn count_at_home(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    let Some(chosen) = turn.session.routing().and_then(|routing| routing.chosen()) else {
        return Ok(());
    };
    let reads = chosen.why == Why::Read && look_at(turn, header)? == Segment::Reads;
    let chosen = reads.then_some(chosen);
    turn.session.routing_or_new().choose(chosen);
    note_chosen(turn.session, chosen);
    Ok(())
}

/// Whether a transaction block is open, or going to be, in front of the next message.
fn is_in_block(turn: &ClientTurn<'_>) -> bool {
    turn.server.as_deref().is_some_and(|server| {
        let was_open = server.status() != TransactionStatus::Idle;
        let in_flight = server.in_flight();
        in_flight.open_block().leaves_open(in_flight.leaves_open(was_open))
    })
}

/// Gives the replica back in front of a message that is served elsewhere, once it has answered.
fn leave(turn: &mut ClientTurn<'_>) -> Step {
    let Some(server) = turn.server.as_deref_mut() else { return Err(Stop::Checkout) };
    if server.has_open_segment() {
        // What was sent since the last Sync has only read.
        server.pending_mut().push(Pending::OwnSync);
        server.statements_mut().end_segment();
        server.close_segment();
        turn.plan.make_for_server(encode::sync);
    }
    if !server.is_settled() {
        turn.session.set_phase(Phase::Barrier);
        return Err(Stop::Wait);
    }
    if turn.session.pin.is_set() || !turn.session.raised.is_empty() {
        // What a READ ONLY transaction has left here must not keep the session from the primary.
        let left = turn.session.pin.leaves().union(turn.session.raised);
        server.residue_mut().insert(left);
        turn.session.pin.clear();
        *turn.session.raised_mut() = sql::Kinds::NONE;
    }
    Err(Stop::Leave)
}

/// The route that a comment names in front of the text of the message at the front.
fn route_by_comment(turn: &ClientTurn<'_>, header: Header) -> Option<Route> {
    let text = front_text(turn, header)?;
    sql::set_by_comment(text, ROUTE_SETTING).and_then(route::route_named)
}

/// Whether the message at the front may write, although a READ ONLY transaction block is open or
/// going to be: it may set that anew, end the block and go on, or find that it was never begun.
fn may_write_in_block(turn: &ClientTurn<'_>, header: Header) -> bool {
    let begun = turn.server.as_deref().is_some_and(|it| it.status() != TransactionStatus::Idle);
    let is_here = turn.buf.len() - turn.at >= header.total as usize;
    let text = front_text(turn, header).unwrap_or_default();
    !begun || !is_here || names_set(text) || names_write(text) || goes_on(text)
}

/// Whether a text may begin a transaction as READ WRITE, which changes the one that is open.
fn names_write(text: &[u8]) -> bool {
    text.windows(5).any(|word| word.eq_ignore_ascii_case(b"write"))
}

/// Whether a text may have more than one statement.
fn goes_on(text: &[u8]) -> bool {
    let is_end = |byte: &u8| matches!(byte, b';' | b'\0') || byte.is_ascii_whitespace();
    let end = text.iter().rposition(|byte| !is_end(byte)).unwrap_or(0);
    text[..end].contains(&b';')
}

/// The text that the message at the front brings or binds, as far as it is here.
fn front_text<'a>(turn: &'a ClientTurn<'_>, header: Header) -> Option<&'a [u8]> {
    let rest = &turn.buf[turn.at..];
    let body = rest.get(HEADER_LEN..(header.total as usize).min(rest.len()))?;
    let len = header.body_len() as usize;
    match header.tag {
        frontend::QUERY => Some(body),
        frontend::PARSE => Some(Parse::view(body, len).ok()??.text),
        frontend::BIND => text_of(turn.session, Bind::view(body, len).ok()??.statement),
        _ => None,
    }
}

/// The text of the client's prepared statement of this name, if it is known.
pub(crate) fn text_of<'s>(session: &'s Session, name: &[u8]) -> Option<&'s [u8]> {
    if name.is_empty() {
        let body = &session.unnamed.as_ref()?.body;
        let end = body.iter().position(|&byte| byte == 0)?;
        return Some(&body[..end]);
    }
    Some(named(session, name)?.text())
}

/// The client's named statement whose text is known.
fn named<'s>(session: &'s Session, name: &[u8]) -> Option<&'s Statement> {
    let statement = session.statements.as_ref()?.get(name)?;
    (statement.origin == Origin::Parse && statement.body.is_some()).then_some(statement)
}

/// How the session's transactions begin unless they say otherwise.
fn defaults_of(session: &Session, tables: &Tables) -> BlockMode {
    const READ_ONLY: &[u8] = b"default_transaction_read_only";
    const ISOLATION: &[u8] = b"default_transaction_isolation";
    let set = |name| tables.settings.get(session.settings().current(), name);
    let is =
        |value: &[u8], words: &[&[u8]]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
    let told = session.routing().and_then(Routing::told);
    // PostgreSQL 14 and later report it.
    let is_read_only = match told.unwrap_or(session.reported()).get(READ_ONLY) {
        Some(value) => value == b"on",
        None => set(READ_ONLY)
            .is_some_and(|value| is(value, &[b"on", b"true", b"yes", b"1", b"t", b"y"])),
    };
    let is_serializable = set(ISOLATION).is_some_and(|value| is(value, &[b"serializable"]));
    BlockMode {
        access: if is_read_only { BlockAccess::ReadOnly } else { BlockAccess::ReadWrite },
        isolation: match is_serializable {
            true => BlockIsolation::Serializable,
            false => BlockIsolation::Other,
        },
    }
}

/// What the messages of a segment do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    /// Every text only reads.
    Reads,
    /// It begins a READ ONLY transaction, which is served as a whole.
    ReadOnly,
    /// The primary has to serve it.
    Not(Why),
}

/// Looks at the messages at the front up to a Sync, Flush or simple query.
///
/// # Errors
/// [`Stop::Need`] while one of them is not here.
fn look_at(turn: &mut ClientTurn<'_>, first: Header) -> Result<Segment, Stop> {
    let (buf, start) = (turn.buf, turn.at);
    let mut look = Look::new(turn);
    let (mut at, mut header) = (start, Some(first));
    loop {
        let rest = &buf[at..];
        let whole = header.filter(|header| header.total as usize <= rest.len());
        let Some(message) = whole else {
            let missing = header.map_or(HEADER_LEN, |header| header.total as usize);
            let wanted = at - start + missing;
            return match wanted > HOLD_LIMIT {
                true => Ok(Segment::Not(Why::Long)),
                false => Err(Stop::Need(wanted as u32)),
            };
        };
        let total = message.total as usize;
        match look.message(message, &rest[HEADER_LEN..total]) {
            Ok(Goes::On) => {}
            Ok(Goes::Ends) => return Ok(look.segment),
            Err(why) => return Ok(Segment::Not(why)),
        }
        at += total;
        header = match frame::peek(&buf[at..]) {
            Ok(header) => header,
            Err(_) => return Ok(Segment::Not(Why::OtherMessage)),
        };
    }
}

/// Whether a segment has a message behind this one.
enum Goes {
    On,
    Ends,
}

/// What was found so far of a segment.
struct Look<'a, 't> {
    session: &'a Session,
    pool: &'a mut Pool,
    parsing: &'a mut Parsing,
    readings: Readings,
    defaults: BlockMode,
    /// The statements that were parsed in the segment.
    parsed: Vec<(&'t [u8], Text)>,
    in_block: bool,
    segment: Segment,
}

impl<'a, 't> Look<'a, 't> {
    fn new(turn: &'a mut ClientTurn<'t>) -> Self {
        let readings = turn.readings();
        let ClientTurn { session, pool, tables, .. } = turn;
        let defaults = defaults_of(session, tables);
        let (parsed, in_block, segment) = (Vec::new(), false, Segment::Reads);
        let parsing = &mut tables.parsing;
        Self { session, pool, parsing, readings, defaults, parsed, in_block, segment }
    }

    /// Takes the next message, which is here as a whole.
    fn message(&mut self, header: Header, body: &'t [u8]) -> Result<Goes, Why> {
        let len = header.body_len() as usize;
        match header.tag {
            frontend::SYNC | frontend::FLUSH => return Ok(Goes::Ends),
            frontend::QUERY => {
                let text = body.strip_suffix(b"\0").ok_or(Why::OtherMessage)?;
                let does = self.text(text);
                self.run(does)?;
                return Ok(Goes::Ends);
            }
            frontend::PARSE => {
                let Ok(Some(parse)) = Parse::view(body, len) else {
                    return Err(Why::OtherMessage);
                };
                let does = self.text(parse.text);
                if let Text::Not(why) = does
                    && !self.in_block
                {
                    return Err(why);
                }
                self.parsed.push((parse.name, does));
            }
            frontend::BIND => {
                let Ok(Some(bind)) = Bind::view(body, len) else {
                    return Err(Why::OtherMessage);
                };
                let does = self.statement(bind.statement);
                self.run(does)?;
            }
            frontend::DESCRIBE => {
                if let Ok(Some(StatementOrPortal::Statement(name))) =
                    StatementOrPortal::view(body, len)
                    && let Text::Not(why) = self.statement(name)
                    && !self.in_block
                {
                    return Err(why);
                }
            }
            frontend::EXECUTE | frontend::CLOSE => {}
            _ => return Err(Why::OtherMessage),
        }
        Ok(Goes::On)
    }

    /// A text is run.
    fn run(&mut self, does: Text) -> Result<(), Why> {
        match does {
            Text::Begins => {
                self.in_block = true;
                self.segment = Segment::ReadOnly;
            }
            Text::Block => self.segment = Segment::ReadOnly,
            Text::Ends if self.in_block => self.in_block = false,
            Text::Ends => return Err(Why::NotRead(Reason::Statement.as_str())),
            Text::Not(why @ Why::Setting) => return Err(why),
            Text::Not(why) if !self.in_block => return Err(why),
            Text::Reads | Text::Not(_) => {}
        }
        Ok(())
    }

    /// What the client's prepared statement of this name does.
    fn statement(&mut self, name: &[u8]) -> Text {
        let mut parsed = self.parsed.iter().rev();
        if let Some((_, does)) = parsed.find(|(known, _)| *known == name) {
            return *does;
        }
        match (named(self.session, name), text_of(self.session, name)) {
            (Some(statement), Some(text)) => self.prepared(statement, text),
            (None, Some(text)) => self.text(text),
            (_, None) => Text::Not(Why::UnknownStatement),
        }
    }

    /// A prepared statement that is kept with what it does.
    fn prepared(&mut self, statement: &Statement, text: &[u8]) -> Text {
        let manner = (self.readings, self.defaults);
        let known = statement.last_decided.get(manner, |basis| self.pool.is_read_basis(basis));
        if let Some(does) = known {
            return does;
        }
        let does = self.text(text);
        if !matches!(does, Text::Not(Why::BeingParsed | Why::NotParsed)) {
            statement.last_decided.set(self.pool.read_basis(), manner, does);
        }
        does
    }

    fn text(&mut self, text: &[u8]) -> Text {
        let (readings, defaults) = (self.readings, self.defaults);
        Texts { pool: &mut *self.pool, parsing: &mut *self.parsing, readings, defaults }.does(text)
    }
}
