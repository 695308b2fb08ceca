//! Every call of a function outside `pg_catalog`.

use super::*;

fn functions(text: &str) -> Classified {
    classify(text.as_bytes(), Readings::One(Reading::default()), Calls::Functions)
}

#[test]
fn calls_of_other_functions_raise_anything() {
    for text in [
        "SELECT f(1)",
        "SELECT \"f\"(1)",
        "SELECT public.upper('x')",
        "SELECT public . upper ('x')",
        "EXPLAIN SELECT f()",
        "SELECT * FROM a JOIN b ON f(a.x, b.y)",
        "SELECT 1 WHERE x LIKE f(1)",
        "SELECT (x).f FROM t",
        "SELECT over(1), key(1)",
        "SELECT filter(1)",
        "SELECT set(1)",
        "SELECT by(1)",
        "SELECT join(1)",
        "SELECT join((SELECT 1))",
        "SELECT * FROM join(1) WITH ORDINALITY",
        "SELECT \"coalesce\"(1)",
        "SELECT \"UPPER\"('x')",
        "UPDATE t SET a = f(1)",
        "UPDATE t SET a = set(1)",
        "INSERT INTO t (a) VALUES (f())",
        "DELETE FROM t WHERE f(a)",
        "WITH x (a) AS (SELECT f()) SELECT 1",
    ] {
        let Steps::One(step) = functions(text).steps else { panic!("{text}") };
        assert_eq!(step.raises, Kinds::ANYTHING, "{text}");
        assert!(step.local, "{text}");
        assert_eq!(classified(text).steps, Steps::Plain, "{text}");
    }
}

#[test]
fn what_is_no_call_or_one_of_the_catalog_is_plain() {
    for text in [
        "SELECT upper('x'), COUNT(*), pg_catalog.lower('X'), \"pg_catalog\".\"md5\"('x')",
        "SELECT coalesce(a, 1), cast(b AS varchar(10)), c::numeric(3,2), greatest(1, 2) FROM t",
        "SELECT * FROM t WHERE a IN (1) AND EXISTS (SELECT 1) OR NOT (b) AND c = ANY (d)",
        "INSERT INTO s.t (a, b) VALUES (1, 2), (3, 4) ON CONFLICT (a) DO UPDATE SET (b) = (2)",
        "WITH RECURSIVE x (a) AS (SELECT 1) SELECT * FROM x AS y (b) JOIN (SELECT 1) z USING (a)",
        "SELECT sum(a) FILTER (WHERE b) OVER (PARTITION BY (c) ORDER BY (d)) FROM t",
        "SELECT extract(epoch FROM a), substring(b FROM 1), position('x' IN c), overlay(a PLACING b)",
        "SELECT a FROM t GROUP BY ROLLUP (a), GROUPING SETS ((a), ())",
        "SELECT a::timestamp(3), b::character varying(3), ARRAY(SELECT 1), ROW(1), left(a, 1)",
        "SELECT * FROM t LEFT JOIN LATERAL (SELECT 1) x ON (true) WHERE x.y = (1)",
        "(SELECT (1)) UNION ALL (SELECT (2))",
    ] {
        assert_eq!(functions(text).steps, Steps::Plain, "{text}");
    }
    for text in [
        "CREATE TABLE s.t (a int PRIMARY KEY, b varchar(3) REFERENCES u (c), UNIQUE (a), CHECK (a > 1))",
        "CREATE TABLE IF NOT EXISTS t (a numeric(3), FOREIGN KEY (a) REFERENCES u (b))",
    ] {
        assert_eq!(functions(text).raises(), Kinds::NONE, "{text}");
    }
    let copy = functions("COPY t (a, b) FROM STDIN WITH (FORMAT csv)");
    assert_eq!(copy.steps, Steps::One(followed(Form::Copy)));
}
