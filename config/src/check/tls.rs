//! Checks of the TLS options of one table.

use std::path::PathBuf;

use super::files::{Pem, pem};
use super::findings::Findings;
use crate::tls::{ClientTls, SYSTEM_ROOTS, ServerTls};
use crate::words::{ChannelBinding, SslMode};

/// TLS towards clients needs a certificate; files beside `disable` would promise what is not done.
pub(super) fn client(tls: &ClientTls, found: &mut Findings<'_>) {
    let files = Files {
        table: "client_tls",
        certificate: tls.cert_file.as_ref(),
        key: tls.key_file.as_ref(),
        authorities: tls.ca_file.as_ref(),
    };
    let mode = Some(format!("\"{}\"", tls.mode.as_str()));
    let verifies = matches!(tls.mode, SslMode::VerifyCa | SslMode::VerifyFull);
    if tls.mode == SslMode::Disable {
        if files.any() {
            let cause = "TLS files are given and would not be used: say \"allow\" or \"require\"";
            found.add("client_tls.sslmode", mode, cause);
        }
    } else if tls.cert_file.is_none() || tls.key_file.is_none() {
        found.add("client_tls.sslmode", mode, "TLS needs both cert_file and key_file");
    } else if verifies && tls.ca_file.is_none() {
        found.add("client_tls.sslmode", mode, "it needs ca_file to check certificates against");
    } else if !verifies && tls.ca_file.is_some() {
        let cause = "ca_file is given, and only verify-ca and verify-full ask for certificates";
        found.add("client_tls.sslmode", mode, cause);
    }
    if is_system(tls.ca_file.as_ref()) {
        let cause = "clients are known by a CA of one's own: the system's would let in everybody \
                     who has a certificate";
        found.add("client_tls.ca_file", Some("\"system\"".to_owned()), cause);
        return;
    }
    files.read(found);
}

/// libpq's rules, and no CA file that is not looked at.
pub(super) fn server(tls: &ServerTls, table: &str, found: &mut Findings<'_>) {
    let files = Files {
        table,
        certificate: tls.cert_file.as_ref(),
        key: tls.key_file.as_ref(),
        authorities: tls.ca_file.as_ref(),
    };
    let key = format!("{table}.sslmode");
    let mode = Some(format!("\"{}\"", tls.mode.as_str()));
    let is_optional = matches!(tls.mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer);
    match tls.mode {
        SslMode::Disable if files.any() => {
            found.add(&key, mode, "TLS files are given and would not be used");
        }
        SslMode::Allow | SslMode::Prefer if tls.ca_file.is_some() => {
            let cause = "it checks no certificate, though ca_file is given: say \"verify-full\" \
                         or \"verify-ca\"";
            found.add(&key, mode, cause);
        }
        SslMode::VerifyCa | SslMode::VerifyFull if tls.ca_file.is_none() => {
            found.add(&key, mode, "it needs ca_file to check the server's certificate against");
        }
        _ => {}
    }
    if is_system(tls.ca_file.as_ref()) && !is_optional && tls.mode != SslMode::VerifyFull {
        let cause = "with ca_file = \"system\" it must be \"verify-full\": anybody has a \
                     certificate from one of these CAs";
        found.add(&key, Some(format!("\"{}\"", tls.mode.as_str())), cause);
    }
    if tls.cert_file.is_some() != tls.key_file.is_some() {
        let (given, missing) = match tls.cert_file {
            Some(_) => ("cert_file", "key_file"),
            None => ("key_file", "cert_file"),
        };
        found.add(&format!("{table}.{given}"), None, format!("needs {missing} beside it"));
    }
    if tls.channel_binding == ChannelBinding::Require && is_optional {
        let cause = "needs sslmode require, verify-ca or verify-full: without TLS there is nothing \
                     to bind to";
        found.add(&format!("{table}.channel_binding"), Some("\"require\"".to_owned()), cause);
    }
    if tls.direct && is_optional {
        let cause = "needs sslmode require, verify-ca or verify-full: there is no way back to \
                     plain text";
        found.add(&format!("{table}.sslnegotiation"), Some("\"direct\"".to_owned()), cause);
    }
    files.read(found);
}

fn is_system(ca_file: Option<&PathBuf>) -> bool {
    ca_file.is_some_and(|path| path.as_os_str() == SYSTEM_ROOTS)
}

struct Files<'a> {
    table: &'a str,
    certificate: Option<&'a PathBuf>,
    key: Option<&'a PathBuf>,
    authorities: Option<&'a PathBuf>,
}

impl Files<'_> {
    const fn any(&self) -> bool {
        self.certificate.is_some() || self.key.is_some() || self.authorities.is_some()
    }

    fn read(&self, found: &mut Findings<'_>) {
        for (path, holds, key) in [
            (self.certificate, Pem::Certificate, "cert_file"),
            (self.key, Pem::Key, "key_file"),
            (self.authorities, Pem::Certificate, "ca_file"),
        ] {
            if let Some(path) = path
                && !(self.table != "client_tls" && key == "ca_file" && is_system(Some(path)))
            {
                pem(path, holds, &format!("{}.{key}", self.table), found);
            }
        }
    }
}
