//! What is known of PostgreSQL's own names in every database.

use std::sync::Arc;

use crate::Reason;

/// Functions that are volatile and yet change nothing, nor tell of the server that runs them:
/// random values, the time, waiting, and what pgcrypto, uuid-ossp and tablefunc make of them.
const HARMLESS: &[&str] = &[
    "clock_timestamp",
    "gen_random_bytes",
    "gen_random_uuid",
    "gen_salt",
    "normal_rand",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pgp_pub_encrypt",
    "pgp_pub_encrypt_bytea",
    "pgp_sym_encrypt",
    "pgp_sym_encrypt_bytea",
    "random",
    "random_normal",
    "timeofday",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "uuidv4",
    "uuidv7",
];

/// Functions that are stable by the catalog, and whose result is another on another server.
const OF_SERVER: &[&str] = &[
    "current_setting",
    "inet_server_addr",
    "inet_server_port",
    "pg_backend_pid",
    "pg_conf_load_time",
    "pg_current_snapshot",
    "pg_current_xact_id",
    "pg_current_xact_id_if_assigned",
    "pg_cursor",
    "pg_get_replication_slots",
    "pg_is_in_recovery",
    "pg_listening_channels",
    "pg_my_temp_schema",
    "pg_postmaster_start_time",
    "pg_prepared_statement",
    "pg_prepared_xact",
    "pg_safe_snapshot_blocking_pids",
    "pg_show_all_settings",
    "txid_current",
    "txid_current_if_assigned",
    "txid_current_snapshot",
];

/// Functions that run SQL which they are given as a text, or as a name of what to read, and are not
/// all volatile by the catalog.
const RUNS_TEXT: &[&str] = &[
    "connectby",
    "crosstab",
    "crosstab2",
    "crosstab3",
    "crosstab4",
    "cursor_to_xml",
    "database_to_xml",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "ts_rewrite",
    "ts_stat",
    "xpath_table",
];

/// Functions of sequences.
const OF_SEQUENCES: &[&str] =
    &["currval", "lastval", "nextval", "pg_get_sequence_data", "pg_sequence_last_value", "setval"];

/// Functions that are taken for stable before the catalog has been read.
const STABLE: &[&str] = &[
    "abs",
    "age",
    "array_agg",
    "array_length",
    "array_position",
    "array_remove",
    "array_to_json",
    "array_to_string",
    "avg",
    "bit_and",
    "bit_length",
    "bit_or",
    "bool_and",
    "bool_or",
    "btrim",
    "cardinality",
    "ceil",
    "ceiling",
    "char_length",
    "character_length",
    "chr",
    "col_description",
    "concat",
    "concat_ws",
    "count",
    "cume_dist",
    "current_database",
    "current_schema",
    "current_schemas",
    "date",
    "date_part",
    "date_trunc",
    "decode",
    "dense_rank",
    "encode",
    "every",
    "exp",
    "extract",
    "first_value",
    "float4",
    "float8",
    "floor",
    "format",
    "format_type",
    "generate_series",
    "generate_subscripts",
    "greatest",
    "has_schema_privilege",
    "has_table_privilege",
    "initcap",
    "int2",
    "int4",
    "int8",
    "is_normalized",
    "json_agg",
    "json_array_elements",
    "json_array_length",
    "json_build_array",
    "json_build_object",
    "json_each",
    "json_extract_path_text",
    "json_object_agg",
    "json_typeof",
    "jsonb_agg",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_array_length",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_each",
    "jsonb_each_text",
    "jsonb_extract_path",
    "jsonb_extract_path_text",
    "jsonb_object_agg",
    "jsonb_object_keys",
    "jsonb_path_exists",
    "jsonb_path_query",
    "jsonb_pretty",
    "jsonb_set",
    "jsonb_typeof",
    "justify_days",
    "justify_hours",
    "justify_interval",
    "lag",
    "last_value",
    "lead",
    "least",
    "left",
    "length",
    "like_escape",
    "ln",
    "log",
    "lower",
    "lpad",
    "ltrim",
    "make_date",
    "make_interval",
    "make_timestamp",
    "make_timestamptz",
    "max",
    "md5",
    "min",
    "mod",
    "mode",
    "normalize",
    "now",
    "nth_value",
    "ntile",
    "nullif",
    "numeric",
    "obj_description",
    "octet_length",
    "overlaps",
    "overlay",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "pg_encoding_to_char",
    "pg_get_constraintdef",
    "pg_get_expr",
    "pg_get_indexdef",
    "pg_get_serial_sequence",
    "pg_get_userbyid",
    "pg_get_viewdef",
    "pg_table_is_visible",
    "pg_type_is_visible",
    "pg_typeof",
    "plainto_tsquery",
    "position",
    "power",
    "quote_ident",
    "quote_literal",
    "quote_nullable",
    "rank",
    "regexp_match",
    "regexp_matches",
    "regexp_replace",
    "regexp_split_to_array",
    "regexp_split_to_table",
    "repeat",
    "replace",
    "reverse",
    "right",
    "round",
    "row_number",
    "row_to_json",
    "rpad",
    "rtrim",
    "sha256",
    "sign",
    "similar_to_escape",
    "split_part",
    "sqrt",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "string_to_array",
    "strpos",
    "substr",
    "substring",
    "sum",
    "text",
    "timezone",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_regclass",
    "to_timestamp",
    "to_tsquery",
    "to_tsvector",
    "translate",
    "trim_array",
    "trunc",
    "ts_headline",
    "ts_rank",
    "unnest",
    "upper",
    "var_pop",
    "var_samp",
    "variance",
    "version",
    "websearch_to_tsquery",
    "width_bucket",
];

/// Views of `pg_catalog` that show the server that runs them, beside `pg_stat_…` and `pg_statio_…`.
const SERVER_VIEWS: &[&str] = &[
    "pg_aios",
    "pg_available_extension_versions",
    "pg_available_extensions",
    "pg_backend_memory_contexts",
    "pg_config",
    "pg_cursors",
    "pg_dsm_registry_allocations",
    "pg_file_settings",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_locks",
    "pg_prepared_statements",
    "pg_prepared_xacts",
    "pg_replication_origin_status",
    "pg_replication_slots",
    "pg_sequences",
    "pg_settings",
    "pg_shmem_allocations",
    "pg_shmem_allocations_numa",
    "pg_wait_sampling_current",
];

/// Settings that are a session's, wherever it runs, or the same on a primary and its standbys.
const OF_SESSION: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "extra_float_digits",
    "integer_datetimes",
    "intervalstyle",
    "is_superuser",
    "lc_collate",
    "lc_ctype",
    "lock_timeout",
    "role",
    "search_path",
    "server_encoding",
    "server_version",
    "server_version_num",
    "session_authorization",
    "standard_conforming_strings",
    "statement_timeout",
    "timezone",
    "transaction_isolation",
];

/// Whether a function is volatile and harmless.
pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.binary_search(&name).is_ok()
}

/// Whether a function is known before the catalog has been read.
pub(super) fn is_stable(name: &str) -> bool {
    STABLE.binary_search(&name).is_ok()
}

/// What a function is that is no read, whatever its volatility.
pub(super) fn special(name: &str) -> Option<fn(Arc<str>) -> Reason> {
    let is = |names: &[&str]| names.binary_search(&name).is_ok();
    if is(OF_SEQUENCES) {
        Some(Reason::SequenceFunction)
    } else if is(OF_SERVER) || name.starts_with("pg_stat_get_") {
        Some(Reason::ServerFunction)
    } else if is(RUNS_TEXT) {
        Some(Reason::RunsText)
    } else {
        None
    }
}

/// Whether a relation shows the server that runs it.
pub(super) fn is_server_view(name: &str) -> bool {
    name.starts_with("pg_stat_")
        || name.starts_with("pg_statio_")
        || SERVER_VIEWS.binary_search(&name).is_ok()
}

/// Whether a setting is the same wherever the session runs.
pub(super) fn is_setting_of_session(name: &str) -> bool {
    let is = |known: &&str| known.eq_ignore_ascii_case(name);
    OF_SESSION.iter().any(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_for_their_search() {
        for names in
            [HARMLESS, OF_SERVER, RUNS_TEXT, OF_SEQUENCES, STABLE, SERVER_VIEWS, OF_SESSION]
        {
            assert!(names.is_sorted(), "{:?}", names.windows(2).find(|two| two[0] > two[1]));
        }
    }

    #[test]
    fn a_name_stands_in_one_list_of_functions() {
        for name in STABLE {
            assert!(!is_harmless(name) && special(name).is_none(), "{name}");
        }
        for name in HARMLESS {
            assert!(special(name).is_none(), "{name}");
        }
    }
}
