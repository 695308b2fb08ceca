use std::collections::BTreeSet;

use super::token::Lease;
use super::*;
use crate::source::scratch::Directory;

/// A Vault whose approle and kubernetes logins make `s.made1`, `s.made2`, …, and which knows the
/// tokens that live.
#[derive(Clone, Default)]
struct Tokens {
    living: Arc<std::sync::Mutex<BTreeSet<String>>>,
    made: Arc<AtomicU64>,
    lease: u64,
    renewal: u64,
    is_denied: bool,
}

impl Tokens {
    fn kill_all(&self) {
        self.living.lock().expect("tokens").clear();
    }

    fn give(&self, token: &str) {
        self.living.lock().expect("tokens").insert(token.to_owned());
    }

    fn lives(&self, asked: &Received) -> bool {
        let token = asked.header("x-vault-token").unwrap_or_default();
        self.living.lock().expect("tokens").contains(token)
    }

    async fn serve(&self) -> Server {
        let tokens = self.clone();
        Server::start(move |asked: &Received| tokens.answer(asked)).await
    }

    fn answer(&self, asked: &Received) -> Reply {
        let path = asked.path();
        if path.ends_with("/login") {
            let token = format!("s.made{}", self.made.fetch_add(1, Ordering::Relaxed) + 1);
            self.give(&token);
            return Reply::json(
                200,
                &format!(
                    r#"{{"auth":{{"client_token":"{token}","lease_duration":{},"renewable":true}}}}"#,
                    self.lease
                ),
            );
        }
        let denied = Reply::json(403, r#"{"errors":["permission denied"]}"#);
        if path != "/v1/sys/health" && !self.lives(asked) {
            return denied;
        }
        match path {
            "/v1/auth/token/renew-self" => Reply::json(
                200,
                &format!(
                    r#"{{"auth":{{"client_token":"s.made","lease_duration":{},"renewable":true}}}}"#,
                    self.renewal
                ),
            ),
            "/v1/auth/token/revoke-self" => {
                let token = asked.header("x-vault-token").unwrap_or_default();
                self.living.lock().expect("tokens").remove(token);
                Reply::json(204, "")
            }
            _ if path.contains("/static-creds/") && self.is_denied => denied,
            _ => healthy(asked),
        }
    }
}

fn approle(server: &Server) -> VaultConfig {
    let mut config = config(&[&server.url]);
    config.login = VaultLogin::AppRole;
    config.role_id = Some("id".to_owned());
    config.secret_id = Some(Secret::from("hunter2"));
    config
}

/// Puts a token in place that was made `age` ago.
async fn install(client: &VaultClient, token: &str, lease: u64, age: u64) {
    let lease = Lease { ttl: Some(Duration::from_secs(lease)), renewable: true };
    let since = Instant::now() - Duration::from_secs(age);
    let serial = client.serial.fetch_add(1, Ordering::Relaxed);
    let token = Token::new(Secret::from(token), serial, lease, since);
    *client.token.lock().await = Some(Arc::new(token));
}

#[tokio::test]
async fn approle_logs_in_with_role_and_secret_at_its_mount() {
    let server = Tokens::default().serve().await;
    let mut config = approle(&server);
    config.login_mount = Some("team/approle".to_owned());
    config.namespace = Some("team".to_owned());
    client(&config).read("app").await.expect("an answer");
    let asked = server.last("/v1/auth/team/approle/login");
    assert_eq!(asked.body, serde_json::json!({ "role_id": "id", "secret_id": "hunter2" }));
    assert_eq!(asked.header("x-vault-token"), None);
    assert_eq!(asked.header("x-vault-namespace"), Some("team"));
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!(server.last("/app").header("x-vault-token"), Some("s.made1"));
}

#[tokio::test]
async fn files_of_a_login_are_read_at_every_login() {
    let (directory, tokens) = (Directory::new(), Tokens::default());
    let server = tokens.serve().await;
    let mut by_secret = approle(&server);
    by_secret.secret_id = None;
    by_secret.secret_id_file = Some(directory.path("secret"));
    let mut by_jwt = config(&[&server.url]);
    by_jwt.login = VaultLogin::Kubernetes;
    by_jwt.kubernetes_role = Some("pgimbal".to_owned());
    by_jwt.kubernetes_jwt_file = directory.path("secret");
    for (config, field, end) in
        [(by_secret, "secret_id", "approle/login"), (by_jwt, "jwt", "kubernetes/login")]
    {
        let client = client(&config);
        for secret in ["hunter2-one", "hunter2-two"] {
            directory.file("secret", format!("{secret}\n"));
            tokens.kill_all();
            client.read("app").await.expect("an answer");
            assert_eq!(server.last(end).body[field], secret);
        }
        assert_eq!(server.count(end), 2);
    }
    assert_eq!(server.last("kubernetes/login").body["role"], "pgimbal");
}

#[tokio::test]
async fn a_token_file_is_read_again_when_the_token_is_refused() {
    let (directory, tokens) = (Directory::new(), Tokens::default());
    let server = tokens.serve().await;
    let mut config = config(&[&server.url]);
    config.login = VaultLogin::TokenFile;
    config.token_file = Some(directory.file("token", "s.given1\n"));
    tokens.give("s.given1");
    let client = client(&config);
    client.read("app").await.expect("the first token");
    tokens.kill_all();
    tokens.give("s.given2");
    directory.file("token", "s.given2");
    client.read("app").await.expect("the second token");
    tokens.kill_all();
    let error = client.read("app").await.expect_err("a dead token");
    assert_eq!(error.result_label(), "token_refused", "{}", texts(&error));
    let gone = directory.path("token");
    std::fs::remove_file(&gone).expect("a removal");
    let config = VaultConfig { token_file: Some(gone.clone()), ..config };
    let error = VaultClient::new("main", &config).expect("a client").read("app").await;
    let error = error.expect_err("no file");
    assert!(error.to_string().contains(&gone.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_dead_token_is_replaced_by_one_login_for_all() {
    let tokens = Tokens::default();
    let server = tokens.serve().await;
    let client = Arc::new(client(&approle(&server)));
    client.read("app").await.expect("an answer");
    tokens.kill_all();
    let mut reads = tokio::task::JoinSet::new();
    for role in 0..50 {
        let client = Arc::clone(&client);
        reads.spawn(async move { client.read(&format!("role{role}")).await.map(|_| ()) });
    }
    assert!(reads.join_all().await.iter().all(Result::is_ok));
    assert_eq!(server.count("/login"), 2);
    assert_eq!(server.count("/revoke-self"), 0, "a dead token needs no end");
}

#[tokio::test]
async fn a_policy_that_is_missing_is_named_after_one_more_login_at_most() {
    let server = Tokens { is_denied: true, ..Tokens::default() }.serve().await;
    let mut config = approle(&server);
    config.mount = "db/eu".to_owned();
    let client = client(&config);
    for _ in 0..5 {
        let error = client.read("app").await.expect_err("no permission");
        let policy = "path \"db/eu/static-creds/app\" { capabilities = [\"read\"] }";
        assert_eq!(error.hint().as_deref(), Some(policy));
        assert!(texts(&error).contains("vault main, role app: permission denied"), "{error}");
    }
    assert_eq!(server.count("/login"), 1, "the token was fresh");
}

#[tokio::test]
async fn an_old_token_is_replaced_once_since_policies_may_have_come() {
    let tokens = Tokens { is_denied: true, ..Tokens::default() };
    let server = tokens.serve().await;
    let client = client(&approle(&server));
    tokens.give("s.old");
    install(&client, "s.old", 3600, 90).await;
    for _ in 0..5 {
        let error = client.read("app").await.expect_err("no permission");
        assert_eq!(error.result_label(), "permission_denied");
    }
    assert_eq!(server.count("/login"), 1);
    assert_eq!(server.last("/revoke-self").header("x-vault-token"), Some("s.old"));
    assert_eq!(server.last("/app").header("x-vault-token"), Some("s.made1"));
}

#[tokio::test]
async fn a_given_token_that_is_dead_is_blamed_itself() {
    let server = Tokens::default().serve().await;
    let error = client(&config(&[&server.url])).read("app").await.expect_err("a dead token");
    assert_eq!(error.result_label(), "token_refused", "{}", texts(&error));
}

#[tokio::test]
async fn a_given_token_without_the_policy_is_told_so() {
    let tokens = Tokens { is_denied: true, ..Tokens::default() };
    tokens.give("s.given");
    let server = tokens.serve().await;
    let error = client(&config(&[&server.url])).read("app").await.expect_err("no permission");
    assert_eq!(error.result_label(), "permission_denied", "{}", texts(&error));
}

#[tokio::test]
async fn a_token_is_renewed_while_that_lengthens_its_life_and_then_replaced() {
    for (renewal, expected) in [(3600, "s.old"), (10, "s.made1")] {
        let tokens = Tokens { renewal, lease: 3600, ..Tokens::default() };
        let server = tokens.serve().await;
        let client = client(&approle(&server));
        tokens.give("s.old");
        install(&client, "s.old", 60, 45).await;
        for _ in 0..3 {
            client.read("app").await.expect("an answer");
            assert_eq!(server.last("/app").header("x-vault-token"), Some(expected));
        }
        assert_eq!(server.count("/renew-self"), 1);
        assert_eq!(server.count("/login"), usize::from(expected != "s.old"));
    }
}

#[tokio::test]
async fn a_token_past_its_end_is_not_even_tried() {
    let tokens = Tokens { lease: 3600, ..Tokens::default() };
    let server = tokens.serve().await;
    let client = client(&approle(&server));
    install(&client, "s.old", 60, 61).await;
    client.read("app").await.expect("an answer");
    assert!(server.asked().iter().all(|asked| asked.header("x-vault-token") != Some("s.old")));
}

#[tokio::test]
async fn a_renewal_that_fails_leaves_the_token_in_use() {
    let server = Server::start(|asked: &Received| match asked.path() {
        "/v1/auth/token/renew-self" | "/v1/auth/approle/login" => Reply::json(500, "{}"),
        _ => healthy(asked),
    })
    .await;
    let client = client(&approle(&server));
    install(&client, "s.old", 60, 45).await;
    for _ in 0..3 {
        client.read("app").await.expect("an answer with the old token");
    }
    assert_eq!(server.count("/renew-self"), 1);
}

#[tokio::test]
async fn a_login_that_is_refused_is_not_tried_by_each_role() {
    for (status, body, says) in [
        (400, r#"{"errors":["invalid role or secret ID"]}"#, "invalid role or secret ID"),
        (403, r#"{"errors":["bad secret hunter2"]}"#, "left out"),
        (404, "{}", "no reason"),
        (200, "{}", "auth is missing"),
        (200, r#"{"auth":{"lease_duration":9}}"#, "no usable token"),
        (200, r#"{"auth":{"client_token":"a\nb"}}"#, "no usable token"),
    ] {
        let server = Server::start(move |asked: &Received| match asked.path() {
            "/v1/auth/approle/login" => Reply::json(status, body),
            _ => healthy(asked),
        })
        .await;
        let client = Arc::new(client(&approle(&server)));
        let mut reads = tokio::task::JoinSet::new();
        for role in 0..100 {
            let client = Arc::clone(&client);
            reads.spawn(async move { client.read(&format!("role{role}")).await.map(|_| ()) });
        }
        for outcome in reads.join_all().await {
            let text = texts(&outcome.expect_err("a refused login"));
            assert!(text.contains(says) && text.contains("vault main"), "{text}");
        }
        let logins = server.count("/login");
        assert!(logins <= 2, "{logins} logins for 100 roles");
    }
}

#[tokio::test]
async fn a_login_that_is_refused_again_and_again_is_tried_ever_less_often() {
    let server = Server::start(|_: &Received| Reply::json(400, "{}")).await;
    let client = client(&approle(&server));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        client.read("app").await.expect_err("a refused login");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // At least 100, 200, 400 and 800 ms lie between them; without growth there would be ten.
    let logins = server.count("/login");
    assert!((2..=5).contains(&logins), "{logins} logins");
}

#[tokio::test]
async fn what_a_login_lacks_is_named() {
    let base = config(&["http://vault"]);
    let with = |login| VaultConfig { login, token: None, ..base.clone() };
    for (login, key) in [
        (VaultLogin::Token, "vaults.main.token"),
        (VaultLogin::TokenFile, "vaults.main.token_file"),
        (VaultLogin::AppRole, "vaults.main.role_id"),
        (VaultLogin::Kubernetes, "vaults.main.kubernetes_role"),
    ] {
        let error = VaultClient::new("main", &with(login)).expect_err(key);
        assert!(error.to_string().starts_with(&format!("{key}: ")), "{error}");
    }
}
