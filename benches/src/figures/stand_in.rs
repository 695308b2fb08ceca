//! A stand-in for Vault's HTTP API: as many roles as are wanted, rotated when it is told.

use crate::{During, Error, Result};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A listening stand-in; its threads end with the process.
#[derive(Debug)]
pub struct StandIn {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    roles: HashMap<String, Role>,
    requests: u64,
    asked: HashSet<String>,
}

/// A static role.
struct Role {
    password: String,
    rotated: SystemTime,
    due: Instant,
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Role(..)")
    }
}

impl StandIn {
    /// Starts one without roles.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).during("listening as Vault")?;
        let port = listener.local_addr().during("listening as Vault")?.port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let accept = move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream, &state));
            }
        };
        std::thread::Builder::new().spawn(accept).during("starting a thread")?;
        Ok(Self { port, state })
    }

    /// From now on `role` has this password, rotated now, and is due in `ttl`.
    pub fn rotate(&self, role: &str, password: &str, ttl: Duration) {
        let (rotated, due) = (SystemTime::now(), Instant::now() + ttl);
        let role_now = Role { password: password.to_owned(), rotated, due };
        lock(&self.state).roles.insert(role.to_owned(), role_now);
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        lock(&self.state).requests
    }

    /// Roles that were asked for so far.
    #[must_use]
    pub fn asked(&self) -> usize {
        lock(&self.state).asked.len()
    }

    /// A `[vaults.main]` table that leads here.
    #[must_use]
    pub fn table(&self, poll_interval: &str) -> String {
        format!(
            "[vaults.main]\naddress = \"http://127.0.0.1:{}\"\ntoken = \"stand-in\"\n\
             poll_interval = \"{poll_interval}\"\n\n",
            self.port
        )
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> Result<()> {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(path) = request(&mut reader).during("reading a request")? {
        let answer = answer(&path, &mut lock(state));
        let (status, body) = answer.map_or((404, json!({ "errors": [] })), |body| (200, body));
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} Stood In\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        writer.write_all((head + &body).as_bytes()).during("answering")?;
    }
    Err(Error::Program("the client left".into()))
}

/// The path of the next request; `None` at the connection's end.
fn request(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let (mut path, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        match (&path, line.split_once(':')) {
            (None, _) => path = line.split(' ').nth(1).map(str::to_owned),
            (Some(_), _) if line.is_empty() => break,
            (Some(_), Some((name, value))) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().unwrap_or(0);
            }
            _ => {}
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    Ok(path)
}

fn answer(path: &str, state: &mut State) -> Option<Value> {
    state.requests += 1;
    let path = path.strip_prefix("/v1/")?;
    if let Some(name) = path.strip_prefix("database/static-creds/") {
        let role = state.roles.get(name)?;
        let data = json!({
            "username": name,
            "password": role.password,
            "last_vault_rotation": rfc3339(role.rotated),
            "rotation_period": 86400,
            "ttl": role.due.saturating_duration_since(Instant::now()).as_secs(),
        });
        state.asked.insert(name.to_owned());
        return Some(json!({ "request_id": "1", "lease_id": "", "renewable": false,
            "lease_duration": 0, "data": data, "wrap_info": null, "warnings": null, "auth": null }));
    }
    match path {
        "sys/health" => Some(json!({ "initialized": true, "sealed": false, "standby": false,
            "performance_standby": false, "version": "1.21.0", "server_time_utc": 0 })),
        "auth/token/lookup-self" => Some(json!({ "data": { "ttl": 0, "creation_ttl": 0,
            "renewable": false, "policies": [], "expire_time": null, "id": "", "accessor": "" } })),
        _ => None,
    }
}

/// As Vault prints a time, in UTC.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86400, since.as_secs() % 86400);
    // Days since March of the year 0: leap days come last in such a year.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (year, day) = (era * 400 + year + u64::from(month >= 10), day - (153 * month + 2) / 5 + 1);
    let month = if month < 10 { month + 3 } else { month - 9 };
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{:09}Z",
        second % 60,
        since.subsec_nanos()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_vault_does() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.000000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(1_764_108_123), "2025-11-25T22:02:03.000000000Z");
    }
}
