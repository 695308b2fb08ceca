//! Whether pgimbal can listen at the addresses for clients and for HTTP.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use pgimbal_config::Config;

use super::findings::Findings;

/// Binds each address for a moment.
pub(super) fn try_all(config: &Config, report: &Findings) {
    let clients = config.listen.addresses.iter().map(|address| ("listen", *address));
    let http = config.http.listen.iter().map(|address| ("http_listen", *address));
    for (key, address) in clients.chain(http) {
        let place = format!("{key} {address}");
        match TcpListener::bind(address) {
            Ok(_) => report.ok(place, "ok"),
            Err(error) if error.kind() == ErrorKind::AddrInUse => in_use(place, address, report),
            Err(error) => report.fail(place, format!("cannot listen there: {error}")),
        }
    }
    if let Some(directory) = &config.listen.unix_socket_dir {
        let place = format!("unix_socket_dir {}", directory.display());
        let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        let flags = rustix::fs::AtFlags::EACCESS;
        match rustix::fs::accessat(rustix::fs::CWD, directory, access, flags) {
            Ok(()) => report.ok(place, "ok"),
            Err(error) => report.fail(place, format!("no socket can be made there: {error}")),
        }
    }
}

/// A pgimbal that runs is what one expects there; anything else would stop a start.
fn in_use(place: String, address: SocketAddr, report: &Findings) {
    match holder(address.port()) {
        Some((pid, name)) if name == "pgimbal" => {
            report.note(place, format!("pgimbal listens there already (process {pid})"));
        }
        Some((pid, name)) => report.fail(place, format!("{name} (process {pid}) listens there")),
        None => report.warn(
            place,
            "something listens there already, and this user cannot see whether it is a pgimbal",
        ),
    }
}

/// The process that listens on a TCP port, by the sockets that the kernel lists. Other users'
/// processes do not show theirs.
fn holder(port: u16) -> Option<(u32, String)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let lines = tables.iter().flatten().flat_map(|table| table.lines());
    let sockets: Vec<PathBuf> = lines
        .filter_map(|line| listening(line, port))
        .map(|inode| PathBuf::from(format!("socket:[{inode}]")))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut processes = processes.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, entry.path()))
    });
    processes.find_map(|(pid, path): (u32, PathBuf)| {
        let files = fs::read_dir(path.join("fd")).ok()?.flatten();
        let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
        links.any(|link| sockets.contains(&link)).then_some(())?;
        Some((pid, fs::read_to_string(path.join("comm")).ok()?.trim_end().to_owned()))
    })
}

/// The inode of a line of `/proc/net/tcp`, if it is of a socket that listens on `port`.
fn listening(line: &str, port: u16) -> Option<&str> {
    /// TCP_LISTEN of the kernel.
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let is_port = local
        .rsplit_once(':')
        .is_some_and(|(_, hex)| u16::from_str_radix(hex, 16).is_ok_and(|found| found == port));
    (is_port && state == LISTEN).then(|| fields.nth(5)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (pid, _) = holder(port).expect("this process");
        assert_eq!(pid, std::process::id());
        drop(listener);
    }
}
