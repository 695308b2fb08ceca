//! Tables that are temporary although nothing says so: cases 13 to 15.

use pgimbal_tests::{Comparison, ConnectionExpectation};

const CREATE: &str = "CREATE TABLE accounts (id int, owner text)";
const INSERT: &str = "INSERT INTO accounts VALUES (2, 'mine')";

#[test]
fn state_case_13_a_table_in_a_path_that_names_pg_temp() {
    let path = "SET search_path = nosuchschema, pg_temp";
    Comparison::new().compare_steps(
        &[path, CREATE, INSERT, "RESET search_path"],
        ConnectionExpectation::MayStay,
    );
}

#[test]
fn state_case_13b_by_other_statements_and_ways_to_set_the_path() {
    let comparison = Comparison::new();
    let local = ["BEGIN", "SET LOCAL search_path = pg_temp", CREATE, "COMMIT"];
    comparison.compare_steps(&local, ConnectionExpectation::MayStay);
    for (path, create) in [
        ("SELECT set_config('search_path', 'pg_temp', false)", CREATE),
        ("SET search_path = pg_temp", "CREATE TABLE accounts AS SELECT 2 AS id, 'mine' AS owner"),
        ("SET search_path = pg_temp", "SELECT 2 AS id, 'mine' AS owner INTO accounts"),
        ("SET SCHEMA 'pg_temp'", "CREATE VIEW accounts AS SELECT 'mine' AS owner"),
        ("SET search_path = pg_temp", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
        ("SET search_path = pg_temp", "CREATE TYPE mood AS ENUM ('good')"),
    ] {
        comparison
            .compare_steps(&[path, create, "RESET search_path"], ConnectionExpectation::MayStay);
        comparison.compare_steps(
            &[&format!("{path} ;; {create} ;; RESET search_path")],
            ConnectionExpectation::MayStay,
        );
    }
}

#[test]
fn state_case_14_a_path_that_names_pg_temp_at_login() {
    let comparison = Comparison::new().logged_in_with("search_path", "pg_temp");
    comparison.compare_steps(&[CREATE, INSERT], ConnectionExpectation::MayStay);
}

#[test]
fn state_case_14b_in_the_options_and_spelt_otherwise() {
    for (name, value) in [
        ("options", "-c search_path=pg_temp"),
        ("options", "--search-path=PG_TEMP"),
        ("search_path", "\"pg_temp\", public"),
    ] {
        let comparison = Comparison::new().logged_in_with(name, value);
        comparison.compare_steps(&[CREATE, INSERT], ConnectionExpectation::MayStay);
    }
}

#[test]
fn state_case_15_pg_temp_spelt_with_an_escape() {
    let path = "SET search_path = E'pg\\137temp'";
    Comparison::new().compare_steps(&[path, CREATE, "RESET ALL"], ConnectionExpectation::MayStay);
}

#[test]
fn state_case_15b_and_in_other_spellings() {
    let comparison = Comparison::new();
    for path in [
        "SET search_path = PG_Temp",
        "SET search_path = \"pg_temp\", pg_catalog",
        "SET search_path = U&'pg\\005Ftemp'",
        "SELECT set_config('search_path', 'pg' || '_temp', false)",
        "SELECT set_config('search_path', $$ \"pg_temp\" $$, false)",
        "SET search_path = 'pg_'\n'temp'",
    ] {
        comparison
            .compare_steps(&[path, CREATE, INSERT, "RESET ALL"], ConnectionExpectation::MayStay);
    }
    // And where the statement itself says it.
    for create in [
        "CREATE TABLE U&\"pg\\005Ftemp\".accounts (id int, owner text)",
        "CREATE TABLE \"pg_temp\".accounts (id int, owner text)",
    ] {
        comparison.compare_steps(&[create], ConnectionExpectation::MayStay);
    }
}
