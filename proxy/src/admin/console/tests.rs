mod raw;

use std::net::SocketAddr;
use std::process::{Command as Program, Output};
use std::time::{Duration, SystemTime};

use pgimbal_pooler::pool::stats::{
    ClientSnapshot, ListenerSnapshot, PoolSnapshot, ServerSnapshot, WorkerSnapshot,
};
use pgimbal_wire::startup::ProtocolVersion;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::*;
use crate::admin::collect::{Detail, ProcessStats, SnapshotRequest};
use crate::transport::{Socket, Transport};

/// A console on loopback that lets everybody in, over one worker that tells the same every time.
struct Site {
    address: SocketAddr,
    requests: mpsc::Receiver<ControlRequest>,
}

impl Site {
    async fn open(role: ConsoleRole) -> Self {
        Self::over(vec![worker()], role).await
    }

    async fn over(workers: Vec<mpsc::UnboundedSender<SnapshotRequest>>, role: ConsoleRole) -> Self {
        let process = Arc::new(ProcessStats::new(SystemTime::now(), 10));
        let collector = Collector::new(workers, process);
        let mut config = Config::default();
        config.databases.insert("shop".into(), Default::default());
        let (_, config) = watch::channel(Arc::new(config));
        let (sender, requests) = mpsc::channel(1);
        let console = Arc::new(Console::new(collector, config, Control::new(sender)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let console = Arc::clone(&console);
                tokio::spawn(async move {
                    let Some(client) = let_in(stream, role).await else { return };
                    let _ = console.serve(client, "10.0.0.9:1".to_owned()).await;
                });
            }
        });
        Self { address, requests }
    }

    async fn driver(&self) -> tokio_postgres::Client {
        let text = format!("host=127.0.0.1 port={} user=root dbname=pgimbal", self.address.port());
        let (client, connection) = tokio_postgres::connect(&text, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn psql(&self, arguments: &[&str]) -> Output {
        let mut program = Program::new("psql");
        program.args(["-X", "-h", "127.0.0.1", "-p", &self.address.port().to_string()]);
        program.args(["-U", "root", "-d", "pgimbal"]).args(arguments);
        tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap()
    }
}

/// Reads a startup packet, refusing encryption, and believes it.
async fn let_in(mut stream: TcpStream, role: ConsoleRole) -> Option<Authenticated> {
    loop {
        let length = stream.read_u32().await.ok()?;
        let mut packet = vec![0; length as usize - 4];
        stream.read_exact(&mut packet).await.ok()?;
        if packet.starts_with(&[0, 3]) {
            break;
        }
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"N").await.ok()?;
    }
    Some(Authenticated {
        generation: None,
        transport: Transport::Plain(Socket::Tcp(stream)),
        came_at: std::time::Instant::now(),
        user: "root".into(),
        database: "pgimbal".into(),
        parameters: vec![],
        version: ProtocolVersion::V3_0,
        pending_output: b"R\0\0\0\x08\0\0\0\0".to_vec(),
        residual: vec![],
        console: Some(role),
    })
}

fn worker() -> mpsc::UnboundedSender<SnapshotRequest> {
    let (sender, mut requests) = mpsc::unbounded_channel::<SnapshotRequest>();
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let mut told = told();
            if request.detail == Detail::Totals {
                told.clients.clear();
                told.servers.clear();
                told.listeners.clear();
            }
            request.reply.send(told).unwrap();
        }
    });
    sender
}

fn told() -> WorkerSnapshot {
    let mut pool = PoolSnapshot {
        database: "shop".into(),
        user: "app".into(),
        mode: "transaction",
        clients_active: 2,
        clients_idle: 40,
        clients_waiting: 1,
        longest_wait: Duration::from_micros(2_000_300),
        ..Default::default()
    };
    pool.pinned.insert("listen", 1);
    pool.stats.transactions = 123;
    pool.stats.questions.extend([("settings", 2), ("locks", 6)]);
    pool.stats.questions_failed = 1;
    for millis in [40, 40, 40, 80] {
        pool.stats.query_times.record(Duration::from_millis(millis));
    }
    pool.stats.resets = 8;
    let client = ClientSnapshot {
        worker: 0,
        slot: 0,
        serial: 7,
        database: "shop".into(),
        user: "app".into(),
        state: "pinned",
        pinned: "listen".into(),
        pinned_for: Duration::from_millis(61_900),
        application_name: "till".into(),
        address: "10.0.0.9:4711".into(),
        server_process_id: 99,
        connected: Duration::from_secs(3),
        wait: Duration::ZERO,
        prepared_statements: 4,
        generation: Some(3),
        route: "auto",
        node: "n2".into(),
    };
    let server = ServerSnapshot {
        worker: 0,
        serial: 2,
        database: "shop".into(),
        user: "app".into(),
        state: "active",
        process_id: 99,
        address: "127.0.0.1:5432".into(),
        connected: Duration::from_secs(3),
        client: 7,
        prepared_statements: 4,
        generation: Some(3),
    };
    WorkerSnapshot {
        pools: vec![pool],
        clients: vec![client],
        servers: vec![server],
        listeners: vec![listener()],
        ..Default::default()
    }
}

fn listener() -> ListenerSnapshot {
    ListenerSnapshot {
        worker: 0,
        database: "shop".into(),
        user: "app".into(),
        channel: "news".into(),
        clients: 3,
        state: "listening",
        notifications: 70,
        queued_bytes: 25,
        process_id: 98,
    }
}

#[tokio::test]
async fn pools_have_pgbouncers_columns_first() {
    let site = Site::open(ConsoleRole::Stats).await;
    let client = site.driver().await;
    let messages = client.simple_query("SHOW POOLS").await.unwrap();
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.unwrap();
    assert_eq!(row.columns()[0].name(), "database");
    for (column, value) in [
        ("database", "shop"),
        ("user", "app"),
        ("cl_active", "42"),
        ("cl_waiting", "1"),
        ("maxwait", "2"),
        ("maxwait_us", "300"),
        ("pool_mode", "transaction"),
        ("cl_pinned", "1"),
    ] {
        assert_eq!(row.get(column), Some(value), "{column}");
    }
}

#[tokio::test]
async fn every_table_has_as_many_values_as_columns_in_both_protocols() {
    let site = Site::open(ConsoleRole::Stats).await;
    let client = site.driver().await;
    for table in [
        "CLIENTS",
        "CONFIG",
        "DATABASES",
        "HELP",
        "LATENCIES",
        "LISTENERS",
        "LISTS",
        "POOLS",
        "QUESTIONS",
        "SERVERS",
        "STATS",
        "STATS_TOTALS",
        "USERS",
        "VERSION",
    ] {
        let text = format!("SHOW {table}");
        let simple = client.simple_query(&text).await.unwrap();
        // tokio-postgres uses binary results: what is not eight bytes is no bigint.
        let rows = client.query(&text, &[]).await.unwrap();
        assert_eq!(simple.len(), rows.len() + 2, "{table}");
        assert!(table == "USERS" || !rows.is_empty(), "{table}");
        for row in &rows {
            for (index, column) in row.columns().iter().enumerate() {
                match column.type_().name() {
                    "int8" => drop(row.get::<_, Option<i64>>(index)),
                    _ => drop(row.get::<_, Option<String>>(index)),
                }
            }
        }
    }
}

#[tokio::test]
async fn clients_say_why_they_are_pinned_and_name_their_server() {
    let site = Site::open(ConsoleRole::Stats).await;
    let client = site.driver().await;
    let row = client.query_one("SHOW CLIENTS", &[]).await.unwrap();
    let text = |column: &str| row.get::<_, String>(column);
    assert_eq!((text("state"), text("pinned")), ("pinned".into(), "listen".into()));
    assert_eq!(row.get::<_, i64>("pinned_seconds"), 61);
    assert_eq!((text("addr"), row.get::<_, i64>("port")), ("10.0.0.9".into(), 4711));
    let server = client.query_one("SHOW SERVERS", &[]).await.unwrap();
    assert_eq!(text("link"), server.get::<_, String>("ptr"));
    assert_eq!(text("ptr"), server.get::<_, String>("link"));
    assert_eq!(server.get::<_, i64>("remote_pid"), 99);
}

#[tokio::test]
async fn latencies_are_told_by_pool_and_kind() {
    let site = Site::open(ConsoleRole::Stats).await;
    let client = site.driver().await;
    let rows = client.query("SHOW LATENCIES", &[]).await.unwrap();
    let kinds: Vec<String> = rows.iter().map(|row| row.get("what")).collect();
    assert_eq!(kinds, ["transaction", "query", "wait", "login"]);
    let time = |row: usize, column: &str| rows[row].get::<_, Option<i64>>(column);
    let columns = ["count", "avg", "p50", "p95", "p99"];
    // Three of four lie between 25 and 50 ms, the last between 50 and 100 ms.
    let told = [4, 50_000, 41_666, 90_000, 98_000].map(Some);
    assert_eq!(columns.map(|column| time(1, column)), told);
    assert_eq!(columns.map(|column| time(2, column)), [Some(0), None, None, None, None]);
}

#[tokio::test]
async fn questions_are_told_by_pool_and_kind() {
    let site = Site::open(ConsoleRole::Stats).await;
    let client = site.driver().await;
    let rows = client.query("SHOW QUESTIONS", &[]).await.unwrap();
    let asked = |row: &tokio_postgres::Row| (row.get("kind"), row.get("asked"));
    let asked: Vec<(String, i64)> = rows.iter().map(asked).collect();
    assert_eq!(asked, [("locks".to_owned(), 6), ("settings".to_owned(), 2)]);
    let row = client.query_one("SHOW STATS", &[]).await.unwrap();
    for (column, value) in
        [("total_questions", 8), ("total_questions_failed", 1), ("total_resets", 8)]
    {
        assert_eq!(row.get::<_, i64>(column), value, "{column}");
    }
}

#[tokio::test]
async fn a_driver_that_begins_transactions_is_served() {
    let site = Site::open(ConsoleRole::Stats).await;
    let mut client = site.driver().await;
    let transaction = client.transaction().await.unwrap();
    assert_eq!(transaction.query("SHOW POOLS", &[]).await.unwrap().len(), 1);
    let refused = transaction.query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "42601");
    let aborted = transaction.simple_query("SHOW POOLS").await.unwrap_err();
    assert_eq!(aborted.code().unwrap().code(), "25P02");
    transaction.rollback().await.unwrap();
    assert_eq!(client.query("SHOW POOLS", &[]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn psql_shows_tables_and_errors_with_their_next_step() {
    let site = Site::open(ConsoleRole::Stats).await;
    let output = site.psql(&["-At", "-c", "SHOW POOLS; SHOW VERSION;"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.starts_with("shop|app|42|1|0|0|0|2|300|transaction|"), "{text}");
    assert!(text.contains(concat!("pgimbal ", env!("CARGO_PKG_VERSION"))), "{text}");
    let output = site.psql(&["-c", "SHOW NONSENSE"]).await;
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(errors.contains("ERROR:  unknown command \"SHOW NONSENSE\""), "{errors}");
    assert!(errors.contains("HINT:  ") && errors.contains("SHOW HELP lists"), "{errors}");
}

#[tokio::test]
async fn reload_says_what_changed_and_what_waits() {
    let mut site = Site::open(ConsoleRole::Admin).await;
    let mut requests = std::mem::replace(&mut site.requests, mpsc::channel(1).1);
    tokio::spawn(async move {
        let Some(ControlRequest::Reload(reply)) = requests.recv().await else { panic!() };
        let reloaded = ReloadChanges {
            applied: vec!["pool_size".into(), "auth_type".into()],
            needs_restart: vec!["workers".into()],
        };
        reply.send(Ok(reloaded)).unwrap();
        let Some(ControlRequest::Reload(reply)) = requests.recv().await else { panic!() };
        reply
            .send(Err(ReloadRefused("pgimbal.toml: pool_size = 0: is not positive".into())))
            .unwrap();
        let Some(ControlRequest::Shutdown(_, reply)) = requests.recv().await else { panic!() };
        reply.send(()).unwrap();
    });
    let said = site.psql(&["-c", "RELOAD"]).await;
    let errors = String::from_utf8(said.stderr).unwrap();
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "RELOAD\n");
    assert!(errors.contains("NOTICE:  in force now: pool_size, auth_type"), "{errors}");
    assert!(errors.contains("WARNING:  need a restart: workers"), "{errors}");
    let client = site.driver().await;
    let refused = client.execute("RELOAD", &[]).await.unwrap_err();
    let refused = refused.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "F0000");
    assert_eq!(refused.message(), "pgimbal.toml: pool_size = 0: is not positive");
    client.batch_execute("SHUTDOWN").await.unwrap();
    let gone = client.batch_execute("RELOAD").await.unwrap_err();
    assert_eq!(gone.code().unwrap().code(), "57P01");
}

#[tokio::test]
async fn who_may_only_look_changes_nothing() {
    let site = Site::open(ConsoleRole::Stats).await;
    let client = site.driver().await;
    for command in ["RELOAD", "SHUTDOWN"] {
        let refused = client.batch_execute(command).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501");
    }
    client.batch_execute("SHOW POOLS").await.unwrap();
}

#[tokio::test]
async fn a_worker_that_does_not_answer_is_named() {
    let (gone, _) = mpsc::unbounded_channel();
    let site = Site::over(vec![worker(), gone], ConsoleRole::Stats).await;
    let output = site.psql(&["-At", "-c", "SHOW POOLS"]).await;
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success());
    assert!(errors.contains("WARNING:  no answer from worker 1: "), "{errors}");
}
