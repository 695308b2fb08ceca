use pgimbal_config::Secret;

use super::*;
use crate::account::{LoginKeys, PasswordRank, UnusableSecret};
use crate::md5::Md5Hash;
use crate::scram::client::ScramClient;

const RANDOMNESS: LoginRandomness = LoginRandomness { nonce: [5; NONCE_LEN], md5_salt: *b"abcd" };

fn salts() -> SaltKey {
    SaltKey::new([9; 32])
}

fn account(auth_type: AuthType, secrets: &[&str]) -> Account {
    let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::from(*text)).collect();
    Account::new(auth_type, "ann", &secrets.iter().collect::<Vec<_>>(), None, &salts()).unwrap()
}

const fn method(auth_type: AuthType) -> Method {
    Method { auth_type, cleartext_cost: CleartextCost::Digest }
}

/// Logs in with a password; every question asked, and the end.
fn login(
    auth_type: AuthType,
    account: Option<&Account>,
    password: &str,
) -> (Vec<ClientRequest>, Result<(), ClientLoginError>) {
    let (asked, result) = show(auth_type, account, password);
    let result = match result {
        Ok(Shown::Accepted(_)) => Ok(()),
        Ok(Shown::Unmatched(unmatched)) => Err(unmatched.error()),
        Err(error) => Err(error),
    };
    (asked, result)
}

enum Shown {
    Accepted(Accepted),
    Unmatched(UnmatchedProof),
}

/// Shows a password; every question asked, and what came of it.
fn show(
    auth_type: AuthType,
    account: Option<&Account>,
    password: &str,
) -> (Vec<ClientRequest>, Result<Shown, ClientLoginError>) {
    let mut asked = Vec::new();
    let channel = Channel::Plain;
    let begun =
        ClientLogin::begin(method(auth_type), "ann", account, channel, &salts(), RANDOMNESS);
    let mut step = Ok(begun);
    let (mut scram, mechanism, first) = {
        let (state, mechanism, first) = ScramClient::begin(channel, false, [6; NONCE_LEN]);
        (Some(state), mechanism, first)
    };
    loop {
        let (state, request) = match step {
            Ok(Step::Request(state, request)) => (state, request),
            Ok(Step::Accepted(accepted)) => return (asked, Ok(Shown::Accepted(accepted))),
            Ok(Step::Unmatched(unmatched)) => return (asked, Ok(Shown::Unmatched(unmatched))),
            Err(error) => return (asked, Err(error)),
        };
        asked.push(request.clone());
        step = match request {
            ClientRequest::Cleartext => {
                state.answer(Answer::Password(password.as_bytes()), account)
            }
            ClientRequest::Md5(salt) => {
                let answer = Md5Hash::of(password.as_bytes(), b"ann").answer(salt);
                state.answer(Answer::Password(&answer), account)
            }
            ClientRequest::Sasl(_) => {
                let mechanism = mechanism.as_bytes();
                state.answer(Answer::SaslInitial { mechanism, response: &first }, account)
            }
            ClientRequest::SaslContinue(challenge) => {
                let scram = scram.take().unwrap();
                let (_, last) = scram.answer(password.as_bytes(), challenge.as_bytes()).unwrap();
                state.answer(Answer::SaslResponse(&last), account)
            }
        };
    }
}

fn wrong() -> Result<(), ClientLoginError> {
    Err(ClientLoginError::WrongPassword("ann".into()))
}

#[test]
fn every_method_with_every_form_of_secret() {
    let md5 = {
        let answer = Md5Hash::of(b"pw", b"ann");
        assert!(answer.accepts_password(b"pw", b"ann"));
        // md5("pwann")
        "md5c7df1a9b1dc3fd1ac4a2a0e3a20e1d29"
    };
    let scram = ScramVerifier::of_password(b"pw", b"0123456789abcdef", 10).to_text().to_string();
    for (auth_type, secret) in [
        (AuthType::Password, "pw"),
        (AuthType::Password, scram.as_str()),
        (AuthType::Md5, "pw"),
        (AuthType::Md5, scram.as_str()),
        (AuthType::ScramSha256, "pw"),
        (AuthType::ScramSha256, scram.as_str()),
    ] {
        let account = account(auth_type, &[secret]);
        assert_eq!(login(auth_type, Some(&account), "pw").1, Ok(()), "{auth_type:?}");
        assert_eq!(login(auth_type, Some(&account), "wrong").1, wrong(), "{auth_type:?}");
    }
    let refused =
        Account::new(AuthType::ScramSha256, "ann", &[&Secret::from(md5)], None, &salts()).err();
    assert_eq!(refused, Some(UnusableSecret::Md5ForScram));
}

#[test]
fn several_generations_are_accepted() {
    for auth_type in [AuthType::Password, AuthType::Md5, AuthType::ScramSha256] {
        let account = account(auth_type, &["new", "old"]);
        for password in ["new", "old"] {
            assert_eq!(login(auth_type, Some(&account), password).1, Ok(()), "{auth_type:?}");
        }
        assert_eq!(login(auth_type, Some(&account), "older").1, wrong());
    }
    let given = ScramVerifier::of_password(b"new", b"0123456789abcdef", 10).to_text().to_string();
    let account = account(AuthType::ScramSha256, &[&given, "old"]);
    assert_eq!(login(AuthType::ScramSha256, Some(&account), "old").1, Ok(()));
}

#[test]
fn behaviour_39_an_unknown_user_is_asked_the_same_and_refused_the_same() {
    for auth_type in [AuthType::Password, AuthType::Md5, AuthType::ScramSha256] {
        let known = account(auth_type, &["pw"]);
        let without_password = account(auth_type, &[]);
        let expected = login(auth_type, Some(&known), "wrong");
        assert_eq!(login(auth_type, None, "wrong"), expected);
        assert_eq!(login(auth_type, Some(&without_password), "wrong"), expected);
        assert_eq!(login(auth_type, None, "").1, wrong());
    }
}

#[test]
fn trust_asks_nothing() {
    let known = account(AuthType::Trust, &[]);
    assert_eq!(login(AuthType::Trust, Some(&known), ""), (vec![], Ok(())));
    assert_eq!(login(AuthType::Trust, None, ""), (vec![], Ok(())));
}

#[test]
fn an_answer_of_another_kind_is_a_protocol_violation() {
    let account = account(AuthType::ScramSha256, &["pw"]);
    let begin = || {
        ClientLogin::begin(
            method(AuthType::ScramSha256),
            "ann",
            Some(&account),
            Channel::Plain,
            &salts(),
            RANDOMNESS,
        )
    };
    for answer in [Answer::Password(b"pw"), Answer::SaslResponse(b"x")] {
        let Step::Request(state, _) = begin() else { panic!("asks") };
        assert_eq!(state.answer(answer, Some(&account)).unwrap_err().sqlstate(), "08P01");
    }
}

#[test]
fn nothing_secret_is_printed() {
    let account = account(AuthType::Password, &["hunter2"]);
    assert!(!format!("{account:?}").contains("hunter2"));
}

#[test]
fn the_password_that_matched_is_told() {
    let also = ScramVerifier::of_password(b"stale", b"0123456789abcdef", 10).to_text().to_string();
    for (auth_type, also, said) in [
        (AuthType::Password, "stale", "stale"),
        (AuthType::Md5, "stale", "stale"),
        (AuthType::ScramSha256, "stale", "stale"),
        (AuthType::ScramSha256, also.as_str(), "stale"),
        (AuthType::Password, also.as_str(), "stale"),
    ] {
        let newest = Secret::from("new");
        let also = Secret::from(also);
        let account =
            Account::new(auth_type, "ann", &[&newest], Some(&also), &salts()).expect("an account");
        for (password, rank) in [("new", PasswordRank::Newest), (said, PasswordRank::Extra)] {
            let Ok(Shown::Accepted(accepted)) = show(auth_type, Some(&account), password).1 else {
                panic!("{auth_type:?} {password} is refused");
            };
            let matched = Some(MatchedPassword { generation: 0, rank });
            assert_eq!(accepted.matched, matched, "{auth_type:?} {password}");
        }
    }
}

#[test]
fn a_mismatch_is_checked_again_by_an_account_that_knows_more() {
    let salt_parameters = SaltParameters::of_user("ann", [], &salts()).expect("a salt");
    let keys = |password: &str| {
        LoginKeys::derive("ann", &Secret::from(password), &salt_parameters).expect("keys")
    };
    let matched = |generation, rank| MatchedPassword { generation, rank };
    for auth_type in [AuthType::Password, AuthType::Md5, AuthType::ScramSha256] {
        let of = |keys: Vec<(MatchedPassword, LoginKeys)>| {
            Account::of_keys(auth_type, salt_parameters.clone(), keys)
        };
        let before = of(vec![(matched(1, PasswordRank::Newest), keys("old"))]);
        let after = of(vec![
            (matched(2, PasswordRank::Newest), keys("new")),
            (matched(1, PasswordRank::Previous), keys("old")),
        ]);
        // The user may not even have been known when it came.
        for known in [Some(&before), None] {
            let Ok(Shown::Unmatched(unmatched)) = show(auth_type, known, "new").1 else {
                panic!("{auth_type:?} is not known yet");
            };
            assert!(!format!("{unmatched:?}").contains("new"));
            let accepted = unmatched.retry(Some(&after)).expect("it fits now");
            assert_eq!(accepted.matched, Some(matched(2, PasswordRank::Newest)), "{auth_type:?}");
            assert_eq!(accepted.message.is_some(), auth_type == AuthType::ScramSha256);
        }
        let Ok(Shown::Unmatched(unmatched)) = show(auth_type, Some(&before), "wrong").1 else {
            panic!("{auth_type:?} accepts anything");
        };
        let refused = unmatched.retry(Some(&after)).expect_err("it fits nothing");
        assert_eq!(Err(refused), wrong());
    }
}

#[test]
fn a_verifier_alone_checks_clear_passwords_and_proofs() {
    let salt_parameters = SaltParameters::of_user("ann", [], &salts()).expect("a salt");
    for auth_type in [AuthType::Password, AuthType::ScramSha256] {
        let verifier =
            ScramVerifier::of_password(b"old", &salt_parameters.salt, salt_parameters.iterations);
        let previous = MatchedPassword { generation: 1, rank: PasswordRank::Previous };
        let keys = [(previous, LoginKeys::of_verifier(verifier))];
        let account = Account::of_keys(auth_type, salt_parameters.clone(), keys);
        assert_eq!(login(auth_type, Some(&account), "old").1, Ok(()), "{auth_type:?}");
        assert_eq!(login(auth_type, Some(&account), "new").1, wrong(), "{auth_type:?}");
    }
}
