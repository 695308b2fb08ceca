//! Key derivations with many rounds stall nobody.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use pgimbal_tests::FakeServer;

/// Far below what a million rounds take, far above what a query takes on a busy machine.
const QUICK: Duration = Duration::from_millis(700);

/// Runs queries for a while; all are quick.
fn is_served(client: &mut WireClient, while_true: impl Fn() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) && while_true() {
        let asked = Instant::now();
        assert_eq!(client.value("select 1"), "1");
        let took = asked.elapsed();
        assert!(took < QUICK, "a query took {took:?} beside a derivation");
    }
}

#[test]
fn a_server_that_asks_for_a_million_rounds_stalls_nobody() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    static ANSWERED: AtomicBool = AtomicBool::new(false);
    let pg = Postgres::start();
    let fake = FakeServer::start(|server| {
        server.startup()?;
        let offer = [&10_u32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat();
        server.send(&Message::new(b'R', &offer).encode())?;
        let first = String::from_utf8_lossy(&server.read()?.body).into_owned();
        let nonce = first.split("r=").nth(1).unwrap_or_default();
        let challenge = format!("r={nonce}x,s=YWJj,i=1000000");
        let challenge = [&11_u32.to_be_bytes()[..], challenge.as_bytes()].concat();
        server.send(&Message::new(b'R', &challenge).encode())?;
        ASKED.store(true, Ordering::SeqCst);
        server.read()?;
        ANSWERED.store(true, Ordering::SeqCst);
        server.error("FATAL", "28P01", "no")
    });
    let table = format!(
        "[databases.slow]\nhost = \"127.0.0.1\"\nport = {}\nuser = \"x\"\npassword = \"x\"\n",
        fake.port
    );
    let proxy = Config::before(&pg).tables(&table).start();
    let mut client = proxy.client();
    client.ok("select 1");
    let mut slow = proxy.connect();
    slow.send(&Login::new("app", "slow", "app-secret").packet());
    eventually("it is asked for its proof", SOON, || ASKED.load(Ordering::SeqCst));
    is_served(&mut client, || !ANSWERED.load(Ordering::SeqCst));
}

#[test]
fn a_password_in_clear_that_takes_a_million_rounds_stalls_nobody() {
    let pg = Postgres::start();
    // Of no password at all; what counts is the number.
    let key = format!("{}=", "A".repeat(43));
    let user = format!("[users.slow]\npassword = \"SCRAM-SHA-256$1000000:YWJj${key}:{key}\"\n");
    let config = Config::before(&pg).set("auth_type", "\"password\"");
    let proxy = config.tables(&user).start();
    let mut client = proxy.client();
    client.ok("select 1");
    let mut slow = proxy.connect();
    slow.send(&Login::new("slow", "app", "x").packet());
    slow.expect(b'R');
    slow.send(&Message::new(b'p', b"guess\0").encode());
    is_served(&mut client, || true);
    slow.set_timeout(SOON * 4);
    assert_eq!(slow.expect(b'E').error().code, "28P01");
}
