//! pgimbal: a pooling proxy that keeps applications connected to PostgreSQL.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use pgimbal::admin::check::{self, CheckOptions};
use pgimbal::admin::route;
use pgimbal::cli::{self, Command};
use pgimbal::inherited::Inherited;
use pgimbal::logging;
use pgimbal::serve::{Prepared, ServeError, environment};
use pgimbal::signals::{self, Signals};
use pgimbal::top;
use pgimbal_config::{Config, EXIT_CONFIG, Overrides};

/// musl's own allocator has one lock for all workers. The 5 allocations of an extended query take
/// it 0.3 us of CPU, and 5 us of waiting with 4 threads; mimalloc and glibc's take 0.03 us. Whole
/// transactions cost the same with each: see docs/benchmarks.md.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
        Command::ManualPage(name) => manual_page(&name),
        Command::ManualPages => manual_page_names(),
        Command::Run(overrides) => run(overrides),
        Command::Top(place, options) => top::run(&place, options),
        Command::Route(overrides, options) => {
            match pgimbal_config::load(&overrides, environment()) {
                Ok(config) => route::run(&config, &options),
                Err(errors) => fail(EXIT_CONFIG, &errors),
            }
        }
        Command::Check(overrides, options) => match pgimbal_config::load(&overrides, environment())
        {
            Ok(config) => check(Arc::new(config), &options),
            Err(errors) => check::unusable(&errors, options.format),
        },
    }
}

fn run(overrides: Overrides) -> ExitCode {
    let inherited = Inherited::from_environment();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .map_err(ServeError::from)
        .and_then(|runtime| runtime.block_on(serve(overrides, inherited)))
        .unwrap_or_else(|error| failed(&error))
}

/// Serves until it is told to end, which may be before it has begun.
async fn serve(overrides: Overrides, inherited: Inherited) -> Result<ExitCode, ServeError> {
    let mut signals = Signals::listen()?;
    let prepared = signals.until_shutdown(signals::run_on_own_thread(|| prepare(overrides))).await;
    match prepared.transpose()? {
        Some(Ok(prepared)) => prepared.run(signals, inherited).await.map(|()| ExitCode::SUCCESS),
        Some(Err(code)) => Ok(code),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn prepare(overrides: Overrides) -> Result<Prepared, ExitCode> {
    let config = pgimbal_config::load(&overrides, environment())
        .map_err(|errors| fail(EXIT_CONFIG, &errors))?;
    logging::begin(&config.log).map_err(|error| fail(EXIT_CONFIG, &error))?;
    Prepared::new(Arc::new(config), overrides).map_err(|error| failed(&error))
}

fn manual_page(name: &str) -> ExitCode {
    match cli::manual_pages().map(|mut pages| pages.remove(name)) {
        Ok(Some(page)) => {
            print(&page);
            ExitCode::SUCCESS
        }
        Ok(None) => fail(1, &format!("{name}: no such page; `pgimbal man --list` names them")),
        Err(error) => fail(1, &error),
    }
}

fn manual_page_names() -> ExitCode {
    match cli::manual_pages() {
        Ok(pages) => {
            let names = pages.into_keys().map(|name| name + "\n").collect::<String>();
            print(names.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => fail(1, &error),
    }
}

fn check(config: Arc<Config>, options: &CheckOptions) -> ExitCode {
    match Prepared::examine(&config) {
        Ok(()) => check::run(&config, options),
        Err(error) => check::refused(&error, options.format),
    }
}

fn failed(error: &ServeError) -> ExitCode {
    fail(if error.is_configuration() { EXIT_CONFIG } else { 1 }, error)
}

fn fail(code: u8, error: &impl std::fmt::Display) -> ExitCode {
    eprintln!("pgimbal: {error}");
    ExitCode::from(code)
}

fn print(text: &[u8]) {
    // Whoever reads may have read enough.
    let _ = std::io::stdout().write_all(text);
}
