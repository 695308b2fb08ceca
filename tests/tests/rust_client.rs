//! tokio-postgres in transaction mode.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::SOON;
use pgimbal_tests::{Pgimbal, Postgres};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

fn start() -> (Postgres, Pgimbal) {
    let pg = Postgres::start();
    pg.run("grant create on schema public to scram");
    let config = Config::before(&pg).set("pool_size", 5).set("workers", 2);
    let proxy = config.set("auth_type", "\"scram-sha-256\"").start();
    (pg, proxy)
}

async fn connect(port: u16) -> Client {
    let text = format!("host=127.0.0.1 port={port} user=scram password=scram-secret dbname=app");
    let (client, connection) = tokio_postgres::connect(&text, NoTls).await.expect("a login");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

fn on_a_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let limited = async { tokio::time::timeout(Duration::from_secs(60), test).await };
    runtime.expect("a runtime").block_on(limited).expect("within a minute");
}

#[test]
fn statements_pipelines_and_transactions() {
    let (_pg, proxy) = start();
    on_a_runtime(async {
        let mut client = connect(proxy.port).await;
        let other = connect(proxy.port).await;
        let statement = client.prepare("select $1::int + $2::int").await.expect("a statement");
        let same = other.prepare("select $1::int + $2::int").await.expect("a statement");
        for number in 0..100_i32 {
            let row = client.query_one(&statement, &[&number, &1]).await.expect("a row");
            assert_eq!(row.get::<_, i32>(0), number + 1);
            let row = other.query_one(&same, &[&number, &2]).await.expect("a row");
            assert_eq!(row.get::<_, i32>(0), number + 2);
        }
        // Polled together they are pipelined on one connection.
        let all = (0..300_i32).map(|number| {
            let (client, statement) = (&client, &statement);
            async move {
                client.query_one(statement, &[&number, &0]).await.expect("a row").get::<_, i32>(0)
            }
        });
        let all: Vec<i32> = future::join_all(all).await;
        assert_eq!(all, (0..300).collect::<Vec<i32>>());
        client.batch_execute("create table t (x int)").await.expect("a table");
        let transaction = client.transaction().await.expect("a transaction");
        transaction.execute("insert into t values ($1)", &[&1_i32]).await.expect("an insert");
        drop(transaction);
        let mut transaction = client.transaction().await.expect("a transaction");
        transaction.execute("insert into t values ($1)", &[&2_i32]).await.expect("an insert");
        let savepoint = transaction.savepoint("s").await.expect("a savepoint");
        let failed = savepoint.execute("select 1/0", &[]).await.expect_err("an error");
        assert_eq!(failed.code(), Some(&SqlState::DIVISION_BY_ZERO));
        savepoint.rollback().await.expect("a rollback");
        let portal =
            transaction.bind("select generate_series(1, 10)", &[]).await.expect("a portal");
        for _ in 0..3 {
            assert_eq!(transaction.query_portal(&portal, 3).await.expect("rows").len(), 3);
        }
        transaction.commit().await.expect("a commit");
        let rows = client.query("select x from t", &[]).await.expect("rows");
        assert_eq!(rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>(), [2]);
    });
}

#[test]
fn copy_and_cancel() {
    let (pg, proxy) = start();
    on_a_runtime(async {
        let client = connect(proxy.port).await;
        client.batch_execute("create table t (x text)").await.expect("a table");
        let sink = client.copy_in::<_, Bytes>("copy t from stdin").await.expect("COPY IN");
        futures_util::pin_mut!(sink);
        for _ in 0..1000 {
            sink.send(Bytes::from(vec![b'x'; 999].repeat(10))).await.expect("it takes data");
            sink.send(Bytes::from_static(b"\n")).await.expect("it takes data");
        }
        assert_eq!(sink.finish().await.expect("an end"), 1000);
        let stream = client.copy_out("copy t to stdout").await.expect("COPY OUT");
        let bytes = stream.map_ok(|chunk| chunk.len()).collect::<Vec<_>>().await;
        let bytes: usize = bytes.into_iter().map(|chunk| chunk.expect("data")).sum();
        assert_eq!(bytes, 1000 * 9991);
        let token = client.cancel_token();
        let (cancelled, slept) = future::join(
            async {
                let start = Instant::now();
                while pg.running("pg_sleep(30)") == 0 {
                    assert!(start.elapsed() < SOON, "the query does not run");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                token.cancel_query(NoTls).await
            },
            client.simple_query("select pg_sleep(30)"),
        )
        .await;
        cancelled.expect("the request is sent");
        assert_eq!(slept.expect_err("cancelled").code(), Some(&SqlState::QUERY_CANCELED));
        assert_eq!(client.query_one("select 1", &[]).await.expect("a row").get::<_, i32>(0), 1);
    });
}

#[test]
fn fifty_clients_over_five_servers_get_their_own_answers() {
    let (pg, proxy) = start();
    on_a_runtime(async {
        let clients = (0..50_i32).map(|number| {
            let port = proxy.port;
            async move {
                let mut client = connect(port).await;
                for step in 0..20_i32 {
                    let value = number * 1000 + step;
                    let transaction = client.transaction().await.expect("a transaction");
                    let sql = "select $1::int, pg_backend_pid()";
                    let first = transaction.query_one(sql, &[&value]).await.expect("a row");
                    let second = transaction.query_one(sql, &[&-value]).await.expect("a row");
                    transaction.commit().await.expect("a commit");
                    assert_eq!((first.get::<_, i32>(0), second.get::<_, i32>(0)), (value, -value));
                    assert_eq!(
                        first.get::<_, i32>(1),
                        second.get::<_, i32>(1),
                        "moved inside a transaction"
                    );
                }
            }
        });
        future::join_all(clients).await;
    });
    assert!(pg.backends() <= 5);
}
