//! Transaction blocks that are lost with segments pipelined behind their BEGIN, and errors that
//! come neither too early nor too often.

use std::time::Duration;

use pgimbal_pooler::topology::NodeState;

use super::failover::{
    LOST, UNKNOWN, at_work, cluster_world, cluster_world_with, dies, promoted, view,
};
use super::{prepare_and_run, segment};
use crate::message as m;

/// Parse, Bind and Execute of a statement without a name, and Sync.
fn run(text: &str) -> Vec<u8> {
    segment(&[m::parse("", text), m::bind("", "", ""), m::execute("", 0)])
}

/// What was heard, errors by their code alone.
fn codes(heard: &[String]) -> Vec<String> {
    let code = |line: &String| match line.strip_prefix("E ") {
        Some(error) => format!("E {}", &error[..5]),
        None => line.clone(),
    };
    heard.iter().map(code).collect()
}

#[test]
fn failover_a_begin_in_flight_is_run_again_before_what_is_pipelined_behind_it() {
    for begin in [m::query("begin"), run("begin")] {
        let mut world = at_work();
        world.say_only(0, &begin);
        dies(&mut world);
        world.settle();
        let rest = ["insert 'c0.1'", "insert 'c0.2'", "rollback"];
        assert_eq!(world.say(0, &rest.map(run).concat()), [""; 0]);
        promoted(&mut world);
        let heard = world.heard(0);
        let told: Vec<_> = heard.iter().filter(|line| line.starts_with(['C', 'Z', 'E'])).collect();
        let block = ["C BEGIN", "Z T", "C INSERT 0 1", "Z T", "C INSERT 0 1", "Z T"];
        assert_eq!(told[..6], block, "{heard:?}");
        assert_eq!(told[6..], ["C ROLLBACK", "Z I"], "{heard:?}");
    }
}

#[test]
fn failover_what_is_in_flight_behind_a_begin_fails_up_to_its_end() {
    let texts = ["begin", "insert 'c0.1'", "insert 'c0.2'", "rollback"];
    for bytes in [texts.map(m::query).concat(), texts.map(run).concat()] {
        let mut world = at_work();
        world.say_only(0, &bytes);
        dies(&mut world);
        promoted(&mut world);
        let heard = codes(&world.heard(0));
        let told: Vec<_> = heard.iter().filter(|line| line.starts_with(['C', 'Z', 'E'])).collect();
        let failed = ["E 57P01", "Z E", "E 25P02", "Z E", "E 25P02", "Z E"];
        assert_eq!(told[..6], failed, "{heard:?}");
        assert_eq!(told[6..], ["C ROLLBACK", "Z I"], "{heard:?}");
        assert_eq!(world.say(0, &m::query("select 'c0.3'"))[1], "D c0.3");
    }
}

#[test]
fn failover_what_comes_later_behind_a_lost_begin_does_not_run_outside_of_a_block() {
    for (end, told) in [("rollback", ["C ROLLBACK", "Z I"]), ("commit", ["E 25P02", "Z I"])] {
        let mut world = at_work();
        world.say_only(0, &["begin", "insert 'c0.1'"].map(m::query).concat());
        dies(&mut world);
        promoted(&mut world);
        assert_eq!(codes(&world.heard(0)), ["E 57P01", "Z E", "E 25P02", "Z E"]);
        let said = world.say(0, &[m::query("insert 'c0.2'"), m::query(end)].concat());
        assert_eq!(codes(&said)[..2], ["E 25P02", "Z E"]);
        assert_eq!(codes(&said)[2..], told, "{end}");
    }
    // The same in one segment, and in one text.
    for bytes in [
        m::query("begin; insert 'c0.1'"),
        segment(&[
            m::parse("b", "begin"),
            m::bind("", "b", ""),
            m::execute("", 0),
            run("insert 'c0.1'"),
        ]),
    ] {
        let mut world = at_work();
        world.say_only(0, &bytes);
        dies(&mut world);
        promoted(&mut world);
        let heard = codes(&world.heard(0));
        assert_eq!(heard[..2], ["E 57P01", "Z E"], "{heard:?}");
        assert_eq!(codes(&world.say(0, &m::query("insert 'c0.2'"))), ["E 25P02", "Z E"]);
    }
}

#[test]
fn failover_a_segment_that_is_open_behind_a_begin_in_flight_goes_nowhere_without_it() {
    let mut world = at_work();
    let open = [m::parse("i", "insert 'c0.1'"), m::bind("", "i", ""), m::execute("", 0)].concat();
    world.say_only(0, &[m::query("begin"), open].concat());
    dies(&mut world);
    promoted(&mut world);
    let mut heard = world.heard(0);
    heard.extend(world.say(0, &m::sync()));
    assert_eq!(codes(&heard), ["E 57P01", "Z E", "E 25P02", "Z E"]);
    assert_eq!(codes(&world.say(0, &m::query("rollback"))), ["C ROLLBACK", "Z I"]);
}

#[test]
fn failover_a_commit_in_the_pipeline_makes_all_of_it_unknown() {
    let mut world = at_work();
    let texts = ["begin", "insert 'c0.1'", "commit", "begin", "insert 'c0.2'"];
    world.say_only(0, &texts.map(m::query).concat());
    dies(&mut world);
    promoted(&mut world);
    let heard = codes(&world.heard(0));
    let errors = heard.iter().filter(|line| *line == "E 08007").count();
    assert_eq!((errors, heard.last().map(String::as_str)), (5, Some("Z E")), "{heard:?}");
    assert_eq!(codes(&world.say(0, &m::query("insert 'c0.3'"))), ["E 25P02", "Z E"]);
    assert_eq!(world.say(0, &m::query("rollback")), ["C ROLLBACK", "Z I"]);
}

#[test]
fn failover_hold_counts_once_for_a_pipeline() {
    let hold = Duration::from_secs(3);
    let mut world = cluster_world_with(1, |config| config.failover_hold = hold);
    world.join(0);
    world.clients[0].disturb();
    dies(&mut world);
    let segments: Vec<_> = (0..5).map(|_| prepare_and_run("", "select $1", "c0.1")).collect();
    assert!(world.say(0, &segments.concat()).is_empty());
    world.pass(hold + Duration::from_millis(200));
    world.settle();
    assert_eq!(codes(&world.heard(0)), ["E 57P03", "Z I"].repeat(5));
    // What comes later waits anew.
    assert!(world.say(0, &m::query("select 'c0.2'")).is_empty());
    promoted(&mut world);
    assert_eq!(world.heard(0)[1], "D c0.2");
}

#[test]
fn failover_what_stands_behind_a_begin_that_nobody_served_does_not_run() {
    let hold = Duration::from_secs(3);
    let named = [m::parse("b", "begin"), m::bind("", "b", ""), m::execute("", 0)].concat();
    for begin in [m::query("begin"), run("begin"), segment(&[named])] {
        let mut world = cluster_world_with(1, |config| config.failover_hold = hold);
        world.join(0);
        world.clients[0].disturb();
        dies(&mut world);
        let rest = ["insert 'c0.1'", "rollback", "insert 'c0.2'"].map(m::query).concat();
        assert!(world.say(0, &[begin, rest].concat()).is_empty());
        world.pass(hold + Duration::from_millis(200));
        world.settle();
        let told = ["E 57P03", "Z E", "E 25P02", "Z E", "C ROLLBACK", "Z I", "E 57P03", "Z I"];
        assert_eq!(codes(&world.heard(0)), told);
        promoted(&mut world);
        assert_eq!(world.say(0, &m::query("select 'c0.3'"))[1], "D c0.3");
    }
    // With nothing behind it, its client is not in a block.
    let mut world = cluster_world_with(1, |config| config.failover_hold = hold);
    world.join(0);
    world.clients[0].disturb();
    dies(&mut world);
    assert!(world.say(0, &m::query("begin")).is_empty());
    world.pass(hold + Duration::from_millis(200));
    world.settle();
    assert_eq!(codes(&world.heard(0)), ["E 57P03", "Z I"]);
}

#[test]
fn failover_a_cancel_is_for_one_segment_of_a_pipeline() {
    let mut world = cluster_world(1);
    world.join(0);
    world.clients[0].disturb();
    dies(&mut world);
    let both = [m::query("select 'c0.1'"), m::query("select 'c0.2'")].concat();
    assert!(world.say(0, &both).is_empty());
    world.cancel_of(0);
    world.settle();
    assert_eq!(codes(&world.heard(0)), ["E 57014", "Z I"]);
    promoted(&mut world);
    assert_eq!(world.heard(0)[1], "D c0.2");
}

#[test]
fn failover_what_commits_on_its_way_is_not_proven_to_be_rolled_back() {
    let words = "terminating connection due to administrator command";
    for (text, told) in [
        ("call archive()", "E 08007"),
        ("do $$ begin commit; end $$", "E 08007"),
        ("/* a */ create index concurrently i on t (a)", "E 08007"),
        ("drop index concurrently i", "E 08007"),
        ("reindex database concurrently d", "E 08007"),
        ("alter table t detach partition p concurrently", "E 08007"),
        ("vacuum", "E 08007"),
        ("cluster", "E 08007"),
        ("create database d template t", "E 08007"),
        ("drop tablespace s", "E 08007"),
        ("alter system set work_mem = '1MB'", "E 08007"),
        ("select 1; call archive()", "E 08007"),
        ("create table t (a int)", "E 57P01"),
        ("alter table t add concurrent int", "E 57P01"),
        ("insert 'c0.1'", "E 57P01"),
    ] {
        for bytes in [m::query(text), run(text)] {
            if text.contains(';') && text.starts_with("select") && bytes[0] == b'P' {
                continue;
            }
            let mut world = cluster_world(1);
            world.join(0);
            // What the database has is asked ahead of such texts.
            world.say(0, &m::query("select set_config('work_mem', '1MB', true)"));
            world.clients[0].disturb();
            world.say_only(0, &bytes);
            world.last_backend().0.die(Some(words));
            world.settle();
            assert_eq!(codes(&world.heard(0)), [told, "Z I"], "{text}");
        }
        // Inside a block it cannot have committed.
        let mut world = cluster_world(1);
        world.join(0);
        world.say(0, &m::query("select set_config('work_mem', '1MB', true)"));
        world.say(0, &m::query("begin"));
        world.clients[0].disturb();
        world.say_only(0, &m::query(text));
        world.last_backend().0.die(Some(words));
        world.settle();
        assert_eq!(codes(&world.heard(0)), ["E 57P01", "Z E"], "{text}");
    }
}

#[test]
fn failover_what_was_only_prepared_goes_on_elsewhere_after_a_flush() {
    let mut world = at_work();
    let prepare = [m::parse("s", "select $1"), m::describe(b'S', "s"), m::flush()].concat();
    assert_eq!(world.say(0, &prepare), ["1", "t", "T"]);
    dies(&mut world);
    world.settle();
    assert!(world.heard(0).is_empty(), "nobody has asked for an error");
    promoted(&mut world);
    assert!(world.heard(0).is_empty());
    let heard = world.say(0, &segment(&[m::bind("", "s", "c0.1"), m::execute("", 0)]));
    assert!(heard.contains(&"D c0.1".to_owned()), "{heard:?}");
}

#[test]
fn failover_an_error_after_a_flush_waits_for_the_next_message() {
    let ran = [m::parse("", "insert 'c0.1'"), m::bind("", "", ""), m::execute("", 0), m::flush()];
    for (next, told) in [
        (m::sync(), vec![LOST, "Z I"]),
        (prepare_and_run("", "select $1", "c0.2"), vec![LOST, "Z I"]),
    ] {
        let mut world = at_work();
        world.say(0, &ran.concat());
        dies(&mut world);
        promoted(&mut world);
        assert!(world.heard(0).is_empty(), "nobody has asked for an error");
        assert_eq!(world.say(0, &next), told);
        assert_eq!(world.say(0, &m::query("select 'c0.3'"))[1], "D c0.3");
    }
    // Inside a block.
    for next in [m::sync(), m::query("select 'c0.2'")] {
        let mut world = at_work();
        world.say(0, &m::query("begin"));
        world.say(0, &ran.concat());
        dies(&mut world);
        promoted(&mut world);
        assert!(world.heard(0).is_empty(), "nobody has asked for an error");
        assert_eq!(world.say(0, &next), [LOST, "Z E"]);
        assert_eq!(codes(&world.say(0, &run("select 'c0.3'"))), ["E 25P02", "Z E"]);
        assert_eq!(world.say(0, &m::query("rollback")), ["C ROLLBACK", "Z I"]);
    }
    // A block that was begun in the segment, whose end is unknown if it was executed.
    let begin = [m::parse("", "begin"), m::bind("", "", ""), m::execute("", 0), m::flush()];
    let mut world = at_work();
    world.say(0, &begin.concat());
    dies(&mut world);
    promoted(&mut world);
    assert!(world.heard(0).is_empty());
    assert_eq!(world.say(0, &m::sync()), [LOST, "Z E"]);
    let commit = [m::parse("", "commit"), m::bind("", "", ""), m::execute("", 0), m::flush()];
    let mut world = at_work();
    world.say(0, &m::query("begin"));
    world.say(0, &commit.concat());
    dies(&mut world);
    promoted(&mut world);
    assert!(world.heard(0).is_empty());
    assert_eq!(world.say(0, &m::sync()), [UNKNOWN, "Z I"]);
    world.see(view(11, Some(1), [NodeState::Down, NodeState::Primary]));
}
