use super::*;

fn reply(body: &str) -> Reply {
    Reply { status: 200, body: Zeroizing::new(body.as_bytes().to_vec()), retry_after: None }
}

fn answer(data: &str) -> Result<SourcePassword, SourceError> {
    let reply = reply(&format!("{{\"data\":{data}}}"));
    let envelope: Envelope<RoleData> = reply.envelope("v")?;
    envelope.data.unwrap_or_default().into_answer("v")
}

#[test]
fn every_field_of_a_role_is_read() {
    let answer = answer(
        r#"{"username":"app","password":"p","ttl":17,"rotation_period":86400,
            "last_vault_rotation":"2025-03-01T12:00:00.5+01:00","rotation_window":null}"#,
    )
    .expect("an answer");
    assert_eq!(answer.username.as_deref(), Some("app"));
    assert_eq!(answer.password.expose(), "p");
    assert_eq!(answer.ttl, Some(Duration::from_secs(17)));
    assert_eq!(answer.rotation_period, Some(Duration::from_secs(86_400)));
    let expected = SystemTime::UNIX_EPOCH + Duration::from_millis(1_740_826_800_500);
    assert_eq!(answer.rotated_at, Some(expected));
}

#[test]
fn openbao_calls_the_rotation_its_own() {
    let openbao = answer(r#"{"password":"p","last_openbao_rotation":"2025-03-01T11:00:00Z"}"#);
    let vault = answer(r#"{"password":"p","last_vault_rotation":"2025-03-01T11:00:00Z"}"#);
    assert!(openbao.as_ref().is_ok_and(|answer| answer.rotated_at.is_some()));
    assert_eq!(openbao, vault);
}

#[test]
fn only_the_password_is_needed() {
    for data in [
        r#"{"password":"p"}"#,
        r#"{"password":"p","username":null,"ttl":null,"last_vault_rotation":null}"#,
        r#"{"password":"p","username":7,"ttl":"soon","rotation_period":[1],"new":{"a":[{}]}}"#,
        r#"{"password":"p","username":"","ttl":1e99,"last_vault_rotation":"yesterday"}"#,
        r#"{"password":"p","last_vault_rotation":"0001-01-01T00:00:00Z","rotation_period":0}"#,
    ] {
        let answer = answer(data).expect(data);
        let expected = SourcePassword::new("v", Secret::from("p")).expect("an answer");
        assert_eq!(answer, expected, "{data}");
    }
}

#[test]
fn a_ttl_may_be_a_fraction_a_text_or_negative() {
    for (ttl, expected) in [("4.5", 4500), ("\"30\"", 30_000), ("-3", 0), ("0", 0)] {
        let answer = answer(&format!("{{\"password\":\"p\",\"ttl\":{ttl}}}")).expect(ttl);
        assert_eq!(answer.ttl, Some(Duration::from_millis(expected)), "{ttl}");
    }
}

#[test]
fn odd_passwords_come_through_as_they_are() {
    let long = "k".repeat(10_240);
    for password in ["it's \"quoted\"\\", "two\nlines\r\n", " é\u{1F511}\u{7f}", &long] {
        let data = serde_json::json!({ "password": password }).to_string();
        assert_eq!(answer(&data).expect("an answer").password.expose(), password);
    }
}

#[test]
fn what_is_wrong_is_said_and_never_quoted() {
    for (body, cause) in [
        ("", "is empty"),
        ("hunter2", "not JSON"),
        (r#"{"data":{"password":"hunter2"#, "not JSON"),
        ("\u{feff}\0\u{1}", "not JSON"),
        (" <html>hunter2</html>", "web page"),
        (r#"{"data":"hunter2"}"#, "another type"),
        (r#"["hunter2"]"#, "another type"),
        (r#"{"data":null}"#, "password is missing"),
        (r#"{"data":{"username":"hunter2"}}"#, "password is missing"),
        (r#"{"data":{"password":{"is":"hunter2"}}}"#, "password is not a text"),
        (r#"{"data":{"password":12345}}"#, "password is not a text"),
        (r#"{"data":{"password":"hunter2","password":"hunter2"}}"#, "another type"),
        (r#"{"data":{"password":""}}"#, "it is empty"),
        ("{\"data\":{\"password\":\"hunter2\\u0000\"}}", "NUL"),
    ] {
        let reply = reply(body);
        let error = reply
            .envelope::<RoleData>("v")
            .and_then(|envelope| envelope.data.unwrap_or_default().into_answer("v"))
            .expect_err(body);
        let text = format!("{error} {error:?}");
        assert!(text.contains(cause), "{body}: {text}");
        assert!(!text.contains("hunter2") && !text.contains("12345"), "{text}");
    }
}

#[test]
fn a_complaint_is_one_short_line_without_secrets() {
    let secret = Secret::from("s.token");
    for (body, expected) in [
        (r#"{"errors":["permission denied"]}"#, "permission denied"),
        (
            "{\"errors\":[\"\",\"1 error occurred:\\n\\t* denied\\u0007\\n\\n\"]}",
            "1 error occurred: denied",
        ),
        (r#"{"errors":[]}"#, "no reason is given"),
        (r#"{"errors":7}"#, "no reason is given"),
        ("nothing", "no reason is given"),
        (r#"{"errors":["bad s.token"]}"#, "the reason repeats a secret and is left out"),
    ] {
        assert_eq!(&*reply(body).complaint(&[&secret]), expected, "{body}");
    }
    let long = format!("{{\"errors\":[\"{}\"]}}", "x".repeat(5000));
    assert_eq!(reply(&long).complaint(&[]).len(), 200);
}
