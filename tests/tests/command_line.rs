//! The command line: `check`, `config reference`, `--upstream`, and errors before a port is bound.

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::pgimbal::{program, undisturbed};
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::{Directory, Process, directory};
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Postgres, WireClient};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(20);

fn pgimbal(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let mut command = undisturbed(program());
    command.args(arguments).envs(environment.iter().copied()).current_dir(std::env::temp_dir());
    run(&mut command, LIMIT)
}

fn config_file(directory: &Path, text: &str) -> String {
    let path = directory.join("pgimbal.toml");
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

#[test]
fn configuration_errors_exit_78_and_say_where() {
    let directory = directory("cli");
    let port = free_port();
    let good = format!("listen = [\"127.0.0.1:{port}\"]\n");
    let cases: [(&str, &[&str]); 9] = [
        ("pool_sise = 3\n", &["pool_sise", "pool_size"]),
        ("pool_size = \"many\"\n", &["pool_size", "many"]),
        ("pool_size = 0\n", &["pool_size", "0"]),
        ("query_wait_timeout = \"3 fortnights\"\n", &["query_wait_timeout", "3 fortnights"]),
        ("pool_mode = \"transactional\"\n", &["pool_mode", "transaction"]),
        ("[databases.app]\nhosst = \"x\"\n", &["hosst", "host"]),
        ("auth_type = \"trust\"\nlisten = [\"0.0.0.0:1\"]\n", &["trust", "allow_trust_on_network"]),
        ("[broken\n", &["pgimbal.toml"]),
        ("[client_tls]\nsslmode = \"require\"\n", &["cert_file"]),
    ];
    for (text, words) in cases {
        let text = if text.contains("listen") { text.to_owned() } else { format!("{good}{text}") };
        let file = config_file(&directory, &text);
        for verb in ["run", "check"] {
            let finished = pgimbal(&[verb, "--config", &file], &[]);
            let said = format!("{}{}", finished.stdout, finished.stderr);
            assert_eq!(finished.code, Some(78), "{verb} {text}: {said}");
            for word in words {
                assert!(said.contains(word), "{text} does not name {word}: {said}");
            }
            assert!(said.contains("pgimbal.toml"), "{text} does not name the file: {said}");
        }
    }
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    let missing = pgimbal(&["run", "--config", "/no/such/file.toml"], &[]);
    assert_eq!(missing.code, Some(78));
    assert!(missing.stderr.contains("/no/such/file.toml"), "{}", missing.stderr);
}

#[test]
fn the_environment_is_checked_like_the_file() {
    let directory = directory("cli");
    let file = config_file(&directory, "[databases.app]\nhost = \"127.0.0.1\"\n");
    let wrong = pgimbal(&["check", "--config", &file], &[("PGIMBAL_POOL_SIZE", "many")]);
    assert_eq!(wrong.code, Some(78));
    assert!(wrong.stderr.contains("PGIMBAL_POOL_SIZE"), "{}", wrong.stderr);
    let unknown = pgimbal(&["check", "--config", &file], &[("PGIMBAL_POOL_SISE", "3")]);
    assert_eq!(unknown.code, Some(78), "{}", unknown.stderr);
    let nested = pgimbal(&["check", "--config", &file], &[("PGIMBAL_DATABASES__APP__PORT", "x")]);
    assert_eq!(nested.code, Some(78), "{}", nested.stderr);
}

#[test]
fn check_says_whether_the_servers_answer() {
    let pg = Postgres::start();
    let directory = directory("cli");
    let config = |port: u16, password: &str| {
        format!(
            "[databases.app]\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"app\"\n\
             user = \"scram\"\npassword = \"{password}\"\n[users.scram]\npassword = \"x\"\n"
        )
    };
    let file = config_file(&directory, &config(pg.port, "scram-secret"));
    let good = pgimbal(&["check", "--config", &file], &[]);
    assert_eq!(good.code, Some(0), "{}{}", good.stdout, good.stderr);
    let file = config_file(&directory, &config(pg.port, "not-it"));
    let wrong = pgimbal(&["check", "--config", &file], &[]);
    let said = format!("{}{}", wrong.stdout, wrong.stderr);
    assert_ne!(wrong.code, Some(0), "{said}");
    assert!(said.contains("password authentication failed"), "{said}");
    assert_eq!(said.matches("28P01").count(), 1, "{said}");
    assert!(!said.contains("not-it"), "a password was printed: {said}");
    let closed = free_port();
    let file = config_file(&directory, &config(closed, "x"));
    let down = pgimbal(&["check", "--config", &file], &[]);
    let said = format!("{}{}", down.stdout, down.stderr);
    assert_ne!(down.code, Some(0), "{said}");
    assert!(said.contains(&closed.to_string()), "{said}");
}

#[test]
fn route_says_where_statements_would_go_and_why() {
    let pg = Postgres::start();
    pg.run("create function audit() returns int language sql as 'select 1'");
    pg.run("create view audited as select audit()");
    let directory = directory("cli");
    let config = |port: u16| {
        format!(
            "[databases.app]\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"app\"\n\
             user = \"scram\"\npassword = \"scram-secret\"\n[users.scram]\npassword = \"x\"\n"
        )
    };
    let file = config_file(&directory, &config(pg.port));
    let statements = directory.join("statements.sql");
    let text = "select 1;\n-- one; two\ninsert into t values (';');\nselect * from audited";
    std::fs::write(&statements, text).expect("a file");
    let shown = statements.display().to_string();
    let told = pgimbal(&["route", "--config", &file, "--file", &shown], &[]);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    let port = pg.port;
    let expected = format!(
        "The catalog of app is that of 127.0.0.1:{port}, as scram.\n\
         replica  select 1\n         it only reads\n\
         primary  insert into t values (';')\n         statement: it is not SELECT, VALUES, \
         TABLE, SHOW, EXPLAIN or COPY TO STDOUT\n\
         primary  select * from audited\n         view: audited calls or reads what a replica \
         does not serve\n1 to a replica, 2 to the primary\n"
    );
    assert_eq!(told.stdout, expected);
    let one = pgimbal(&["route", "select audit()", "--config", &file], &[]);
    assert!(one.stdout.contains("volatile_function: the function audit()"), "{}", one.stdout);
    // Without a server what is well known counts.
    let file = config_file(&directory, &config(free_port()));
    let unread = pgimbal(&["route", "select count(*), audit()", "--config", &file], &[]);
    assert_eq!(unread.code, Some(0), "{}", unread.stderr);
    for words in ["was not read", "primary", "catalog_unread: the function audit()"] {
        assert!(unread.stdout.contains(words), "{words}: {}", unread.stdout);
    }
    let missing = pgimbal(&["route", "--file", "/no/such/file", "--config", &file], &[]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("/no/such/file"), "{}", missing.stderr);
}

#[test]
fn route_takes_what_the_operator_lists_for_a_read() {
    let pg = Postgres::start();
    pg.run("create function audit() returns int language sql as 'select 1'");
    pg.run("create view audited as select audit()");
    let directory = directory("cli");
    let told = |port: u16, listed_for: &str, sql: &str| {
        let table = format!("[databases.{listed_for}]\n");
        let text = format!(
            "[databases.app]\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"app\"\n\
             user = \"scram\"\npassword = \"scram-secret\"\n\
             [databases.other]\n[users.scram]\npassword = \"x\"\n"
        );
        let text = text.replace(&table, &format!("{table}read_functions = [\"audit\"]\n"));
        let file = config_file(&directory, &text);
        let arguments = ["route", sql, "--database", "app", "--config", &file];
        pgimbal(&arguments, &[]).succeeded().stdout
    };
    for sql in ["select audit()", "select * from audited"] {
        for (listed_for, role) in [("app", "replica"), ("other", "primary")] {
            let told = told(pg.port, listed_for, sql);
            assert!(told.contains(&format!("\n{role}  {sql}\n")), "for {listed_for}: {told}");
        }
    }
    let unread = told(free_port(), "app", "select audit()");
    assert!(unread.contains("was not read"), "{unread}");
    assert!(unread.contains("\nreplica  select audit()\n"), "{unread}");
}

#[test]
fn route_takes_transactions_comments_and_lengths_as_it_takes_those_of_clients() {
    let directory = directory("cli");
    let text = format!("[databases.app]\nport = {}\n[users.app]\npassword = \"x\"\n", free_port());
    let file = config_file(&directory, &text);
    let statements = directory.join("statements.sql");
    let shown = statements.display().to_string();
    let long = format!("select '{}'", "x".repeat(16 << 10));
    let text = format!(
        "begin read only; commit; /*;*/ -- pgimbal.route=primary\nselect 1; begin;\
         /* pgimbal.route=replica */ insert into t values (1); set a.b = 1; {long}"
    );
    std::fs::write(&statements, text).expect("a file");
    let told = pgimbal(&["route", "--config", &file, "--file", &shown], &[]);
    let lines = [
        "replica  begin read only\n         it begins a READ ONLY transaction\n",
        "primary  commit\n         it ends a transaction\n",
        "primary  select 1\n         a comment says so\n",
        "primary  begin\n         it begins a transaction that may write\n",
        "replica  insert into t values (1)\n         a comment says so\n",
        "primary  set a.b = 1\n         setting\n",
        "         it is longer than the 16 KiB that are looked at\n",
    ];
    for line in lines {
        assert!(told.stdout.contains(line), "{line}: {}", told.stdout);
    }
}

#[test]
fn every_address_that_cannot_be_had_is_named() {
    let taken = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [one, two, http] =
        taken.each_ref().map(|taken| taken.local_addr().expect("an address").to_string());
    let directory = directory("cli");
    let text = format!(
        "listen = [\"{one}\", \"127.0.0.1:{}\", \"{two}\"]\nhttp_listen = \"{http}\"\n\
         [databases.app]\n[users.app]\npassword = \"x\"\n",
        free_port()
    );
    let file = config_file(&directory, &text);
    let finished = pgimbal(&["run", "--config", &file], &[]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    for place in [format!("{one} (listen)"), format!("{two} (listen)"), format!("{http} (http_li")]
    {
        assert!(finished.stderr.contains(&place), "{place}: {}", finished.stderr);
    }
    assert!(finished.stderr.contains("cannot listen on "), "{}", finished.stderr);
}

#[test]
fn a_state_dir_that_is_open_to_others_is_refused_at_start_and_by_check() {
    let directory = directory("cli");
    let state = directory.join("state");
    std::fs::create_dir(&state).expect("a directory");
    let file = config_file(
        &directory,
        &format!(
            "listen = \"127.0.0.1:{}\"\nstate_dir = {state:?}\n[databases.app]\n\
             [users.app]\npassword = \"x\"\n",
            free_port()
        ),
    );
    let refused = |words: &[&str]| {
        for verb in ["run", "check"] {
            let finished = pgimbal(&[verb, "--config", &file], &[]);
            assert_eq!(finished.code, Some(78), "{verb}: {}{}", finished.stdout, finished.stderr);
            for word in words {
                assert!(finished.stderr.contains(word), "{verb} {word}: {}", finished.stderr);
            }
        }
    };
    let mode = |path: &Path, mode: u32| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, permissions).expect("permissions");
    };
    mode(&state, 0o777);
    refused(&["state_dir", "0777", "chmod 0700"]);
    mode(&state, 0o700);
    let key = state.join("salt-key");
    std::os::unix::fs::symlink("/etc/hostname", &key).expect("a link");
    refused(&["salt-key", "symbolic link"]);
    std::fs::remove_file(&key).expect("removed");
    std::fs::write(&key, [7; 32]).expect("a file");
    mode(&key, 0o640);
    refused(&["salt-key", "0640", "chmod 0600"]);
    std::fs::remove_file(&key).expect("removed");
    let finished = pgimbal(&["check", "--config", &file], &[]);
    assert_eq!(finished.code, Some(1), "there is no server: {}", finished.stderr);
    assert!(!key.exists(), "check writes nothing");
}

/// Runs pgimbal without any file, until it listens.
fn without_a_file(
    arguments: &[&str],
    environment: &[(&str, &str)],
    port: u16,
) -> (Process, Directory) {
    let directory = directory("upstream");
    let mut command = undisturbed(program());
    command.args(arguments).args(["--listen", &format!("127.0.0.1:{port}")]);
    command.env("HOME", &*directory).envs(environment.iter().copied()).current_dir(&*directory);
    let mut process = Process::start(command, &directory, Signal::KILL);
    eventually("pgimbal listens", SOON, || {
        assert!(process.ended().is_none(), "pgimbal ended: {}", process.log());
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    (process, directory)
}

#[test]
fn an_upstream_needs_no_file() {
    let pg = Postgres::start();
    let port = free_port();
    let url = format!("postgres://scram:scram-secret@127.0.0.1:{}/app", pg.port);
    let (process, _home) = without_a_file(&["--upstream", &url], &[], port);
    let mut client = WireClient::tcp(port);
    client.log_in(&Login::new("scram", "app", "scram-secret")).expect("a login");
    assert_eq!(client.value("select current_user"), "scram");
    let wrong = WireClient::tcp(port).log_in(&Login::new("scram", "app", "wrong"));
    assert_eq!(wrong.expect_err("refused").last().expect("a message").error().code, "28P01");
    assert!(!process.log().contains("scram-secret"));
}

#[test]
fn an_upstream_from_libpqs_environment_and_pgpass() {
    let pg = Postgres::start();
    let directory = directory("pgpass");
    let file = directory.join("pgpass");
    let line = format!("127.0.0.1:{}:*:scram:scram-secret\n", pg.port);
    std::fs::write(&file, line).expect("a file");
    let mut permissions = std::fs::metadata(&file).expect("a file").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(&file, permissions).expect("permissions");
    let server_port = pg.port.to_string();
    let environment = [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", server_port.as_str()),
        ("PGUSER", "scram"),
        ("PGDATABASE", "app"),
        ("PGPASSFILE", file.to_str().expect("a path")),
    ];
    let port = free_port();
    let (process, _home) =
        without_a_file(&["--upstream", "postgres://", "--pool-size", "3"], &environment, port);
    let mut client = WireClient::tcp(port);
    client.log_in(&Login::new("scram", "app", "scram-secret")).expect("a login");
    assert_eq!(client.value("select 1"), "1");
    drop(process);
}

#[test]
fn an_upstreams_options_are_what_every_session_begins_with() {
    let pg = Postgres::start();
    let port = free_port();
    let url = format!(
        "postgres://scram:scram-secret@127.0.0.1:{}/app?options=-c%20work_mem%3D12345kB\
         &target_session_attrs=read-write&gssencmode=prefer&keepalives_idle=30",
        pg.port
    );
    let (_process, _home) = without_a_file(&["--upstream", &url], &[], port);
    let mut client = WireClient::tcp(port);
    client.log_in(&Login::new("scram", "app", "scram-secret")).expect("a login");
    assert_eq!(client.value("show work_mem"), "12345kB");
    client.ok("set work_mem = '5MB'");
    client.ok("discard all");
    assert_eq!(client.value("show work_mem"), "12345kB");
}

#[test]
fn an_upstream_is_verified_by_the_systems_authorities() {
    let certificates = Certificates::new();
    let pg = Postgres::with_tls(&certificates);
    let log_in = |authorities: &Certificates, host: &str| {
        let [ca, _, _] = authorities.files();
        let environment = [("SSL_CERT_FILE", ca.to_str().expect("a path"))];
        let port = free_port();
        let url =
            format!("postgres://scram:scram-secret@{host}:{}/app?sslrootcert=system", pg.port);
        let (_process, _home) = without_a_file(&["--upstream", &url], &environment, port);
        let mut client = WireClient::tcp(port);
        let told = client.log_in(&Login::new("scram", "app", "scram-secret"));
        told.map(|_| client.value("select ssl from pg_stat_ssl where pid = pg_backend_pid()"))
            .map_err(|messages| messages.last().expect("a message").error().message)
    };
    assert_eq!(log_in(&certificates, "localhost"), Ok("t".to_owned()));
    let stranger = log_in(&Certificates::new(), "localhost").expect_err("a stranger's");
    assert!(stranger.contains("pgimbal test authority"), "{stranger}");
    let elsewhere = log_in(&certificates, "127.0.0.2").expect_err("another name");
    assert!(elsewhere.contains("127.0.0.2"), "{elsewhere}");
}

#[test]
fn kubernetes_and_images_stop_no_start() {
    let pg = Postgres::start();
    let port = free_port();
    let url = format!("postgres://scram:scram-secret@127.0.0.1:{}/app", pg.port);
    let environment = [
        ("PGIMBAL_RW_SERVICE_HOST", "10.0.0.1"),
        ("PGIMBAL_RW_SERVICE_PORT_POSTGRES", "6432"),
        ("PGIMBAL_METRICS_PORT", "tcp://10.0.0.1:9127"),
        ("PGIMBAL_METRICS_PORT_9127_TCP_ADDR", "10.0.0.1"),
        ("PGIMBAL_VERSION", "1.4.0"),
    ];
    let (_process, _home) = without_a_file(&["--upstream", &url], &environment, port);
    let mut client = WireClient::tcp(port);
    client.log_in(&Login::new("scram", "app", "scram-secret")).expect("a login");
}

#[test]
fn trust_is_for_a_laptop() {
    let pg = Postgres::start();
    let url = format!("postgres://scram:scram-secret@127.0.0.1:{}/app", pg.port);
    let port = free_port();
    let (process, _home) = without_a_file(&["--upstream", &url, "--auth-type", "trust"], &[], port);
    let mut client = WireClient::tcp(port);
    client.log_in(&Login::new("scram", "app", "")).expect("a login without a password");
    drop(process);
    let listen = format!("0.0.0.0:{port}");
    let open = pgimbal(&["--upstream", &url, "--auth-type", "trust", "--listen", &listen], &[]);
    assert_eq!(open.code, Some(78), "{}", open.stderr);
}

#[test]
fn the_small_commands() {
    let version = pgimbal(&["--version"], &[]).succeeded();
    assert!(version.stdout.starts_with("pgimbal "), "{}", version.stdout);
    let reference = pgimbal(&["config", "reference"], &[]).succeeded();
    for key in ["pool_size", "max_client_conn", "on_client_gone", "PGIMBAL_"] {
        assert!(reference.stdout.contains(key), "the reference lacks {key}");
    }
    let completions = pgimbal(&["completions", "bash"], &[]).succeeded();
    assert!(completions.stdout.contains("pgimbal"));
    assert_eq!(pgimbal(&["--no-such-flag"], &[]).code, Some(2));
}
