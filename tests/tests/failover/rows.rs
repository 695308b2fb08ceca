//! The client-state table: for each state a client that is brought into it, and what it must see.

mod awaited;
mod blocks;
mod reads;
mod row;
mod writes;

use std::panic::{AssertUnwindSafe, catch_unwind};

use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Pipeline, WireClient};

use super::setup::Setup;
use row::{Row, Written};
pub(super) use row::{Words, refusal};

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
