//! Sources of passwords: does each Vault answer, and does each source say its user's password?

use std::collections::BTreeMap;
use std::time::SystemTime;

use pgimbal_auth::source::{Health, Sources};
use pgimbal_auth::{Answer, SourceError};
use pgimbal_config::{Config, Secret, SourceConfig, WILDCARD};

/// A clock that is further off than this makes tokens and rotations look wrong.
const SKEW: f64 = 5.0;

/// What the sources said.
pub(super) struct Passwords {
    known: BTreeMap<String, Secret>,
    /// Whether all of them said something.
    pub(super) all_well: bool,
}

impl Passwords {
    /// The password of this user, when its source said one.
    pub(super) fn of(&self, user: &str) -> Option<&Secret> {
        self.known.get(user)
    }
}

/// Asks each Vault how it is, and each user's source for the password; a line each.
pub(super) async fn ask_all(config: &Config) -> Passwords {
    let mut passwords = Passwords { known: BTreeMap::new(), all_well: true };
    let sources = match Sources::new(config) {
        Ok(sources) => sources,
        Err(error) => {
            println!("{error}");
            passwords.all_well = false;
            return passwords;
        }
    };
    for name in config.vaults.keys() {
        let Some(vault) = sources.vault(name) else { continue };
        for health in vault.health().await {
            passwords.all_well &= tell_health(&health);
        }
    }
    for (name, own) in &config.users {
        if own.source() == SourceConfig::Inline {
            continue;
        }
        if name == WILDCARD {
            println!("users *: stands for names that clients choose; not tried");
            continue;
        }
        let Some(user) = config.user(name) else { continue };
        let Some(source) = sources.of_user(name, &user) else { continue };
        match source.fetch().await {
            Ok(answer) => {
                println!("user {name}, {}: ok{}", source.place(), rotation(&answer));
                passwords.known.insert(name.clone(), answer.password);
            }
            Err(error) => {
                tell_error(name, &error);
                passwords.all_well = false;
            }
        }
    }
    passwords
}

fn tell_error(user: &str, error: &SourceError) {
    println!("user {user}, {error}");
    if let Some(policy) = error.hint() {
        println!("    Add to the policy: {policy}");
    }
}

fn rotation(answer: &Answer) -> String {
    answer.ttl.map_or_else(String::new, |ttl| format!(" (next rotation in {} s)", ttl.as_secs()))
}

fn tell_health(health: &Health) -> bool {
    if let Some(fault) = &health.fault {
        println!("{fault}");
        return false;
    }
    let version = health.version.as_deref().unwrap_or("of an unknown version");
    let offset = health.clock.map(|clock| offset(clock, SystemTime::now()));
    match offset.filter(|seconds| seconds.abs() > SKEW) {
        Some(seconds) => {
            println!(
                "{}: its clock is {seconds:.0} s off; set both clocks by NTP, or rotations are \
                 expected at the wrong moment",
                health.place
            );
            false
        }
        None => {
            println!("{}: ok (Vault {version})", health.place);
            true
        }
    }
}

/// How many seconds `theirs` is ahead of `ours`.
fn offset(theirs: SystemTime, ours: SystemTime) -> f64 {
    match theirs.duration_since(ours) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
    }
}
