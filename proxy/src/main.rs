//! pgimbal: a pooling proxy that keeps applications connected to PostgreSQL.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use pgimbal::check::{self, Wish};
use pgimbal::cli::{self, Command};
use pgimbal::logging;
use pgimbal::serve::{Prepared, environment};
use pgimbal_config::{Config, EXIT_CONFIG, Overrides};

fn main() -> ExitCode {
    match cli::parse() {
        Command::Reference => {
            print(pgimbal_config::reference().as_bytes());
            ExitCode::SUCCESS
        }
        Command::Completions(shell) => {
            let mut script = Vec::new();
            cli::write_completions(shell, &mut script);
            print(&script);
            ExitCode::SUCCESS
        }
        Command::Run(overrides) => match pgimbal_config::load(&overrides, environment()) {
            Ok(config) => run(Arc::new(config), overrides),
            Err(errors) => fail(EXIT_CONFIG, &errors),
        },
        Command::Check(overrides, wish) => match pgimbal_config::load(&overrides, environment()) {
            Ok(config) => check(Arc::new(config), &wish),
            Err(errors) => check::unusable(&errors, wish.form),
        },
    }
}

fn run(config: Arc<Config>, overrides: Overrides) -> ExitCode {
    if let Err(error) = logging::begin(&config.log) {
        return fail(EXIT_CONFIG, &error);
    }
    let served = Prepared::new(config, overrides).and_then(Prepared::run);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_configuration() => fail(EXIT_CONFIG, &error),
        Err(error) => fail(1, &error),
    }
}

fn check(config: Arc<Config>, wish: &Wish) -> ExitCode {
    match Prepared::examine(&config) {
        Ok(()) => check::run(&config, wish),
        Err(error) => check::refused(&error, wish.form),
    }
}

fn fail(code: u8, error: &impl std::fmt::Display) -> ExitCode {
    eprintln!("pgimbal: {error}");
    ExitCode::from(code)
}

fn print(text: &[u8]) {
    // Whoever reads may have read enough.
    let _ = std::io::stdout().write_all(text);
}
