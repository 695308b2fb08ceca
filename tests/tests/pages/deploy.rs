//! The first steps: the quick start and `pgimbal check`.

use pgimbal_tests::Postgres;
use pgimbal_tests::pages::{Reader, table, with_own};
use pgimbal_tests::port::free_port;

use super::running::{PAGE_ADDRESS, Running};

pub(super) fn quick_start([commands]: [&str; 1]) {
    let pg = Postgres::start();
    let own = [("app:secret@", "scram:scram-secret@"), ("db.example:5432", &pg_address(&pg))];
    let commands = with_own(commands, &own);
    let [serve, psql] = commands.lines().collect::<Vec<_>>()[..] else { panic!("{commands}") };
    let reader = Reader::new();
    let port = free_port();
    let running = Running::typed(&reader, &format!("{serve} --listen 127.0.0.1:{port}"), port);
    let psql = with_own(psql, &[(PAGE_ADDRESS, &running.address())]);
    let shown = reader.types(&format!("{psql} -c \"select 'served'\"")).succeeded();
    assert!(shown.stdout.contains("served"), "{}", shown.stdout);
}

/// Where the statements of the page would go, by the catalog of a real server.
pub(super) fn route([commands]: [&str; 1]) {
    let pg = Postgres::start();
    pg.run("create table orders (id int primary key)");
    let reader = Reader::new();
    reader.write(
        "pgimbal.toml",
        &format!(
            "[databases.app]\nhost = \"127.0.0.1\"\nport = {}\nuser = \"scram\"\n\
             password = \"scram-secret\"\n[users.scram]\npassword = \"x\"\n",
            pg.port
        ),
    );
    reader.write("statements.sql", "select 1; delete from orders");
    let [one, file] = commands.lines().collect::<Vec<_>>()[..] else { panic!("{commands}") };
    let told = reader.types(one).succeeded().stdout;
    assert!(told.contains("The catalog of app is that of"), "{told}");
    assert!(told.contains("replica  select * from orders where id = 1"), "{told}");
    let told = reader.types(file).succeeded().stdout;
    assert!(told.contains("1 to a replica, 1 to the primary"), "{told}");
}

/// What it prints, word for word, and the exit codes of the table.
pub(super) fn check([shown]: [&str; 1]) {
    let pg = Postgres::start();
    let port = free_port();
    let address = pg_address(&pg);
    let listen = format!("127.0.0.1:{port}");
    let own = [
        ("127.0.0.1:5432", address.as_str()),
        (PAGE_ADDRESS, &listen),
        ("app:wrong", "scram:wrong"),
        ("user app", "user scram"),
        ("user \"app\"", "user \"scram\""),
    ];
    let shown = with_own(shown, &own);
    let (command, output) = shown.split_once('\n').expect("a command and its output");
    let command = command.strip_prefix("$ ").expect("a prompt");
    let reader = Reader::new().with("PGIMBAL_LISTEN", &listen);
    let refused = reader.types(command);
    assert_eq!(refused.stdout, output, "{}", refused.stderr);

    let good = with_own(command, &[("scram:wrong", "scram:scram-secret")]);
    let commands = [
        ("0", good.clone()),
        ("1", command.to_owned()),
        ("3", format!("PGIMBAL_POOL_SIZE=1000 {good}")),
        ("78", format!("PGIMBAL_POOL_SISE=1 {good}")),
    ];
    let told = table("docs/deploy.md", "| exit code | means |");
    let told: Vec<&str> = told.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(told, commands.each_ref().map(|(code, _)| *code), "the codes of the page");
    for (code, command) in commands {
        let finished = reader.types(&command);
        let ended = finished.code.map(|code| code.to_string());
        assert_eq!(ended.as_deref(), Some(code), "{command}: {finished:?}");
        let is_warned = finished.stdout.contains("warning:");
        assert_eq!(is_warned, code == "3", "{command}: {}", finished.stdout);
        let json = reader.types(&format!("{command} --json"));
        assert_eq!(json.code, finished.code, "{command} --json: {json:?}");
        if code != "78" {
            let document: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
            assert!(document.is_object(), "{document}");
        }
    }
}

fn pg_address(pg: &Postgres) -> String {
    format!("127.0.0.1:{}", pg.port)
}
