//! SHOW CLIENTS, SHOW SERVERS and SHOW LISTENERS.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgimbal_pooler::pool::stats::{ListenerSnapshot, ServerSnapshot};

use super::answer::{Cell, Column, Row, int, text};
use crate::admin::collect::Snapshot;

/// PgBouncer's columns that have a meaning here, then our own.
pub(super) const CLIENTS: &[Column] = &[
    text("type"),
    text("user"),
    text("database"),
    text("state"),
    text("addr"),
    int("port"),
    text("connect_time"),
    int("wait"),
    int("wait_us"),
    text("ptr"),
    text("link"),
    text("application_name"),
    int("prepared_statements"),
    text("pinned"),
    int("pinned_seconds"),
    int("server_pid"),
    int("worker"),
    int("generation"),
    text("route"),
    text("node"),
];

/// PgBouncer's columns that have a meaning here, then our own.
pub(super) const SERVERS: &[Column] = &[
    text("type"),
    text("user"),
    text("database"),
    text("state"),
    text("addr"),
    int("port"),
    text("connect_time"),
    text("ptr"),
    text("link"),
    int("remote_pid"),
    int("prepared_statements"),
    int("worker"),
    int("generation"),
];

/// The columns of SHOW LISTENERS, which PgBouncer has not.
pub(super) const LISTENERS: &[Column] = &[
    text("database"),
    text("user"),
    text("channel"),
    int("clients"),
    text("state"),
    int("notifications"),
    int("queued_bytes"),
    int("server_pid"),
    int("worker"),
];

/// The rows of SHOW CLIENTS.
pub(super) fn clients(snapshot: &Snapshot) -> Vec<Row> {
    let now = SystemTime::now();
    let links: HashMap<(u16, u32), String> = snapshot
        .servers()
        .filter(|server| is_linked(server))
        .map(|server| ((server.worker, server.client), server_name(server)))
        .collect();
    let row = |client: &pgimbal_pooler::pool::stats::ClientSnapshot| -> Row {
        let (addr, port) = address(&client.address);
        let link = links.get(&(client.worker, client.serial));
        vec![
            "C".into(),
            client.user.as_str().into(),
            client.database.as_str().into(),
            client.state.into(),
            addr,
            port,
            moment(now, client.connected).into(),
            client.wait.as_secs().into(),
            client.wait.subsec_micros().into(),
            client_name(client.worker, client.serial).into(),
            link.map_or("", String::as_str).into(),
            client.application_name.as_str().into(),
            client.prepared_statements.into(),
            client.pinned.as_str().into(),
            client.pinned_for.as_secs().into(),
            client.server_process_id.into(),
            u32::from(client.worker).into(),
            generation(client.generation),
            client.route.into(),
            client.node.as_str().into(),
        ]
    };
    snapshot.clients().map(row).collect()
}

/// The rows of SHOW SERVERS.
pub(super) fn servers(snapshot: &Snapshot) -> Vec<Row> {
    let now = SystemTime::now();
    let row = |server: &ServerSnapshot| -> Row {
        let (addr, port) = address(&server.address);
        let link = is_linked(server).then(|| client_name(server.worker, server.client));
        vec![
            "S".into(),
            server.user.as_str().into(),
            server.database.as_str().into(),
            server.state.into(),
            addr,
            port,
            moment(now, server.connected).into(),
            server_name(server).into(),
            link.unwrap_or_default().into(),
            server.process_id.into(),
            server.prepared_statements.into(),
            u32::from(server.worker).into(),
            generation(server.generation),
        ]
    };
    snapshot.servers().map(row).collect()
}

/// The rows of SHOW LISTENERS, sorted by database, user, channel and worker.
pub(super) fn listeners(snapshot: &Snapshot) -> Vec<Row> {
    let mut listeners: Vec<&ListenerSnapshot> = snapshot.listeners().collect();
    listeners.sort_by_key(|it| (&it.database, &it.user, &it.channel, it.worker));
    let row = |listener: &ListenerSnapshot| -> Row {
        vec![
            listener.database.as_str().into(),
            listener.user.as_str().into(),
            listener.channel.as_str().into(),
            listener.clients.into(),
            listener.state.into(),
            listener.notifications.into(),
            listener.queued_bytes.into(),
            listener.process_id.into(),
            u32::from(listener.worker).into(),
        ]
    };
    listeners.into_iter().map(row).collect()
}

/// Numbered as in SHOW CREDENTIALS.
fn generation(number: Option<u32>) -> Cell {
    number.map_or(Cell::Null, Into::into)
}

fn is_linked(server: &ServerSnapshot) -> bool {
    server.state == "active"
}

fn client_name(worker: u16, serial: u32) -> String {
    format!("c{worker}.{serial}")
}

fn server_name(server: &ServerSnapshot) -> String {
    format!("s{}.{}", server.worker, server.serial)
}

/// Address and port apart; a Unix socket, or a name, has no port here.
fn address(text: &str) -> (Cell, Cell) {
    match text.parse::<SocketAddr>() {
        Ok(address) => (address.ip().to_string().into(), u32::from(address.port()).into()),
        Err(_) => (text.into(), Cell::Null),
    }
}

/// The time `age` before `now`, as PgBouncer writes it, in UTC: `2024-02-29 23:59:59 UTC`. A time
/// before 1970 is shown as 1970-01-01.
pub(super) fn moment(now: SystemTime, age: Duration) -> String {
    let since = now.checked_sub(age).and_then(|then| then.duration_since(UNIX_EPOCH).ok());
    let seconds = since.unwrap_or_default().as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The Gregorian date of a day since 1970-01-01. The year is taken to begin in March, so that the
/// leap day is its last (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_763_696_399, "2025-11-21 03:39:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            let age = Duration::from_secs(10);
            assert_eq!(moment(UNIX_EPOCH + Duration::from_secs(seconds) + age, age), text);
        }
    }

    #[test]
    fn addresses_are_parted_from_ports() {
        assert_eq!(address("127.0.0.1:5000"), ("127.0.0.1".into(), Cell::Int(5000)));
        assert_eq!(address("[::1]:5000"), ("::1".into(), Cell::Int(5000)));
        assert_eq!(address("unix"), ("unix".into(), Cell::Null));
    }
}
