//! Several pgimbals with one store: scenarios 12 and 23.

use std::fs;
use std::path::{Path, PathBuf};

use pgimbal_replicas::document::Document;
use pgimbal_tests::Pgimbal;
use pgimbal_tests::process::Directory;
use pgimbal_tests::until::{SOON, eventually};

use super::{
    WithVault, accepted, admin, counted, eventually_accepted, refused, shop, state_directory,
};

/// Longer than a test: who is polled so does not see a rotation by itself.
const NEVER: &str = "1h";

/// A store that is a file, and how pgimbals are given it.
struct SharedFile(Directory);

impl SharedFile {
    fn new() -> Self {
        Self(state_directory())
    }

    fn path(&self) -> PathBuf {
        self.0.join("facts")
    }

    fn table(&self) -> String {
        format!("[store]\nkind = \"file\"\nfile = \"{}\"\n", self.path().display())
    }

    fn document(&self) -> Option<Document> {
        Document::parse(&fs::read(self.path()).ok()?).ok()
    }

    /// How many generations of `shop`'s passwords it has.
    fn generations(&self) -> usize {
        let json = self.document().and_then(|document| serde_json::to_value(document).ok());
        let users = json.as_ref().and_then(|json| json["users"]["shop"]["generations"].as_array());
        users.map_or(0, Vec::len)
    }

    fn aside(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&*self.0).expect("the directory").flatten();
        let paths = entries.map(|entry| entry.path());
        paths.filter(|path| path.to_string_lossy().contains("unreadable")).collect()
    }
}

fn works(proxy: &Pgimbal, password: &str) {
    assert_eq!(proxy.log_in(&shop(password)).value("select current_user"), "shop");
}

#[test]
fn rotation_12_what_one_replica_has_seen_is_accepted_by_the_other() {
    let (setup, store) = (WithVault::by_hand(), SharedFile::new());
    let seeing = setup.config().tables(&store.table()).start();
    let blind = setup.polled_every(NEVER).tables(&store.table()).start();
    let first = setup.password();
    works(&seeing, &first);
    works(&blind, &first);
    let second = setup.rotate();
    eventually_accepted(&seeing, 2);
    eventually_accepted(&blind, 2);
    for (proxy, password) in
        [(&seeing, &first), (&seeing, &second), (&blind, &first), (&blind, &second)]
    {
        works(proxy, password);
    }
    // One that has never seen the old password accepts it.
    let late = setup.polled_every(NEVER).tables(&store.table()).start();
    works(&late, &first);
    works(&late, &second);
    assert_eq!(refused(&late, &shop("neither")).code, "28P01");
    assert_eq!(setup.pg.logged("password authentication failed"), 0);
    assert_eq!(counted(&late, "pgimbal_store_up", &[]), 1.0);
}

#[test]
fn rotation_23_what_is_revoked_at_one_is_refused_by_all_and_after_a_restart_of_all() {
    let (setup, store) = (WithVault::by_hand(), SharedFile::new());
    let config = |interval| setup.polled_every(interval).tables(&store.table());
    let mut proxies = vec![config("1s").start(), config(NEVER).start(), config(NEVER).start()];
    let first = setup.password();
    proxies.iter().for_each(|proxy| works(proxy, &first));
    let second = setup.rotate();
    proxies.iter().for_each(|proxy| eventually_accepted(proxy, 2));
    admin(&proxies[1]).ok("REVOKE OLD shop");
    for proxy in &proxies {
        eventually("the revoke is known", SOON, || accepted(proxy, "shop") == 1);
        assert_eq!(refused(proxy, &shop(&first)).code, "28P01");
        works(proxy, &second);
    }
    // A document from before the revoke does not bring it back.
    proxies.iter_mut().for_each(Pgimbal::restart);
    for proxy in &proxies {
        assert_eq!(refused(proxy, &shop(&first)).code, "28P01");
        works(proxy, &second);
    }
    // A new rotation goes on as ever.
    let third = setup.rotate();
    proxies.iter().for_each(|proxy| eventually_accepted(proxy, 2));
    for proxy in &proxies {
        works(proxy, &second);
        works(proxy, &third);
        assert_eq!(refused(proxy, &shop(&first)).code, "28P01");
    }
}

#[test]
fn rotation_23_a_revoke_that_the_store_does_not_have_says_so() {
    let (setup, store) = (WithVault::by_hand(), SharedFile::new());
    let proxy = setup.config().tables(&store.table()).start();
    let first = setup.password();
    works(&proxy, &first);
    let second = setup.rotate();
    eventually_accepted(&proxy, 2);
    eventually("it is stored", SOON, || store.generations() == 2);
    let away = store.0.join("away");
    fs::create_dir(&away).expect("a directory");
    fs::rename(store.path(), away.join("facts")).expect("moved");
    // A directory stands where the file is to be: it can be neither read nor replaced.
    fs::create_dir(store.path()).expect("a directory");
    let reply = admin(&proxy).query("REVOKE OLD shop");
    let told = reply.errors().pop().expect("it is not stored");
    assert!(told.message.contains("a restart brings them back"), "{told:?}");
    assert_eq!(refused(&proxy, &shop(&first)).code, "28P01", "here it counts");
    works(&proxy, &second);
    assert_eq!(counted(&proxy, "pgimbal_store_up", &[]), 0.0);
    fs::remove_dir(store.path()).expect("removed");
    fs::rename(away.join("facts"), store.path()).expect("moved back");
    eventually("the store is back", SOON, || counted(&proxy, "pgimbal_store_up", &[]) == 1.0);
    admin(&proxy).ok("REVOKE OLD shop");
    assert_eq!(store.generations(), 1);
}

#[test]
fn rotation_23_without_a_store_the_peers_tell_each_other() {
    let setup = WithVault::by_hand();
    let first = setup.password();
    let mut proxies = crate::peers::start(&setup.polled_every(NEVER), 2, false);
    proxies.iter().for_each(|proxy| works(proxy, &first));
    let second = setup.rotate();
    // Only this one asks Vault, because of its client.
    works(&proxies[0], &second);
    proxies.iter().for_each(|proxy| eventually_accepted(proxy, 2));
    works(&proxies[1], &first);
    works(&proxies[1], &second);
    admin(&proxies[1]).ok("REVOKE OLD shop");
    for proxy in &proxies {
        eventually("the revoke is known", SOON, || accepted(proxy, "shop") == 1);
        assert_eq!(refused(proxy, &shop(&first)).code, "28P01");
    }
    // One that starts anew is told by the other.
    proxies[0].restart();
    works(&proxies[0], &second);
    assert_eq!(refused(&proxies[0], &shop(&first)).code, "28P01");
}

#[test]
fn rotation_7_a_start_without_the_store_goes_on_and_learns_from_it_later() {
    let (setup, store) = (WithVault::by_hand(), SharedFile::new());
    let mut proxy = setup.config().tables(&store.table()).start();
    let first = setup.password();
    works(&proxy, &first);
    let second = setup.rotate();
    eventually_accepted(&proxy, 2);
    eventually("it is stored", SOON, || store.generations() == 2);
    let away = store.0.join("away");
    fs::rename(store.path(), &away).expect("moved");
    // A directory stands where the file is to be.
    fs::create_dir(store.path()).expect("a directory");
    proxy.restart();
    works(&proxy, &second);
    assert_eq!(refused(&proxy, &shop(&first)).code, "28P01", "nobody has told of it");
    assert!(proxy.log().contains("was not read: starting without"), "{}", proxy.log());
    fs::remove_dir(store.path()).expect("removed");
    fs::rename(&away, store.path()).expect("moved back");
    // The salts are others from now on, and nobody is refused.
    eventually_accepted(&proxy, 2);
    works(&proxy, &first);
    works(&proxy, &second);
    let third = setup.rotate();
    eventually("it goes on", SOON, || store.generations() == 3);
    works(&proxy, &third);
    assert_eq!(counted(&proxy, "pgimbal_store_up", &[]), 1.0);
}

/// What happens to a store with these bytes while a replica starts.
fn broken(bytes: &[u8]) -> (WithVault, SharedFile, Pgimbal) {
    let (setup, store) = (WithVault::by_hand(), SharedFile::new());
    write_private(&store.path(), bytes);
    let proxy = setup.config().tables(&store.table()).start();
    works(&proxy, &setup.password());
    (setup, store, proxy)
}

fn write_private(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, bytes).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
}

#[test]
fn rotation_11_a_broken_document_is_kept_aside_and_another_is_begun() {
    let text = b"{\"version\": 1, \"users\": [";
    let (setup, store, mut proxy) = broken(text);
    eventually("another is begun", SOON, || store.generations() == 1);
    let kept: Vec<Vec<u8>> =
        store.aside().iter().map(|path| fs::read(path).expect("a file")).collect();
    assert_eq!(kept, [text], "{:?}", store.aside());
    assert!(proxy.log().contains("is kept as"), "{}", proxy.log());
    let second = setup.rotate();
    eventually_accepted(&proxy, 2);
    proxy.restart();
    works(&proxy, &second);
    assert_eq!(store.aside().len(), 1);
}

#[test]
fn rotation_11_a_document_of_another_version_is_left_as_it_is() {
    let text = b"{\"version\": 7, \"users\": [\"of a form that is not known\"]}";
    let (setup, store, proxy) = broken(text);
    assert_eq!(fs::read(store.path()).expect("the file"), text);
    eventually("it is told", SOON, || counted(&proxy, "pgimbal_store_up", &[]) == 0.0);
    assert!(proxy.log().contains("version 7"), "{}", proxy.log());
    let second = setup.rotate();
    eventually_accepted(&proxy, 2);
    works(&proxy, &second);
    assert_eq!(fs::read(store.path()).expect("the file"), text, "never overwritten");
}

#[test]
fn rotation_12_a_replica_whose_clock_is_an_hour_off_agrees_with_the_others() {
    let (setup, store) = (WithVault::by_hand(), SharedFile::new());
    let config = || setup.config().tables(&store.table()).set("grace_age", "\"30m\"");
    let right =
        setup.polled_every(NEVER).tables(&store.table()).set("grace_age", "\"30m\"").start();
    let first = setup.password();
    works(&right, &first);
    let mut others: Vec<Pgimbal> =
        ["-1h", "+1h"].map(|offset| config().through(&["faketime", "-f", offset]).start()).into();
    let second = setup.rotate();
    others.push(right);
    // The one that is behind is the first to see the old password retire, an hour ago by its clock.
    let [behind, ahead, right] = &others[..] else { panic!("three") };
    for proxy in [behind, right] {
        eventually_accepted(proxy, 2);
        works(proxy, &first);
    }
    // For the one that is ahead the half hour may be over.
    eventually("it has seen the new one", SOON, || accepted(ahead, "shop") > 0);
    others.iter().for_each(|proxy| works(proxy, &second));
    admin(behind).ok("REVOKE OLD shop");
    for proxy in &others {
        eventually("the revoke is known", SOON, || accepted(proxy, "shop") == 1);
        works(proxy, &second);
        assert_eq!(refused(proxy, &shop(&first)).code, "28P01");
    }
}
