//! `pgimbal route`: where statements would go under `route = "auto"`, and why.

mod catalog;

use std::fs;
use std::io::{self, Write};
use std::iter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pgimbal_config::{Config, Route, WILDCARD};
use pgimbal_pooler::cluster::explain::explain_text;
use pgimbal_pooler::sql::{Encoding, Reading, StandardStrings, without_comments};
use pgimbal_reads::split;

/// The statements are read as UTF-8, with `standard_conforming_strings` on, as the files of
/// migrations and the logs of servers are.
const READING: Reading = Reading { strings: StandardStrings::On, encoding: Encoding::Utf8 };

/// How many characters of a statement are printed.
const SHOWN: usize = 100;

/// The options of `pgimbal route`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteOptions {
    /// Where the statements are.
    pub statements: Statements,
    /// `--database`: whose catalog is read; `None` for the only one, or the first that is listed.
    pub database: Option<String>,
    /// `--user`: who reads it; `None` for the user of the database, or the first that is listed.
    pub user: Option<String>,
}

/// What `pgimbal route` is to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statements {
    /// The text of one or more statements, which count as one query.
    Text(String),
    /// The file of statements, each of which counts for itself; `-` for standard input.
    File(PathBuf),
}

/// Runs `pgimbal route`: prints for each statement whether a replica or the primary would serve it,
/// and why. The catalog of the database is read from one of its servers; where that fails, the
/// output says so, and only well-known functions count as reads.
///
/// The exit code is 0, and 1 when the statements cannot be read. Nothing else is sent to a server.
#[must_use]
pub fn run(config: &Config, options: &RouteOptions) -> ExitCode {
    match decide_all(config, options) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads may have read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgimbal: {error}");
            ExitCode::FAILURE
        }
    }
}

fn decide_all(config: &Config, options: &RouteOptions) -> io::Result<()> {
    let (text, spans): (Vec<u8>, Vec<_>) = match &options.statements {
        Statements::Text(text) => (text.clone().into_bytes(), iter::once(0..text.len()).collect()),
        Statements::File(path) => {
            let text = read(path)?;
            let spans = split(&text, READING);
            (text, spans)
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let known =
        runtime.block_on(catalog::read(config, &database(config, options), &user(config, options)));
    let mut out = io::stdout().lock();
    writeln!(out, "{}", known.origin)?;
    let (mut replicas, mut end) = (0, 0);
    for span in &spans {
        let statement = &text[span.clone()];
        let commented = behind_semicolons(&text[end..span.end]);
        end = span.end;
        let (route, why) = explain_text((commented, statement), READING, &known.catalog);
        replicas += usize::from(route == Route::Replica);
        writeln!(out, "{}  {}", route.as_str(), shown(statement))?;
        writeln!(out, "         {why}")?;
    }
    if spans.len() != 1 {
        let primary = spans.len() - replicas;
        writeln!(out, "{replicas} to a replica, {primary} to the primary")?;
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let text = if path.as_os_str() == "-" {
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::stdin().lock(), &mut text).map(|_| text)
    } else {
        fs::read(path)
    };
    text.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// The database whose catalog is read, by the name for clients.
fn database(config: &Config, options: &RouteOptions) -> String {
    let listed = || config.databases.keys().find(|name| *name != WILDCARD).cloned();
    options.database.clone().or_else(listed).unwrap_or_else(|| "postgres".to_owned())
}

/// The user who reads it.
fn user(config: &Config, options: &RouteOptions) -> String {
    let listed = || config.users.keys().find(|name| *name != WILDCARD).cloned();
    options.user.clone().or_else(listed).unwrap_or_else(|| "postgres".to_owned())
}

/// What stands behind the semicolons that end the statement before: comments, and a statement.
fn behind_semicolons(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let Some(behind) = without_comments(rest).strip_prefix(b";") {
        rest = behind;
    }
    rest
}

/// The beginning of a statement, in one line.
fn shown(statement: &[u8]) -> String {
    let text = String::from_utf8_lossy(statement);
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if let Some((end, _)) = line.char_indices().nth(SHOWN) {
            line.truncate(end);
            line.push('…');
            break;
        }
    }
    line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_belong_to_the_statement_behind_them() {
        for (text, expected) in [
            ("/* a */ select 1", "/* a */ select 1"),
            (" /* a; */ ; ;-- b;\nselect 1", "-- b;\nselect 1"),
            ("", ""),
        ] {
            assert_eq!(behind_semicolons(text.as_bytes()), expected.as_bytes(), "{text}");
        }
    }

    #[test]
    fn a_statement_is_shown_in_one_line() {
        assert_eq!(shown(b"SELECT 1,\n\t 2"), "SELECT 1, 2");
        assert_eq!(shown(b"a\x1b[31m\xff"), "a\u{fffd}[31m\u{fffd}");
        let long = shown("ü".repeat(1000).as_bytes());
        assert_eq!(long.chars().count(), SHOWN + 1);
        assert!(long.ends_with('…'));
    }
}
