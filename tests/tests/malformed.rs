//! Clients that speak nonsense: statement 40. Each is told 08P01 and closed, and nobody else
//! notices.

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::startup::{CANCEL_REQUEST, PROTOCOL_3_0, startup_packet};
use pgimbal_tests::{Login, Message, Pgimbal, Pipeline, Postgres, ServerError, WireClient};

fn scram() -> Login {
    Login::new("scram", "app", "scram-secret")
}

/// What a connection that sends `bytes` is told before it is closed.
fn told(proxy: &Pgimbal, bytes: &[u8]) -> Vec<Message> {
    let mut client = proxy.connect();
    client.send(bytes);
    client.read_to_end()
}

fn only_error(messages: &[Message], why: &str) -> ServerError {
    let errors: Vec<&Message> = messages.iter().filter(|message| message.tag == b'E').collect();
    assert_eq!(errors.len(), 1, "{why}: {messages:?}");
    errors[0].error()
}

fn assert_violation(messages: &[Message], why: &str) {
    let error = only_error(messages, why);
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "08P01"), "{why}");
}

/// A startup packet whose body is `body`, whatever it is.
fn startup(body: &[u8]) -> Vec<u8> {
    startup_packet(PROTOCOL_3_0, body)
}

#[test]
fn behaviour_40_malformed_startup_packets() {
    let pg = Postgres::start();
    let proxy = Pgimbal::before(&pg);
    let mut bystander = proxy.client();
    let before = proxy.process().status_kib("VmHWM");
    let version = PROTOCOL_3_0.to_be_bytes();
    let claims = |length: u32| [&length.to_be_bytes()[..], &version, b"user\0app\0"].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (claims(0), "length 0"),
        (claims(3), "length 3"),
        (claims(4), "length 4"),
        (claims(7), "length 7"),
        (claims(10_001), "a byte above the limit"),
        (claims(0x7fff_ffff), "2 GB"),
        (claims(0xffff_ffff), "a negative length"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "HTTP"),
        (startup(b"user\0app\0database\0app\0"), "no terminator"),
        (startup(b"user\0app\0database"), "a name without end"),
        (startup(b"user\0app\0\0trailing"), "bytes after the terminator"),
        (startup(b"user"), "a body without any zero"),
    ];
    for (bytes, why) in cases {
        // What says nothing of the protocol is closed without a word, as by PostgreSQL.
        match u32::from_be_bytes(*bytes.first_chunk().expect("a length")) {
            8..=10_000 => assert_violation(&told(&proxy, &bytes), why),
            _ => assert_eq!(told(&proxy, &bytes).len(), 0, "{why}"),
        }
        assert_eq!(bystander.value("select 1"), "1", "{why}");
    }
    for body in [&b"\0"[..], b"database\0app\0\0", b"user\0\0\0"] {
        let error = only_error(&told(&proxy, &startup(body)), "no user");
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "28000"));
    }
    let grown = proxy.process().status_kib("VmHWM") - before;
    assert!(grown < 8 * 1024, "claimed lengths made the proxy grow by {grown} KiB");
}

#[test]
fn behaviour_40_malformed_cancel_requests_are_dropped() {
    let pg = Postgres::start();
    let proxy = Pgimbal::before(&pg);
    for body in [&b""[..], &[0; 4], &[0; 7], &[0xff; 8], &[7; 400], &[7; 9000]] {
        let messages = told(&proxy, &startup_packet(CANCEL_REQUEST, body));
        if !messages.is_empty() {
            assert_violation(&messages, "a CancelRequest without a usable key");
        }
    }
    assert_eq!(proxy.client().value("select 1"), "1");
}

#[test]
fn behaviour_40_malformed_sasl() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("auth_type", "\"scram-sha-256\"").start();
    let before = proxy.process().status_kib("VmHWM");
    let first = |client_first: &[u8], claimed: u32| {
        [&b"SCRAM-SHA-256\0"[..], &claimed.to_be_bytes(), client_first].concat()
    };
    let good = b"n,,n=,r=abcdefghijklmnopqrstuvwx";
    let cases: Vec<(u8, Vec<u8>, &str)> = vec![
        (b'p', vec![], "an empty message"),
        (b'p', b"SCRAM-SHA-256".to_vec(), "a mechanism without end"),
        (b'p', b"SCRAM-SHA-256\0".to_vec(), "no length"),
        (b'p', first(good, 1_000_000), "a longer response than there is"),
        (b'p', first(good, 3), "a shorter response than there is"),
        (b'p', first(b"", 0), "an empty response"),
        (b'p', first(b"x,,n=,r=abc", 11), "an unknown binding flag"),
        (b'p', first(b"n,,r=abc", 8), "no user name"),
        (b'p', b"NO-SUCH-MECHANISM\0\xff\xff\xff\xff".to_vec(), "an unknown mechanism"),
        (b'p', vec![b'x'; 70_000], "a very long message"),
        (b'Q', b"select 1\0".to_vec(), "a Query instead"),
        (b'!', vec![], "an unknown tag"),
    ];
    for (tag, body, why) in cases {
        let mut client = proxy.connect();
        client.send(&scram().packet());
        assert_eq!(client.expect(b'R').body[..4], 10_u32.to_be_bytes());
        client.send(&Message::new(tag, &body).encode());
        let error = only_error(&client.read_to_end(), why);
        assert_eq!(error.severity, "FATAL", "{why}");
        assert!(["08P01", "28P01"].contains(&error.code.as_str()), "{why}: {error:?}");
    }
    for length in [0_u32, 3, 0x7fff_ffff, 0xffff_ffff] {
        let mut client = proxy.connect();
        client.send(&scram().packet());
        client.expect(b'R');
        client.send(&[&b"p"[..], &length.to_be_bytes(), b"SCRAM-SHA-256\0"].concat());
        assert_violation(&client.read_to_end(), "a wrong length");
    }
    let grown = proxy.process().status_kib("VmHWM") - before;
    assert!(grown < 8 * 1024, "claimed lengths made the proxy grow by {grown} KiB");
    proxy.log_in(&scram()).ok("select 1");
}

#[test]
fn behaviour_40_a_wrong_second_sasl_message() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("auth_type", "\"scram-sha-256\"").start();
    let nonce = "abcdefghijklmnopqrstuvwx";
    let finals: [fn(&str) -> String; 5] = [
        |_| String::new(),
        |_| "c=biws,r=other,p=AAAA".to_owned(),
        |nonce| format!("c=biws,r={nonce},p="),
        |nonce| format!("c=biws,r={nonce},p=!!!"),
        |nonce| format!("c=biws,r={nonce},p={}", "A".repeat(43)),
    ];
    for client_final in finals {
        let mut client = proxy.connect();
        client.send(&scram().packet());
        client.expect(b'R');
        let first = format!("n,,n=,r={nonce}");
        let length = u32::try_from(first.len()).expect("a length").to_be_bytes();
        let body = [&b"SCRAM-SHA-256\0"[..], &length, first.as_bytes()].concat();
        client.send(&Message::new(b'p', &body).encode());
        let server_first = client.expect(b'R').body;
        let text = String::from_utf8_lossy(&server_first[4..]).into_owned();
        let nonce =
            text.split(',').next().and_then(|part| part.strip_prefix("r=")).expect("a nonce");
        client.send(&Message::new(b'p', client_final(nonce).as_bytes()).encode());
        let error = only_error(&client.read_to_end(), "a wrong final message");
        assert_eq!(error.severity, "FATAL");
        assert!(["08P01", "28P01"].contains(&error.code.as_str()), "{error:?}");
    }
}

#[test]
fn behaviour_40_malformed_messages_after_login() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let mut bystander = proxy.client();
    let before = proxy.process().status_kib("VmHWM");
    let claims = |tag: u8, length: u32| [&[tag][..], &length.to_be_bytes(), b"xxxx"].concat();
    let cases = [
        (claims(b'Q', 0), "length 0"),
        (claims(b'Q', 3), "length 3"),
        (claims(b'P', 0xffff_ffff), "a negative length"),
        (claims(b'Q', 0x7fff_ffff), "2 GB"),
        (claims(b'B', 0x4000_0000), "1 GB"),
        (claims(b'S', 10_001), "a Sync of 10 kB"),
        (claims(b'!', 4), "an unknown tag"),
        (claims(0, 8), "a zero tag"),
        (claims(b'Z', 5), "a server's tag"),
        (claims(0x80, 8), "a tag that is no ASCII"),
    ];
    for (bytes, why) in cases {
        for inside in [false, true] {
            let mut client = proxy.client();
            if inside {
                client.ok("begin");
            }
            client.send(&bytes);
            assert_violation(&client.read_to_end(), why);
            assert_eq!(bystander.ok("select 1").status(), 'I', "{why}");
        }
    }
    let grown = proxy.process().status_kib("VmHWM") - before;
    assert!(grown < 8 * 1024, "claimed lengths made the proxy grow by {grown} KiB");
}

#[test]
fn behaviour_40_malformed_bodies_are_errors_of_the_session() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let bodies: [(u8, &[u8]); 12] = [
        (b'P', b""),
        (b'P', b"no end"),
        (b'P', b"s\0select 1"),
        (b'P', b"s\0select 1\0"),
        (b'P', b"s\0select 1\0\xff\xff"),
        (b'B', b""),
        (b'B', b"p\0s\0"),
        (b'B', b"\0\0\0\0\0\x01\0\0\0\xff"),
        (b'D', b""),
        (b'C', b"S"),
        (b'E', b"p"),
        (b'E', b""),
    ];
    for (tag, body) in bodies {
        let mut client: WireClient = proxy.client();
        client.send(Pipeline::new().message(tag, body).sync().bytes());
        let error = loop {
            let message = client.read();
            if message.tag == b'E' {
                break message.error();
            }
            assert!(matches!(message.tag, b'S' | b'N'), "{message:?}");
        };
        // As PostgreSQL: an ERROR after which the session lives; a FATAL is the strict way.
        // PostgreSQL looks a name up before it reads on.
        let codes = ["08P01", "26000", "34000"];
        let shown = body.escape_ascii();
        assert!(codes.contains(&error.code.as_str()), "{} {shown}: {error:?}", char::from(tag));
        if error.severity == "ERROR" {
            client.expect(b'Z');
            assert_eq!(client.value("select 1"), "1");
        }
        assert_eq!(proxy.client().value("select 1"), "1");
    }
    let mut client = proxy.client();
    client.send(&Message::new(b'Q', b"select 'no end'").encode());
    let answer = client.read().error();
    assert_eq!(answer.code, "08P01");
    assert_eq!(proxy.client().value("select 1"), "1");
}

#[test]
fn behaviour_40_a_connection_that_says_nothing_useful_harms_nobody() {
    let pg = Postgres::start();
    let proxy = Pgimbal::before(&pg);
    let mut seed = 7_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            (seed >> 56).to_be_bytes()[7]
        };
        (0..length).map(|_| next()).collect()
    };
    let mut bystander = proxy.client();
    for round in 0..300 {
        let mut client = if round % 2 == 0 { proxy.connect() } else { proxy.client() };
        let _ = client.try_send(&noise(1 + round));
        client.disconnect(round % 3 == 0);
    }
    bystander.expect_nothing_before_the_next_reply();
    assert_eq!(proxy.client().value("select 1"), "1");
}
