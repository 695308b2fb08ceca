//! libpq's password file: the lines that fit a connection.
//!
//! This module owns the file's format and its rule of permissions; `upstream` decides which file is
//! read and when.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::host::Host;
use crate::secret::Secret;

/// The connection for which a password file is searched.
pub(crate) struct Wanted<'a> {
    pub(crate) host: &'a Host,
    pub(crate) port: u16,
    pub(crate) dbname: &'a str,
    pub(crate) user: &'a str,
}

/// The outcome of a look into a password file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// The password of the first line that fits.
    Found(Secret),
    /// There is no such file, or no line that fits.
    Nothing,
    /// The file is ignored, as libpq ignores it, for this reason.
    Ignored(String),
}

/// Looks for the connection's password in the file at `path`.
pub(crate) fn look_up(path: &Path, wanted: &Wanted<'_>) -> Lookup {
    let ignored =
        |cause: String| Lookup::Ignored(format!("{} is ignored: {cause}", path.display()));
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Lookup::Nothing,
        Err(error) => return ignored(error.to_string()),
    };
    match file.metadata() {
        Ok(metadata) if !metadata.is_file() => return ignored("it is not a plain file".to_owned()),
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            return ignored("its permissions must be 0600 or less".to_owned());
        }
        Ok(_) => {}
        Err(error) => return ignored(error.to_string()),
    }
    let mut text = Secret::new(String::new());
    match file.read_to_string(text.text_mut()) {
        Ok(_) => find(text.expose(), wanted).map_or(Lookup::Nothing, Lookup::Found),
        Err(error) => ignored(error.to_string()),
    }
}

/// The password of the first line that fits.
fn find(text: &str, wanted: &Wanted<'_>) -> Option<Secret> {
    let port = wanted.port.to_string();
    let fields = [host_field(wanted.host), &port, wanted.dbname, wanted.user];
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| fields.iter().try_fold(line, |rest, field| after_field(rest, field)))
        .map(password)
}

/// The password of the first line of `text` for `user`, whatever the line's host, port and
/// database: for a password file that holds one user's password only. `text` has the form of
/// libpq's password file (`.pgpass`), `host:port:database:user:password`; lines that begin with `#`
/// are left out, and backslashes before `:` and `\` are undone. `None` when no line has this user
/// or `*`. The password may be empty. No file is read, and no permissions are checked.
#[must_use]
pub fn password_in_pgpass(text: &str, user: &str) -> Option<Secret> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let rest = (0..3).try_fold(line, |rest, _| after_any_field(rest))?;
            after_field(rest, user)
        })
        .map(password)
}

/// The rest of `line` after its first field and the colon, whatever it is.
fn after_any_field(line: &str) -> Option<&str> {
    let mut chars = line.chars();
    loop {
        match chars.next()? {
            ':' => return Some(chars.as_str()),
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
}

/// What the first field of a line names: libpq calls the usual socket directory `localhost`.
fn host_field(host: &Host) -> &str {
    /// libpq's DEFAULT_PGSOCKET_DIR, as Debian and as upstream build it.
    const USUAL: [&str; 2] = ["/var/run/postgresql", "/tmp"];
    match host {
        Host::Tcp(name) => name,
        Host::Unix(directory) => match directory.to_str() {
            Some(text) if !USUAL.contains(&text) => text,
            _ => "localhost",
        },
    }
}

/// The rest of `line` after its first field and the colon, if that field is `*` or `expected`
/// with colons and backslashes escaped.
fn after_field<'a>(line: &'a str, expected: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut chars = line.chars();
    let mut wanted = expected.chars();
    loop {
        match chars.next()? {
            ':' => return wanted.next().is_none().then_some(chars.as_str()),
            '\\' if wanted.next() != chars.next() => return None,
            '\\' => {}
            other if wanted.next() != Some(other) => return None,
            _ => {}
        }
    }
}

/// The last field, up to a colon or the line's end, with its escapes undone.
fn password(field: &str) -> Secret {
    let mut plain = Secret::new(String::with_capacity(field.len()));
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => break,
            '\\' => plain.text_mut().push(chars.next().unwrap_or('\\')),
            other => plain.text_mut().push(other),
        }
    }
    plain
}

/// libpq's `~/.pgpass`.
pub(crate) fn usual_file(home: &str) -> PathBuf {
    Path::new(home).join(".pgpass")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    fn found(text: &str, host: &str, port: u16, dbname: &str, user: &str) -> Option<String> {
        let host = match host.starts_with('/') {
            true => Host::Unix(host.into()),
            false => Host::Tcp(host.to_owned()),
        };
        let wanted = Wanted { host: &host, port, dbname, user };
        find(text, &wanted).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn the_first_line_that_fits_wins() {
        let text =
            "# a comment\nother:5432:app:ann:no\nh:5432:app:ann:first\nh:5432:app:ann:second\n";
        assert_eq!(found(text, "h", 5432, "app", "ann").as_deref(), Some("first"));
        assert_eq!(found(text, "h", 5433, "app", "ann"), None);
        assert_eq!(found(text, "h", 5432, "app", "bob"), None);
    }

    #[test]
    fn a_star_stands_for_any_field_and_only_when_alone() {
        assert_eq!(found("*:*:*:*:p", "h", 1, "d", "u").as_deref(), Some("p"));
        assert_eq!(found("h*:*:*:*:p", "host", 1, "d", "u"), None);
        assert_eq!(found("*:*:*:ann:p", "h", 1, "d", "bob"), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        let text = r"::1:5432:d:u:wrong
\:\:1:5432:d:a\\b:pass\:word\\:rest";
        assert_eq!(found(text, "::1", 5432, "d", r"a\b").as_deref(), Some(r"pass:word\"));
    }

    #[test]
    fn a_users_line_is_found_whatever_it_connects_to() {
        let text = "# h:1:d:ann:no\n\\:\\:1:5432:d:ann:p\\:q\nh:1:d\\:ann:x:y\n*:*:*:*:any\n";
        let found = |user| password_in_pgpass(text, user).map(|found| found.expose().to_owned());
        assert_eq!(found("ann").as_deref(), Some("p:q"));
        assert_eq!(found("bob").as_deref(), Some("any"));
        assert_eq!(password_in_pgpass("h:1:d:ann:p\nbob\n", "bob"), None);
    }

    #[test]
    fn short_lines_and_prefixes_do_not_fit() {
        for text in ["", "h", "h:1:d:u", "h:1:d:us:p", "ho:1:d:u:p", ":1:d:u:p"] {
            assert_eq!(found(text, "h", 1, "d", "u"), None, "{text}");
        }
        assert_eq!(found("h:1:d:u:", "h", 1, "d", "u").as_deref(), Some(""));
    }

    #[test]
    fn the_usual_socket_directory_is_called_localhost() {
        let text = "localhost:5432:d:u:p\n/srv/pg:5432:d:u:q";
        assert_eq!(found(text, "/var/run/postgresql", 5432, "d", "u").as_deref(), Some("p"));
        assert_eq!(found(text, "/srv/pg", 5432, "d", "u").as_deref(), Some("q"));
    }

    #[test]
    fn a_file_that_others_can_read_is_ignored() {
        let directory = crate::scratch::Directory::new("pgpass");
        let path = directory.file("pass", "*:*:*:*:p\n");
        let host = Host::Tcp("h".to_owned());
        let wanted = Wanted { host: &host, port: 1, dbname: "d", user: "u" };
        for (mode, expected) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
            let found = look_up(&path, &wanted);
            assert_eq!(matches!(found, Lookup::Found(_)), expected, "{mode:o}: {found:?}");
            if let Lookup::Ignored(cause) = found {
                assert!(cause.contains("0600") && !cause.contains(":p"), "{cause}");
            }
        }
        assert_eq!(look_up(&directory.path("none"), &wanted), Lookup::Nothing);
    }
}
