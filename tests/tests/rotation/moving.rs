//! An application with a stale password moves to pgimbal without a restart, as
//! docs/from-pgbouncer.md has it.

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Postgres, Vault};

use super::{counted, refused, shop, shop_from};

#[test]
fn rotation_1_an_application_from_another_pooler_keeps_its_password() {
    let pg = Postgres::start();
    pg.run("create role shop login password 'stale'; grant create on schema public to shop");
    let verifier = pg.value("select rolpassword from pg_authid where rolname = 'shop'");
    let vault = Vault::before(&pg);

    // pgimbal in the other pooler's place, with what that one knew: a verifier for clients.
    let before = Config::before(&pg)
        .set("auth_type", "\"scram-sha-256\"")
        .tables(&format!("[users.shop]\npassword = '{verifier}'\nserver_password = 'stale'\n"));
    let mut proxy = before.start();
    let mut application = proxy.log_in(&shop("stale"));
    assert_eq!(application.value("select current_user"), "shop");

    // Vault takes the role over, and the configuration is loaded right after it.
    vault.static_role("shop", 86_400);
    let rule = format!("accept_also = '{verifier}'\n");
    proxy.reload(shop_from(&pg, &vault.table(&vault.reader()), "1s").tables(&rule));
    assert_eq!(application.value("select current_user"), "shop");
    eventually("the new password is accepted too", SOON, || {
        proxy.connect().log_in(&shop(&vault.role("shop").password)).is_ok()
    });

    // A restart of the application, with the password that it always had.
    application = proxy.log_in(&shop("stale"));
    assert_eq!(application.value("select current_user"), "shop");
    // A new server connection needs Vault's password now.
    pg.run("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'shop'");
    eventually("pgimbal has a new server connection", SOON, || {
        let mut client = proxy.log_in(&shop("stale"));
        !client.query("select current_user").texts().is_empty()
    });
    let also = ["user=\"shop\"", "generation=\"also\""];
    assert!(counted(&proxy, "pgimbal_credential_logins_total", &also) >= 2.0);

    // Nobody needs it any more.
    proxy.reload(shop_from(&pg, &vault.table(&vault.reader()), "1s"));
    eventually("the stale password is refused", SOON, || {
        proxy.connect().log_in(&shop("stale")).is_err()
    });
    assert_eq!(refused(&proxy, &shop("stale")).code, "28P01");
}
