//! A text in pieces is judged as the text in one.

use super::*;

/// xorshift64*: enough to pick pieces.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

const FRAGMENTS: [&[u8]; 57] = [
    b"SELECT",
    b" ",
    b"\n",
    b"\r",
    b";",
    b"SET x = 1",
    b"set_config",
    b"(",
    b")",
    b",",
    b"true",
    b"'",
    b"''",
    b"\\",
    b"E'",
    b"e",
    b"U&'",
    b"U&\"",
    b"u&",
    b"\"",
    b"\"\"",
    b"--",
    b"-",
    b"/*",
    b"*/",
    b"/",
    b"*",
    b"$",
    b"$$",
    b"$a$",
    b"$1",
    b"a$b",
    b"1.5",
    b"1e",
    b"COMMIT",
    b"BEGIN",
    b"ROLLBACK",
    b"TO",
    b"SAVEPOINT",
    b"TEMP",
    b"CREATE",
    b"INTO",
    b"pg_temp",
    b"'pg_temp'",
    b".",
    b"\"pg_temp\"",
    b"LOCAL",
    b"PREPARE",
    b"TRANSACTION",
    b"'x'",
    b"DECLARE",
    b"WITH",
    b"HOLD",
    b"DO",
    b"pg_advisory_lock",
    b"\x83\x5c",
    b"\xe4\xb8\xad",
];

#[test]
fn any_pieces_give_the_verdict_of_the_whole() {
    for seed in 1..=20_000 {
        let mut random = Random(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let count = 1 + random.below(14);
        let text: Vec<u8> = (0..count)
            .flat_map(|_| {
                let fragment = FRAGMENTS[random.below(FRAGMENTS.len())];
                // Mostly apart, so that the words are seen.
                let space: &[u8] = if random.below(3) == 0 { b"" } else { b" " };
                [fragment, space].concat()
            })
            .collect();
        let reading = Reading {
            strings: [StandardStrings::On, StandardStrings::Off][random.below(2)],
            encoding: [Encoding::AsciiSafe, Encoding::ShiftJis][random.below(2)],
        };
        let mut scanner = Scanner::new(reading);
        let mut rest = &text[..];
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(1 + random.below(rest.len().min(9)));
            scanner.feed(piece);
            rest = later;
        }
        let whole = judge(&text, reading);
        assert_eq!(scanner.finish(), whole, "seed {seed}: {}", text.escape_ascii());
    }
}

#[test]
fn a_long_text_is_judged_by_its_beginning_and_watched_to_its_end() {
    let long = |start: &str, end: &str| format!("{start}{}{end}", "x".repeat(20_000));
    for (text, statement, expected) in [
        (
            long("PREPARE p AS SELECT '", "'"),
            Statement::Prepare { name: b"p"[..].into() },
            vec![Taint::SqlPrepare],
        ),
        (long("SET a.b = '", "'"), Statement::Other, vec![Taint::SetUnread]),
        (long("BEGIN /*", "*/"), Statement::Begin, vec![]),
        (long("INSERT INTO t VALUES ('", "')"), Statement::Other, vec![]),
        (
            long("DECLARE c CURSOR FOR SELECT '", "'"),
            Statement::Declare { name: b"c"[..].into(), hold: Hold::Transaction },
            vec![],
        ),
    ] {
        let mut scanner = Scanner::new(Reading::default());
        text.as_bytes().chunks(7_000).for_each(|piece| scanner.feed(piece));
        let verdict = scanner.finish();
        assert_eq!(verdict, judged(&text));
        assert_eq!(verdict.statements, Statements::One(statement), "{:.30}", text);
        assert_eq!(verdict.taints.iter().collect::<Vec<_>>(), expected, "{:.30}", text);
    }
    let text = long("SELECT '", "'; LISTEN x; COMMIT");
    let verdict = judged(&text);
    assert_eq!(verdict.statements, Statements::Many);
    assert!(verdict.taints.contains(Taint::Listen) && verdict.marks.may_commit());
}

#[test]
fn any_bytes_at_all_are_judged() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for _ in 0..20_000 {
        let text: Vec<u8> = (0..random.below(40)).map(|_| random.below(256) as u8).collect();
        let _ = judge(&text, Reading::default());
    }
}
