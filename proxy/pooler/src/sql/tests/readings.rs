//! How a text is read decides what it is.

use super::*;

const OFF: Reading = Reading { strings: StandardStrings::Off, encoding: Encoding::AsciiSafe };

#[test]
fn backslashes_escape_where_the_session_says_so() {
    let text = b"SELECT '\\'; SET x = 1; --'";
    assert_eq!(read(text, OFF).steps, Steps::Plain);
    assert_eq!(read(text, Reading::default()).steps().len(), 2);
    // N'…' follows the session too, B'…' and U&'…' do not.
    assert_eq!(read(b"SELECT n'\\'; '", OFF).steps, Steps::Plain);
    assert_eq!(read(b"SELECT b'\\'; RESET ALL", OFF).steps().len(), 2);
    assert_eq!(read(b"SELECT u&'\\'; RESET ALL", OFF).steps().len(), 2);
    let set = set("a.b", "x'y\\", Scope::Session);
    assert_eq!(read(b"SET a.b = 'x\\'y\\\\'", OFF).steps, Steps::One(followed(set)));
    // A name that may be spelt with escapes is not known.
    let steps = read(b"SELECT set_config('\\162ole', 'x', false), 1", OFF).steps;
    assert_eq!(steps, Steps::One(other(ANY_SETTING)));
}

#[test]
fn a_second_byte_that_looks_like_a_backslash_is_none() {
    let text = b"SELECT E'\x83\x5c'; SET x = 1; --'";
    let sjis = Reading { encoding: Encoding::from_name(b"SJIS"), ..Reading::default() };
    assert_eq!(read(text, sjis).steps().len(), 2);
    assert_eq!(read(text, Reading::default()).steps, Steps::Plain);
    // A value that could not be written down again under another encoding is not followed.
    let set = read(b"SET application_name = '\x83\x5c'", sjis);
    assert_eq!(set.steps, Steps::One(other(Kinds::SETTINGS)));
    let set = read(b"set application_name = 'x'", sjis);
    let form = super::set("application_name", "x", Scope::Session);
    assert_eq!(set.steps, Steps::One(followed(form)));
}

#[test]
fn an_encoding_that_is_not_known_makes_high_bytes_unreadable() {
    let reading = Reading { encoding: Encoding::Unreadable, ..Reading::default() };
    assert_eq!(read("SELECT 'é'".as_bytes(), reading), Classified::UNREADABLE);
    assert_eq!(read(b"SELECT 'e'", reading).steps, Steps::Plain);
}

#[test]
fn a_word_that_a_turkish_server_folds_to_another_is_seen() {
    for (text, encoding) in [
        (&b"SELECT set_conf\xddg('role', 'boss', false)"[..], Encoding::AsciiSafe),
        ("SELECT set_confİg('role', 'boss', false)".as_bytes(), Encoding::AsciiSafe),
    ] {
        let reading = Reading { encoding, ..Reading::default() };
        assert_eq!(read(text, reading).steps, Steps::One(Step::UNREADABLE));
    }
    let update = "UPDATE pg_settİngs SET setting = 'x'";
    assert_eq!(only(update), other(IDENTITY));
    let utf8 = Reading { encoding: Encoding::Utf8, ..Reading::default() };
    assert_eq!(read("SELECT set_confİg(1)".as_bytes(), utf8).steps, Steps::Plain);
    assert_eq!(classified("SELECT fonction_é(1), \"İ\"(2)").steps, Steps::Plain);
}
