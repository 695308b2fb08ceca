//! Prepared statements: what a client calls them, what the servers call them, who has which.
//!
//! Two clients share a server's statement only when its text, its parameter types, the settings
//! that matter to Parse and the count of schema changes seen are all equal.
//!
//! A client's Parse reaches the server all the same, under a name of its own and with a Describe
//! behind it: only the server knows whether the schema has changed. If the columns are equal too,
//! the client shares the newest such statement from then on. `docs/internals.md` has the whole way.

mod names;
mod statement;
mod table;
mod unnamed;

pub use names::{CLIENT_STATEMENTS_LIMIT, ClientStatements};
pub use statement::{
    Origin, ParsedUnder, SERVER_NAME_PREFIX, Shape, Statement, StatementId, StatementKey,
    write_server_name,
};
pub use table::StatementTable;
pub use unnamed::{Unnamed, UnnamedStatement};
