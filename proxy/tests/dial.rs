//! Dialling real and false servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal::dial::{Address, DialError, DialFault, Dialed, Target, dial, send_cancel};
use pgimbal::tls::TlsConnector;
use pgimbal::transport::Transport;
use pgimbal_config::{ChannelBinding, Host, Secret, ServerTls, SslMode, TcpConfig};
use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::postgres::{PASSWORD_SUFFIX, Postgres};

struct Wish {
    mode: SslMode,
    ca: Option<std::path::PathBuf>,
}

const PLAIN: Wish = Wish { mode: SslMode::Disable, ca: None };

fn target(port: u16, user: &str, wish: &Wish) -> Target {
    let tls = ServerTls { mode: wish.mode, ca_file: wish.ca.clone(), ..ServerTls::default() };
    Target {
        derivations: std::sync::Arc::default(),
        role: None,
        host: Host::Tcp("127.0.0.1".into()),
        port,
        database: "app".into(),
        options: None,
        channel_binding: ChannelBinding::Prefer,
        user: user.into(),
        password: Some(Secret::new(format!("{user}{PASSWORD_SUFFIX}"))),
        require_auth: None,
        tls: Arc::new(TlsConnector::new(&tls).unwrap()),
        tls_name: None,
        tcp: TcpConfig::default(),
        connect_timeout: Duration::from_secs(10),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Box::pin(future))
}

fn try_dial(target: &Target) -> Result<Dialed, DialError> {
    block_on(dial(target))
}

fn parameter<'a>(dialed: &'a Dialed, name: &str) -> Option<&'a [u8]> {
    let found = dialed.parameters.iter().find(|(known, _)| **known == *name.as_bytes());
    found.map(|(_, value)| &**value)
}

#[test]
fn every_authentication_over_plain_tcp_and_a_unix_socket() {
    let server = Postgres::start();
    for user in ["app", "md5", "clear", "scram"] {
        let mut wanted = target(server.port, user, &PLAIN);
        if user == "clear" {
            let refused = try_dial(&wanted).unwrap_err();
            assert!(refused.to_string().contains("require_auth"), "{refused}");
            wanted.require_auth = "password".parse().ok();
        }
        let dialed = try_dial(&wanted).unwrap();
        assert!(dialed.cancel.is_some() && dialed.residual.is_empty());
        assert_eq!(parameter(&dialed, "server_encoding"), Some(&b"UTF8"[..]));
        assert_eq!(parameter(&dialed, "session_authorization"), Some(user.as_bytes()));
    }
    let mut unix = target(server.port, "scram", &Wish { mode: SslMode::Require, ca: None });
    unix.host = Host::Unix(server.socket().parent().unwrap().to_owned());
    let dialed = try_dial(&unix).unwrap();
    assert_eq!(dialed.address, Address::Unix(server.socket()));
    assert!(!dialed.transport.is_tls());
}

#[test]
fn every_sslmode_against_a_server_with_tls() {
    let certificates = Certificates::new();
    let server = Postgres::with_tls(&certificates);
    let [ca, ..] = certificates.files();
    let others = Certificates::new();
    let [other, ..] = others.files();
    let wish = |mode, ca: Option<&Path>| Wish { mode, ca: ca.map(Path::to_owned) };
    // SCRAM over TLS is bound to the channel, since the server offers it.
    for (mode, ca) in [
        (SslMode::Prefer, None),
        (SslMode::Require, None),
        (SslMode::VerifyCa, Some(&*ca)),
        (SslMode::VerifyFull, Some(&*ca)),
    ] {
        let dialed = try_dial(&target(server.port, "scram", &wish(mode, ca))).unwrap();
        assert!(dialed.transport.is_tls(), "{mode:?}");
    }
    // Once only TLS is let in, `allow` comes back with it and `disable` shows the refusal.
    let hba = server.value("show hba_file");
    server.run(&format!(
        "copy (values ('local all postgres trust'), ('hostssl all all 127.0.0.1/32 scram-sha-256')) \
         to '{hba}'"
    ));
    server.run("select pg_reload_conf()");
    pgimbal_tests::eventually("the new rules count", Duration::from_secs(5), || {
        try_dial(&target(server.port, "scram", &PLAIN)).is_err()
    });
    let allowed = try_dial(&target(server.port, "scram", &wish(SslMode::Allow, None))).unwrap();
    assert!(allowed.transport.is_tls());
    let refused = try_dial(&target(server.port, "scram", &PLAIN)).unwrap_err();
    assert_eq!(refused.sqlstate().as_str(), "28000");
    assert!(refused.server_message().is_some());

    let stranger = target(server.port, "scram", &wish(SslMode::VerifyCa, Some(&other)));
    assert!(matches!(try_dial(&stranger).unwrap_err().fault(), DialFault::Tls(_)));
}

#[test]
fn a_server_that_refuses_plain_text_and_has_no_tls_is_told_in_its_own_words() {
    let server = Postgres::start();
    let hba = server.value("show hba_file");
    server.run(&format!("copy (values ('local all postgres trust')) to '{hba}'"));
    server.run("select pg_reload_conf()");
    pgimbal_tests::eventually("the new rules count", Duration::from_secs(5), || {
        try_dial(&target(server.port, "scram", &PLAIN)).is_err()
    });
    let allow = Wish { mode: SslMode::Allow, ca: None };
    let refused = try_dial(&target(server.port, "scram", &allow)).unwrap_err();
    assert_eq!(refused.sqlstate().as_str(), "28000");
    let message = refused.server_message().expect("the server's own message");
    let message = String::from_utf8_lossy(message);
    assert!(message.contains("no pg_hba.conf entry"), "{message}");
}

#[test]
fn a_required_channel_binding_is_a_proof_or_no_login() {
    let server = Postgres::with_tls(&Certificates::new());
    let plain = Postgres::start();
    let dial = |port, user: &str, mode, channel_binding| {
        let target = target(port, user, &Wish { mode, ca: None });
        try_dial(&Target { channel_binding, ..target }).map(|_| ())
    };
    let require = ChannelBinding::Require;
    assert!(dial(server.port, "scram", SslMode::Require, require).is_ok());
    assert!(dial(server.port, "scram", SslMode::Require, ChannelBinding::Disable).is_ok());
    // `app` is trusted; the others are asked for what could be handed on, or without TLS.
    for (port, user, mode) in [
        (server.port, "app", SslMode::Require),
        (server.port, "md5", SslMode::Require),
        (plain.port, "scram", SslMode::Disable),
    ] {
        let error = dial(port, user, mode, require).expect_err(user);
        assert!(matches!(error.fault(), DialFault::NoChannelBinding), "{user}: {error}");
    }
    // A password in clear text is refused for what it is, before that.
    dial(server.port, "clear", SslMode::Require, require).expect_err("clear");
}

#[test]
fn verify_full_wants_the_name_and_verify_ca_does_not() {
    let certificates = Certificates::named(&["elsewhere.example"]);
    let server = Postgres::with_tls(&certificates);
    let [ca, ..] = certificates.files();
    let wish = |mode| Wish { mode, ca: Some(ca.clone()) };
    assert!(try_dial(&target(server.port, "scram", &wish(SslMode::VerifyCa))).is_ok());
    let error = try_dial(&target(server.port, "scram", &wish(SslMode::VerifyFull))).unwrap_err();
    assert!(matches!(error.fault(), DialFault::Tls(_)), "{error}");
    // An address that was found under that name must show it.
    let mut found = target(server.port, "scram", &wish(SslMode::VerifyFull));
    found.tls_name = Some("elsewhere.example".into());
    assert!(try_dial(&found).is_ok());
}

#[test]
fn a_server_certificate_named_as_ca_file_is_trusted_itself() {
    let certificates = Certificates::new();
    let server = Postgres::with_tls(&certificates);
    let [_, own, _] = certificates.files();
    let wish = Wish { mode: SslMode::VerifyFull, ca: Some(own) };
    assert!(try_dial(&target(server.port, "scram", &wish)).is_ok());
}

#[test]
fn a_server_without_tls() {
    let server = Postgres::start();
    let preferred = Wish { mode: SslMode::Prefer, ca: None };
    assert!(!try_dial(&target(server.port, "scram", &preferred)).unwrap().transport.is_tls());
    let required = Wish { mode: SslMode::Require, ca: None };
    let error = try_dial(&target(server.port, "scram", &required)).unwrap_err();
    assert!(matches!(error.fault(), DialFault::TlsRefused));
}

#[test]
fn behaviour_43_a_wrong_password_reaches_the_server_once() {
    let certificates = Certificates::new();
    let server = Postgres::with_tls(&certificates);
    let mut wrong = target(server.port, "scram", &Wish { mode: SslMode::Prefer, ca: None });
    wrong.password = Some(Secret::from("wrong"));
    let error = try_dial(&wrong).unwrap_err();
    assert_eq!(error.sqlstate().as_str(), "28P01");
    assert!(error.to_string().contains("password authentication failed"), "{error}");
    assert!(error.clone().server_message().is_some());
    assert_eq!(server.logged("password authentication failed"), 1);
}

#[test]
fn nobody_there() {
    let port = pgimbal_tests::port::free_port();
    let error = try_dial(&target(port, "app", &PLAIN)).unwrap_err();
    assert!(matches!(error.fault(), DialFault::Connect(_)), "{error}");
    assert_eq!(error.sqlstate().as_str(), "08001");
    assert!(error.to_string().contains(&port.to_string()));
}

#[test]
fn a_silent_server_costs_the_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut target = target(silent.local_addr().unwrap().port(), "app", &PLAIN);
    target.connect_timeout = Duration::from_millis(200);
    let begun = Instant::now();
    assert!(matches!(try_dial(&target).unwrap_err().fault(), DialFault::Timeout(_)));
    assert!((200..2000).contains(&begun.elapsed().as_millis()));
}

/// A server that reads once, answers with `bytes`, and waits for the end.
fn scripted(bytes: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(bytes);
            let _ = stream.read(&mut [0; 1024]);
        }
    });
    port
}

#[test]
fn behaviour_36_bytes_after_the_answer_to_ssl_request_are_refused() {
    for answer in [&b"SR\0\0\0\x08\0\0\0\0"[..], b"NR\0\0\0\x08\0\0\0\0"] {
        let wish = Wish { mode: SslMode::Prefer, ca: None };
        let error = try_dial(&target(scripted(answer), "app", &wish)).unwrap_err();
        assert!(matches!(error.fault(), DialFault::UnencryptedData), "{error}");
    }
}

#[test]
fn failover_a_server_that_dies_before_the_startup_packet_is_unreachable() {
    let answer = b"NE\0\0\0\x22SFATAL\0C57P01\0Mterminating co\0\0";
    let wish = Wish { mode: SslMode::Prefer, ca: None };
    let error = try_dial(&target(scripted(answer), "app", &wish)).unwrap_err();
    assert!(matches!(error.fault(), DialFault::Closed) && error.is_unreachable(), "{error}");
}

#[test]
fn behaviour_40_nonsense_from_a_server() {
    let nonsense: [&[u8]; 7] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"R\0\0\0\x03",
        b"R\x3f\xff\xff\xff",
        b"R\0\0\0\x06\0\0",
        b"Z\0\0\0\x05I",
        b"R\0\0\0\x08\0\0\0\0S\0\0\0\x06a\0",
        b"R\0\0\0\x08\0\0\0\0K\0\0\0\x09\0\0\0\x01x",
    ];
    for bytes in nonsense {
        let error = try_dial(&target(scripted(bytes), "app", &PLAIN)).unwrap_err();
        assert!(matches!(error.fault(), DialFault::Protocol(_)), "{bytes:?} {error}");
        assert_eq!(error.sqlstate().as_str(), "08P01");
    }
}

#[test]
fn behaviour_58_a_cancel_request_arrives_with_and_without_tls() {
    let server = Postgres::with_tls(&Certificates::new());
    for mode in [SslMode::Disable, SslMode::Require] {
        let target = target(server.port, "scram", &Wish { mode, ca: None });
        block_on(async {
            let mut dialed = dial(&target).await.unwrap();
            let mut query = Vec::new();
            pgimbal_wire::encode::query(&mut query, b"select pg_sleep(60)");
            let transport = &mut dialed.transport;
            let slice = [std::io::IoSlice::new(&query)];
            std::future::poll_fn(|cx| transport.poll_write_vectored(cx, &slice)).await.unwrap();
            std::future::poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
            while server.running("pg_sleep(60)") == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let key = dialed.cancel.clone().unwrap();
            send_cancel(&target, &dialed.address, &key).await.unwrap();
            let mut reply = [0; 1024];
            let transport = &mut dialed.transport;
            // The row description comes first; the error may take a second read.
            let mut seen = Vec::new();
            while !seen.windows(5).any(|five: &[u8]| five == b"57014") {
                let read = std::future::poll_fn(|cx| transport.poll_read(cx, &mut reply));
                let count = tokio::time::timeout(Duration::from_secs(5), read).await;
                seen.extend_from_slice(&reply[..count.unwrap().unwrap()]);
            }
        });
    }
}

#[test]
fn a_connection_with_tls_moves_to_another_thread() {
    let server = Postgres::with_tls(&Certificates::new());
    let dialed =
        try_dial(&target(server.port, "scram", &Wish { mode: SslMode::Require, ca: None }));
    let detached = dialed.unwrap().transport.detach().unwrap();
    let thread = std::thread::spawn(move || {
        block_on(async {
            let mut transport = Transport::attach(detached).unwrap();
            let mut query = Vec::new();
            pgimbal_wire::encode::query(&mut query, b"select 'moved'");
            let slice = [std::io::IoSlice::new(&query)];
            std::future::poll_fn(|cx| transport.poll_write_vectored(cx, &slice)).await.unwrap();
            std::future::poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"Z\0\0\0\x05I") {
                let mut reply = [0; 1024];
                let read = std::future::poll_fn(|cx| transport.poll_read(cx, &mut reply));
                let count = tokio::time::timeout(Duration::from_secs(5), read).await;
                seen.extend_from_slice(&reply[..count.unwrap().unwrap()]);
            }
            assert!(seen.windows(5).any(|five| five == b"moved"));
        });
    });
    thread.join().unwrap();
}
