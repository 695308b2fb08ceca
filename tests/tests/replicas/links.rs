//! The harness's own relays do what the tests of partitions rely on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use pgimbal_tests::Relay;
use pgimbal_tests::until::SOON;

/// A server that sends back whatever it gets, and a relay to it.
fn echo() -> Relay {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut from, mut to) = (stream.try_clone().expect("a handle"), stream);
                std::io::copy(&mut from, &mut to)
            });
        }
    });
    Relay::to(port)
}

fn dial(relay: &Relay) -> TcpStream {
    let stream = TcpStream::connect(relay.address).expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a limit");
    stream
}

/// What comes back within `limit`; empty at the end of the connection.
fn answer(stream: &mut TcpStream, limit: Duration) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(limit)).expect("a limit");
    let mut bytes = [0; 16];
    stream.read(&mut bytes).ok().map(|count| bytes[..count].to_vec())
}

#[test]
fn replicas_a_relay_passes_keeps_loses_and_cuts() {
    const SHORT: Duration = Duration::from_millis(100);
    let relay = echo();
    let mut stream = dial(&relay);
    let say = |stream: &mut TcpStream, word: &[u8]| stream.write_all(word).expect("a word");
    say(&mut stream, b"one");
    assert_eq!(answer(&mut stream, SOON).as_deref(), Some(&b"one"[..]));
    relay.freeze();
    say(&mut stream, b"two");
    assert_eq!(answer(&mut stream, SHORT), None, "it is kept");
    relay.heal();
    assert_eq!(answer(&mut stream, SOON).as_deref(), Some(&b"two"[..]), "it comes late");
    relay.delay(SHORT);
    let start = Instant::now();
    say(&mut stream, b"three");
    assert_eq!(answer(&mut stream, SOON).as_deref(), Some(&b"three"[..]));
    assert!(start.elapsed() >= 2 * SHORT, "there and back in {:?}", start.elapsed());
    relay.heal();
    relay.lose();
    say(&mut stream, b"four");
    assert_eq!(answer(&mut stream, SHORT), None, "it is lost");
    relay.heal();
    assert!(answer(&mut stream, SOON).is_none_or(|bytes| bytes.is_empty()), "it stays open");
    relay.cut();
    let mut refused = dial(&relay);
    assert!(answer(&mut refused, SOON).is_none_or(|bytes| bytes.is_empty()), "it is let in");
    relay.heal();
    let mut stream = dial(&relay);
    say(&mut stream, b"five");
    assert_eq!(answer(&mut stream, SOON).as_deref(), Some(&b"five"[..]));
}
