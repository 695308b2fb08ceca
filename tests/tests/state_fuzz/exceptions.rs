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
    ("lastval(), currval()", "the server connection's: missing, or what others have drawn"),
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

/// What a sequence does and where it may differ for that.
pub(super) struct Known {
    /// All of these stand in the script.
    script: &'static [&'static str],
    /// One of these stands in a line of either side that the other does not have.
    line: &'static [&'static str],
    /// Why.
    #[allow(dead_code, reason = "for people")]
    reason: &'static str,
}

impl Known {
    pub(super) fn covers(&self, script: &str, told: &[Vec<String>; 2]) -> bool {
        let names = |line: &String| self.line.iter().any(|known| line.contains(known));
        let [here, there] = told;
        let only = |a: &[String], b: &[String]| a.iter().any(|l| names(l) && !b.contains(l));
        self.script.iter().all(|part| script.contains(part))
            && (only(here, there) || only(there, here))
    }
}

const RESTORED: &str = "after a RESET in a longer text, a portal or code, what came with the startup \
    packet is set again behind it: the client is told both values";

const UNNAMED: &str = "the unnamed statement is kept as its text, which another transaction may read \
    otherwise";

const NAMES_IN_CODE: &str = "code that prepares or deallocates under a name that its client has \
    parsed too: the servers have that statement under another name, and only the alternative \
    without any statement is told from the rest";

/// Sequences that may differ.
pub(super) const SCRIPTS: [Known; 14] = [
    Known {
        script: &["EXECUTE 'PREPARE q1", "P q1 ("],
        line: &["prepared statement", "T QUERY PLAN", "D '"],
        reason: NAMES_IN_CODE,
    },
    Known {
        script: &["PREPARE q1", "EXECUTE s1"],
        line: &["prepared statement"],
        reason: NAMES_IN_CODE,
    },
    Known { script: &["f_prepare"], line: &["D '1'"], reason: NAMES_IN_CODE },
    Known {
        script: &["login ", "RESET ALL"],
        line: &["TimeZone=", "DateStyle=", "client_encoding=", "IntervalStyle=", "E ERROR 25001"],
        reason: RESTORED,
    },
    Known {
        script: &["login ", "DISCARD ALL", "|"],
        line: &["TimeZone=", "DateStyle=", "client_encoding=", "IntervalStyle="],
        reason: RESTORED,
    },
    Known {
        script: &["login search_path", "RESET ALL\\x0a; "],
        line: &["C ", "E ERROR "],
        reason: RESTORED,
    },
    Known {
        script: &["P - (", "standard_conforming_strings"],
        line: &["D '\\\\"],
        reason: UNNAMED,
    },
    Known {
        script: &["P - (", "'\\x83"],
        line: &["unnamed prepared statement does not exist"],
        reason: UNNAMED,
    },
    Known {
        script: &["f_immutable"],
        line: &["D 'app.x'"],
        reason: "an immutable function with effects runs where a statement is planned, and one \
                 that is given to another server connection is planned there",
    },
    Known {
        script: &["'DEALLOCATE s1'"],
        line: &["prepared statement", "t \\x00", "n ", "T ", "D '"],
        reason: NAMES_IN_CODE,
    },
    Known { script: &["f_prepare"], line: &["prepared statement"], reason: NAMES_IN_CODE },
    Known {
        script: &["'DEALLOCATE ALL'", "|"],
        line: &["prepared statement", "t \\x00"],
        reason: "the same, used by what is sent behind it without waiting for its answer",
    },
    Known {
        script: &["f_forget", "|"],
        line: &["prepared statement", "t \\x00"],
        reason: NAMES_IN_CODE,
    },
    Known {
        script: &["login ", "set_config", "null"],
        line: &["D '"],
        reason: "set_config(…, NULL) shows the server's default in its own row, before the \
                 startup value is brought back",
    },
];

/// Answers that may differ: what pgimbal's side says in one, and PostgreSQL's in the other.
pub(super) const ANSWERS: [(&str, &str, &str); 1] = [(
    "schema \"pg_temp\" does not exist",
    "does not exist",
    "a new server connection has no temporary schema yet, which changes the words and SQLSTATE",
)];
