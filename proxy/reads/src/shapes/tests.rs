use pgimbal_lexer::{Encoding, Reading, StandardStrings};

use super::{SHAPES_OF_HEAD, Shapes};
use crate::normal::{Normalised, normalise};

const UTF8: Reading = Reading { strings: StandardStrings::On, encoding: Encoding::Utf8 };

/// The normalised text, if it may be a read.
fn normal(text: &str, scratch: &mut Normalised) -> Option<Vec<u8>> {
    normalise(text.as_bytes(), UTF8, scratch).ok().map(|()| scratch.text().to_vec())
}

/// Keeps the text's shape, of which its normalised text is known.
fn keep(shapes: &mut Shapes<Vec<u8>>, text: &str) {
    let mut scratch = Normalised::default();
    let known = normal(text, &mut scratch).expect("the text may be a read");
    if let Some(constants) = scratch.constants() {
        shapes.keep(text.as_bytes(), constants, known);
    }
}

#[test]
fn a_text_with_other_constants_is_of_the_shape() {
    let mut shapes = Shapes::new(10_000);
    keep(&mut shapes, "SELECT name, price FROM goods WHERE id = 27 AND kind = 'a'");
    for (same, is_found) in [
        ("SELECT name, price FROM goods WHERE id = 1.50 AND kind = ''", true),
        ("SELECT name, price FROM goods WHERE id = 5 AND kind = 'b -- \"c\" \\'", true),
        ("SELECT name, price FROM goods WHERE id = 5 AND kind = 'it''s'", false),
        ("SELECT name, price FROM goods WHERE id = 5 AND kind = 'ä'", false),
        ("SELECT name, price FROM goods WHERE id = 5 AND kind = 'a", false),
        ("SELECT name, price FROM goods WHERE id = 5 AND kind = 6", false),
        ("SELECT name, price FROM goods WHERE id = .5 AND kind = 'a'", false),
        ("SELECT name, price FROM goods WHERE id = -5 AND kind = 'a'", false),
        ("SELECT name, price FROM goods WHERE id = 5 AND kind = 'a' FOR UPDATE", false),
        ("SELECT name, price FROM goods WHERE id = 5 AND kind = 'a'; DELETE FROM a", false),
        ("SELECT name, price FROM goods WHERE id = 5x AND kind = 'a'", false),
        ("SELECT name, price FROM goods WHERE i2 = 5 AND kind = 'a'", false),
    ] {
        assert_eq!(shapes.find(same.as_bytes()).is_some(), is_found, "{same}");
    }
}

#[test]
fn numbers_at_the_beginning_do_not_count_and_strings_there_are_not_kept() {
    let mut shapes = Shapes::new(10_000);
    keep(&mut shapes, "SELECT 1 AS one FROM goods WHERE id = 5");
    assert!(shapes.find(b"SELECT 2 AS one FROM goods WHERE id = 66").is_some());
    keep(&mut shapes, "SELECT 'a' AS kind, price FROM goods WHERE id = 5");
    keep(&mut shapes, "SELECT short WHERE a=1");
    keep(&mut shapes, "SELECT name, price FROM goods WHERE kind = E'a'");
    assert_eq!(shapes.len(), 1);
}

#[test]
fn the_shapes_of_one_beginning_and_the_bytes_of_all_are_bounded() {
    let mut shapes = Shapes::new(5_000);
    let text = |n| format!("SELECT name, price, kind, colour FROM goods WHERE column_{n} = {n}");
    for n in 0..100 {
        for _ in 0..2 {
            keep(&mut shapes, &text(n));
            assert!(shapes.find(text(n).as_bytes()).is_some(), "{n}");
            assert!(shapes.bytes() <= 5_000 && shapes.len() <= SHAPES_OF_HEAD, "{n}");
        }
        assert!(shapes.len() >= SHAPES_OF_HEAD.min(n + 1), "{n}: the same one is not kept twice");
    }
    for n in 0..100 {
        keep(
            &mut shapes,
            &format!(
                "SELECT {} FROM goods WHERE id = {n}",
                ((b'a' + n % 26) as char).to_string().repeat(20 + usize::from(n))
            ),
        );
        assert!(shapes.bytes() <= 5_000, "{n}");
    }
    assert!(shapes.len() > 5);
}

/// A generator of texts out of pieces that meet in every way: the texts' own numbers and strings
/// too.
struct Texts(u64);

impl Texts {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    /// A text, and the same one with other constants, or with what is nearly one.
    fn next(&mut self) -> [String; 2] {
        const PIECES: [&str; 24] = [
            " ", "\n", "a", "e", "E", "N", "x", "U&", "$1", "$", ".", "-", "/", "*", "\"", "\"b\"",
            "''", "$$", ";", "--", "1", "1.5", "'c'", "'d e'",
        ];
        const OTHERS: [&str; 12] =
            ["1", "22", "3.4.", ".5", "6a", "'f'", "'it''s'", "'", "''", "'\n'", "'--'", "''''"];
        let beginning = "SELECT name, price FROM goods ";
        let mut texts = [beginning.to_owned(), beginning.to_owned()];
        for _ in 0..self.below(8) {
            let piece = PIECES[self.below(PIECES.len())];
            let is_other = self.below(2) == 0 && piece.starts_with(['1', '\'']);
            let other = if is_other { OTHERS[self.below(OTHERS.len())] } else { piece };
            texts[0] += piece;
            texts[1] += other;
        }
        texts
    }
}

#[test]
fn texts_of_one_shape_have_one_normalised_text() {
    let mut texts = Texts(20_261_130);
    let mut scratch = Normalised::default();
    let mut found = 0;
    for _ in 0..300_000 {
        let [text, other] = texts.next();
        if normal(&text, &mut scratch).is_none() {
            continue;
        }
        let mut shapes = Shapes::new(10_000);
        keep(&mut shapes, &text);
        if let Some(known) = shapes.find(other.as_bytes()).cloned() {
            assert_eq!(normal(&other, &mut scratch), Some(known), "{text:?} {other:?}");
            found += usize::from(text != other);
        }
    }
    assert!(found > 5_000, "{found} texts with other constants were found");
}
