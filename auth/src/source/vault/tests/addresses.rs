use tokio::net::TcpListener;

use super::*;

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

#[tokio::test]
async fn another_address_is_used_when_one_cannot_and_then_kept() {
    let sealed = Server::start(with_role(503, 503, "{}")).await;
    let redirecting = Server::start(with_role(307, 429, "")).await;
    let standby = Server::start(with_role(500, 429, "{}")).await;
    for bad in [nobody().await, sealed.url, redirecting.url, standby.url] {
        let good = Server::start(healthy).await;
        let client = client(&config(&[&bad, &good.url]));
        for _ in 0..3 {
            client.read("app").await.expect("the other address");
        }
        assert_eq!(client.addresses.working(), 1);
        assert_eq!(good.count("/static-creds/app"), 3);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_token() {
    let elsewhere = Server::start(healthy).await;
    let location = format!("{}/v1/database/static-creds/app", elsewhere.url);
    let standby = Server::start(move |asked: &Received| match asked.path() {
        "/v1/database/static-creds/app" => Reply::json(307, "").with("location", &location),
        _ => healthy(asked),
    })
    .await;
    let error = client(&config(&[&standby.url])).read("app").await.expect_err("a standby");
    assert_eq!(error.result_label(), "standby");
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn of_several_failures_the_one_that_says_most_is_told() {
    let sealed = Server::start(with_role(503, 503, "{}")).await;
    for order in [[nobody().await, sealed.url.clone()], [sealed.url.clone(), nobody().await]] {
        let error = client(&config(&order.each_ref().map(|url| &**url)))
            .read("app")
            .await
            .expect_err("no address works");
        assert_eq!(error.result_label(), "sealed", "{order:?}");
    }
}

#[tokio::test]
async fn after_a_failure_vault_is_left_alone_and_then_asked_again() {
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let server = Server::start(move |asked: &Received| match is_broken.load(Ordering::Relaxed) {
        true => Reply::json(503, "{}"),
        false => healthy(asked),
    })
    .await;
    let client = client(&config(&[&server.url]));
    for role in 0..100 {
        let error = client.read(&format!("role{role}")).await.expect_err("sealed");
        assert_eq!(error.result_label(), "sealed");
    }
    let asked = server.asked().len();
    assert!(asked <= 8, "{asked} requests for 100 roles");
    broken.store(false, Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.read("app").await.is_err() {
        assert!(Instant::now() < deadline, "never asked again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_refused_at_the_start() {
    for (address, says) in [
        ("vault:8200", "http:// or https://"),
        ("ftp://vault", "http:// or https://"),
        ("http://", "not a URL"),
        ("http://ann:hunter2@vault:8200", "must not hold credentials"),
    ] {
        let error = VaultClient::new("main", &config(&[address])).expect_err(address);
        assert!(texts(&error).contains(says), "{error}");
    }
    assert!(VaultClient::new("main", &config(&[])).is_err());
    let mut odd = config(&["http://vault"]);
    odd.namespace = Some("a\nb".to_owned());
    assert!(VaultClient::new("main", &odd).is_err());
}

#[tokio::test]
async fn a_thousand_roles_share_one_pool_and_one_token() {
    let server = Server::start(|asked: &Received| match asked.path() {
        "/v1/auth/approle/login" => {
            Reply::json(200, r#"{"auth":{"client_token":"s.made","lease_duration":3600}}"#)
        }
        _ => healthy(asked).after(Duration::from_millis(1)),
    })
    .await;
    let mut config = config(&[&server.url]);
    config.login = VaultLogin::AppRole;
    config.role_id = Some("id".to_owned());
    let client = Arc::new(client(&config));
    let mut reads = tokio::task::JoinSet::new();
    for role in 0..1000 {
        let source =
            VaultSource { client: Arc::clone(&client), role: format!("role{role}").into() };
        reads.spawn(async move { source.fetch().await.map(|_| ()) });
    }
    for outcome in reads.join_all().await {
        outcome.expect("an answer");
    }
    assert_eq!(server.count("/login"), 1);
    assert_eq!(server.asked().len(), 1001);
    assert!(server.connections() <= MAX_REQUESTS, "{} connections", server.connections());
}
