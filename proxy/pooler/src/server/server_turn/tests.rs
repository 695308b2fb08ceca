//! Replies of one server connection for several sessions: who is told what.
//!
//! No pool links more than one session to a server connection yet. Here a second one is tied to the
//! connection of the first, and both send by their own turns.

use std::time::{Duration, Instant};

use pgimbal_wire::error::SqlState;

use crate::action::Action;
use crate::cancel::CancelKey;
use crate::ids::{ServerId, SessionId};
use crate::plan::{HOLD_LIMIT, Piece, Plan, Stop};
use crate::pool::checkout::Checkout;
use crate::pool::histogram::Histogram;
use crate::pooler::Pooler;
use crate::recovery::DisconnectOutcome;
use crate::sample::{Sample, Sampled};
use crate::server::pending::Pending;
use crate::session::arrival::Greeting;
use crate::session::{Link, Phase, Presence, dismissal};
use crate::sql::Kinds;
use crate::tests::Fixture;

/// A core with one server connection and two sessions, of which the first is linked to it.
struct SharedServer {
    pooler: Pooler,
    server: ServerId,
    sessions: [SessionId; 2],
    now: Instant,
}

const READY: &[u8] = b"I";

impl SharedServer {
    fn new() -> Self {
        let Fixture { mut pooler, pool, server, sessions, now } = Fixture::<2>::new(|_| {});
        assert_eq!(pooler.checkout(sessions[0], now), Checkout::Linked(server));
        let mut shared = Self { pooler, server, sessions, now };
        // The facts of the database are asked for ahead of the first message.
        shared.pooler.core().pools[pool].shared().database.facts.learn(false, false, now);
        for session in sessions {
            shared.session(session).set_link(Link::Ready(server));
        }
        shared
    }

    fn session(&mut self, id: SessionId) -> &mut crate::session::Session {
        self.pooler.core().sessions.get_mut(id).expect("a session")
    }

    /// A client sends this, all of which can be processed.
    fn says(&mut self, client: usize, bytes: &[u8]) {
        let mut plan = Plan::default();
        let id = self.sessions[client];
        let processed = self.pooler.handle_client_bytes(id, self.now, bytes, &mut plan);
        assert_eq!((processed.taken as usize, processed.stop), (bytes.len(), Stop::Drained));
        assert_eq!(plan.bytes_to_sessions(), 0);
    }

    /// The server sends this; returns what each of the clients is to get of it.
    fn answers(&mut self, bytes: &[u8]) -> [Vec<u8>; 2] {
        let mut plan = Plan::default();
        let mut at = 0;
        let mut told = [Vec::new(), Vec::new()];
        while at < bytes.len() {
            plan.clear();
            let rest = &bytes[at..];
            let processed = self.pooler.handle_server_bytes(self.server, self.now, rest, &mut plan);
            assert_ne!(processed.stop, Stop::Fault);
            self.tell(&plan, rest, &mut told);
            at += processed.taken as usize;
            if processed.taken == 0 {
                break;
            }
        }
        told
    }

    fn tell(&self, plan: &Plan, buf: &[u8], told: &mut [Vec<u8>; 2]) {
        for (session, pieces) in plan.to_sessions() {
            let client = self.sessions.iter().position(|id| *id == session);
            for piece in pieces.pieces() {
                let (from, range) = match piece {
                    Piece::Span(range) => (buf, range),
                    Piece::Made(range) => (plan.made(), range),
                };
                let bytes = &from[range.start as usize..range.end as usize];
                told[client.expect("a known client")].extend_from_slice(bytes);
            }
        }
    }

    fn breaks(&mut self) -> (DisconnectOutcome, [Vec<u8>; 2]) {
        let mut plan = Plan::default();
        let mut told = [Vec::new(), Vec::new()];
        let outcome = self.pooler.handle_server_gone(self.server, self.now, &mut plan);
        self.tell(&plan, &[], &mut told);
        (outcome, told)
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a length");
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0").as_bytes())
}

/// Parse of a named statement, and Sync.
fn parse(name: &str) -> Vec<u8> {
    [message(b'P', format!("{name}\0select 1\0\0\0").as_bytes()), message(b'S', b"")].concat()
}

fn error(code: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{code}\0Mno\0\0").as_bytes())
}

fn rows(value: &str) -> Vec<u8> {
    let length = u32::try_from(value.len()).expect("a length");
    let row = [&[0, 1][..], &length.to_be_bytes(), value.as_bytes()].concat();
    [message(b'D', &row), message(b'C', b"SELECT 1\0"), message(b'Z', READY)].concat()
}

/// The tags of the messages, and the codes of errors.
fn shown(mut bytes: &[u8]) -> String {
    let mut shown = String::new();
    while let [tag, a, b, c, d, ..] = bytes {
        let total = u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1;
        shown.push(*tag as char);
        if *tag == b'E' {
            let code = bytes[5..total].split(|byte| *byte == 0).find(|field| field[0] == b'C');
            shown += &String::from_utf8_lossy(&code.expect("a code")[1..]);
        }
        bytes = &bytes[total..];
    }
    assert!(bytes.is_empty(), "half a message");
    shown
}

#[test]
fn each_session_gets_its_own_replies_errors_and_ready_for_query() {
    let mut shared = SharedServer::new();
    shared.says(0, &query("select 'a'"));
    shared.says(1, &query("select 'b'"));
    shared.says(0, &query("select 'c'"));
    let failed = [error("22012"), message(b'Z', READY)].concat();
    let [one, other] = shared.answers(&[rows("a"), failed.clone(), rows("c")].concat());
    assert_eq!(one, [rows("a"), rows("c")].concat());
    assert_eq!(other, failed);
}

#[test]
fn what_an_error_undoes_is_undone_for_its_owner_alone() {
    let mut shared = SharedServer::new();
    shared.says(0, &parse("s"));
    shared.says(1, &parse("s"));
    for id in shared.sessions {
        assert!(shared.session(id).statements().is_some_and(|s| s.get(b"s").is_some()));
    }
    let described = [message(b't', &[0, 0]), message(b'n', b"")].concat();
    let parsed = [message(b'1', b""), described, message(b'Z', READY)].concat();
    let refused = [error("42601"), message(b'Z', READY)].concat();
    let [one, other] = shared.answers(&[parsed, refused].concat());
    assert_eq!((&shown(&one)[..], &shown(&other)[..]), ("1Z", "E42601Z"));
    let knows = shared.sessions.map(|id| {
        let names = shared.session(id).statements();
        names.is_some_and(|names| names.get(b"s").is_some())
    });
    assert_eq!(knows, [true, false]);
    assert_eq!(shared.sessions.map(|id| shared.session(id).phase()), [Phase::Open, Phase::Open]);
}

#[test]
fn who_leaves_does_not_shift_the_replies_of_who_stays() {
    let mut shared = SharedServer::new();
    shared.says(1, &query("select 'b'"));
    shared.says(0, &query("select 'a'"));
    shared.says(1, &query("select 'c'"));
    shared.says(0, &query("select 'd'"));
    // The task of the second client panics; a new tenant takes its place.
    let left = shared.sessions[1];
    shared.session(left).set_link(Link::Unlinked);
    shared.pooler.forget_session(left);
    let first = shared.sessions[0];
    let pool = shared.session(first).pool();
    shared.sessions[1] =
        shared.pooler.handle_login(pool, shared.now, shared.now, || CancelKey::short(3, [1; 32]));
    assert_eq!(shared.sessions[1].slot, left.slot);
    let [one, other] = shared.answers(&[rows("b"), rows("a"), rows("c"), rows("d")].concat());
    assert_eq!(one, [rows("a"), rows("d")].concat());
    assert!(other.is_empty(), "the new tenant gets replies of the last one");
}

#[test]
fn a_notification_is_for_the_session_that_is_linked() {
    let mut shared = SharedServer::new();
    shared.says(1, &query("select 'b'"));
    let notification = message(b'A', b"\0\0\0\x09channel\0payload\0");
    let notice = message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0");
    let [one, other] = shared.answers(&[notification.clone(), notice.clone(), rows("b")].concat());
    assert_eq!(one, notification);
    assert_eq!(other, [notice, rows("b")].concat(), "a notice is for whose statement runs");
}

#[test]
fn the_loss_of_the_server_connection_is_told_to_all() {
    let mut shared = SharedServer::new();
    shared.says(0, &query("select 'a'"));
    shared.says(1, &parse("s"));
    shared.says(1, &query("select 'b'"));
    let (outcome, [one, other]) = shared.breaks();
    assert_eq!(outcome, DisconnectOutcome::Survives);
    assert_eq!(shown(&one), "E08007Z");
    // Nothing is known of what another session has sent.
    assert_eq!(shown(&other), "E08007ZE08007Z");
    let id = shared.sessions[1];
    let names = shared.session(id).statements();
    assert!(names.is_none_or(|names| names.get(b"s").is_none()), "a name that was not confirmed");
}

#[test]
fn an_error_that_was_told_is_not_followed_by_a_second_one() {
    let mut shared = SharedServer::new();
    shared.says(1, &query("select 'b'"));
    shared.says(0, &query("select 'a'"));
    let [_, other] = shared.answers(&error("22012"));
    assert_eq!(shown(&other), "E22012");
    let (_, [one, other]) = shared.breaks();
    assert_eq!((&shown(&one)[..], &shown(&other)[..]), ("E08007Z", "Z"));
}

#[test]
fn half_a_message_for_another_session_never_reaches_its_client() {
    let mut shared = SharedServer::new();
    shared.says(1, &query("select 'b'"));
    let long = rows(&"x".repeat(2 * HOLD_LIMIT));
    let [_, half] = shared.answers(&long[..HOLD_LIMIT + 10]);
    assert_eq!(half, long[..HOLD_LIMIT + 10]);
    let id = shared.sessions[1];
    shared.pooler.queue_output(id, std::iter::once(&half[..]));
    assert_eq!(shared.pooler.poll_output(id), None);
    let (_, [_, told]) = shared.breaks();
    shared.pooler.queue_output(id, std::iter::once(&told[..]));
    let output = shared.pooler.poll_output(id).expect("what it is told");
    assert_eq!(shown(&output), "E08007Z");
}

#[test]
fn what_is_queued_waits_for_the_end_of_the_message_that_is_half_way() {
    let mut shared = SharedServer::new();
    shared.says(0, &query("select 'a'"));
    let long = rows(&"x".repeat(2 * HOLD_LIMIT));
    let (first, rest) = long.split_at(HOLD_LIMIT + 10);
    let [half, _] = shared.answers(first);
    let id = shared.sessions[0];
    let notice = message(b'N', b"SNOTICE\0\0");
    shared.pooler.queue_output(id, std::iter::once(&notice[..]));
    assert_eq!(shared.pooler.poll_output(id), None);
    let [end, _] = shared.answers(rest);
    assert_eq!([half, end].concat(), long);
    assert_eq!(shared.pooler.poll_output(id), Some(notice));
}

#[test]
fn a_client_that_does_not_read_what_others_send_it_is_dismissed() {
    let mut shared = SharedServer::new();
    let id = shared.sessions[1];
    let notice = message(b'N', &[b'x'; 60_000]);
    for _ in 0..4 {
        shared.pooler.queue_output(id, std::iter::once(&notice[..]));
    }
    assert!(shared.pooler.poll_final_error(id).is_none());
    shared.pooler.queue_output(id, std::iter::once(&notice[..]));
    assert_eq!(shared.pooler.poll_output(id), None, "what waited is dropped");
    let error = shared.pooler.poll_final_error(id).expect("a final error");
    assert_eq!(shown(&error), "E08006");
    let now = shared.now;
    shared.pooler.handle_departure(id, Presence::Vanished, now, &mut Plan::default());
    shared.pooler.queue_output(id, std::iter::once(&notice[..]));
    assert_eq!(shared.pooler.poll_output(id), None, "nothing is kept for who has left");
}

#[test]
fn a_reply_of_pgimbals_own_never_stands_in_the_middle_of_a_message() {
    let mut shared = SharedServer::new();
    shared.says(0, &parse("s"));
    let described = [message(b't', &[0, 0]), message(b'n', b"")].concat();
    let parsed = [message(b'1', b""), described, message(b'Z', READY)].concat();
    assert_eq!(shown(&shared.answers(&parsed)[0]), "1Z");
    // Describe, Close, Sync: the statement stays on the server, and pgimbal says CloseComplete.
    let close = [message(b'D', b"Ss\0"), message(b'C', b"Ss\0"), message(b'S', b"")].concat();
    let (id, server) = (shared.sessions[0], shared.server);
    shared.session(id).set_link(Link::Ready(server));
    shared.says(0, &close);
    let columns = message(b'T', &[&[0, 1][..], &[b'x'; 2 * HOLD_LIMIT]].concat());
    let answer = [message(b't', &[0, 0]), columns, message(b'Z', READY)].concat();
    let (first, rest) = answer.split_at(HOLD_LIMIT + 100);
    let [half, _] = shared.answers(first);
    let [end, _] = shared.answers(rest);
    assert_eq!(shown(&[half, end].concat()), "tT3Z");
}

#[test]
fn a_final_error_never_stands_in_the_middle_of_a_message() {
    let long = rows(&"x".repeat(2 * HOLD_LIMIT));
    let (first, rest) = long.split_at(HOLD_LIMIT + 10);
    for (arrived, told) in [(first, ""), (&long[..], "E57P01")] {
        let mut shared = SharedServer::new();
        let id = shared.sessions[0];
        shared.says(0, &query("select 'a'"));
        shared.answers(arrived);
        dismissal::dismiss(
            shared.pooler.core(),
            id,
            SqlState::ADMIN_SHUTDOWN,
            "pgimbal is shutting down",
        );
        let error = shared.pooler.poll_final_error(id).expect("an end");
        assert_eq!(shown(&error), told);
    }
    // What the client must not have sent is not told there either.
    let mut shared = SharedServer::new();
    shared.says(0, &query("select 'a'"));
    shared.answers(first);
    let mut plan = Plan::default();
    let (id, now) = (shared.sessions[0], shared.now);
    let processed = shared.pooler.handle_client_bytes(id, now, &message(b'?', b""), &mut plan);
    assert_eq!((processed.stop, plan.bytes_to_sessions()), (Stop::Fault, 0));
    assert_eq!(shown(&[first, &shared.answers(rest)[0]].concat()), "DCZ");
}

/// How many were counted, and the milliseconds that they took together.
fn counted(times: &Histogram) -> (u64, u64) {
    (times.count(), times.sum_nanos() / 1_000_000)
}

/// What was counted of queries and of transactions.
fn times(shared: &mut SharedServer) -> [(u64, u64); 2] {
    let pool = shared.pooler.server(shared.server).expect("a server connection").pool();
    let stats = shared.pooler.pool_of(pool).stats();
    assert_eq!(stats.transaction_times.count(), stats.transactions);
    [counted(&stats.query_times), counted(&stats.transaction_times)]
}

#[test]
fn a_query_takes_until_its_answer_and_a_transaction_until_its_end() {
    let mut shared = SharedServer::new();
    let pass = |shared: &mut SharedServer, millis| shared.now += Duration::from_millis(millis);
    shared.says(0, &query("begin"));
    pass(&mut shared, 2);
    shared.answers(&[message(b'C', b"BEGIN\0"), message(b'Z', b"T")].concat());
    assert_eq!(times(&mut shared), [(1, 2), (0, 0)]);
    // The client thinks.
    pass(&mut shared, 1000);
    shared.says(0, &query("select 'a'"));
    pass(&mut shared, 30);
    shared.answers(&[message(b'C', b"SELECT 1\0"), message(b'Z', b"T")].concat());
    shared.says(0, &query("commit"));
    pass(&mut shared, 5);
    shared.answers(&[message(b'C', b"COMMIT\0"), message(b'Z', READY)].concat());
    assert_eq!(times(&mut shared), [(3, 37), (1, 1037)]);
    // What passes between transactions belongs to none.
    pass(&mut shared, 60_000);
    shared.says(0, &query("select 'b'"));
    pass(&mut shared, 4);
    shared.answers(&rows("b"));
    assert_eq!(times(&mut shared), [(4, 41), (2, 1041)]);
}

#[test]
fn a_pipelined_query_begins_with_the_end_of_the_one_before() {
    let mut shared = SharedServer::new();
    shared.says(0, &query("select 'a'"));
    shared.now += Duration::from_millis(3);
    shared.says(0, &query("select 'b'"));
    shared.now += Duration::from_millis(4);
    shared.answers(&rows("a"));
    assert_eq!(times(&mut shared), [(1, 7), (1, 7)]);
    shared.now += Duration::from_millis(10);
    shared.answers(&rows("b"));
    assert_eq!(times(&mut shared), [(2, 17), (2, 17)]);
}

#[test]
fn what_a_sync_ends_is_one_query_from_its_first_message() {
    let mut shared = SharedServer::new();
    shared.says(0, &message(b'P', b"\0select 1\0\0\0"));
    shared.says(0, &message(b'H', b""));
    shared.now += Duration::from_millis(6);
    shared.answers(&message(b'1', b""));
    shared.now += Duration::from_millis(20);
    let bind = message(b'B', &[0, 0, 0, 0, 0, 0, 0, 0]);
    let rest = [bind, message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
    shared.says(0, &rest);
    shared.now += Duration::from_millis(9);
    shared.answers(&[message(b'2', b""), rows("1")].concat());
    assert_eq!(times(&mut shared), [(1, 35), (1, 35)]);
}

#[test]
fn a_wait_is_counted_for_who_gets_a_server_connection_at_once_too() {
    let Fixture { mut pooler, pool, server, sessions: [one, other], mut now } =
        Fixture::<2>::new(|_| {});
    let counted = |pooler: &Pooler| counted(&pooler.pool_of(pool).stats().waits);
    assert_eq!(counted(&pooler), (0, 0));
    assert_eq!(pooler.checkout(one, now), Checkout::Linked(server));
    assert_eq!(counted(&pooler), (1, 0));
    assert_eq!(pooler.checkout(other, now), Checkout::Waiting);
    now += Duration::from_millis(40);
    assert_eq!(counted(&pooler), (1, 0), "it still waits");
    pooler.checkin(server, now);
    assert_eq!(counted(&pooler), (2, 40));
}

#[test]
fn a_login_takes_from_the_startup_packet_to_the_greeting() {
    let Fixture { mut pooler, pool, now, .. } = Fixture::<1>::new(|_| {});
    let before = counted(&pooler.pool_of(pool).stats().login_times);
    assert_eq!(before, (1, 0));
    let came_at = now + Duration::from_secs(5);
    let proven_at = came_at + Duration::from_millis(30);
    let key = || CancelKey::short(9, [1; 32]);
    let session = pooler.handle_login(pool, came_at, proven_at, key);
    let greeting = pooler.greet(session, &[], proven_at + Duration::from_millis(12));
    assert!(matches!(greeting, Greeting::Ready(_)), "{greeting:?}");
    assert_eq!(counted(&pooler.pool_of(pool).stats().login_times), (2, 42));
}

#[test]
fn a_transaction_that_is_traced_has_the_wait_before_it() {
    let Fixture { mut pooler, pool, server, sessions: [one, other], mut now } =
        Fixture::<2>::new(|_| {});
    pooler.core().pools[pool].shared().database.facts.learn(false, false, now);
    assert_eq!(pooler.take_samples(), [], "nothing is traced unless it is asked for");
    pooler.set_trace_ratio(1_000_000);
    assert_eq!(pooler.checkout(one, now), Checkout::Linked(server));
    assert_eq!(pooler.checkout(other, now), Checkout::Waiting);
    let asked = now;
    now += Duration::from_millis(40);
    pooler.checkin(server, now);
    let linked = now;
    let mut plan = Plan::default();
    let runs = |pooler: &mut Pooler, plan: &mut Plan, now: Instant| {
        let text = query("select 'a'");
        let processed = pooler.handle_client_bytes(other, now, &text, plan);
        assert_eq!(processed.taken as usize, text.len());
        let ended = now + Duration::from_millis(7);
        let answer = rows("a");
        let processed = pooler.handle_server_bytes(server, ended, &answer, plan);
        assert_eq!((processed.taken as usize, processed.stop), (answer.len(), Stop::Checkin));
        let mut actions = Vec::new();
        pooler.poll_actions(&mut actions);
        assert!(actions.contains(&Action::Trace), "{actions:?}");
        (pooler.take_samples(), ended)
    };
    let began = linked + Duration::from_millis(1);
    let (samples, ended) = runs(&mut pooler, &mut plan, began);
    let sample =
        |wait, began, ended| Sample { pool, what: Sampled::Transaction, wait, began, ended };
    assert_eq!(samples, [sample(Some((asked, linked)), began, ended)]);
    // The client has kept the connection: nobody has waited before this one.
    let began = ended + Duration::from_secs(1);
    let (samples, ended) = runs(&mut pooler, &mut plan, began);
    assert_eq!(samples, [sample(None, began, ended)]);
}

#[test]
fn the_next_message_waits_for_the_question_though_one_of_pgimbals_own_is_answered_first() {
    let mut shared = SharedServer::new();
    shared.says(0, &query("select f()"));
    let (id, server, now) = (shared.sessions[0], shared.server, shared.now);
    // As if it ran code.
    shared.session(id).raised_mut().insert(Kinds::SETTINGS);
    let core = shared.pooler.core();
    core.servers.get_mut(server).expect("a server").pending_mut().push_own(Pending::OwnSync);
    let ended = [message(b'C', b"SELECT 1\0"), message(b'Z', READY)].concat();
    let [told, _] = shared.answers(&ended);
    assert_eq!(shown(&told), "CZ");
    // It answers at once: nobody knows yet what the code has set.
    let (mut plan, next) = (Plan::default(), query("select 1"));
    let processed = shared.pooler.handle_client_bytes(id, now, &next, &mut plan);
    assert_eq!((processed.taken, processed.stop), (0, Stop::Wait));
    let own = message(b'Z', READY);
    let mut plan = Plan::default();
    let processed = shared.pooler.handle_server_bytes(server, now, &own, &mut plan);
    assert_eq!(processed.taken as usize, own.len());
    let question = String::from_utf8_lossy(plan.made()).into_owned();
    assert!(question.contains("pgimbal_ask_settings"), "{question}");
    let mut plan = Plan::default();
    let processed = shared.pooler.handle_client_bytes(id, now, &next, &mut plan);
    assert_eq!((processed.taken, processed.stop), (0, Stop::Wait));
}
