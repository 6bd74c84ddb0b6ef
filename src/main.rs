//! The command: reads what is asked for, runs it, and says how it went.

use std::{
    env,
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use axum::Router;
use marina_distribution::{
    config::{self, Action, Config, Invocation},
    server::{self, Ended, Stop},
};
use tokio::runtime::Runtime;
use tracing::info;

/// It ran, and found or left something that is not right.
const NOT_WELL: u8 = 1;
/// It could not run.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => fail(error.as_ref()),
    }
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let Invocation { action, effective } = match Invocation::read(env::args_os(), env::vars_os()) {
        Err(config::Error::Usage(usage)) => {
            usage.print()?;
            return Ok(if usage.use_stderr() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS });
        }
        invocation => invocation?,
    };
    match action {
        Action::Config => {
            io::stdout().write_all(effective.to_string().as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Serve => on_runtime(serve(effective.config)),
        Action::Check => Err("check: there is no registry to check yet".into()),
    }
}

fn on_runtime<T>(task: impl Future<Output = Result<T, Box<dyn Error>>>) -> Result<T, Box<dyn Error>> {
    let runtime = Runtime::new()?;
    let result = runtime.block_on(task);
    // Whatever still runs was given its time, and what it leaves behind is safe as after a crash.
    runtime.shutdown_background();
    result
}

async fn serve(config: Config) -> Result<ExitCode, Box<dyn Error>> {
    server::log::start(config.log.clone(), config.log_format);
    let stop = Stop::on_signals()?;
    let router = router(&config);
    let listener = server::bind(config.listen).await?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %listener.local_addr()?,
        data_dir = %config.data_dir.display(),
        "listening"
    );
    let settings = server::Settings {
        idle_timeout: config.idle_timeout,
        drain: config.drain,
        max_connections: config.max_connections,
    };
    match server::serve(listener, router, settings, stop).await {
        Ended::Drained => Ok(ExitCode::SUCCESS),
        Ended::Cut { .. } => Ok(ExitCode::from(NOT_WELL)),
    }
}

/// Where the rooms meet.
fn router(_config: &Config) -> Router {
    Router::new()
}

/// One line with all causes.
fn fail(error: &dyn Error) -> ExitCode {
    let mut line = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    // Nothing is left to be done about a stream that takes no error.
    let _ = writeln!(io::stderr(), "{line}");
    ExitCode::from(FAILED)
}
