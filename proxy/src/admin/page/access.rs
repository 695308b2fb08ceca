//! Who may see the page and who may give commands on it: tokens, sessions, and what wrong tokens
//! cost.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgimbal_auth::token::TokenHash;
use pgimbal_config::{Config, GREATEST_HTTP_TOKEN, LEAST_HTTP_TOKEN, Secret};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::pending_logins::Subnet;

/// How long a session lasts: a working day, so that a forgotten one ends over night.
pub(super) const LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// How long a session lasts without a request. An open page asks every 2 s.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// Limit of sessions, of about 200 bytes each; one more ends the one that was idle longest.
const MAX_SESSIONS: usize = 64;
/// Wrong tokens from one address in [`WRONG_PERIOD`], after which none is looked at.
const WRONG_TOKENS: u32 = 10;
/// The period of [`WRONG_TOKENS`].
pub(super) const WRONG_PERIOD: Duration = Duration::from_secs(60);
/// Limit of addresses whose wrong tokens are counted, of about 50 bytes each; one more forgets the
/// one that began first.
const MAX_ADDRESSES: usize = 1024;
/// Random bytes of a session's id and of its token against forged requests.
const RANDOM_BYTES: usize = 32;

type Hash = [u8; 32];

/// What somebody may do on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// See it.
    Viewer,
    /// See it and give commands.
    Admin,
}

impl Level {
    /// The word for it in JSON and in the log.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Admin => "admin",
        }
    }
}

/// A session as a request belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Its number in this process, for the log.
    pub(super) number: u64,
    pub(super) level: Level,
    /// The token that the page sends with requests that change something, in hexadecimal.
    pub(super) csrf: String,
}

/// Why a token has not been accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no token of the page.
    Wrong,
    /// There were too many wrong ones from the address: it was not looked at.
    TooMany,
}

/// The tokens, sessions and counts of wrong tokens. Only hashes of tokens and of session ids are
/// kept.
#[derive(Debug)]
pub(super) struct Access {
    config: watch::Receiver<Arc<Config>>,
    is_loopback: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By the hash of the id.
    sessions: HashMap<Hash, Kept>,
    wrong: HashMap<Subnet, Wrong>,
}

#[derive(Debug)]
struct Kept {
    session: Session,
    /// The hash of the token with which it began; the session ends with the token.
    token: TokenHash,
    /// Where it began. Browsers send a cookie to every port of a host name, so that other programs
    /// may have seen it; it is of no use elsewhere.
    from: Subnet,
    made: Instant,
    used: Instant,
}

/// The wrong tokens of an address.
#[derive(Debug)]
struct Wrong {
    since: Instant,
    count: u32,
}

/// The hashes of the tokens in force.
#[derive(Clone, Copy, Debug, Default)]
struct Tokens {
    view: Option<TokenHash>,
    admin: Option<TokenHash>,
}

impl Access {
    /// Rules of a port at a loopback address or not, with the tokens of `config`.
    pub(super) fn new(config: watch::Receiver<Arc<Config>>, is_loopback: bool) -> Self {
        Self { config, is_loopback, state: Mutex::default() }
    }

    /// Whether there is a page at all: not at an address of a network without a token.
    pub(super) fn is_offered(&self) -> bool {
        self.is_open() || self.has_view_token() || self.has_admin_token()
    }

    /// Whether everybody who connects may see the page.
    pub(super) fn is_open(&self) -> bool {
        self.is_loopback && !self.has_view_token()
    }

    /// Whether commands can be given on the page, by whoever has the token.
    pub(super) fn has_admin_token(&self) -> bool {
        let config = self.config.borrow();
        let access = &config.http.access;
        access.admin_token.is_some() || access.admin_token_file.is_some()
    }

    fn has_view_token(&self) -> bool {
        let config = self.config.borrow();
        config.http.access.token.is_some() || config.http.access.token_file.is_some()
    }

    /// What the token of somebody at this address allows, compared in constant time.
    pub(super) fn check(&self, token: &str, from: Subnet, now: Instant) -> Result<Level, Refused> {
        self.checked(token, from, now).map(|(level, _)| level)
    }

    fn checked(
        &self,
        token: &str,
        from: Subnet,
        now: Instant,
    ) -> Result<(Level, TokenHash), Refused> {
        // Under one lock, so that attempts at once are counted one by one.
        let mut state = self.state();
        if state.wrong.get(&from).is_some_and(|wrong| wrong.is_too_many(now)) {
            return Err(Refused::TooMany);
        }
        let shown = TokenHash::of(token);
        match self.tokens(true).level(&shown) {
            Some(level) => Ok((level, shown)),
            None => {
                state.count_wrong(from, now);
                Err(Refused::Wrong)
            }
        }
    }

    /// Begins a session with a token, and returns it with its id for the cookie.
    pub(super) fn log_in(
        &self,
        token: &str,
        from: Subnet,
        now: Instant,
    ) -> Result<(Session, String), Refused> {
        let (level, token) = self.checked(token, from, now)?;
        let id = random();
        let mut state = self.state();
        state.next += 1;
        let session = Session { number: state.next, level, csrf: random() };
        state.sessions.retain(|_, kept| !kept.is_over(now));
        if state.sessions.len() >= MAX_SESSIONS {
            let oldest = state.sessions.iter().min_by_key(|(_, kept)| kept.used);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                state.sessions.remove(&oldest);
            }
        }
        let kept = Kept { session: session.clone(), token, from, made: now, used: now };
        state.sessions.insert(hash(id.as_bytes()), kept);
        Ok((session, id))
    }

    /// The session with this id for somebody at the address where it began; `None` when it is over,
    /// and when its token is no longer in force.
    pub(super) fn session(&self, id: &str, from: Subnet, now: Instant) -> Option<Session> {
        let tokens = self.tokens(false);
        let id = hash(id.as_bytes());
        let mut state = self.state();
        let kept = state.sessions.get_mut(&id)?;
        if kept.is_over(now) || tokens.level(&kept.token) != Some(kept.session.level) {
            state.sessions.remove(&id);
            return None;
        }
        if kept.from != from {
            return None;
        }
        kept.used = now;
        Some(kept.session.clone())
    }

    /// Ends the session with this id.
    pub(super) fn log_out(&self, id: &str) {
        self.state().sessions.remove(&hash(id.as_bytes()));
    }

    /// The tokens in force. A file that cannot be read gives none, which is logged if `say`.
    fn tokens(&self, say: bool) -> Tokens {
        let config = Arc::clone(&self.config.borrow());
        let access = &config.http.access;
        let of = |key, token: &Option<Secret>, file: &Option<PathBuf>| match (token, file) {
            (Some(token), _) => Some(TokenHash::of_secret(token)),
            (None, Some(file)) => from_file(key, file, say),
            (None, None) => None,
        };
        let view = of("http.token_file", &access.token, &access.token_file);
        let admin = of("http.admin_token_file", &access.admin_token, &access.admin_token_file);
        let same = view.zip(admin).is_some_and(|(view, admin)| view.is(&admin));
        if same {
            if say {
                tracing::warn!("the page's tokens are the same: nobody can give commands on it");
            }
            return Tokens { view, admin: None };
        }
        Tokens { view, admin }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn from_file(key: &str, path: &Path, say: bool) -> Option<TokenHash> {
    let path_shown = path.display();
    let text = match std::fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => text,
        Err(error) => {
            if say {
                tracing::warn!("{key}: cannot read {path_shown}: {error}");
            }
            return None;
        }
    };
    let token = text.trim_end();
    if !(LEAST_HTTP_TOKEN..=GREATEST_HTTP_TOKEN).contains(&token.len()) {
        if say {
            tracing::warn!("{key}: {path_shown} holds no token of 16 to 512 bytes");
        }
        return None;
    }
    Some(TokenHash::of(token))
}

impl Tokens {
    /// What the token with this hash allows. Both are always compared.
    fn level(&self, shown: &TokenHash) -> Option<Level> {
        let is = |token: &Option<TokenHash>| token.is_some_and(|token| token.is(shown));
        let (view, admin) = (is(&self.view), is(&self.admin));
        match (view, admin) {
            (_, true) => Some(Level::Admin),
            (true, false) => Some(Level::Viewer),
            (false, false) => None,
        }
    }
}

impl Kept {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.made) >= LIFE || now.duration_since(self.used) >= IDLE
    }
}

impl Wrong {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= WRONG_PERIOD
    }

    fn is_too_many(&self, now: Instant) -> bool {
        self.count >= WRONG_TOKENS && !self.is_over(now)
    }
}

impl State {
    fn count_wrong(&mut self, from: Subnet, now: Instant) {
        self.wrong.retain(|_, wrong| !wrong.is_over(now));
        if self.wrong.len() >= MAX_ADDRESSES && !self.wrong.contains_key(&from) {
            let first = self.wrong.iter().min_by_key(|(_, wrong)| wrong.since);
            if let Some(first) = first.map(|(address, _)| *address) {
                self.wrong.remove(&first);
            }
        }
        self.wrong.entry(from).or_insert(Wrong { since: now, count: 0 }).count += 1;
    }
}

fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// Random bytes in hexadecimal.
fn random() -> String {
    let bytes: [u8; RANDOM_BYTES] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: &str = "0123456789abcdef";
    const ADMIN: &str = "fedcba9876543210";

    fn access(
        is_loopback: bool,
        tokens: [Option<&str>; 2],
    ) -> (watch::Sender<Arc<Config>>, Access) {
        let (sender, config) = watch::channel(Arc::new(with(tokens)));
        let access = Access::new(config, is_loopback);
        (sender, access)
    }

    fn with(tokens: [Option<&str>; 2]) -> Config {
        let mut config = Config::default();
        [config.http.access.token, config.http.access.admin_token] =
            tokens.map(|token| token.map(Secret::from));
        config
    }

    fn from(last: u8) -> Subnet {
        Subnet::of(Some([10, 0, 0, last].into()))
    }

    #[test]
    fn who_may_see_the_page() {
        for (is_loopback, tokens, offered, open) in [
            (true, [None, None], true, true),
            (true, [None, Some(ADMIN)], true, true),
            (true, [Some(VIEW), None], true, false),
            (false, [None, None], false, false),
            (false, [None, Some(ADMIN)], true, false),
            (false, [Some(VIEW), Some(ADMIN)], true, false),
        ] {
            let (_sender, access) = access(is_loopback, tokens);
            assert_eq!((access.is_offered(), access.is_open()), (offered, open), "{tokens:?}");
        }
    }

    #[test]
    fn a_token_opens_a_session_of_its_level_until_it_is_over_or_the_token_changes() {
        let (sender, access) = access(false, [Some(VIEW), Some(ADMIN)]);
        let start = Instant::now();
        for (token, level) in [(VIEW, Level::Viewer), (ADMIN, Level::Admin)] {
            assert_eq!(access.check(token, from(1), start), Ok(level));
            let (session, id) = access.log_in(token, from(1), start).unwrap();
            assert_eq!(session.level, level);
            assert_eq!(access.session(&id, from(1), start).unwrap().number, session.number);
            assert!(access.session(&session.csrf, from(1), start).is_none());
            assert!(access.session(&id, from(1), start + IDLE).is_none(), "idle too long");
            assert!(access.session(&id, from(1), start).is_none(), "it is over for good");
            let (_, id) = access.log_in(token, from(1), start).unwrap();
            let mut now = start;
            while now < start + LIFE {
                assert!(access.session(&id, from(1), now).is_some());
                now += IDLE / 2;
            }
            assert!(access.session(&id, from(1), now).is_none(), "older than a day's work");
        }
        let (_, viewer) = access.log_in(VIEW, from(1), start).unwrap();
        let (_, admin) = access.log_in(ADMIN, from(1), start).unwrap();
        sender.send_replace(Arc::new(with([Some(VIEW), Some("another-admin-token")])));
        assert!(access.session(&viewer, from(1), start).is_some());
        assert!(access.session(&admin, from(1), start).is_none(), "the token was revoked");
        assert!(access.session(&viewer, from(2), start).is_none(), "another address");
        assert!(access.session(&viewer, from(1), start).is_some(), "which has not ended it");
        access.log_out(&viewer);
        assert!(access.session(&viewer, from(1), start).is_none());
    }

    #[test]
    fn sessions_are_few() {
        let (_sender, access) = access(true, [Some(VIEW), None]);
        let start = Instant::now();
        let ids: Vec<_> = (0..=MAX_SESSIONS as u32)
            .map(|n| {
                access.log_in(VIEW, from(1), start + Duration::from_millis(n.into())).unwrap().1
            })
            .collect();
        let now = start + Duration::from_secs(1);
        assert!(access.session(&ids[0], from(1), now).is_none(), "the one that was idle longest");
        assert!(ids[1..].iter().all(|id| access.session(id, from(1), now).is_some()));
    }

    #[test]
    fn wrong_tokens_close_the_door_to_their_address_for_a_while() {
        let (_sender, access) = access(false, [Some(VIEW), None]);
        let start = Instant::now();
        for wrong in ["", "x", ADMIN].iter().cycle().take(WRONG_TOKENS as usize) {
            assert_eq!(access.check(wrong, from(1), start), Err(Refused::Wrong));
        }
        assert_eq!(access.check(VIEW, from(1), start), Err(Refused::TooMany));
        assert_eq!(access.log_in(VIEW, from(1), start).unwrap_err(), Refused::TooMany);
        assert_eq!(access.check(VIEW, from(2), start), Ok(Level::Viewer));
        assert_eq!(access.check(VIEW, from(1), start + WRONG_PERIOD), Ok(Level::Viewer));
        for host in 0..=MAX_ADDRESSES as u32 {
            let address = std::net::Ipv4Addr::from(host);
            let _ = access.check("x", Subnet::of(Some(address.into())), start);
        }
        assert_eq!(access.state().wrong.len(), MAX_ADDRESSES);
    }

    #[test]
    fn tokens_in_files_are_read_again_and_two_that_are_the_same_give_no_commands() {
        let name = format!("pgimbal-page-token-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut config = with([Some(VIEW), None]);
        config.http.access.admin_token_file = Some(path.clone());
        let (_sender, config) = watch::channel(Arc::new(config));
        let access = Access::new(config, true);
        let now = Instant::now();
        assert_eq!(access.check(ADMIN, from(1), now), Err(Refused::Wrong), "there is no file");
        std::fs::write(&path, format!("{ADMIN}\n")).unwrap();
        assert_eq!(access.check(ADMIN, from(1), now), Ok(Level::Admin));
        std::fs::write(&path, VIEW).unwrap();
        assert_eq!(access.check(VIEW, from(1), now), Ok(Level::Viewer));
        std::fs::write(&path, "short").unwrap();
        assert_eq!(access.check("short", from(1), now), Err(Refused::Wrong));
        std::fs::remove_file(&path).unwrap();
    }
}
