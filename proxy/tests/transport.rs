//! Reading, writing and moving connections.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

use std::future::poll_fn;
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pgimbal::transport::{DetachedTransport, Socket, Transport};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// A connected pair: ours, registered nowhere yet, and a blocking one.
fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, other)
}

fn register(ours: TcpStream) -> Transport {
    Transport::Plain(Socket::Tcp(tokio::net::TcpStream::from_std(ours).unwrap()))
}

async fn read(transport: &mut Transport, buf: &mut [u8]) -> usize {
    let read = poll_fn(|cx| transport.poll_read(cx, buf));
    tokio::time::timeout(Duration::from_secs(5), read).await.expect("in time").unwrap()
}

async fn write(transport: &mut Transport, bytes: &[u8]) -> usize {
    let write = poll_fn(|cx| transport.poll_write_vectored(cx, &[IoSlice::new(bytes)]));
    tokio::time::timeout(Duration::from_secs(5), write).await.expect("in time").unwrap()
}

#[test]
fn bytes_that_come_after_a_short_read_and_the_end_are_noticed() {
    let (ours, mut other) = tcp();
    block_on(async {
        let mut ours = register(ours);
        let mut buf = [0; 64];
        for text in [&b"one"[..], b"three"] {
            let sent = text.to_vec();
            let mut stream = other.try_clone().unwrap();
            let sender = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                stream.write_all(&sent).unwrap();
            });
            assert_eq!(read(&mut ours, &mut buf).await, text.len());
            assert_eq!(buf[..text.len()], *text);
            sender.join().unwrap();
        }
        // Longer than the buffer: what is left is read without a further event.
        other.write_all(&[7; 100]).unwrap();
        assert_eq!(read(&mut ours, &mut buf).await, 64);
        assert_eq!(read(&mut ours, &mut buf).await, 36);
        // Data and end in one go.
        other.write_all(b"last").unwrap();
        drop(other);
        assert_eq!(read(&mut ours, &mut buf).await, 4);
        assert_eq!(read(&mut ours, &mut buf).await, 0);
    });
}

#[test]
fn a_full_socket_waits_and_goes_on_when_the_other_side_reads() {
    let (ours, mut other) = tcp();
    block_on(async {
        let mut ours = register(ours);
        let block = vec![1; 1 << 20];
        let mut total = 0;
        loop {
            let mut cx = Context::from_waker(Waker::noop());
            match ours.poll_write_vectored(&mut cx, &[IoSlice::new(&block)]) {
                Poll::Ready(count) => total += count.unwrap(),
                Poll::Pending => break,
            }
        }
        let reader = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            let mut seen = Vec::new();
            other.read_to_end(&mut seen).unwrap();
            seen.len()
        });
        let mut more = 0;
        while more < block.len() {
            more += write(&mut ours, &block[more..]).await;
        }
        drop(ours);
        assert_eq!(reader.join().unwrap(), total + more);
    });
}

#[test]
fn several_pieces_leave_together() {
    let (ours, mut other) = tcp();
    block_on(async {
        let mut ours = register(ours);
        let pieces = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cd")];
        assert_eq!(poll_fn(|cx| ours.poll_write_vectored(cx, &pieces)).await.unwrap(), 4);
    });
    let mut seen = [0; 4];
    other.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"abcd");
}

#[test]
fn behaviour_6_an_idle_connection_says_without_waiting_whether_something_came() {
    let (ours, mut other) = tcp();
    block_on(async {
        let mut ours = register(ours);
        let mut buf = [0; 16];
        assert!(ours.try_read_cached(&mut buf).is_none());
        other.write_all(b"notice").unwrap();
        assert_eq!(arrived(&mut ours, &mut buf).await, 6);
        assert!(ours.try_read_cached(&mut buf).is_none());
        drop(other);
        assert_eq!(arrived(&mut ours, &mut buf).await, 0);
    });
}

/// What an idle connection says once the runtime has seen something come.
async fn arrived(transport: &mut Transport, buf: &mut [u8]) -> usize {
    let coming = async {
        loop {
            if let Some(read) = transport.try_read_cached(buf) {
                return read.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), coming).await.expect("something came")
}

fn is_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn a_connection_moves_to_another_thread_and_loses_nothing() {
    let (first, mut other) = tcp();
    let (second, mut unix) = UnixStream::pair().unwrap();
    second.set_nonblocking(true).unwrap();
    let parts: [DetachedTransport; 2] = block_on(async {
        let unix = Socket::Unix(tokio::net::UnixStream::from_std(second).unwrap());
        [register(first), Transport::Plain(unix)].map(|transport| transport.detach().unwrap())
    });
    // What arrives on the way must be seen after the move.
    other.write_all(b"hello").unwrap();
    unix.write_all(b"hello").unwrap();
    let moved = is_send(parts);
    std::thread::spawn(move || {
        block_on(async {
            for parts in moved {
                let mut transport = Transport::attach(parts).unwrap();
                let mut buf = [0; 16];
                assert_eq!(read(&mut transport, &mut buf).await, 5);
                assert_eq!(write(&mut transport, b"there").await, 5);
            }
        });
    })
    .join()
    .unwrap();
    for stream in [&mut other as &mut dyn Read, &mut unix] {
        let mut seen = [0; 5];
        stream.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"there");
    }
}
