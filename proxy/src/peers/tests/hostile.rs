//! What a peer with the right key may send, and what a storm of clients' cancels may do.

use super::*;

/// Sends bytes with the right key, closes that direction if `ends`, and returns what is answered.
fn send(port: u16, bytes: &[u8], ends: bool) -> String {
    let mut tls = connect(port);
    tls.write_all(bytes).unwrap();
    if ends {
        tls.conn.send_close_notify();
        let _ = tls.flush();
    }
    read_to_end(&mut tls)
}

fn hello_request(headers: &[(&str, String)]) -> Vec<u8> {
    let body = hello_of(InstanceId(5), 1);
    [head("hello", headers, body.len()).as_bytes(), &body].concat()
}

#[tokio::test]
async fn half_and_odd_requests_harm_nobody() {
    let mut handlers = Handlers::default();
    echo(&mut handlers, Kind::Facts);
    let a = Replica::new("a", credentials(KEY, None), &[], handlers);
    let b = Replica::with("b", &[a.port]);
    b.meets(&["a"]).await;
    let port = a.port;
    let odd = tokio::task::spawn_blocking(move || {
        // As many on one connection as one likes: they are answered one after another.
        let many: Vec<u8> = (0..200).flat_map(|_| hello_request(&[])).collect();
        let last = hello_request(&[("connection", "close".to_owned())]);
        let answers = send(port, &[many, last].concat(), false);
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 201);
        let whole = hello_request(&[]);
        for end in [0, 1, 30, whole.len() - 1] {
            let answer = send(port, &whole[..end], true);
            assert!(!answer.contains(" 200 "), "{end}: {answer}");
        }
        let lengths = ["-1", "1e3", "18446744073709551616", "5, 6", "0x10", ""];
        for length in lengths {
            let text = String::from_utf8(whole.clone()).unwrap();
            let at = text.find("content-length: ").unwrap() + "content-length: ".len();
            let end = at + text[at..].find('\r').unwrap();
            let wrong = format!("{}{length}{}", &text[..at], &text[end..]);
            let answer = send(port, wrong.as_bytes(), true);
            assert!(!answer.contains(" 200 "), "{length}: {answer}");
        }
        // Two lengths: the chunks count, and nothing is taken for a second request.
        let two = head("hello", &[("transfer-encoding", "chunked".to_owned())], 4);
        let answer = send(port, format!("{two}0\r\n\r\nPOST /hello").as_bytes(), true);
        assert!(!answer.contains(" 200 "), "{answer}");
        let others = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            b"GET /hello HTTP/1.1\r\n\r\n",
            b"POST /hello HTTP/9.9\r\n\r\n",
            b"CONNECT 10.0.0.1:5432 HTTP/1.1\r\nhost: x\r\n\r\n",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            &b"\r\n".repeat(1000),
            &[0xff; 5000],
        ];
        for bytes in others {
            let answer = send(port, bytes, true);
            assert!(!answer.contains(" 200 "), "{answer}");
        }
    });
    odd.await.unwrap();
    let answer = b.peers.ask(a.instance(), Kind::Facts, b"x".to_vec(), LONG).await;
    assert_eq!(answer.as_deref(), Ok(&b"x"[..]));
}

#[tokio::test]
async fn an_id_with_another_body_is_refused() {
    let mut handlers = Handlers::default();
    let count = echo(&mut handlers, Kind::Facts);
    let a = Replica::new("a", credentials(KEY, None), &[], handlers);
    let port = a.port;
    let replay = tokio::task::spawn_blocking(move || {
        let id = [(client::ID, format!("{:032x}", 9))];
        for (body, status) in [(&b"one"[..], "200"), (b"two", "422"), (b"one", "200")] {
            let answer = request(port, "facts", &id, body);
            assert_eq!(&answer[9..12], status, "{answer}");
        }
    });
    replay.await.unwrap();
    assert_eq!(count.load(Relaxed), 1);
}

#[tokio::test]
async fn a_hello_in_anothers_name_is_undone_by_the_true_one() {
    let a = Replica::with("a", &[]);
    let b = Replica::with("b", &[a.port]);
    a.meets(&["b"]).await;
    let third = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, own, other) = (a.port, a.instance(), b.instance());
    let elsewhere = third.local_addr().unwrap().port();
    let false_hellos = tokio::task::spawn_blocking(move || {
        let hello = |instance| {
            let hello = String::from_utf8(hello_of(instance, elsewhere)).unwrap();
            hello.replace("\"number\":0", &format!("\"number\":{}", u64::MAX)).into_bytes()
        };
        for instance in [own, other] {
            let answer = request(port, "hello", &[], &hello(instance));
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    });
    false_hellos.await.unwrap();
    // Nobody is looked for at the address that was named, and the true one is heard again.
    a.until("the true b", |members| members.iter().any(|peer| peer.name == "b")).await;
    let members = a.meets(&["b"]).await;
    assert_eq!(members[0].address.port(), b.port);
    third.set_nonblocking(true).unwrap();
    assert!(third.accept().is_err(), "a third one was called");
}

#[tokio::test]
async fn a_storm_of_cancels_holds_nothing_else_up() {
    // It never answers a cancel; each keeps its turn for 2 s, and comes again.
    let port = fake_by_kind(|tls, kind| match kind {
        "cancel" => std::thread::sleep(3 * client::REQUEST_TIME),
        _ => {
            let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone");
        }
    });
    let a = Replica::with("a", &[port]);
    a.meets(&["fake"]).await;
    let cancel = |_| {
        let peers = a.peers.clone();
        tokio::spawn(async move { peers.ask(InstanceId(5), Kind::Cancel, vec![], LONG).await })
    };
    let cancels: Vec<_> = (0..100).map(cancel).collect();
    let sent = |(kind, _, _): &&(Kind, Outcome, u64)| *kind == Kind::Cancel;
    let begun = Instant::now();
    while a.peers.snapshot().sent.iter().filter(sent).all(|(_, _, count)| *count == 0) {
        assert!(begun.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let facts = a.peers.ask(InstanceId(5), Kind::Facts, vec![], SOON).await;
    assert_eq!(facts.as_deref(), Ok(&b"done"[..]));
    assert!(cancels.iter().all(|cancel| !cancel.is_finished()));
    cancels.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn cancels_that_nobody_waits_for_any_more_do_not_gather() {
    let hangs = Arc::new(AtomicBool::new(true));
    let hung = Arc::clone(&hangs);
    let port = fake(move |tls| match hung.load(Relaxed) {
        true => std::thread::sleep(2 * client::REQUEST_TIME),
        false => {
            let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone");
        }
    });
    let a = Replica::with("a", &[port]);
    a.meets(&["fake"]).await;
    let cancel = || {
        let peers = a.peers.clone();
        tokio::spawn(async move { peers.ask(InstanceId(5), Kind::Cancel, vec![], LONG).await })
    };
    let gone: Vec<_> = (0..100).map(|_| cancel()).collect();
    let count = |outcome| {
        let sent = a.peers.snapshot().sent;
        let is_it = |one: &&(Kind, Outcome, u64)| (one.0, one.1) == (Kind::Cancel, outcome);
        sent.iter().find(is_it).map_or(0, |one| one.2)
    };
    let begun = Instant::now();
    while count(Outcome::Failed) == 0 {
        assert!(begun.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for one in gone {
        one.abort();
        assert!(one.await.is_err_and(|error| error.is_cancelled()));
    }
    hangs.store(false, Relaxed);
    // Those that came before it would be sent before it.
    assert_eq!(cancel().await.unwrap().as_deref(), Ok(&b"done"[..]));
    assert!(count(Outcome::Answered) <= 5, "{}", count(Outcome::Answered));
}
