//! The comparison behind `make bench` and the demonstration behind `make demo`.
//!
//! Owns loads, measurements and reports; the throwaway servers are the tests' (`pgimbal-tests`),
//! whose panics say what is missing. It knows pgimbal only as a program that is configured and
//! started like any other pooler, so that no target has an advantage.

pub mod bulk;
pub mod calls;
pub mod chart;
pub mod client;
pub mod costs;
pub mod demo;
pub mod figures;
pub mod idle;
pub mod login;
pub mod open_files;
pub mod pgbench;
pub mod plan;
pub mod postgres;
pub mod report;
pub mod rounds;
pub mod scram;
pub mod settings;
pub mod state;
pub mod table;
pub mod target;
pub mod threads;
pub mod usage;

/// The reason for which a benchmark failed, as text for the person who runs it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or file operation failed while doing what the text says.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
    /// A program ended badly or said something that was not understood.
    #[error("{0}")]
    Program(String),
    /// A server answered with an ErrorResponse or broke the protocol.
    #[error("server: {0}")]
    Server(String),
}

/// The result of a step of a benchmark.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds to an IO error what was being done.
pub(crate) trait During<T> {
    /// Turns the IO error into [`Error::Io`] with `what` in front.
    fn during(self, what: impl Into<String>) -> Result<T>;
}

impl<T> During<T> for std::io::Result<T> {
    fn during(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|error| Error::Io(what.into(), error))
    }
}
