//! Certificates made with the program `openssl`, as PostgreSQL's documentation describes it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::certificates::Certificates;
use crate::process;
use crate::program::run;

/// Time limit of a script; RSA keys take long on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// An authority and a certificate for `name` made by PostgreSQL's recipe (chapter "Secure TCP/IP
/// Connections with SSL"), with keys of the kind `key`, such as `rsa:2048`. With OpenSSL 3.0 the
/// certificate is X.509 version 1.
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

/// Runs a script of `openssl` commands and reads `root.crt`, `server.crt` and `server.key`, which
/// it must write.
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

/// A self-signed certificate for `name` that is valid between two times, given as `YYMMDDHHMMSSZ`.
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
