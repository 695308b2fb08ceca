//! A file of statements for psql, without psql.

use pgimbal_pooler::sql::Reading;
use pgimbal_reads::split;

/// A statement, and the rows for it if it is COPY FROM STDIN.
#[derive(Debug, Default)]
pub(crate) struct Statement {
    pub(crate) text: String,
    pub(crate) rows: String,
}

/// The statements of a file in order. Commands of psql are left out, but for `\set filename`, whose
/// value stands for `:'filename'`, and those that end a statement, such as `\gset`.
pub(crate) fn statements(file: &str, folder: &str) -> Vec<Statement> {
    let mut found: Vec<Statement> = Vec::new();
    let (mut text, mut filename) = (String::new(), String::new());
    let mut lines = file.lines();
    while let Some(line) = lines.next() {
        if text.trim().is_empty() && line.starts_with('\\') {
            if let Some(path) = line.strip_prefix("\\set filename :abs_srcdir ") {
                filename = format!("'{folder}{}'", path.trim_matches('\''));
            }
            continue;
        }
        match line.split_once(" \\g") {
            Some((statement, _)) => text.push_str(&format!("{statement};")),
            None => text.push_str(line),
        }
        text.push('\n');
        if !is_whole(&text) {
            continue;
        }
        let text = std::mem::take(&mut text).replace(":'filename'", &filename);
        for span in split(text.as_bytes(), Reading::default()) {
            found.push(Statement { text: text[span].to_owned(), rows: String::new() });
        }
        if let Some(last) = found.last_mut()
            && is_copy_from_stdin(&last.text)
        {
            for row in lines.by_ref().take_while(|row| *row != "\\.") {
                last.rows.push_str(&format!("{row}\n"));
            }
        }
    }
    found
}

/// Whether nothing is left open at the end of a text: a statement, a quote, a comment.
fn is_whole(text: &str) -> bool {
    let count = |text: &str| split(text.as_bytes(), Reading::default()).len();
    text.contains(';') && count(&format!("{text} more")) == count(text) + 1
}

fn is_copy_from_stdin(text: &str) -> bool {
    let words = text.to_ascii_lowercase();
    words.starts_with("copy ") && words.contains("from stdin")
}
