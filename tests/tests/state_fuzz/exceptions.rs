//! What pgimbal does not promise: no sequence asks for it, or no look compares it. One line each,
//! with the reason; the documentation names the same as "reset only".

/// Settings that the first client is never asked for, although other clients must not see them.
pub(super) const RESET_ONLY: [(&str, &str); 1] = [(
    "app.hidden",
    "a custom setting whose name no text shows: pg_settings does not list it, so nobody can ask",
)];

/// What the generator leaves out.
#[allow(dead_code, reason = "a list for people")]
pub(super) const LEFT_OUT: [(&str, &str); 7] = [
    ("random() after setseed()", "cannot be read out; reset for others, lost for its client"),
    ("lastval(), currval()", "the same"),
    ("pg_backend_pid() and what is made of it", "the process changes"),
    ("temp_buffers", "fixed once a connection has used a temporary table, which another did not"),
    ("SHOW of a custom setting that is unset", "a placeholder once made is '' for ever"),
    ("LOAD, dictionaries of PL/Perl and the like", "end with the connection only"),
    ("plpgsql.*", "checked only where the library is loaded: the fuzzed server preloads it"),
];

/// Reasons for which a client may stay pinned although PostgreSQL shows nothing of it.
pub(super) const MAY_STAY_PINNED: [(&str, &str); 1] = [(
    "statement_under_older_settings",
    "a statement parsed under settings of its own can be put in only where they hold",
)];

/// Answers that may differ: what pgimbal's side says in one, and PostgreSQL's in the other.
pub(super) const ANSWERS: [(&str, &str, &str); 1] = [(
    "schema \"pg_temp\" does not exist",
    "does not exist",
    "a new server connection has no temporary schema yet, which changes the words and SQLSTATE",
)];
