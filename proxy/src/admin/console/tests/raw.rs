//! The extended protocol, message by message.

use pgimbal_wire::encode::{self, NameKind};
use tokio::io::AsyncWriteExt;

use super::*;

struct Wire(TcpStream);

impl Wire {
    async fn open(site: &Site) -> Self {
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        let mut startup = Vec::new();
        let user: (&[u8], &[u8]) = (b"user", b"root");
        encode::startup(&mut startup, ProtocolVersion::V3_0, [user]);
        stream.write_all(&startup).await.unwrap();
        let mut wire = Self(stream);
        let tags = wire.until_ready().await.0;
        assert!(tags.starts_with("RSS") && tags.ends_with("SKZ"), "{tags}");
        wire
    }

    async fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> (String, Vec<Vec<u8>>) {
        let mut out = Vec::new();
        write(&mut out);
        self.0.write_all(&out).await.unwrap();
        self.until_ready().await
    }

    /// Tags and bodies up to ReadyForQuery, or to the end.
    async fn until_ready(&mut self) -> (String, Vec<Vec<u8>>) {
        let (mut tags, mut bodies) = (String::new(), Vec::new());
        while let Ok(tag) = self.0.read_u8().await {
            let length = self.0.read_u32().await.unwrap();
            let mut body = vec![0; length as usize - 4];
            self.0.read_exact(&mut body).await.unwrap();
            tags.push(tag.into());
            bodies.push(body);
            if tag == b'Z' {
                break;
            }
        }
        (tags, bodies)
    }
}

fn parse(out: &mut Vec<u8>, name: &[u8], text: &[u8]) {
    encode::parse(out, name, text, &[0, 0]);
}

/// Bind of the unnamed portal with these counts and codes after the names.
fn bind(out: &mut Vec<u8>, statement: &[u8], rest: &[u8]) {
    encode::bind_head(out, b"", statement, rest.len() as u32);
    out.extend_from_slice(rest);
}

fn execute(out: &mut Vec<u8>, limit: u32) {
    encode::message(out, b'E', |out| {
        out.push(0);
        out.extend_from_slice(&limit.to_be_bytes());
    });
}

const NO_PARAMETERS: &[u8] = &[0; 6];

#[tokio::test]
async fn parse_bind_describe_execute() {
    let site = Site::open(ConsoleRole::Stats).await;
    let mut wire = Wire::open(&site).await;
    let (tags, bodies) = wire
        .send(|out| {
            parse(out, b"s", b"SHOW VERSION");
            encode::describe(out, NameKind::Statement, b"s");
            bind(out, b"s", NO_PARAMETERS);
            encode::describe(out, NameKind::Portal, b"");
            execute(out, 0);
            encode::close(out, NameKind::Statement, b"s");
            encode::sync(out);
        })
        .await;
    assert_eq!(tags, "1tT2TDC3Z");
    assert_eq!(bodies[6], b"SHOW\0");
}

#[tokio::test]
async fn a_row_limit_suspends_the_portal() {
    let site = Site::open(ConsoleRole::Stats).await;
    let mut wire = Wire::open(&site).await;
    let (tags, _) = wire
        .send(|out| {
            parse(out, b"", b"SHOW LISTS");
            bind(out, b"", NO_PARAMETERS);
            execute(out, 4);
            execute(out, 4);
            encode::sync(out);
        })
        .await;
    assert_eq!(tags, "12DDDDsDDCZ");
}

#[tokio::test]
async fn after_an_error_everything_up_to_sync_is_dropped() {
    let site = Site::open(ConsoleRole::Stats).await;
    let mut wire = Wire::open(&site).await;
    let (tags, bodies) = wire
        .send(|out| {
            bind(out, b"nobody", NO_PARAMETERS);
            parse(out, b"", b"SHOW POOLS");
            encode::query(out, b"SHOW POOLS");
            encode::sync(out);
        })
        .await;
    assert_eq!(tags, "EZ");
    assert!(bodies[0].windows(6).any(|part| part == b"C26000"));
    let (tags, _) = wire.send(|out| encode::query(out, b"SHOW VERSION")).await;
    assert_eq!(tags, "TDCZ");
}

#[tokio::test]
async fn odd_requests_get_an_error_and_the_session_lives() {
    let site = Site::open(ConsoleRole::Stats).await;
    let mut wire = Wire::open(&site).await;
    for (rest, code) in [
        (&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"C08P01"),
        (&[0, 0, 0, 0, 0, 9, 0, 1][..], b"C08P01"),
        (&[0, 9, 0, 0, 0, 0, 0, 0][..], b"C08P01"),
    ] {
        let (tags, bodies) = wire
            .send(|out| {
                parse(out, b"", b"SHOW POOLS");
                bind(out, b"", rest);
                encode::sync(out);
            })
            .await;
        assert_eq!(tags, "1EZ");
        assert!(bodies[1].windows(6).any(|part| part == code), "{rest:?}");
    }
    let several = wire
        .send(|out| {
            parse(out, b"", b"SHOW POOLS; SHOW POOLS");
            encode::sync(out);
        })
        .await;
    assert_eq!(several.0, "EZ");
    let twice = wire
        .send(|out| {
            parse(out, b"a", b"SHOW POOLS");
            parse(out, b"a", b"SHOW POOLS");
            encode::sync(out);
        })
        .await;
    assert_eq!(twice.0, "1EZ");
    assert_eq!(wire.send(|out| encode::query(out, b"-- ping")).await.0, "IZ");
    let empty = wire
        .send(|out| {
            parse(out, b"", b"");
            bind(out, b"", NO_PARAMETERS);
            encode::describe(out, NameKind::Portal, b"");
            execute(out, 0);
            encode::sync(out);
        })
        .await;
    assert_eq!(empty.0, "12nIZ");
}

#[tokio::test]
async fn names_are_limited() {
    let site = Site::open(ConsoleRole::Stats).await;
    let mut wire = Wire::open(&site).await;
    let (tags, bodies) = wire
        .send(|out| {
            for n in 0..300 {
                parse(out, n.to_string().as_bytes(), b"SHOW POOLS");
            }
            encode::sync(out);
        })
        .await;
    assert_eq!(tags, format!("{}EZ", "1".repeat(256)));
    assert!(bodies[256].windows(6).any(|part| part == b"C53400"));
}

#[tokio::test]
async fn behaviour_40_what_is_no_message_ends_the_session_with_08p01() {
    let site = Site::open(ConsoleRole::Stats).await;
    for bytes in [&b"Q\xff\xff\xff\xff"[..], b"Q\0\0\x7f\xff", b"Q\0\0\0\x04", b"\x01\0\0\0\x04"] {
        let mut wire = Wire::open(&site).await;
        let (tags, bodies) = wire.send(|out| out.extend_from_slice(bytes)).await;
        assert_eq!(tags, "E", "{bytes:?}");
        assert!(bodies[0].windows(6).any(|part| part == b"C08P01"), "{bytes:?}");
        assert!(bodies[0].starts_with(b"SFATAL\0"), "{bytes:?}");
    }
}

#[tokio::test]
async fn messages_that_arrive_in_pieces_are_put_together() {
    let site = Site::open(ConsoleRole::Stats).await;
    let mut wire = Wire::open(&site).await;
    let mut out = Vec::new();
    encode::query(&mut out, b"SHOW VERSION");
    for byte in out {
        wire.0.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(wire.until_ready().await.0, "TDCZ");
}
