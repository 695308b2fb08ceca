//! Hints for unknown commands: the command of the console that was probably meant.

use super::command::HELP;

/// The last sentence of every hint.
const HELP_HINT: &str = "SHOW HELP lists the console's commands.";

/// Hints for queries of the catalog by psql and tools, by a word of the query. The first that fits
/// counts.
const CATALOG: [(&str, &str); 10] = [
    ("PG_STAT_ACTIVITY", "SHOW CLIENTS and SHOW SERVERS list the connections."),
    ("PG_STAT", "SHOW STATS has counters; those of a database are in the database itself."),
    ("PG_DATABASE", "SHOW DATABASES lists the databases."),
    ("PG_ROLES", "SHOW USERS lists the users."),
    ("PG_USER", "SHOW USERS lists the users."),
    ("PG_AUTHID", "SHOW USERS lists the users."),
    ("PG_SETTINGS", "SHOW CONFIG lists the options."),
    ("VERSION()", "SHOW VERSION tells the version."),
    ("PG_CATALOG", NO_TABLES),
    ("INFORMATION_SCHEMA", NO_TABLES),
];

const NO_TABLES: &str = "This is pgimbal's console, which has no tables: connect to a database, in \
                         psql with \\c and its name.";

/// Hints for commands of other poolers, servers and shells, by the first one or two words.
const CALLED_OTHERWISE: [(&str, &str); 26] = [
    ("SHOW SOCKETS", "SHOW CLIENTS and SHOW SERVERS list the connections."),
    ("SHOW ACTIVE_SOCKETS", "SHOW CLIENTS and SHOW SERVERS list the connections."),
    ("SHOW FDS", "SHOW CLIENTS and SHOW SERVERS list the connections."),
    ("SHOW ALL", "SHOW CONFIG lists the options."),
    ("SHOW STATE", "SHOW LISTS tells how many there are of everything."),
    ("SHOW TOTALS", "SHOW STATS_TOTALS has the counters."),
    ("SHOW STATS_AVERAGES", "SHOW STATS has the averages too."),
    ("SHOW MEM", "/metrics (http_listen) has the memory."),
    ("SHOW DNS_HOSTS", "SHOW NODES lists the addresses of clusters."),
    ("SHOW DNS_ZONES", "SHOW NODES lists the addresses of clusters."),
    ("SHOW SERVER_VERSION", "SHOW VERSION tells the version."),
    ("PAUSE", "HOLD <cluster> makes writes wait, and RESUME ends that."),
    ("SUSPEND", "HOLD <cluster> makes writes wait, and RESUME ends that."),
    ("DISABLE", "HOLD <cluster> makes writes wait, and RESUME ends that."),
    ("ENABLE", "RESUME ends what HOLD <cluster> began."),
    ("WAIT_CLOSE", "SHOW SERVERS lists the server connections that are left."),
    ("STOP", "SHUTDOWN lets transactions come to their end and stops."),
    ("RESTART", "SHUTDOWN lets transactions come to their end; systemd or Kubernetes starts anew."),
    ("QUIT", "\\q leaves psql."),
    ("EXIT", "\\q leaves psql."),
    ("STATUS", "SHOW POOLS is the place to begin."),
    ("LIST", "SHOW DATABASES lists the databases, SHOW POOLS the pools."),
    ("USE", "Connect to a database, in psql with \\c and its name."),
    ("SELECT", NO_TABLES),
    ("INSERT", NO_TABLES),
    ("CREATE", NO_TABLES),
];

/// The hint of the error for an unknown command. `words` are those of the command, in upper case.
/// It names the console's own command for what psql or another pooler would ask, or else the one
/// with the nearest spelling, or else none; it always ends with how to list the commands.
pub(super) fn hint(words: &[&str]) -> String {
    let first = words.first().copied().unwrap_or_default();
    let two = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
    let is_query = ["SELECT", "WITH", "TABLE"].contains(&first);
    let of_catalog =
        CATALOG.iter().find(|(word, _)| is_query && words.iter().any(|said| said.contains(word)));
    let called = || CALLED_OTHERWISE.iter().find(|(called, _)| [first, &two].contains(called));
    match of_catalog.or_else(called) {
        Some((_, answer)) => format!("{answer} {HELP_HINT}"),
        None => match nearest(&two, first) {
            Some(command) => format!("Did you mean {command}? {HELP_HINT}"),
            None => HELP_HINT.to_owned(),
        },
    }
}

/// The command that `two` words, or the first of them, are nearly.
fn nearest(two: &str, first: &str) -> Option<&'static str> {
    let heads = HELP.iter().map(|(command, _)| {
        // What is no argument.
        command.split(['<', '[']).next().unwrap_or(command).trim_end()
    });
    let near = |typed: &str| pgimbal_config::nearest(typed, heads.clone());
    near(two).or_else(|| near(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::console::command::tests::with_words;

    #[test]
    fn what_was_meant_is_named() {
        for (text, meant) in [
            // What psql asks for \\l, \\d, \\du and \\dt.
            ("SELECT d.datname as \"Name\" FROM pg_catalog.pg_database d", "SHOW DATABASES"),
            ("SELECT n.nspname FROM pg_catalog.pg_class c", "no tables"),
            ("SELECT r.rolname FROM pg_catalog.pg_roles r", "SHOW USERS"),
            ("select * from pg_stat_activity", "SHOW CLIENTS"),
            ("select version()", "SHOW VERSION"),
            ("SELECT 1", "no tables"),
            ("SHOW POOL", "SHOW POOLS"),
            ("SHOW CLENTS", "SHOW CLIENTS"),
            ("SHOW SOCKETS", "SHOW SERVERS"),
            ("RELAOD", "RELOAD"),
            ("RELOAD NOW", "RELOAD"),
            ("PAUSE app", "HOLD"),
            ("REVOK OLD app", "REVOKE OLD"),
            ("SHUTDWON", "SHUTDOWN"),
            ("quit", "\\q"),
        ] {
            let hint = with_words(&text.to_ascii_uppercase(), hint);
            assert!(hint.contains(meant) && hint.ends_with(HELP_HINT), "{text}: {hint}");
        }
        assert_eq!(with_words("MAKE ME A SANDWICH", hint), HELP_HINT);
    }
}
