//! The check of passwords from Vaults, files and environment variables: whether each can be read,
//! and what is wrong if not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pgimbal_auth::source::{Health, Source, Sources, TokenStatus, VaultClient};
use pgimbal_auth::{SourceError, SourcePassword};
use pgimbal_config::{Config, Secret, SourceConfig, WILDCARD};

use super::findings::Findings;

/// A clock that is further off makes rotations look early or late, and tokens expired. Vault tells
/// its own in whole seconds.
const SKEW_ALLOWED: Duration = Duration::from_secs(5);

/// The passwords that the sources gave, for each user whose password is not in the configuration.
#[derive(Debug, Default)]
pub(super) struct Passwords {
    known: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    source: Arc<dyn Source>,
    password: Secret,
    advice: String,
}

impl Passwords {
    /// Asks every Vault how it is and every source for its password, a line each: those of `users`,
    /// and of the roles that databases and clusters name.
    pub(super) async fn ask(config: &Config, users: &[String], report: &Findings) -> Self {
        let mut passwords = Self::default();
        let sources = match Sources::new(config) {
            Ok(sources) => sources,
            Err(error) => {
                say("passwords", &error, report);
                return passwords;
            }
        };
        for name in config.vaults.keys() {
            if let Some(vault) = sources.vault(name) {
                look_at(name, vault, report).await;
            }
        }
        if config.users.contains_key(WILDCARD) && users.iter().all(|n| config.users.contains_key(n))
        {
            report.note("user *", "a rule for names that clients choose; --user tries one");
            if let Some(file) = any_file(config) {
                let text = format!("each file of {file} is a user: `names` says which may be");
                report.note("user *", text);
            }
        }
        let roles = config.databases.values().filter_map(|database| database.user.as_ref());
        let probes = config.clusters.values().filter_map(|cluster| cluster.probe_user.as_ref());
        let names: BTreeSet<&String> = users.iter().chain(roles).chain(probes).collect();
        for name in names {
            passwords.read(config, &sources, name, report).await;
        }
        passwords
    }

    async fn read(&mut self, config: &Config, sources: &Sources, name: &str, report: &Findings) {
        let Some(user) = config.user(name) else { return };
        let from = user.source();
        if from == SourceConfig::Inline {
            return;
        }
        let Some(source) = sources.of_user(name, &user) else {
            return report.fail(format!("user {name}"), "its Vault is not configured");
        };
        match source.fetch().await {
            Ok(answer) => {
                let place = format!("user {name}, {}", source.location());
                report.ok(&place, format!("ok{}", dates(&answer)));
                if let Some(other) = answer.username.as_deref().filter(|other| *other != name) {
                    let text = format!("it is the password of {other}, not of {name}");
                    match from {
                        SourceConfig::File(_) => report.note(&place, text),
                        _ => report.fail(&place, text),
                    }
                }
                let advice = advice(config, &source.location(), &from);
                let known = Known { source, password: answer.password, advice };
                self.known.insert(name.to_owned(), known);
            }
            Err(error) => say(&format!("user {name}"), &error, report),
        }
    }

    /// The password that the role's source gave; `None` when it gave none.
    pub(super) fn of(&self, role: &str) -> Option<&Secret> {
        self.known.get(role).map(|known| &known.password)
    }

    /// Asks the role's source again after a server refused its password, because a rotation may
    /// have come between. `None` when the password is unchanged, the source does not answer, or it
    /// gave none before. What [`Self::of`] returns stays as it is.
    pub(super) async fn newer(&self, role: &str) -> Option<Secret> {
        let known = self.known.get(role)?;
        let answer = known.source.fetch().await.ok()?;
        (answer.password != known.password).then_some(answer.password)
    }

    /// What the operator should do when a server refuses the role's password; `None` when its
    /// source gave none.
    pub(super) fn advice(&self, role: &str) -> Option<&str> {
        self.known.get(role).map(|known| known.advice.as_str())
    }
}

/// The directory whose every file the rule makes a user.
fn any_file(config: &Config) -> Option<String> {
    let rule = config.users.get(WILDCARD).filter(|rule| rule.accepts_any_file())?;
    Some(rule.password_file.as_ref()?.parent()?.display().to_string())
}

/// Reports the state of each address of a Vault, and whether the login works. A standby is well as
/// long as another address serves.
async fn look_at(name: &str, vault: &VaultClient, report: &Findings) {
    let answers = vault.health().await;
    let serves = answers.iter().any(|health| health.fault.is_none());
    for health in &answers {
        let Health { location: place, version, clock, fault } = health;
        let standby = |error: &SourceError| {
            matches!(error, SourceError::Standby { .. } | SourceError::PerformanceStandby { .. })
        };
        match (fault, version) {
            (Some(error), _) if serves && standby(error) => report.ok(place, "ok (a standby)"),
            (Some(error), _) => say("", error, report),
            (None, Some(version)) => report.ok(place, format!("ok (Vault {version})")),
            (None, None) => report.ok(place, "ok"),
        }
        if let Some(skew) = clock.and_then(|clock| skew(clock, SystemTime::now())) {
            report.warn(place, skew);
        }
    }
    if !serves {
        return;
    }
    let place = format!("vault {name}, token");
    match vault.token_status().await {
        Ok(TokenStatus::Good { ttl: None }) => report.ok(place, "ok"),
        Ok(TokenStatus::Good { ttl: Some(ttl) }) => {
            report.ok(place, format!("ok (lives for {} s)", ttl.as_secs()));
        }
        Ok(TokenStatus::Unknown) => report.note(
            place,
            "it may not ask about itself (Vault's policy `default` lets it), so that its life is \
             not known",
        ),
        Err(error) => say("", &error, report),
    }
}

/// The warning about a clock that is off; `None` when the difference does not matter.
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
fn dates(answer: &SourcePassword) -> String {
    let age = answer.rotated_at.and_then(|then| SystemTime::now().duration_since(then).ok());
    let parts = [
        age.map(|age| format!("made {} s ago", age.as_secs())),
        answer.ttl.map(|ttl| format!("the next in {} s", ttl.as_secs())),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

/// The advice for a password that a server refuses.
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

/// Reports an error with the text to copy, unless the line has it already. `whose` may be empty.
fn say(whose: &str, error: &SourceError, report: &Findings) {
    let text = error.to_string();
    let (place, cause) = text.split_once(": ").unwrap_or((&text, ""));
    let place = match whose {
        "" => place.to_owned(),
        whose => format!("{whose}, {place}"),
    };
    let hint = error.hint().filter(|hint| !text.contains(hint.as_str()));
    report.fail_with(&place, cause.to_owned(), hint);
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
        let mut answer = SourcePassword::new("p", Secret::from("x")).unwrap();
        assert_eq!(dates(&answer), "");
        answer.ttl = Some(Duration::from_secs(7));
        assert_eq!(dates(&answer), " (the next in 7 s)");
    }
}
