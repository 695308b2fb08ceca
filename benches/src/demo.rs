//! The demonstration: a crowd of applications that notice neither that their password rotates nor
//! that their primary dies.
//!
//! Owns the cluster, the rotation, the scenario and the report; what pgimbal does is seen from
//! outside only.

pub mod applications;
pub mod cluster;
pub mod credentials;
pub mod directory;
pub mod listeners;
pub mod observations;
pub mod pgimbal;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod vault;

/// The role of the applications, at pgimbal and at PostgreSQL; its password rotates.
pub const APPLICATION: &str = crate::postgres::ROTATING_ROLE;
/// The user of pgimbal's console, from which the demonstration reads pgimbal's view.
pub const OPERATOR: &str = "ops";
