//! State that a function makes which nobody sees in the text: the kind of case 19 for what
//! cannot move, under `verify = "calls"` and `verify = "always"`.

use pgimbal_tests::{After, Pipeline, Script, Shape, Stage};

/// A function for each kind of state, by its own name, and triggers and views that call them.
const SET_UP: &str = "\
    create function does(text) returns int language plpgsql as \
    $$begin execute $1; return 1; end$$; \
    create function quietly(text) returns int immutable language plpgsql as \
    $$begin execute $1; return 1; end$$; \
    create function by_trigger() returns trigger language plpgsql as \
    $$begin execute new.deed; return new; end$$; \
    create table deeds (deed text); grant all on deeds to public; \
    create trigger deed before insert on deeds for each row execute function by_trigger(); \
    create view listening as select does('LISTEN hidden'); grant all on listening to public; \
    create table guarded (id int); insert into guarded values (1); \
    grant all on guarded to public; alter table guarded enable row level security; \
    create policy guard on guarded using (does('CREATE TEMP TABLE IF NOT EXISTS t (x int)') = 1)";

/// What is done there.
const DEEDS: [&str; 5] = [
    "CREATE TEMP TABLE t (x int)",
    "LISTEN hidden",
    "SELECT pg_advisory_lock(7)",
    "PREPARE hidden AS SELECT 1",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS ''SELECT 1''",
];

fn stage(word: &str) -> Stage {
    Stage::with(SET_UP, |config| config.set("verify", format!("\"{word}\"")))
}

#[test]
fn state_hidden_in_a_function_that_is_called() {
    let stage = stage("calls");
    for deed in DEEDS {
        for steps in [
            &[&*format!("SELECT does('{deed}')")][..],
            &["BEGIN", &format!("SELECT does('{deed}')"), "COMMIT"],
            &["BEGIN", &format!("SELECT does('{deed}')"), "ROLLBACK"],
            &[&format!("SELECT does('{deed}'), 1/(id-id) FROM accounts")],
        ] {
            stage.compare_steps(steps, After::MayStay);
        }
    }
}

#[test]
fn state_hidden_and_gone_again_keeps_nobody() {
    let stage = stage("calls");
    for steps in [
        &["SELECT does('CREATE TEMP TABLE t (x int)')", "SELECT does('DROP TABLE t')"][..],
        &["SELECT does('SELECT pg_advisory_lock(7)')", "SELECT pg_advisory_unlock(7)"],
        &["SELECT does('SELECT 1')"],
    ] {
        stage.compare_steps(steps, After::Free);
    }
}

#[test]
fn state_hidden_in_a_function_that_runs_when_it_is_planned() {
    let stage = stage("calls");
    let sql = "SELECT 1 FROM accounts WHERE id = quietly('SELECT pg_advisory_lock(7)')";
    stage.compare_steps(&[&format!("EXPLAIN {sql}")], After::MayStay);
    let bound = Pipeline::new().parse("", sql).bind("", "", &[]).sync();
    let script = Script::default().messages(bound, 1);
    stage.compare_in(&[Shape::Queries], &script, After::MayStay);
}

#[test]
fn state_hidden_in_triggers_views_and_policies() {
    let stage = stage("always");
    for deed in DEEDS {
        stage.compare_steps(&[&format!("INSERT INTO deeds VALUES ('{deed}')")], After::MayStay);
    }
    stage.compare_steps(&["SELECT * FROM listening"], After::MayStay);
    stage.compare_steps(&["SELECT * FROM guarded"], After::MayStay);
    stage.compare_steps(&["BEGIN", "SELECT * FROM listening", "ROLLBACK"], After::Free);
    stage.compare_steps(&["SELECT * FROM listening", "UNLISTEN hidden"], After::Free);
}
