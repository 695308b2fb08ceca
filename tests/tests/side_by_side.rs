//! Random sessions on the pool and on PostgreSQL side by side: whatever a client asks, both must
//! answer alike. Statements 12, 13, 16, 17, 20 (as far as pinning carries it), 24, 30, 32, 35.

use std::collections::BTreeMap;

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Login, Message, Pgimbal, Pipeline, Postgres, WireClient};

const TEXTS: [&str; 44] = [
    "select 1",
    "select 'two', 2",
    "values (3), (4)",
    "select 1/0",
    "selec",
    "",
    "begin",
    "begin isolation level serializable",
    "commit",
    "rollback",
    "end",
    "savepoint a",
    "rollback to savepoint a",
    "release a",
    "savepoint b",
    "rollback to b",
    "set work_mem = '5MB'",
    "set work_mem to '6MB'",
    "set local work_mem = '7MB'",
    "set work_mem = 'nonsense'",
    "reset work_mem",
    "set work_mem to default",
    "show work_mem",
    "show work_mem",
    "set timezone = 'Asia/Tokyo'",
    "set time zone 'UTC'",
    "set local timezone = 'America/Lima'",
    "show timezone",
    "set datestyle = 'German'",
    "select '2024-02-03'::date",
    "set search_path = one, public",
    "select x from t",
    "select count(*) from pg_listening_channels()",
    "reset all",
    "discard all",
    "prepare p as select 'p'",
    "execute p",
    "deallocate p",
    "deallocate all",
    "deallocate a",
    "select 1; set lock_timeout = '3s'; select 2",
    "begin; set work_mem = '8MB'; savepoint a",
    "select set_config('work_mem', '9MB', false)",
    "set session characteristics as transaction read only",
];

/// A small generator, so that a seed is the whole story.
struct Random(u64);

impl Random {
    fn roll(&mut self, count: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % count
    }

    fn text(&mut self) -> &'static str {
        TEXTS[self.roll(TEXTS.len())]
    }

    fn name(&mut self) -> &'static str {
        ["", "a", "b"][self.roll(3)]
    }

    /// One request with its number of ReadyForQuery answers.
    fn request(&mut self) -> (Pipeline, usize) {
        match self.roll(10) {
            0..5 => (Pipeline::new().query(self.text()), 1),
            5..7 => (Pipeline::new().run(self.text()).sync(), 1),
            _ => self.pipeline(),
        }
    }

    fn pipeline(&mut self) -> (Pipeline, usize) {
        let mut pipeline = Pipeline::new();
        let mut syncs = 1;
        for _ in 0..=self.roll(6) {
            let name = self.name();
            pipeline = match self.roll(12) {
                0..4 => pipeline.parse(name, self.text()),
                4..7 => pipeline.bind("", name, &[]).execute("", 0),
                7 => pipeline.describe_statement(name),
                8 => pipeline.close_statement(name),
                9 => pipeline.bind("portal", name, &[]).execute("portal", 1),
                10 => pipeline.execute("portal", 0).close_portal("portal"),
                _ => {
                    syncs += 1;
                    pipeline.sync()
                }
            };
        }
        (pipeline.sync(), syncs)
    }
}

/// A session and what it was told.
struct Side {
    client: WireClient,
}

impl Side {
    fn ask(
        &mut self,
        pipeline: &Pipeline,
        syncs: usize,
    ) -> (Vec<String>, BTreeMap<String, String>) {
        self.client.send(pipeline.bytes());
        let mut told = Vec::new();
        for _ in 0..syncs {
            told.extend(self.client.read_reply().messages.iter().filter_map(shown));
        }
        (told, self.client.parameters.clone())
    }
}

/// A message without the place in PostgreSQL's source where an error was raised.
fn shown(message: &Message) -> Option<String> {
    match message.tag {
        b'S' => None,
        b'E' | b'N' => {
            let error = message.error();
            Some(format!(
                "{} {} {} {}",
                char::from(message.tag),
                error.severity,
                error.code,
                error.message
            ))
        }
        _ => Some(format!("{message:?}")),
    }
}

/// Whether the two part where the pool is told that its transaction has failed: a server that
/// lacks the client's statement cannot be given it then, not even to describe it.
fn in_a_failed_transaction(pooled: &[String], direct: &[String]) -> bool {
    let parted = pooled.iter().zip(direct).find(|(pooled, direct)| pooled != direct);
    parted.is_some_and(|(pooled, _)| pooled.starts_with("E ERROR 25P02"))
        && pooled.last() == direct.last()
}

fn sides(pg: &Postgres, proxy: &Pgimbal) -> [Side; 2] {
    let login = Login::new("app", "app", "app-secret").with("lock_timeout", "9s");
    let mut direct = WireClient::unix(&pg.socket());
    direct.log_in(&login).expect("a direct login");
    let pooled = proxy.log_in(&login);
    [Side { client: direct }, Side { client: pooled }]
}

fn compare(pool_size: u32, seeds: std::ops::Range<u64>) {
    let pg = Postgres::start();
    pg.run(
        "create schema one; create table one.t as select 1 as x; \
         create table t as select 0 as x; grant all on schema one to app; \
         grant all on one.t, t to app",
    );
    let config = Config::before(&pg).set("pool_size", pool_size).set("max_pinned", pool_size);
    let proxy = config.set("max_prepared_statements", 4).start();
    for seed in seeds {
        let mut random = Random(seed);
        let mut clients: Vec<[Side; 2]> = (0..pool_size).map(|_| sides(&pg, &proxy)).collect();
        let mut history = Vec::new();
        for _ in 0..60 {
            let number = random.roll(clients.len());
            let (pipeline, syncs) = random.request();
            history.push(format!("{number}: {}", pipeline.bytes().escape_ascii()));
            let [direct, pooled] =
                clients[number].each_mut().map(|side| side.ask(&pipeline, syncs));
            let last = history.join("\n");
            if in_a_failed_transaction(&pooled.0, &direct.0) {
                continue;
            }
            assert_eq!(pooled.0, direct.0, "PGIMBAL_SEED={seed} step {}\n{last}", history.len());
            assert_eq!(pooled.1, direct.1, "PGIMBAL_SEED={seed} step {}\n{last}", history.len());
        }
    }
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("PGIMBAL_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 1..count + 1,
    }
}

#[test]
fn one_session_on_one_server() {
    compare(1, seeds(40));
}

#[test]
fn three_sessions_on_three_servers() {
    compare(3, seeds(40));
}
