//! The query by which a node is probed, and its answer.

use std::fmt;

use pgimbal_pooler::topology::{Lsn, Report, Role, SystemId, TimelineId};
use pgimbal_wire::encode;
use pgimbal_wire::error::{ErrorFields, Severity, SqlState};
use pgimbal_wire::tag::backend;

use crate::transport::{Broken, Conversation};

/// Role, timeline and position come from one CASE, because a promotion may happen between two
/// looks, and what belongs to the other role fails with 55000. Qualified names, since the role or
/// the database may have a search_path of its own.
///
/// A standby's timeline is the greatest of three: `received_tli` is NULL without a receiver or
/// without pg_read_all_stats, and the last checkpoint's is old until a restartpoint.
const QUESTION: &str = "\
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
THEN pg_catalog.concat_ws(' ', 'standby', \
GREATEST((SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver), \
(SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()), \
(SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())), \
COALESCE(pg_catalog.pg_last_wal_replay_lsn(), '0/0'), \
pg_catalog.pg_is_wal_replay_paused()) \
ELSE pg_catalog.concat_ws(' ', 'primary', \
pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8), \
pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.pg_current_wal_flush_lsn()) END, \
(SELECT system_identifier FROM pg_catalog.pg_control_system()), \
pg_catalog.current_setting('server_version_num'), \
(EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8, \
pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')), \
pg_catalog.pg_has_role('pg_monitor', 'MEMBER')";

/// What changes from one moment to the next. The server's memory knows all of it, so that it may be
/// asked often. A timeline that a standby receives is seen; one that it is otherwise told of, in
/// the next whole probe.
const POSITION: &str = "\
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
THEN pg_catalog.concat_ws(' ', 'standby', \
COALESCE((SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver), 0), \
COALESCE(pg_catalog.pg_last_wal_replay_lsn(), '0/0')) \
ELSE pg_catalog.concat_ws(' ', 'primary', \
pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.pg_current_wal_flush_lsn()) END";

/// Longest message of the answer in bytes; it is one short row.
const MAX_MESSAGE: usize = 64 * 1024;

/// A server that is promoted while it answers is asked again; it is promoted once.
const ATTEMPTS: usize = 3;

/// `object_not_in_prerequisite_state`: a function of the other role.
const WRONG_ROLE: &[u8] = b"55000";

/// A node's answer to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProbeReply {
    /// The node's role, timeline and position.
    pub(crate) report: Report,
    /// Whether the probing role is a member of `pg_monitor`. Without it a standby's new timeline is
    /// seen late.
    pub(crate) monitor: bool,
    /// `wal_segment_size` in bytes.
    segment_size: u64,
}

/// The reason for which a probe has no answer.
#[derive(Debug)]
pub(crate) enum ProbeFault {
    /// The connection broke.
    Broken(Broken),
    /// The server answered with an error.
    Server {
        /// SQLSTATE.
        code: SqlState,
        /// The error's primary message.
        text: String,
        /// Whether the error ended the connection.
        fatal: bool,
    },
    /// The answer does not have the form of the query's result; the text says what is odd.
    Malformed(&'static str),
}

impl fmt::Display for ProbeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(Broken::Closed) => f.write_str("the server closed the connection"),
            Self::Broken(Broken::Io(error)) => write!(f, "the connection broke: {error}"),
            Self::Broken(Broken::Length(_)) => f.write_str("invalid message length"),
            Self::Server { code, text, .. } => write!(f, "{text} ({code})"),
            Self::Malformed(what) => write!(f, "unexpected answer of the server: {what}"),
        }
    }
}

impl From<Broken> for ProbeFault {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl ProbeFault {
    /// Whether the connection can be used for another probe: only after an error of the server that
    /// is not FATAL or PANIC. Otherwise the caller drops it.
    pub(crate) fn leaves_connection(&self) -> bool {
        matches!(self, Self::Server { fatal: false, .. })
    }

    /// Whether the server was promoted while it answered.
    fn is_of_other_role(&self) -> bool {
        matches!(self, Self::Server { code, .. } if code.as_str().as_bytes() == WRONG_ROLE)
    }
}

/// Probes the server at the other end by one simple query, on a connection on which nothing is
/// under way; up to 3 times while it is being promoted (55000). The caller limits the time.
///
/// # Errors
/// [`ProbeFault`] when there is no valid answer; [`ProbeFault::leaves_connection`] says whether the
/// connection is still of use.
pub(crate) async fn ask(conversation: &mut Conversation) -> Result<Report, ProbeFault> {
    Ok(ask_all(conversation).await?.report)
}

/// As [`ask`], with the rights of the probing role.
///
/// # Errors
/// [`ProbeFault`] as for [`ask`].
pub(crate) async fn ask_all(conversation: &mut Conversation) -> Result<ProbeReply, ProbeFault> {
    let mut attempt = 1;
    loop {
        match ask_once(conversation).await {
            Err(fault) if fault.is_of_other_role() && attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

async fn ask_once(conversation: &mut Conversation) -> Result<ProbeReply, ProbeFault> {
    query(conversation, QUESTION, parse_row).await
}

/// Asks for the positions only, on a connection on which the server has given `known` before.
/// `None` if it is another than it was then: then it must be asked everything.
///
/// # Errors
/// [`ProbeFault`] as for [`ask`].
pub(crate) async fn ask_position(
    conversation: &mut Conversation,
    known: &ProbeReply,
) -> Result<Option<ProbeReply>, ProbeFault> {
    match query(conversation, POSITION, |body| parse_position(body, known)).await {
        Err(fault) if fault.is_of_other_role() => Ok(None),
        result => result,
    }
}

/// Runs a simple query that has one row, which `parse` reads, on a connection on which nothing is
/// under way. The caller limits the time.
///
/// # Errors
/// [`ProbeFault`] as for [`ask`].
pub(crate) async fn query<T>(
    conversation: &mut Conversation,
    question: &str,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, ProbeFault> {
    let mut answer = None;
    query_rows(conversation, question, |body| {
        answer = Some(parse(body)?);
        Some(())
    })
    .await?;
    answer.ok_or(ProbeFault::Malformed("no row"))
}

/// Runs a simple query, whose rows `read` takes one by one, as [`query`] does.
///
/// # Errors
/// [`ProbeFault`] as for [`ask`]; [`ProbeFault::Malformed`] once `read` has returned `None`.
pub(crate) async fn query_rows(
    conversation: &mut Conversation,
    question: &str,
    mut read: impl FnMut(&[u8]) -> Option<()>,
) -> Result<(), ProbeFault> {
    encode::query(&mut conversation.outbox, question.as_bytes());
    conversation.send().await.map_err(Broken::Io)?;
    let mut fault = None;
    loop {
        let (tag, total) = conversation.message(MAX_MESSAGE).await?;
        let body = conversation.body(total);
        match tag {
            backend::DATA_ROW => {
                if read(body).is_none() {
                    fault.get_or_insert(ProbeFault::Malformed("its values"));
                }
            }
            backend::ERROR_RESPONSE => {
                let refusal = refused(body)?;
                if !refusal.leaves_connection() {
                    return Err(refusal);
                }
                fault = Some(refusal);
            }
            backend::READY_FOR_QUERY => {
                conversation.consume(total);
                return fault.map_or(Ok(()), Err);
            }
            backend::ROW_DESCRIPTION
            | backend::COMMAND_COMPLETE
            | backend::NOTICE_RESPONSE
            | backend::PARAMETER_STATUS => {}
            _ => return Err(ProbeFault::Malformed("an unexpected message")),
        }
        conversation.consume(total);
    }
}

fn refused(body: &[u8]) -> Result<ProbeFault, ProbeFault> {
    let fields =
        ErrorFields::parse(body).map_err(|_| ProbeFault::Malformed("a malformed error"))?;
    Ok(ProbeFault::Server {
        code: fields.code,
        text: String::from_utf8_lossy(fields.message).into_owned(),
        fatal: matches!(fields.severity, Severity::Fatal | Severity::Panic),
    })
}

fn parse_row(body: &[u8]) -> Option<ProbeReply> {
    let [place, system, version, started, segment, monitor] = values(body)?;
    let mut place = place.split(' ');
    let (role, timeline, position) = (place.next()?, place.next()?, place.next()?.parse().ok()?);
    let segment_size: u64 = segment.parse().ok()?;
    let (timeline, role) = match (role, place.next()) {
        ("primary", Some(flush)) => {
            let timeline = TimelineId(u32::from_str_radix(timeline, 16).ok()?);
            let insert = Lsn::reachable(position, segment_size);
            let flush = Lsn::reachable(flush.parse().ok()?, segment_size);
            (timeline, Role::Primary { insert, flush })
        }
        ("standby", Some(paused @ ("t" | "f"))) => {
            (timeline.parse().ok()?, Role::Standby { replay: position, paused: paused == "t" })
        }
        _ => return None,
    };
    let system: SystemId = system.parse().ok()?;
    let report = Report {
        system,
        timeline,
        role,
        server_version: version.parse().ok()?,
        started_at_micros: started.parse().ok()?,
    };
    Some(ProbeReply { report, monitor: monitor == "t", segment_size })
}

/// What a server says now that was `known` before; `Some(None)` if it is another than it was.
fn parse_position(body: &[u8], known: &ProbeReply) -> Option<Option<ProbeReply>> {
    let [place] = values(body)?;
    let mut place = place.split(' ');
    let (said, first, second) = (place.next()?, place.next()?, place.next()?);
    let role = match (said, known.report.role) {
        ("primary", Role::Primary { .. }) => Role::Primary {
            insert: Lsn::reachable(first.parse().ok()?, known.segment_size),
            flush: Lsn::reachable(second.parse().ok()?, known.segment_size),
        },
        ("standby", Role::Standby { paused, .. }) => {
            let received: TimelineId = first.parse().ok()?;
            if received > known.report.timeline {
                return Some(None);
            }
            Role::Standby { replay: second.parse().ok()?, paused }
        }
        ("primary" | "standby", _) => return Some(None),
        _ => return None,
    };
    Some(Some(ProbeReply { report: Report { role, ..known.report }, ..*known }))
}

/// The values of a DataRow that has exactly `N`, none of them NULL.
pub(crate) fn values<const N: usize>(body: &[u8]) -> Option<[&str; N]> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    if usize::from(u16::from_be_bytes(*count)) != N {
        return None;
    }
    let mut values = [""; N];
    for value in &mut values {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
        *value = std::str::from_utf8(after.get(..length)?).ok()?;
        rest = &after[length..];
    }
    rest.is_empty().then_some(values)
}

#[cfg(test)]
mod tests;
