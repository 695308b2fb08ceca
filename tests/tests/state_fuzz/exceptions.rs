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
    /// One of these stands in a line of either side that the other has not so often, or in the
    /// first that differs.
    line: &'static [&'static str],
    /// Why it is no fault of pgimbal's; printed nowhere.
    #[allow(dead_code, reason = "for people")]
    reason: &'static str,
}

impl Known {
    pub(super) fn covers(&self, script: &str, told: &[Vec<String>; 2]) -> bool {
        let names = |line: &&String| self.line.iter().any(|known| line.contains(known));
        let [here, there] = told;
        let count = |told: &[String], line: &String| told.iter().filter(|l| *l == line).count();
        let only = |a: &[String], b: &[String]| {
            a.iter().filter(names).any(|line| count(a, line) > count(b, line))
        };
        let parted = || here.iter().zip(there).find(|(here, there)| here != there);
        self.script.iter().all(|part| script.contains(part))
            && (only(here, there)
                || only(there, here)
                || parted().is_some_and(|(here, there)| names(&here) || names(&there)))
    }
}

const UNNAMED: &str = "the unnamed statement is kept as its text, which another transaction may read \
    otherwise";

const AT_PARSE: &str = "a statement that a text names is made real for its Parse, under the path of \
    then, where PostgreSQL looks at it when the text is run";

const BEHIND_THE_END: &str = "in a failed transaction the server takes no statement under the client's \
    name: what stands behind COMMIT in the same text does not find it";

const FORGOTTEN: &str =
    "that code has deallocated everything is known when its transaction has ended";

const CODE_RESETS: &str = "what code has reset stands at the server's defaults, which the client is \
    told, until the question behind it is answered";

/// Sequences that may differ.
pub(super) const SCRIPTS: [Known; 27] = [
    Known {
        script: &["login ", "DO $do$BEGIN", "RESET", "END$do$"],
        line: &[
            "TimeZone=",
            "DateStyle=",
            "client_encoding=",
            "IntervalStyle=",
            "application_name=",
            "d ",
        ],
        reason: CODE_RESETS,
    },
    Known {
        script: &["login ", "DO $do$BEGIN", "TO DEFAULT", "END$do$"],
        line: &["TimeZone=", "DateStyle=", "client_encoding=", "IntervalStyle="],
        reason: CODE_RESETS,
    },
    Known {
        script: &["login ", "RESET ", "\\x0a; "],
        line: &[
            "D '",
            "d ",
            "E ERROR 42P01",
            "E ERROR 42501",
            "E ERROR 3F000",
            "E ERROR 42P07",
            "E ERROR 42883",
            "TimeZone=",
            "DateStyle=",
            "client_encoding=",
            "IntervalStyle=",
            "application_name=",
        ],
        reason: "what stands behind a RESET in the same text runs under the server's defaults, \
                 which the client is told until what that has left is known",
    },
    Known {
        script: &["login ", "SET TIME ZONE ", "\\x0a; "],
        line: &["TimeZone=", "D '"],
        reason: "the same, of SET TIME ZONE LOCAL",
    },
    Known {
        script: &["\\x0a; DEALLOCATE "],
        line: &["prepared statement"],
        reason: BEHIND_THE_END,
    },
    Known {
        script: &["\\x0a; EXECUTE "],
        line: &["prepared statement", "E ERROR 25P02"],
        reason: BEHIND_THE_END,
    },
    Known { script: &["\\x0a; PREPARE "], line: &["E ERROR 42P05"], reason: BEHIND_THE_END },
    Known { script: &["client_encoding", "EXECUTE s1"], line: &["T ?column?"], reason: LENT },
    Known { script: &["SET LOCAL TimeZone", "EXECUTE "], line: &["D '1704"], reason: LENT },
    Known { script: &["SET LOCAL DateStyle", "EXECUTE "], line: &["D '1'", "D '2'"], reason: LENT },
    Known { script: &["'DEALLOCATE ALL'"], line: &["prepared statement"], reason: FORGOTTEN },
    Known { script: &["DEALLOCATE ALL\\x0a; "], line: &["prepared statement"], reason: FORGOTTEN },
    Known {
        script: &["INSERT INTO notes", "\\x0a; DEALLOCATE"],
        line: &["prepared statement"],
        reason: "a DEALLOCATE at the end of a longer text whose commit fails has happened, but \
                 PostgreSQL does not say so",
    },
    Known {
        script: &["B ", "\\xc3", "DEALLOCATE "],
        line: &["prepared statement", "t \\x00\\x00"],
        reason: "the same, of a text with bytes above 0x7f",
    },
    Known {
        script: &["B ", "\\'", "DEALLOCATE "],
        line: &["prepared statement"],
        reason: "a text that can be read in two ways is not followed: what it deallocates stays",
    },
    Known {
        script: &["hold", "standard_conforming_strings"],
        line: &["E ERROR 42601"],
        reason: "a statement that moves to another server connection is parsed there anew, under \
                 the present settings",
    },
    Known {
        script: &["idle_session_timeout"],
        line: &["57P05"],
        reason: "a limit of milliseconds may pass before the next message comes",
    },
    Known { script: &["f_forget"], line: &["prepared statement"], reason: FORGOTTEN },
    Known {
        script: &["P - (", "standard_conforming_strings"],
        line: &["D '\\\\"],
        reason: UNNAMED,
    },
    Known {
        script: &["search_path", "EXECUTE "],
        line: &["E ERROR 42P01", "E ERROR 42883"],
        reason: AT_PARSE,
    },
    Known {
        script: &["client_encoding", "\\x83"],
        line: &["E ERROR 26000 unnamed"],
        reason: "a text that has no equivalent in the database's encoding is refused before it \
                 destroys the unnamed statement; which has one, only tables of PostgreSQL's tell",
    },
    Known { script: &["P - (", "\\x83"], line: &["E ERROR 22021"], reason: UNNAMED },
    Known {
        script: &["login ", "RESET ALL\\x0a; SAVEPOINT"],
        line: &["TimeZone=", "DateStyle=", "client_encoding=", "IntervalStyle="],
        reason: "an error behind a savepoint undoes what was brought back behind it, which the \
                 client is told until its ROLLBACK",
    },
    Known {
        script: &["login ", "DISCARD ALL"],
        line: &["TimeZone=", "DateStyle=", "client_encoding=", "IntervalStyle="],
        reason: "the same, behind DISCARD ALL",
    },
    Known {
        script: &["login options -c app.tenant", "set_config('app.tenant', "],
        line: &["D 'app.tenant'"],
        reason: "a custom setting that code has set to '' and one that it has reset look alike",
    },
    Known {
        script: &["f_immutable"],
        line: &["D 'app.x'"],
        reason: "an immutable function with effects runs where a statement is planned, and one \
                 that is given to another server connection is planned there",
    },
    Known {
        script: &["login ", "set_config", "null"],
        line: &["D '"],
        reason: "set_config(…, NULL) shows the server's default in its own row, before the \
                 startup value is brought back",
    },
];

/// The same in looks at the client's own session only.
pub(super) const LOOKS: [Known; 5] = [
    Known {
        script: &["CREATE TEMPORARY TABLE accounts", "SET ROLE"],
        line: &["E ERROR 42501"],
        reason: "a server connection that has had temporary objects does not look up the names of \
                 its statements again, and SQL EXECUTE finds the temporary table all the same",
    },
    Known {
        script: &["SET SCHEMA"],
        line: &["E ERROR 42P01", "E ERROR 42883"],
        reason: "the same as below: a path",
    },
    Known {
        script: &["client_encoding", "\\x83"],
        line: &["E ERROR 22021", "E ERROR 22P05"],
        reason: LENT,
    },
    Known {
        script: &["search_path"],
        line: &["E ERROR 42P01", "E ERROR 42883", "E ERROR 42501"],
        reason: "a statement that another server connection parses anew is looked up under the path \
                 of now, where PostgreSQL's Describe still tells what it was; Bind is refused by both",
    },
    Known {
        script: &["standard_conforming_strings"],
        line: &["E ERROR 22P06", "E ERROR 42601"],
        reason: LENT,
    },
];

const LENT: &str =
    "SQL EXECUTE of a statement of the protocol reads its text under the settings of now";

/// Whether a difference is known, in a look at the client's own session or elsewhere.
pub(super) fn is_known(in_look: bool, script: &str, told: &[Vec<String>; 2]) -> bool {
    let looks = LOOKS.iter().filter(|_| in_look);
    SCRIPTS.iter().chain(looks).any(|known| known.covers(script, told))
}

/// Answers that may differ: what pgimbal's side says in one, and PostgreSQL's in the other.
pub(super) const ANSWERS: [(&str, &str, &str); 1] = [(
    "schema \"pg_temp\" does not exist",
    "does not exist",
    "a new server connection has no temporary schema yet, which changes the words and SQLSTATE",
)];
