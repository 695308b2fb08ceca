use super::{CATALOG_QUERY, Catalog, CatalogError, CatalogRow};

#[test]
fn a_row_of_an_unknown_kind_is_refused() {
    let row = CatalogRow { kind: "planet", name: "mars", via: "" };
    let refused = Catalog::from_rows([row], []).map(|_| ());
    assert_eq!(refused, Err(CatalogError::UnknownKind("planet".to_owned())));
}

#[test]
fn a_catalog_without_bounds_is_refused() {
    let name = "n".repeat(63);
    let row = CatalogRow { kind: "function", name: &name, via: "" };
    let refused = Catalog::from_rows(std::iter::repeat_n(row, 300_000), []).map(|_| ());
    assert_eq!(refused, Err(CatalogError::TooLarge));
}

#[test]
fn defaults_and_own_functions_count() {
    let row = |kind, name, via| CatalogRow { kind, name, via };
    let rows = [
        row("function", "first", ""),
        row("function", "second", ""),
        row("function", "audit", ""),
        row("function", "random", ""),
        row("function", "uuidv7", ""),
        row("own_volatile", "audit", ""),
        row("own_volatile", "random", ""),
        row("volatile", "uuidv7", ""),
        row("default", "first", "second"),
        row("default", "second", "audit"),
    ];
    let catalog = Catalog::from_rows(rows, []).expect("the rows are known");
    for name in ["first", "second", "audit", "random"] {
        let reason = catalog.function(name).map(|reason| reason.as_str());
        assert_eq!(reason, Some("volatile_function"), "{name}");
    }
    assert_eq!(catalog.function("uuidv7"), None);
}

#[test]
fn the_catalog_query_is_read_alike_under_every_setting_of_strings() {
    // It runs in sessions with standard_conforming_strings = off too.
    assert!(!CATALOG_QUERY.contains('\\'));
}
