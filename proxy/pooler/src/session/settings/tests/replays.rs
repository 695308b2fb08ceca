//! Tables, replays and startup packets.

use super::*;

#[test]
fn equal_sets_have_equal_numbers_and_go_when_nobody_keeps_them() {
    let mut table = table();
    let one = of(&mut table, &[("A", "1"), ("b", "2")]);
    let two = of(&mut table, &[("b", "3"), ("b", "2"), ("a", "1")]);
    assert_eq!(one, two);
    let three = table.with(one, b"b", b"3").expect("few");
    assert_ne!(one, three);
    assert_eq!(table.len(), 2);
    let back = table.without(three, |name| name == b"b");
    let empty = table.without(back, |_| true);
    assert_eq!((shown(&table, back), empty), ("a=1".into(), SettingsId::EMPTY));
    for id in [one, two, three, back, empty] {
        table.release(id);
    }
    assert!(table.is_empty());
}

#[test]
fn random_values_for_ever_do_not_grow_the_table() {
    let mut table = table();
    let mut place = SettingsId::EMPTY;
    for value in 0..10_000 {
        let next = table.with(place, b"application_name", format!("{value}").as_bytes());
        let next = next.and_then(|id| table.with(id, b"a.b", b"c").inspect(|_| table.release(id)));
        table.assign(&mut place, next.expect("few"));
        table.release(place);
        assert!(table.len() <= 4, "{}", table.len());
    }
}

#[test]
fn too_many_settings_are_refused() {
    let mut table = table();
    let mut id = SettingsId::EMPTY;
    for index in 0..64 {
        id = table.with(id, format!("a.b{index}").as_bytes(), b"x").expect("few");
    }
    assert_eq!(table.with(id, b"a.c", b"x"), Err(TooManySettings));
    assert_eq!(table.with(id, b"a.b1", &[b'x'; 17_000]), Err(TooManySettings));
    assert!(table.with(id, b"a.b1", b"y").is_ok());
}

#[test]
fn behaviour_15_what_parsing_depends_on_is_told_from_the_rest() {
    let mut table = table();
    let zone = [("timezone", "UTC"), ("application_name", "x")];
    let one = of(&mut table, &zone);
    let two = of(&mut table, &[("timezone", "UTC"), ("statement_timeout", "5")]);
    let three = of(&mut table, &[("timezone", "CET"), ("application_name", "x")]);
    let neutral = of(&mut table, &[("application_name", "x")]);
    assert_ne!(one, two);
    assert_eq!(table.parse_affecting(one), table.parse_affecting(two));
    assert_ne!(table.parse_affecting(one), table.parse_affecting(three));
    assert_eq!(table.parse_affecting(neutral), SettingsId::EMPTY);
    assert_eq!(shown(&table, table.parse_affecting(one)), "timezone=UTC");
    // The part goes with the last set that has it.
    let part = table.parse_affecting(one);
    assert_eq!(table.parse_affecting(part), part);
    for id in [one, two, three, neutral] {
        table.release(id);
    }
    assert!(table.is_empty());
}

#[test]
fn a_replay_resets_what_is_gone_and_sets_what_differs() {
    let mut table = table();
    let from = of(&mut table, &[("a.b", "1"), ("statement_timeout", "5"), ("timezone", "UTC")]);
    let to =
        of(&mut table, &[("search_path", "\"x\", y"), ("timezone", "O'Brien\\"), ("a.b", "1")]);
    assert_eq!(
        replay(&table, from, to),
        "RESET \"statement_timeout\";\
         SELECT pg_catalog.set_config('search_path','\"x\", y',false);SET \"timezone\" TO E'O''Brien\\\\';"
    );
    assert_eq!(replay(&table, from, from), "");
    assert_eq!(
        replay(&table, SettingsId::EMPTY, from),
        "SET \"a\".\"b\" TO '1';\
        SET \"statement_timeout\" TO '5';SET \"timezone\" TO 'UTC';"
    );
}

#[test]
fn a_list_is_set_by_its_elements_where_that_makes_the_same_list() {
    let set = |list: &str| {
        let mut table = table();
        let to = of(&mut table, &[("search_path", list)]);
        replay(&table, SettingsId::EMPTY, to)
    };
    assert_eq!(set("other, public"), "SET \"search_path\" TO 'other','public';");
    assert_eq!(set("\"$user\", \"a, \"\"b\", c"), "SET \"search_path\" TO '$user','a, \"b','c';");
    for other in ["", "other,public", "Other", "\"x\", y", "user", "a, ", "\"a", "a\"b", "é"] {
        let set = set(other);
        assert!(set.starts_with("SELECT pg_catalog.set_config('search_path',"), "{set}");
    }
}

#[test]
fn the_role_comes_off_first_and_goes_on_last() {
    let mut table = table();
    let from = of(&mut table, &[("role", "a"), ("session_authorization", "b"), ("x.y", "1")]);
    let to = of(&mut table, &[("role", "a"), ("session_authorization", "c"), ("zero", "1")]);
    assert_eq!(
        replay(&table, from, to),
        "RESET \"role\";RESET \"session_authorization\";RESET \"x.y\";SET \"zero\" TO '1';\
         SET \"session_authorization\" TO 'c';SET \"role\" TO 'a';"
            .replace("x.y", "x\".\"y")
    );
}

#[test]
fn what_only_the_server_says_is_never_replayed() {
    let mut table = table();
    let to = of(&mut table, &[("in_hot_standby", "on"), ("is_superuser", "on")]);
    assert_eq!(replay(&table, SettingsId::EMPTY, to), "");
    assert_eq!(replay(&table, to, SettingsId::EMPTY), "");
}

#[test]
fn no_name_or_value_gets_out_of_its_quotes() {
    let mut table = table();
    let to = of(&mut table, &[("a\" TO 1; DROP TABLE t; --", "'; DROP TABLE t; --\\")]);
    assert_eq!(
        replay(&table, SettingsId::EMPTY, to),
        "SET \"a\"\" to 1; drop table t; --\" TO E'''; DROP TABLE t; --\\\\';"
    );
}

#[test]
fn values_beyond_ascii_follow_the_encoding_that_they_are_in() {
    let mut table = table();
    let to =
        of(&mut table, &[("application_name", "Zoë"), ("client_encoding", "UTF8"), ("x", "y")]);
    let mut out = b"before".to_vec();
    let Replay::Two(first, second) = replay_sql(&table, SettingsId::EMPTY, to, &mut out) else {
        panic!("one query");
    };
    assert_eq!(&out[first], b"SET \"client_encoding\" TO 'UTF8';SET \"x\" TO 'y';");
    assert_eq!(&out[second], "SET \"application_name\" TO 'Zoë';".as_bytes());
    let from = of(&mut table, &[("client_encoding", "UTF8")]);
    assert_eq!(replay_sql(&table, from, to, &mut Vec::new()), Replay::One(0..48));
}

#[test]
fn any_replay_leads_where_it_should() {
    const NAMES: [&str; 7] =
        ["a.b", "client_encoding", "role", "search_path", "session_authorization", "timezone", "x"];
    const VALUES: [&str; 5] = ["", "it's", "back\\slash", "\"quoted\", list", "Zoë"];
    for seed in 1..=3_000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut table = table();
        let mut server = Server::default();
        let mut at = SettingsId::EMPTY;
        for _ in 0..8 {
            let settings = (0..random.below(5)).map(|_| {
                let (name, value) = (NAMES[random.below(7)], VALUES[random.below(5)]);
                Setting::new(name.as_bytes(), value.as_bytes())
            });
            let settings = settings.collect();
            let to = table.intern(settings).expect("few");
            let mut out = Vec::new();
            match replay_sql(&table, at, to, &mut out) {
                Replay::Nothing => {}
                Replay::One(all) => server.run(&out[all]),
                Replay::Two(first, second) => {
                    server.run(&out[first]);
                    server.run(&out[second]);
                }
            }
            assert!(server.stands_at(&table, to), "seed {seed}: {}", shown(&table, to));
            table.release(std::mem::replace(&mut at, to));
        }
        table.release(at);
        assert!(table.is_empty(), "seed {seed}");
    }
}

#[test]
fn behaviour_31_equal_startup_values_ask_for_nothing() {
    let defaults: [(&[u8], &[u8]); 5] = [
        (b"client_encoding", b"UTF8"),
        (b"DateStyle", b"ISO, MDY"),
        (b"TimeZone", b"Etc/UTC"),
        (b"application_name", b""),
        (b"standard_conforming_strings", b"on"),
    ];
    let parameters: [(&[u8], &[u8]); 10] = [
        (b"user", b"u"),
        (b"database", b"d"),
        (b"options", b"-c x=y"),
        (b"replication", b"false"),
        (b"_pq_.x", b"y"),
        (b"client_encoding", b"'utf-8'"),
        (b"DATESTYLE", b"iso"),
        (b"TimeZone", b"etc/utc"),
        (b"standard_conforming_strings", b"True"),
        (b"application_name", b""),
    ];
    assert_eq!(normalize_startup(parameters, &defaults), Ok(vec![]));
    let different: [(&[u8], &[u8]); 7] = [
        (b"search_path", b"from options"),
        (b"DateStyle", b"German"),
        (b"client_encoding", b"LATIN1"),
        (b"Extra_Float_Digits", b"2"),
        (b"search_path", b"a, b"),
        (b"application_name", b"X"),
        (b"my.setting", b"1"),
    ];
    let mut table = table();
    let settings = normalize_startup(different, &defaults).expect("names are right");
    let id = table.intern(settings).expect("few");
    assert_eq!(
        shown(&table, id),
        "application_name=X client_encoding=LATIN1 datestyle=German extra_float_digits=2 \
         my.setting=1 search_path=a, b"
    );
}

#[test]
fn what_is_the_servers_to_say_is_refused_at_startup() {
    for name in ["is_superuser", "in_hot_standby"] {
        let refused = normalize_startup([(name.as_bytes(), &b"x"[..])], &[]);
        assert_eq!(refused, Err(StartupError::Fixed(name.into())), "{name}");
    }
}

#[test]
fn a_name_is_written_so_that_it_ends_nothing() {
    let mut table = table();
    let odd = of(&mut table, &[("a;b\"c", "x")]);
    assert_eq!(replay(&table, SettingsId::EMPTY, odd), "SET \"a;b\"\"c\" TO 'x';");
}

#[test]
fn what_goes_goes_before_what_comes() {
    let mut table = table();
    let (from, to) = (of(&mut table, &[("b", "1")]), of(&mut table, &[("a", "1")]));
    assert_eq!(replay(&table, from, to), "RESET \"b\";SET \"a\" TO '1';");
}

#[test]
fn a_value_in_the_databases_encoding_is_written_by_its_bytes() {
    let mut table = table();
    let shown = table.intern(vec![Setting::shown(b"app.x", "é'".as_bytes())]).expect("few");
    let expected = r#"SET "app"."x" TO E'\xc3\xa9''';"#;
    assert_eq!(replay(&table, SettingsId::EMPTY, shown), expected);
}
