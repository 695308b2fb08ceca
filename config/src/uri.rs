//! libpq's connection URI, `postgres://user:password@host:port/dbname?name=value`, taken apart by
//! libpq's own rules.
//!
//! An error never quotes the URI: it may hold a password.

use crate::secret::Secret;

/// The parts that are there, decoded, under libpq's names; later ones win.
pub(crate) type Parts = Vec<(String, Secret)>;

/// Takes a URI apart. Parameters are not checked here.
///
/// # Errors
/// The cause in words.
pub(crate) fn parse(uri: &str) -> Result<Parts, String> {
    let rest = ["postgres://", "postgresql://"]
        .iter()
        .find_map(|scheme| uri.strip_prefix(scheme))
        .ok_or("expected a URI that begins with postgres:// or postgresql://")?;
    let mut parts = Parts::new();
    let rest = credentials(rest, &mut parts)?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    unescaped(authority, rest)?;
    address(authority, &mut parts)?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    add(&mut parts, "dbname", path.strip_prefix('/').unwrap_or(path))?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) =
            pair.split_once('=').ok_or("a parameter after \"?\" has no \"=\" and value")?;
        let name = decoded(name)?;
        match (name.expose(), value) {
            // What JDBC calls it; libpq takes it too.
            ("ssl", "true") => parts.push(("sslmode".to_owned(), "require".into())),
            (name, value) => parts.push((name.to_owned(), decoded(value)?)),
        }
    }
    Ok(parts)
}

/// The user and the password, in this order, of a connection URI of libpq's form, with percent
/// encoding undone; each `None` where the URI has none. The parameters `user` and `password` after
/// the `?` count too and win. The other parts are checked for their form and dropped.
///
/// # Errors
/// The cause in words, without any part of the URI, when the URI is malformed or names several
/// hosts.
pub fn credentials_in_uri(uri: &str) -> Result<(Option<Secret>, Option<Secret>), String> {
    let (mut user, mut password) = (None, None);
    for (name, value) in parse(uri)? {
        match &*name {
            "user" => user = Some(value),
            "password" => password = Some(value),
            _ => {}
        }
    }
    Ok((user, password))
}

/// Takes `user:password@` off, if there is an `@` before the first `/`.
fn credentials<'a>(rest: &'a str, parts: &mut Parts) -> Result<&'a str, String> {
    let end = rest.find(['@', '/']).filter(|at| rest.as_bytes()[*at] == b'@');
    let Some(end) = end else { return Ok(rest) };
    let (user, password) = rest[..end].split_once(':').unwrap_or((&rest[..end], ""));
    add(parts, "user", user)?;
    add(parts, "password", password)?;
    Ok(&rest[end + 1..])
}

/// Finds out that a password stands in the URI as it is: libpq ends the user and password at the
/// first `@`, and looks for none behind a `/`.
fn unescaped(authority: &str, rest: &str) -> Result<(), String> {
    let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
    let is_host = port.bytes().all(|byte| byte.is_ascii_digit()) || authority.ends_with(']');
    let found = if authority.contains('@') {
        ("@", "%40")
    } else if !is_host && rest.contains('@') {
        ("/", "%2F")
    } else {
        return Ok(());
    };
    Err(format!(
        "its user or password holds a \"{}\": write that as {}; / : @ ? # % [ ] and blanks are \
         written as % and two digits there",
        found.0, found.1
    ))
}

/// Reads `host`, `host:port` or `[IPv6]:port`.
fn address(authority: &str, parts: &mut Parts) -> Result<(), String> {
    if authority.contains(',') {
        return Err("names several hosts, and pgimbal takes one here: in a file, list them as \
                    nodes of a cluster, each in a table [clusters.NAME.nodes.NODE] with host and \
                    port"
            .to_owned());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) =
                bracketed.split_once(']').ok_or("an IPv6 address lacks its \"]\"")?;
            if host.is_empty() {
                return Err("the IPv6 address in \"[]\" is empty".to_owned());
            }
            match rest.strip_prefix(':') {
                Some(port) => (host, port),
                None if rest.is_empty() => (host, ""),
                None => return Err("expected \":\" and a port after \"]\"".to_owned()),
            }
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    add(parts, "host", host)?;
    add(parts, "port", port)
}

/// Adds what is not empty; libpq lets an empty part fall back to its default.
fn add(parts: &mut Parts, name: &str, text: &str) -> Result<(), String> {
    if !text.is_empty() {
        parts.push((name.to_owned(), decoded(text)?));
    }
    Ok(())
}

/// Undoes percent-encoding. A plus is a plus.
fn decoded(text: &str) -> Result<Secret, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        match (digit(), digit()) {
            (Some(0), Some(0)) => return Err("\"%00\" is not allowed".to_owned()),
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => return Err(
                "a \"%\" is not followed by two hexadecimal digits; a % itself is written as %25"
                    .to_owned(),
            ),
        }
    }
    String::from_utf8(bytes)
        .map(Secret::new)
        .map_err(|_| "a percent-encoded part is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str) -> Vec<(String, String)> {
        let parts = parse(uri).expect(uri);
        parts.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn credentials_are_found_and_the_last_ones_count() {
        let found = |uri| {
            let (user, password) = credentials_in_uri(uri).expect(uri);
            [user, password].map(|part| part.map(|part| part.expose().to_owned()))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(found("postgres://ann:p%3Aq@h/d"), [some("ann"), some("p:q")]);
        assert_eq!(found("postgres://ann:p@h/d?password=x"), [some("ann"), some("x")]);
        assert_eq!(found("postgres://h/d"), [None, None]);
        assert!(credentials_in_uri("postgres://ann:%zz@h").is_err());
    }

    #[test]
    fn every_part_is_found_under_its_name() {
        assert_eq!(
            parts(
                "postgresql://ann:s%40cret@db.example:5433/app?sslmode=require&connect_timeout=3"
            ),
            pairs(&[
                ("user", "ann"),
                ("password", "s@cret"),
                ("host", "db.example"),
                ("port", "5433"),
                ("dbname", "app"),
                ("sslmode", "require"),
                ("connect_timeout", "3"),
            ])
        );
    }

    #[test]
    fn parts_that_are_not_there_are_left_out() {
        assert_eq!(parts("postgres://"), pairs(&[]));
        assert_eq!(parts("postgres:///app"), pairs(&[("dbname", "app")]));
        assert_eq!(parts("postgres://h"), pairs(&[("host", "h")]));
        assert_eq!(parts("postgres://ann@"), pairs(&[("user", "ann")]));
        assert_eq!(parts("postgres://?user=ann"), pairs(&[("user", "ann")]));
        assert_eq!(parts("postgres://h:/"), pairs(&[("host", "h")]));
    }

    #[test]
    fn ipv6_sockets_and_signs() {
        assert_eq!(
            parts("postgres://[::1]:5/d"),
            pairs(&[("host", "::1"), ("port", "5"), ("dbname", "d")])
        );
        assert_eq!(
            parts("postgres://%2Frun%2Fpg/d"),
            pairs(&[("host", "/run/pg"), ("dbname", "d")])
        );
        assert_eq!(
            parts("postgres:///d?host=/run/pg"),
            pairs(&[("dbname", "d"), ("host", "/run/pg")])
        );
        assert_eq!(
            parts("postgres://a%3Ab:p:w+%25@h"),
            pairs(&[("user", "a:b"), ("password", "p:w+%"), ("host", "h")])
        );
        assert_eq!(parts("postgres://?ssl=true"), pairs(&[("sslmode", "require")]));
    }

    #[test]
    fn errors_name_the_cause_and_not_the_uri() {
        for (uri, cause) in [
            ("mysql://u:hunter2@h", "postgres://"),
            ("postgres://u:hunter2%4@h", "hexadecimal"),
            ("postgres://u:hunter2%zz@h", "hexadecimal"),
            ("postgres://u:hunter2%00@h", "%00"),
            ("postgres://u:hunter2%ff@h", "UTF-8"),
            ("postgres://u:hunter2@a,b/d", "several hosts"),
            ("postgres://u:hunter2@[::1/d", "\"]\""),
            ("postgres://u:hunter2@[]/d", "empty"),
            ("postgres://u:hunter2@[::1]x/d", "port"),
            ("postgres://u:hunter2@h/d?sslmode", "\"=\""),
        ] {
            let found = parse(uri).expect_err(uri);
            assert!(found.contains(cause) && !found.contains("hunter2"), "{uri}: {found}");
        }
    }
}
