//! Logging: where log lines go and what they look like.

use std::io::stderr;

use pgimbal_config::{LogConfig, LogFormat};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use self::json::JsonLines;

mod json;

/// Starts logging to standard error as `config` says. `RUST_LOG` is not read: the environment
/// variable of the filter is `PGIMBAL_LOG`, which is part of the configuration. Lines are text or
/// one JSON object each, without colours. Called once, at the start; a reload changes nothing here.
///
/// # Errors
/// [`LoggingError`] when the filter is invalid, or when logging was started before.
pub fn begin(config: &LogConfig) -> Result<(), LoggingError> {
    subscriber(config, stderr)?.try_init().map_err(|_| LoggingError::BegunBefore)
}

/// The reason for which logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The option `log` is no valid filter.
    #[error(
        "log = \"{filter}\" is no filter: {cause}; try a level (error, warn, info, debug, trace) \
         or levels for targets, such as \"info,pgimbal=debug\""
    )]
    Filter {
        /// The value of the option.
        filter: String,
        /// What is wrong with the value.
        cause: String,
    },
    /// Logging was started before in this process.
    #[error("logging was begun before")]
    BegunBefore,
}

fn subscriber<W>(
    config: &LogConfig,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().with_regex(false).parse(&config.filter).map_err(|err| {
        LoggingError::Filter { filter: config.filter.clone(), cause: err.to_string() }
    })?;
    // Colours would reach collectors that read standard error as plain text.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    Ok(match config.format {
        LogFormat::Text => Box::new(lines.finish()),
        LogFormat::Json => Box::new(lines.event_format(JsonLines).finish()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: LogFormat) -> String {
        let page = Page::default();
        let writer = page.clone();
        let config = LogConfig { filter: filter.into(), format };
        let subscriber = subscriber(&config, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(user = "app", "client connected");
            tracing::debug!(changed = ?["a", "b\"c"], none = ?Vec::<u8>::new(), "detail");
        });
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_is_a_line_for_people() {
        let text = logged("info", LogFormat::Text);
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.contains(" INFO ") && text.contains("client connected user=\"app\""),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn json_is_an_object_a_line() {
        let text = logged("debug", LogFormat::Json);
        assert_eq!(text.lines().count(), 2);
        assert!(
            text.contains(r#""level":"INFO","message":"client connected","user":"app""#),
            "{text}"
        );
        assert!(text.lines().all(|line| line.starts_with('{') && line.ends_with('}')));
        let detail: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
        assert_eq!(detail["changed"], serde_json::json!(["a", "b\"c"]));
        assert_eq!(detail["none"], serde_json::json!([]));
        assert_eq!(
            (&detail["level"], &detail["target"]),
            (&"DEBUG".into(), &module_path!().into())
        );
        assert!(detail["timestamp"].as_str().unwrap().ends_with('Z'), "{text}");
    }

    #[test]
    fn a_filter_names_targets() {
        assert_eq!(logged("error,pgimbal=debug", LogFormat::Text).lines().count(), 2);
        assert_eq!(logged("error", LogFormat::Text), "");
    }

    #[test]
    fn a_bad_filter_says_what_it_is() {
        let config = LogConfig { filter: "info,=,nonsense=x".into(), format: LogFormat::Text };
        let err = begin(&config).unwrap_err().to_string();
        assert!(err.contains("info,=,nonsense=x") && err.contains("pgimbal=debug"), "{err}");
    }
}
