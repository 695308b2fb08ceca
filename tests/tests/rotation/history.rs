//! What survives the end of the process: scenario 11.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgimbal_replicas::document::Document;
use pgimbal_tests::Passwords;
use pgimbal_tests::pgimbal::Config;

use super::{WithVault, admin, eventually_accepted, refused, shop, state_directory};

fn remembering(setup: &WithVault, state: &Path) -> Config {
    let config = setup.config().set("state_dir", format!("\"{}\"", state.display()));
    config.set("credential_history", "\"file\"").set("grace_generations", 3)
}

/// Every file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a directory").flatten();
    let inside = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| inside(entry.path())).collect()
}

#[test]
fn rotation_11_the_history_knows_the_old_password_after_a_restart() {
    let setup = WithVault::by_hand();
    for method in ["scram-sha-256", "password"] {
        let state = state_directory();
        let config = remembering(&setup, &state).set("auth_type", format!("\"{method}\""));
        let passwords = Passwords::default();
        let first = setup.password();
        let mut proxy = config.start();
        eventually_accepted(&proxy, 1);
        let second = setup.rotate();
        eventually_accepted(&proxy, 2);
        // Killed, not ended: nothing is written on the way out.
        proxy.restart();
        for password in [&first, &second] {
            assert_eq!(proxy.log_in(&shop(password)).value("select current_user"), "shop");
        }
        assert_eq!(refused(&proxy, &shop("neither")).code, "28P01");
        for password in [&first, &second] {
            passwords.add(password);
        }
        for file in files(&state) {
            let mode = file.metadata().expect("a file").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.display());
            let bytes = fs::read(&file).expect("a file");
            // The document of the facts is deflated.
            let text = match Document::parse(&bytes) {
                Ok(document) => serde_json::to_string(&document).expect("JSON"),
                Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
            };
            passwords.appear_nowhere(&[("the history", &text)]);
        }
    }
}

#[test]
fn rotation_11_a_revoked_password_stays_revoked_after_a_restart() {
    let setup = WithVault::by_hand();
    let state = state_directory();
    let first = setup.password();
    let mut proxy = remembering(&setup, &state).start();
    eventually_accepted(&proxy, 1);
    let second = setup.rotate();
    eventually_accepted(&proxy, 2);
    admin(&proxy).ok("REVOKE OLD shop");
    proxy.restart();
    assert_eq!(refused(&proxy, &shop(&first)).code, "28P01");
    drop(proxy.log_in(&shop(&second)));
}

#[test]
fn rotation_11_an_md5_clients_old_password_does_not_survive() {
    let setup = WithVault::by_hand();
    let state = state_directory();
    let first = setup.password();
    let mut proxy = remembering(&setup, &state).set("auth_type", "\"md5\"").start();
    eventually_accepted(&proxy, 1);
    let second = setup.rotate();
    eventually_accepted(&proxy, 2);
    drop((proxy.log_in(&shop(&first)), proxy.log_in(&shop(&second))));
    proxy.restart();
    assert_eq!(refused(&proxy, &shop(&first)).code, "28P01");
    drop(proxy.log_in(&shop(&second)));
}

#[test]
fn rotation_11_a_kill_at_any_instant_leaves_a_whole_history() {
    let setup = WithVault::by_hand();
    let state = state_directory();
    let mut proxy = remembering(&setup, &state).start();
    let mut known = vec![setup.password()];
    drop(proxy.log_in(&shop(&known[0])));
    for round in 0..6 {
        let next = setup.rotate();
        // The kill falls before, into and behind the moment in which the history is written.
        let login = (round % 2 == 0).then(|| proxy.connect());
        if let Some(mut client) = login {
            client.send(&shop(&next).packet());
        }
        std::thread::sleep(Duration::from_millis(7 * round));
        proxy.restart();
        known.push(next);
        let newest = known.last().expect("a password");
        assert_eq!(proxy.log_in(&shop(newest)).value("select current_user"), "shop");
        // As many are kept as the document has room for.
        drop(proxy.log_in(&shop(&known[known.len().saturating_sub(3)])));
        // Whatever is wrong with it is told.
        assert!(!proxy.log().contains("is kept as"), "{}", proxy.log());
    }
}
