//! The command line: flags and subcommands, without their implementation.

mod hint;
mod man;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use pgimbal_config::{AuthType, Overrides, PoolMode, Secret};

use hint::Hint;

use crate::admin::check::{CheckOptions, OutputFormat};
use crate::admin::route::{RouteOptions, Statements};
use crate::top::{Pane, Place, TopOptions};

/// The command that the command line names.
#[derive(Debug)]
pub enum Command {
    /// `run`, or no subcommand: serves clients until a signal ends the process.
    Run(Overrides),
    /// `check`: checks the configuration and its servers, and serves no clients.
    Check(Overrides, CheckOptions),
    /// `route`: prints where statements would go, and why.
    Route(Overrides, RouteOptions),
    /// `top`: shows the console of a running pgimbal.
    Top(Place, TopOptions),
    /// `config reference`: prints the option reference.
    Reference,
    /// `completions`: prints a shell's completion script.
    Completions(Shell),
    /// `man PAGE`: prints the manual page of this name.
    ManualPage(String),
    /// `man --list`: prints the names of all manual pages.
    ManualPages,
}

/// Reads the process's command line. `--help`, `--version` and a usage error end the process here,
/// with clap's texts and the exit codes 0, 0 and 2.
#[must_use]
pub fn parse() -> Command {
    Cli::parse().into_command()
}

/// Writes the completion script for `shell` to `out`.
pub fn write_completions(shell: Shell, out: &mut impl Write) {
    clap_complete::generate(shell, &mut Cli::command(), "pgimbal", out);
}

/// All manual pages in the language of man(7), by the names of their files, such as `pgimbal.1`.
///
/// # Errors
/// Never: they are written to memory.
pub fn manual_pages() -> io::Result<BTreeMap<String, Vec<u8>>> {
    man::pages(Cli::command())
}

/// Keeps applications connected to PostgreSQL: a pooling proxy.
#[derive(Debug, Parser)]
#[command(name = "pgimbal", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "Every option can also be set in pgimbal.toml or as PGIMBAL_<KEY>; \
    `pgimbal config reference` lists them all.")]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve clients (this is what happens without a command)
    Run(Options),
    /// Check the configuration and its servers, then exit
    ///
    /// Exit codes: 0 all is well, 3 something should be looked at, 1 something fails, 78 the
    /// configuration cannot be used.
    Check(CheckFlags),
    /// Print where statements would go with route = "auto", and why
    ///
    /// Each counts as it would outside a transaction. The catalog of the database is read from one
    /// of its servers, for its functions and views; nothing else is sent there.
    Route(RouteFlags),
    /// Show the console of a running pgimbal or PgBouncer, live
    ///
    /// Asks once a second and draws pools, nodes, pinned clients, credentials and more; ? explains
    /// the keys. Where standard output is no terminal, it prints one table and ends.
    Top(TopFlags),
    /// About the configuration
    #[command(subcommand)]
    Config(About),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page
    Man {
        /// The page, such as pgimbal-check.1 or pgimbal.toml.5
        #[arg(default_value = "pgimbal.1")]
        page: String,
        /// Print the names of all pages instead
        #[arg(long)]
        list: bool,
    },
}

#[derive(Debug, Subcommand)]
enum About {
    /// Print every option with its type, default and reason, as Markdown
    Reference,
}

/// The flags of `check`.
#[derive(Debug, Args)]
struct CheckFlags {
    #[command(flatten)]
    options: Options,
    /// Try only this user, who may be one of the rule [users."*"]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Try only this database, which may be one of [databases."*"]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

/// The flags of `route`.
#[derive(Debug, Args)]
struct RouteFlags {
    #[command(flatten)]
    options: Options,
    /// A statement, or several that are sent as one query
    #[arg(value_name = "SQL", required_unless_present = "file", conflicts_with = "file")]
    sql: Option<String>,
    /// Read statements from this file, each for itself; - is standard input
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Whose catalog is read [default: the first that is listed]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// The user who reads it [default: the first that is listed]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// The flags of `top`.
#[derive(Debug, Args)]
struct TopFlags {
    /// Where the console is: postgres://user@host:port/database?sslmode=..
    ///
    /// What is missing comes from PGHOST, PGPORT [default: 6432], PGUSER, PGDATABASE, PGPASSWORD
    /// and ~/.pgpass; the database is pgimbal or pgbouncer. A password is asked for when none is
    /// found.
    #[arg(value_name = "URL", value_parser = |url: &str| Ok::<_, String>(Secret::from(url)))]
    url: Option<Secret>,
    /// Look at the pgimbal on this machine that runs with this configuration file
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    #[arg(conflicts_with = "url")]
    config: Option<PathBuf>,
    /// The table to begin with, or to print
    #[arg(long, value_name = "NAME", default_value = "pools", value_parser = panes())]
    table: Pane,
    /// Print the table once, as plain text, and end
    #[arg(long)]
    once: bool,
}

/// The flags of `run` and `check`. They are text here: their values are checked where those of
/// files and the environment are, so that every source gets the same errors.
#[derive(Debug, Args)]
struct Options {
    /// Configuration file [default: pgimbal.toml or /etc/pgimbal/pgimbal.toml, if there]
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// A server to pool, without any file: postgres://user:password@host:port/db?sslmode=..
    ///
    /// What is missing comes from PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, PGSSLMODE and
    /// ~/.pgpass. Other users can see a command line; PGIMBAL_UPSTREAM, PGPASSWORD or ~/.pgpass
    /// keep a password out of it.
    #[arg(long, value_name = "URL", value_parser = |url: &str| Ok::<_, String>(Secret::from(url)))]
    upstream: Option<Secret>,
    /// Addresses for clients [default: 127.0.0.1:6432]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Server connections of a pool [default: 20]
    #[arg(long, value_name = "N")]
    pool_size: Option<String>,
    /// When a client gives its server connection back [default: transaction]
    #[arg(long, value_name = "MODE", value_parser = Hint(PoolMode::NAMES))]
    pool_mode: Option<String>,
    /// How clients prove who they are [default: scram-sha-256]
    #[arg(long, value_name = "TYPE", value_parser = Hint(AuthType::NAMES))]
    auth_type: Option<String>,
    /// Threads that serve clients, 0 for one on each core [default: 0]
    #[arg(long, value_name = "N")]
    workers: Option<String>,
}

/// Takes the name of a pane; completion scripts have all names.
fn panes() -> impl TypedValueParser<Value = Pane> {
    PossibleValuesParser::new(Pane::NAMES).try_map(|name| name.parse())
}

impl Cli {
    fn into_command(self) -> Command {
        match self.verb {
            None => Command::Run(self.options.into()),
            Some(Verb::Run(options)) => Command::Run(options.into()),
            Some(Verb::Check(CheckFlags { options, user, database, json })) => {
                let format = if json { OutputFormat::Json } else { OutputFormat::Text };
                Command::Check(options.into(), CheckOptions { user, database, format })
            }
            Some(Verb::Route(RouteFlags { options, sql, file, database, user })) => {
                let text = Statements::Text(sql.unwrap_or_default());
                let statements = file.map_or(text, Statements::File);
                Command::Route(options.into(), RouteOptions { statements, database, user })
            }
            Some(Verb::Top(TopFlags { url, config, table, once })) => {
                let options = TopOptions { pane: table, is_once: once };
                Command::Top(Place { url, config }, options)
            }
            Some(Verb::Config(About::Reference)) => Command::Reference,
            Some(Verb::Completions { shell }) => Command::Completions(shell),
            Some(Verb::Man { list: true, .. }) => Command::ManualPages,
            Some(Verb::Man { page, .. }) => Command::ManualPage(page),
        }
    }
}

impl From<Options> for Overrides {
    fn from(options: Options) -> Self {
        let Options { config, upstream, listen, pool_size, pool_mode, auth_type, workers } =
            options;
        Self { config, upstream, listen, pool_size, pool_mode, auth_type, workers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        Cli::try_parse_from(line.split(' ')).expect(line).into_command()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default() {
        for line in ["pgimbal --pool-size 5", "pgimbal run --pool-size 5"] {
            let Command::Run(overrides) = command(line) else { panic!("{line}") };
            assert_eq!(overrides.pool_size.as_deref(), Some("5"));
        }
        assert!(matches!(command("pgimbal"), Command::Run(_)));
    }

    #[test]
    fn check_takes_the_options_of_run() {
        let line = "pgimbal check --config a.toml --upstream postgres:// --listen 127.0.0.1:1 \
                    --pool-size 5 --pool-mode session --auth-type trust --workers 2 --json --user u";
        let Command::Check(overrides, options) = command(line) else { panic!("{line}") };
        let (user, database, format) = (Some("u".to_owned()), None, OutputFormat::Json);
        assert_eq!(options, CheckOptions { user, database, format });
        assert_eq!(
            overrides,
            Overrides {
                config: Some("a.toml".into()),
                upstream: Some("postgres://".into()),
                listen: Some("127.0.0.1:1".into()),
                pool_size: Some("5".into()),
                pool_mode: Some("session".into()),
                auth_type: Some("trust".into()),
                workers: Some("2".into()),
            }
        );
    }

    #[test]
    fn route_has_one_text_or_one_file() {
        let parse =
            |words: &[&str]| Cli::try_parse_from([&["pgimbal", "route"][..], words].concat());
        let options = |words: &[&str]| match parse(words).expect("it parses").into_command() {
            Command::Route(_, options) => options,
            other => panic!("{other:?}"),
        };
        let text = options(&["SELECT 1", "--config", "a.toml", "--database", "d"]);
        assert_eq!(text.statements, Statements::Text("SELECT 1".to_owned()));
        assert_eq!(text.database.as_deref(), Some("d"));
        let file = options(&["--file", "-", "--user", "u"]);
        assert_eq!(file.statements, Statements::File("-".into()));
        assert_eq!(file.user.as_deref(), Some("u"));
        let both = ["SELECT 1", "--file", "a.sql"];
        let neither = ["--config", "a.toml"];
        for wrong in [&both[..], &neither[..], &["SELECT 1", "SELECT 2"][..]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn top_has_a_place_and_a_table() {
        let line = "pgimbal top postgres://u@h --table nodes --once";
        let Command::Top(place, options) = command(line) else { panic!("{line}") };
        assert_eq!(place, Place { url: Some("postgres://u@h".into()), config: None });
        assert_eq!(options, TopOptions { pane: Pane::Nodes, is_once: true });
        let Command::Top(_, options) = command("pgimbal top") else { panic!() };
        assert_eq!(options, TopOptions { pane: Pane::Pools, is_once: false });
        for wrong in ["top --table pool", "top postgres:// --config a.toml"] {
            let words = ["pgimbal"].into_iter().chain(wrong.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_on_the_command_line_is_not_printed() {
        for line in
            ["pgimbal --upstream postgres://u:hunter2@h/d", "pgimbal top postgres://u:hunter2@h"]
        {
            let shown = format!("{:?}", command(line));
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn a_wrong_word_is_left_to_the_configuration() {
        let Command::Run(overrides) = command("pgimbal --pool-mode sesion") else { panic!() };
        assert_eq!(overrides.pool_mode.as_deref(), Some("sesion"));
    }

    #[test]
    fn other_commands() {
        assert!(matches!(command("pgimbal config reference"), Command::Reference));
        assert!(matches!(command("pgimbal completions bash"), Command::Completions(Shell::Bash)));
        let mut script = Vec::new();
        write_completions(Shell::Bash, &mut script);
        let script = String::from_utf8(script).expect("a completion script is text");
        assert!(script.contains("--pool-mode") && script.contains("scram-sha-256"));
        assert!(matches!(command("pgimbal man"), Command::ManualPage(_)));
        assert!(matches!(command("pgimbal man --list"), Command::ManualPages));
    }
}
