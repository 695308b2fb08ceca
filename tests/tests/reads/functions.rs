//! Functions that count as reads because the operator or the session's own settings make them.

use std::time::Duration;

use pgimbal_tests::until::{SOON, eventually};

use super::{HERE, Setup};

/// `audit_noop()` is volatile and writes nothing; `tenants` shows each session its own rows, and
/// `half` asks its server what it is.
const SCHEMA: &str = "\
create function audit_noop() returns text language plpgsql as $$ begin return here(); end $$;
create table tenants (tenant text); insert into tenants values ('a'), ('b'), ('b');
alter table tenants enable row level security;
create policy own on tenants using (tenant = current_setting('app.tenant', true));
create table half (id int); insert into half values (1);
alter table half enable row level security;
create policy server on half using (current_setting('transaction_read_only') <> '');
create table any_name (id int, name text); alter table any_name enable row level security;
create policy any_name on any_name using (current_setting(name) <> '');
create view named as select current_setting('app.tenant') as tenant, here() as here;
grant select on tenants, half, any_name, named to app";

/// Statements that go to a replica only if the operator says so.
const BY_OPTION: [&str; 4] = [
    "select audit_noop()",
    "select here() from half right join (values (1)) v(n) on id = n",
    "select here() from any_name right join (values (1)) v(n) on id = n",
    "select here() from (select current_setting('transaction_read_only')) s",
];

#[test]
fn reads_call_only_well_known_functions_where_the_catalog_is_too_large() {
    let setup = Setup::with_nodes(1, |config, cluster| {
        // The query for the catalog gives two rows of each.
        cluster.nodes[0].run(
            "do $$ begin for i in 1..100500 loop execute format('create function many_%s() \
             returns int language sql volatile as ''select 1''', i); end loop; end $$",
        );
        cluster.settle(0);
        config
    });
    let primary = &setup.ports()[0];
    let mut client = setup.new_client();
    client.set_timeout(Duration::from_secs(60));
    for _ in 0..2000 {
        assert_eq!(client.value(HERE), *primary, "the function is not known");
    }
    let metrics = setup.proxy.metrics();
    assert!(metrics.contains("reason=\"catalog_unread\""), "{metrics}");
    eventually("what calls none is a read", SOON, || {
        client.ok("select name from items");
        let metrics = setup.proxy.metrics();
        metrics.lines().any(|line| line.contains("role=\"replica\"") && line.contains("\"read\""))
    });
}

#[test]
fn reads_call_what_the_operator_lists_and_see_the_settings_of_their_session() {
    let mut kept = None;
    let mut setup = Setup::with(1, |config| {
        kept = Some(config.clone());
        config
    });
    setup.cluster.nodes[0].run(SCHEMA);
    setup.cluster.settle(0);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut client = setup.client();
    let own = "select here() from tenants limit 1";
    for (tenant, rows) in [("a", "1"), ("b", "2"), ("c", "0")] {
        client.ok(&format!("set app.tenant = '{tenant}'"));
        eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
        assert_eq!(client.value("select count(*) from tenants"), rows, "{tenant}");
        assert_eq!(client.query("select tenant, here from named").texts()[0], [tenant, replica]);
        if rows != "0" {
            assert_eq!(client.value(own), *replica, "{tenant}");
        }
    }
    for sql in BY_OPTION {
        // What the primary has run counts as a write, behind which reads are the primary's too.
        eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
        assert_eq!(client.value(sql), *primary, "{sql}");
    }
    // A reload takes it up with the next reading of the catalog, 5 s after the last one.
    let config = kept.expect("a configuration");
    let listed = "read_functions = [\"audit_noop\", \"current_setting\"]";
    setup.proxy.reload(config.clone().tables(listed));
    for sql in BY_OPTION {
        eventually(sql, SOON, || client.value(sql) == *replica);
    }
    setup.proxy.reload(config);
    for sql in BY_OPTION {
        eventually(sql, SOON, || {
            eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
            client.value(sql) == *primary
        });
    }
}
