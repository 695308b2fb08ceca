//! Commands of the console, and their parser.

use std::fmt;

use pgimbal_pooler::sql::{self, CommandWords};
use pgimbal_wire::error::SqlState;

use super::answer::{Column, Fault};
use super::control::Pace;
use super::credentials::{self, CredentialCommand};
use super::explain;
use super::hint;
use super::nodes::{self, ClusterCommand};
use super::peers::{REPLICA, RESULTS};
use super::renewal::{self, RenewalCommand};

/// Length of the part of an unknown command that an error repeats, in characters.
const QUOTED: usize = 40;

/// Settings that drivers set on their own when they connect. They change nothing here, and refusing
/// them would lock the driver out.
const DRIVER_SETTINGS: &[&str] = &[
    "application_name",
    "characteristics",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "lock_timeout",
    "names",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
    "time",
    "timezone",
    "transaction",
];

/// A command of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// SHOW: a table.
    Show(Show),
    /// SHOW … ALL: a table with the rows of all replicas.
    ShowAll(Show),
    /// RELOAD: reads the configuration again.
    Reload,
    /// SHUTDOWN and SHUTDOWN WAIT: drains and ends the process.
    Shutdown(Pace),
    /// HOLD, RESUME or ADOPT NODE: a command for a cluster.
    Cluster(ClusterCommand),
    /// REFRESH or REVOKE OLD: a command for a user's password.
    Credential(CredentialCommand),
    /// RECONNECT or KILL: a command for a database's connections.
    Renewal(RenewalCommand),
    /// EXPLAIN ROUTE of a SQL text.
    ExplainRoute(Box<str>),
    /// SET of a setting that drivers set; it changes nothing.
    Set,
    /// BEGIN or START TRANSACTION: for drivers that begin one before anything else.
    Begin,
    /// COMMIT or END.
    Commit,
    /// ROLLBACK or ABORT.
    Rollback,
    /// DEALLOCATE ALL, with which drivers forget their prepared statements after an error.
    Deallocate,
    /// DISCARD ALL, with which connection pools of drivers clean a session.
    Discard,
}

/// A table of SHOW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    Budget,
    Clients,
    Config,
    Credentials,
    Databases,
    Failovers,
    Help,
    Latencies,
    Listeners,
    Lists,
    Nodes,
    Peers,
    /// SHOW PEERS in the database `pgbouncer`.
    PgbouncerPeers,
    Pools,
    Questions,
    Servers,
    Stats,
    StatsTotals,
    Users,
    Version,
}

impl Show {
    /// The table's name in a command.
    pub(super) fn name(self) -> String {
        match self {
            Self::StatsTotals => "STATS_TOTALS".to_owned(),
            Self::PgbouncerPeers => "PEERS".to_owned(),
            table => format!("{table:?}").to_ascii_uppercase(),
        }
    }
}

/// Every command and its meaning, the rows of SHOW HELP.
pub(super) const HELP: &[(&str, &str)] = &[
    ("SHOW POOLS", "clients and server connections of each pool, and the longest wait"),
    ("SHOW CLIENTS", "each client, what it does, and why it keeps a server connection"),
    ("SHOW SERVERS", "each server connection"),
    ("SHOW LISTENERS", "each channel that clients listen to over a connection that they share"),
    ("SHOW QUESTIONS", "what servers were asked about their sessions, by pool and kind"),
    ("SHOW STATS", "counters of each database, and averages over the last minute"),
    ("SHOW STATS_TOTALS", "the counters alone"),
    ("SHOW LATENCIES", "how long transactions, queries, waits and logins of each pool take"),
    ("SHOW DATABASES", "the databases that clients may name, and where they lead"),
    ("SHOW USERS", "the users of the configuration"),
    ("SHOW NODES", "each node of each cluster: what it is, how far behind, and why"),
    ("SHOW FAILOVERS", "the changes of primary that were seen, and what they meant to clients"),
    ("SHOW BUDGET", "the connections to each server: how many there may be, and who waits"),
    ("SHOW CREDENTIALS", "each password that rotates: its generations, and who uses which"),
    ("SHOW PEERS", "the other replicas: where they are, and whether they are heard"),
    ("SHOW POOLS ALL", "the rows of all replicas, each after its name; so for every table"),
    ("SHOW CONFIG", "the options in force, their defaults, and whether a reload changes them"),
    ("SHOW LISTS", "how many there are of everything"),
    ("SHOW VERSION", "the version that runs"),
    ("RELOAD", "reads the configuration again; says what changed and what needs a restart"),
    ("HOLD <cluster>", "makes writes wait, before a planned switchover"),
    ("RESUME [<cluster>]", "ends that, for all clusters unless one is named"),
    ("ADOPT NODE <cluster>.<node>", "the node's history becomes the cluster's, after a restore"),
    ("REFRESH <user>", "asks the source of a user's password at once"),
    ("REVOKE OLD <user>", "refuses all passwords of a user but the newest from now on, for good"),
    ("RECONNECT [<database>]", "opens server connections anew, each once it is free"),
    ("EXPLAIN ROUTE <sql>", "where a statement would go now, and why, for each pool with replicas"),
    ("KILL [<database>]", "ends the clients and server connections of a database, or of all"),
    ("SHUTDOWN", "accepts nobody any more, lets transactions come to their end and stops"),
    ("SHUTDOWN WAIT", "the same so slowly that pools notice nothing, as SIGTERM does"),
];

impl Command {
    /// The command tag in CommandComplete, without arguments: `SHOW`, `RELOAD`, `DEALLOCATE ALL`.
    pub(super) const fn tag(&self) -> &'static str {
        match self {
            Self::Show(_) | Self::ShowAll(_) => "SHOW",
            Self::Reload => "RELOAD",
            Self::Shutdown(_) => "SHUTDOWN",
            Self::Cluster(command) => command.tag(),
            Self::Credential(command) => command.tag(),
            Self::Renewal(command) => command.tag(),
            Self::ExplainRoute(_) => "EXPLAIN ROUTE",
            Self::Set => "SET",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Rollback => "ROLLBACK",
            Self::Deallocate => "DEALLOCATE ALL",
            Self::Discard => "DISCARD ALL",
        }
    }

    /// The cluster, node or user that the command names; `None` for none.
    fn target(&self) -> Option<&str> {
        match self {
            Self::Cluster(command) => command.target(),
            Self::Credential(command) => command.target(),
            _ => None,
        }
    }

    /// Whether drivers send the command on their own: SET, BEGIN, COMMIT, ROLLBACK, DEALLOCATE ALL
    /// and DISCARD ALL. Such a command changes nothing outside its session.
    pub(super) const fn is_of_drivers(&self) -> bool {
        matches!(
            self,
            Self::Set
                | Self::Begin
                | Self::Commit
                | Self::Rollback
                | Self::Deallocate
                | Self::Discard
        )
    }

    /// Whether the command acts on all replicas: what it changes would otherwise hold for the
    /// clients of one alone.
    pub(super) const fn acts_on_all(&self) -> bool {
        matches!(self, Self::Reload | Self::Cluster(_) | Self::Credential(_))
    }

    /// The columns of the command's rows; `None` when it has none. `has_peers` says that there are
    /// other replicas.
    pub(super) fn columns(&self, has_peers: bool) -> Option<Vec<Column>> {
        match self {
            Self::Show(table) => Some(table.columns().to_vec()),
            Self::ShowAll(table) => Some([&[REPLICA], table.columns()].concat()),
            Self::ExplainRoute(_) => Some(explain::COLUMNS.to_vec()),
            _ if has_peers && self.acts_on_all() => Some(RESULTS.to_vec()),
            _ => None,
        }
    }

    /// The command as text that [`parse`] reads as this command, with a quoted name.
    pub(super) fn to_text(&self) -> String {
        match self.target() {
            Some(target) => format!("{} \"{}\"", self.tag(), target.replace('"', "\"\"")),
            None => self.to_string(),
        }
    }

    /// The command as a user of the database `pgbouncer` means it.
    pub(super) fn of_pgbouncer(self) -> Self {
        match self {
            Self::Show(Show::Peers) => Self::Show(Show::PgbouncerPeers),
            other => other,
        }
    }

    /// Whether only a user of `admin_users` may run the command: every command except SHOW and
    /// those of drivers. Others get an error (42501).
    pub(super) const fn changes_something(&self) -> bool {
        match self {
            Self::Reload
            | Self::Shutdown(_)
            | Self::Cluster(_)
            | Self::Credential(_)
            | Self::Renewal(_) => true,
            Self::Show(_)
            | Self::ShowAll(_)
            | Self::ExplainRoute(_)
            | Self::Set
            | Self::Begin
            | Self::Commit
            | Self::Rollback
            | Self::Deallocate
            | Self::Discard => false,
        }
    }
}

/// Writes the command as it is logged: `SHOW POOLS`, `HOLD main`.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tag())?;
        match self {
            Self::Show(table) => write!(f, " {}", table.name()),
            Self::ShowAll(table) => write!(f, " {} ALL", table.name()),
            _ => self.target().map_or(Ok(()), |target| write!(f, " {target}")),
        }
    }
}

/// Reads the commands in `text`, which are separated by semicolons. Returns an error when any of
/// them is unknown, so that none is run then.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Command>, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| {
        Fault::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "a command must be UTF-8")
    })?;
    let commands = sql::commands(text).map_err(|sql::UnclosedQuote| {
        Fault::new(SqlState::SYNTAX_ERROR, "a quoted name or text does not end")
    })?;
    commands.iter().map(command).collect()
}

fn command(command: &CommandWords<'_>) -> Result<Command, Fault> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    if let Some(command) = nodes::parse(&words) {
        return Ok(Command::Cluster(command));
    }
    if let Some(command) = credentials::parse(&words) {
        return Ok(Command::Credential(command));
    }
    if let Some(command) = renewal::parse(&words) {
        return Ok(Command::Renewal(command));
    }
    if let Some(text) = explain::parse(command.text) {
        return Ok(Command::ExplainRoute(text));
    }
    let words: Vec<String> = words.iter().map(|word| word.to_ascii_uppercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let unknown = || unknown(command.text, &words);
    match words.as_slice() {
        ["SHOW"] => Ok(Command::Show(Show::Help)),
        ["SHOW", table] => show(table).map(Command::Show).ok_or_else(unknown),
        ["SHOW", table, "ALL"] => show(table).map(Command::ShowAll).ok_or_else(unknown),
        ["RELOAD"] => Ok(Command::Reload),
        ["SHUTDOWN"] => Ok(Command::Shutdown(Pace::Quick)),
        ["SHUTDOWN", "WAIT"] => Ok(Command::Shutdown(Pace::Unnoticed)),
        ["SHUTDOWN", ..] => {
            Err(Fault::new(SqlState::FEATURE_NOT_SUPPORTED, "SHUTDOWN has the option WAIT only")
                .hint("Both forms wait for transactions up to shutdown_grace."))
        }
        ["SET", rest @ ..] => set(rest),
        ["BEGIN", ..] | ["START", "TRANSACTION", ..] => Ok(Command::Begin),
        ["COMMIT", ..] | ["END", ..] => Ok(Command::Commit),
        ["ROLLBACK"] | ["ROLLBACK", "WORK" | "TRANSACTION"] | ["ABORT", ..] => {
            Ok(Command::Rollback)
        }
        ["DEALLOCATE", "ALL"] | ["DEALLOCATE", "PREPARE", "ALL"] => Ok(Command::Deallocate),
        ["DISCARD", "ALL"] => Ok(Command::Discard),
        _ => Err(unknown()),
    }
}

fn show(table: &str) -> Option<Show> {
    Some(match table {
        "CLIENTS" => Show::Clients,
        "CONFIG" => Show::Config,
        "CREDENTIALS" => Show::Credentials,
        "DATABASES" => Show::Databases,
        "BUDGET" => Show::Budget,
        "FAILOVERS" => Show::Failovers,
        "HELP" => Show::Help,
        "LATENCIES" => Show::Latencies,
        "LISTENERS" => Show::Listeners,
        "LISTS" => Show::Lists,
        "NODES" => Show::Nodes,
        "PEERS" => Show::Peers,
        "POOLS" => Show::Pools,
        "QUESTIONS" => Show::Questions,
        "SERVERS" => Show::Servers,
        "STATS" => Show::Stats,
        "STATS_TOTALS" => Show::StatsTotals,
        "USERS" => Show::Users,
        "VERSION" => Show::Version,
        _ => return None,
    })
}

fn set(words: &[&str]) -> Result<Command, Fault> {
    let name = match words {
        ["SESSION" | "LOCAL", name, ..] | [name, ..] => name.to_ascii_lowercase(),
        [] => return Err(unknown("SET", &["SET"])),
    };
    if DRIVER_SETTINGS.contains(&name.as_str()) {
        return Ok(Command::Set);
    }
    let refused = Fault::new(SqlState::FEATURE_NOT_SUPPORTED, "the console cannot change options");
    Err(refused.hint("Change them in pgimbal's configuration, then say RELOAD."))
}

fn unknown(text: &str, words: &[&str]) -> Fault {
    let mut quoted: String = text.chars().take(QUOTED).collect();
    if quoted.len() < text.len() {
        quoted.push_str("...");
    }
    let fault = Fault::new(SqlState::SYNTAX_ERROR, format!("unknown command \"{quoted}\""));
    fault.hint(hint::hint(words))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What `parse` makes of the words of one command.
    pub(in crate::admin::console) fn with_words<T>(text: &str, parse: fn(&[&str]) -> T) -> T {
        let commands = sql::commands(text).unwrap();
        let words = commands.iter().flat_map(|command| &command.words);
        parse(&words.map(String::as_str).collect::<Vec<_>>())
    }

    #[test]
    fn commands_are_read_in_any_case_with_comments_and_semicolons() {
        let pools = vec![Command::Show(Show::Pools)];
        for text in [
            "show pools",
            "SHOW POOLS;",
            "  Show\n\tpools ;; ",
            "/* a */SHOW--b\npools",
            "show /* a /* b */ ; */ -- c\rpools",
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(pools.clone()), "{text}");
        }
        for text in ["", ";", "-- ping", "/* never ends", "--"] {
            assert_eq!(parse(text.as_bytes()), Ok(vec![]), "{text}");
        }
        assert_eq!(
            parse(b"RELOAD; SHOW VERSION"),
            Ok(vec![Command::Reload, Command::Show(Show::Version)])
        );
    }

    #[test]
    fn a_command_for_all_replicas_is_read_as_it_was_meant() {
        for text in ["RELOAD", "RESUME", "HOLD \"a \"\"b; c\"", "REVOKE OLD App", "REFRESH \"x y\""]
        {
            let commands = parse(text.as_bytes()).unwrap();
            assert_eq!(parse(commands[0].to_text().as_bytes()), Ok(commands.clone()), "{text}");
            assert!(commands[0].acts_on_all(), "{text}");
        }
        let adopt = parse(b"ADOPT NODE main.10.0.0.1").unwrap();
        assert_eq!(parse(adopt[0].to_text().as_bytes()), Ok(adopt));
        for text in ["KILL app", "RECONNECT", "SHUTDOWN", "SHOW POOLS", "BEGIN"] {
            assert!(!parse(text.as_bytes()).unwrap()[0].acts_on_all(), "{text}");
        }
        assert_eq!(parse(b"show pools all"), Ok(vec![Command::ShowAll(Show::Pools)]));
        let names = |command: &Command, has_peers| {
            let columns = command.columns(has_peers)?;
            Some(columns.iter().map(Column::name).collect::<Vec<_>>())
        };
        let version = Some(vec!["replica", "version"]);
        assert_eq!(names(&Command::ShowAll(Show::Version), false), version);
        assert_eq!(names(&Command::Reload, true), Some(vec!["replica", "result"]));
        assert_eq!(names(&Command::Reload, false), None);
        assert_eq!(names(&Command::Shutdown(Pace::Quick), true), None);
    }

    #[test]
    fn one_unknown_command_refuses_the_whole_text() {
        for text in ["SHOW POOLS; SHOW NONSENSE", "SELECT 1", "SHOW POOLS EXTRA", "RELOAD NOW"] {
            let fault = parse(text.as_bytes()).unwrap_err();
            assert_eq!(fault.code, SqlState::SYNTAX_ERROR, "{text}");
            assert!(fault.hint.as_deref().unwrap().contains("SHOW HELP"), "{text}");
        }
        let long = "é".repeat(500);
        assert!(parse(long.as_bytes()).unwrap_err().message.chars().count() < 100);
        for text in ["KILL \"app", "RESUME 'a"] {
            let fault = parse(text.as_bytes()).unwrap_err();
            assert_eq!(fault.code, SqlState::SYNTAX_ERROR, "{text}: it is not for all");
        }
        assert_eq!(parse(b"\xff").unwrap_err().code, SqlState::CHARACTER_NOT_IN_REPERTOIRE);
    }

    #[test]
    fn settings_of_drivers_pass_and_options_do_not() {
        for text in [
            "SET extra_float_digits = 3",
            "SET application_name='PostgreSQL JDBC Driver'",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET TIME ZONE 'UTC'",
            "SET SESSION search_path TO x",
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(vec![Command::Set]), "{text}");
        }
        let fault = parse(b"SET pool_size = 50").unwrap_err();
        assert_eq!(fault.code, SqlState::FEATURE_NOT_SUPPORTED);
    }

    #[test]
    fn help_lists_every_command_that_can_be_read() {
        for (command, _) in HELP {
            assert!(parse(command.as_bytes()).is_ok(), "{command}");
        }
        assert_eq!(parse(b"SHUTDOWN WAIT_FOR_CLIENTS").unwrap_err().code.as_str(), "0A000");
    }
}
