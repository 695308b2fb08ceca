use std::path::PathBuf;

use pgimbal_auth::Answer;
use pgimbal_config::{Overrides, Secret, load};

use super::super::fetch::Fetched;
use super::super::questions::Origin;
use super::*;

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
        let (salts, shared) = (SaltKey::new([7; 32]), Arc::new(Shared::new(true)));
        let workers: Arc<[mpsc::UnboundedSender<Message>]> = Arc::new([]);
        let downgraded = commands.downgrade();
        let mut task = Task::new(config, sources, salts, workers, shared, downgraded);
        task.follow_config();
        Self { task, place, _commands: commands }
    }

    fn role(&mut self, name: &str) -> &mut Role {
        self.task.roles.get_mut(name).expect("the role")
    }

    /// The source of `name` answers question `serial`, while `asked` is the one that is out.
    fn answers(&mut self, name: &str, asked: u64, serial: u64, password: &str) {
        self.role(name).asked = Some(asked);
        let result = Answer::new("place", Secret::from(password));
        let (role, sent) = (name.into(), Instant::now());
        self.task.fetched(Fetched { role, serial, sent, kind: "file", result });
    }

    /// A verifier is made.
    async fn derives(&mut self) {
        let derived = self.task.derivations.next().await.expect("one is being made");
        self.task.derived(derived.expect("a verifier"));
    }

    fn reload(&mut self, users: &str) {
        let config = config(&self.place, users);
        let sources = Box::new(Sources::new(&config).expect("sources"));
        self.task.obey(Command::Reload(config, sources, oneshot::channel().0));
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
    stage.task.obey(Command::RevokeOld("shop".into(), reply));
    assert!(said.try_recv().is_err(), "the old password is still accepted");
    stage.derives().await;
    let accepted: Vec<u32> = stage.role("shop").ledger.generations().map(|one| one.0).collect();
    assert_eq!(accepted, [2]);
    stage.task.memory.save(&stage.task.roles, Instant::now());
    assert_eq!(said.try_recv(), Ok(Ok(())));
}

#[tokio::test]
async fn rotation_13_a_wrong_password_for_nobody_waits_for_another_roles_answer() {
    let mut stage = Stage::new("stranger", SHOP);
    let (reply, mut told) = oneshot::channel();
    stage.task.obey(Command::Mismatch("nobody".into(), Origin::Unix, reply));
    assert!(told.try_recv().is_ok(), "there is nobody to ask about");
    stage.answers("shop", 1, 1, "old");
    stage.derives().await;
    let (reply, mut told) = oneshot::channel();
    stage.task.obey(Command::Mismatch("nobody".into(), Origin::Unix, reply));
    assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    assert!(stage.role("shop").rotation.schedule.begin(Instant::now()));
    stage.answers("shop", 2, 2, "old");
    assert!(told.try_recv().is_ok());
}

#[tokio::test]
async fn an_answer_to_a_question_of_before_means_nothing() {
    let mut stage = Stage::new("late", SHOP);
    stage.answers("shop", 2, 1, "another place's");
    assert_eq!(stage.role("shop").rotation.known(), 0);
    assert_eq!(stage.role("shop").asked, Some(2));
}

#[tokio::test]
async fn a_reload_lists_a_user_that_only_a_rule_knew_and_the_other_way_round() {
    let mut stage = Stage::new("listed", RULE);
    assert!(stage.task.ensure("shop").is_some_and(|role| !role.is_listed));
    stage.reload(&format!("{RULE}{SHOP}"));
    assert!(stage.role("shop").is_listed);
    stage.reload(RULE);
    assert!(!stage.role("shop").is_listed);
}

#[tokio::test]
async fn rotation_17_a_role_that_found_no_room_is_asked_about_before_one_that_has_just_been() {
    let users: String =
        (10..40).map(|n| format!("[users.u{n}]\npassword_file = 'DIR/{n}'\n")).collect();
    let mut stage = Stage::new("room", &users);
    stage.task.work();
    let first = stage.task.starved.front().cloned().expect("there is no room for all");
    let done = stage.task.fetches.next().await.expect("one is out").expect("an answer");
    let again = Arc::clone(&done.role);
    assert!(again < first, "by name it would come first");
    stage.task.fetched(done);
    stage.role(&again).rotation.schedule.restart(Instant::now());
    stage.task.work();
    assert!(stage.role(&first).asked.is_some());
    assert_eq!(stage.role(&again).asked, None);
    assert_eq!(stage.task.starved.back(), Some(&again));
}
