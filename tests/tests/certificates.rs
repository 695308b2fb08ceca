//! Certificates as people have them: what libpq accepts, pgimbal accepts, and what libpq refuses,
//! it refuses. psql is the check, at the same server.

use std::time::Duration;

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::openssl::{from_until, made_by, signed};
use pgimbal_tests::pgimbal::{Config, undisturbed};
use pgimbal_tests::program::run;
use pgimbal_tests::{Login, Pgimbal, Postgres, postgres, process};

mod own;
mod told;

const LIMIT: Duration = Duration::from_secs(30);

/// The ways in which each certificate is checked: sslmode, and the host as it is called.
const WAYS: [(&str, &str); 5] = [
    ("prefer", "localhost"),
    ("require", "localhost"),
    ("verify-ca", "localhost"),
    ("verify-full", "localhost"),
    ("verify-full", "127.0.0.1"),
];

/// Whether psql reaches `server` over TLS, directly.
fn libpq(server: &Postgres, ca: &std::path::Path, (sslmode, host): (&str, &str)) -> bool {
    let home = process::directory("home");
    let mut conninfo =
        format!("host={host} hostaddr=127.0.0.1 port={} user=app dbname=app", server.port);
    conninfo.push_str(&format!(" sslmode={sslmode}"));
    if sslmode.starts_with("verify") {
        conninfo.push_str(&format!(" sslrootcert={}", ca.display()));
    }
    let mut command = undisturbed(postgres::bin().join("psql"));
    command.env("HOME", &*home).env("PGCONNECT_TIMEOUT", "10");
    run(command.args(["-XAtqc", "select 1", &conninfo]), LIMIT).success
}

/// A pgimbal with a database for each of the [`WAYS`].
fn before(server: &Postgres, ca: &std::path::Path) -> Pgimbal {
    let mut config = Config::before(server);
    for (index, (sslmode, host)) in WAYS.iter().enumerate() {
        let mut tables = format!(
            "[databases.way{index}]\nhost = \"{host}\"\nport = {}\ndbname = \"app\"\n\
             [databases.way{index}.server_tls]\nsslmode = \"{sslmode}\"\n",
            server.port
        );
        if sslmode.starts_with("verify") {
            tables.push_str(&format!("ca_file = \"{}\"\n", ca.display()));
        }
        config = config.tables(&tables);
    }
    config.start()
}

/// Asserts that pgimbal and libpq agree on every way, and returns which of them lead in.
#[track_caller]
fn agree(what: &str, certificates: &Certificates) -> Vec<&'static str> {
    let server = Postgres::with_tls(certificates);
    let [ca, _, _] = certificates.files();
    let proxy = before(&server, &ca);
    let mut open = Vec::new();
    for (index, way) in WAYS.into_iter().enumerate() {
        let login = Login::new("app", &format!("way{index}"), "app-secret");
        let ours = proxy.connect().log_in(&login).map(|_| ());
        let theirs = libpq(&server, &ca, way);
        assert_eq!(ours.is_ok(), theirs, "{what}, {way:?}: pgimbal says {ours:?}");
        if theirs {
            open.push(if way.1 == "127.0.0.1" { "address" } else { way.0 });
        }
    }
    open
}

const NAMED: [&str; 4] = ["prefer", "require", "verify-ca", "verify-full"];

#[test]
fn certificates_by_postgresqls_recipes_are_accepted_as_by_libpq() {
    let itself = made_by(
        "openssl req -new -x509 -days 365 -nodes -text -out server.crt -keyout server.key \
             -subj /CN=localhost
         cp server.crt root.crt",
    );
    assert_eq!(agree("signed by itself", &itself), NAMED);
    assert_eq!(agree("signed by a root", &signed("rsa:2048", "localhost")), NAMED);
    let address = agree("its name is an address", &signed("rsa:2048", "127.0.0.1"));
    assert_eq!(address, ["prefer", "require", "verify-ca", "address"]);
    let intermediate = made_by(
        "openssl req -new -nodes -out root.csr -keyout root.key -subj /CN=root.example
         openssl x509 -req -in root.csr -days 3650 -extfile /etc/ssl/openssl.cnf \
             -extensions v3_ca -signkey root.key -out root.crt
         openssl req -new -nodes -out middle.csr -keyout middle.key -subj /CN=middle.example
         openssl x509 -req -in middle.csr -days 1825 -extfile /etc/ssl/openssl.cnf \
             -extensions v3_ca -CA root.crt -CAkey root.key -CAcreateserial -out middle.crt
         openssl req -new -nodes -out leaf.csr -keyout server.key -subj /CN=localhost
         openssl x509 -req -in leaf.csr -days 365 -CA middle.crt -CAkey middle.key \
             -CAcreateserial -out leaf.crt
         cat leaf.crt middle.crt > server.crt",
    );
    assert_eq!(agree("through an intermediate", &intermediate), NAMED);
    let old_root = made_by(
        "openssl req -new -nodes -out root.csr -keyout root.key -subj /CN=root.example
         openssl x509 -req -in root.csr -days 3650 -signkey root.key -out root.crt
         openssl req -new -nodes -out server.csr -keyout server.key -subj /CN=localhost
         openssl x509 -req -in server.csr -CA root.crt -CAkey root.key -CAcreateserial \
             -out server.crt",
    );
    assert_eq!(agree("a root of version 1", &old_root), NAMED);
}

#[test]
fn keys_of_every_kind_are_accepted_as_by_libpq() {
    let curve = |name: &str| format!("ec -pkeyopt ec_paramgen_curve:{name}");
    for key in [&curve("P-256"), &curve("P-384"), &curve("P-521"), "ed25519", "rsa:4096"] {
        assert_eq!(agree(key, &signed(key, "localhost")), NAMED, "{key}");
    }
    let pss = signed("rsa-pss -pkeyopt rsa_keygen_bits:2048", "localhost");
    assert_eq!(agree("RSA-PSS", &pss), NAMED);
    // Whoever verifies does not believe a key that can be forged; Debian's OpenSSL says so.
    let short = signed("rsa:1024", "localhost");
    assert_eq!(agree("RSA-1024", &short), ["prefer", "require"]);
}

#[test]
fn an_expired_certificate_is_refused_wherever_it_stands() {
    let expired = from_until("localhost", "200101000000Z", "210101000000Z");
    assert_eq!(agree("expired, and in ca_file itself", &expired), ["prefer", "require"]);
    let later = from_until("localhost", "400101000000Z", "410101000000Z");
    assert_eq!(agree("not yet valid, and in ca_file itself", &later), ["prefer", "require"]);
    let leaf = made_by(
        "openssl req -new -x509 -days 365 -nodes -out root.crt -keyout root.key -subj /CN=root
         openssl req -new -nodes -out server.csr -keyout server.key -subj /CN=localhost
         openssl x509 -req -in server.csr -days -1 -CA root.crt -CAkey root.key -CAcreateserial \
             -out server.crt",
    );
    assert_eq!(agree("expired under a root", &leaf), ["prefer", "require"]);
    let root = |extensions: &str| {
        made_by(&format!(
            "openssl req -new -nodes -out root.csr -keyout root.key -subj /CN=root
             openssl x509 -req -in root.csr -days -1 -extfile /etc/ssl/openssl.cnf \
                 -extensions v3_ca -signkey root.key -out root.crt
             openssl req -new -nodes -out server.csr -keyout server.key -subj /CN=localhost
             printf '{extensions}' > leaf.cnf
             openssl x509 -req -in server.csr -days 9 -CA root.crt -CAkey root.key \
                 -CAcreateserial -extfile leaf.cnf -out server.crt"
        ))
    };
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\\n";
    assert_eq!(agree("under an expired root", &root(names)), ["prefer", "require"]);
    assert_eq!(agree("the same in version 1", &root("")), ["prefer", "require"]);
}

#[test]
fn a_certificate_that_nobody_may_have_signed_is_refused() {
    let not_an_authority = made_by(
        "openssl req -new -x509 -days 9 -nodes -out root.crt -keyout root.key -subj /CN=root
         openssl req -new -nodes -out a.csr -keyout a.key -subj /CN=somebody
         openssl x509 -req -in a.csr -CA root.crt -CAkey root.key -CAcreateserial -out a.crt
         openssl req -new -nodes -out b.csr -keyout server.key -subj /CN=localhost
         openssl x509 -req -in b.csr -CA a.crt -CAkey a.key -CAcreateserial -out b.crt
         cat b.crt a.crt > server.crt",
    );
    assert_eq!(agree("signed by a server", &not_an_authority), ["prefer", "require"]);
    let namesake = made_by(
        "openssl req -new -x509 -days 9 -nodes -out root.crt -keyout root.key -subj /CN=root
         openssl req -new -x509 -days 9 -nodes -out fake.crt -keyout fake.key -subj /CN=root
         openssl req -new -nodes -out b.csr -keyout server.key -subj /CN=localhost
         openssl x509 -req -in b.csr -CA fake.crt -CAkey fake.key -CAcreateserial -out b.crt
         cat b.crt fake.crt > server.crt",
    );
    assert_eq!(agree("signed by a namesake", &namesake), ["prefer", "require"]);
    let clients = made_by(
        "printf 'extendedKeyUsage=clientAuth\\nbasicConstraints=CA:true\\n' > x.cnf
         openssl req -new -nodes -out b.csr -keyout server.key -subj /CN=localhost
         openssl x509 -req -in b.csr -days 9 -signkey server.key -extfile x.cnf -out server.crt
         cp server.crt root.crt",
    );
    assert_eq!(agree("for clients only, in ca_file itself", &clients), ["prefer", "require"]);
    let constrained = made_by(
        "printf 'basicConstraints=critical,CA:true,pathlen:0\\n' > root.cnf
         printf 'basicConstraints=critical,CA:true\\n' > middle.cnf
         openssl req -new -nodes -out root.csr -keyout root.key -subj /CN=root
         openssl x509 -req -in root.csr -signkey root.key -extfile root.cnf -out root.crt
         openssl req -new -nodes -out m.csr -keyout m.key -subj /CN=middle
         openssl x509 -req -in m.csr -CA root.crt -CAkey root.key -CAcreateserial \
             -extfile middle.cnf -out m.crt
         openssl req -new -nodes -out b.csr -keyout server.key -subj /CN=localhost
         openssl x509 -req -in b.csr -CA m.crt -CAkey m.key -CAcreateserial -out b.crt
         cat b.crt m.crt > server.crt",
    );
    assert_eq!(agree("a chain that is too long", &constrained), ["prefer", "require"]);
}

#[test]
fn alternative_names_count_before_the_common_name() {
    let with = |names: &str, common: &str| {
        made_by(&format!(
            "printf 'subjectAltName={names}\\n' > names.cnf
             openssl req -new -x509 -days 9 -nodes -out root.crt -keyout root.key -subj /CN=root
             openssl req -new -nodes -out server.csr -keyout server.key -subj /CN={common}
             openssl x509 -req -in server.csr -CA root.crt -CAkey root.key -CAcreateserial \
                 -extfile names.cnf -out server.crt"
        ))
    };
    let other = agree("another name", &with("DNS:db.example", "localhost"));
    assert_eq!(other, ["prefer", "require", "verify-ca"]);
    let address = agree("only an address", &with("IP:127.0.0.1", "localhost"));
    assert_eq!(address, ["prefer", "require", "verify-ca", "verify-full", "address"]);
    let email = agree("no name among them", &with("email:a@db.example", "localhost"));
    assert_eq!(email, NAMED);
}
