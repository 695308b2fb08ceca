//! The cases of session state that once reached the next client, as far as a text shows them.

use super::*;

#[test]
fn case_1_two_statements_about_savepoints() {
    assert_eq!(
        forms("ROLLBACK TO _EXEC_SVP_2;RELEASE _EXEC_SVP_2"),
        [Form::RollbackTo(bytes("_exec_svp_2")), Form::Release(bytes("_exec_svp_2"))]
    );
}

#[test]
fn cases_9_and_10_local_defaults_and_reset_all() {
    assert_eq!(
        forms("SET LOCAL search_path TO DEFAULT; RESET ALL"),
        [Form::Reset(bytes("search_path"), Scope::Local), Form::ResetAll]
    );
}

#[test]
fn cases_5_and_6_texts_that_may_be_read_two_ways() {
    let any = |text: &[u8]| classify(text, Readings::Any, Calls::Text);
    let text = b"SELECT '\\'', set_config($$role$$,$$boss$$,false) --'";
    assert_eq!(any(text).steps, Steps::Unreadable);
    assert_eq!(
        any(b"SELECT E'\x83\x5c', set_config($$a$$,$$b$$,false) --'").steps,
        Steps::Unreadable
    );
    assert_eq!(any(b"SELECT E'\\\\', 1").steps, Steps::Plain);
}

#[test]
fn case_15_a_search_path_in_disguise() {
    let path = set("search_path", "pg_temp", Scope::Session);
    assert_eq!(only("SET search_path = E'pg\\137temp'"), followed(path));
}

#[test]
fn case_16_tags_and_identifiers_that_only_the_server_can_read() {
    let tags = b"SELECT $\x83\x41$ A $\x83\x42$ B $\x83\x41$, set_config($$role$$,$$boss$$,false)";
    let sjis = Reading { encoding: Encoding::ShiftJis, ..Reading::default() };
    assert_eq!(read(tags, sjis), Classified::UNREADABLE);
    assert_eq!(classified("SELECT $é$ $é$").steps, Steps::Unreadable);
    let long = "a".repeat(65);
    assert_eq!(classified(&format!("SELECT ${long}$ ; ${long}$")), Classified::UNREADABLE);
    assert!(Classified::UNREADABLE.marks.may_commit() && Classified::UNREADABLE.names_statements);
    assert_eq!(
        classified("SELECT U&\"set\\005fconfig\"('a', 'b', false)").steps,
        Steps::Unreadable
    );
    assert_eq!(classified("SELECT U&'a'").steps, Steps::Plain);
}

#[test]
fn case_19_code_that_no_text_shows() {
    assert_eq!(only("DO $$BEGIN EXECUTE 'SE'||'T ROLE boss'; END$$"), Step::UNREADABLE);
    let runs = only("SELECT query_to_xml('SELECT set_config(…)', true, true, '')");
    assert!(runs.raises.meets(Kinds::ROLE) && runs.local);
}

#[test]
fn case_30_pgadmin_opens() {
    let steps = steps(
        "SET DateStyle=ISO; SELECT set_config('bytea_output','hex',false) \
         FROM pg_show_all_settings() WHERE name = 'bytea_output'; SET client_encoding='UTF8';",
    );
    assert_eq!(
        steps,
        [
            followed(set("datestyle", "iso", Scope::Session)),
            other(Kinds::SETTINGS),
            followed(set("client_encoding", "UTF8", Scope::Session)),
        ]
    );
}

#[test]
fn case_31_settings_from_bound_values() {
    let scope = ScopeOperand::Is(Scope::Session);
    let app = |name: &str, value| Assignment { name: text(name), value, scope };
    let tenant = app("app.tenant_id", Operand::Parameter(1));
    let by = SetBy::UnqualifiedFunction;
    assert_eq!(
        only("SELECT set_config('app.tenant_id', $1, false)"),
        followed(Form::Set(Box::new([tenant.clone()]), by))
    );
    let two = "SELECT set_config('app.tenant_id', $1, false) AS a, \
               pg_catalog.set_config('app.user', 'x', false) AS \"B\"";
    let both = Box::new([tenant, app("app.user", text("x"))]);
    assert_eq!(only(two), followed(Form::Set(both, by)));
}

#[test]
fn case_40_names_that_the_server_cuts() {
    let long = "é".repeat(40);
    let statement = |word: &str| only(&format!("{word} {long}x"));
    for word in ["SAVEPOINT", "ROLLBACK TO", "RELEASE"] {
        assert_eq!(statement(word), other(IDENTITY), "{word}");
    }
    assert_eq!(only(&format!("PREPARE {long} AS SELECT 1")), other(Kinds::STATEMENTS));
    assert_eq!(statement("DEALLOCATE"), other(Kinds::STATEMENTS));
    assert_eq!(statement("EXECUTE"), Step::UNREADABLE);
    let utf8 = Reading { encoding: Encoding::Utf8, ..Reading::default() };
    let cut = "é".repeat(31);
    assert_eq!(
        read(format!("SAVEPOINT {long}x").as_bytes(), utf8).steps,
        Steps::One(followed(Form::Savepoint(bytes(&cut))))
    );
    let ascii = "a".repeat(80);
    let form = Form::Savepoint(bytes(&ascii[..63]));
    assert_eq!(only(&format!("SAVEPOINT \"{ascii}\"")), followed(form));
}
