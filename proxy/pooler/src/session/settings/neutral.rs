//! What is known of settings by their names.

/// Settings that say who the session is. RESET ALL leaves them alone, and they are replayed last.
pub(super) const ROLE: &[u8] = b"role";
/// See [`ROLE`]; setting this one clears the role.
pub(super) const SESSION_AUTHORIZATION: &[u8] = b"session_authorization";
/// A value with bytes above 0x7f means what it does only under the encoding it came in.
pub(crate) const CLIENT_ENCODING: &[u8] = b"client_encoding";

/// Whether `name` says who the session is.
pub(super) fn is_identity(name: &[u8]) -> bool {
    name == ROLE || name == SESSION_AUTHORIZATION
}

/// Whether the value of `name` is a list of identifiers, each of which SET quotes
/// (`GUC_LIST_QUOTE`; pg_dump knows the same list, and extensions may not add to it).
pub(crate) fn is_identifier_list(name: &[u8]) -> bool {
    matches!(
        name,
        b"search_path"
            | b"temp_tablespaces"
            | b"local_preload_libraries"
            | b"session_preload_libraries"
            | b"shared_preload_libraries"
            | b"unix_socket_directories"
    )
}

/// Whether `name` is the server's to say, or ends with the transaction: never tracked or replayed.
pub(super) fn is_never_replayed(name: &[u8]) -> bool {
    matches!(
        name,
        b"in_hot_standby"
            | b"is_superuser"
            | b"transaction_isolation"
            | b"transaction_read_only"
            | b"transaction_deferrable"
            | b"seed"
    )
}

/// Whether PostgreSQL looks at `name` again when a prepared statement is run (plancache.c): it
/// analyses the statement anew under another search path, and for another role where row-level
/// security depends on it.
pub(crate) fn is_looked_at_again(name: &[u8]) -> bool {
    is_identity(name) || name == b"search_path"
}

/// Whether PostgreSQL reads the text of a statement by `name`, or the constants in it unless these
/// are `analysed_anew`.
pub(crate) fn is_read_at_parse(name: &[u8], analysed_anew: bool) -> bool {
    let text =
        matches!(name, b"backslash_quote" | b"client_encoding" | b"standard_conforming_strings");
    let constants = matches!(
        name,
        b"array_nulls"
            | b"datestyle"
            | b"intervalstyle"
            | b"lc_monetary"
            | b"timezone"
            | b"timezone_abbreviations"
            | b"transform_null_equals"
            | b"xmloption"
    );
    text || constants && !analysed_anew
}

/// Whether no statement could be parsed or planned to mean something else under another value.
pub(super) fn is_neutral_to_parse(name: &[u8]) -> bool {
    // Custom settings and those of extensions are looked at when a statement runs.
    if name.contains(&b'.') {
        return true;
    }
    matches!(
        name,
        b"application_name"
            | b"client_connection_check_interval"
            | b"client_min_messages"
            | b"commit_delay"
            | b"deadlock_timeout"
            | b"extra_float_digits"
            | b"idle_in_transaction_session_timeout"
            | b"idle_session_timeout"
            | b"lock_timeout"
            | b"log_min_duration_statement"
            | b"log_statement"
            | b"statement_timeout"
            | b"synchronous_commit"
            | b"tcp_keepalives_count"
            | b"tcp_keepalives_idle"
            | b"tcp_keepalives_interval"
            | b"tcp_user_timeout"
            | b"transaction_timeout"
            | b"work_mem"
    )
}
