//! What a statement changes on the primary.

use pgimbal_tests::WireClient;
use pgimbal_tests::cluster::Node;

use super::session;

/// What the server counts of its database, and its next transaction id, which only what writes or
/// locks takes. Sequences, advisory locks and files are not in it.
const COUNTS: &str = "select tup_inserted, tup_updated, tup_deleted, \
                      pg_snapshot_xmax(pg_current_snapshot()) \
                      from pg_stat_database where datname = current_database()";
/// Has a session tell the server what it has counted, at the end of this statement.
const FLUSH: &str = "select pg_catalog.pg_stat_force_next_flush()";

/// A session that may write, and one that looks at what it does.
pub(super) struct Witness {
    session: WireClient,
    observer: WireClient,
    ran: usize,
}

impl Witness {
    pub(super) fn new(primary: &Node) -> Self {
        let mut observer = session(primary);
        observer.ok("set synchronous_commit = on");
        Self { session: writing(primary), observer, ran: 0 }
    }

    /// A new session, with no settings.
    pub(super) fn begin(&mut self, primary: &Node) {
        self.session = writing(primary);
    }

    /// Flushes the write-ahead log up to the end of a record. The server itself does so seconds
    /// later, and no standby replays half a record.
    pub(super) fn flush(&mut self) {
        self.observer.ok("select pg_logical_emit_message(true, 'flush', '')");
    }

    /// How many statements have run without an error.
    pub(super) const fn ran(&self) -> usize {
        self.ran
    }

    /// Runs what sets something for the statements that follow.
    pub(super) fn set(&mut self, text: &str) {
        let _ = self.session.try_query(text);
    }

    /// Runs a statement, and says what it has changed; `None` if it has changed nothing.
    pub(super) fn run(&mut self, primary: &Node, text: &str) -> Option<String> {
        let before = self.counts();
        let reply = self.session.try_query(text);
        let is_told = reply.is_ok()
            && self.session.try_query(FLUSH).is_ok_and(|told| told.errors().is_empty());
        if !is_told {
            // At its end it tells what is left.
            self.session = writing(primary);
            return None;
        }
        self.ran += usize::from(reply.is_ok_and(|reply| reply.errors().is_empty()));
        let after = self.counts();
        (before != after).then(|| format!("{before:?} has become {after:?}"))
    }

    fn counts(&mut self) -> Vec<String> {
        self.observer.query(COUNTS).no_error().texts().remove(0)
    }
}

/// A superuser's session. It does not wait for the locks of the session whose statements it runs
/// too.
fn writing(primary: &Node) -> WireClient {
    let mut client = session(primary);
    client.ok("set lock_timeout = '100ms'");
    client
}
