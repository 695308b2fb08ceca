//! TLS options towards clients and towards servers.

use std::path::PathBuf;

use figment::value::Value;

use crate::reader::{Choice, Maybe, Path, Reader};
use crate::table::settings;
use crate::words::{ChannelBinding, SslMode};

settings! {
    /// The TLS options towards clients, `[client_tls]`. Every mode but `disable` needs `cert_file`
    /// and `key_file`.
    pub struct ClientTls {
        /// Whether clients may, must or must not use TLS: `allow` and `prefer` leave it to them,
        /// `verify-ca` and `verify-full` both ask for a certificate signed by `ca_file`.
        /// Off, because it needs a certificate.
        "sslmode" mode: SslMode as Choice<SslMode> = "disable", applied, try "allow";
        /// Certificate chain that clients are shown, PEM. Read again when it is renewed in its file.
        "cert_file" cert_file: Option<PathBuf> as Maybe<Path> = "", applied, try "/tls/a.crt";
        /// Private key of `cert_file`, PEM.
        "key_file" key_file: Option<PathBuf> as Maybe<Path> = "", applied, try "/tls/a.key";
        /// CAs that client certificates are checked against, PEM.
        "ca_file" ca_file: Option<PathBuf> as Maybe<Path> = "", applied, try "/tls/ca.crt";
    }
}

settings! {
    /// The TLS options towards servers: `[server_tls]`, and for one database
    /// `[databases.NAME.server_tls]`, whose keys override it one by one. A server behind a Unix
    /// socket never uses TLS, as in libpq.
    pub struct ServerTls {
        /// libpq's sslmode. `prefer` as in libpq: a server without TLS works, one with TLS is
        /// used with it; nothing is verified before `verify-ca`.
        "sslmode" mode: SslMode as Choice<SslMode> = "prefer", applied, try "require";
        /// CAs that the server's certificate is checked against, PEM, or `system` for the
        /// machine's own, which needs `verify-full`. With it `require` means `verify-ca`, as in
        /// libpq.
        "ca_file" ca_file: Option<PathBuf> as Maybe<Path> = "", applied, try "/tls/ca.crt";
        /// Certificate that pgimbal shows to servers, PEM.
        "cert_file" cert_file: Option<PathBuf> as Maybe<Path> = "", applied, try "/tls/a.crt";
        /// Private key of `cert_file`, PEM.
        "key_file" key_file: Option<PathBuf> as Maybe<Path> = "", applied, try "/tls/a.key";
        /// How TLS begins: `postgres` asks the server first, which every version understands;
        /// `direct` saves that round trip and needs PostgreSQL 17 and sslmode `require` or more.
        "sslnegotiation" direct: bool as Negotiation = "postgres", applied, try "direct";
        /// libpq's channel_binding: with `require` only a server is logged in to that proves in
        /// SCRAM that it is the other end of the TLS connection. `prefer` as in libpq.
        "channel_binding" channel_binding: ChannelBinding as Choice<ChannelBinding> = "prefer",
            applied, try "disable";
    }
}

/// libpq's value of `sslrootcert` for the CAs of the operating system, in place of a file: a value
/// of `ca_file` in `[server_tls]`, where it needs `sslmode = "verify-full"`. For clients
/// (`[client_tls]`) it is refused.
pub const SYSTEM_ROOTS: &str = "system";

/// The extent to which a server's certificate is verified, which follows from `sslmode` and
/// `ca_file`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Not at all: if the connection is encrypted, the server's identity is still unknown.
    None,
    /// The certificate must be signed by a CA of `ca_file`.
    Chain,
    /// The certificate must be signed by a CA of `ca_file` and bear the host's name.
    ChainAndName,
}

impl ServerTls {
    /// The extent to which the server's certificate is verified: the chain for `verify-ca`, and the
    /// name too for `verify-full`. A `ca_file` turns `require` into `verify-ca`, as in libpq. For
    /// the other modes nothing is verified, whatever `ca_file` says.
    #[must_use]
    pub const fn verification(&self) -> Verification {
        match self.mode {
            SslMode::VerifyFull => Verification::ChainAndName,
            SslMode::VerifyCa => Verification::Chain,
            SslMode::Require if self.ca_file.is_some() => Verification::Chain,
            _ => Verification::None,
        }
    }
}

/// libpq's `sslnegotiation`.
pub(crate) struct Negotiation;

impl Reader for Negotiation {
    type Out = bool;
    const KIND: &'static str = "postgres or direct";

    fn read(value: &Value) -> Result<bool, String> {
        match value.as_str() {
            Some("postgres") => Ok(false),
            Some("direct") => Ok(true),
            _ => Err(format!("expected {}", Self::KIND)),
        }
    }
}
