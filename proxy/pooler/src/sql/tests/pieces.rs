//! A text in pieces is what the text is in one.

use super::*;

/// xorshift64*: enough to pick pieces.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15))
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    pub(super) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Apart by `|`.
const FRAGMENTS: &str = "SELECT| |\n|\r|;|;|SET x = 1|SET LOCAL|ROLE|set_config|('a.b','c',false)|\
    ($1,$2,true)|(|)|,|true|'|''|\\|E'|e|U&'|U&\"|u&|\"|\"\"|--|-|/*|*/|/|*|$|$$|$a$|$1|$12|a$b|\
    1.5|1e|12|COMMIT|AND CHAIN|BEGIN|ATOMIC|END|ROLLBACK|TO|SAVEPOINT|RELEASE|s|TEMP|CREATE|\
    FUNCTION|INTO|AS|EXECUTE|EXPLAIN|pg_temp|'pg_temp'|.|\"pg_temp\"|PREPARE|TRANSACTION|'x'|\
    DECLARE|FOR|WITH|HOLD|DO|LANGUAGE|plpgsql|'plpgsql'|pg_advisory_lock|pg_advisory_unlock_all()|\
    JOIN|f(|FETCH|DEALLOCATE|UPDATE|pg_settings|seed|RESET|é|İ|$é$|中";

pub(super) fn random_text(random: &mut Random) -> Vec<u8> {
    let fragments: Vec<&str> = FRAGMENTS.split('|').collect();
    let count = 1 + random.below(14);
    (0..count)
        .flat_map(|_| {
            let fragment = match random.below(40) {
                0 => &b"\x83\x5c"[..],
                1 => b"\xdd",
                _ => random.of(&fragments).as_bytes(),
            };
            // Mostly apart, so that the words are seen.
            let space: &[u8] = if random.below(3) == 0 { b"" } else { b" " };
            [fragment, space].concat()
        })
        .collect()
}

fn random_readings(random: &mut Random) -> Readings {
    use Encoding::{AsciiSafe, Pairs, ShiftJis, Unreadable, Utf8};
    let strings = random.of(&[StandardStrings::On, StandardStrings::Off]);
    let encoding = random.of(&[AsciiSafe, Utf8, Pairs, ShiftJis, Unreadable]);
    let one = Readings::One(Reading { strings, encoding });
    random.of(&[one, one, Readings::Any])
}

fn in_pieces(text: &[u8], random: &mut Random, readings: Readings, calls: Calls) -> Classified {
    let mut scanner = Scanner::new(readings, calls);
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(1 + random.below(rest.len().min(9)));
        scanner.feed(piece);
        rest = later;
    }
    scanner.finish()
}

/// A text of which nobody knows whether it names what escapes a READ ONLY transaction.
fn escaping(mut found: Classified) -> Classified {
    found.access.escapes = true;
    found
}

#[test]
fn any_pieces_are_what_the_whole_is() {
    for seed in 1..=40_000 {
        let mut random = Random::new(seed);
        let text = random_text(&mut random);
        let readings = random_readings(&mut random);
        let calls = random.of(&[Calls::Text, Calls::Functions]);
        // Nobody looks for what escapes a READ ONLY transaction in a text that streams.
        let whole = escaping(classify(&text, readings, calls));
        let pieces = in_pieces(&text, &mut random, readings, calls);
        assert_eq!(pieces, whole, "seed {seed}: {} {readings:?}", text.escape_ascii());
    }
}

#[test]
fn any_reading_is_the_union_of_all_readings() {
    use Encoding::{AsciiSafe, Pairs, ShiftJis, Unreadable, Utf8};
    let mut unions = 0;
    for seed in 1..=20_000 {
        let mut random = Random::new(seed);
        let text = random_text(&mut random);
        let any = classify(&text, Readings::Any, Calls::Text);
        let each: Vec<Classified> = [StandardStrings::On, StandardStrings::Off]
            .into_iter()
            .flat_map(|strings| {
                [AsciiSafe, Utf8, Pairs, ShiftJis, Unreadable]
                    .map(|encoding| Reading { strings, encoding })
            })
            .map(|reading| read(&text, reading))
            .collect();
        if each.iter().all(|one| *one == each[0]) {
            assert_eq!(any, each[0], "seed {seed}: {}", text.escape_ascii());
            continue;
        }
        unions += 1;
        let mut marks = Marks::default();
        each.iter().for_each(|one| marks.insert(one.marks));
        let names_statements = each.iter().any(|one| one.names_statements);
        let access = any.access;
        assert!(
            each.iter().all(|one| one.access.kind == access.kind)
                || access.kind == AccessKind::Unknown
        );
        let steps = Steps::Unreadable;
        let union = Classified { steps, marks, access, leaves_nothing: false, names_statements };
        assert_eq!(any, union, "seed {seed}: {}", text.escape_ascii());
    }
    assert!(unions > 1000, "{unions}");
}

#[test]
fn a_long_text_is_known_by_its_beginning_and_its_words() {
    let long = |start: &str, end: &str| format!("{start}{}{end}", "x".repeat(20_000));
    for (text, step) in [
        (long("PREPARE p AS SELECT '", "'"), followed(Form::Prepare(bytes("p")))),
        (long("SET a = '", "'"), other(Kinds::SETTINGS)),
        (long("SET role = '", "'"), other(IDENTITY)),
        (long("SET LOCAL a = '", "'"), Step { local: true, ..other(Kinds::NONE) }),
        (long("BEGIN /*", "*/"), followed(Form::Begin)),
        (long("COMMIT /*", "*/"), followed(Form::Commit(Chain::No))),
        (long("COMMIT /*", "*/ AND CHAIN"), other(IDENTITY)),
        (long("SAVEPOINT /*", "*/ a"), other(IDENTITY)),
        (long("/*", "*/ DEALLOCATE a"), other(Kinds::STATEMENTS)),
        (long("/*", "*/ EXECUTE a"), Step::UNREADABLE),
        (long("PREPARE transaction /*", "*/ 'x'"), other(ANY_SETTING)),
        (long("DECLARE c CURSOR FOR SELECT '", "'"), followed(Form::Declare)),
        (long("INSERT INTO t VALUES ('", "')"), Step::PLAIN),
    ] {
        let mut scanner = Scanner::new(Readings::One(Reading::default()), Calls::Text);
        text.as_bytes().chunks(7_000).for_each(|piece| scanner.feed(piece));
        assert!(scanner.held() <= KEPT);
        let found = scanner.finish();
        assert_eq!(found, escaping(classified(&text)));
        let steps = if step.is_plain() { Steps::Plain } else { Steps::One(step) };
        assert_eq!(found.steps, steps, "{text:.30}");
    }
    let forms = forms(&long("BEGIN; INSERT INTO t VALUES ('", "'); LISTEN x; COMMIT"));
    assert_eq!(forms, [Form::Begin, Form::Plain, Form::Other, Form::Commit(Chain::No)]);
}

#[test]
fn any_bytes_at_all_are_classified() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for _ in 0..20_000 {
        let text: Vec<u8> = (0..random.below(40)).map(|_| random.below(256) as u8).collect();
        for readings in [Readings::Any, random_readings(&mut random)] {
            let whole = escaping(classify(&text, readings, Calls::Functions));
            let pieces = in_pieces(&text, &mut random, readings, Calls::Functions);
            assert_eq!(whole, pieces, "{}", text.escape_ascii());
        }
        words(&text, |word| assert!(word.len() <= 63));
        let spans = own_names(&text, Reading::default(), b"");
        assert!(spans.iter().all(|span| span.end <= text.len()));
    }
}
