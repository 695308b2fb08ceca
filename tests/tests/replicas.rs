//! Three pgimbals of one deployment while things break: links between them, their store, one of
//! them, the primary. Clients see none of it.

mod budget;
mod cancels;
mod decisions;
mod failover;
mod kills;
mod links;
mod load;
mod partitions;
mod passwords;
mod setup;
mod stores;
