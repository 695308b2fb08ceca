//! What the log says of passwords. Each line once when something changes, never a secret.

use std::time::Duration;

use pgimbal_auth::SourceError;
use tracing::{info, warn};

use crate::dial::DialError;

/// A new generation was seen.
pub(super) fn rotated(user: &str, source: &str, generation: u32, promoted: bool) {
    if promoted {
        info!(
            user,
            generation,
            "{source}: a password with an older date works while the newest one known is refused; \
             it is the newest from now on"
        );
    } else {
        info!(user, generation, "{source}: a new password");
    }
}

/// The source says an old password although a newer one works.
pub(super) fn lags(user: &str, source: &str) {
    info!(user, "{source}: an answer older than what works is ignored; a standby may lag");
}

/// The source speaks of a user of another name.
pub(super) fn other_name(user: &str, source: &str, other: &str) {
    warn!(
        user,
        "{source}: the password is said to be of user \"{other}\"; it is tried for user \"{user}\""
    );
}

/// The source says nothing.
pub(super) fn silent(user: &str, error: &SourceError, known: bool) {
    let then = if known { "what is known stays in use" } else { "no password is known yet" };
    match error.hint() {
        Some(hint) => warn!(user, result = error.result_label(), "{error}; {then}; add: {hint}"),
        None => warn!(user, result = error.result_label(), "{error}; {then}"),
    }
}

/// The source answers again.
pub(super) fn answers(user: &str, source: &str, silent_for: Duration) {
    info!(user, silent_seconds = silent_for.as_secs(), "{source}: answers again");
}

/// No password works at a node.
pub(super) fn locked_out(user: &str, node: &str, worked: bool, error: Option<&DialError>) {
    let cause = error.map(ToString::to_string).unwrap_or_default();
    let text = if worked {
        "it worked before: somebody else has changed it in PostgreSQL (ALTER ROLE), its source has \
         not told a new one yet, or the role's VALID UNTIL has passed"
    } else {
        "none ever worked there: the source tells another role's password, or the role's VALID \
         UNTIL has passed"
    };
    warn!(user, node, "no password of user \"{user}\" works at {node}; {text}: {cause}");
}

/// The source still says what the server refuses.
pub(super) fn contradicted(user: &str, source: &str) {
    warn!(
        user,
        "{source}: still says the password that the server refuses: another system has changed it \
         in PostgreSQL (ALTER ROLE), or the source lags"
    );
}

/// A password works there again.
pub(super) fn let_in(user: &str, node: &str) {
    info!(user, node, "a password of user \"{user}\" works at {node} again");
}

/// A node accepts an older password only, though it had accepted the newest.
pub(super) fn fell_back(user: &str, node: &str) {
    warn!(
        user,
        node,
        "{node} refuses the newest password of user \"{user}\" and accepts an older one: it lags, \
         or has lost the change (a failover, a restore, an ALTER ROLE by another system)"
    );
}
