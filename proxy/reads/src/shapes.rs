//! Texts that differ from one seen before in nothing but their numbers and strings.
//!
//! A shape is a text with the places of its constants. What stands between two constants is compared
//! as bytes and no token is read there, which the lexer needs most of a look-up for.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// How many bytes of a text choose the shapes that it may have. The columns of a table are mostly
/// longer, so that few shapes have the same beginning.
const HEAD: usize = 24;

/// How many shapes with one beginning are kept: a table has that many kinds of WHERE.
const SHAPES_OF_HEAD: usize = 8;

/// What keeping a shape costs beside its text and constants: its place, that of its beginning, and
/// three allocations.
const SHAPE_BYTES: usize = 256;

/// A number or a plain string, by its bytes in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Constant {
    pub(crate) kind: ConstantKind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConstantKind {
    /// Digits, and dots behind the first of them.
    Number,
    /// `'…'`, with no doubled quote.
    String,
}

impl ConstantKind {
    /// The length of the constant of this kind with which `text` begins, as the lexer would tell it.
    /// A doubled quote ends a string here, but then the text is of no shape: no other byte behind a
    /// string is a quote.
    #[inline]
    fn length(self, text: &[u8]) -> Option<usize> {
        let (&first, rest) = text.split_first()?;
        match self {
            Self::Number => {
                let is_part = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
                let length = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
                first.is_ascii_digit().then_some(1 + length)
            }
            Self::String => {
                let length = rest.iter().position(|&byte| byte == b'\'' || byte >= 0x80)?;
                (first == b'\'' && rest[length] == b'\'').then_some(length + 2)
            }
        }
    }
}

#[derive(Debug)]
struct Shape<T> {
    text: Box<[u8]>,
    constants: Box<[Constant]>,
    known: T,
}

impl<T> Shape<T> {
    /// Whether `text` is this one with other constants.
    #[inline]
    fn is_of(&self, text: &[u8]) -> bool {
        let mut rest = text;
        let mut compared = 0;
        for constant in &*self.constants {
            let Some(behind) = rest.strip_prefix(&self.text[compared..constant.start]) else {
                return false;
            };
            let Some(length) = constant.kind.length(behind) else { return false };
            rest = &behind[length..];
            compared = constant.end;
        }
        *rest == self.text[compared..]
    }

    fn bytes(&self) -> usize {
        SHAPE_BYTES + self.text.len() + size_of_val(&*self.constants)
    }
}

/// What is known of shapes, bounded in bytes.
#[derive(Debug)]
pub(crate) struct Shapes<T> {
    by_head: HashMap<[u8; HEAD], Vec<Shape<T>>, RandomState>,
    bytes: usize,
    limit: usize,
}

impl<T> Shapes<T> {
    /// Makes an empty table that keeps at most so many bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { by_head: HashMap::default(), bytes: 0, limit }
    }

    /// Returns what is known of the text's shape.
    #[inline]
    pub(crate) fn find(&mut self, text: &[u8]) -> Option<&T> {
        let shapes = self.by_head.get_mut(&head(text)?)?;
        let place = shapes.iter().position(|shape| shape.is_of(text))?;
        // What is asked for often comes first.
        let first = place.saturating_sub(1);
        shapes.swap(first, place);
        Some(&shapes[first].known)
    }

    /// Keeps what is known of all texts that differ from this one in nothing but these constants.
    /// Another that was known of the shape is forgotten. A text that is shorter than its beginning
    /// is not kept, nor one with a string there: the next one's beginning would be another.
    pub(crate) fn keep(&mut self, text: &[u8], constants: &[Constant], known: T) {
        let Some(head) = head(text) else { return };
        let is_string = |it: &Constant| it.kind == ConstantKind::String && it.start < HEAD;
        let shape = Shape { text: text.into(), constants: constants.into(), known };
        if constants.iter().any(is_string) || shape.bytes() > self.limit {
            return;
        }
        if self.bytes + shape.bytes() > self.limit {
            self.clear();
        }
        self.bytes += shape.bytes();
        let shapes = self.by_head.entry(head).or_default();
        let same = shapes.iter().position(|kept| kept.is_of(text));
        let replaced = same.or((shapes.len() == SHAPES_OF_HEAD).then_some(SHAPES_OF_HEAD - 1));
        match replaced {
            Some(place) => {
                let before = std::mem::replace(&mut shapes[place], shape);
                self.bytes -= before.bytes();
            }
            None => {
                shapes.reserve_exact(1);
                shapes.push(shape);
            }
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.by_head = HashMap::default();
        self.bytes = 0;
    }

    /// The bytes of all texts, with what keeping them costs.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_head.values().map(Vec::len).sum()
    }
}

/// The beginning of a text, every digit a zero: numbers do not count.
#[inline]
fn head(text: &[u8]) -> Option<[u8; HEAD]> {
    let head: &[u8; HEAD] = text.first_chunk()?;
    Some(head.map(|byte| if byte.is_ascii_digit() { b'0' } else { byte }))
}

#[cfg(test)]
mod tests;
