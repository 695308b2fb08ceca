//! RECONNECT and KILL, which renew or end the connections of a database.

use std::sync::Arc;

use pgimbal_config::Config;
use pgimbal_pooler::server::renewal::{Renewal, Renewed};
use pgimbal_wire::error::{Severity, SqlState};
use tokio::sync::watch;
use tracing::info;

use super::answer::{Fault, Notices, Row, notice};
use super::control::Control;

/// A RECONNECT or KILL, for one database or for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RenewalCommand {
    how: Renewal,
    database: Option<Box<str>>,
}

/// Reads RECONNECT and KILL, in any case, with at most one name of a database, which is taken as it
/// is written. `None` for any other words.
pub(super) fn parse(words: &[&str]) -> Option<RenewalCommand> {
    let (verb, database) = match words {
        [verb] => (verb, None),
        [verb, database] => (verb, Some((*database).into())),
        _ => return None,
    };
    let how = if verb.eq_ignore_ascii_case("RECONNECT") {
        Renewal::Reconnect
    } else if verb.eq_ignore_ascii_case("KILL") {
        Renewal::Kill
    } else {
        return None;
    };
    Some(RenewalCommand { how, database })
}

impl RenewalCommand {
    pub(super) const fn tag(&self) -> &'static str {
        match self.how {
            Renewal::Reconnect => "RECONNECT",
            Renewal::Kill => "KILL",
        }
    }

    /// Runs the command. The numbers of connections that it concerned go into a notice, because the
    /// answer has no rows.
    pub(super) async fn run(
        self,
        config: &watch::Receiver<Arc<Config>>,
        control: &Control,
        out: &mut Notices,
    ) -> Result<Vec<Row>, Fault> {
        let Self { how, database } = self;
        if let Some(database) = &database
            && config.borrow().database(database).is_none()
        {
            let text = format!("database \"{database}\" is not served");
            return Err(Fault::new(SqlState::INVALID_CATALOG_NAME, text)
                .hint("SHOW DATABASES lists those that are."));
        }
        info!(database = database.as_deref().unwrap_or("*"), "{how:?} on the console");
        let Renewed { clients, servers } = control.renew(database, how).await?;
        let text = match how {
            Renewal::Reconnect => {
                format!("{servers} server connections end, those in use when they are free")
            }
            Renewal::Kill => format!("{clients} clients and {servers} server connections end"),
        };
        notice(out, Severity::Notice, &text);
        Ok(vec![])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::console::command::tests::with_words;

    #[test]
    fn a_database_is_named_or_all_are_meant() {
        let command = |how, database: Option<&str>| {
            Some(RenewalCommand { how, database: database.map(Box::from) })
        };
        assert_eq!(with_words("reconnect", parse), command(Renewal::Reconnect, None));
        assert_eq!(with_words("KILL App", parse), command(Renewal::Kill, Some("App")));
        assert_eq!(
            with_words("Reconnect \"my app\"", parse),
            command(Renewal::Reconnect, Some("my app"))
        );
        for text in ["KILL a b", "RECONNECTS", "PAUSE", ""] {
            assert_eq!(with_words(text, parse), None, "{text}");
        }
    }
}
