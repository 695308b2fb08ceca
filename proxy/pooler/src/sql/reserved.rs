//! Words that PostgreSQL writes in quotes when they are identifiers.

/// Whether `quote_identifier` of PostgreSQL quotes the word: every keyword that is not unreserved.
pub(super) fn is_quoted(word: &[u8]) -> bool {
    RESERVED.binary_search(&word).is_ok()
}

/// From `pg_get_keywords()` of PostgreSQL 15, without category U; sorted.
#[rustfmt::skip]
const RESERVED: &[&[u8]] = &[
    b"all", b"analyse", b"analyze", b"and", b"any", b"array", b"as", b"asc", b"asymmetric",
    b"authorization", b"between", b"bigint", b"binary", b"bit", b"boolean", b"both", b"case",
    b"cast", b"char", b"character", b"check", b"coalesce", b"collate", b"collation", b"column",
    b"concurrently", b"constraint", b"create", b"cross", b"current_catalog", b"current_date",
    b"current_role", b"current_schema", b"current_time", b"current_timestamp", b"current_user",
    b"dec", b"decimal", b"default", b"deferrable", b"desc", b"distinct", b"do", b"else", b"end",
    b"except", b"exists", b"extract", b"false", b"fetch", b"float", b"for", b"foreign",
    b"freeze", b"from", b"full", b"grant", b"greatest", b"group", b"grouping", b"having",
    b"ilike", b"in", b"initially", b"inner", b"inout", b"int", b"integer", b"intersect",
    b"interval", b"into", b"is", b"isnull", b"join", b"lateral", b"leading", b"least", b"left",
    b"like", b"limit", b"localtime", b"localtimestamp", b"national", b"natural", b"nchar",
    b"none", b"normalize", b"not", b"notnull", b"null", b"nullif", b"numeric", b"offset", b"on",
    b"only", b"or", b"order", b"out", b"outer", b"overlaps", b"overlay", b"placing",
    b"position", b"precision", b"primary", b"real", b"references", b"returning", b"right",
    b"row", b"select", b"session_user", b"setof", b"similar", b"smallint", b"some",
    b"substring", b"symmetric", b"table", b"tablesample", b"then", b"time", b"timestamp", b"to",
    b"trailing", b"treat", b"trim", b"true", b"union", b"unique", b"user", b"using", b"values",
    b"varchar", b"variadic", b"verbose", b"when", b"where", b"window", b"with",
    b"xmlattributes", b"xmlconcat", b"xmlelement", b"xmlexists", b"xmlforest", b"xmlnamespaces",
    b"xmlparse", b"xmlpi", b"xmlroot", b"xmlserialize", b"xmltable"
];

/// Whether the word cannot name a function: every keyword that is not unreserved, except those that
/// may name functions and types (category T).
pub(super) fn takes_no_call(word: &[u8]) -> bool {
    is_quoted(word) && !MAY_NAME_FUNCTIONS.contains(&word)
}

/// From `pg_get_keywords()` of PostgreSQL 15: category T.
#[rustfmt::skip]
const MAY_NAME_FUNCTIONS: [&[u8]; 23] = [
    b"authorization", b"binary", b"collation", b"concurrently", b"cross", b"current_schema",
    b"freeze", b"full", b"ilike", b"inner", b"is", b"isnull", b"join", b"left", b"like",
    b"natural", b"notnull", b"outer", b"overlaps", b"right", b"similar", b"tablesample",
    b"verbose",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_so_that_it_can_be_searched() {
        assert!(RESERVED.is_sorted());
        assert!(is_quoted(b"user") && is_quoted(b"between") && !is_quoted(b"public"));
    }
}
