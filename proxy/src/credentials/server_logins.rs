//! Logins at servers that want a password: each is given one, waits, or is told why there is none.

use std::collections::HashMap;
use std::time::Instant;

use pgimbal_auth::rotation::{GiveUp, LoginPlan, Rotation};
use pgimbal_config::Secret;
use tokio::sync::oneshot;

use crate::dial::DialError;

/// The password to show.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) generation: u32,
    pub(super) password: Secret,
}

/// Why there is none.
#[derive(Clone, Debug)]
pub(super) enum NoPassword {
    /// None is known; what the source says.
    Unknown(String),
    /// The server refuses all that are known.
    Refused {
        /// Its last refusal.
        refusal: Option<DialError>,
        /// What was tried.
        tried: String,
        /// Why the source tells no newer one, when it says nothing.
        silence: Option<String>,
    },
}

pub(super) type Reply = oneshot::Sender<Result<Shown, NoPassword>>;

/// The logins of one role.
#[derive(Debug, Default)]
pub(super) struct ServerLogins {
    waiting: Vec<(Box<str>, Reply)>,
    /// What each node said last when it refused.
    refusals: HashMap<Box<str>, DialError>,
    /// When something may have changed for those who wait.
    pub(super) wake_at: Option<Instant>,
}

impl ServerLogins {
    pub(super) fn add(&mut self, node: Box<str>, reply: Reply) {
        self.waiting.push((node, reply));
    }

    pub(super) fn refused(&mut self, node: &str, error: DialError) {
        self.refusals.insert(node.into(), error);
    }

    pub(super) fn accepted(&mut self, node: &str) {
        self.refusals.remove(node);
    }

    /// Whether anybody waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The last refusal of a node.
    pub(super) fn refusal(&self, node: &str) -> Option<&DialError> {
        self.refusals.get(node)
    }

    /// Gives everybody what the rotation offers now. `silence` is what the source at `place` says
    /// instead of a password, while that is so.
    pub(super) fn serve(
        &mut self,
        rotation: &mut Rotation,
        silence: Option<&str>,
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
                    if reply.send(Ok(Shown { generation, password })).is_err() {
                        rotation.abandoned(&node, generation);
                    }
                }
                LoginPlan::Wait(until) => {
                    self.wake_at = Some(self.wake_at.map_or(until, |at| at.min(until)));
                    still.push((node, reply));
                }
                LoginPlan::GiveUp(why) => {
                    let none = match why {
                        GiveUp::Unknown => NoPassword::Unknown(silence.map_or_else(
                            || format!("{place} has not answered yet"),
                            str::to_owned,
                        )),
                        GiveUp::Refused(_) => NoPassword::Refused {
                            refusal: self.refusals.get(&node).cloned(),
                            tried: tried(rotation),
                            silence: silence.map(str::to_owned),
                        },
                    };
                    // Whoever asked may have gone.
                    let _ = reply.send(Err(none));
                }
            }
        }
        self.waiting = still;
    }
}

/// What was tried, in words.
pub(super) fn tried(rotation: &Rotation) -> String {
    let count = rotation.known();
    match count {
        0 | 1 => "pgimbal tried the only password that it knows.".to_owned(),
        _ => format!(
            "pgimbal tried the newest of the {count} passwords that it knows, and those that worked before."
        ),
    }
}
