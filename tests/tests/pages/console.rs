//! The console as docs/operations.md shows it: who may use it, each of its commands, and `top`.

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::pages::{Reader, block, table, with_own};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::program::Finished;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Pgimbal, Postgres};

use super::running::{PAGE_ADDRESS, Running};

const PAGE: &str = "docs/operations.md";

/// The page's way to give a command to the console.
fn psql() -> String {
    block(PAGE, "psql postgres://ops@")
}

pub(super) fn users([psql, named]: [&str; 2]) {
    let pg = Postgres::start();
    let reader = Reader::new().with("PGPASSWORD", "ops-secret");
    let tables = format!(
        "[databases.app]\nhost = \"127.0.0.1\"\nport = {}\n[users.app]\n\
         password = \"app-secret\"\n",
        pg.port
    );
    let nobody = Running::start(&reader, &tables);
    let refused = reader.types(&with_own(psql, &[(PAGE_ADDRESS, &nobody.address())]));
    assert!(!refused.success, "nobody was named: {refused:?}");
    drop(nobody);

    let (line, user) = named.split_once("\n\n").expect("a line and a table");
    let user = with_own(user, &[("…", "ops-secret")]);
    let text = format!("{line}\n{tables}{user}");
    let running = Running::start(&reader, &text);
    let shown = reader.types(&with_own(psql, &[(PAGE_ADDRESS, &running.address())])).succeeded();
    assert!(shown.stdout.contains("cl_active"), "{}", shown.stdout);
    drop(running);
    let checked = reader.types("pgimbal check --config pgimbal.toml").succeeded();
    let is_told = |line: &str| line.contains("user ops") && line.contains("console only");
    assert!(checked.stdout.lines().any(is_told), "{}", checked.stdout);
}

pub(super) fn top([commands]: [&str; 1]) {
    let cluster = Cluster::start(0);
    let proxy = Config::before_cluster(&cluster).start();
    proxy.client().ok("select 1");
    let reader = Reader::new()
        .with("PGUSER", "app")
        .with("PGPASSWORD", "app-secret")
        .with("PGPORT", proxy.port);
    let file = proxy.directory().join("pgimbal.toml").display().to_string();
    let own = [
        ("postgres://ops@127.0.0.1:6432", format!("postgres://app@127.0.0.1:{}", proxy.port)),
        ("/etc/pgimbal/pgimbal.toml", file),
    ];
    let own = own.each_ref().map(|(from, to)| (*from, to.as_str()));
    let commands = with_own(commands, &own);
    let tables = ["cl_active", "cl_active", "timeline"];
    assert_eq!(commands.lines().count(), tables.len(), "{commands}");
    for (line, column) in commands.lines().zip(tables) {
        let printed = reader.types(line).succeeded().stdout;
        assert!(printed.contains(column), "{line}:\n{printed}");
    }
}

/// A console that has something of everything: a cluster, a password that rotates, and a client.
struct Busy {
    cluster: Cluster,
    proxy: Pgimbal,
    reader: Reader,
}

impl Busy {
    fn start() -> Self {
        let cluster = Cluster::start(1);
        cluster.nodes[0].run("create role turning login password 'first'");
        let reader = Reader::new().with("PGPASSWORD", "app-secret");
        let file = reader.write("turning", "first");
        let proxy = Config::before_cluster(&cluster)
            .set("auth_type", "\"scram-sha-256\"")
            .set("shutdown_grace", "\"3s\"")
            .set("drain_delay", "\"0s\"")
            .cluster("failover_hold", "\"10min\"")
            .tables(&format!("[users.turning]\npassword_file = {file:?}"))
            .start();
        let busy = Self { cluster, proxy, reader };
        let mut client = busy.turning("first").expect("the first password");
        assert_eq!(client.value("select 1"), "1");
        busy
    }

    /// A client with a password that rotates.
    fn turning(&self, password: &str) -> Option<pgimbal_tests::WireClient> {
        let mut client = self.proxy.connect();
        client.log_in(&Login::new("turning", "app", password)).ok().map(|_| client)
    }

    fn try_console(&self, command: &str) -> Finished {
        let address = format!("app@127.0.0.1:{}", self.proxy.port);
        let own = [("ops@127.0.0.1:6432", address.as_str()), ("SHOW POOLS", command)];
        self.reader.types(&with_own(&psql(), &own))
    }

    /// What psql prints of a command that must succeed.
    fn console(&self, command: &str) -> String {
        let finished = self.try_console(command);
        assert!(finished.success, "{command}: {}", finished.stderr);
        format!("{}{}", finished.stderr, finished.stdout)
    }

    fn says(&self, command: &str, words: &str) {
        let said = self.console(command);
        assert!(said.contains(words), "{command} does not say {words}:\n{said}");
    }
}

/// A command of the table with names of this console, with and without what is in brackets.
fn with_names(command: &str) -> Vec<String> {
    let named = command
        .replace("<cluster>.<node>", "c.n1")
        .replace("<cluster>", "c")
        .replace("<database>", "app")
        .replace("<user>", "turning")
        .replace("<sql>", "select 1");
    match named.split_once(" [") {
        Some((bare, name)) => {
            vec![format!("{bare} {}", name.trim_end_matches(']')), bare.to_owned()]
        }
        None => vec![named],
    }
}

#[test]
fn each_command_of_the_console_does_what_the_table_says() {
    let rows = table(PAGE, "| command | shows or does |");
    let listed = rows.iter().map(|row| row[0].trim_matches('`'));
    let commands: Vec<String> = listed.flat_map(with_names).collect();
    assert!(commands.len() > 30, "{commands:?}");
    let busy = Busy::start();
    for command in &commands {
        match command.as_str() {
            table if table.starts_with("SHOW ") => shows(&busy, table),
            "RELOAD" => busy.says("RELOAD", "nothing has changed"),
            "HOLD c" => holds(&busy, "RESUME c"),
            "RESUME c" => holds(&busy, "RESUME c"),
            "RESUME" => holds(&busy, "RESUME"),
            "EXPLAIN ROUTE select 1" => busy.says(command, "the route of the pool says so"),
            "ADOPT NODE c.n1" => busy.says(command, "ADOPT NODE"),
            "REFRESH turning" => refreshes(&busy),
            "REVOKE OLD turning" => revokes(&busy),
            "RECONNECT app" | "RECONNECT" => reconnects(&busy, command),
            "KILL app" | "KILL" => kills(&busy, command),
            "SHUTDOWN" | "SHUTDOWN WAIT" => shuts_down(command),
            other => panic!("the table has a command that this test does not know: {other}"),
        }
    }
    hints(&busy);
}

/// Each table has a row of columns, with and without `ALL`.
fn shows(busy: &Busy, command: &str) {
    let columns = |command: &str| -> Vec<String> {
        let shown = busy.console(command);
        let head = shown.lines().next().unwrap_or_default();
        head.split('|').map(|name| name.trim().to_owned()).collect()
    };
    let own = columns(command);
    assert!(own.iter().all(|name| !name.is_empty()), "{command}: {own:?}");
    if !command.ends_with(" ALL") {
        let all = columns(&format!("{command} ALL"));
        assert_eq!((all[0].as_str(), &all[1..]), ("replica", &own[..]), "{command} ALL");
    }
    let promised: &[&str] = match command {
        "SHOW CLIENTS" => &["pinned", "pinned_seconds", "server_pid", "worker", "generation"],
        "SHOW LISTENERS" => &["channel", "clients", "state", "queued_bytes", "server_pid"],
        "SHOW POOLS" => &["cl_waiting", "sv_active", "maxwait"],
        "SHOW NODES" => &["role", "timeline", "state", "why"],
        _ => &[],
    };
    for name in promised {
        assert!(own.iter().any(|column| column == name), "{command} lacks {name}: {own:?}");
    }
}

fn holds(busy: &Busy, resume: &str) {
    let mut client = busy.proxy.client();
    busy.says("HOLD c", "HOLD");
    busy.says("SHOW NODES", "writes wait");
    client.start_query("select 'written'");
    busy.proxy.wait_for_waiting(1);
    busy.says(resume, "RESUME");
    assert_eq!(client.read_reply().value(), "written", "{resume}");
}

/// The source has a new password, which pgimbal learns at the command.
fn refreshes(busy: &Busy) {
    busy.cluster.nodes[0].run("alter role turning password 'second'");
    busy.reader.write("turning", "second");
    let said = busy.console("REFRESH turning");
    assert!(said.contains("REFRESH") && said.contains("turning"), "{said}");
    assert!(busy.turning("second").is_some(), "{said}");
    assert!(busy.turning("first").is_some(), "the old one is accepted for a while");
}

fn revokes(busy: &Busy) {
    let mut session = busy.turning("first").expect("the old password");
    busy.says("REVOKE OLD turning", "REVOKE OLD");
    assert!(busy.turning("first").is_none(), "the old password still works");
    assert!(busy.turning("second").is_some());
    assert_eq!(session.value("select 'stays'"), "stays");
}

fn reconnects(busy: &Busy, command: &str) {
    let mut client = busy.proxy.client();
    let before = client.value("select pg_backend_pid()");
    busy.says(command, "RECONNECT");
    eventually("another server connection serves", SOON, || {
        client.value("select pg_backend_pid()") != before
    });
}

fn kills(busy: &Busy, command: &str) {
    let mut client = busy.proxy.client();
    client.ok("begin");
    busy.says(command, "KILL");
    let told = client.read_to_end();
    assert_eq!(told.last().expect("a last message").error().code, "57P01", "{command}");
    assert_eq!(busy.proxy.client().value("select 'again'"), "again", "clients may come back");
}

/// In a process of its own, which it ends.
fn shuts_down(command: &str) {
    let mut busy = Busy::start();
    let mut idle = busy.proxy.client();
    let mut client = busy.proxy.client();
    client.ok("begin");
    busy.says(command, "SHUTDOWN");
    assert_eq!(idle.read_to_end().last().expect("a last message").error().code, "57P01");
    assert_eq!(client.value("select 'in its transaction'"), "in its transaction");
    client.ok("commit");
    eventually("the process ends", SOON, || busy.proxy.ended().is_some());
    assert_eq!(busy.proxy.ended(), Some(0), "{command}");
}

/// What the page says below the table.
fn hints(busy: &Busy) {
    for unknown in ["\\d", "\\l", "PAUSE"] {
        let said = busy.try_console(unknown);
        assert!(said.stderr.contains("HINT:"), "{unknown}: {said:?}");
    }
    busy.says("HOLD \"c\"", "HOLD");
    busy.says("RESUME \"c\"", "RESUME");
    let said = busy.try_console("HOLD C");
    assert!(!said.success && said.stderr.contains("\"C\""), "names are as written: {said:?}");
}
