//! A role's password rotates and nobody notices: the scenarios of credential rotation, each a
//! test named after it, on a real PostgreSQL and a real Vault. Only states that the real Vault
//! cannot be stopped in come from its stand-in.

mod bad_input;
mod check;
mod files;
mod grace;
mod held;
mod history;
mod load;
mod logins;
mod many;
mod moving;
mod nodes;
mod odd_answers;
mod proofs;
mod replicas;
mod sealed;
mod seen;
mod servers;
mod under_way;

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::process::{Directory, directory};
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::vault_stand_in::Answer;
use pgimbal_tests::{
    Login, Message, Pgimbal, Postgres, ServerError, Vault, VaultStandIn, WireClient,
};

/// A PostgreSQL with the role `shop`, whose password a real Vault rotates.
struct WithVault {
    pg: Postgres,
    vault: Vault,
}

/// The same with a stand-in for Vault: both sides say only what the test makes them say.
struct WithStandIn {
    pg: Postgres,
    stand_in: VaultStandIn,
}

impl WithVault {
    /// Vault rotates `shop` every `period` seconds.
    fn new(period: u32) -> Self {
        let pg = Postgres::start();
        pg.run("create role shop login; grant create on schema public to shop");
        let vault = Vault::before(&pg);
        vault.static_role("shop", period);
        Self { pg, vault }
    }

    /// Vault rotates `shop` when it is told to.
    fn by_hand() -> Self {
        Self::new(86_400)
    }

    /// `shop` has its password from Vault, which is asked every second.
    fn config(&self) -> Config {
        self.polled_every("1s")
    }

    /// The same with another interval, such as one that never passes.
    fn polled_every(&self, interval: &str) -> Config {
        shop_from(&self.pg, &self.vault.table(&self.vault.reader()), interval)
    }

    fn password(&self) -> String {
        self.vault.role("shop").password
    }

    fn rotate(&self) -> String {
        self.vault.rotate("shop")
    }
}

impl WithStandIn {
    /// `shop`'s password is `password` everywhere.
    fn new(password: &str) -> Self {
        let setup = Self { pg: Postgres::start(), stand_in: VaultStandIn::start() };
        setup.pg.run("create role shop login; grant create on schema public to shop");
        setup.on_server(password);
        setup.in_vault(password, 0);
        setup
    }

    /// PostgreSQL wants `password` from now on.
    fn on_server(&self, password: &str) {
        let quoted = password.replace('\'', "''");
        self.pg.run(&format!("alter role shop password '{quoted}'"));
    }

    /// Vault says `password`, rotated so many minutes after some time of today.
    fn in_vault(&self, password: &str, minutes: u64) {
        self.stand_in.role("shop", Answer::role("shop", password, &minute(minutes), 3600));
    }

    /// `shop` has its password from the stand-in, which is asked every second.
    fn config(&self) -> Config {
        self.polled_every("1s")
    }

    /// The same with another interval, such as one that never passes.
    fn polled_every(&self, interval: &str) -> Config {
        shop_from(&self.pg, &self.stand_in.table(""), interval)
    }

    /// Waits until the stand-in has answered `count` more questions for `shop`.
    fn asked_again(&self, count: usize) {
        let before = self.stand_in.asked("static-creds/shop");
        eventually("Vault is asked again", SOON, || {
            self.stand_in.asked("static-creds/shop") >= before + count
        });
    }
}

/// Database `app` for clients with SCRAM, `shop` from `[vaults.main]`.
fn shop_from(pg: &Postgres, vault: &str, interval: &str) -> Config {
    // `check` tries the harness's user `clear` too.
    let config = Config::before(pg)
        .set("auth_type", "\"scram-sha-256\"")
        .set("require_auth", "\"password,md5,scram-sha-256,none\"");
    let vault = format!("{vault}poll_interval = \"{interval}\"\n");
    config.tables(&vault).tables("[users.shop]\nvault_role = \"shop\"\n")
}

/// A time of today in RFC 3339, `minutes` after the one that tests begin with.
fn minute(minutes: u64) -> String {
    format!("2026-01-01T{:02}:{:02}:00.123456789Z", minutes / 60, minutes % 60)
}

/// `shop` on `app`.
fn shop(password: &str) -> Login {
    Login::new("shop", "app", password)
}

/// The error that ends a login.
fn refused(proxy: &Pgimbal, login: &Login) -> ServerError {
    let told = proxy.connect().log_in(login).expect_err("a refused login");
    told.last().map(Message::error).expect("an error before the end")
}

/// The rows of `SHOW CREDENTIALS` for `user`, the newest generation first.
fn credentials(proxy: &Pgimbal, user: &str) -> Vec<BTreeMap<String, String>> {
    let rows = proxy.console("show credentials");
    let rows = rows.into_iter().map(|row| row.into_iter().collect::<BTreeMap<_, _>>());
    rows.filter(|row| row["user"] == user).collect()
}

/// How many generations of `user`'s passwords clients may use.
fn accepted(proxy: &Pgimbal, user: &str) -> usize {
    let rows = credentials(proxy, user);
    rows.first().and_then(|row| row["accepted_generations"].parse().ok()).unwrap_or(0)
}

/// What the newest question for `shop`'s password came to.
fn last_result(proxy: &Pgimbal) -> String {
    credentials(proxy, "shop")[0]["last_result"].clone()
}

/// Waits until clients may use `count` generations of `shop`'s passwords.
fn eventually_accepted(proxy: &Pgimbal, count: usize) {
    eventually(&format!("{count} generations are accepted"), SOON, || {
        accepted(proxy, "shop") == count
    });
}

/// A client of pgimbal's console.
fn admin(proxy: &Pgimbal) -> WireClient {
    proxy.log_in(&Login::new("app", "pgimbal", "app-secret"))
}

/// A directory for `state_dir`, closed to others.
fn state_directory() -> Directory {
    let state = directory("state");
    std::fs::set_permissions(&*state, Permissions::from_mode(0o700)).expect("permissions");
    state
}

/// The value of a metric of `shop`, 0 where there is none.
fn counted(proxy: &Pgimbal, name: &str, labels: &[&str]) -> f64 {
    pgimbal_tests::http::metric(&proxy.metrics(), name, labels).unwrap_or(0.0)
}

/// A proxy that has logged `shop` in to the server once.
fn proven(config: Config, password: &str) -> Pgimbal {
    let proxy = config.start();
    assert_eq!(proxy.log_in(&shop(password)).value("select current_user"), "shop");
    proxy
}
