//! What is accepted changes while logins are under way (scenario 24): the question is asked before,
//! and the proof comes after.

use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::wire_client::WireClient;
use pgimbal_tests::{Login, Pgimbal, ServerError};

use super::{WithVault, accepted, admin, eventually_accepted, refused, shop};

const METHODS: [&str; 3] = ["scram-sha-256", "md5", "password"];

/// Logins that lack nothing but the proof.
struct UnderWay(Vec<(WireClient, Vec<u8>)>);

impl UnderWay {
    fn begin(proxy: &Pgimbal, login: &Login) -> Self {
        let begin = || {
            let mut client = proxy.connect();
            let proof = client.up_to_the_proof(login);
            (client, proof)
        };
        Self((0..4).map(|_| begin()).collect())
    }

    /// Sends the proofs; the error that each of them gets.
    fn refused(self) -> Vec<ServerError> {
        let Self(mut clients) = self;
        for (client, proof) in &mut clients {
            client.send(proof);
        }
        clients.iter_mut().map(|(client, _)| client.expect(b'E').error()).collect()
    }

    /// Sends the proofs, which are all right.
    fn accepted(self) {
        for (mut client, proof) in self.0 {
            client.send(&proof);
            let last = client.read_to_end_or_ready().pop();
            assert!(last.is_some_and(|last| last.tag == b'Z'), "refused");
        }
    }
}

fn all_are(errors: &[ServerError], code: &str) {
    for error in errors {
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", code), "{error:?}");
    }
}

#[test]
fn rotation_24_a_revoke_is_obeyed_by_logins_that_have_begun() {
    let setup = WithVault::by_hand();
    for method in METHODS {
        let first = setup.password();
        let proxy = setup.config().set("auth_type", format!("\"{method}\"")).start();
        drop(proxy.log_in(&shop(&first)));
        let second = setup.rotate();
        eventually_accepted(&proxy, 2);
        let old = UnderWay::begin(&proxy, &shop(&first));
        let new = UnderWay::begin(&proxy, &shop(&second));
        admin(&proxy).ok("REVOKE OLD shop");
        all_are(&old.refused(), "28P01");
        new.accepted();
    }
}

#[test]
fn rotation_24_the_end_of_a_grace_is_the_end_for_logins_that_have_begun() {
    let setup = WithVault::by_hand();
    let first = setup.password();
    let proxy = setup.config().set("grace_age", "\"2s\"").start();
    drop(proxy.log_in(&shop(&first)));
    let second = setup.rotate();
    eventually_accepted(&proxy, 2);
    let old = UnderWay::begin(&proxy, &shop(&first));
    let new = UnderWay::begin(&proxy, &shop(&second));
    eventually("the grace ends", SOON, || accepted(&proxy, "shop") == 1);
    all_are(&old.refused(), "28P01");
    new.accepted();
}

#[test]
fn rotation_24_a_reload_is_obeyed_by_logins_that_have_begun() {
    let setup = WithVault::by_hand();
    let with = |tables: &str| setup.config().tables(tables);
    let both = "accept_also = \"elsewhere\"\n[users.fixed]\npassword = \"before\"\n\
                [users.gone]\npassword = \"gone\"\n";
    let mut proxy = with(both).start();
    let logins = [shop("elsewhere"), login("fixed", "before"), login("gone", "gone")];
    let old = logins.each_ref().map(|login| UnderWay::begin(&proxy, login));
    let right = UnderWay::begin(&proxy, &shop(&setup.password()));
    proxy.reload(with("[users.fixed]\npassword = \"after\"\n"));
    // Its answer says that it is done.
    admin(&proxy).ok("RELOAD");
    for old in old {
        all_are(&old.refused(), "28P01");
    }
    right.accepted();
    // And the other way round: what is right when the proof comes is right.
    let early = UnderWay::begin(&proxy, &shop("elsewhere"));
    proxy.reload(with(both));
    admin(&proxy).ok("RELOAD");
    early.accepted();
    assert_eq!(refused(&proxy, &login("fixed", "after")).code, "28P01");
}

#[test]
fn rotation_24_a_grace_that_a_reload_shortens_ends_for_logins_that_have_begun() {
    let setup = WithVault::by_hand();
    let first = setup.password();
    let mut proxy = setup.config().start();
    drop(proxy.log_in(&shop(&first)));
    let second = setup.rotate();
    eventually_accepted(&proxy, 2);
    let old = UnderWay::begin(&proxy, &shop(&first));
    let new = UnderWay::begin(&proxy, &shop(&second));
    proxy.reload(setup.config().set("grace_generations", 1));
    admin(&proxy).ok("RELOAD");
    all_are(&old.refused(), "28P01");
    new.accepted();
}

fn login(user: &str, password: &str) -> Login {
    Login::new(user, "app", password)
}
