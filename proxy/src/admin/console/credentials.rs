//! SHOW CREDENTIALS, REFRESH and REVOKE OLD.

use std::time::SystemTime;

use pgimbal_wire::error::{Severity, SqlState};

use super::answer::{Cell, Column, Fault, Notices, Row, int, notice, text};
use super::connections::moment;
use crate::credentials::{
    CredentialManager, CredentialStatus, CredentialsStatus, NotRevoked, UnknownRole,
};

pub(super) const CREDENTIALS: &[Column] = &[
    text("user"),
    text("source"),
    text("role"),
    int("generation"),
    int("age_seconds"),
    int("next_rotation_seconds"),
    text("last_fetch"),
    text("last_result"),
    int("accepted_generations"),
    int("clients"),
    int("servers"),
    int("stale_seconds"),
];

/// The rows of SHOW CREDENTIALS: one for each accepted generation, the newest first, and one for a
/// user without any.
pub(super) fn rows(status: &CredentialsStatus) -> Vec<Row> {
    status.users.iter().flat_map(user_rows).collect()
}

fn user_rows(user: &CredentialStatus) -> Vec<Row> {
    let last = user.last_fetch.map(|age| moment(SystemTime::now(), age));
    let row = |generation: [Cell; 2], counts: [Cell; 2]| -> Row {
        let [number, age] = generation;
        let [clients, servers] = counts;
        vec![
            user.user.as_str().into(),
            user.source.into(),
            user.place.as_str().into(),
            number,
            age,
            user.next_rotation.map_or(Cell::Null, |next| next.as_secs().into()),
            last.as_deref().into(),
            user.last_result.into(),
            (user.generations.len() as u64).into(),
            clients,
            servers,
            user.stale.as_secs().into(),
        ]
    };
    if user.generations.is_empty() {
        return vec![row([Cell::Null, Cell::Null], [0_u64.into(), 0_u64.into()])];
    }
    let generations = user.generations.iter();
    generations
        .map(|one| {
            let generation = [one.number.into(), one.age.as_secs().into()];
            row(generation, [one.clients.into(), one.servers.into()])
        })
        .collect()
}

/// A command for a user's password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CredentialCommand {
    /// REVOKE OLD: only the user's newest password is accepted from now on.
    RevokeOld(Box<str>),
    /// REFRESH: the source of the user's password is asked at once.
    Refresh(Box<str>),
}

/// Reads REVOKE OLD and REFRESH, in any case, with the name of one user, which is taken as it is
/// written. `None` for any other words, also for a missing or second name.
pub(super) fn parse(words: &[&str]) -> Option<CredentialCommand> {
    let is = str::eq_ignore_ascii_case;
    match words {
        [revoke, old, user] if is(revoke, "REVOKE") && is(old, "OLD") => {
            Some(CredentialCommand::RevokeOld((*user).into()))
        }
        [refresh, user] if is(refresh, "REFRESH") => {
            Some(CredentialCommand::Refresh((*user).into()))
        }
        _ => None,
    }
}

impl CredentialCommand {
    /// The user that the command names.
    pub(super) fn target(&self) -> Option<&str> {
        match self {
            Self::RevokeOld(user) | Self::Refresh(user) => Some(user),
        }
    }

    pub(super) const fn tag(&self) -> &'static str {
        match self {
            Self::RevokeOld(_) => "REVOKE OLD",
            Self::Refresh(_) => "REFRESH",
        }
    }

    /// Runs the command. Its outcome is a notice, because the answer has no rows.
    pub(super) async fn run(
        &self,
        manager: &CredentialManager,
        out: &mut Notices,
    ) -> Result<Vec<Row>, Fault> {
        match self {
            Self::RevokeOld(user) => {
                manager.revoke_old(user).await?;
                let text = "sessions that have shown an old one stay; SHOW CREDENTIALS counts them";
                notice(out, Severity::Notice, text);
            }
            Self::Refresh(user) => match manager.refresh(user).await? {
                Ok(()) => {
                    let status = manager.status().await;
                    let known = status.users.iter().find(|known| *known.user == **user);
                    let text = known.map_or_else(|| "it answered".to_owned(), answered);
                    notice(out, Severity::Notice, &text);
                }
                Err(error) => notice(out, Severity::Warning, &error.to_string()),
            },
        }
        Ok(vec![])
    }
}

/// The text about a source's answer, without the password.
fn answered(user: &CredentialStatus) -> String {
    let mut text = format!("{} answered", user.place);
    if let Some(newest) = user.generations.first() {
        let (number, age) = (newest.number, newest.age.as_secs());
        text.push_str(&format!(": generation {number} is the newest, {age} s old"));
    }
    if let Some(next) = user.next_rotation {
        text.push_str(&format!("; the next is due in {} s", next.as_secs()));
    }
    text
}

impl From<UnknownRole> for Fault {
    fn from(unknown: UnknownRole) -> Self {
        Self::new(SqlState::UNDEFINED_OBJECT, unknown.to_string())
            .hint("SHOW CREDENTIALS lists the users whose passwords rotate.")
    }
}

impl From<NotRevoked> for Fault {
    fn from(why: NotRevoked) -> Self {
        match why {
            NotRevoked::Unknown(unknown) => unknown.into(),
            NotRevoked::NotKept(_) => Self::new(SqlState::IO_ERROR, why.to_string())
                .hint("pgimbal's log says what is wrong with the store; then say it again."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::console::command::tests::with_words;

    #[test]
    fn each_accepted_generation_has_a_row() {
        let all =
            CredentialsStatus { users: vec![CredentialStatus::example()], ..Default::default() };
        let shown = rows(&all);
        assert!(shown.iter().all(|row| row.len() == CREDENTIALS.len()));
        assert_eq!(shown[0][3..6], [Cell::Int(7), Cell::Int(20), Cell::Int(40)]);
        assert_eq!(shown[1][3..6], [Cell::Int(6), Cell::Int(80), Cell::Int(40)]);
        let rest = ["sealed".into(), Cell::Int(2), Cell::Int(6), Cell::Int(0), Cell::Int(9)];
        assert_eq!(shown[1][7..], rest);
        let unknown = CredentialStatus { generations: Vec::new(), ..CredentialStatus::example() };
        let all = CredentialsStatus { users: vec![unknown], ..Default::default() };
        assert_eq!(rows(&all).len(), 1);
    }

    #[test]
    fn a_refresh_says_what_came_of_it() {
        assert_eq!(
            answered(&CredentialStatus::example()),
            "vault main, role app answered: generation 7 is the newest, 20 s old; the next is due \
             in 40 s"
        );
    }

    #[test]
    fn names_in_commands_are_taken_as_they_are_written() {
        let revoke = Some(CredentialCommand::RevokeOld("App".into()));
        assert_eq!(with_words("revoke OLD App", parse), revoke);
        assert_eq!(
            with_words("REFRESH \"app\"", parse),
            Some(CredentialCommand::Refresh("app".into()))
        );
        let spaced = Some(CredentialCommand::RevokeOld("my app".into()));
        assert_eq!(with_words("REVOKE OLD \"my app\"", parse), spaced);
        for text in ["REVOKE OLD", "REVOKE app", "REFRESH", "REFRESH a b"] {
            assert_eq!(with_words(text, parse), None, "{text}");
        }
    }
}
