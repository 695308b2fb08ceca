//! The findings of a check: one line each for people, or one JSON document for programs.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::process::ExitCode;

use pgimbal_config::{ConfigErrors, EXIT_CONFIG};
use serde::Serialize;

/// Exit code when something fails that clients would meet.
const EXIT_FAILURE: u8 = 1;
/// Exit code when everything works and there are warnings. 2 stands for a wrong command line.
const EXIT_WARNING: u8 = 3;

/// The format in which the findings of a check are printed to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// One line for each finding, as soon as it is found.
    Text,
    /// One JSON document with all findings, at the end.
    Json,
}

/// The verdict of a finding, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// The place works.
    Ok,
    /// The place was not tried, or need not work.
    Note,
    /// The place works, and should be looked at.
    Warning,
    /// The place does not work.
    Failure,
}

#[derive(Debug, Serialize)]
struct Finding {
    verdict: Verdict,
    /// What was looked at: `database app, user app, server 127.0.0.1:5432`.
    place: String,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    /// The worst verdict.
    result: Verdict,
    findings: &'a [Finding],
}

/// The findings so far, shared by all checks.
#[derive(Debug)]
pub(super) struct Findings {
    format: OutputFormat,
    findings: RefCell<Vec<Finding>>,
    worst: Cell<Verdict>,
}

impl Findings {
    pub(super) const fn new(format: OutputFormat) -> Self {
        Self { format, findings: RefCell::new(Vec::new()), worst: Cell::new(Verdict::Ok) }
    }

    pub(super) fn ok(&self, place: impl Into<String>, text: impl Into<String>) {
        self.add(Verdict::Ok, place.into(), text.into(), None);
    }

    pub(super) fn note(&self, place: impl Into<String>, text: impl Into<String>) {
        self.add(Verdict::Note, place.into(), text.into(), None);
    }

    pub(super) fn warn(&self, place: impl Into<String>, text: impl Into<String>) {
        self.add(Verdict::Warning, place.into(), text.into(), None);
    }

    pub(super) fn fail(&self, place: impl Into<String>, text: impl Into<String>) {
        self.add(Verdict::Failure, place.into(), text.into(), None);
    }

    /// A failure with what to do about it, if that is known.
    pub(super) fn fail_with(&self, place: &str, text: String, hint: Option<String>) {
        self.add(Verdict::Failure, place.to_owned(), text, hint);
    }

    fn add(&self, verdict: Verdict, place: String, text: String, hint: Option<String>) {
        self.worst.set(self.worst.get().max(verdict));
        let finding = Finding { verdict, place, text, hint };
        if self.format == OutputFormat::Text {
            finding.print();
        }
        self.findings.borrow_mut().push(finding);
    }

    /// Prints the JSON document, if that is the format, and returns the exit code of the worst
    /// verdict.
    pub(super) fn end(self) -> ExitCode {
        let result = self.worst.get();
        if self.format == OutputFormat::Json {
            print_json(result, &self.findings.borrow());
        }
        match result {
            Verdict::Ok | Verdict::Note => ExitCode::SUCCESS,
            Verdict::Warning => EXIT_WARNING.into(),
            Verdict::Failure => EXIT_FAILURE.into(),
        }
    }
}

/// Prints the errors of a configuration with which nothing can be checked: as text to standard
/// error, or as one JSON document to standard output, with the file, variable or flag as the place
/// of each. The exit code is [`EXIT_CONFIG`].
#[must_use]
pub fn unusable(errors: &ConfigErrors, format: OutputFormat) -> ExitCode {
    match format {
        OutputFormat::Text => eprintln!("pgimbal: {errors}"),
        OutputFormat::Json => {
            let finding = |error: &pgimbal_config::ConfigError| {
                let whole = error.to_string();
                let origin = format!("{}: ", error.origin);
                let text = whole.strip_prefix(&origin).unwrap_or(&whole).to_owned();
                Finding { verdict: Verdict::Failure, place: error.origin.clone(), text, hint: None }
            };
            print_json(Verdict::Failure, &errors.iter().map(finding).collect::<Vec<_>>());
        }
    }
    ExitCode::from(EXIT_CONFIG)
}

/// Prints an error that was found when a valid configuration was put to use, such as an unreadable
/// certificate: as text to standard error, or as one JSON document to standard output with
/// `configuration` as its place. The exit code is [`EXIT_CONFIG`].
#[must_use]
pub fn refused(error: &impl ToString, format: OutputFormat) -> ExitCode {
    match format {
        OutputFormat::Text => eprintln!("pgimbal: {}", error.to_string()),
        OutputFormat::Json => {
            let (place, text) = ("configuration".to_owned(), error.to_string());
            let finding = Finding { verdict: Verdict::Failure, place, text, hint: None };
            print_json(Verdict::Failure, &[finding]);
        }
    }
    ExitCode::from(EXIT_CONFIG)
}

impl Finding {
    fn print(&self) {
        let word = match self.verdict {
            Verdict::Warning => "warning: ",
            _ => "",
        };
        let mut line = format!("{}: {word}{}\n", self.place, self.text);
        if let Some(hint) = &self.hint {
            line.push_str(&format!("    {hint}\n"));
        }
        // Whoever reads may have read enough: `pgimbal check | head -1`.
        let _ = io::stdout().lock().write_all(line.as_bytes());
    }
}

fn print_json(result: Verdict, findings: &[Finding]) {
    let document = Document { version: env!("CARGO_PKG_VERSION"), result, findings };
    // Texts and words are always JSON.
    let text = serde_json::to_string_pretty(&document).unwrap_or_default();
    let _ = writeln!(io::stdout().lock(), "{text}");
}
