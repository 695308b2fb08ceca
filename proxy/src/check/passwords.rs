//! Passwords out of Vaults, files and the environment: can each be read, and what is wrong if not?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgimbal_auth::source::{Health, Source, Sources, VaultClient};
use pgimbal_auth::{Answer, SourceError};
use pgimbal_config::{Config, Secret, SourceConfig, WILDCARD};

/// A clock that is further off makes rotations look early or late, and tokens expired. Vault tells
/// its own in whole seconds.
const SKEW_ALLOWED: Duration = Duration::from_secs(5);

/// What the sources said of each user whose password is not in the configuration.
#[derive(Debug, Default)]
pub(super) struct Passwords {
    known: BTreeMap<String, Known>,
    /// Whether every Vault and every source answered.
    pub(super) all_well: bool,
}

#[derive(Debug)]
struct Known {
    source: Arc<dyn Source>,
    password: Secret,
    advice: String,
}

impl Passwords {
    /// Asks every Vault how it is and every source for its password, a line each.
    pub(super) async fn ask(config: &Config) -> Self {
        let mut passwords = Self { known: BTreeMap::new(), all_well: true };
        let sources = match Sources::new(config) {
            Ok(sources) => sources,
            Err(error) => {
                say(&error.to_string(), &error);
                passwords.all_well = false;
                return passwords;
            }
        };
        for name in config.vaults.keys() {
            if let Some(vault) = sources.vault(name) {
                passwords.all_well &= look_at(vault).await;
            }
        }
        for name in config.users.keys() {
            passwords.read(config, &sources, name).await;
        }
        passwords
    }

    async fn read(&mut self, config: &Config, sources: &Sources, name: &str) {
        if name == WILDCARD {
            println!("user *: a rule for names that clients choose; not tried");
            return;
        }
        let Some(user) = config.user(name) else { return };
        let from = user.source();
        if from == SourceConfig::Inline {
            return;
        }
        let Some(source) = sources.of_user(name, &user) else {
            println!("user {name}: its Vault is not configured");
            self.all_well = false;
            return;
        };
        match source.fetch().await {
            Ok(answer) => {
                println!("user {name}, {}: ok{}", source.place(), dates(&answer));
                if let Some(other) = answer.username.as_deref().filter(|other| *other != name) {
                    println!("    it is the password of {other}, not of {name}");
                    self.all_well &= matches!(from, SourceConfig::File(_));
                }
                let advice = advice(config, &source.place(), &from);
                let known = Known { source, password: answer.password, advice };
                self.known.insert(name.to_owned(), known);
            }
            Err(error) => {
                say(&format!("user {name}, {error}"), &error);
                self.all_well = false;
            }
        }
    }

    /// The password of a role, as its source told it.
    pub(super) fn of(&self, role: &str) -> Option<&Secret> {
        self.known.get(role).map(|known| &known.password)
    }

    /// The password that the source tells now, when it is another than before: a rotation may have
    /// come between.
    pub(super) async fn newer(&self, role: &str) -> Option<Secret> {
        let known = self.known.get(role)?;
        let answer = known.source.fetch().await.ok()?;
        (answer.password != known.password).then_some(answer.password)
    }

    /// What to do when a server refuses it.
    pub(super) fn advice(&self, role: &str) -> Option<&str> {
        self.known.get(role).map(|known| known.advice.as_str())
    }
}

/// Says how each address of a Vault is. A standby is well as long as another address serves.
async fn look_at(vault: &VaultClient) -> bool {
    let answers = vault.health().await;
    let serves = answers.iter().any(|health| health.fault.is_none());
    let mut all_well = serves;
    for health in &answers {
        let Health { place, version, clock, fault } = health;
        let standby = |error: &SourceError| {
            matches!(error, SourceError::Standby { .. } | SourceError::PerformanceStandby { .. })
        };
        match (fault, version) {
            (Some(error), _) if serves && standby(error) => println!("{place}: ok (a standby)"),
            (Some(error), _) => {
                println!("{error}");
                all_well = false;
            }
            (None, Some(version)) => println!("{place}: ok (Vault {version})"),
            (None, None) => println!("{place}: ok"),
        }
        if let Some(skew) = clock.and_then(|clock| skew(clock, SystemTime::now())) {
            println!("    {skew}");
            all_well = false;
        }
    }
    all_well
}

/// How far a clock is off, in words, if it is worth a line.
fn skew(theirs: SystemTime, ours: SystemTime) -> Option<String> {
    let (by, word) = match theirs.duration_since(ours) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let seconds = by.as_secs();
    (by > SKEW_ALLOWED).then(|| {
        format!(
            "its clock is {seconds} s {word} this machine's: set both by NTP, or \
             rotations are expected at the wrong moment"
        )
    })
}

/// When the password was made, and when the next one comes.
fn dates(answer: &Answer) -> String {
    let age = answer.rotated_at.and_then(|then| SystemTime::now().duration_since(then).ok());
    let parts = [
        age.map(|age| format!("made {} s ago", age.as_secs())),
        answer.ttl.map(|ttl| format!("the next in {} s", ttl.as_secs())),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

/// What to do when a server refuses the password of this place.
fn advice(config: &Config, place: &str, from: &SourceConfig) -> String {
    match from {
        SourceConfig::Vault { vault, role } => {
            let named = config.vaults.get(vault).or_else(|| config.vaults.values().next());
            let mount = named.map_or("database", |vault| vault.mount.trim_matches('/'));
            format!(
                "{place} answers a password that the server does not have: somebody else has changed \
                 it there; `vault write -f {mount}/rotate-role/{role}` sets a new one"
            )
        }
        _ => format!("{place} holds a password that the server does not have; write the right one"),
    }
}

/// Prints a failure with the text to copy, unless the line has it already.
fn say(line: &str, error: &SourceError) {
    println!("{line}");
    if let Some(hint) = error.hint().filter(|hint| !line.contains(hint.as_str())) {
        println!("    {hint}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_only_worth_a_line_when_it_is_far_off() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(skew(at(1_000_005), now), None);
        assert_eq!(skew(at(999_995), now), None);
        assert!(skew(at(1_000_006), now).unwrap().contains("6 s ahead of"));
        assert!(skew(at(999_900), now).unwrap().contains("100 s behind"));
    }

    #[test]
    fn dates_are_told_when_they_are_known() {
        let mut answer = Answer::new("p", Secret::from("x")).unwrap();
        assert_eq!(dates(&answer), "");
        answer.ttl = Some(Duration::from_secs(7));
        assert_eq!(dates(&answer), " (the next in 7 s)");
    }
}
