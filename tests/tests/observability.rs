//! `deploy/observability` as a user uses it: a real Prometheus reads the rules, and what the rules
//! and the panels of the dashboard compute is what has happened.

mod firing;
mod ground_truth;
mod queries;
