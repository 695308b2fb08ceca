//! A password rotates, and the replicas learn of it one after the other: scenarios 12 and 23.

use pgimbal_tests::http::metric;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Deployment, Login, Pgimbal, Postgres, Relay, Vault};

use super::setup::{config, rows};

/// A PostgreSQL with the role `shop`, whose password a real Vault rotates when it is told to, and
/// three replicas.
struct WithVault {
    deployment: Deployment,
    vault: Vault,
    _pg: Postgres,
}

impl WithVault {
    /// Each replica asks Vault at its own interval.
    fn new(intervals: [&str; 3]) -> Self {
        let pg = Postgres::start();
        pg.run("create role shop login");
        let vault = Vault::before(&pg);
        vault.static_role("shop", 86_400);
        let config = config(Config::before(&pg));
        let table = vault.table(&vault.reader());
        let deployment = Deployment::with(config, |index, config| {
            let vault = format!("{table}poll_interval = \"{}\"\n", intervals[index]);
            config.tables(&vault).tables("[users.shop]\nvault_role = \"shop\"\n")
        });
        let setup = Self { deployment, vault, _pg: pg };
        for replica in 0..3 {
            setup.enters(replica, &setup.vault.role("shop").password);
        }
        setup
    }

    fn replica(&self, index: usize) -> &Pgimbal {
        &self.deployment.replicas[index]
    }

    fn rotate(&self) -> String {
        self.vault.rotate("shop")
    }

    /// Asserts that a client with `password` logs in to `replica`, however long it is held.
    #[track_caller]
    fn enters(&self, replica: usize, password: &str) {
        let login = Login::new("shop", "app", password);
        let mut client = self.replica(replica).connect();
        client.set_timeout(SOON * 3);
        let told = client.log_in(&login).err();
        assert!(told.is_none(), "r{} refuses: {told:?}", replica + 1);
    }

    /// Says REVOKE OLD at the first replica.
    fn revoke_old(&self) {
        rows(self.replica(0), "revoke old shop");
    }

    fn is_refused(&self, replica: usize, password: &str) -> bool {
        let login = Login::new("shop", "app", password);
        match self.replica(replica).connect().log_in(&login) {
            Ok(_) => false,
            Err(told) => {
                let error = told.last().expect("an error").error();
                assert_eq!(error.code, "28P01", "{error:?}");
                true
            }
        }
    }

    #[track_caller]
    fn refuse(&self, password: &str) {
        for replica in 0..3 {
            assert!(self.is_refused(replica, password), "r{} accepts it", replica + 1);
        }
    }

    fn restart_all(&mut self) {
        for replica in &mut self.deployment.replicas {
            replica.kill();
        }
        for replica in &mut self.deployment.replicas {
            replica.restart();
        }
    }

    /// Whether a replica counts this many generations of `shop`.
    fn wait_for_generations(&self, replica: usize, count: &str) {
        eventually(&format!("r{} accepts {count} generations", replica + 1), SOON, || {
            let rows = rows(self.replica(replica), "show credentials");
            let shop = rows.iter().find(|row| row["user"] == "shop");
            shop.is_some_and(|row| row["accepted_generations"] == count)
        });
    }
}

#[test]
fn rotation_12_old_and_new_password_are_accepted_at_who_has_not_read_it_yet() {
    let setup = WithVault::new(["1h", "1h", "1h"]);
    let mut old = setup.vault.role("shop").password;
    for round in 0..6 {
        // A client with the new one makes one replica see the rotation; the others have not.
        let new = setup.rotate();
        for step in 0..3 {
            let replica = (round + step) % 3;
            setup.enters(replica, &old);
            setup.enters(replica, &new);
            setup.enters((replica + 1) % 3, &old);
        }
        old = new;
    }
}

#[test]
fn rotation_12_who_has_never_seen_the_old_password_accepts_it() {
    let mut setup = WithVault::new(["1s", "1h", "1h"]);
    let old = setup.vault.role("shop").password;
    setup.deployment.replicas[2].kill();
    let new = setup.rotate();
    setup.wait_for_generations(0, "2");
    // It starts with Vault's word alone, which is the new one, and the store's.
    setup.deployment.replicas[2].restart();
    for password in [&old, &new] {
        setup.enters(2, password);
    }
    // Two rotations in one go: the others have not seen the one between, the first has.
    let between = setup.rotate();
    setup.wait_for_generations(0, "2");
    eventually("it was read", SOON, || !setup.is_refused(0, &between));
    let newest = setup.rotate();
    for replica in [1, 2] {
        for password in [&between, &newest] {
            setup.enters(replica, password);
        }
    }
}

#[test]
fn rotation_12_in_a_partition_no_password_is_refused() {
    let setup = WithVault::new(["1s", "1h", "1h"]);
    let old = setup.vault.role("shop").password;
    setup.deployment.links().for_each(Relay::lose);
    setup.deployment.take_store_away();
    let new = setup.rotate();
    for replica in [0, 1, 2] {
        for password in [&old, &new, &old] {
            setup.enters(replica, password);
        }
    }
    setup.deployment.heal();
    setup.deployment.bring_store_back();
    setup.deployment.wait_until_joined();
    for replica in [0, 1, 2] {
        for password in [&old, &new] {
            setup.enters(replica, password);
        }
    }
}

#[test]
fn rotation_23_what_was_revoked_at_one_is_refused_at_all_for_good() {
    let mut setup = WithVault::new(["1s", "1s", "1s"]);
    let old = setup.vault.role("shop").password;
    let new = setup.rotate();
    for replica in 0..3 {
        setup.wait_for_generations(replica, "2");
        setup.enters(replica, &old);
    }
    setup.revoke_old();
    // At once, and not a second later only.
    setup.refuse(&old);
    setup.restart_all();
    setup.refuse(&old);
    for replica in 0..3 {
        setup.enters(replica, &new);
    }
    // Another rotation does not bring it back.
    let newest = setup.rotate();
    for replica in 0..3 {
        setup.enters(replica, &newest);
        setup.enters(replica, &new);
    }
    setup.refuse(&old);
}

#[test]
fn rotation_23_holds_for_who_was_away_and_while_the_store_is_away() {
    let mut setup = WithVault::new(["1s", "1s", "1s"]);
    let first = setup.vault.role("shop").password;
    let second = setup.rotate();
    for replica in 0..3 {
        setup.wait_for_generations(replica, "2");
    }
    // The store is away: the others hear it from the first, which says what it does not have.
    setup.deployment.take_store_away();
    let mut console = setup.replica(0).log_in(&Login::new("app", "pgimbal", "app-secret"));
    let told = console.query("revoke old shop");
    let told = format!("{:?}", told.messages);
    assert!(told.contains("the store does not have it yet"), "{told}");
    setup.refuse(&first);
    // One after the other forgets everything, and asks the others.
    for index in [1, 0] {
        setup.deployment.replicas[index].restart();
        setup.deployment.wait_until_joined();
        setup.refuse(&first);
    }
    // All of them have heard of it from another one, and nobody calls it stored.
    let mut console = setup.replica(0).log_in(&Login::new("app", "pgimbal", "app-secret"));
    let told = format!("{:?}", console.query("revoke old shop").messages);
    assert!(told.contains("the store does not have it yet"), "{told}");
    setup.deployment.bring_store_back();
    let is_stored = |replica: &Pgimbal| {
        let away = metric(&replica.metrics(), "pgimbal_store_away_seconds", &[]);
        away.is_none_or(|seconds| seconds < 0.001)
    };
    eventually("the store is written", SOON * 2, || {
        setup.deployment.replicas.iter().all(is_stored)
    });
    // Nobody but the store could tell them now.
    setup.restart_all();
    setup.refuse(&first);
    setup.enters(0, &second);
    // Who is alone hears it when the links are whole, or reads it in the store.
    let third = setup.rotate();
    for replica in 0..3 {
        setup.wait_for_generations(replica, "2");
    }
    setup.deployment.links_of(2).for_each(Relay::cut);
    setup.revoke_old();
    eventually("it has read the store", SOON, || setup.is_refused(2, &second));
    setup.deployment.heal();
    setup.refuse(&second);
    setup.enters(2, &third);
}
