//! The page on the HTTP port, in a browser: what it shows while things happen, on a screen and on a
//! phone, and the commands that are given on it. Pictures of it are left in `target/tmp/page`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::library::{browser, converse_within};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Deployment, Login, Pgimbal, WireClient, http};

/// Time limit of a browser, which takes 20 s where nothing else runs.
const LIMIT: Duration = Duration::from_secs(400);
/// The name of an application that is HTML.
const HOSTILE_APPLICATION: &str = "<img src=x onerror=alert(1)>";
/// The name of a database that is HTML, with what turns a line around and what a terminal obeys.
const HOSTILE_DATABASE: &str = "<b>a\u{202e}b\u{1b}[31m</b>";

fn script(part: &str) -> Command {
    let mut command = browser("page.js");
    command.arg(part).env("PGIMBAL_PICTURES", Path::new(env!("CARGO_TARGET_TMPDIR")).join("page"));
    command
}

/// A cluster whose role `turning` has its password in a file that pgimbal reads.
fn cluster(replicas: usize) -> (Cluster, Config) {
    let cluster = Cluster::start(replicas);
    cluster.nodes[0].run("create role turning login password 'first'; create table t (x text)");
    cluster.nodes[0].run("grant all on t to app");
    cluster.settle(0);
    write(&cluster, "first");
    let place = cluster.directory().join("turning");
    let config = Config::before_cluster(&cluster)
        .set("auth_type", "\"scram-sha-256\"")
        // As long as a browser takes on a busy machine.
        .set("query_wait_timeout", "\"10min\"")
        .set("listen_mode", "\"pin\"")
        .cluster("failover_hold", "\"10min\"")
        .tables(&format!("[users.turning]\npassword_file = {:?}", place.display().to_string()));
    (cluster, config)
}

fn write(cluster: &Cluster, password: &str) {
    let part = cluster.directory().join("part");
    fs::write(&part, password).expect("a file");
    fs::rename(part, cluster.directory().join("turning")).expect("a file");
}

fn rotate(cluster: &Cluster, proxies: &[Pgimbal]) {
    cluster.nodes[0].run("alter role turning password 'second'");
    write(cluster, "second");
    for proxy in proxies {
        eventually("the new password is known", SOON, || {
            proxy.connect().log_in(&Login::new("turning", "app", "second")).is_ok()
        });
    }
}

fn app() -> Login {
    Login::new("app", "app", "app-secret")
}

fn wait_until_writable(proxy: &Pgimbal) {
    eventually("a primary is known", SOON, || {
        http::metric(&proxy.metrics(), "pgimbal_cluster_writable", &[]) == Some(1.0)
    });
}

/// A pinned session with a hostile name, a transaction, and a client that waits for a server
/// connection of the two that there are.
fn clients(proxy: &Pgimbal) -> [WireClient; 3] {
    let mut pinned = proxy.log_in(&app().with("application_name", HOSTILE_APPLICATION));
    pinned.ok("listen news");
    let mut holder = proxy.log_in(&app());
    holder.ok("begin");
    let mut waiting = proxy.log_in(&app());
    waiting.start_query("select 1");
    proxy.wait_for_waiting(1);
    [pinned, holder, waiting]
}

#[test]
fn the_page_shows_in_a_browser_what_happens() {
    let (mut cluster, config) = cluster(1);
    let named = HOSTILE_DATABASE.replace('\u{202e}', "\\u202E").replace('\u{1b}', "\\u001B");
    let hostile = format!("[databases.\"{named}\"]\ncluster = \"c\"\ndbname = \"app\"");
    let proxies = [config.tables(&hostile).start()];
    let proxy = &proxies[0];
    wait_until_writable(proxy);
    let mut connected = Vec::new();
    let _ =
        converse_within(LIMIT, script("show"), "the page", proxy.http_port, |what| match what {
            "clients" => {
                connected.extend(clients(proxy));
                let mut idle = proxy.log_in(&Login::new("turning", "app", "first"));
                assert_eq!(idle.value("select 1"), "1");
                let mut named = proxy.log_in(&Login::new("app", HOSTILE_DATABASE, "app-secret"));
                assert_eq!(named.value("select current_database()"), "app");
                connected.extend([idle, named]);
            }
            "rotation" => rotate(&cluster, &proxies),
            "failover" => {
                cluster.nodes[0].kill();
                cluster.nodes[1].promote();
                wait_until_writable(proxy);
                // What a cut session held is gone with it; the client with the old password stays.
                connected.drain(..3);
                connected.extend(clients(proxy));
            }
            other => panic!("{other}"),
        });
}

#[test]
fn the_page_comes_to_an_address_of_a_network_with_a_token_and_goes_with_it() {
    let config = Config::to_port(1).through(&["env", "PGIMBAL_HTTP_LISTEN=0.0.0.0:HTTP_PORT"]);
    let mut proxy = config.clone().start();
    let port = proxy.http_port;
    let (status, text) = http::get(port, "/");
    assert!(status == 404 && text.contains("http.token"), "{status} {text}");
    let with = config.clone().tables("[http]\ntoken = \"a-token-for-those-who-look\"");
    proxy.reload(with);
    eventually("the page asks for a token", SOON, || http::get(port, "/").0 == 200);
    assert!(http::get(port, "/").1.contains("Token of the page"));
    assert_eq!(http::get(port, "/api/tables").0, 401);
    assert_eq!(http::get(port, "/readyz").0, 200);
    proxy.reload(config);
    eventually("the page is gone", SOON, || http::get(port, "/api/tables").0 == 404);
}

#[test]
fn commands_on_the_page_are_for_who_has_the_admin_token() {
    const VIEW: &str = "a-token-for-those-who-look";
    const ADMIN: &str = "a-token-for-those-who-act";
    let (cluster, config) = cluster(0);
    let file = cluster.directory().join("admin-token");
    fs::write(&file, format!("{ADMIN}\n")).expect("a file");
    let access =
        format!("[http]\ntoken = \"{VIEW}\"\nadmin_token_file = {:?}", file.display().to_string());
    let config =
        config.set("max_replicas", 3).set("require_auth", "\"password,md5,scram-sha-256,none\"");
    let deployment = Deployment::start(config.tables(&access));
    let replicas = &deployment.replicas;
    replicas.iter().for_each(wait_until_writable);
    for proxy in replicas {
        let mut client = proxy.log_in(&Login::new("turning", "app", "first"));
        assert_eq!(client.value("select 1"), "1");
    }
    rotate(&cluster, replicas);
    let states = |proxy: &Pgimbal| -> String {
        let rows = proxy.console_as(&Login::new("app", "pgimbal", "app-secret"), "show nodes");
        rows.into_iter().flatten().map(|(_, value)| value + " ").collect()
    };
    let mut writer = replicas[2].log_in(&app());
    let mut script = script("act");
    script.env("PGIMBAL_VIEW", VIEW).env("PGIMBAL_ADMIN", ADMIN);
    let _ = converse_within(LIMIT, script, "the page", replicas[0].http_port, |what| match what {
        "nothing held" => assert!(!states(&replicas[0]).contains("writes wait")),
        "held" => {
            assert!(replicas.iter().all(|proxy| states(proxy).contains("writes wait")));
            writer.start_query("insert into t values ('held') returning x");
            replicas[2].wait_for_waiting(1);
        }
        "resumed" => assert_eq!(writer.read_reply().value(), "held"),
        "refresh" => {}
        "revoke old" => {
            let old = Login::new("turning", "app", "first");
            assert!(replicas.iter().all(|proxy| proxy.connect().log_in(&old).is_err()));
        }
        other => panic!("{other}"),
    });
    let log = replicas[0].log();
    for command in ["HOLD", "RESUME", "REFRESH", "REVOKE OLD"] {
        let line = log.lines().find(|line| line.contains(&format!("command=\"{command}\"")));
        let line = line.unwrap_or_else(|| panic!("{command} is not logged"));
        let who = line.contains("peer=127.0.0.1:") && line.contains("session=");
        assert!(who && line.contains("ok=true"), "{line}");
    }
    assert!(log.contains("a wrong token for the page") && log.contains("logged in to the page"));
    for secret in [VIEW, ADMIN, "no-token-of-the-page"] {
        assert!(!log.contains(secret), "{secret} stands in the log");
    }
}
