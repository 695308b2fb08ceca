//! A pgimbal that a reader of the pages has started.

use pgimbal_tests::pages::Reader;
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::{Directory, Process, directory};
use rustix::process::Signal;

/// The address for clients on the pages.
pub(super) const PAGE_ADDRESS: &str = "127.0.0.1:6432";

/// A pgimbal that a reader has started.
pub(super) struct Running {
    pub(super) port: u16,
    /// The port for HTTP; 0 where the reader has chosen none.
    pub(super) http_port: u16,
    _process: Process,
    _directory: Directory,
}

impl Running {
    /// Starts one with the file `pgimbal.toml` of the reader's home, at addresses of its own.
    pub(super) fn start(reader: &Reader, text: &str) -> Self {
        reader.write("pgimbal.toml", text);
        let (port, http_port) = (free_port(), free_port());
        let addresses =
            format!("PGIMBAL_LISTEN=127.0.0.1:{port} PGIMBAL_HTTP_LISTEN=127.0.0.1:{http_port}");
        let command = format!("{addresses} pgimbal --config pgimbal.toml");
        Self { http_port, ..Self::typed(reader, &command, port) }
    }

    /// Starts one as somebody types it who wants it at `port`.
    pub(super) fn typed(reader: &Reader, command: &str, port: u16) -> Self {
        let directory = directory("running");
        let shell = reader.shell(&format!("exec env {command}"));
        let mut process = Process::start(shell, &directory, Signal::KILL);
        process.wait_until_it_listens("pgimbal", &[port]);
        Self { port, http_port: 0, _process: process, _directory: directory }
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A command that asks it.
    pub(super) fn psql(&self, user: &str, database: &str, command: &str) -> String {
        format!("psql postgres://{user}@{}/{database} -c \"{command}\"", self.address())
    }
}
