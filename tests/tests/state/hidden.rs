//! State that a function makes which nobody sees in the text: the kind of case 19 for what
//! cannot move, under `verify = "calls"` and `verify = "always"`.

use pgimbal_tests::{Comparison, ConnectionExpectation, Pipeline, Script, Shape};

/// A function for each kind of state, by its own name, and triggers and views that call them.
const SET_UP: &str = "\
    create function does(text) returns int language plpgsql as \
    $$begin execute $1; return 1; end$$; \
    create function quietly(text) returns int immutable language plpgsql as \
    $$begin execute $1; return 1; end$$; \
    create function by_trigger() returns trigger language plpgsql as \
    $$begin execute new.action; return new; end$$; \
    create table actions (action text); grant all on actions to public; \
    create trigger action before insert on actions for each row execute function by_trigger(); \
    create view listening as select does('LISTEN hidden'); grant all on listening to public; \
    create table guarded (id int); insert into guarded values (1); \
    grant all on guarded to public; alter table guarded enable row level security; \
    create policy guard on guarded using (does('CREATE TEMP TABLE IF NOT EXISTS t (x int)') = 1)";

/// What is done there.
const ACTIONS: [&str; 5] = [
    "CREATE TEMP TABLE t (x int)",
    "LISTEN hidden",
    "SELECT pg_advisory_lock(7)",
    "PREPARE hidden AS SELECT 1",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS ''SELECT 1''",
];

fn comparison(word: &str) -> Comparison {
    Comparison::with(SET_UP, |config| config.set("verify", format!("\"{word}\"")))
}

#[test]
fn state_hidden_in_a_function_that_is_called() {
    let comparison = comparison("calls");
    for action in ACTIONS {
        for steps in [
            &[&*format!("SELECT does('{action}')")][..],
            &["BEGIN", &format!("SELECT does('{action}')"), "COMMIT"],
            &["BEGIN", &format!("SELECT does('{action}')"), "ROLLBACK"],
            &[&format!("SELECT does('{action}'), 1/(id-id) FROM accounts")],
        ] {
            comparison.compare_steps(steps, ConnectionExpectation::MayStay);
        }
    }
}

#[test]
fn state_hidden_and_gone_again_keeps_nobody() {
    let comparison = comparison("calls");
    for steps in [
        &["SELECT does('CREATE TEMP TABLE t (x int)')", "SELECT does('DROP TABLE t')"][..],
        &["SELECT does('SELECT pg_advisory_lock(7)')", "SELECT pg_advisory_unlock(7)"],
        &["SELECT does('SELECT 1')"],
    ] {
        comparison.compare_steps(steps, ConnectionExpectation::Free);
    }
}

#[test]
fn state_hidden_in_a_function_that_runs_when_it_is_planned() {
    let comparison = comparison("calls");
    let sql = "SELECT 1 FROM accounts WHERE id = quietly('SELECT pg_advisory_lock(7)')";
    comparison.compare_steps(&[&format!("EXPLAIN {sql}")], ConnectionExpectation::MayStay);
    let bound = Pipeline::new().parse("", sql).bind("", "", &[]).sync();
    let script = Script::default().messages(bound, 1);
    comparison.compare_in(&[Shape::Queries], &script, ConnectionExpectation::MayStay);
}

#[test]
fn state_hidden_in_triggers_views_and_policies() {
    let comparison = comparison("always");
    for action in ACTIONS {
        comparison.compare_steps(
            &[&format!("INSERT INTO actions VALUES ('{action}')")],
            ConnectionExpectation::MayStay,
        );
    }
    comparison.compare_steps(&["SELECT * FROM listening"], ConnectionExpectation::MayStay);
    comparison.compare_steps(&["SELECT * FROM guarded"], ConnectionExpectation::MayStay);
    comparison.compare_steps(
        &["BEGIN", "SELECT * FROM listening", "ROLLBACK"],
        ConnectionExpectation::Free,
    );
    comparison.compare_steps(
        &["SELECT * FROM listening", "UNLISTEN hidden"],
        ConnectionExpectation::Free,
    );
}
