//! What came from a client stays bytes: statement 63.

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::startup::{PROTOCOL_3_0, startup_packet};
use pgimbal_tests::{Login, Pipeline, Postgres};

/// `é` in LATIN1: no UTF-8.
const E_ACUTE: &[u8] = b"\xe9";

fn query(parts: &[&[u8]]) -> Pipeline {
    Pipeline::new().message(b'Q', &[&parts.concat()[..], b"\0"].concat())
}

#[test]
fn behaviour_63_texts_names_and_values_are_not_decoded() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let login = Login::new("app", "app", "").with("client_encoding", "LATIN1");
    let mut client = proxy.log_in(&login);
    let expected = vec![vec![Some(E_ACUTE.to_vec())]];
    assert_eq!(client.run(&query(&[b"select '", E_ACUTE, b"'"])).rows(), expected);
    let length =
        client.run(&query(&[b"select octet_length(convert_to('", E_ACUTE, b"', 'UTF8'))"]));
    assert_eq!(length.value(), "2");
    // A statement whose name and text are no UTF-8, and its parse on another server.
    let parse = [b"n", E_ACUTE, b"\0select '", E_ACUTE, b"'\0\0\0"].concat();
    let bind = [b"\0n", E_ACUTE, b"\0\0\0\0\0\0\0"].concat();
    let parse = Pipeline::new().message(b'P', &parse).sync();
    let run = Pipeline::new().message(b'B', &bind).execute("", 0).sync();
    client.run(&parse).no_error();
    assert_eq!(client.run(&run).no_error().rows(), expected);
    pg.end_backends();
    assert_eq!(client.run(&run).no_error().rows(), expected, "parsed anew from other bytes");
    let other = [b"n\xc3\xa9\0select 'other'\0\0\0".as_slice()].concat();
    client.run(&Pipeline::new().message(b'P', &other).sync()).no_error();
    assert_eq!(client.run(&run).no_error().rows(), expected, "two names became one");
}

#[test]
fn behaviour_63_settings_are_replayed_as_they_came() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let mut client = proxy.log_in(&Login::new("app", "app", "").with("client_encoding", "LATIN1"));
    client.run(&query(&[b"set search_path = \"", E_ACUTE, b"\", public"])).no_error();
    client.run(&query(&[b"set my.own = '", E_ACUTE, b"'"])).no_error();
    for _ in 0..2 {
        let path = client.query("show search_path").rows();
        assert_eq!(path, [[Some(b"\"\xe9\", public".to_vec())]]);
        assert_eq!(client.query("show my.own").rows(), [[Some(E_ACUTE.to_vec())]]);
        pg.end_backends();
    }
}

#[test]
fn behaviour_63_a_user_that_is_no_utf8_is_refused_and_not_changed() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    let body = [b"user\0us", E_ACUTE, b"r\0database\0app\0\0"].concat();
    let mut client = proxy.connect();
    client.send(&startup_packet(PROTOCOL_3_0, &body));
    let messages = client.read_to_end();
    let error = messages.last().expect("an answer").error();
    assert_eq!(error.severity, "FATAL");
    let changed = "us\u{fffd}r".as_bytes();
    let raw = messages.iter().flat_map(|message| message.body.iter().copied()).collect::<Vec<_>>();
    assert!(!raw.windows(changed.len()).any(|window| window == changed), "decoded lossily");
}
