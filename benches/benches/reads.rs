//! Criterion: whether a text only reads, from the cache and by PostgreSQL's grammar.
//!
//! A decision from the cache costs every statement of a session with `route = "auto"`. What the
//! grammar needs bounds the texts that a worker may parse in its turn (`Lookup::Short`).
#![allow(missing_docs, reason = "criterion's macros generate undocumented items")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pgimbal_pooler::sql::{Encoding, Reading, StandardStrings};
use pgimbal_reads::{Catalog, Decision, Decisions, Limits, Lookup, parse};

const READING: Reading = Reading { strings: StandardStrings::On, encoding: Encoding::Utf8 };

const POINT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";

const JOIN: &str = "WITH recent AS (SELECT id, owner FROM orders WHERE placed > $1 ORDER BY placed \
    DESC LIMIT 20) SELECT o.id, c.name, count(*) FROM recent o JOIN customers c ON c.id = o.owner \
    LEFT JOIN items i ON i.order_id = o.id GROUP BY o.id, c.name ORDER BY o.id";

/// What the ORM of a web application sends for a row with all of its columns.
fn wide() -> String {
    let columns: Vec<_> = (0..16).map(|n| format!("\"shop_customer\".\"column_{n}\"")).collect();
    let columns = columns.join(", ");
    format!("SELECT {columns} FROM \"shop_customer\" WHERE \"shop_customer\".\"id\" = 27 LIMIT 21")
}

/// The longest text that a worker parses itself, made of a beginning and as many of a part as fit.
fn longest(beginning: &str, part: &str) -> String {
    let mut decisions = Decisions::new(Limits::default());
    let mut text = beginning.to_owned();
    loop {
        let longer = text.clone() + part;
        if decisions.lookup(longer.as_bytes(), READING) != Lookup::Short {
            return text;
        }
        text = longer;
    }
}

fn cached(criterion: &mut Criterion) {
    let catalog = Catalog::unread([]);
    for (name, text) in [("point", POINT.to_owned()), ("wide", wide()), ("join", JOIN.to_owned())] {
        let mut decisions = Decisions::new(Limits::default());
        assert_eq!(decisions.decide(text.as_bytes(), READING, &catalog), Decision::Read, "{name}");
        criterion.bench_function(&format!("reads/cached/{name}/{}", text.len()), |bencher| {
            bencher.iter(|| decisions.lookup(black_box(text.as_bytes()), READING));
        });
        // The same text with another literal each time, as drivers send that put values into it.
        let texts: Vec<String> = (0..1000).map(|n| format!("{text} OFFSET {n}")).collect();
        assert_eq!(decisions.decide(texts[0].as_bytes(), READING, &catalog), Decision::Read);
        let mut turn = texts.iter().cycle();
        criterion.bench_function(&format!("reads/normalised/{name}/{}", text.len()), |bencher| {
            bencher.iter(|| decisions.lookup(black_box(turn.next().unwrap().as_bytes()), READING));
        });
    }
    let mut decisions = Decisions::new(Limits::default());
    let text = b"UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2";
    criterion.bench_function("reads/first word/update", |bencher| {
        bencher.iter(|| decisions.lookup(black_box(text), READING));
    });
}

fn parsed(criterion: &mut Criterion) {
    let catalog = Catalog::unread([]);
    for (name, text) in [
        ("point", POINT.to_owned()),
        ("wide", wide()),
        ("join", JOIN.to_owned()),
        ("nested", longest("SELECT a", "+a")),
        ("flat", longest("SELECT a", ",a")),
        ("calls", longest("SELECT a", ",f()")),
        ("cases", longest("SELECT a", ",CASE WHEN a THEN b END")),
        ("joins", longest("SELECT a FROM a", " JOIN b USING (c)")),
        ("names", longest("SELECT a", &format!(",{}", "n".repeat(60)))),
        ("literal", format!("SELECT '{}'", "x".repeat(4000))),
    ] {
        criterion.bench_function(&format!("reads/parsed/{name}/{}", text.len()), |bencher| {
            bencher.iter(|| parse(black_box(text.as_bytes()), READING, &catalog));
        });
    }
}

criterion_group!(benches, cached, parsed);
criterion_main!(benches);
