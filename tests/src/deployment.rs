//! Several pgimbals of one deployment: each sees the others through relays, and all share a store.
//!
//! The relays act as address translation does, so that no replica learns a way around them. Replica
//! `n` listens for peers at an address of its own; in replica `m`'s eyes it has another, where the
//! relay from `m` to `n` listens, and from which the relay from `n` to `m` connects.

use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::pgimbal::{Config, Pgimbal};
use crate::port::{free_port, random};
use crate::process::{self, Directory};
use crate::relay::Relay;
use crate::until::{SOON, eventually};

/// The deployment key of every deployment here, 256 bits in hexadecimal.
pub const DEPLOYMENT_KEY: &str = "6f0c1b8e5a2d4937f1e0a9c8b7d6e5f40312233445566778899aabbccddeeff0";

/// The pgimbals of one deployment. Dropping it kills them.
pub struct Deployment {
    /// The replicas `r1`, `r2` and so on.
    pub replicas: Vec<Pgimbal>,
    links: Links,
    store: Directory,
}

/// The relays between the replicas.
struct Links {
    /// Where each replica listens for peers.
    places: Vec<SocketAddr>,
    /// `relays[from][to]`; none from a replica to itself.
    relays: Vec<Vec<Option<Relay>>>,
}

impl Deployment {
    /// Starts three replicas with `config`, whose store is a file, and waits until they know each
    /// other.
    ///
    /// # Panics
    /// When one does not start, or they do not find each other.
    #[must_use]
    pub fn start(config: Config) -> Self {
        Self::with(config, |_, config| config)
    }

    /// The same, with a change of the configuration of each replica by its index.
    ///
    /// # Panics
    /// As [`Deployment::start`].
    #[must_use]
    pub fn with(config: Config, change: impl Fn(usize, Config) -> Config) -> Self {
        let store = process::directory("store");
        let file = place_of(&store);
        fs::create_dir(directory_of(&file)).expect("the store's directory");
        fs::set_permissions(directory_of(&file), Permissions::from_mode(0o700)).expect("a mode");
        let config =
            config.store("kind", "\"file\"").store("file", format!("\"{}\"", file.display()));
        Self::launch(3, store, |index| change(index, config.clone()))
    }

    fn launch(count: usize, store: Directory, config: impl Fn(usize) -> Config) -> Self {
        let links = Links::new(count);
        let replicas = (0..count).map(|index| links.configure(index, config(index)).start());
        let deployment = Self { replicas: replicas.collect(), links, store };
        deployment.wait_until_joined();
        deployment
    }

    /// The configuration of replica `index` in this deployment, for [`Pgimbal::reload`].
    #[must_use]
    pub fn configure(&self, index: usize, config: Config) -> Config {
        self.links.configure(index, config)
    }

    /// The relay over which replica `from` reaches replica `to`.
    ///
    /// # Panics
    /// When there is no such pair.
    #[must_use]
    pub fn link(&self, from: usize, to: usize) -> &Relay {
        self.links.relays[from][to].as_ref().expect("two replicas")
    }

    /// All relays.
    pub fn links(&self) -> impl Iterator<Item = &Relay> {
        self.links.relays.iter().flatten().flatten()
    }

    /// The relays from and to replica `index`.
    pub fn links_of(&self, index: usize) -> impl Iterator<Item = &Relay> {
        let others = (0..self.replicas.len()).filter(move |other| *other != index);
        others.flat_map(move |other| [self.link(index, other), self.link(other, index)])
    }

    /// Opens all relays.
    pub fn heal(&self) {
        self.links().for_each(Relay::heal);
    }

    /// Waits until each replica hears all others.
    ///
    /// # Panics
    /// When that does not happen in time.
    pub fn wait_until_joined(&self) {
        let others = self.replicas.len() - 1;
        for index in 0..self.replicas.len() {
            let what = format!("r{} hears the others", index + 1);
            eventually(&what, SOON * 2, || self.heard_by(index) == others);
        }
    }

    /// How many others replica `index` has heard lately, by its `SHOW PEERS`.
    ///
    /// # Panics
    /// When the console refuses.
    #[must_use]
    pub fn heard_by(&self, index: usize) -> usize {
        let rows = self.replicas[index].console("show peers");
        let alive = |(name, value): &(String, String)| name == "state" && value == "alive";
        rows.iter().filter(|row| row.iter().any(alive)).count()
    }

    /// Takes the directory of the store of `file` away, as a file system that is not mounted.
    ///
    /// # Panics
    /// When the store is away or another one.
    pub fn take_store_away(&self) {
        let directory = directory_of(&place_of(&self.store)).to_owned();
        fs::rename(&directory, self.store.join("away")).expect("the store's directory");
    }

    /// Brings it back as it was.
    ///
    /// # Panics
    /// When it was not away.
    pub fn bring_store_back(&self) {
        let directory = directory_of(&place_of(&self.store)).to_owned();
        fs::rename(self.store.join("away"), directory).expect("the store's directory");
    }

    /// The file of the store of `file`.
    #[must_use]
    pub fn store_file(&self) -> PathBuf {
        place_of(&self.store)
    }
}

fn place_of(store: &Path) -> PathBuf {
    store.join("shared/facts")
}

fn directory_of(file: &Path) -> &Path {
    file.parent().expect("a directory")
}

impl Links {
    fn new(count: usize) -> Self {
        let (high, low) = (1 + random(250), 1 + random(250));
        let host = |last: usize| {
            let last = u8::try_from(last).expect("few replicas");
            IpAddr::from(Ipv4Addr::new(127, high, low, last))
        };
        let places: Vec<SocketAddr> =
            (0..count).map(|index| (host(index + 1), free_port()).into()).collect();
        // Replica `of` in the eyes of replica `seen_by`.
        let translated = |of: usize, seen_by: usize| host(10 * (seen_by + 1) + of);
        let relay = |from: usize, to: usize| {
            (from != to).then(|| {
                let address = SocketAddr::new(translated(to, from), places[to].port());
                Relay::between(address, translated(from, to), places[to])
            })
        };
        let relays =
            (0..count).map(|from| (0..count).map(|to| relay(from, to)).collect()).collect();
        Self { places, relays }
    }

    /// `config` with what makes it replica `index`.
    fn configure(&self, index: usize, config: Config) -> Config {
        let others = self.relays[index].iter().flatten();
        let others: Vec<String> = others.map(|relay| format!("\"{}\"", relay.address)).collect();
        config
            .set("deployment_key", format!("\"{DEPLOYMENT_KEY}\""))
            .peers("listen", format!("\"{}\"", self.places[index]))
            .peers("addresses", format!("[{}]", others.join(", ")))
            .peers("replica_name", format!("\"r{}\"", index + 1))
    }
}
