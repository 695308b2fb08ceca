use pgimbal_wire::encode::{command_complete, ready_for_query, text_columns, text_row};
use pgimbal_wire::error::Report as ErrorReport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::transport::{Socket, Transport};
use pgimbal_wire::encode::TransactionStatus;

const PRIMARY: [&str; 6] = [
    "primary 0000001F 16/3002018 16/3001FF0",
    "7712213559375214555",
    "150018",
    "1795639647436790",
    "16777216",
    "t",
];
const STANDBY: [&str; 6] = [
    "standby 31 16/3002018 f",
    "7712213559375214555",
    "170002",
    "1795639647695765",
    "16777216",
    "f",
];

fn row(values: [&str; 6]) -> Vec<u8> {
    let mut out = Vec::new();
    text_row(&mut out, &values.map(Some));
    out.split_off(5)
}

#[test]
fn a_primary_and_a_standby_are_told_apart() {
    let primary = parse_row(&row(PRIMARY)).expect("a primary's answer");
    assert!(primary.monitor);
    assert_eq!(primary.report.timeline, TimelineId(31));
    assert_eq!(
        primary.report.role,
        Role::Primary { insert: Lsn(0x16_0300_2000), flush: Lsn(0x16_0300_1FF0) }
    );
    let standby = parse_row(&row(STANDBY)).expect("a standby's answer");
    assert!(!standby.monitor);
    assert_eq!(standby.report.timeline, TimelineId(31));
    let replay = Lsn(0x16_0300_2018);
    assert_eq!(standby.report.role, Role::Standby { replay, paused: false });
    assert_eq!(standby.report.server_version, 170_002);
}

#[test]
fn anything_else_is_no_answer() {
    for place in [
        "",
        "primary",
        "primary 1",
        "primary g 0/0 0/0",
        "primary 1 0/0",
        "primary 1 0/0 f",
        "standby 1 0/0",
        "standby 1 0/0 x",
        "standby x 0/0 f",
        "leader 1 0/0",
    ] {
        let mut values = STANDBY;
        values[0] = place;
        assert_eq!(parse_row(&row(values)), None, "{place}");
    }
    for index in 1..5 {
        let mut values = STANDBY;
        values[index] = "x";
        assert_eq!(parse_row(&row(values)), None, "{index}");
    }
    let whole = row(STANDBY);
    for length in 0..whole.len() {
        assert_eq!(parse_row(&whole[..length]), None);
    }
    let mut longer = whole;
    longer.push(0);
    assert_eq!(parse_row(&longer), None);
    let mut null = Vec::new();
    text_row(&mut null, &[None; 6]);
    assert_eq!(parse_row(&null[5..]), None);
}

#[test]
fn a_position_is_that_of_the_server_that_was_known_before() {
    let position = |known: &ProbeReply, place: &str| {
        let mut out = Vec::new();
        text_row(&mut out, &[Some(place)]);
        parse_position(&out[5..], known)
    };
    let primary = parse_row(&row(PRIMARY)).expect("a primary's answer");
    let standby = parse_row(&row(STANDBY)).expect("a standby's answer");
    let later = position(&primary, "primary 16/3004018 16/3003000").flatten().expect("the same");
    assert_eq!(
        later.report.role,
        Role::Primary { insert: Lsn(0x16_0300_4000), flush: Lsn(0x16_0300_3000) }
    );
    assert_eq!(Report { role: primary.report.role, ..later.report }, primary.report);
    for received in ["31", "30", "0"] {
        let later = position(&standby, &format!("standby {received} 16/3004018")).flatten();
        let later = later.expect("the same");
        let replay = Lsn(0x16_0300_4018);
        assert_eq!(later.report.role, Role::Standby { replay, paused: false });
        assert_eq!(later.report.timeline, TimelineId(31));
    }
    // Another role, or another timeline.
    assert_eq!(position(&primary, "standby 31 16/3004018"), Some(None));
    assert_eq!(position(&standby, "primary 16/3004018 16/3003000"), Some(None));
    assert_eq!(position(&standby, "standby 32 16/3004018"), Some(None));
    for place in ["", "primary", "primary 1/1", "standby x 1/1", "standby 31 x", "leader 1 1"] {
        assert_eq!(position(&standby, place), None, "{place}");
        let told = position(&primary, place);
        assert!(told.is_none() || told == Some(None), "{place}");
    }
}

/// Answers each question with the next of `answers`.
async fn asked(answers: Vec<Vec<u8>>) -> Result<Report, ProbeFault> {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
    let server = tokio::spawn(async move {
        for answer in answers {
            let mut question = vec![0; QUESTION.len() + 6];
            theirs.read_exact(&mut question).await.expect("a question");
            assert_eq!(&question[5..question.len() - 1], QUESTION.as_bytes());
            theirs.write_all(&answer).await.expect("room for an answer");
        }
    });
    let mut conversation = Conversation::new(Transport::Plain(Socket::Unix(ours)));
    let result = ask(&mut conversation).await;
    server.await.expect("the server");
    result
}

fn answer(values: [&str; 6]) -> Vec<u8> {
    let mut out = Vec::new();
    text_columns(&mut out, &["a", "b", "c", "d", "e", "f"]);
    text_row(&mut out, &values.map(Some));
    command_complete(&mut out, "SELECT 1");
    ready_for_query(&mut out, TransactionStatus::Idle);
    out
}

fn error(code: &[u8; 5]) -> Vec<u8> {
    let mut out = Vec::new();
    let code = SqlState::new(code).expect("a code");
    ErrorReport::error(code, "no").encode_error(&mut out);
    ready_for_query(&mut out, TransactionStatus::Idle);
    out
}

#[tokio::test]
async fn a_server_that_is_promoted_while_it_answers_is_asked_again() {
    let report = asked(vec![error(b"55000"), answer(PRIMARY)]).await.expect("an answer");
    assert!(report.is_primary());
    let fault = asked(vec![error(b"55000"), error(b"55000"), error(b"55000")]).await;
    assert!(matches!(fault, Err(ProbeFault::Server { .. })), "{fault:?}");
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_and_an_end_does_not() {
    let fault = asked(vec![error(b"42501")]).await.expect_err("a refusal");
    assert!(fault.leaves_connection(), "{fault}");
    let mut fatal = Vec::new();
    ErrorReport::fatal(SqlState::ADMIN_SHUTDOWN, "bye").encode_error(&mut fatal);
    let fault = asked(vec![fatal]).await.expect_err("an end");
    assert!(!fault.leaves_connection());
    assert!(matches!(&fault, ProbeFault::Server { code, .. } if *code == SqlState::ADMIN_SHUTDOWN));
    let fault = asked(vec![answer(PRIMARY)[..20].to_vec()]).await.expect_err("half an answer");
    assert!(matches!(fault, ProbeFault::Broken(Broken::Closed)), "{fault:?}");
}
