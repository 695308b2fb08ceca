//! Which SQL texts only read, by PostgreSQL's own grammar, so that a replica may serve them.
//!
//! [`Decisions`] is the fast path: a cache by the text without its literals. What it does not know,
//! [`parse`] decides, on another thread where that takes long ([`Lookup`]). Both are told how the
//! session's bytes are to be read, and what the [`Catalog`] of the database says of functions and
//! relations. What is not known to be a read goes to the primary. It does no IO and reads no clock.
//!
//! No text shows which names are temporary tables of its session, so the caller sends a session
//! that has some to the primary. A function that the catalog calls stable and that writes all the
//! same is refused by the replica; then [`Decisions::remember_refused`].

mod catalog;
mod decision;
mod decisions;
mod grammar;
mod normal;
mod shapes;
mod split;

pub use catalog::{CATALOG_QUERY, Catalog, CatalogError, CatalogRow};
pub use decision::{Decision, Reason};
pub use decisions::{Decisions, Limits, Lookup};
pub use grammar::parse;
pub use split::split;
