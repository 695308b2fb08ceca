//! A message that waits is classified once.

use std::time::Instant;

use pgimbal_config::PoolMode;

use super::*;
use crate::ids::ServerId;
use crate::plan::HOLD_LIMIT;
use crate::pool::checkout::Checkout;
use crate::pooler::Pooler;
use crate::recovery::block::Block;
use crate::session::Session;
use crate::session::front::ReadText;
use crate::sql::{self, AccessKind, Calls, Readings, StandardStrings, StatementClass};
use crate::tests::Fixture;

/// A core with one client that has logged in, and one server connection.
struct Core {
    pooler: Pooler,
    session: SessionId,
    server: ServerId,
    plan: Plan,
    now: Instant,
}

impl Core {
    fn new(mode: PoolMode) -> Self {
        let fixture = Fixture::<1>::new(|pool| pool.mode = mode);
        let Fixture { pooler, server, sessions: [session], now, .. } = fixture;
        Self { pooler, session, server, plan: Plan::default(), now }
    }

    fn say(&mut self, bytes: &[u8]) -> Processed {
        self.plan.clear();
        self.pooler.handle_client_bytes(self.session, self.now, bytes, &mut self.plan)
    }

    fn session(&mut self) -> &mut Session {
        self.pooler.core().sessions.get_mut(self.session).unwrap()
    }

    fn front(&mut self) -> &mut FrontMessage {
        &mut self.session().front
    }

    fn links(&mut self) {
        assert_eq!(self.pooler.checkout(self.session, self.now), Checkout::Linked(self.server));
    }

    /// What the last segment was found to do to the transaction block.
    fn block(&self) -> Block {
        self.pooler.server(self.server).unwrap().in_flight().effects().block()
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(4 + body.len() as u32).to_be_bytes(), body].concat()
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), &[0]].concat())
}

fn parse(text: &str) -> Vec<u8> {
    message(b'P', &[&[0][..], text.as_bytes(), &[0, 0, 0]].concat())
}

#[test]
fn a_text_is_classified_before_checkout_and_not_again() {
    for waits in [query("select 1"), parse("select 1")] {
        let mut core = Core::new(PoolMode::Transaction);
        assert_eq!(core.say(&waits).stop, Stop::Checkout);
        assert_eq!(core.front().access().kind, AccessKind::BeginsAsRead);
        // As if it had been another text: nobody looks at the text again.
        let reading = Readings::One(core.session().reading);
        *core.front() = FrontMessage::from(ReadText::new(b"begin", reading, Calls::Text));
        // Once more, as after a server connection that was gone.
        assert_eq!(core.say(&waits).stop, Stop::Checkout);
        assert_eq!(core.front().access().kind, AccessKind::Unknown, "it is kept");
        core.links();
        assert_eq!(core.say(&waits).taken as usize, waits.len());
        assert!(matches!(core.front(), FrontMessage::Unread), "it left with its message");
        if waits[0] == b'Q' {
            assert_eq!(core.block(), Block::Opens);
        } else {
            let class = &core.session().unnamed.as_ref().unwrap().class;
            assert_eq!(class.access().kind, AccessKind::Unknown);
        }
    }
}

#[test]
fn a_text_that_is_read_in_another_way_by_the_time_it_is_sent_is_classified_anew() {
    let mut core = Core::new(PoolMode::Transaction);
    let text = query("select 1");
    assert_eq!(core.say(&text).stop, Stop::Checkout);
    let reading = Readings::One(core.session().reading);
    *core.front() = FrontMessage::from(ReadText::new(b"begin", reading, Calls::Text));
    core.links();
    // The server that it gets says so.
    core.session().reading.strings = StandardStrings::Off;
    assert_eq!(core.say(&text).taken as usize, text.len());
    assert_eq!(core.block(), Block::Same);
}

#[test]
fn what_follows_a_message_has_nothing_of_it() {
    let mut core = Core::new(PoolMode::Transaction);
    let both = [query("select 1"), query("begin")].concat();
    assert_eq!(core.say(&both).stop, Stop::Checkout);
    core.links();
    assert_eq!(core.say(&both).taken as usize, both.len());
    assert_eq!(core.block(), Block::Opens);
    // A longer text than is held is not read ahead.
    let mut core = Core::new(PoolMode::Transaction);
    let long = query(&format!("select '{}'", "x".repeat(2 * HOLD_LIMIT)));
    assert_eq!(core.say(&long[..HOLD_LIMIT]).stop, Stop::Checkout);
    assert!(matches!(core.front(), FrontMessage::Unread));
}

#[test]
fn a_bind_says_what_its_statement_is() {
    let mut core = Core::new(PoolMode::Transaction);
    let bind = message(b'B', b"\0\0\0\0\0\0\0\0");
    assert_eq!(core.say(&bind).stop, Stop::Checkout);
    assert_eq!(core.front().access().kind, AccessKind::Unknown, "there is none");
    let class = StatementClass::from(sql::classify(b"show x", Readings::Any, Calls::Text));
    let unnamed = crate::session::Unnamed { body: b"show x\0\0\0".to_vec(), class, shape: None };
    core.session().set_unnamed(Some(unnamed));
    assert_eq!(core.say(&bind).stop, Stop::Checkout);
    assert_eq!(core.front().access().kind, AccessKind::Reads);
    assert_eq!(core.say(&message(b'S', b"")).stop, Stop::Drained);
}

#[test]
fn statement_mode_refuses_a_block_without_a_server_connection() {
    for begins in [query("begin"), parse("start transaction")] {
        let mut core = Core::new(PoolMode::Statement);
        let said = core.say(&[&begins[..], &message(b'S', b"")].concat());
        assert_eq!(said.stop, Stop::Drained);
        assert_eq!(core.session().link, Link::Unlinked);
        assert!(core.plan.bytes_to_sessions() > 0 && core.plan.to_server().bytes() == 0);
        let read = core.say(&query("select 1"));
        assert_eq!(read.stop, Stop::Checkout);
    }
}

/// A client whose segment is in flight, without its Sync, and whose `begin` waits for its replies.
fn waits_behind_a_segment() -> Core {
    let mut core = Core::new(PoolMode::Transaction);
    let segment = [parse("select 1"), message(b'B', &[0; 8]), message(b'E', &[0; 5])].concat();
    assert_eq!(core.say(&segment).stop, Stop::Checkout);
    core.links();
    let said = core.say(&[&segment[..], &query("begin")].concat());
    assert_eq!((said.taken as usize, said.stop), (segment.len(), Stop::Wait));
    assert!(matches!(core.front(), FrontMessage::Text(_)), "it waits for replies");
    core.plan.clear();
    core
}

#[test]
fn what_waits_behind_a_segment_that_is_lost_is_forgotten() {
    let mut core = waits_behind_a_segment();
    core.pooler.handle_server_gone(core.server, core.now, &mut core.plan);
    assert!(matches!(core.front(), FrontMessage::Unread));
}

#[test]
fn what_waits_behind_a_segment_that_fails_is_forgotten_when_it_is_skipped() {
    let mut core = waits_behind_a_segment();
    let failed = message(b'E', b"SERROR\0C42601\0Ma\0\0");
    let said = core.pooler.handle_server_bytes(core.server, core.now, &failed, &mut core.plan);
    assert_eq!(said.taken as usize, failed.len());
    assert_eq!(core.session().phase, Phase::Skipping);
    let rest = [query("begin"), message(b'S', b""), query("select 1")].concat();
    assert_eq!(core.say(&rest).taken as usize, rest.len());
    assert_eq!(core.block(), Block::Same);
}

#[test]
fn the_rest_of_a_long_message_is_no_message_of_its_own() {
    let mut core = Core::new(PoolMode::Transaction);
    let parse = parse("select $1");
    assert_eq!(core.say(&parse).stop, Stop::Checkout);
    core.links();
    // A text whose every letter is the tag of Sync.
    let value = vec![b'S'; 2 * HOLD_LIMIT];
    let length = (value.len() as u32).to_be_bytes();
    let body = [&[0, 0, 0, 0, 0, 1][..], &length, &value, &[0, 0]].concat();
    let bind = message(b'B', &body);
    let (begin, rest) = bind.split_at(HOLD_LIMIT);
    assert_eq!(core.say(&[&parse[..], begin].concat()).stop, Stop::Drained);
    assert_eq!(core.say(rest).taken as usize, rest.len());
    assert_eq!(core.say(&message(b'E', &[0; 5])).stop, Stop::Drained);
    let server = core.pooler.server(core.server).unwrap();
    assert!(!server.in_flight().has_end(), "the segment is open");
    assert_eq!(server.in_flight().open_behind_others(), None, "its Bind is not kept");
}
