//! The client-state table: for each state a client that is brought into it, and what it must see.

mod awaited;
mod blocks;
mod reads;
mod writes;

use std::panic::{AssertUnwindSafe, catch_unwind};

use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Pipeline, Reply, WireClient};

use super::setup::Setup;

/// What the failing server says to statements in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    /// FATAL 57P01, which proves rollback where no CommandComplete came before.
    Fatal,
    /// Nothing that proves anything.
    Nothing,
    /// Nothing, but it was a standby, on which nothing can be written.
    ReadOnly,
}

/// Whether what the client wrote is there in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It wrote nothing.
    Never,
    Once,
    /// The outcome is unknown.
    OnceAtMost,
    /// It was told so.
    RolledBack,
    /// Rolled back if the server's words prove it.
    ByWords,
}

pub(super) struct Row {
    /// Also the id of what it writes.
    pub(super) name: &'static str,
    pub(super) database: &'static str,
    /// Brings the client into its state.
    pub(super) enter: fn(&mut WireClient),
    /// Whether a statement then runs that names the row.
    pub(super) runs: bool,
    /// What it does while there is no primary.
    pub(super) during: Option<fn(&mut WireClient)>,
    /// What it sees.
    pub(super) sees: fn(&mut WireClient, Words),
    pub(super) survives: bool,
    pub(super) written: Written,
    /// What it sees when its server connection goes on.
    pub(super) goes_on: fn(&mut WireClient),
    /// Whether a replica can bring it into its state.
    pub(super) on_replica: bool,
    /// What must have happened before it looks.
    pub(super) await_first: fn(&Setup, &WireClient),
}

/// What most rows are.
const ROW: Row = Row {
    name: "",
    database: "app",
    enter: |_| {},
    runs: false,
    during: None,
    sees: |_, _| {},
    survives: true,
    written: Written::Never,
    goes_on: WireClient::expect_nothing_before_the_next_reply,
    on_replica: false,
    await_first: |_, _| {},
};

/// What most rows are whose statement runs.
const RUNNING: Row = Row {
    runs: true,
    goes_on: |client| {
        client.read_reply().no_error();
    },
    ..ROW
};

pub(super) struct Clients(Vec<(&'static Row, WireClient)>);

impl Clients {
    /// Brings a client into each state on the first primary.
    pub(super) fn enter(setup: &Setup) -> Self {
        Self::enter_on(setup, 0)
    }

    /// Brings a client into each state on node `index`, which is the primary now.
    pub(super) fn enter_on(setup: &Setup, index: usize) -> Self {
        let mut clients = Self(Vec::new());
        clients.add(setup, index, "", all());
        clients
    }

    /// Brings clients of the databases that read from replicas into each state that there is on
    /// node `index`, the only replica.
    pub(super) fn enter_on_replica(setup: &Setup, index: usize) -> Self {
        let mut clients = Self(Vec::new());
        clients.add(setup, index, "read_", all().filter(|row| row.on_replica));
        clients
    }

    /// Adds those that await a synchronous replica of the first primary, which has none.
    pub(super) fn enter_awaiting(&mut self, setup: &Setup) {
        self.add(setup, 0, "", awaited::ROWS.iter());
    }

    fn add(
        &mut self,
        setup: &Setup,
        index: usize,
        prefix: &str,
        rows: impl Iterator<Item = &'static Row>,
    ) {
        // `PGIMBAL_ROW` picks one, for whoever looks into it.
        let picked = std::env::var("PGIMBAL_ROW").ok();
        for row in rows {
            if picked.as_deref().is_some_and(|name| name != row.name) {
                continue;
            }
            let mut client = setup.client(&format!("{prefix}{}", row.database));
            // Each has proven that it is served before anything fails.
            client.ok("select 1");
            (row.enter)(&mut client);
            self.0.push((row, client));
        }
        let running = self.0.iter().filter(|(row, _)| row.runs).count();
        let node = &setup.cluster.nodes[index];
        let sql = "select count(*) from pg_stat_activity where usename = 'app' \
                   and state = 'active' and wait_event in ('PgSleep', 'ClientWrite', 'SyncRep')";
        eventually("every statement hangs", SOON, || {
            node.value(sql).parse().is_ok_and(|count: usize| count >= running)
        });
    }

    /// While there is no primary.
    pub(super) fn during(&mut self) {
        for (row, client) in &mut self.0 {
            if let Some(during) = row.during {
                during(client);
            }
        }
    }

    /// Whether every client sees what its row says, and node `index`, the primary now, has what
    /// it should.
    pub(super) fn check(self, setup: &Setup, index: usize, words: Words) {
        self.each(|row, client| {
            (row.await_first)(setup, client);
            (row.sees)(client, words);
            if row.survives {
                is_in_step(client);
            } else {
                assert!(client.try_read().is_err(), "the connection is still open");
            }
            written(setup, index, row, words);
        });
    }

    /// Whether every client goes on as if nothing had happened, and node `index`, still the
    /// primary, has what it wrote.
    pub(super) fn go_on(self, setup: &Setup, index: usize) {
        self.each(|row, client| {
            match row.during {
                Some(_) => (row.sees)(client, Words::Nothing),
                None => (row.goes_on)(client),
            }
            if client.ok("select 'still there'").status() == 'T' {
                assert_eq!(client.ok("commit").commands(), ["COMMIT"]);
            }
            is_in_step(client);
            let expected = if row.written == Written::Never { "0" } else { "1" };
            assert_eq!(setup.count(index, row.name), expected, "{}", row.name);
        });
    }

    fn each(self, check: impl Fn(&Row, &mut WireClient)) {
        let mut wrong = Vec::new();
        for (row, mut client) in self.0 {
            if catch_unwind(AssertUnwindSafe(|| check(row, &mut client))).is_err() {
                wrong.push(row.name);
            }
        }
        assert!(wrong.is_empty(), "wrong: {wrong:?}");
    }
}

fn all() -> impl Iterator<Item = &'static Row> {
    [reads::ROWS, writes::ROWS, blocks::ROWS].into_iter().flatten()
}

fn is_in_step(client: &mut WireClient) {
    client.expect_nothing_before_the_next_reply();
    let reply = client.run(&Pipeline::new().run("select 'extended'").sync());
    assert_eq!((reply.value().as_str(), reply.tags().as_str()), ("extended", "12DCZ"));
    client.expect_nothing_before_the_next_reply();
}

fn written(setup: &Setup, index: usize, row: &Row, words: Words) {
    let count = setup.count(index, row.name);
    match (row.written, words) {
        (Written::Never | Written::RolledBack, _) | (Written::ByWords, Words::Fatal) => {
            assert_eq!(count, "0", "{} was told that it is rolled back", row.name);
        }
        (Written::Once, _) => assert_eq!(count, "1", "{} was told that it is done", row.name),
        (Written::OnceAtMost | Written::ByWords, _) => {
            assert!(count == "0" || count == "1", "{} was done {count} times", row.name);
        }
    }
}

/// A reply that is one error, which leaves the connection open, and nothing that a notice of
/// the old server's told.
pub(super) fn refusal(reply: &Reply, code: &str, status: char) {
    let errors = reply.errors();
    let told: Vec<_> =
        errors.iter().map(|error| (error.severity.as_str(), error.code.as_str())).collect();
    assert_eq!(told, [("ERROR", code)], "{reply:?}");
    assert_eq!(reply.status(), status, "{reply:?}");
    assert!(reply.messages.iter().all(|message| message.tag != b'N'), "{reply:?}");
    assert!(reply.commands().is_empty(), "{reply:?}");
}

/// The next reply is [`refusal`].
fn refused(client: &mut WireClient, code: &str, status: char) {
    refusal(&client.read_reply(), code, status);
}

/// As [`refused`], with 57P01 where the server's words prove rollback, else 08007.
fn told_by(client: &mut WireClient, words: Words) {
    let code = if words == Words::Fatal { "57P01" } else { "08007" };
    refused(client, code, 'I');
}

fn unknown(client: &mut WireClient, _: Words) {
    refused(client, "08007", 'I');
}

/// Begins a transaction that has written a row of this name to `table` unless a replica serves it.
fn begin(client: &mut WireClient, table: &str, name: &str) {
    client.ok("begin");
    client.ok(&format!("select note('{table}', '{name}')"));
}

fn send(client: &mut WireClient, pipeline: &Pipeline) {
    client.send(pipeline.bytes());
}

fn extended(sql: &str) -> Pipeline {
    Pipeline::new().run(sql).sync()
}
