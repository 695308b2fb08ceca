use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

async fn refused(server: &Server) -> SourceError {
    client(&config(&[&server.url])).read("app").await.expect_err("an error")
}

#[tokio::test]
async fn a_role_is_read_with_the_token_the_namespace_and_nothing_more() {
    let server = Server::start(healthy).await;
    let mut config = config(&[&server.url]);
    config.namespace = Some("team/a".to_owned());
    let answer = client(&config).read("app").await.expect("an answer");
    assert_eq!(answer.username.as_deref(), Some("app"));
    assert_eq!(answer.password.expose(), "secret-of-app");
    let asked = server.last("/static-creds/app");
    assert_eq!((&*asked.method, asked.path()), ("GET", "/v1/database/static-creds/app"));
    assert_eq!(asked.header("x-vault-token"), Some("s.given"));
    assert_eq!(asked.header("x-vault-namespace"), Some("team/a"));
    assert_eq!(asked.header("x-vault-request"), Some("true"));
    assert!(asked.body.is_null());
}

#[tokio::test]
async fn a_mount_of_several_parts_and_a_gateways_path_are_kept() {
    let server = Server::start(|asked: &Received| match asked.path() {
        "/gate/v1/team/db/static-creds/a-b.c@d" => Reply::json(200, r#"{"data":{"password":"p"}}"#),
        "/gate/v1/auth/token/lookup-self" => Reply::json(403, "{}"),
        path => Reply::json(404, &format!(r#"{{"errors":["{path}"]}}"#)),
    })
    .await;
    let mut config = config(&[&format!("{}/gate/", server.url)]);
    config.mount = "/team/db/".to_owned();
    client(&config).read("a-b.c@d").await.expect("an answer");
}

#[tokio::test]
async fn each_status_is_an_error_of_its_own() {
    for (status, health, body, label, says) in [
        (503, 503, r#"{"errors":["Vault is sealed"]}"#, "sealed", "unseal it"),
        (501, 501, "{}", "uninitialised", "operator init"),
        (429, 200, "{}", "rate_limited", "quota"),
        (429, 429, "{}", "standby", "does not forward"),
        (472, 472, "{}", "recovery_secondary", "name its primary"),
        (473, 473, "{}", "performance_standby", "cannot reach its leader"),
        (307, 429, "", "standby", "name its leader"),
        (500, 200, r#"{"errors":["disk full"]}"#, "server_fault", "answers 500: disk full"),
        (400, 200, r#"{"errors":["unknown role: app"]}"#, "unknown_role", "database/static-roles"),
        (400, 200, r#"{"errors":["odd"]}"#, "server_fault", "answers 400: odd"),
        (404, 200, r#"{"errors":["no handler for route"]}"#, "wrong_mount", "\"database\""),
        (405, 200, r#"{"errors":["unsupported operation"]}"#, "wrong_mount", "set `mount`"),
    ] {
        let server = Server::start(with_role(status, health, body)).await;
        let error = refused(&server).await;
        let text = texts(&error);
        assert_eq!(error.result_label(), label, "{status} {health}: {text}");
        assert!(text.contains(says) && text.contains("vault main"), "{text}");
    }
}

#[tokio::test]
async fn health_is_asked_without_token_and_namespace() {
    let server = Server::start(with_role(503, 503, "{}")).await;
    let mut config = config(&[&server.url]);
    config.namespace = Some("team".to_owned());
    client(&config).read("app").await.expect_err("sealed");
    let asked = server.last("/v1/sys/health");
    assert_eq!((asked.header("x-vault-token"), asked.header("x-vault-namespace")), (None, None));
}

#[tokio::test]
async fn a_quota_is_respected_for_as_long_as_it_says() {
    let server = Server::start(|asked: &Received| match asked.path() {
        "/v1/database/static-creds/app" => Reply::json(429, "{}").with("retry-after", "30"),
        _ => healthy(asked),
    })
    .await;
    let client = client(&config(&[&server.url]));
    let first = client.read("app").await.expect_err("a quota");
    assert_eq!(first.retry_after(), Some(Duration::from_secs(30)));
    let count = server.asked().len();
    for role in ["app", "other"] {
        assert_eq!(client.read(role).await.as_ref(), Err(&first));
    }
    assert_eq!(server.asked().len(), count, "nothing more was asked");
}

#[tokio::test]
async fn an_answer_that_is_not_vaults_is_refused_and_not_shown() {
    for (body, says) in [
        ("", "it is empty"),
        ("hunter2", "not JSON"),
        ("<html>hunter2</html>", "web page"),
        (r#"{"data":{"password":"hunter2""#, "not JSON"),
        (r#"{"data":"hunter2"}"#, "another type"),
        (r#"{"data":{"username":"hunter2"}}"#, "password is missing"),
        (r#"{}"#, "password is missing"),
        (r#"{"data":{"password":["hunter2"]}}"#, "not a text"),
        (r#"{"data":{"password":""}}"#, "it is empty"),
    ] {
        let server = Server::start(with_role(200, 200, body)).await;
        let error = refused(&server).await;
        let text = texts(&error);
        assert!(text.contains(says) && text.contains("vault main, role app"), "{body}: {text}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn odd_passwords_arrive_whole() {
    let long = "0123456789".repeat(1024);
    for password in ["it's \"quoted\" \\", "two\nlines\r\n", "é\u{1F511}", &long] {
        let body = serde_json::json!({ "data": { "password": password } }).to_string();
        let server = Server::start(move |asked: &Received| match asked.path() {
            "/v1/database/static-creds/app" => Reply::json(200, &body),
            _ => healthy(asked),
        })
        .await;
        let answer = client(&config(&[&server.url])).read("app").await.expect("an answer");
        assert_eq!(answer.password.expose(), password);
    }
}

#[tokio::test]
async fn an_endless_answer_is_given_up() {
    let server = Server::start(|asked: &Received| match asked.path() {
        "/v1/database/static-creds/app" => Reply::json(200, &" ".repeat(2 << 20)),
        _ => healthy(asked),
    })
    .await;
    assert_eq!(refused(&server).await.result_label(), "too_large");
}

#[tokio::test]
async fn a_vault_that_does_not_answer_is_not_waited_for() {
    let server = Server::start(|_: &Received| Reply::json(200, "{}").after(Duration::MAX)).await;
    let mut config = config(&[&server.url]);
    config.timeout = Duration::from_millis(100);
    let error = client(&config).read("app").await.expect_err("no answer");
    assert_eq!(error.result_label(), "timeout");
    assert!(error.to_string().contains("within 100 ms"), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_is_an_error_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 4096]).await;
            let half =
                b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"data\":{\"password\":\"hunter2";
            let _ = socket.write_all(half).await;
        }
    });
    let error = client(&config(&[&url])).read("app").await.expect_err("half an answer");
    assert_eq!(error.result_label(), "unreachable", "{}", texts(&error));
}

#[tokio::test]
async fn a_role_that_is_no_name_is_never_asked_for() {
    let server = Server::start(healthy).await;
    let client = client(&config(&[&server.url]));
    for role in ["", "..", "a/b", "../creds/app", "a?b", "a#b", "a%2fb", "a b", "-a", "a-", "é"] {
        let error = client.read(role).await.expect_err(role);
        assert_eq!(error.result_label(), "unknown_role", "{role}");
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn health_tells_version_clock_and_fault_of_each_address() {
    let good = Server::start(|_: &Received| {
        Reply::json(200, r#"{"version":"1.21.0","server_time_utc":1740826800}"#)
    })
    .await;
    let sealed = Server::start(|_: &Received| Reply::json(503, r#"{"version":"1.21.0"}"#)).await;
    let health = client(&config(&[&good.url, &sealed.url])).health().await;
    let [good, sealed] = &health[..] else { panic!("{health:?}") };
    assert_eq!(good.version.as_deref(), Some("1.21.0"));
    let clock = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_740_826_800);
    assert_eq!((good.clock, good.fault.is_none()), (Some(clock), true));
    assert_eq!(sealed.fault.as_ref().map(SourceError::result_label), Some("sealed"));
}
