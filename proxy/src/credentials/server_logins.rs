//! Logins at servers that need a password of a role: each gets one, waits, or is told why there is
//! none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use pgimbal_auth::SourceError;
use pgimbal_auth::rotation::{GiveUp, LoginPlan, Rotation};
use pgimbal_config::Secret;
use pgimbal_wire::error::{Report, SqlState};
use pgimbal_wire::frame::HEADER_LEN;
use tokio::sync::oneshot;

use crate::dial::DialError;

/// Hint of the error for clients when no password works.
const HINT: &str =
    "Look at SHOW CREDENTIALS, and at the role's password and VALID UNTIL in PostgreSQL.";

/// A password with which a login at a server is tried. The outcome must be reported as a
/// [`LoginOutcome`].
#[derive(Debug)]
pub(super) struct OfferedPassword {
    /// The number of the password's generation, for the report.
    pub(super) generation: u32,
    /// The password.
    pub(super) password: Secret,
}

/// The outcome of a login with an offered password.
#[derive(Debug)]
pub(super) enum LoginOutcome {
    /// The server has accepted the password.
    Accepted,
    /// The server has refused the role or its password (SQLSTATE 28P01 or 28000).
    Refused(DialError),
    /// The login ended before the server checked the password.
    Abandoned,
}

/// The reason for which a login at a server gets no password.
#[derive(Clone, Debug)]
pub(super) enum NoPassword {
    /// No password is known; the text is the error of the source, or says that it has not answered
    /// yet.
    Unknown(String),
    /// The server refuses every password that is known.
    AllRefused {
        /// The server's last refusal; `None` when a server has accepted a password since.
        refusal: Option<DialError>,
        /// The passwords that were tried, in words.
        tried: String,
        /// The error for which the source returns no newer password; `None` while it answers.
        fetch_error: Option<String>,
    },
}

/// The channel on which a login gets its password, or the reason why it gets none.
pub(super) type OfferReply = oneshot::Sender<Result<OfferedPassword, NoPassword>>;

/// The logins of one role that wait for a password, and the last refusal of each node.
#[derive(Debug, Default)]
pub(super) struct ServerLogins {
    waiting: Vec<(Box<str>, OfferReply)>,
    /// The last refusal of each node that has not accepted a password since.
    refusals: HashMap<Box<str>, DialError>,
    wake_at: Option<Instant>,
}

impl ServerLogins {
    /// Adds a login at `node` (host and port as text); [`Self::serve`] answers it.
    pub(super) fn add(&mut self, node: Box<str>, reply: OfferReply) {
        self.waiting.push((node, reply));
    }

    /// Records that `node` has refused a password with this error, in place of its last refusal.
    pub(super) fn refused(&mut self, node: &str, error: DialError) {
        self.refusals.insert(node.into(), error);
    }

    /// Records that `node` has accepted a password: its refusal is forgotten.
    pub(super) fn accepted(&mut self, node: &str) {
        self.refusals.remove(node);
    }

    /// Whether any login waits for a password.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The time at which [`Self::serve`] may have another answer for the waiting logins, if nothing
    /// happens before; `None` when none waits.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.wake_at.filter(|_| self.is_waiting())
    }

    /// The last refusal of `node`; `None` when it has accepted a password since, or refused none.
    pub(super) fn refusal(&self, node: &str) -> Option<&DialError> {
        self.refusals.get(node)
    }

    /// The body of the ErrorResponse that says why no server connection of `user` can be opened;
    /// `None` while one can. The SQLSTATE is 57P03 while no password is known or its source fails,
    /// and 28P01 when the source answers and a node refuses all that is known. `fetch_error` is the
    /// error of the last fetch, `None` when it succeeded. Workers send it to waiting clients.
    pub(super) fn lockout_error(
        &self,
        user: &str,
        rotation: &Rotation,
        fetch_error: Option<&SourceError>,
    ) -> Option<Arc<[u8]>> {
        let refusing = rotation.failing().next().map(|(node, _)| node);
        let (code, text) = match (refusing, fetch_error) {
            (None, _) if rotation.newest().is_some() => return None,
            (None, _) => (
                SqlState::CANNOT_CONNECT_NOW,
                format!("the password of user \"{user}\" is not known yet"),
            ),
            // It may pass, and the password that works is not for the client to know.
            (Some(node), Some(error)) => (
                SqlState::CANNOT_CONNECT_NOW,
                format!(
                    "no password that is known of user \"{user}\" works at {node}, and a newer one \
                     cannot be read: {error}"
                ),
            ),
            (Some(node), None) => {
                let refusal = self.refusal(node).map(ToString::to_string).unwrap_or_default();
                (
                    SqlState::INVALID_PASSWORD,
                    format!("no password of user \"{user}\" works at {node}: {refusal}"),
                )
            }
        };
        let mut message = Vec::new();
        Report::error(code, &text).hint(HINT).encode_error(&mut message);
        message.get(HEADER_LEN..).map(Into::into)
    }

    /// Answers every login for which `rotation` has a password or a refusal now; the others go on
    /// waiting. `fetch_error` is the error of the source at `place`, `None` while it answers.
    pub(super) fn serve(
        &mut self,
        rotation: &mut Rotation,
        fetch_error: Option<&str>,
        place: &str,
        now: Instant,
    ) {
        self.wake_at = None;
        let mut still = Vec::new();
        for (node, reply) in std::mem::take(&mut self.waiting) {
            if reply.is_closed() {
                continue;
            }
            match rotation.plan_login(&node, now) {
                LoginPlan::Try { generation, password } => {
                    if reply.send(Ok(OfferedPassword { generation, password })).is_err() {
                        rotation.handle_abandoned(&node, generation);
                    }
                }
                LoginPlan::Wait(until) => {
                    self.wake_at = Some(self.wake_at.map_or(until, |at| at.min(until)));
                    still.push((node, reply));
                }
                LoginPlan::GiveUp(why) => {
                    let none = match why {
                        GiveUp::Unknown => NoPassword::Unknown(fetch_error.map_or_else(
                            || format!("{place} has not answered yet"),
                            str::to_owned,
                        )),
                        GiveUp::Refused(_) => NoPassword::AllRefused {
                            refusal: self.refusals.get(&node).cloned(),
                            tried: tried(rotation),
                            fetch_error: fetch_error.map(str::to_owned),
                        },
                    };
                    // The login may have ended.
                    let _ = reply.send(Err(none));
                }
            }
        }
        self.waiting = still;
    }
}

/// The passwords that were tried, in words for the error's text.
fn tried(rotation: &Rotation) -> String {
    match rotation.known() {
        0 | 1 => "pgimbal tried the only password that it knows.".to_owned(),
        count => format!(
            "pgimbal tried the newest of the {count} passwords that it knows, and those that worked before."
        ),
    }
}
