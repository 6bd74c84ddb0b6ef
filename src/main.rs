//! The command: reads what is asked for, runs it, and says how it went.

use std::{
    convert::Infallible,
    env,
    error::Error,
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use marina_distribution::{
    config::{self, Action, Config, Invocation, StoreLocation},
    http::{self, Networks, Redirects},
    registry::{self, Clock, Collected, Collector, Event, Registry, SCRATCH_KEYS, Subject, SystemClock, Verdict},
    server::{self, Ended, Stop, health::Question},
    store::{
        Causes, Store,
        doctor::{self, Report},
        fs::FsStore,
        overlay::Overlay,
        paced::Paced,
        s3::{S3Store, Unreliable},
    },
};
use tokio::{runtime::Runtime, time::Instant};
use tracing::{error, info, warn};

mod check;
mod retain;
mod stores;
mod undo;

/// It ran, and found or left something that is not right.
const NOT_WELL: u8 = 1;
/// It could not run.
const FAILED: u8 = 2;
/// Nobody reads any more what it prints: what a shell says of who died of `SIGPIPE`.
const UNREAD: u8 = 128 + 13;
/// How long after a try to reach the store at the start the next one begins.
const OPEN_AGAIN: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) if is_unread(error.as_ref()) => ExitCode::from(UNREAD),
        Err(error) => fail(error.as_ref()),
    }
}

/// Only of writing a result is the error a plain one of input and output.
fn is_unread(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let Invocation { action, effective } = match Invocation::read(env::args_os(), env::vars_os()) {
        Err(config::Error::Usage(usage)) => {
            usage.print()?;
            return Ok(if usage.use_stderr() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS });
        }
        invocation => invocation?,
    };
    if !matches!(action, Action::Serve | Action::Config | Action::Health { .. }) {
        server::log::start(&effective.log_beside_a_result(), effective.config.log_format);
    }
    match action {
        Action::Config => {
            io::stdout().write_all(effective.to_string().as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Serve => on_runtime(serve(effective.config)),
        Action::Check(checking) => on_runtime(check::check(effective.config, checking)),
        Action::Doctor { install_lifecycle } => on_runtime(doctor(effective.config, install_lifecycle)),
        Action::Gc { dry_run, full } => on_runtime(collect(effective.config, dry_run, full)),
        Action::Retain { dry_run } => on_runtime(retain::once(effective.config, dry_run)),
        Action::History { tag } => on_runtime(undo::history(effective.config, tag)),
        Action::RestoreTag { what, at } => on_runtime(undo::restore_tag(effective.config, what, at)),
        Action::Restore { manifest } => on_runtime(undo::restore_manifest(effective.config, manifest)),
        Action::Explain { subject } => on_runtime(explain(effective.config, subject)),
        Action::Health { live } => {
            Ok(health(effective.config.listen, if live { Question::Live } else { Question::Ready }))
        }
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
    server::log::start(&config.log, config.log_format);
    let stop = Stop::on_signals()?;
    let opening = http::Opening::default();
    try_to_open(&config, &opening).await?;
    let listener = server::bind(config.listen).await?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %listener.local_addr()?,
        store = %config.store,
        "listening"
    );
    let settings = server::Settings {
        idle_timeout: config.idle_timeout,
        drain: config.drain,
        max_connections: config.max_connections,
    };
    let router = http::router(opening.clone(), http_settings(&config));
    let ended = tokio::select! {
        ended = server::serve(listener, router, settings, stop.clone()) => ended,
        refused = look_after(&config, &opening) => match refused? {},
    };
    if let Some(registry) = opening.registry() {
        // Requests whose clients went away run to their end; what they do not finish in time is safe as after a crash.
        tokio::select! {
            () = registry.settle() => {}
            () = tokio::time::sleep(config.drain) => {}
            () = stop.now.cancelled() => {}
        }
    }
    match ended {
        Ended::Drained if !stop.now.is_cancelled() => Ok(ExitCode::SUCCESS),
        Ended::Drained | Ended::Cut { .. } => Ok(ExitCode::from(NOT_WELL)),
    }
}

fn http_settings(config: &Config) -> http::Settings {
    let redirects = Redirects {
        clients: Networks::new(config.redirect.0.iter().copied()),
        min_size: config.redirect_min_size.as_u64(),
        life: config.redirect_ttl.0,
    };
    let proxies = Networks::new(config.trusted_proxies.0.iter().copied());
    http::Settings { deletes: config.deletes, redirects, proxies }
}

/// A table of what the store can do.
async fn doctor(config: Config, install_lifecycle: bool) -> Result<ExitCode, Box<dyn Error>> {
    let report = match &config.store {
        StoreLocation::Directory(_) if install_lifecycle => return Err("a directory has no lifecycle".into()),
        StoreLocation::Directory(directory) => {
            let store = FsStore::open(directory)?;
            let brief = doctor::brief(&store, SCRATCH_KEYS).await?;
            // Of a directory no URL leads anywhere.
            let more = doctor::examine(&store, SCRATCH_KEYS, async |_| Ok(Bytes::new())).await?;
            Report([brief.findings().to_vec(), more].concat())
        }
        StoreLocation::Bucket { bucket, prefix } => {
            let store = S3Store::open(stores::bucket_settings(&config, bucket, prefix)?).await;
            let (store, brief) = store.adapted(SCRATCH_KEYS).await?;
            let more = doctor::examine(&store, SCRATCH_KEYS, async |url| store.fetch(url).await).await?;
            let lifecycle = store.lifecycle(install_lifecycle, config.upload_expiry).await;
            let clock = store.clock(SystemClock.now());
            Report([brief.findings().to_vec(), more, vec![clock, lifecycle]].concat())
        }
    };
    writeln!(io::stdout(), "{report}")?;
    Ok(if report.is_safe() { ExitCode::SUCCESS } else { ExitCode::from(NOT_WELL) })
}

/// For the health check of a container.
fn health(listen: SocketAddr, question: Question) -> ExitCode {
    match server::health::ask(listen, question) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fail(&error);
            ExitCode::from(NOT_WELL)
        }
    }
}

/// Opens the registry, unless its store cannot be reached now. An error says why it never will be opened.
async fn try_to_open(config: &Config, opening: &http::Opening) -> Result<(), Box<dyn Error>> {
    match open(config).await {
        Ok(registry) => opening.open(registry),
        Err(error) if may_pass(error.as_ref()) => {
            error!(error = %Causes(error.as_ref()), "the store cannot be used yet: it is asked now and then");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn may_pass(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<Unreliable>().is_some_and(Unreliable::is_transient)
        || error.downcast_ref::<registry::Error>().is_some_and(registry::Error::is_transient)
}

/// What goes on beside the requests: waits for the store, if need be, and keeps house. Ends only if the store that comes
/// at last is refused.
async fn look_after(config: &Config, opening: &http::Opening) -> Result<Infallible, Box<dyn Error>> {
    loop {
        if let Some(registry) = opening.registry() {
            if !config.gc {
                std::future::pending::<()>().await;
            }
            let collector = collector(config, registry);
            let collecting = collect_for_ever(&collector, config.gc_interval);
            match tokio::join!(collecting, retain::for_ever(config, registry)) {}
        }
        tokio::time::sleep(OPEN_AGAIN).await;
        try_to_open(config, opening).await?;
        if opening.registry().is_some() {
            info!("the store can be used now");
        }
    }
}

/// One round, and what it did: a summary, or all of it where nothing is done.
async fn collect(config: Config, dry_run: bool, full: bool) -> Result<ExitCode, Box<dyn Error>> {
    let mut store = stores::open_existing(&config).await?;
    if dry_run {
        // The very same round, over a store that keeps what is written to itself.
        store = Arc::new(Overlay::new(store));
    }
    let collector = collector(&config, open_over(&config, store).await?.as_ref());
    let mut out = io::stdout();
    let mut told = Ok(());
    let mut tell = |event: &Event| {
        if dry_run {
            told = std::mem::replace(&mut told, Ok(())).and_then(|()| writeln!(out, "{event}"));
        }
    };
    if dry_run {
        collector.outlook(&mut tell).await?;
    }
    let walked = if full { Some(collector.walk(&mut tell).await?) } else { None };
    let done = collector.round_telling(&mut tell).await?;
    told?;
    let mut out = io::stdout();
    if let Some(walked) = walked {
        writeln!(out, "{walked}")?;
    }
    writeln!(out, "{done}")?;
    if dry_run {
        writeln!(out, "Nothing was changed.")?;
    }
    Ok(if done.left == 0 { ExitCode::SUCCESS } else { ExitCode::from(NOT_WELL) })
}

/// All that is known of one thing, a line at a time.
async fn explain(config: Config, subject: String) -> Result<ExitCode, Box<dyn Error>> {
    let subject = Subject::parse(&subject)?;
    // Nothing is written, not even the key of a fleet that has never been started.
    let store = Arc::new(Overlay::new(stores::open_existing(&config).await?));
    let mut out = io::stdout();
    let mut told = Ok(());
    let mut tell = |line: &str| {
        told = std::mem::replace(&mut told, Ok(())).and_then(|()| writeln!(out, "{line}"));
    };
    let verdict = open_over(&config, store).await?.explain(&subject, &mut tell).await?;
    told?;
    Ok(if verdict == Verdict::Needed { ExitCode::SUCCESS } else { ExitCode::from(NOT_WELL) })
}

/// Where the rooms meet.
async fn open(config: &Config) -> Result<Arc<Registry>, Box<dyn Error>> {
    open_over(config, stores::open(config).await?).await
}

async fn open_over(config: &Config, store: Arc<dyn Store>) -> Result<Arc<Registry>, Box<dyn Error>> {
    let settings = registry::Settings {
        allow_missing_references: config.allow_missing_references,
        upload_expiry: config.upload_expiry,
        grace: config.grace,
        undelete: config.undelete.0,
        memory: usize::try_from(config.memory.as_u64()).unwrap_or(usize::MAX),
        ..registry::Settings::default()
    };
    Ok(Registry::open(store, settings).await?)
}

fn collector(config: &Config, registry: &Registry) -> Collector {
    Collector::new(in_the_background(config, registry))
}

/// The registry for work that makes its calls at its own pace.
fn in_the_background(config: &Config, registry: &Registry) -> Arc<Registry> {
    registry.beside(|store| Arc::new(Paced::new(store, config.gc_rate)))
}

/// Collects, again and again. First when an interval is over: starting costs nothing that depends on what is stored.
async fn collect_for_ever(collector: &Collector, interval: Duration) -> Infallible {
    let mut rounds = tokio::time::interval_at(Instant::now() + interval, interval);
    loop {
        rounds.tick().await;
        match collector.turn(interval).await {
            Ok(None) => {}
            Ok(Some(done)) if done == Collected::default() => {}
            Ok(Some(done)) => info!(%done, "collected"),
            Err(error) => warn!(error = %Causes(&error), "the next round goes on"),
        }
    }
}

fn fail(error: &(dyn Error + 'static)) -> ExitCode {
    // Nothing is left to be done about a stream that takes no error.
    let _ = writeln!(io::stderr(), "error: {}", Causes(error));
    ExitCode::from(FAILED)
}
