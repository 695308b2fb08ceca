//! Certificates as people make them: with the program `openssl`, in the words of PostgreSQL's
//! documentation.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::certificates::Certificates;
use crate::process;
use crate::program::run;

/// More than RSA keys take on a machine that does other things too.
const LIMIT: Duration = Duration::from_secs(60);

/// PostgreSQL's recipe for an authority and a certificate that it signs (chapter "Secure TCP/IP
/// Connections with SSL"), for any kind of key, name and days. With OpenSSL 3.0 the certificate is
/// of X.509 version 1.
#[must_use]
pub fn signed(key: &str, name: &str) -> Certificates {
    made_by(&format!(
        "openssl req -new -nodes -newkey {key} -out root.csr -keyout root.key -subj /CN=root.example
         openssl x509 -req -in root.csr -days 3650 -extfile /etc/ssl/openssl.cnf \
             -extensions v3_ca -signkey root.key -out root.crt
         openssl req -new -nodes -newkey {key} -out server.csr -keyout server.key -subj /CN={name}
         openssl x509 -req -in server.csr -days 365 -CA root.crt -CAkey root.key -CAcreateserial \
             -out server.crt"
    ))
}

/// What a script of `openssl` commands leaves as `root.crt`, `server.crt` and `server.key`.
///
/// # Panics
/// When a command fails.
#[must_use]
pub fn made_by(script: &str) -> Certificates {
    let directory = process::directory("openssl");
    let mut shell = Command::new("sh");
    shell.args(["-ec", script]).current_dir(&*directory);
    let _ = run(&mut shell, LIMIT).succeeded();
    let read = |name: &str| fs::read_to_string(directory.join(name)).expect(name);
    Certificates::of(read("root.crt"), read("server.crt"), read("server.key"))
}

/// A script that leaves a certificate of `/CN=name` that begins and ends at these times
/// (`YYMMDDHHMMSSZ`), and is its own root.
#[must_use]
pub fn from_until(name: &str, begins: &str, ends: &str) -> Certificates {
    made_by(&format!(
        "printf '[ca]\\ndefault_ca=c\\n[c]\\ndatabase=index\\nserial=serial\\nnew_certs_dir=.\\n\
         default_md=sha256\\npolicy=p\\n[p]\\ncommonName=supplied\\n' > ca.cnf
         touch index; echo 01 > serial
         openssl req -new -nodes -newkey rsa:2048 -out server.csr -keyout server.key -subj /CN={name}
         openssl ca -batch -config ca.cnf -selfsign -keyfile server.key -in server.csr \
             -startdate {begins} -enddate {ends} -notext -out server.crt
         cp server.crt root.crt"
    ))
}
