//! What a server allows: asked by a new connection, ahead of its first client.

use std::time::Instant;

use pgimbal_pooler::pool::budget::{ConnectionBudget, LearnedLimits};

use crate::dial::{DialError, Dialed, Target};
use crate::topology::probe;
use crate::transport::Conversation;

/// A superuser has neither limit. `reserved_connections` is new in PostgreSQL 16.
const QUESTION: &str = "\
SELECT pg_catalog.current_setting('max_connections'), \
pg_catalog.current_setting('superuser_reserved_connections'), \
COALESCE(pg_catalog.current_setting('reserved_connections', true), '0'), \
COALESCE((SELECT rolconnlimit FROM pg_catalog.pg_roles \
WHERE rolname = SESSION_USER AND NOT rolsuper), -1), \
COALESCE((SELECT datconnlimit FROM pg_catalog.pg_database, pg_catalog.pg_roles \
WHERE datname = pg_catalog.current_database() AND rolname = SESSION_USER AND NOT rolsuper), -1)";

/// What is believed of a server that does not answer the question, such as another pooler.
const UNLIMITED: LearnedLimits =
    LearnedLimits { max_connections: u32::MAX, reserved: 0, role: None, database: None };

/// Asks the server at the other end of a new connection for its limits, if `budget` wants to know
/// them, and tells them to it. Takes at most the connect timeout.
///
/// # Errors
/// [`DialError`] when the connection cannot be used any more.
pub(crate) async fn learn(
    target: &Target,
    dialed: Dialed,
    budget: &ConnectionBudget,
) -> Result<Dialed, DialError> {
    if !budget.wants_limits(&target.user, &target.database, Instant::now()) {
        return Ok(dialed);
    }
    let Dialed { transport, cancel, parameters, address, residual, tls_fallback, tls_check } =
        dialed;
    let mut conversation = Conversation::new(transport);
    conversation.inbox = residual;
    let asked = probe::query(&mut conversation, QUESTION, |body| Some(parse(body)));
    let limits = match tokio::time::timeout(target.connect_timeout, asked).await {
        Ok(Ok(Some(limits))) => limits,
        Ok(Ok(None)) => {
            refused(&address.to_string(), "the answer is no PostgreSQL's");
            UNLIMITED
        }
        Ok(Err(fault)) if fault.leaves_connection() => {
            refused(&address.to_string(), &fault.to_string());
            UNLIMITED
        }
        Ok(Err(_)) | Err(_) => return Err(DialError::no_answer(target, &address)),
    };
    budget.learn(&target.user, &target.database, limits, Instant::now());
    let Conversation { transport, inbox, .. } = conversation;
    Ok(Dialed { transport, cancel, parameters, address, residual: inbox, tls_fallback, tls_check })
}

fn refused(server: &str, why: &str) {
    tracing::warn!(server, "the server does not say how many connections it allows: {why}");
}

fn parse(body: &[u8]) -> Option<LearnedLimits> {
    let [most, superuser, reserved, role, database] = probe::values(body)?;
    let limit = |text: &str| Some(u32::try_from(text.parse::<i64>().ok()?).ok());
    Some(LearnedLimits {
        max_connections: most.parse().ok()?,
        reserved: superuser.parse::<u32>().ok()?.checked_add(reserved.parse().ok()?)?,
        role: limit(role)?,
        database: limit(database)?,
    })
}
