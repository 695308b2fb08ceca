//! The little SQL that the model server understands.

/// A word or sign of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A keyword or name, in lower case unless it was quoted.
    Word(String),
    /// A string constant.
    Text(String),
    /// Anything else.
    Mark(char),
}

/// The statements of a text. `Err` when it cannot be parsed.
pub(crate) fn statements(text: &str) -> Result<Vec<Vec<Token>>, String> {
    let mut list = vec![Vec::new()];
    for token in tokens(text) {
        match token {
            Token::Mark(';') => list.push(Vec::new()),
            token => list.last_mut().expect("never empty").push(token),
        }
    }
    list.retain(|statement| !statement.is_empty());
    let bad = list.iter().find(|statement| is(statement, &["bad"]));
    bad.map_or(Ok(()), |bad| Err(format!("syntax error at or near {:?}", bad.get(1))))?;
    Ok(list)
}

/// Whether a statement begins with these words.
pub(crate) fn is(statement: &[Token], words: &[&str]) -> bool {
    words.iter().enumerate().all(|(at, word)| word_at(statement, at) == Some(*word))
}

pub(crate) fn word_at(statement: &[Token], at: usize) -> Option<&str> {
    match statement.get(at)? {
        Token::Word(word) => Some(word),
        _ => None,
    }
}

/// The value of a word or constant.
pub(crate) fn value(token: &Token) -> String {
    match token {
        Token::Word(text) | Token::Text(text) => text.clone(),
        Token::Mark(mark) => mark.to_string(),
    }
}

/// Whether it may run in a failed transaction.
pub(crate) fn is_exit(statement: &[Token]) -> bool {
    matches!(word_at(statement, 0), Some("commit" | "end" | "rollback" | "abort"))
}

fn tokens(text: &str) -> Vec<Token> {
    let mut rest = text;
    let mut list = Vec::new();
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            rest = &rest[first.len_utf8()..];
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").expect("a comment that ends").1;
        } else if let Some(quoted) = rest.strip_prefix("E'").or(rest.strip_prefix('\'')) {
            let (text, after) = quoted_until(quoted, '\'');
            list.push(Token::Text(text));
            rest = after;
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let (mut text, mut after) = quoted_until(quoted, '"');
            while let Some(quoted) = after.strip_prefix(".\"") {
                let (more, rest) = quoted_until(quoted, '"');
                text = format!("{text}.{more}");
                after = rest;
            }
            list.push(Token::Word(text));
            rest = after;
        } else if let Some(body) = rest.strip_prefix("$$") {
            let (text, after) = body.split_once("$$").expect("an end");
            list.push(Token::Text(text.to_owned()));
            rest = after;
        } else if first.is_alphanumeric() || "_$".contains(first) {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && !"_$.".contains(c))
                .unwrap_or(rest.len());
            list.push(Token::Word(rest[..end].to_lowercase()));
            rest = &rest[end..];
        } else {
            list.push(Token::Mark(first));
            rest = &rest[first.len_utf8()..];
        }
    }
    list
}

/// The text up to `quote`, doubled ones undone, and what follows.
fn quoted_until(text: &str, quote: char) -> (String, &str) {
    let mut content = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        if char != quote {
            content.push(char);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            content.push(quote);
            chars.next();
        } else {
            return (content, &text[at + 1..]);
        }
    }
    panic!("a quote that does not end: {text}");
}
