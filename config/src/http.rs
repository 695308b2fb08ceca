//! Options of the HTTP port: its address, and who may see and use the page on it.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::reader::{Address, Hidden, Maybe, OrOff, Path};
use crate::secret::Secret;
use crate::table::settings;

/// Length in bytes below which a token of the page is refused. 16 random characters of hexadecimal
/// are 64 bits: too many to be guessed at ten tries a minute from each address.
pub const LEAST_HTTP_TOKEN: usize = 16;

/// Greatest length of a token in bytes: as much as a person pastes into a form.
pub const GREATEST_HTTP_TOKEN: usize = 512;

settings! {
    /// The address at which metrics, probes and the page are served over HTTP, apart from the
    /// clients' addresses. A reload does not change it.
    pub struct HttpConfig {
        /// Address of `/metrics`, `/livez`, `/readyz` and the page at `/`. Off: metrics and probes
        /// have no password.
        "http_listen" listen: Option<SocketAddr> as OrOff<Address> = "off", restart,
            try "127.0.0.1:9127";
    }
    with {
        /// Who may see and use the page, `[http]`.
        access: HttpAccess = HttpAccess::default();
    }
}

settings! {
    /// Who may see and use the page at `/` of `http_listen`: `[http]`. Without a token the page is
    /// shown at a loopback address only, and nobody can act on it.
    pub struct HttpAccess {
        /// Token with which the page and its data may be seen. Not set: at a loopback address
        /// everybody may see them, at another one only who has `admin_token`.
        "token" token: Option<Secret> as Maybe<Hidden> = "", applied, try "0f1e2d3c4b5a6978";
        /// Instead of `token`: a file with it, read again whenever it is asked for.
        "token_file" token_file: Option<PathBuf> as Maybe<Path> = "", applied,
            try "/run/pgimbal/page-token";
        /// Token with which commands may be given on the page: HOLD, RESUME, REFRESH and REVOKE
        /// OLD. Not set: the page has no buttons for them.
        "admin_token" admin_token: Option<Secret> as Maybe<Hidden> = "", applied,
            try "a5b4c3d2e1f09687";
        /// Instead of `admin_token`: a file with it, read again whenever it is asked for.
        "admin_token_file" admin_token_file: Option<PathBuf> as Maybe<Path> = "", applied,
            try "/run/pgimbal/page-admin-token";
    }
}
