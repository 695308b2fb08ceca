//! pgimbal's own certificates, and those of clients.

use super::*;

/// Whether psql gets in through `proxy`, which it verifies by `ca` (`verify-full`), with a
/// certificate of its own if `own` has one.
fn psql(proxy: &Pgimbal, ca: &Certificates, own: Option<&Certificates>) -> bool {
    psql_at(proxy.port, ca, own, &[])
}

/// The same at a port, with variables in its environment.
fn psql_at(
    port: u16,
    ca: &Certificates,
    own: Option<&Certificates>,
    variables: &[(&str, &str)],
) -> bool {
    let home = process::directory("home");
    let [ca, _, _] = ca.files();
    let mut conninfo = format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user=app dbname=app sslmode=verify-full \
         sslrootcert={}",
        ca.display()
    );
    if let Some(own) = own {
        let [_, certificate, key] = own.files();
        let (certificate, key) = (certificate.display(), key.display());
        conninfo.push_str(&format!(" sslcert={certificate} sslkey={key}"));
    }
    let mut command = undisturbed(postgres::bin().join("psql"));
    command.env("HOME", &*home).env("PGPASSWORD", "app-secret").envs(variables.iter().copied());
    run(command.args(["-XAtqc", "select 1", &conninfo]), LIMIT).success
}

fn kinds() -> [(&'static str, Certificates); 4] {
    let p_521 = "ec -pkeyopt ec_paramgen_curve:P-521";
    let pss = "rsa-pss -pkeyopt rsa_keygen_bits:2048";
    ["rsa:2048", p_521, pss, "ed25519"].map(|key| (key, signed(key, "localhost")))
}

#[test]
fn pgimbal_shows_clients_a_certificate_of_every_kind() {
    let server = Postgres::start();
    for (key, certificates) in kinds() {
        let config = Config::before(&server).set("auth_type", "\"scram-sha-256\"");
        let proxy = config.client_tls(&certificates, "require").start();
        assert!(psql(&proxy, &certificates, None), "{key}");
    }
}

#[test]
fn clients_show_a_certificate_of_every_kind() {
    let server = Postgres::start();
    for (key, certificates) in kinds() {
        let config = Config::before(&server).client_tls(&certificates, "verify-full");
        let proxy = config.start();
        assert!(psql(&proxy, &certificates, Some(&certificates)), "{key}");
        assert!(!psql(&proxy, &certificates, None), "{key}: without a certificate");
        let stranger = signed("rsa:2048", "localhost");
        assert!(!psql(&proxy, &certificates, Some(&stranger)), "{key}: a stranger's");
    }
    let expired = from_until("localhost", "200101000000Z", "210101000000Z");
    let server_side = signed("rsa:2048", "localhost");
    let both = Certificates::of(
        format!("{}{}", server_side.authority, expired.authority),
        server_side.chain.clone(),
        server_side.key.clone(),
    );
    let proxy = Config::before(&server).client_tls(&both, "verify-ca").start();
    assert!(psql(&proxy, &both, Some(&server_side)));
    assert!(!psql(&proxy, &both, Some(&expired)), "an expired one that is in ca_file itself");
}

/// A server that lets in who shows a certificate of `clients`' authority.
fn asking_for_certificates(own: &Certificates, clients: &Certificates) -> Postgres {
    let server = Postgres::with_tls(own);
    std::fs::write(server.data().join("root.crt"), &clients.authority).expect("a file");
    let hba = "local all postgres trust\n\
               hostssl all app 127.0.0.1/32 trust clientcert=verify-ca\n";
    std::fs::write(server.data().join("pg_hba.conf"), hba).expect("pg_hba.conf");
    server.run("alter system set ssl_ca_file = 'root.crt'");
    server.run("select pg_reload_conf()");
    server
}

/// Debian's OpenSSL does not load a short key; a client elsewhere may.
fn lax_openssl() -> (process::Directory, String) {
    let directory = process::directory("lax");
    let file = directory.join("openssl.cnf");
    let text = "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n\
                CipherString = DEFAULT@SECLEVEL=0\n";
    std::fs::write(&file, text).expect("a file");
    (directory, file.display().to_string())
}

#[test]
fn a_client_with_a_key_of_1024_bits_is_refused_as_by_postgresql_and_the_log_says_why() {
    let own = signed("rsa:2048", "localhost");
    let (_directory, conf) = lax_openssl();
    let lax = [("OPENSSL_CONF", conf.as_str())];
    let plain = Postgres::start();
    for (key, is_let_in) in [("rsa:2048", true), ("rsa:1024", false)] {
        let theirs = signed(key, "app");
        let mut server = asking_for_certificates(&own, &theirs);
        // As the distribution has it, not as the harness does for keys that it would not serve
        // with.
        std::fs::remove_file(server.data().join("openssl.cnf")).expect("OpenSSL's configuration");
        server.stop();
        server.restart();
        let direct = psql_at(server.port, &own, Some(&theirs), &lax);
        assert_eq!(direct, is_let_in, "{key}: PostgreSQL");
        let both = Certificates::of(
            format!("{}{}", own.authority, theirs.authority),
            own.chain.clone(),
            own.key.clone(),
        );
        for mode in ["verify-ca", "verify-full"] {
            let proxy = Config::before(&plain).client_tls(&both, mode).start();
            let through = psql_at(proxy.port, &own, Some(&theirs), &lax);
            assert_eq!(through, is_let_in, "{key}, {mode}");
            let log = proxy.log();
            let words = "has an RSA key of 1024 bits, which anybody can forge: make one of 2048";
            assert_eq!(log.contains(words), !is_let_in, "{key}, {mode}: {log}");
        }
        // Who does not ask for it does not look at it.
        let proxy = Config::before(&plain).client_tls(&both, "require").start();
        assert!(psql_at(proxy.port, &own, Some(&theirs), &lax), "{key}, require");
    }
}

#[test]
fn pgimbal_shows_servers_a_certificate_of_every_kind() {
    for (key, certificates) in kinds() {
        let server = asking_for_certificates(&certificates, &certificates);
        let [ca, certificate, key_file] = certificates.files();
        let table = format!(
            "[server_tls]\nsslmode = \"verify-full\"\nca_file = \"{}\"\ncert_file = \"{}\"\n\
             key_file = \"{}\"\n",
            ca.display(),
            certificate.display(),
            key_file.display()
        );
        let config = Config::before(&server).server("host", "\"localhost\"");
        let proxy = config.tables(&table).start();
        assert_eq!(proxy.client().value("select 1"), "1", "{key}");
    }
}
