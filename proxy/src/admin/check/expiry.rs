//! Whether a role's `VALID UNTIL` has passed, asked of the server through another role's login.

use std::time::Duration;

use pgimbal_config::Host;
use pgimbal_wire::encode;
use pgimbal_wire::tag::backend;
use tokio::time::timeout;

use crate::dial::Dialed;
use crate::transport::Conversation;

/// The answer is one short row.
const MAX_MESSAGE: usize = 64 * 1024;
/// A server that has just let somebody in answers at once.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// The state of a role's `VALID UNTIL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// The role's password expired at this time, in the server's text form.
    Passed(String),
    /// The role's password has not expired: `VALID UNTIL` is later, or not set.
    NotPassed,
    /// The server has no such role.
    NoRole,
    /// The server could not be asked: no role has logged in there, or it did not answer within 5 s.
    Unknown,
}

/// One logged-in connection for each server, through which it can be asked about other roles.
#[derive(Default)]
pub(super) struct OpenConnections(Vec<(Host, u16, Conversation)>);

impl OpenConnections {
    /// Keeps a connection, unless the server has one already.
    pub(super) fn add(&mut self, host: Host, port: u16, dialed: Dialed) {
        if self.find(&host, port).is_none() {
            let mut conversation = Conversation::new(dialed.transport);
            conversation.inbox = dialed.residual;
            self.0.push((host, port, conversation));
        }
    }

    fn find(&mut self, host: &Host, port: u16) -> Option<&mut Conversation> {
        let found = self.0.iter_mut().find(|(h, p, _)| h == host && *p == port);
        found.map(|(_, _, conversation)| conversation)
    }

    /// Number of connections that a server has for roles other than superusers: `max_connections`
    /// without the reserved ones. `None` when no connection to it was kept, or it does not answer
    /// within 5 s.
    pub(super) async fn connections(&mut self, host: &Host, port: u16) -> Option<u64> {
        const QUESTION: &str = "SELECT setting FROM pg_catalog.pg_settings WHERE name IN \
             ('max_connections', 'superuser_reserved_connections', 'reserved_connections') \
             ORDER BY name = 'max_connections' DESC";
        let conversation = self.find(host, port)?;
        let rows = timeout(ANSWER_TIME, rows(conversation, QUESTION)).await.ok()??;
        let mut counts = rows.iter().map(|text| text.parse::<u64>().unwrap_or_default());
        let most = counts.next()?;
        Some(most.saturating_sub(counts.sum()))
    }

    /// Whether `role`, or else that of the kept connection, sees what others' connections do
    /// (pg_read_all_stats). `None` as for [`Self::connections`], and when there is no such role.
    pub(super) async fn sees_others(
        &mut self,
        host: &Host,
        port: u16,
        role: Option<&str>,
    ) -> Option<bool> {
        let role = role.map_or_else(|| "current_user".to_owned(), literal);
        let question = format!(
            "SELECT pg_catalog.pg_has_role({role}, 'pg_read_all_stats', 'MEMBER')::pg_catalog.text"
        );
        let conversation = self.find(host, port)?;
        let rows = timeout(ANSWER_TIME, rows(conversation, &question)).await.ok()??;
        Some(rows.first()? == "true")
    }

    /// Asks the server whether the role's `VALID UNTIL` (`pg_roles.rolvaliduntil`) has passed, over
    /// a connection of another role that [`Self::add`] has kept.
    pub(super) async fn ask(&mut self, host: &Host, port: u16, role: &str) -> Expiry {
        let Some(conversation) = self.find(host, port) else { return Expiry::Unknown };
        let rows = timeout(ANSWER_TIME, rows(conversation, &question(role))).await;
        match rows.ok().flatten().as_deref() {
            None => Expiry::Unknown,
            Some([]) => Expiry::NoRole,
            Some([when, ..]) if when.is_empty() => Expiry::NotPassed,
            Some([when, ..]) => Expiry::Passed(when.clone()),
        }
    }
}

/// pg_roles is everybody's to read; it shows VALID UNTIL and no password.
fn question(role: &str) -> String {
    let role = literal(role);
    format!(
        "SELECT CASE WHEN rolvaliduntil < pg_catalog.now() THEN rolvaliduntil::pg_catalog.text \
         ELSE '' END FROM pg_catalog.pg_roles WHERE rolname = {role}"
    )
}

/// A role's name in SQL. In an E string a quote and a backslash can be escaped whatever
/// standard_conforming_strings says.
fn literal(role: &str) -> String {
    format!("E'{}'", role.replace('\\', r"\\").replace('\'', r"\'"))
}

/// The first column of each row; `None` when the server does not answer so.
async fn rows(conversation: &mut Conversation, sql: &str) -> Option<Vec<String>> {
    encode::query(&mut conversation.outbox, sql.as_bytes());
    conversation.send().await.ok()?;
    let mut rows = Vec::new();
    let mut failed = false;
    loop {
        let (tag, total) = conversation.message(MAX_MESSAGE).await.ok()?;
        let body = conversation.body(total);
        match tag {
            backend::DATA_ROW => rows.push(first_column(body)?),
            backend::ERROR_RESPONSE => failed = true,
            backend::READY_FOR_QUERY => {
                conversation.consume(total);
                return (!failed).then_some(rows);
            }
            _ => {}
        }
        conversation.consume(total);
    }
}

/// Count of columns (2 bytes), then the length of the first (4 bytes) and its text.
fn first_column(body: &[u8]) -> Option<String> {
    let length = i32::from_be_bytes(body.get(2..6)?.try_into().ok()?);
    let length = usize::try_from(length).unwrap_or_default();
    Some(String::from_utf8_lossy(body.get(6..6 + length)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roles_name_stays_a_text() {
        assert!(question(r"o'\b").ends_with(r"rolname = E'o\'\\b'"));
    }

    #[test]
    fn the_first_column_is_read_and_a_short_row_is_none() {
        assert_eq!(first_column(b"\0\x01\0\0\0\x02ab").as_deref(), Some("ab"));
        assert_eq!(first_column(b"\0\x01\xff\xff\xff\xff").as_deref(), Some(""));
        assert_eq!(first_column(b"\0\x01\0\0\0\x09ab"), None);
    }
}
