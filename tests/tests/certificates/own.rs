//! pgimbal's own certificates, and those of clients.

use super::*;

/// Whether psql gets in through `proxy`, which it verifies by `ca` (`verify-full`), with a
/// certificate of its own if `own` has one.
fn psql(proxy: &Pgimbal, ca: &Certificates, own: Option<&Certificates>) -> bool {
    let home = process::directory("home");
    let [ca, _, _] = ca.files();
    let mut conninfo = format!(
        "host=localhost hostaddr=127.0.0.1 port={} user=app dbname=app sslmode=verify-full \
         sslrootcert={}",
        proxy.port,
        ca.display()
    );
    if let Some(own) = own {
        let [_, certificate, key] = own.files();
        let (certificate, key) = (certificate.display(), key.display());
        conninfo.push_str(&format!(" sslcert={certificate} sslkey={key}"));
    }
    let mut command = undisturbed(postgres::bin().join("psql"));
    command.env("HOME", &*home).env("PGPASSWORD", "app-secret");
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

#[test]
fn pgimbal_shows_servers_a_certificate_of_every_kind() {
    for (key, certificates) in kinds() {
        let server = Postgres::with_tls(&certificates);
        std::fs::write(server.data().join("root.crt"), &certificates.authority).expect("a file");
        let hba = "local all postgres trust\n\
                   hostssl all app 127.0.0.1/32 trust clientcert=verify-ca\n";
        std::fs::write(server.data().join("pg_hba.conf"), hba).expect("pg_hba.conf");
        server.run("alter system set ssl_ca_file = 'root.crt'");
        server.run("select pg_reload_conf()");
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
