//! `pgimbal check` against a live Vault and a live server: one line for each thing to fix.

use std::time::Duration;

use pgimbal_tests::pgimbal::{Config, program, undisturbed};
use pgimbal_tests::port::free_port;
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::vault::reads;
use pgimbal_tests::vault_stand_in::Answer;
use pgimbal_tests::{Passwords, Pgimbal};

use super::{WithStandIn, WithVault, minute, proven, shop_from};

fn check(config: Config) -> Finished {
    // A started pgimbal writes the file; that it starts with these faults is as it should be.
    check_beside(&config.start())
}

/// The same configuration once more, beside a pgimbal that runs.
fn check_beside(proxy: &Pgimbal) -> Finished {
    let mut command = undisturbed(program());
    command.arg("check").arg("--config").arg(proxy.directory().join("pgimbal.toml"));
    run(&mut command, Duration::from_secs(60))
}

fn said(finished: &Finished) -> String {
    format!("{}{}", finished.stdout, finished.stderr)
}

#[test]
fn check_reads_each_role_and_tries_each_password() {
    let setup = WithVault::by_hand();
    setup.pg.run("create role ship login");
    setup.vault.static_role("ship", 86_400);
    let passwords = Passwords::default();
    passwords.add(&setup.password());
    passwords.add(&setup.vault.role("ship").password);
    let config = setup.config().tables("[users.ship]\nvault_role = \"ship\"\n");
    let good = check(config.clone());
    let text = said(&good);
    assert!(good.success, "{text}");
    for name in ["shop", "ship"] {
        assert!(text.lines().any(|line| line.contains(name)), "{name} is not in\n{text}");
    }
    setup.pg.run("alter role ship password 'another'");
    let bad = check(config);
    let text = said(&bad);
    assert!(!bad.success, "{text}");
    let line = |word: &str| text.lines().any(|line| line.contains("ship") && line.contains(word));
    assert!(line("password"), "{text}");
    passwords.appear_nowhere(&[("check's report", &text), ("the first", &said(&good))]);
}

#[test]
fn check_says_what_to_fix_in_vault() {
    let setup = WithVault::by_hand();
    let reader = setup.vault.reader();
    let table = setup.vault.table(&reader);
    let other = setup.vault.token(&reads("database/static-creds/another"));
    let nobody =
        format!("[vaults.main]\naddress = [\"http://127.0.0.1:{}\"]\ntoken = \"t\"\n", free_port());
    let wide = setup.vault.token("path \"*\" { capabilities = [\"read\"] }");
    let cases = [
        (setup.vault.table(&other), vec!["shop", "path \"database/static-creds/shop\"", "read"]),
        (setup.vault.table("no such token"), vec!["main", "403"]),
        (format!("{}mount = \"nowhere\"\n", setup.vault.table(&wide)), vec!["nowhere", "mount"]),
        (nobody, vec!["main", "reached"]),
    ];
    for (table, words) in cases {
        let finished = check(shop_from(&setup.pg, &table, "1s"));
        let text = said(&finished);
        assert!(!finished.success, "{text}");
        for word in words {
            assert!(text.contains(word), "{word} is not in\n{text}");
        }
        assert!(!text.contains(&setup.password()), "a password is shown");
    }
    let missing =
        shop_from(&setup.pg, &table, "1s").tables("[users.gone]\nvault_role = \"gone\"\n");
    let finished = check(missing);
    let text = said(&finished);
    assert!(!finished.success && text.contains("gone"), "{text}");
    setup.vault.seal();
    let text = said(&check(shop_from(&setup.pg, &table, "1s")));
    assert!(text.contains("sealed"), "{text}");
}

#[test]
fn check_reads_a_role_again_before_it_blames_the_password() {
    let setup = WithStandIn::new("second");
    let proxy = proven(setup.polled_every("1h"), "second");
    // The rotation falls between the question and the login.
    setup.stand_in.role_once("shop", Answer::role("shop", "first", &minute(0), 1));
    let finished = check_beside(&proxy);
    let text = said(&finished);
    assert!(finished.success, "{text}");
    assert!(setup.pg.logged("password authentication failed for user \"shop\"") >= 1);
    setup.on_server("another");
    let finished = check_beside(&proxy);
    assert!(
        !finished.success && said(&finished).contains("rotate-role/shop"),
        "{}",
        said(&finished)
    );
}
