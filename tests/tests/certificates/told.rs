//! What the log and `pgimbal check` say: TLS that is given up, certificates that end, servers that
//! may be anybody, passwords in clear text.

use pgimbal_tests::pgimbal::program;
use pgimbal_tests::program::Finished;
use pgimbal_tests::until::{SOON, eventually};

use super::*;

const SSL: &str = "select ssl::text from pg_stat_ssl where pid = pg_backend_pid()";

fn check(config: &str) -> Finished {
    let directory = process::directory("check");
    let file = directory.join("pgimbal.toml");
    std::fs::write(&file, config).expect("the configuration");
    let mut command = undisturbed(program());
    run(command.args(["check", "--config"]).arg(&file), LIMIT)
}

fn database(server: &Postgres, more: &str) -> String {
    format!(
        "[databases.app]\nhost = \"127.0.0.1\"\nport = {}\n[users.app]\npassword = \"app-secret\"\n\
         {more}",
        server.port
    )
}

/// A server with TLS to which `app` comes as `hba` says.
fn server_with(hba: &str) -> Postgres {
    let server = Postgres::with_tls(&Certificates::new());
    std::fs::write(server.data().join("pg_hba.conf"), format!("local all postgres trust\n{hba}\n"))
        .expect("pg_hba.conf");
    server.run("select pg_reload_conf()");
    server
}

#[test]
fn tls_that_prefer_gives_up_is_told_once_for_each_server_and_cause() {
    let server = server_with("host all app 127.0.0.1/32 trust");
    // rustls begins with TLS 1.2.
    for setting in ["ssl_min_protocol_version = 'TLSv1'", "ssl_max_protocol_version = 'TLSv1.1'"] {
        server.run(&format!("alter system set {setting}"));
    }
    server.run("select pg_reload_conf()");
    let proxy = Config::before(&server).start();
    let mut clients = [proxy.client(), proxy.client()];
    for client in &mut clients {
        client.ok("begin");
        assert_eq!(client.value(SSL), "false");
    }
    assert_eq!(proxy.log().matches("offers TLS, and it is given up").count(), 1);
    // Another cause is other news; the connections that are open stay.
    std::fs::write(
        server.data().join("pg_hba.conf"),
        "local all postgres trust\nhostssl all app 127.0.0.1/32 reject\n\
         hostnossl all app 127.0.0.1/32 trust\n",
    )
    .expect("pg_hba.conf");
    for setting in ["ssl_min_protocol_version", "ssl_max_protocol_version"] {
        server.run(&format!("alter system reset {setting}"));
    }
    server.run("select pg_reload_conf()");
    drop(clients);
    server.end_backends();
    assert_eq!(proxy.client().value(SSL), "false");
    let log = proxy.log();
    assert_eq!(log.matches("offers TLS, and it is given up").count(), 2, "{log}");
    assert!(log.contains("pg_hba.conf rejects connection"), "{log}");
    let said = check(&database(&server, ""));
    assert_eq!(said.code, Some(3), "{said:?}");
    let said = said.stdout;
    assert!(said.contains("warning: the server offers TLS, and it is given up"), "{said}");
}

#[test]
fn tls_that_allow_does_not_try_is_told_once_where_the_server_offers_it() {
    const TOLD: &str = "offers TLS, and sslmode \"allow\" goes there in plain text";
    let allow = "[server_tls]\nsslmode = \"allow\"\n";
    let server = server_with("host all app 127.0.0.1/32 trust");
    let proxy = Config::before(&server).tables(allow).start();
    let told = || proxy.log().matches(TOLD).count();
    let mut clients = [proxy.client(), proxy.client()];
    for client in &mut clients {
        client.ok("begin");
        assert_eq!(client.value(SSL), "false");
    }
    eventually("the log says it", SOON, || told() == 1);
    // New connections say it no more.
    drop(clients);
    server.end_backends();
    let before = server.logged("connection received: host=127.0.0.1");
    assert_eq!(proxy.client().value(SSL), "false");
    assert_eq!(server.logged("connection received: host=127.0.0.1"), before + 1, "asked again");
    assert_eq!(told(), 1);
    let said = check(&database(&server, allow));
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stdout.contains(&format!("warning: the server {TOLD}")), "{said:?}");
    // Whoever breaks off a handshake fills the server's log.
    for noise in ["SSL", "could not", "incomplete startup packet"] {
        let lines = server.log();
        let noisy = lines.lines().find(|line| line.contains("LOG") && line.contains(noise));
        assert_eq!(noisy, None);
    }

    // One that takes TLS alone is spoken to in TLS, and one that has none has nothing to offer.
    let encrypted = Postgres::with_tls(&Certificates::new());
    let proxy = Config::before(&encrypted).tables(allow).start();
    assert_eq!(proxy.client().value(SSL), "true");
    assert_eq!(check(&database(&encrypted, allow)).code, Some(0));
    let plain = Postgres::start();
    assert_eq!(check(&database(&plain, allow)).code, Some(0));
    assert_eq!(check(&database(&server, "[server_tls]\nsslmode = \"disable\"\n")).code, Some(0));
}

#[test]
fn own_certificates_that_are_not_valid_are_told_by_log_and_check() {
    let server = Postgres::start();
    let ending = made_by(
        "openssl req -new -x509 -days 10 -nodes -out server.crt -keyout server.key -subj /CN=soon
         cp server.crt root.crt",
    );
    for (certificates, words, works) in [
        (from_until("gone", "200101000000Z", "210101000000Z"), "expired on 2021-01-01", false),
        (from_until("later", "400101000000Z", "410101000000Z"), "not valid before 2040", false),
        (ending, "in 9 days", true),
        (signed("rsa:2048", "localhost"), "", true),
    ] {
        let proxy = Config::before(&server).client_tls(&certificates, "allow").start();
        let [_, certificate, key] = certificates.files();
        let table = format!(
            "[client_tls]\nsslmode = \"allow\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
            certificate.display(),
            key.display()
        );
        let said = check(&database(&server, &table));
        let code = match (works, words.is_empty()) {
            (true, true) => 0,
            // Something should be looked at.
            (true, false) => 3,
            (false, _) => 1,
        };
        assert_eq!(said.code, Some(code), "{said:?}");
        let about = |text: &str| text.lines().any(|line| line.contains("client_tls.cert_file"));
        assert_eq!(about(&said.stdout), !words.is_empty(), "{said:?}");
        assert!(said.stdout.contains(words), "{words}: {said:?}");
        assert_eq!(
            said.stdout.contains("warning: client_tls.cert_file"),
            works && !words.is_empty()
        );
        eventually("the log says it", SOON, || proxy.log().contains(words));
        assert_eq!(about(&proxy.log()), !words.is_empty());
    }
}

#[test]
fn certificates_that_pgimbal_cannot_use_are_told_in_plain_words() {
    let server = Postgres::start();
    for (key, words) in [("rsa:1024", "1024 bits"), ("ed448", "of a kind that pgimbal cannot")] {
        let certificates = signed(key, "localhost");
        let [_, certificate, key_file] = certificates.files();
        for side in ["client_tls", "server_tls"] {
            let table = format!(
                "[{side}]\nsslmode = \"allow\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
                certificate.display(),
                key_file.display()
            );
            let said = check(&database(&server, &table));
            let is_told = said.stderr.contains(words) || said.stdout.contains(words);
            assert!(!said.success && is_told, "{key}, {side}: {said:?}");
        }
    }
    let server = Postgres::with_tls(&signed("ed448", "localhost"));
    for (sslmode, words) in [("require", ""), ("prefer", "without TLS the server says: FATAL")] {
        let table = format!("[server_tls]\nsslmode = \"{sslmode}\"\n");
        let proxy = Config::before(&server).tables(&table).start();
        let refused = proxy.connect().log_in(&Login::new("app", "app", "app-secret"));
        let error = refused.expect_err("Ed448").last().expect("a message").error();
        let text = &error.message;
        assert!(text.contains("key of another kind?") && text.contains(words), "{text}");
    }
}

#[test]
fn a_password_goes_in_clear_text_only_where_that_is_safe_or_said() {
    let certificates = Certificates::new();
    let server = Postgres::with_tls(&certificates);
    let [ca, _, _] = certificates.files();
    let ca = format!("ca_file = \"{}\"\n", ca.display());
    let login = |user: &str, require_auth: Option<&str>, tls: &str| {
        let mut config = Config::before(&server).tables(&format!("[server_tls]\n{tls}"));
        if let Some(methods) = require_auth {
            config = config.set("require_auth", format!("\"{methods}\""));
        }
        let proxy = config.start();
        let login = Login::new(user, "app", &format!("{user}-secret"));
        proxy.connect().log_in(&login).map(|_| ()).map_err(|messages| {
            let error = messages.last().expect("a message").error();
            (error.code.clone(), error.message.clone())
        })
    };
    let plain = "sslmode = \"disable\"\n";
    let unverified = "sslmode = \"require\"\n";
    let verified = format!("sslmode = \"verify-full\"\n{ca}");
    for tls in [plain, unverified] {
        let (code, text) = login("clear", None, tls).expect_err("a password in clear text");
        assert_eq!(code, "28000");
        assert!(text.contains("verify-full") && text.contains("require_auth"), "{text}");
        login("clear", Some("!md5"), tls).expect_err("it is not named");
        login("clear", Some("password"), tls).expect("it is named");
    }
    login("clear", None, &verified).expect("the server is known");
    let refused = |user: &str, methods: &str| {
        let (code, text) = login(user, Some(methods), &verified).expect_err(methods);
        assert_eq!(code, "28000");
        assert!(text.contains("which require_auth does not allow"), "{text}");
    };
    refused("clear", "scram-sha-256");
    refused("md5", "scram-sha-256,none");
    refused("scram", "!scram-sha-256");
    refused("app", "scram-sha-256,md5");
    login("scram", Some("scram-sha-256"), &verified).expect("as it is said");
}

#[test]
fn the_systems_authorities_vouch_for_servers() {
    let certificates = Certificates::new();
    let server = Postgres::with_tls(&certificates);
    let before = |authorities: &Certificates| {
        let [ca, _, _] = authorities.files();
        Config::before(&server)
            .through(&["env", &format!("SSL_CERT_FILE={}", ca.display())])
            .tables("[server_tls]\nsslmode = \"verify-full\"\nca_file = \"system\"\n")
            .start()
    };
    assert_eq!(before(&certificates).client().value(SSL), "true");
    let stranger = Certificates::new();
    let refused = before(&stranger).connect().log_in(&Login::new("app", "app", "app-secret"));
    let error = refused.expect_err("a stranger's").last().expect("a message").error();
    assert!(error.message.contains("pgimbal test authority"), "{error:?}");
}

#[test]
fn check_warns_of_servers_that_may_be_anybody_and_of_vaults_without_tls() {
    let server = Postgres::start();
    let more = "[vaults.v]\naddress = [\"http://vault.invalid:8200\"]\ntoken = \"t\"\n\
                [databases.far]\nhost = \"db.invalid\"\n";
    let said = check(&database(&server, more)).stdout;
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains(": warning: ")).collect();
    assert_eq!(warnings.len(), 2, "{said}");
    assert!(warnings[0].contains("database far, server db.invalid"), "{said}");
    assert!(warnings[1].contains("http://vault.invalid:8200"), "{said}");
}
