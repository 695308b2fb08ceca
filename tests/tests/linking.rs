use pgimbal_tests::{Pgimbal, Postgres};

#[test]
fn smoke() {
    let pg = Postgres::start();
    let proxy = Pgimbal::before(&pg);
    assert_eq!(proxy.client().value("select 1"), "1");
}
