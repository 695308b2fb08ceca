//! What is said at login, and by whom: cases 34 to 38.

use std::collections::{BTreeMap, VecDeque};

use pgimbal_tests::comparison::direct;
use pgimbal_tests::{Comparison, Login, WireClient};

fn app() -> Login {
    Login::new("app", "app", "app-secret")
}

/// The bytes that answer a first packet of `bytes`.
fn answer(mut client: WireClient, bytes: &[u8]) -> Vec<u8> {
    client.send(bytes);
    client.read_raw_to_end()
}

#[test]
fn state_case_34_a_first_packet_of_impossible_length() {
    let comparison = Comparison::new();
    for packet in [
        &b"X\0\0\0\x04"[..],
        &b"X\0\0\0\x04\0\0\0"[..],
        &b"Q\0\0\0\x0dselect 1\0"[..],
        &[0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 3, 0, 0, 0, 0],
        &[0, 0, 0, 7, 0, 3, 0],
        &[0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0],
        &[0, 0x10, 0, 0, 0, 3, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let must = answer(WireClient::tcp(comparison.pg.port), packet);
        assert_eq!(must, b"", "the case is not what it was: {}", packet.escape_ascii());
        let ours = answer(comparison.proxy.connect(), packet);
        assert_eq!(ours.escape_ascii().to_string(), "", "{}", packet.escape_ascii());
    }
    assert_eq!(comparison.proxy.client().value("select 1"), "1");
}

/// What ParameterStatus said up to the first ReadyForQuery.
fn parameters(client: &WireClient) -> BTreeMap<String, String> {
    client.parameters.clone()
}

/// Logs in with `parameters` on the pool and directly: both are told the same.
fn same_parameters(comparison: &Comparison, given: &[(&str, &str)]) {
    let login = given.iter().fold(app(), |login, (name, value)| login.with(name, value));
    let must = parameters(&direct(&comparison.pg, &login).expect("a direct login"));
    // As the first of its kind and as a later one, beside others.
    for round in 0..3 {
        let mut client = comparison.proxy.log_in(&login);
        assert_eq!(parameters(&client), must, "{given:?}, login {round}");
        client.ok("select 1");
        assert_eq!(parameters(&client), must, "{given:?}, login {round}, when it has worked");
        comparison.proxy.client().ok("select 1");
        client.ok("select 1");
        assert_eq!(parameters(&client), must, "{given:?}, login {round}, after another");
    }
}

#[test]
fn state_case_35_startup_values_are_told_in_the_servers_spelling() {
    let comparison = Comparison::new();
    for given in [
        ("client_encoding", "WIN866"),
        ("timezone", "utc"),
        ("intervalstyle", "ISO_8601"),
        ("standard_conforming_strings", "t"),
        ("application_name", "ä"),
    ] {
        same_parameters(&comparison, &[given]);
    }
}

#[test]
fn state_case_35b_in_options_together_and_in_other_spellings() {
    let comparison = Comparison::new();
    for given in [
        &[("options", "-c timezone=utc -c intervalstyle=ISO_8601")][..],
        &[("options", "--client-encoding=win866")],
        &[("client_encoding", "'utf-8'")],
        &[("client_encoding", "latin1"), ("DateStyle", "german")],
        &[("datestyle", "iso, dmy"), ("TIMEZONE", "europe/berlin")],
        &[("TimeZone", "+3"), ("application_name", "tab\tand \u{7f}")],
        &[("standard_conforming_strings", "yes"), ("default_transaction_read_only", "1")],
        &[("session_authorization", "app"), ("application_name", "it's \"mine\"")],
        &[("application_name", &"long".repeat(20))],
    ] {
        same_parameters(&comparison, given);
    }
}

/// The severity, SQLSTATE and message with which a login is refused; `None` when it is not.
fn refusal(result: Result<WireClient, Vec<pgimbal_tests::Message>>) -> Option<String> {
    let messages = result.err()?;
    let error = messages.last().expect("a last word").error();
    Some(format!("{} {} {}", error.severity, error.code, error.message))
}

fn pooled(
    comparison: &Comparison,
    login: &Login,
) -> Result<WireClient, Vec<pgimbal_tests::Message>> {
    let mut client = comparison.proxy.connect();
    client.log_in(login).map(|()| client)
}

fn same_refusal(comparison: &Comparison, given: &[(&str, &str)]) {
    let login = given.iter().fold(app(), |login, (name, value)| login.with(name, value));
    let must = refusal(direct(&comparison.pg, &login)).expect("a refusal by PostgreSQL");
    for round in 0..2 {
        let ours = refusal(pooled(comparison, &login));
        assert_eq!(ours.as_ref(), Some(&must), "{given:?}, login {round}");
        assert_eq!(comparison.proxy.client().value("select 1"), "1", "{given:?}: the others");
    }
}

#[test]
fn state_case_36_a_startup_parameter_that_the_server_refuses() {
    let comparison = Comparison::new();
    for given in [
        ("nosuchparameter", "1"),
        ("work_mem", "5x"),
        ("log_min_messages", "debug5"),
        ("server_version", "1"),
    ] {
        same_refusal(&comparison, &[given]);
    }
}

#[test]
fn state_case_36b_in_options_and_among_good_ones() {
    let comparison = Comparison::new();
    for given in [
        &[("options", "-c nosuchparameter=1")][..],
        &[("options", "-c work_mem=5x -c timezone=UTC")],
        &[("timezone", "Mars/Phobos"), ("application_name", "good")],
        &[("application_name", "good"), ("datestyle", "Foo")],
        &[("client_encoding", "nonsense")],
        &[("role", "postgres")],
        &[("role", "nobody")],
        &[("shared_buffers", "1GB")],
        &[("fsync", "off")],
        &[("search_path", "a,,b")],
        &[("statement_timeout", "-5")],
        &[("bad name", "1")],
        &[("options", "-x")],
    ] {
        same_refusal(&comparison, given);
    }
    // One that was good is good again after a refusal.
    let login = app().with("work_mem", "5MB");
    assert_eq!(pooled(&comparison, &login).expect("a login").value("show work_mem"), "5MB");
}

#[test]
fn state_case_37_in_session_mode_too() {
    let comparison =
        Comparison::with("", |config| config.set("pool_mode", "\"session\"").set("pool_size", 3));
    let given = [
        ("search_path", "pg_catalog"),
        ("timezone", "Asia/Tokyo"),
        ("role", "boss"),
        ("statement_timeout", "5x"),
    ];
    same_refusal(&comparison, &given);
    let given = [("search_path", "pg_catalog"), ("timezone", "Asia/Tokyo"), ("role", "pg_monitor")];
    same_refusal(&comparison, &given);
}

#[test]
fn state_case_37b_what_is_good_holds_from_the_first_statement() {
    let comparison =
        Comparison::with("", |config| config.set("pool_mode", "\"session\"").set("pool_size", 3));
    let given = [
        ("search_path", "pg_catalog"),
        ("timezone", "asia/tokyo"),
        ("role", "boss"),
        ("statement_timeout", "5s"),
    ];
    let login = given.iter().fold(app(), |login, (name, value)| login.with(name, value));
    let asked = "select current_user, current_setting('timezone'), current_setting('search_path'), \
                 current_setting('statement_timeout')";
    let must = direct(&comparison.pg, &login).expect("a direct login").ok(asked).texts();
    for _ in 0..3 {
        let mut client = pooled(&comparison, &login).expect("a login");
        assert_eq!(client.ok(asked).texts(), must);
        client.ok("reset all");
        assert_eq!(client.ok(asked).texts(), must, "after RESET ALL");
        client.terminate();
    }
    for (name, value) in [("work_mem", "5x"), ("nosuchparameter", "1"), ("server_version", "1")] {
        same_refusal(&comparison, &[(name, value)]);
    }
}

fn process_id(client: &WireClient) -> u32 {
    u32::from_be_bytes(client.key[..4].try_into().expect("four bytes"))
}

#[test]
fn state_case_38_a_process_id_is_not_given_again_soon() {
    const SOON: usize = 1000;
    let comparison = Comparison::new();
    let mut staying: VecDeque<WireClient> = (0..5).map(|_| comparison.proxy.client()).collect();
    let mut seen: VecDeque<u32> = staying.iter().map(process_id).collect();
    for number in 0..SOON + 200 {
        let client = comparison.proxy.client();
        let id = process_id(&client);
        assert!(!seen.contains(&id), "login {number} has the id of one shortly before: {id}");
        seen.push_back(id);
        if seen.len() > SOON {
            seen.pop_front();
        }
        // One that has stayed goes, and one that came stays, now and then.
        if number % 7 == 0 {
            staying.pop_front().expect("a client").terminate();
            staying.push_back(client);
        } else if number % 3 == 0 {
            client.disconnect(true);
        } else {
            client.terminate();
        }
    }
}

#[test]
fn state_case_38b_nor_when_several_leave_at_once_or_on_other_workers() {
    let comparison = Comparison::with("", |config| config.set("workers", 2));
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..12 {
        let clients: Vec<WireClient> = (0..20).map(|_| comparison.proxy.client()).collect();
        for client in clients {
            assert!(seen.insert(process_id(&client)), "round {round}: an id of a round before");
            client.terminate();
        }
    }
}
