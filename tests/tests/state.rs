//! What one client did to its session follows it, ends when it ends it, and reaches nobody else.
//! A test for each case that went wrong once, in every shape in which it can be said; what is
//! right is what a session of its own on the same server is told, and where it stands then.

mod blocks;
mod hidden;
mod pins;
mod poison;
mod readings;
mod rolled_back;
mod seen;
mod shapes;
mod shared;
mod startup;
mod tables;
