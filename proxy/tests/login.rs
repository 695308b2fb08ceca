//! Logging in from real clients and with raw bytes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use pgimbal::credentials::CredentialManager;
use pgimbal::login::{
    Authenticated, Authenticators, ClientPurpose, ConsoleRole, CurrentLoginContext, LoginContext,
    LoginError, accept,
};
use pgimbal::pending_logins::Peer;
use pgimbal::transport::{Socket, Transport};
use pgimbal_auth::verifier::SaltKey;
use pgimbal_config::{AuthType, Config, DatabaseConfig, Secret, SslMode, UserConfig};
use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::startup::{
    CANCEL_REQUEST, GSSENC_REQUEST, PROTOCOL_3_0, PROTOCOL_3_2, SSL_REQUEST, startup_packet,
};
use pgimbal_tests::{Login, WireClient};
use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::startup::ProtocolVersion;

const SOON: Duration = Duration::from_secs(10);

/// A door with `accept` behind it. Clients that get in are welcomed, and each of their messages is
/// answered with an empty result.
struct Door {
    port: u16,
    arrivals: mpsc::Receiver<Result<Seen, LoginError>>,
}

/// What is remembered of an arrival.
#[derive(Debug)]
enum Seen {
    Client(Authenticated),
    Cancel(u32, Box<[u8]>),
}

fn config(auth_type: AuthType) -> Config {
    let mut config = Config::default();
    config.clients.auth_type = auth_type;
    config.databases.insert("app".into(), DatabaseConfig::default());
    for user in ["ann", "root"] {
        let own = UserConfig { password: Some(Secret::from("pw")), ..UserConfig::default() };
        config.users.insert(user.into(), own);
    }
    config.admin_users = vec!["root".into()];
    config
}

fn with_tls(mut config: Config, mode: SslMode, certificates: &Certificates) -> Config {
    let [ca, cert, key] = certificates.files();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    config.clients.tls.mode = mode;
    config.clients.tls.cert_file = Some(cert);
    config.clients.tls.key_file = Some(key);
    config.clients.tls.ca_file = Some(ca);
    config
}

fn open(config: Config) -> Door {
    let context = LoginContext::new(Arc::new(config), SaltKey::new([3; 32])).unwrap();
    let in_force = CurrentLoginContext::new(context);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, arrivals) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, address)) = listener.accept().await {
                let socket = Socket::Tcp(stream);
                let credentials = CredentialManager::idle();
                let (in_force, credentials) = (&in_force, &credentials);
                let authenticators =
                    Authenticators { in_force, credentials, server_of: &|_, _| None };
                let arrival = Box::pin(accept(socket, Peer::Tcp(address), authenticators)).await;
                let _ = sender.send(match arrival {
                    Ok(ClientPurpose::Client(mut client)) => {
                        serve(&mut client).await;
                        Ok(Seen::Client(*client))
                    }
                    Ok(ClientPurpose::Cancel { process_id, key, .. }) => {
                        Ok(Seen::Cancel(process_id, key))
                    }
                    Err(error) => Err(error),
                });
            }
        });
    });
    Door { port, arrivals }
}

async fn serve(client: &mut Authenticated) {
    let mut out = client.pending_output.clone();
    encode::parameter_status(&mut out, b"client_encoding", b"UTF8");
    encode::backend_key_data(&mut out, 7, b"abcd");
    encode::ready_for_query(&mut out, TransactionStatus::Idle);
    loop {
        write(&mut client.transport, &out).await;
        let mut buf = [0; 1024];
        let transport = &mut client.transport;
        let read = std::future::poll_fn(|cx| transport.poll_read(cx, &mut buf)).await;
        match read {
            Ok(count @ 1..) if buf[0] == b'Q' && count > 5 => {}
            _ => break,
        }
        out.clear();
        encode::command_complete(&mut out, "SELECT 0");
        encode::ready_for_query(&mut out, TransactionStatus::Idle);
    }
    let transport = &mut client.transport;
    let _ = std::future::poll_fn(|cx| transport.poll_shutdown(cx)).await;
}

async fn write(transport: &mut Transport, bytes: &[u8]) {
    let slice = [std::io::IoSlice::new(bytes)];
    let _ = std::future::poll_fn(|cx| transport.poll_write_vectored(cx, &slice)).await;
    let _ = std::future::poll_fn(|cx| transport.poll_flush(cx)).await;
}

impl Door {
    fn seen(&self) -> Result<Seen, LoginError> {
        self.arrivals.recv_timeout(SOON).unwrap()
    }

    fn client(&self) -> Authenticated {
        match self.seen().unwrap() {
            Seen::Client(client) => client,
            other => panic!("{other:?}"),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// Everything that comes back for `bytes`.
    fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        reply
    }

    fn psql(&self, settings: &str) -> (bool, String) {
        let output = Command::new("psql")
            .arg(format!("host=127.0.0.1 port={} dbname=app user=ann {settings}", self.port))
            .args(["-X", "-c", "select"])
            .env("PGPASSWORD", "pw")
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn contains(reply: &[u8], text: &str) -> bool {
    reply.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn psql_logs_in_by_every_method() {
    for auth_type in [AuthType::Trust, AuthType::Password, AuthType::Md5, AuthType::ScramSha256] {
        let door = open(config(auth_type));
        let (success, text) = door.psql("application_name=here options='-c work_mem=1MB'");
        assert!(success, "{auth_type:?} {text}");
        let client = door.client();
        assert_eq!((&*client.user, &*client.database), ("ann", "app"));
        assert_eq!(client.parameters[0], (b"work_mem".as_slice().into(), b"1MB".as_slice().into()));
        let name = (b"application_name".as_slice().into(), b"here".as_slice().into());
        assert!(client.parameters.contains(&name));
        assert!(client.console.is_none());
    }
}

#[test]
fn behaviour_41_channel_binding_can_be_required() {
    let certificates = Certificates::new();
    let door = open(with_tls(config(AuthType::ScramSha256), SslMode::Require, &certificates));
    let (success, text) = door.psql("sslmode=require channel_binding=require");
    assert!(success, "{text}");
    assert!(door.client().transport.is_tls());
    let (success, text) = door.psql("sslmode=disable");
    assert!(!success && text.contains("requires TLS"), "{text}");
    assert!(matches!(door.seen(), Err(LoginError::TlsRequired)));
}

#[test]
fn verify_ca_lets_in_who_shows_a_certificate_of_the_ca() {
    let certificates = Certificates::new();
    let config = with_tls(config(AuthType::ScramSha256), SslMode::VerifyCa, &certificates);
    let tls = config.clients.tls.clone();
    let door = open(config);
    let (success, text) = door.psql("sslmode=require");
    assert!(!success, "{text}");
    assert!(matches!(door.seen(), Err(LoginError::Tls(_))));
    let shown = |path: Option<std::path::PathBuf>| path.unwrap().display().to_string();
    let (cert, key) = (shown(tls.cert_file), shown(tls.key_file));
    let (success, text) = door.psql(&format!("sslmode=require sslcert={cert} sslkey={key}"));
    assert!(success, "{text}");
}

#[test]
fn behaviour_37_gss_then_tls_on_one_socket_and_direct_tls() {
    let certificates = Certificates::new();
    let door = open(with_tls(config(AuthType::Trust), SslMode::Prefer, &certificates));
    let mut stream = door.connect();
    for (code, answer) in [(GSSENC_REQUEST, b"N"), (SSL_REQUEST, b"S")] {
        stream.write_all(&startup_packet(code, b"")).unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, answer);
    }
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let tls = rustls::ClientConnection::new(certificates.client(&[]), name.clone()).unwrap();
    let mut tls = rustls::StreamOwned::new(tls, stream);
    tls.write_all(&Login::new("ann", "app", "").packet()).unwrap();
    tls.read_exact(&mut [0; 9]).unwrap();
    drop(tls);
    assert!(door.client().transport.is_tls());

    for (alpn, welcome) in [(&["postgresql"][..], true), (&[], false)] {
        let tls = rustls::ClientConnection::new(certificates.client(alpn), name.clone()).unwrap();
        let mut tls = rustls::StreamOwned::new(tls, door.connect());
        let _ = tls.write_all(&Login::new("ann", "app", "").packet());
        let mut first = [0; 1];
        tls.read_exact(&mut first).unwrap();
        assert_eq!(first[0], if welcome { b'R' } else { b'E' });
        drop(tls);
        assert_eq!(door.seen().is_ok(), welcome);
    }
}

#[test]
fn behaviour_36_bytes_after_a_request_for_encryption_are_refused() {
    let certificates = Certificates::new();
    for mode in [SslMode::Disable, SslMode::Prefer] {
        let door = open(with_tls(config(AuthType::Trust), mode, &certificates));
        for code in [SSL_REQUEST, GSSENC_REQUEST] {
            let mut bytes = startup_packet(code, b"");
            bytes.extend(Login::new("ann", "app", "").packet());
            let reply = door.answer(&bytes);
            assert_eq!(reply.first(), Some(&b'E'), "{reply:?}");
            assert!(contains(&reply, "C08P01") && contains(&reply, "unencrypted data"));
            assert!(matches!(door.seen(), Err(LoginError::UnencryptedData(_))));
        }
    }
}

#[test]
fn behaviour_38_versions() {
    let door = open(config(AuthType::Trust));
    let body = b"user\0ann\0database\0app\0";
    let ask = |version: u32, more: &[u8]| {
        door.answer(&startup_packet(version, &[body, more, b"\0"].concat()))
    };
    assert_eq!(ask(PROTOCOL_3_0, b"")[0], b'R');
    assert_eq!(door.client().version, ProtocolVersion::V3_0);
    assert_eq!(ask(PROTOCOL_3_2, b"")[0], b'R');
    assert_eq!(door.client().version, ProtocolVersion::V3_2);
    for (version, more, minor, options) in [
        (0x3_0001, &b""[..], 0, &b"\0\0\0\0"[..]),
        (0x3_270f, b"", 2, b"\0\0\0\0"),
        (PROTOCOL_3_2, b"_pq_.x\0y\0", 2, b"\0\0\0\x01_pq_.x\0"),
    ] {
        let reply = ask(version, more);
        let announced = [&[0, 3, 0, minor][..], options].concat();
        assert_eq!(reply[0], b'v');
        assert_eq!(reply[5..5 + announced.len()], announced);
        assert_eq!(reply[5 + announced.len()], b'R');
        assert_eq!(door.client().version.minor, u16::from(minor));
    }
    for version in [0x2_0000, 0x4_0000] {
        let reply = ask(version, b"");
        assert!(contains(&reply, "SFATAL") && contains(&reply, "C0A000"), "{reply:?}");
        assert!(door.seen().is_err());
    }
}

#[test]
fn behaviour_39_what_is_wrong_is_not_told() {
    for auth_type in [AuthType::Password, AuthType::Md5, AuthType::ScramSha256] {
        let door = open(config(auth_type));
        let mut replies = Vec::new();
        for (user, database) in [("ann", "app"), ("bob", "app"), ("ann", "none"), ("bob", "none")] {
            let mut client = WireClient::tcp(door.port);
            let Err(messages) = client.log_in(&Login::new(user, database, "wrong")) else {
                panic!("{user} got in");
            };
            let last = messages.last().unwrap().error();
            replies.push(format!("{last:?}").replace(user, "USER"));
            assert!(door.seen().is_err());
        }
        assert!(replies[0].contains("28P01"), "{replies:?}");
        assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
        // Whoever has proved who it is may know.
        let mut client = WireClient::tcp(door.port);
        let messages = client.log_in(&Login::new("ann", "none", "pw")).unwrap_err();
        assert!(format!("{:?}", messages.last().unwrap().error()).contains("3D000"));
    }
}

#[test]
fn behaviour_40_malformed_logins() {
    let door = open(config(AuthType::ScramSha256));
    let startup = Login::new("ann", "app", "").packet();
    let with = |bytes: &[u8]| [&startup[..], bytes].concat();
    // What cannot be a startup packet is not answered, as by PostgreSQL.
    for bytes in [&b"\0\0\0\x03"[..], b"\xff\xff\xff\xff\0\x03\0\0", b"GET / HTTP/1.1\r\n\r\n"] {
        assert_eq!(door.answer(bytes), b"", "{bytes:?}");
        assert!(door.seen().is_err());
    }
    for bytes in [
        startup_packet(PROTOCOL_3_0, b"user\0ann"),
        with(b"Q\0\0\0\x05\0"),
        with(b"p\0\0\0\x03"),
        with(b"p\x3f\xff\xff\xff"),
        with(b"p\0\0\0\x05\0"),
        with(b"p\0\0\0\x16SCRAM-SHA-256\0\xff\xff\xff\xff"),
        with(b"p\0\0\0\x17SCRAM-SHA-256\0\0\0\0\x01x"),
    ] {
        let reply = door.answer(&bytes);
        assert!(contains(&reply, "SFATAL") && contains(&reply, "C08P01"), "{bytes:?} {reply:?}");
        assert!(door.seen().is_err());
    }
    let reply = door.answer(&startup_packet(PROTOCOL_3_0, b"database\0app\0\0"));
    assert!(contains(&reply, "C28000"));
}

#[test]
fn behaviour_58_cancel_requests_over_plain_tcp_and_tls() {
    let certificates = Certificates::new();
    let door = open(with_tls(config(AuthType::ScramSha256), SslMode::Require, &certificates));
    let packet = startup_packet(CANCEL_REQUEST, b"\0\0\0\x09secretsecretsecret");
    assert_eq!(door.answer(&packet), b"");
    let Ok(Seen::Cancel(9, key)) = door.seen() else { panic!("a cancel request") };
    assert_eq!(&*key, b"secretsecretsecret");

    let mut stream = door.connect();
    stream.write_all(&startup_packet(SSL_REQUEST, b"")).unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let tls = rustls::ClientConnection::new(certificates.client(&[]), name).unwrap();
    let mut tls = rustls::StreamOwned::new(tls, stream);
    tls.write_all(&packet).unwrap();
    tls.flush().unwrap();
    assert!(matches!(door.seen(), Ok(Seen::Cancel(9, _))));
}

#[test]
fn the_console_is_for_those_who_are_listed() {
    let door = open(config(AuthType::ScramSha256));
    let mut root = WireClient::tcp(door.port);
    root.log_in(&Login::new("root", "pgbouncer", "pw")).unwrap();
    drop(root);
    assert_eq!(door.client().console, Some(ConsoleRole::Admin));
    let messages =
        WireClient::tcp(door.port).log_in(&Login::new("ann", "pgimbal", "pw")).unwrap_err();
    assert!(format!("{:?}", messages.last().unwrap().error()).contains("42501"));
}

#[test]
fn what_follows_the_login_in_one_packet_is_kept() {
    let door = open(config(AuthType::Trust));
    let mut bytes = Login::new("ann", "app", "").packet();
    bytes.extend(b"Q\0\0\0\x05\0");
    door.answer(&bytes);
    assert_eq!(door.client().residual, b"Q\0\0\0\x05\0");
}

#[test]
fn replication_and_foreign_switches_are_refused() {
    let door = open(config(AuthType::Trust));
    for (name, value, code) in [
        ("replication", "database", "0A000"),
        ("options", "-e", "42601"),
        ("options", "-c", "42601"),
    ] {
        let login = Login::new("ann", "app", "").with(name, value);
        let messages = WireClient::tcp(door.port).log_in(&login).unwrap_err();
        assert!(format!("{:?}", messages.last().unwrap().error()).contains(code));
    }
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let certificates = Certificates::new();
    let config = with_tls(config(AuthType::Trust), SslMode::Prefer, &certificates);
    let key = config.clients.tls.key_file.clone().unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = LoginContext::new(Arc::new(config), SaltKey::new([3; 32])).unwrap_err();
    assert!(error.to_string().contains("0644"), "{error}");
}
