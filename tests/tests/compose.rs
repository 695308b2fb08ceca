//! `deploy/compose` as a laptop would use it. There is no Docker where the tests run: the file is
//! read and compared with what it mounts, and what it would start runs here instead, in the same
//! order, with the same scripts, words and variables. Only addresses are others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pgimbal_config::{Config, Host, Overrides};
use pgimbal_tests::charts::objects;
use pgimbal_tests::http::get;
use pgimbal_tests::pgimbal::{program, undisturbed};
use pgimbal_tests::port::free_port;
use pgimbal_tests::postgres::{as_postgres, bin};
use pgimbal_tests::process::{Directory, Process, directory};
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::sources::root;
use pgimbal_tests::until::eventually;
use pgimbal_tests::{Login, Vault, WireClient, vault};
use rustix::process::{Signal, geteuid};
use serde_json::{Value, json};

/// Time limit of what takes seconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(60);

type Environment = BTreeMap<String, String>;

fn folder() -> PathBuf {
    root().join("deploy/compose")
}

fn text_of(file: &str) -> String {
    fs::read_to_string(folder().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn yaml(file: &str) -> Value {
    objects(&text_of(file)).swap_remove(0)
}

/// `compose.yaml`.
struct Compose(Value);

impl Compose {
    fn read() -> Self {
        Self(yaml("compose.yaml"))
    }

    fn services(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0["services"].as_object().expect("services").iter()
    }

    fn service(&self, name: &str) -> &Value {
        let service = &self.0["services"][name];
        assert!(service.is_object(), "there is no service {name}");
        service
    }

    fn environment(&self, service: &str) -> Environment {
        let variables = self.service(service)["environment"].as_object().expect("variables");
        let texts = variables.iter().map(|(name, value)| {
            let text = value.as_str().unwrap_or_else(|| panic!("{name} is no text: {value}"));
            (name.clone(), text.to_owned())
        });
        texts.collect()
    }

    /// What a service mounts: here, and there.
    fn mounts(&self, service: &str) -> Vec<(PathBuf, String)> {
        let volumes = strings(&self.service(service)["volumes"]);
        let of_a_file = |volume: &String| {
            let mut parts = volume.split(':');
            let (here, there) = (parts.next()?, parts.next()?);
            assert!(here.starts_with('.') == (parts.next() == Some("ro")), "{volume}");
            here.starts_with('.').then(|| (folder().join(here), there.to_owned()))
        };
        volumes.iter().filter_map(of_a_file).collect()
    }

    /// The port inside of the service that can be reached here.
    fn published(&self, service: &str) -> BTreeSet<u16> {
        let ports = strings(&self.service(service)["ports"]);
        ports.iter().map(|port| port.rsplit(':').next().unwrap().parse().expect("a port")).collect()
    }
}

/// The texts of a list, which may be missing.
fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|item| item.as_str().expect("a text").to_owned()).collect()
}

fn configuration(variables: Environment) -> Config {
    let overrides =
        Overrides { config: Some(folder().join("pgimbal.toml")), ..Overrides::default() };
    pgimbal_config::load(&overrides, variables.into_iter())
        .unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn compose_mounts_what_exists_and_opens_nothing_to_the_network() {
    let compose = Compose::read();
    let mut volumes = BTreeSet::new();
    for (name, service) in compose.services() {
        let image = service["image"].as_str().expect("an image");
        let (_, tag) = image.rsplit_once(':').expect("a tag");
        let release = tag.trim_start_matches('v').split('-').next().expect("a release");
        let parts: Vec<_> = release.split('.').map(str::parse::<u32>).collect();
        assert!(parts.len() >= 2 && parts.iter().all(Result::is_ok), "{image} is no release");
        for (here, _) in compose.mounts(name) {
            assert!(here.is_file(), "{name} mounts {}", here.display());
            let is_script = here.extension().is_some_and(|it| it == "sh");
            let mode = here.metadata().expect("a file").permissions().mode();
            assert_eq!(mode & 0o111 != 0, is_script, "{}", here.display());
        }
        let named = strings(&service["volumes"]).into_iter().filter(|it| !it.starts_with('.'));
        volumes.extend(named.map(|it| it.split(':').next().unwrap().to_owned()));
        for port in strings(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} opens {port}");
        }
        // What a service runs in place of its image's program is mounted.
        if let [_shell, script] = strings(&service["entrypoint"]).as_slice() {
            let mounts = compose.mounts(name);
            assert!(mounts.iter().any(|(_, there)| there == script), "{name}: {script}");
        }
    }
    let declared: BTreeSet<String> =
        compose.0["volumes"].as_object().expect("volumes").keys().cloned().collect();
    assert_eq!(volumes, declared);
}

#[test]
fn compose_waits_for_services_that_can_say_when_they_are_ready() {
    let compose = Compose::read();
    let mut waits = 0;
    for (name, service) in compose.services() {
        let Some(conditions) = service["depends_on"].as_object() else { continue };
        for (other, condition) in conditions {
            waits += 1;
            let awaited = compose.service(other);
            match condition["condition"].as_str().expect("a condition") {
                "service_healthy" => {
                    assert_eq!(
                        awaited["healthcheck"]["test"][0], "CMD",
                        "{name} waits for {other}"
                    );
                }
                "service_completed_successfully" => {
                    assert!(awaited["restart"].is_null(), "{other} ends");
                }
                unknown => panic!("{name}: {unknown}"),
            }
        }
    }
    assert_eq!(waits, 5);
}

#[test]
fn compose_has_one_name_and_port_for_each_thing() {
    let compose = Compose::read();
    let config = configuration(compose.environment("pgimbal"));

    let cluster = &config.clusters["main"];
    let mut hosts = BTreeSet::new();
    for node in cluster.nodes.values() {
        let Host::Tcp(host) = &node.host else { panic!("{:?}", node.host) };
        assert!(compose.published(host).contains(&node.port), "{host}:{}", node.port);
        hosts.insert(format!("{host}:{}", node.port));
    }
    let of_vault = compose.environment("vault-set-up")["POSTGRES_NODES"].clone();
    assert_eq!(of_vault.split(',').map(str::to_owned).collect::<BTreeSet<_>>(), hosts);

    // Pgimbal's own ports are those that are opened, and that others use.
    let listen: BTreeSet<u16> =
        config.listen.addresses.iter().map(std::net::SocketAddr::port).collect();
    let http = config.http.listen.expect("an address").port();
    let both = listen.iter().copied().chain([http]).collect();
    assert_eq!(compose.published("pgimbal"), both);
    let scraped = &yaml("prometheus.yml")["scrape_configs"][0]["static_configs"][0];
    assert_eq!(strings(&scraped["targets"]), [format!("pgimbal:{http}")]);
    let load = compose.environment("load");
    assert_eq!(load["PGHOST"], "pgimbal");
    assert!(listen.contains(&load["PGPORT"].parse().unwrap()));
    assert!(config.users.contains_key(&load["PGUSER"]));
    assert!(config.databases.contains_key(&load["PGDATABASE"]));

    let vault = &config.vaults["main"];
    let own = compose.environment("vault-set-up")["VAULT_ADDR"].clone();
    assert_eq!(vault.address, [own]);
    let source = yaml("grafana/datasources.yaml");
    let url = source["datasources"][0]["url"].as_str().expect("a URL");
    let port = url.strip_prefix("http://prometheus:").expect("Prometheus").parse().unwrap();
    assert!(compose.published("prometheus").contains(&port));

    // The image is the chart's, in the version of the program.
    let values = fs::read_to_string(root().join("deploy/helm/pgimbal/values.yaml")).unwrap();
    let repository = objects(&values)[0]["image"]["repository"].as_str().unwrap().to_owned();
    let image = format!("{repository}:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(compose.service("pgimbal")["image"], image);
    let page = fs::read_to_string(root().join("docs/deploy.md")).unwrap();
    assert!(page.contains(&format!("docker-daemon:{image}\n")), "docs/deploy.md");
}

#[test]
fn compose_gives_pgimbal_no_rights_and_time_to_drain() {
    let compose = Compose::read();
    let service = compose.service("pgimbal");
    assert_eq!(service["read_only"], true);
    assert_eq!(strings(&service["cap_drop"]), ["ALL"]);
    assert_eq!(strings(&service["security_opt"]), ["no-new-privileges:true"]);
    let config = configuration(compose.environment("pgimbal"));
    let grace = service["stop_grace_period"].as_str().and_then(|text| text.strip_suffix('s'));
    let grace = Duration::from_secs(grace.expect("seconds").parse().unwrap());
    assert!(grace > config.drain_delay + config.shutdown_grace, "{grace:?}");
}

/// Prometheus and Grafana find what is mounted where they look for it.
#[test]
fn compose_gives_prometheus_its_rules_and_grafana_its_dashboard() {
    let compose = Compose::read();
    let scratch = directory("compose-prometheus");
    let mut text = text_of("prometheus.yml");
    let (rules, place) = compose
        .mounts("prometheus")
        .into_iter()
        .find(|(_, there)| there.starts_with("/etc/prometheus/rules/"))
        .expect("rules");
    assert!(place.ends_with(".yaml") && text.contains("/etc/prometheus/rules/*.yaml"));
    fs::copy(rules, scratch.join("rules.yaml")).expect("a copy");
    text = text.replace("/etc/prometheus/rules", &scratch.display().to_string());
    fs::write(scratch.join("prometheus.yml"), text).expect("a file");
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "config"]).arg(scratch.join("prometheus.yml"));
    let told = run(&mut promtool, LIMIT).succeeded();
    assert!(told.stdout.contains("1 rule files found"), "{told:?}");

    let path = yaml("grafana/dashboards.yaml")["providers"][0]["options"]["path"].clone();
    let path = format!("{}/", path.as_str().expect("a path"));
    let mounts = compose.mounts("grafana");
    let (dashboard, _) = mounts.iter().find(|(_, there)| there.starts_with(&path)).expect("one");
    let dashboard: Value = serde_json::from_slice(&fs::read(dashboard).unwrap()).expect("JSON");
    assert!(dashboard["panels"].is_array());
    for kind in ["datasources", "dashboards"] {
        let place = format!("/etc/grafana/provisioning/{kind}/");
        assert!(mounts.iter().any(|(_, there)| there.starts_with(&place)), "{kind}");
    }
}

/// The service `primary` or `replica`, by Debian's PostgreSQL.
struct Service<'a> {
    compose: &'a Compose,
    name: &'static str,
    port: u16,
    /// The port of the primary, for a replica.
    upstream: Option<u16>,
    process: Option<Process>,
    folder: Directory,
}

impl<'a> Service<'a> {
    /// A volume that has just been made, as the image of PostgreSQL leaves it: open to all.
    fn new(compose: &'a Compose, name: &'static str) -> Self {
        let (port, folder) = (free_port(), directory(name));
        let service = Self { compose, name, port, upstream: None, process: None, folder };
        fs::create_dir(service.data()).expect("a folder");
        fs::set_permissions(service.data(), fs::Permissions::from_mode(0o1777)).expect("a mode");
        if geteuid().is_root() {
            let mut chown = Command::new("chown");
            chown.args(["-R", "postgres:postgres"]).arg(&*service.folder);
            let _ = run(&mut chown, LIMIT).succeeded();
        }
        service
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// `words` as the user `postgres`, with the service's variables and the path to its server.
    fn command(&self, words: &[&str]) -> Command {
        let (first, rest) = words.split_first().expect("a program");
        let mut command = as_postgres(Path::new(first));
        command.args(rest).env_clear().envs(self.compose.environment(self.name));
        command.env("PATH", path(&bin())).env("PGDATA", self.data()).current_dir("/");
        command.env("PGHOST", &*self.folder).env("PGPORT", self.port.to_string());
        if let Some(port) = self.upstream {
            command.env("PRIMARY_HOST", "127.0.0.1").env("PRIMARY_PORT", port.to_string());
        }
        command
    }

    fn run(&self, words: &[&str]) -> Finished {
        run(&mut self.command(words), LIMIT).succeeded()
    }

    /// The service's script that is mounted at `place`, where everybody may read it.
    fn script(&self, place: &str) -> String {
        let mounts = self.compose.mounts(self.name);
        let (here, _) = mounts.iter().find(|(_, there)| there == place).expect("a mounted file");
        let copy = self.folder.join(here.file_name().expect("a name"));
        fs::copy(here, &copy).expect("a copy");
        copy.display().to_string()
    }

    /// What the image of PostgreSQL does with a data directory that is empty.
    fn initialise(&mut self) {
        let environment = self.compose.environment(self.name);
        let password = self.folder.join("password");
        fs::write(&password, &environment["POSTGRES_PASSWORD"]).expect("a file");
        let from = format!("--pwfile={}", password.display());
        let _ = self.run(&[
            "initdb",
            "--username=postgres",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--no-sync",
            &from,
        ]);
        let hba = self.data().join("pg_hba.conf");
        // The others are at another address in Docker, so rules for this one are left out.
        let rules = fs::read_to_string(&hba).expect("rules");
        let rules = rules.lines().filter(|line| !line.starts_with("host"));
        let rules = rules.chain(["host all all all scram-sha-256", ""]).collect::<Vec<_>>();
        let rules = rules.join("\n");
        fs::write(&hba, rules).expect("rules");
        let words = strings(&self.compose.service(self.name)["command"]);
        self.start(&words);
        let _ = self.run(&["createdb", "--username=postgres", &environment["POSTGRES_DB"]]);
        let script = self.script("/docker-entrypoint-initdb.d/primary.sh");
        let _ = self.run(&["bash", &script]);
        self.process = None;
        self.start(&words);
    }

    /// Starts `words`, which end in those for a server, and waits until its health check passes.
    fn start(&mut self, words: &[String]) {
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        let port = format!("port={}", self.port);
        let folder = format!("unix_socket_directories={}", self.folder.display());
        let own = [&port, &folder, "listen_addresses=127.0.0.1", "fsync=off", "jit=off"];
        words.extend(own.iter().flat_map(|setting| ["-c", setting]));
        let mut process = Process::start(self.command(&words), &self.folder, Signal::QUIT);
        let check = strings(&self.compose.service(self.name)["healthcheck"]["test"]);
        let port = format!("--port={}", self.port);
        let mut check: Vec<&str> = check[1..].iter().map(String::as_str).collect();
        check.push(&port);
        eventually("the health check passes", LIMIT, || {
            assert!(process.ended().is_none(), "it has ended:\n{}", process.log());
            run(&mut self.command(&check), LIMIT).success
        });
        self.process = Some(process);
    }

    /// Copies `primary` and follows it, or goes on from the data directory that is there.
    fn follow(&mut self) {
        let service = self.compose.service(self.name);
        let mut words = strings(&service["entrypoint"]);
        words[1] = self.script(&words[1]);
        words.extend(strings(&service["command"]));
        self.start(&words);
    }

    fn value(&self, sql: &str) -> String {
        let words = ["psql", "-XAt", "--username=postgres", "--dbname=app", "--command", sql];
        self.run(&words).stdout.trim_end().to_owned()
    }
}

fn path(first: &Path) -> String {
    format!("{}:/usr/local/bin:/usr/bin:/bin", first.display())
}

/// Runs the script of the service `vault-set-up`.
fn set_up(compose: &Compose, vault: &Vault, nodes: &[&Service<'_>]) {
    let programs = directory("compose-vault");
    // OpenBao's program has another name, and the same words.
    symlink(vault::program(), programs.join("vault")).expect("a link");
    let token = json!({ "policies": ["root"] });
    let token = vault.root().write("auth/token/create", &token)["auth"]["client_token"].clone();
    let nodes: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let (script, _) = &compose.mounts("vault-set-up")[0];
    let mut command = Command::new("sh");
    command.arg(script).env_clear().envs(compose.environment("vault-set-up"));
    command.env("PATH", path(&programs)).env("HOME", &*programs);
    command.env("VAULT_ADDR", vault.address()).env("VAULT_TOKEN", token.as_str().unwrap());
    command.env("POSTGRES_NODES", nodes.join(","));
    let _ = run(&mut command, LIMIT).succeeded();
}

/// The service `pgimbal`.
struct Proxy {
    process: Process,
    port: u16,
    _folder: Directory,
}

impl Proxy {
    fn start(compose: &Compose, vault: &Vault, primary: u16, replica: u16) -> Self {
        let (port, http_port) = (free_port(), free_port());
        let scratch = directory("compose-pgimbal");
        let mut command = undisturbed(program());
        command.envs(compose.environment("pgimbal"));
        command.env("PGIMBAL_CONFIG", folder().join("pgimbal.toml"));
        command.env("PGIMBAL_LISTEN", format!("127.0.0.1:{port}"));
        command.env("PGIMBAL_HTTP_LISTEN", format!("127.0.0.1:{http_port}"));
        command.env("PGIMBAL_VAULTS__MAIN__ADDRESS", vault.address());
        for (node, port) in [("PRIMARY", primary), ("REPLICA", replica)] {
            let name = format!("PGIMBAL_CLUSTERS__MAIN__NODES__{node}");
            command.env(format!("{name}__HOST"), "127.0.0.1");
            command.env(format!("{name}__PORT"), port.to_string());
        }
        let checked = {
            let mut check = undisturbed(program());
            check.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            run(check.arg("check"), LIMIT)
        };
        assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
        let mut process = Process::start(command, &scratch, Signal::KILL);
        process.wait_until_it_listens("pgimbal", &[port, http_port]);
        eventually("it is ready", LIMIT, || get(http_port, "/readyz").0 == 200);
        Self { process, port, _folder: scratch }
    }

    fn log_in(&self, user: &str, database: &str, password: &str) -> WireClient {
        let mut client = WireClient::tcp(self.port);
        let greeted = client.log_in(&Login::new(user, database, password));
        greeted.unwrap_or_else(|error| panic!("{error:?}\n{}", self.process.log()));
        client
    }
}

#[test]
fn compose_runs_rotates_and_fails_over_with_its_own_scripts() {
    let compose = Compose::read();
    let mut primary = Service::new(&compose, "primary");
    primary.initialise();
    let mut replica = Service::new(&compose, "replica");
    // What a copy that was interrupted leaves.
    fs::write(replica.data().join("part"), "").expect("a file");
    replica.upstream = Some(primary.port);
    replica.follow();
    let vault = Vault::start();
    set_up(&compose, &vault, &[&primary, &replica]);
    let first = vault.role("app").password;
    // `docker compose up` runs it each time.
    set_up(&compose, &vault, &[&primary, &replica]);
    assert_eq!(vault.role("app").password, first);

    let proxy = Proxy::start(&compose, &vault, primary.port, replica.port);
    let mut client = proxy.log_in("app", "app", &first);
    client.ok("create table visits (at timestamptz default now())");
    assert_eq!(client.value("select pg_is_in_recovery()"), "f");
    let mut reader = proxy.log_in("app", "app_ro", &first);
    assert_eq!(reader.value("select pg_is_in_recovery()"), "t");
    let admin = compose.environment("pgimbal")["PGIMBAL_USERS__ADMIN__PASSWORD"].clone();
    let mut console = proxy.log_in("admin", "pgimbal", &admin);
    assert_eq!(console.ok("show nodes").rows().len(), 2);

    let second = vault.rotate("app");
    assert_eq!(proxy.log_in("app", "app", &second).value("select 1"), "1");
    loads(&compose, &proxy);
    assert_ne!(primary.value("select count(*) from load.pgbench_history"), "0");

    primary.process = None;
    let _ = replica.run(&["pg_ctl", "promote", "--wait"]);
    client.ok("insert into visits default values");
    assert_eq!(replica.value("select count(*) from app.visits"), "1");
    let third = vault.rotate("app");
    assert_eq!(proxy.log_in("app", "app", &third).value("select count(*) from visits"), "1");

    // Started again, what was promoted does not become a replica.
    replica.process = None;
    replica.follow();
    assert_eq!(replica.value("select pg_is_in_recovery()"), "f");
}

/// Runs the service `load` for two seconds.
fn loads(compose: &Compose, proxy: &Proxy) {
    let (script, _) = &compose.mounts("load")[0];
    let mut command = Command::new("bash");
    command.arg(script).env_clear().envs(compose.environment("load"));
    command.env("PATH", path(&bin())).env("LOAD_SECONDS", "2");
    command.env("PGHOST", "127.0.0.1").env("PGPORT", proxy.port.to_string());
    let _ = run(&mut command, LIMIT).succeeded();
}
