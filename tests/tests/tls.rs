//! TLS on both sides, direct TLS, Unix sockets: statement 37 and libpq's `sslmode` meanings.

use std::time::Duration;

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::startup::{GSSENC_REQUEST, SSL_REQUEST, startup_packet};
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Pgimbal, Postgres, WireClient, postgres};

const LIMIT: Duration = Duration::from_secs(30);

fn app() -> Login {
    Login::new("app", "app", "app-secret")
}

fn psql(proxy: &Pgimbal, options: &str) -> Finished {
    let conninfo = format!(
        "host=localhost hostaddr=127.0.0.1 port={} user=app dbname=app {options}",
        proxy.port
    );
    let mut command = std::process::Command::new(postgres::bin().join("psql"));
    command.env("PGPASSWORD", "app-secret").env("PGCONNECT_TIMEOUT", "10");
    command.env("HOME", proxy.directory());
    run(command.args(["-XAtq", "-c", "select 'in'", &conninfo]), LIMIT)
}

fn ask(client: &mut WireClient, code: u32) -> u8 {
    client.send(&startup_packet(code, &[]));
    let mut answer = [0];
    client.read_bytes(&mut answer).expect("an answer");
    answer[0]
}

#[test]
fn psql_in_every_sslmode() {
    let pg = Postgres::start();
    let certificates = Certificates::new();
    let proxy = Config::before(&pg).client_tls(&certificates, "allow").start();
    let ca = proxy.directory().join("ca.crt");
    let other = proxy.directory().join("other.crt");
    std::fs::write(&other, Certificates::new().authority).expect("a file");
    for sslmode in ["disable", "allow", "prefer", "require"] {
        let answer = psql(&proxy, &format!("sslmode={sslmode}")).succeeded();
        assert_eq!(answer.stdout.trim(), "in", "{sslmode}");
    }
    for sslmode in ["verify-ca", "verify-full"] {
        let right = format!("sslmode={sslmode} sslrootcert={}", ca.display());
        assert_eq!(psql(&proxy, &right).succeeded().stdout.trim(), "in", "{sslmode}");
        let wrong = format!("sslmode={sslmode} sslrootcert={}", other.display());
        assert!(!psql(&proxy, &wrong).success, "{sslmode} with another authority");
    }
}

#[test]
fn a_proxy_that_requires_tls_and_one_that_has_none() {
    let pg = Postgres::start();
    let certificates = Certificates::new();
    let proxy = Config::before(&pg).client_tls(&certificates, "require").start();
    assert_eq!(psql(&proxy, "sslmode=require").succeeded().stdout.trim(), "in");
    let messages = proxy.connect().log_in(&app()).expect_err("plain text is refused");
    let error = messages.last().expect("a message").error();
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "28000"));
    drop(proxy);
    let proxy = Pgimbal::before(&pg);
    assert_eq!(psql(&proxy, "sslmode=prefer").succeeded().stdout.trim(), "in");
    assert!(!psql(&proxy, "sslmode=require").success, "TLS without a certificate");
}

#[test]
fn behaviour_37_gssenc_then_ssl_then_startup_on_one_socket() {
    let pg = Postgres::start();
    let certificates = Certificates::new();
    let config = Config::before(&pg).set("auth_type", "\"scram-sha-256\"");
    let proxy = config.client_tls(&certificates, "allow").start();
    let mut client = proxy.connect();
    assert_eq!(ask(&mut client, GSSENC_REQUEST), b'N');
    assert_eq!(ask(&mut client, SSL_REQUEST), b'S');
    let mut client = client.tls(certificates.client(&[])).expect("a handshake");
    client.log_in(&app()).expect("a login over TLS");
    assert_eq!(client.value("select 1"), "1");
    let big = client.value("select repeat('x', 3000000)");
    assert_eq!(big.len(), 3_000_000);
    let text = format!("select length('{}')", "y".repeat(2_000_000));
    assert_eq!(client.value(&text), "2000000");
}

#[test]
fn behaviour_37_direct_tls() {
    let pg = Postgres::start();
    let certificates = Certificates::new();
    let proxy = Config::before(&pg).client_tls(&certificates, "require").start();
    let mut client =
        proxy.connect().tls(certificates.client(&["postgresql"])).expect("a handshake");
    client.log_in(&app()).expect("a login");
    assert_eq!(client.value("select 1"), "1");
    // Without the protocol's name it could be a request that a browser was tricked into.
    for alpn in [&[][..], &["http/1.1"]] {
        let served = proxy.connect().tls(certificates.client(alpn));
        let refused = match served {
            Err(_) => true,
            Ok(mut client) => {
                client.try_send(&app().packet()).is_err()
                    || client.try_read().map_or(true, |message| message.tag == b'E')
            }
        };
        assert!(refused, "direct TLS with {alpn:?} was served");
    }
    assert_eq!(psql(&proxy, "sslmode=require").succeeded().stdout.trim(), "in");
}

#[test]
fn behaviour_36_bytes_before_the_tls_handshake_close_the_connection() {
    let pg = Postgres::start();
    let certificates = Certificates::new();
    let proxy = Config::before(&pg).client_tls(&certificates, "allow").start();
    let mut client = proxy.connect();
    client.send(&[startup_packet(SSL_REQUEST, &[]), app().packet()].concat());
    let raw = client.read_raw_to_end();
    assert!(
        !raw.windows(9).any(|window| window == b"R\0\0\0\x08\0\0\0\0"),
        "a login in plain text"
    );
    let mut client = proxy.connect();
    assert_eq!(ask(&mut client, SSL_REQUEST), b'S');
    client.send(&app().packet());
    let raw = client.read_raw_to_end();
    assert!(!raw.contains(&b'R'), "a login in plain text after 'S'");
    assert_eq!(proxy.client().value("select 1"), "1");
}

#[test]
fn half_a_handshake_harms_nobody() {
    let pg = Postgres::start();
    let certificates = Certificates::new();
    let config = Config::before(&pg).client_tls(&certificates, "allow").set("max_client_conn", 2);
    let proxy = config.set("client_login_timeout", "\"1s\"").start();
    let mut silent = [proxy.connect(), proxy.connect()];
    assert_eq!(ask(&mut silent[0], SSL_REQUEST), b'S');
    assert_eq!(ask(&mut silent[1], SSL_REQUEST), b'S');
    silent[1].send(&[0x16, 3, 1, 2, 0, 1]);
    for client in &mut silent {
        client.read_raw_to_end();
    }
    assert_eq!(proxy.client().value("select 1"), "1");
}

#[test]
fn tls_to_the_server_in_every_sslmode() {
    let certificates = Certificates::new();
    let tls = Postgres::with_tls(&certificates);
    let plain = Postgres::start();
    let works = |server: &Postgres, sslmode: &str, ca: Option<&Certificates>, host: &str| {
        let directory = pgimbal_tests::process::directory("ca");
        let mut table = format!("[server_tls]\nsslmode = \"{sslmode}\"\n");
        if let Some(certificates) = ca {
            let [file, _, _] = certificates.write(&directory);
            table.push_str(&format!("ca_file = \"{}\"\n", file.display()));
        }
        let config = Config::before(server).server("host", format!("\"{host}\""));
        let proxy = config.tables(&table).start();
        let mut client = proxy.connect();
        let sql = "select ssl::text from pg_stat_ssl where pid = pg_backend_pid()";
        client.log_in(&app()).is_ok().then(|| client.value(sql))
    };
    let (yes, no) = (Some("true".to_owned()), Some("false".to_owned()));
    let strange = Certificates::new();
    let local = "127.0.0.1";
    assert_eq!(works(&plain, "disable", None, local), no);
    assert_eq!(works(&plain, "prefer", None, local), no);
    assert_eq!(works(&plain, "require", None, local), None);
    assert_eq!(works(&tls, "disable", None, local), None, "hostssl without TLS");
    assert_eq!(works(&tls, "allow", None, local), yes);
    assert_eq!(works(&tls, "prefer", None, local), yes);
    assert_eq!(works(&tls, "require", None, local), yes);
    assert_eq!(works(&tls, "require", Some(&certificates), local), yes);
    assert_eq!(works(&tls, "require", Some(&strange), local), None, "require with a CA verifies");
    assert_eq!(works(&tls, "verify-ca", Some(&certificates), local), yes);
    assert_eq!(works(&tls, "verify-ca", Some(&strange), local), None);
    assert_eq!(works(&tls, "verify-full", Some(&certificates), local), yes);
    assert_eq!(works(&tls, "verify-full", Some(&certificates), "localhost"), yes);
}

#[test]
fn verify_full_asks_for_the_name() {
    let certificates = Certificates::named(&["db.example"]);
    let tls = Postgres::with_tls(&certificates);
    let directory = pgimbal_tests::process::directory("ca");
    let [file, _, _] = certificates.write(&directory);
    for (sslmode, works) in [("verify-ca", true), ("verify-full", false)] {
        let table =
            format!("[server_tls]\nsslmode = \"{sslmode}\"\nca_file = \"{}\"\n", file.display());
        let proxy = Config::before(&tls).tables(&table).start();
        let login = proxy.connect().log_in(&app());
        assert_eq!(login.is_ok(), works, "{sslmode}: {login:?}");
        if let Err(messages) = login {
            let error = messages.last().expect("a message").error();
            assert!(format!("{:?}", error.fields).contains("127.0.0.1"), "{error:?}");
        }
    }
}

#[test]
fn unix_sockets_on_both_sides() {
    let pg = Postgres::start();
    let directory = pg.socket().parent().expect("a directory").to_owned();
    let ours = pgimbal_tests::process::directory("socket");
    let proxy = Config::before(&pg)
        .server("host", format!("\"{}\"", directory.display()))
        .set("unix_socket_dir", format!("\"{}\"", ours.display()))
        .set("unix_socket_port", 7654)
        .start();
    let path = ours.join(".s.PGSQL.7654");
    let mut client = WireClient::unix(&path);
    client.log_in(&app()).expect("a login");
    assert_eq!(client.value("select coalesce(inet_client_addr()::text, 'unix')"), "unix");
    assert_eq!(proxy.client().value("select 1"), "1");
    let mut command = std::process::Command::new(postgres::bin().join("psql"));
    let conninfo = format!("host={} port=7654 user=app dbname=app", ours.display());
    let answer = run(command.args(["-XAtq", "-c", "select 'in'", &conninfo]), LIMIT).succeeded();
    assert_eq!(answer.stdout.trim(), "in");
    drop(proxy);
}

#[test]
fn a_certificate_that_is_renewed_in_its_file_is_used_without_a_reload() {
    let pg = Postgres::start();
    let first = Certificates::new();
    let proxy = Config::before(&pg).client_tls(&first, "require").start();
    let trusts = |certificates: &Certificates| {
        let mut client = proxy.connect();
        assert_eq!(ask(&mut client, SSL_REQUEST), b'S');
        client.tls(certificates.client(&[])).is_ok()
    };
    assert!(trusts(&first));
    let second = Certificates::new();
    // A key that is not the certificate's, as while somebody still writes: the old pair stays.
    std::fs::write(proxy.directory().join("server.crt"), &second.chain).expect("a file");
    eventually("the log tells", SOON * 2, || proxy.log().contains("the old one stays"));
    assert!(trusts(&first) && !trusts(&second));
    let [_, _, _] = second.write(proxy.directory());
    eventually("the renewed one is shown", SOON * 2, || trusts(&second));
    assert!(!trusts(&first));
    assert!(proxy.log().contains("a certificate was renewed"), "{}", proxy.log());
    let mut client = proxy.connect();
    assert_eq!(ask(&mut client, SSL_REQUEST), b'S');
    let mut client = client.tls(second.client(&[])).expect("a handshake");
    client.log_in(&app()).expect("a session");
}
