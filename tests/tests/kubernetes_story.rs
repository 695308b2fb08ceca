//! The chart on a whole Kubernetes (`tests/src/kubernetes/nodes.rs`), from its install to its
//! uninstall; and that such a Kubernetes does for a pod what it must.

mod pods;
mod primary_dies;
mod setup;
mod story;

/// The image of the chart's test, with a shell and psql.
pub(crate) const TOOLS: &str = "docker.io/library/postgres:17-alpine";
