//! A container of a pod from its first start to its last end: restarts with growing pauses, and
//! what the pod's status says of it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::container::{Container, Recipe};
use super::probes::{Health, Probes};

/// The pause before the first restart; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A container that is kept running.
pub(super) struct Supervised {
    pub(super) specification: Value,
    starts: u32,
    running: Option<Running>,
    state: Value,
    last_state: Value,
    /// When it may be started.
    due: Instant,
    health: Health,
    is_told_to_end: bool,
}

struct Running {
    container: Arc<Mutex<Container>>,
    probes: Probes,
    since: String,
}

/// How a container ended for the last time.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The pod's name.
    pub pod: String,
    /// The exit code; 128 and the signal's number after a signal.
    pub code: i32,
    /// Whether it had not ended within its grace period.
    pub was_killed: bool,
    /// What it had written.
    pub log: String,
}

impl Supervised {
    pub(super) fn new(specification: Value) -> Self {
        for key in ["lifecycle", "volumeDevices"] {
            assert!(specification.get(key).is_none(), "this kubelet knows no {key}");
        }
        Self {
            specification,
            starts: 0,
            running: None,
            state: json!({ "waiting": { "reason": "ContainerCreating" } }),
            last_state: json!({}),
            due: Instant::now(),
            health: Health::default(),
            is_told_to_end: false,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.specification["name"].as_str().expect("a name")
    }

    /// Notes why it cannot be started.
    pub(super) fn wait_for(&mut self, reason: &str, message: &str) {
        self.state = json!({ "waiting": { "reason": reason, "message": message } });
    }

    /// Whether it is to be started now.
    pub(super) fn is_due(&self) -> bool {
        self.running.is_none() && Instant::now() >= self.due && self.state.get("waiting").is_some()
    }

    /// Starts it as `id` in a folder of its own below `directory`.
    pub(super) fn start(
        &mut self,
        id: &str,
        state: &Path,
        directory: &Path,
        address: Ipv4Addr,
        recipe: &Recipe<'_>,
    ) {
        let own = format!("{}-{}", self.name(), self.starts);
        let container =
            Container::start(&format!("{id}-{own}"), state, &directory.join(&own), recipe);
        let container = Arc::new(Mutex::new(container));
        let probes = Probes::start(&self.specification, address, &container);
        let since = now();
        self.state = json!({ "running": { "startedAt": since } });
        self.running = Some(Running { container, probes, since });
        self.starts += 1;
    }

    /// Looks at it. It is started again after an end, unless `policy` says otherwise.
    pub(super) fn look(&mut self, policy: &str) {
        let Some(running) = &mut self.running else { return };
        let health = running.probes.health();
        let ended = running.lock().ended();
        if ended.is_none() {
            if health.has_failed && !self.health.has_failed {
                eprintln!("{} does not answer its probe any more, and is killed", self.name());
                let _ = self.signal("KILL");
            }
            self.health = health;
            return;
        }
        let code = ended.expect("an end");
        let mut terminated = json!({
            "exitCode": code, "startedAt": running.since, "finishedAt": now(),
            "reason": if code == 0 { "Completed" } else { "Error" },
        });
        if code != 0 && self.specification["terminationMessagePolicy"] == "FallbackToLogsOnError" {
            terminated["message"] = json!(running.lock().last_words());
        }
        let terminated = json!({ "terminated": terminated });
        self.health = Health::default();
        let is_over = policy == "Never" || policy == "OnFailure" && code == 0;
        if is_over || self.is_told_to_end {
            self.state = terminated;
            return;
        }
        self.running = None;
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(self.starts.saturating_sub(1).min(10));
        self.due = Instant::now() + pause.min(LONGEST_PAUSE);
        self.last_state = terminated;
        self.wait_for("CrashLoopBackOff", "back-off restarting failed container");
    }

    /// Sends a signal. Returns whether there was anything to send it to.
    pub(super) fn signal(&self, name: &str) -> bool {
        self.running.as_ref().is_some_and(|running| running.lock().signal(name))
    }

    /// Tells it to end, once. A container that is only just being made is told the next time.
    pub(super) fn tell_to_end(&mut self) {
        if let Some(running) = self.running.as_ref().filter(|_| !self.is_told_to_end) {
            running.probes.say_it_ends();
            self.is_told_to_end = running.lock().signal("TERM");
        }
    }

    /// The exit code of one that is not started again.
    pub(super) fn exit_code(&self) -> Option<i32> {
        let code = self.state["terminated"]["exitCode"].as_i64()?;
        i32::try_from(code).ok()
    }

    /// Whether nothing of it runs.
    pub(super) fn is_at_rest(&self) -> bool {
        self.running.as_ref().is_none_or(|running| running.lock().ended().is_some())
    }

    /// How it ended, when it is at rest; `None` when it never ran.
    pub(super) fn ended(&self, pod: &str, was_killed: bool) -> Option<Ended> {
        let running = self.running.as_ref()?;
        let mut container = running.lock();
        let code = container.ended()?;
        Some(Ended { pod: pod.to_owned(), code, was_killed, log: container.log() })
    }

    pub(super) fn is_ready(&self) -> bool {
        self.health.is_ready && self.state.get("running").is_some()
    }

    /// Whether it was ever started.
    pub(super) fn has_begun(&self) -> bool {
        self.starts > 0
    }

    /// Its part of the pod's status.
    pub(super) fn status(&self) -> Value {
        json!({
            "name": self.name(),
            "image": self.specification["image"],
            "imageID": self.specification["image"],
            "ready": self.is_ready(),
            "started": self.health.has_started && self.state.get("running").is_some(),
            "restartCount": self.starts.saturating_sub(1),
            "state": self.state,
            "lastState": self.last_state,
        })
    }
}

impl Running {
    fn lock(&self) -> std::sync::MutexGuard<'_, Container> {
        self.container.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time in RFC 3339 form, to the second.
pub(super) fn now() -> String {
    let now = OffsetDateTime::now_utc();
    let (date, time) = (now.date(), now.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}
