use std::path::PathBuf;

use pgimbal_auth::account::{MatchedPassword, PasswordRank};
use pgimbal_auth::{SourceError, SourcePassword};
use pgimbal_config::{Overrides, Secret, load};

use super::super::CredentialManager;
use super::super::role::{UNKNOWN, UNSERVED};
use super::super::status::Counted;
use super::*;

/// A client by a Unix socket.
const LOCAL: Option<std::net::IpAddr> = None;

/// A task that no runtime turns: a test says what it is told and in which order.
struct Stage {
    task: Task,
    place: PathBuf,
    _commands: mpsc::UnboundedSender<Command>,
}

impl Stage {
    fn new(name: &str, users: &str) -> Self {
        let place = std::env::temp_dir().join(format!("pgimbal-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&place).expect("a directory");
        let config = config(&place, users);
        let sources = Sources::new(&config).expect("sources");
        let (commands, _) = mpsc::unbounded_channel();
        let (facts, shared) = (Facts::alone(), Arc::new(Shared::new(true)));
        let (notify, downgraded): (Notify, _) = (Box::new(|_, _| {}), commands.downgrade());
        let mut task = Task::new(config, sources, facts, notify, shared, downgraded);
        task.follow_config();
        Self { task, place, _commands: commands }
    }

    fn role(&mut self, name: &str) -> &mut Role {
        self.task.roles.get_mut(name).expect("the role")
    }

    /// The source of `name` answers question `serial`, while `asked` is the one that is out.
    fn answers(&mut self, name: &str, asked: u64, serial: u64, password: &str) {
        self.role(name).set_fetch(asked);
        let result = SourcePassword::new("place", Secret::from(password));
        let (role, sent) = (name.into(), Instant::now());
        self.task.handle_fetched(Fetched { role, serial, sent, kind: "file", result });
    }

    /// A verifier is made.
    async fn derives(&mut self) {
        let made = self.task.verifiers.next().await.expect("one is being made");
        self.task.handle_verifier(made.expect("a verifier"));
    }

    fn reload(&mut self, users: &str) {
        let config = config(&self.place, users);
        let sources = Box::new(Sources::new(&config).expect("sources"));
        self.task.handle_command(Command::Reload(config, sources, oneshot::channel().0));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.place);
    }
}

fn config(place: &std::path::Path, users: &str) -> Arc<Config> {
    let path = place.join("pgimbal.toml");
    let text = users.replace("DIR", &place.display().to_string());
    std::fs::write(&path, format!("[databases.app]\n{text}")).expect("a file");
    let overrides = Overrides { config: Some(path), ..Overrides::default() };
    Arc::new(load(&overrides, std::iter::empty()).expect("a configuration"))
}

const SHOP: &str = "[users.shop]\npassword_file = 'DIR/shop'\n";
const RULE: &str = "[users.'*']\npassword_file = 'DIR/{user}'\n";

#[tokio::test]
async fn rotation_2_a_revoke_drops_what_a_verifier_that_is_being_made_replaces() {
    let mut stage = Stage::new("revoke", SHOP);
    stage.answers("shop", 1, 1, "old");
    stage.derives().await;
    stage.answers("shop", 2, 2, "new");
    let (reply, mut said) = oneshot::channel();
    stage.task.handle_command(Command::RevokeOld("shop".into(), reply));
    assert!(said.try_recv().is_err(), "the old password is still accepted");
    stage.derives().await;
    assert_eq!(stage.role("shop").accepted_numbers(), [2]);
    stage.task.share();
    assert_eq!(said.await, Ok(Ok(())));
}

#[tokio::test]
async fn rotation_13_a_wrong_password_for_nobody_waits_for_another_roles_answer() {
    let mut stage = Stage::new("unknown", SHOP);
    let (reply, mut told) = oneshot::channel();
    stage.task.handle_command(Command::Mismatch("nobody".into(), Subnet::of(LOCAL), reply));
    assert!(told.try_recv().is_ok(), "there is nobody to ask about");
    stage.answers("shop", 1, 1, "old");
    stage.derives().await;
    let (reply, mut told) = oneshot::channel();
    stage.task.handle_command(Command::Mismatch("nobody".into(), Subnet::of(LOCAL), reply));
    assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    assert!(stage.role("shop").rotation().schedule.begin_fetch(Instant::now()));
    stage.answers("shop", 2, 2, "old");
    assert!(told.try_recv().is_ok());
}

#[tokio::test]
async fn an_answer_to_a_question_of_before_means_nothing() {
    let mut stage = Stage::new("late", SHOP);
    stage.answers("shop", 2, 1, "another place's");
    assert_eq!(stage.role("shop").rotation().known(), 0);
    assert_eq!(stage.role("shop").fetch(), Some(2));
}

#[tokio::test]
async fn a_reload_lists_a_user_that_only_a_rule_knew_and_the_other_way_round() {
    let mut stage = Stage::new("listed", RULE);
    assert!(stage.task.ensure("shop").is_some_and(|role| !role.is_listed()));
    stage.reload(&format!("{RULE}{SHOP}"));
    assert!(stage.role("shop").is_listed());
    stage.reload(RULE);
    assert!(!stage.role("shop").is_listed());
}

#[tokio::test]
async fn rotation_17_a_role_that_found_no_room_is_asked_about_before_one_that_has_just_been() {
    let users: String =
        (10..40).map(|n| format!("[users.u{n}]\npassword_file = 'DIR/{n}'\n")).collect();
    let mut stage = Stage::new("room", &users);
    stage.task.work();
    let first = stage.task.queue.waiting.front().cloned().expect("there is no room for all");
    let done = stage.task.fetches.next().await.expect("one is out").expect("an answer");
    let again = Arc::clone(&done.role);
    assert!(again < first, "by name it would come first");
    stage.task.handle_fetched(done);
    stage.role(&again).rotation().schedule.restart(Instant::now());
    stage.task.work();
    assert!(stage.role(&first).fetch().is_some());
    assert_eq!(stage.role(&again).fetch(), None);
    assert_eq!(stage.task.queue.waiting.back(), Some(&again));
}

/// A moment so much later.
fn later(by: Duration) -> Moment {
    let Moment { instant, wall } = moment();
    Moment { instant: instant + by, wall: wall + by }
}

impl Stage {
    /// `name` is looked at then.
    fn looks_at(&mut self, name: &str, now: Moment) {
        self.task.poll_role(&name.into(), now);
    }

    fn knows(&self, name: &str) -> bool {
        self.task.roles.contains_key(name)
    }

    /// A name that only a rule knows has a password.
    async fn learns(&mut self, name: &str) {
        assert!(self.task.ensure(name).is_some());
        self.answers(name, 1, 1, "secret");
        self.derives().await;
        assert!(self.task.shared.account(name).is_some());
    }

    fn serves(&mut self, name: &str) -> Counted {
        self.task.handle_command(Command::FirstLogin(name.into()));
        assert!(self.task.shared.count_login(name, PasswordRank::Newest));
        self.task.shared.clients().add(name, 1)
    }

    /// The source says that it has no such user.
    fn misses(&mut self, name: &str) {
        self.fails(name, SourceError::MissingFile { location: name.into() });
    }

    /// The source answers with this error.
    fn fails(&mut self, name: &str, error: SourceError) {
        self.role(name).set_fetch(2);
        let (role, sent, result) = (name.into(), Instant::now(), Err(error));
        self.task.handle_fetched(Fetched { role, serial: 2, sent, kind: "file", result });
    }
}

#[tokio::test]
async fn a_user_whom_only_a_rule_knows_goes_when_nobody_logs_in() {
    let mut stage = Stage::new("unserved", RULE);
    stage.learns("made_up").await;
    let source = Arc::downgrade(stage.role("made_up").source());
    let listens = stage.role("made_up").listener();
    stage.looks_at("made_up", later(UNSERVED / 2));
    assert!(stage.knows("made_up"));
    assert!(
        stage.task.queue.timer_of.get("made_up") <= Some(&later(UNSERVED).instant),
        "it is looked at then"
    );
    stage.looks_at("made_up", later(UNSERVED));
    assert!(!stage.knows("made_up"));
    assert!(stage.task.shared.account("made_up").is_none());
    assert!(source.upgrade().is_none(), "its source is held");
    let ended = async {
        while !listens.is_finished() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("nobody listens any more");
    // It is there again for whoever comes.
    stage.learns("made_up").await;
}

#[tokio::test]
async fn a_listed_user_stays_and_so_does_one_whom_somebody_waits_for() {
    let mut stage = Stage::new("stays", &format!("{RULE}{SHOP}"));
    let far = later(10 * UNKNOWN);
    stage.looks_at("shop", far);
    assert!(stage.knows("shop"));
    stage.learns("made_up").await;
    let (reply, mut told) = oneshot::channel();
    stage.task.handle_command(Command::Mismatch("made_up".into(), Subnet::of(LOCAL), reply));
    stage.looks_at("made_up", far);
    assert!(stage.knows("made_up") && told.try_recv().is_err());
    let now = Instant::now();
    stage.role("made_up").drop_mismatched();
    stage.role("made_up").mark_used(now);
    let of_server = stage.task.shared.servers().add("made_up", 1);
    stage.looks_at("made_up", later(UNSERVED));
    assert!(stage.knows("made_up"), "a server connection is its");
    drop(of_server);
    stage.looks_at("made_up", later(3 * UNSERVED));
    assert!(!stage.knows("made_up"));
}

#[tokio::test]
async fn a_user_of_a_rule_who_has_logged_in_goes_an_hour_after_the_source_has_dropped_it() {
    let mut stage = Stage::new("served", RULE);
    stage.learns("shop").await;
    let client = stage.serves("shop");
    drop(client);
    stage.looks_at("shop", later(10 * UNKNOWN));
    assert!(stage.knows("shop"), "it is what clients show while the source is away");
    stage.misses("shop");
    stage.looks_at("shop", later(UNKNOWN / 2));
    assert!(stage.knows("shop"));
    let client = stage.task.shared.clients().add("shop", 1);
    stage.looks_at("shop", later(UNKNOWN));
    assert!(stage.knows("shop"), "a client is logged in");
    drop(client);
    stage.looks_at("shop", later(3 * UNKNOWN));
    assert!(!stage.knows("shop"));
    assert_eq!(stage.task.shared.logins_of("shop"), [0; PasswordRank::ALL.len()]);
    assert!(stage.task.shared.clients().is_empty());
}

impl Stage {
    /// The users whose accepted passwords the document has.
    fn kept(&self) -> Vec<String> {
        let document = Arc::clone(&self.task.facts.document().borrow());
        let users = document.users().filter(|(_, record)| !record.is_empty());
        users.map(|(name, _)| name.to_owned()).collect()
    }
}

#[tokio::test]
async fn what_outlives_the_process_is_of_users_who_have_logged_in() {
    let mut stage = Stage::new("kept", RULE);
    stage.learns("made_up").await;
    stage.learns("shop").await;
    drop(stage.serves("shop"));
    stage.task.share();
    assert_eq!(stage.kept(), ["shop"]);
    stage.task.handle_document();
    stage.misses("shop");
    stage.looks_at("shop", later(2 * UNKNOWN));
    assert!(!stage.knows("shop"));
    assert!(stage.kept().is_empty());
    stage.task.handle_document();
    assert!(!stage.knows("shop"), "what was forgotten does not come back");
}

#[tokio::test]
async fn what_one_replica_cannot_ask_for_is_accepted_by_the_others_on() {
    let store = "[store]\nkind = 'kubernetes'\nnamespace = 'db'\n";
    let gone =
        |location: &str| SourceError::UnknownRole { location: location.into(), mount: "db".into() };
    let forbidden =
        SourceError::PermissionDenied { location: "shop".into(), policy: "read it".into() };
    // A file that is not mounted here may be at the others.
    let missing = SourceError::MissingFile { location: "shop".into() };
    for (error, kept) in [(forbidden, 1), (missing, 1), (gone("shop"), 0)] {
        let mut stage = Stage::new("shared", &format!("{RULE}{store}"));
        stage.learns("shop").await;
        drop(stage.serves("shop"));
        stage.task.share();
        stage.task.handle_document();
        stage.fails("shop", error.clone());
        stage.looks_at("shop", later(2 * UNKNOWN));
        assert!(!stage.knows("shop"), "{error}");
        assert_eq!(stage.kept().len(), kept, "{error}");
    }
}

fn tell(from: &Stage, to: &mut Stage) {
    let document = Arc::clone(&from.task.facts.document().borrow());
    to.task.facts.merge_from_peer(&document.to_bytes()).expect("merged");
    to.task.handle_document();
}

/// Both have one key for their salts then.
fn meet(one: &mut Stage, other: &mut Stage) {
    tell(one, other);
    tell(other, one);
}

#[tokio::test]
async fn rotation_23_what_is_revoked_before_anybody_has_logged_in_is_revoked_everywhere() {
    let (mut stage, mut other) = (Stage::new("revoked", RULE), Stage::new("revoked-too", RULE));
    meet(&mut stage, &mut other);
    stage.learns("shop").await;
    stage.answers("shop", 2, 2, "new");
    stage.derives().await;
    stage.task.share();
    assert!(stage.kept().is_empty(), "a made-up name is not shared");
    let (reply, said) = oneshot::channel();
    stage.task.handle_command(Command::RevokeOld("shop".into(), reply));
    stage.task.share();
    assert_eq!(said.await, Ok(Ok(())));
    tell(&stage, &mut other);
    assert_eq!(other.role("shop").accepted_numbers().len(), 1);
    other.answers("shop", 1, 1, "secret");
    other.derives().await;
    assert_eq!(other.role("shop").accepted_numbers().len(), 1, "the old one is refused here too");
}

#[tokio::test]
async fn the_first_login_of_a_user_is_told() {
    let mut stage = Stage::new("first", RULE);
    stage.learns("shop").await;
    let (commands, mut told) = mpsc::unbounded_channel();
    let manager = CredentialManager { shared: Arc::clone(&stage.task.shared), commands };
    let matched = MatchedPassword { generation: 1, rank: PasswordRank::Newest };
    let clients = [manager.logged_in("shop", matched), manager.logged_in("shop", matched)];
    assert!(clients.iter().all(Option::is_some));
    let command = told.try_recv().expect("it is told");
    assert!(matches!(&command, Command::FirstLogin(user) if **user == *"shop"), "{command:?}");
    assert!(told.try_recv().is_err(), "it is told again");
    assert!(!stage.role("shop").is_served());
    stage.task.handle_command(command);
    assert!(stage.role("shop").is_served());
}

#[tokio::test]
async fn rotation_12_a_password_that_another_replica_has_seen_is_accepted_and_23_revoked() {
    let (mut ahead, mut behind) = (Stage::new("ahead", SHOP), Stage::new("behind", SHOP));
    meet(&mut ahead, &mut behind);
    ahead.answers("shop", 1, 1, "old");
    ahead.derives().await;
    ahead.task.share();
    tell(&ahead, &mut behind);
    behind.answers("shop", 1, 1, "old");
    behind.derives().await;
    ahead.answers("shop", 2, 2, "new");
    ahead.derives().await;
    ahead.task.share();
    tell(&ahead, &mut behind);
    assert_eq!(behind.role("shop").accepted_numbers().len(), 2, "old and new");
    assert!(behind.role("shop").next_fetch(Instant::now()).is_some_and(|at| at <= Instant::now()));
    let (reply, said) = oneshot::channel();
    ahead.task.handle_command(Command::RevokeOld("shop".into(), reply));
    ahead.task.share();
    assert_eq!(said.await, Ok(Ok(())));
    tell(&ahead, &mut behind);
    assert_eq!(behind.role("shop").accepted_numbers().len(), 1);
    // Its source still has the old one.
    behind.answers("shop", 2, 2, "old");
    assert_eq!(behind.role("shop").accepted_numbers().len(), 1);
}
