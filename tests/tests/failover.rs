//! What clients see when a primary dies, freezes, is cut off or is replaced, and where reads go.

mod checker;
mod disasters;
mod dns;
mod figures;
mod histories;
mod listening;
mod pipelines;
mod reads;
mod rotation;
mod rows;
mod setup;
mod tls;
mod topology;

use pgimbal_tests::Pgimbal;

/// The status of `/readyz`.
fn ready(proxy: &Pgimbal) -> u16 {
    pgimbal_tests::http::get(proxy.http_port, "/readyz").0
}
