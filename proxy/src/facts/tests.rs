//! Several handles before one file, as several processes of a host have it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pgimbal_config::{Overrides, load};

use super::*;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("pgimbal-facts-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("a mode");
        Self(path)
    }

    fn start(&self) -> Facts {
        let (path, file) = (self.0.join("pgimbal.toml"), self.file());
        let text = format!(
            "[databases.app]\n[users.app]\npassword = 'app-secret'\n[store]\nkind = 'file'\nfile = '{}'\n",
            file.display()
        );
        fs::write(&path, text).expect("a file");
        let overrides = Overrides { config: Some(path), ..Overrides::default() };
        let config = load(&overrides, std::iter::empty()).expect("a configuration");
        Facts::start(&config, None).expect("a store")
    }

    fn file(&self) -> PathBuf {
        self.0.join("facts")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn document(path: &Path) -> Document {
    Document::parse(&fs::read(path).expect("the file")).expect("a document")
}

#[tokio::test]
async fn everybody_who_writes_at_once_is_stored_and_all_have_one_key() {
    let place = Place::new("together");
    let all: Vec<Facts> = (0..4).map(|_| place.start()).collect();
    let write = |number: usize, facts: Facts| async move {
        facts.ready().await;
        for round in 0..5 {
            let name = format!("cluster-{number}-{round}");
            let change = facts.add(|document, by| {
                document.cluster_mut(&name).set_hold(true, by);
            });
            facts.stored(change).await.expect("stored");
        }
    };
    let writers: Vec<_> =
        (0..).zip(&all).map(|(number, facts)| tokio::spawn(write(number, facts.clone()))).collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    let stored = document(&place.file());
    for (number, round) in (0..4).flat_map(|number| (0..5).map(move |round| (number, round))) {
        let cluster = stored.cluster(&format!("cluster-{number}-{round}"));
        assert!(cluster.is_some_and(|cluster| cluster.is_held()), "{number} {round}");
    }
    for facts in &all {
        assert!(facts.is_key_known());
        let key = SaltKey::new(*stored.salts().expect("a key").bytes());
        assert_eq!(facts.salt_key().salt(b"ann"), key.salt(b"ann"));
    }
}

#[tokio::test]
async fn what_a_store_refuses_is_told_and_stored_later() {
    let place = Place::new("later");
    let facts = place.start();
    facts.ready().await;
    let change =
        |is_held| facts.add(|document, by| _ = document.cluster_mut("main").set_hold(is_held, by));
    facts.stored(change(true)).await.expect("stored");
    // A directory stands where the file is to be.
    fs::remove_file(place.file()).expect("removed");
    fs::create_dir(place.file()).expect("a directory");
    let refused = facts.stored(change(false)).await.expect_err("nothing can be stored");
    assert!(refused.to_string().contains(&*place.file().display().to_string()), "{refused}");
    assert!(facts.status().away.is_some());
    assert!(!facts.document().borrow().cluster("main").expect("the cluster").is_held(), "here");
    fs::remove_dir(place.file()).expect("removed");
    let last = facts.last_change();
    let mut progress = facts.inner.progress.subscribe();
    let stored = progress.wait_for(|progress| progress.stored >= last.0);
    timeout(START_TIME, stored).await.expect("in time").expect("stored");
    assert!(!document(&place.file()).cluster("main").expect("the cluster").is_held());
    assert_eq!(facts.status().away, None);
}

#[tokio::test]
async fn what_only_a_peer_has_told_is_not_taken_for_stored() {
    let place = Place::new("told");
    let facts = place.start();
    facts.ready().await;
    facts.stored(facts.restate()).await.expect("the store has what there is");
    // A directory stands where the file is to be.
    fs::remove_file(place.file()).expect("removed");
    fs::create_dir(place.file()).expect("a directory");
    let mut told = Document::default();
    let _ = told.cluster_mut("main").set_hold(true, InstanceId(7));
    facts.merge_from_peer(&told.to_bytes()).expect("a document");
    facts.stored(facts.restate()).await.expect_err("nothing can be stored");
    fs::remove_dir(place.file()).expect("removed");
    let stored = async { while facts.stored(facts.restate()).await.is_err() {} };
    timeout(START_TIME * 4, stored).await.expect("in time");
    assert!(document(&place.file()).cluster("main").expect("the cluster").is_held());
}

#[tokio::test]
async fn a_document_that_somebody_has_edited_is_merged_and_keeps_what_is_not_known_here() {
    let place = Place::new("edited");
    let text = r#"{"version": 1, "later": [1], "clusters": {"main":
        {"hold": {"counter": 7, "instance": "1", "value": true, "why": "maintenance"}}}}"#;
    fs::write(place.file(), text).expect("a file");
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o600)).expect("a mode");
    let facts = place.start();
    facts.ready().await;
    assert!(facts.document().borrow().cluster("main").expect("the cluster").is_held());
    let change = facts.add(|document, by| _ = document.cluster_mut("other").set_hold(true, by));
    facts.stored(change).await.expect("stored");
    let json = serde_json::to_value(document(&place.file())).expect("JSON");
    assert_eq!(
        (&json["later"][0], &json["clusters"]["main"]["hold"]["why"]),
        (&1.into(), &"maintenance".into())
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_tells_while_the_store_is_written_is_written_soon_after() {
    let facts = Facts::start(&Config::default(), None).expect("a store in memory");
    let peer = Facts::alone();
    facts.ready().await;
    peer.add(|document, by| _ = document.cluster_mut("theirs").set_hold(true, by));
    // The slots are decided between the merge of what the store has and the write.
    let (looked, mut looks) = tokio::sync::mpsc::unbounded_channel();
    let (theirs, receiver) = (peer.to_bytes(), facts.clone());
    facts.keep_slots(move |_| {
        let is_first = receiver.document().borrow().cluster("theirs").is_none();
        if is_first {
            receiver.merge_from_peer(&theirs).expect("a document");
        }
        looked.send(tokio::time::Instant::now()).expect("the test waits");
        None
    });
    facts.add(|document, by| _ = document.cluster_mut("ours").set_hold(true, by));
    let (first, second) = (looks.recv().await, looks.recv().await);
    let pause = second.expect("a look").duration_since(first.expect("a look"));
    assert!(pause <= Duration::from_secs(2), "it was left for the next look, after {pause:?}");
    // That has written it, and nothing is left: the next look is the usual one.
    let third = looks.recv().await.expect("a look");
    assert!(third.duration_since(second.expect("a look")) > Duration::from_secs(5));
}
