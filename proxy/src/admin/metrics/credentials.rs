//! Metrics of passwords that rotate.

use metrics::Label;
use pgimbal_auth::account::PasswordRank;

use super::sample::{Counters, Gauges, label};
use crate::credentials::{CredentialStatus, CredentialsStatus};

/// Records the samples of all users, and of the fetches from their sources.
pub(super) fn record(status: &CredentialsStatus) {
    ages(&status.users);
    logins(&status.users);
    nodes(&status.users);
    if status.fetches.results.is_empty() {
        return;
    }
    let fetches = Counters::described(
        "pgimbal_credential_fetches_total",
        "Questions to sources of passwords, by what came of them.",
    );
    for ((source, result), count) in &status.fetches.results {
        let labels = [("source", *source), ("result", *result)];
        let labels = labels.map(|(name, value)| Label::from_static_parts(name, value));
        fetches.sample(labels.into(), *count);
    }
}

fn user(user: &CredentialStatus) -> Vec<Label> {
    vec![label("user", &user.user)]
}

fn ages(users: &[CredentialStatus]) {
    let age = Gauges::described(
        "pgimbal_credential_age_seconds",
        "Age of the newest password of a user.",
    );
    for one in users {
        if let Some(newest) = one.generations.first() {
            age.sample(user(one), newest.age.as_secs_f64());
        }
    }
    let next = Gauges::described(
        "pgimbal_credential_next_rotation_seconds",
        "Time until its next rotation is expected; 0 when it is due.",
    );
    for one in users {
        if let Some(wait) = one.next_rotation {
            next.sample(user(one), wait.as_secs_f64());
        }
    }
    let stale = Gauges::described(
        "pgimbal_credential_stale_seconds",
        "Since when the source says nothing; 0 while it answers.",
    );
    for one in users {
        stale.sample(user(one), one.stale.as_secs_f64());
    }
}

fn logins(users: &[CredentialStatus]) {
    let family = Counters::described(
        "pgimbal_credential_logins_total",
        "Logins of clients by the generation of the password that they have shown.",
    );
    for one in users {
        for (rank, count) in PasswordRank::ALL.iter().zip(one.logins) {
            let mut labels = user(one);
            labels.push(Label::from_static_parts("generation", rank.as_str()));
            family.sample(labels, count);
        }
    }
}

fn nodes(users: &[CredentialStatus]) {
    let family = Gauges::described(
        "pgimbal_credential_no_password_works",
        "1 while a node refuses every password that is known of a user.",
    );
    for one in users {
        for (node, refuses) in &one.nodes {
            let mut labels = user(one);
            labels.push(label("node", node));
            family.sample(labels, u8::from(*refuses));
        }
    }
}
