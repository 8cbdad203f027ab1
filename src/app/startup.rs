//! From a parsed command line to a serving process, and to its end, in eight steps.
//!
//! 1. parse (done by the caller) · 2. log · 3. acquire sockets · 4. restrict · 5. load
//!    credentials · 6. confine: listen · 7. serve · 8. drain.
//!
//! Landlock binds the calling thread and those it starts later. So until step 4 is done this
//! is the only thread: no runtime, no log writer, no watcher exists before it.

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tracing::{error, info, warn};

use super::reporting::Reporting;
use super::status_port::{self, StatusListener};
use super::tunnel::Assembled;
use super::{reload, reporting, sandbox_plan};
use crate::cli::{ConfigError, Run};
use crate::config::{Config, Tunnel};
use crate::credentials::Store;
use crate::lifecycle::{
    Drain, Intent, Intents, Lifecycle, Notifier, Phase, Pulse, ShutdownTrigger, Signals, reload_channel,
};
use crate::logging::{self, Log};
use crate::metrics::Registry;
use crate::net::{Bound, Inherited, Listener, Resolver};
use crate::proxy::{Surroundings, Workers};
use crate::sandbox;
use crate::status::{self, SandboxView, Scheme, Sources};

/// A log whose reader is stuck must not keep the process alive.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How long the end by a second signal may wait for the same: it must be felt as immediate.
const LAST_LINES_OF_A_KILL: Duration = Duration::from_millis(100);

/// What closing sockets takes, on top of the shutdown timeout: with a timeout of zero a
/// process with nothing open still ends in good order.
const CLOSING: Duration = Duration::from_millis(100);

/// Runs a tunnel process to its end.
pub(super) fn run(run: Run) -> ExitCode {
    let log = match logging::start(&run.logging) {
        Ok(log) => log,
        Err(error) => {
            super::complain(&format!("error: unable to set up logger: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    info!("starting ghostunnel in {} mode", run.mode);
    for warning in &run.warnings {
        warn!("warning: {warning}");
    }
    let outcome = match run.config {
        Ok(config) => start(config, &log),
        Err(error @ ConfigError::WorkloadApiAddress { .. }) => Err(StartError::new(
            "error: unable to create workload API TLS source",
            error,
        )),
        Err(error @ ConfigError::ProxyScheme(_)) => {
            Err(StartError::new("error", error).also("error: unable to build dialer"))
        }
        Err(error) => Err(StartError::new("error", error)),
    };
    match outcome {
        Ok(code) => {
            log.flush(LAST_LINES);
            code
        }
        Err(error) => {
            for line in &error.lines {
                error!(event = "start_failed", error = error.cause, "{line}");
            }
            log.flush(LAST_LINES);
            super::complain(&format!("error: {}\n", error.cause));
            ExitCode::FAILURE
        }
    }
}

/// Why the process could not start serving.
#[derive(Debug)]
pub(super) struct StartError {
    /// What the log says; scripts know these phrases.
    lines: Vec<String>,
    /// What standard error says, behind `error: `.
    cause: String,
}

impl StartError {
    /// One log line: `phrase: cause`.
    pub(super) fn new(phrase: &str, cause: impl Display) -> Self {
        Self {
            lines: vec![format!("{phrase}: {cause}")],
            cause: cause.to_string(),
        }
    }

    /// A listener of a tunnel that could not be opened.
    fn listening(tunnel: &Tunnel, cause: impl Display) -> Self {
        let word = tunnel.mode.word();
        let phrase = if word == "server" {
            "error trying to listen"
        } else {
            "error opening socket"
        };
        Self::new(phrase, cause).also(&format!("error from {word} listen"))
    }

    /// A status port that could not be opened.
    fn status(tunnel: Option<&Arc<Tunnel>>, cause: impl Display) -> Self {
        let word = tunnel.map_or("server", |tunnel| tunnel.mode.word());
        Self::new("error: unable to bind on status port", cause)
            .also("error serving /_status")
            .also(&format!("error from {word} listen"))
    }

    /// Another log line for the same cause.
    pub(super) fn also(mut self, phrase: &str) -> Self {
        self.lines.push(format!("{phrase}: {}", self.cause));
        self
    }
}

fn start(config: Config, log: &Log) -> Result<ExitCode, StartError> {
    let signal_error = |error| StartError::new("error: unable to handle signals", error);
    let signals = Signals::catch().map_err(signal_error)?;
    let acquired = acquire(&config)?;
    let sandbox = restrict(&config);
    let runtime = control_runtime()?;
    let tasks = LocalSet::new();
    let code = tasks.block_on(&runtime, async {
        let mut intents = signals.into_intents().map_err(signal_error)?;
        let loaded = tokio::select! {
            // First, so that a signal does not come before what needs no waiting.
            biased;
            loaded = load(&config, sandbox) => loaded?,
            trigger = shutdown_while_loading(&mut intents) => {
                info!("{trigger}");
                return Ok(ExitCode::SUCCESS);
            }
        };
        let confined = confine(&config, acquired)?;
        let mut serving = serve(&config, loaded, confined, log)?;
        until_shutdown(&config, &mut serving, &mut intents).await;
        Ok(drain(&config, serving, &intents, log).await)
    });
    // A status port that has stayed open closes here, which removes its UNIX path.
    drop(tasks);
    // A look-up that hangs in the C library can't be cancelled, and is not waited for.
    runtime.shutdown_background();
    code
}

/// Waits for somebody to lose patience with a start that waits for its credentials.
async fn shutdown_while_loading(intents: &mut Intents) -> ShutdownTrigger {
    loop {
        match intents.next().await {
            Intent::Shutdown(trigger) => return trigger,
            // What is being waited for will be new.
            Intent::Reload(_) => {
                info!("note: nothing to reload yet, still waiting for the first certificate")
            }
        }
    }
}

/// Step 3: sockets, bound but not listening: a client that comes too early is refused
/// rather than left waiting.
struct Acquired {
    tunnels: Vec<Bound>,
    status: Option<Bound>,
    notifier: Notifier,
}

fn acquire(config: &Config) -> Result<Acquired, StartError> {
    raise_descriptor_limit();
    let mut inherited = Inherited::default();
    let acquired = bind(config, &mut inherited);
    for line in inherited.unusable() {
        info!("warning: {line}");
    }
    acquired
}

fn bind(config: &Config, inherited: &mut Inherited) -> Result<Acquired, StartError> {
    let mut tunnels = Vec::with_capacity(config.tunnels.len());
    for tunnel in &config.tunnels {
        let bound = tunnel.listen.bind(inherited);
        tunnels.push(bound.map_err(|error| StartError::listening(tunnel, error))?);
    }
    let status = config.status.as_ref();
    let status = status.map(|status| status.listen.bind(inherited)).transpose();
    let status = status.map_err(|error| StartError::status(config.tunnels.first(), error))?;
    Ok(Acquired {
        tunnels,
        status,
        notifier: Notifier::connect(&|name| std::env::var_os(name)),
    })
}

/// A connection takes two descriptors; the soft limit is often 1024 for no reason that
/// concerns this program.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )
    {
        info!("note: unable to raise the limit of open files: {error}");
    }
}

/// Step 4. Gives what the status port says of it.
fn restrict(config: &Config) -> SandboxView {
    if !config.sandbox.landlock {
        return status_port::sandbox_view(None);
    }
    let plan = sandbox_plan::plan(config, &sandbox_plan::Environment::of_process());
    let report = sandbox::enter(&plan);
    for line in report.lines() {
        if line.starts_with("warning: ") {
            warn!("{line}");
        } else {
            info!("{line}");
        }
    }
    status_port::sandbox_view(Some(&report))
}

fn control_runtime() -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| StartError::new("error: unable to start the runtime", error))
}

/// Step 5: what every later reload repeats, for the first time.
struct Loaded {
    tunnels: Vec<Arc<Assembled>>,
    /// What is spoken on the status port, if there is one.
    scheme: Option<Scheme>,
    sandbox: SandboxView,
    metrics: Arc<Registry>,
    drain: Drain,
    pulse: Pulse,
    resolver: Resolver,
    /// Trust anchors for receivers of metrics.
    trust: Option<Arc<Store>>,
}

async fn load(config: &Config, sandbox: SandboxView) -> Result<Loaded, StartError> {
    let trust = reporting::prepare(config)?;
    let metrics = Arc::new(if config.status.is_some() || config.metrics.is_pushed() {
        Registry::new()
    } else {
        Registry::disabled()
    });
    let (drain, pulse) = (Drain::default(), Pulse::default());
    let resolver = Resolver::new();
    let surroundings = || Surroundings {
        metrics: Arc::clone(&metrics),
        drain: drain.clone(),
        pulse: pulse.clone(),
        resolver: resolver.clone(),
    };
    let mut tunnels = Vec::with_capacity(config.tunnels.len());
    for tunnel in &config.tunnels {
        tunnels.push(Arc::new(Assembled::new(tunnel, surroundings()).await?));
    }
    let status = config.status.as_ref();
    let scheme = status.map(|settings| status_port::scheme(settings, &tunnels));
    Ok(Loaded {
        scheme: scheme.transpose()?,
        sandbox,
        tunnels,
        metrics,
        drain,
        pulse,
        resolver,
        trust,
    })
}

/// Step 6: listen, the tunnels before the status port, since callers take a status port
/// that accepts for a proxy that listens.
struct Confined {
    tunnels: Vec<Listener>,
    status: Option<Listener>,
    notifier: Notifier,
}

fn confine(config: &Config, acquired: Acquired) -> Result<Confined, StartError> {
    let mut tunnels = Vec::with_capacity(acquired.tunnels.len());
    for (bound, tunnel) in acquired.tunnels.into_iter().zip(&config.tunnels) {
        tunnels.push(
            bound
                .listen()
                .map_err(|error| StartError::listening(tunnel, error))?,
        );
    }
    let status = acquired.status.map(Bound::listen).transpose();
    let status = status.map_err(|error| StartError::status(config.tunnels.first(), error))?;
    Ok(Confined {
        tunnels,
        status,
        notifier: acquired.notifier,
    })
}

/// Step 7: the process from now on.
struct Serving {
    tunnels: Vec<Arc<Assembled>>,
    lifecycle: Lifecycle,
    metrics: Arc<Registry>,
    trust: Option<Arc<Store>>,
    reporting: Reporting,
    drain: Drain,
    shutdown_requests: mpsc::Receiver<Intent>,
    _workers: Arc<Workers>,
}

fn serve(config: &Config, loaded: Loaded, confined: Confined, log: &Log) -> Result<Serving, StartError> {
    let thread_error = |error| StartError::new("error: unable to start a thread", error);
    log.start_writer().map_err(thread_error)?;
    let workers = Workers::start().map_err(thread_error)?;
    let Loaded {
        tunnels,
        scheme,
        sandbox,
        metrics,
        drain,
        pulse,
        resolver,
        trust,
    } = loaded;
    let lifecycle = Lifecycle::announcing(confined.notifier.clone(), subject(config));
    let (request_shutdown, shutdown_requests) = mpsc::channel(1);
    let views = tunnels
        .iter()
        .zip(&confined.tunnels)
        .map(|(tunnel, listener)| status_port::view(tunnel, listener, &resolver))
        .collect();
    let status = config.status.clone().zip(confined.status).zip(scheme);
    if let Some(((settings, listener), scheme)) = status {
        let open = (!settings.stays_open).then(|| drain.guard());
        let listener = StatusListener::new(listener, open)
            .map_err(|error| StartError::status(config.tunnels.first(), error))?;
        let sources = Sources {
            tunnels: views,
            lifecycle: lifecycle.clone(),
            metrics: Arc::clone(&metrics),
            metrics_prefix: config.metrics.prefix.clone(),
            gauges: status_port::gauges(&tunnels, log),
            busy: status_port::busy(&drain),
            sandbox,
            shutdown: request_shutdown,
            request_head_timeout: config.connect_timeout(),
        };
        spawn_local(async move { status::serve(listener, &settings, scheme, sources).await });
    }
    for (index, (tunnel, listener)) in tunnels.iter().zip(confined.tunnels).enumerate() {
        info!(
            event = "listening",
            address = listener.address(),
            target = tunnel.config.target.text(),
            "{}",
            listening_line(&tunnel.config, &listener)
        );
        tunnel.proxy.serve(listener, &workers, index);
        if let Some(agent) = tunnel.agent.clone() {
            spawn_local(Arc::clone(tunnel).follow(agent));
        }
    }
    spawn_local(confined.notifier.keep_alive(pulse));
    let reporting = Reporting::start(&config.metrics, &metrics, &resolver, trust.clone());
    lifecycle.set_phase(Phase::Listening);
    Ok(Serving {
        tunnels,
        lifecycle,
        metrics,
        trust,
        reporting,
        drain,
        shutdown_requests,
        _workers: workers,
    })
}

/// What the service manager shows of the tunnels, on one line.
fn subject(config: &Config) -> String {
    let tunnels = config.tunnels.iter().map(|tunnel| {
        let (listen, target) = (tunnel.listen.text(), tunnel.target.text());
        format!("{} proxying {listen} => {target}", tunnel.mode.word())
    });
    logging::escape(&tunnels.collect::<Vec<_>>().join(", ")).to_string()
}

/// The address as typed, which scripts look for, and the real one where it tells more.
fn listening_line(tunnel: &Tunnel, listener: &Listener) -> String {
    let (typed, bound) = (tunnel.listen.text(), listener.address());
    if typed == bound {
        format!("listening for connections on {typed}")
    } else {
        format!("listening for connections on {typed} (bound to {bound})")
    }
}

/// Obeys signals, timers and the status port until one of them asks for the end.
async fn until_shutdown(config: &Config, serving: &mut Serving, intents: &mut Intents) {
    let (requester, mut reloads) = reload_channel();
    if let Some(period) = config.lifecycle.timed_reload {
        spawn_local(requester.request_every(period));
    }
    loop {
        let intent = tokio::select! {
            intent = intents.next() => intent,
            Some(intent) = serving.shutdown_requests.recv() => intent,
            trigger = reloads.next() => Intent::Reload(trigger),
        };
        match intent {
            Intent::Reload(trigger) => {
                if trigger.is_announced() {
                    info!("{trigger}");
                }
                let trust = serving.trust.as_deref();
                reload::reload(&serving.tunnels, trust, &serving.lifecycle, &serving.metrics);
            }
            Intent::Shutdown(trigger) => {
                info!("{trigger}");
                if trigger == ShutdownTrigger::StatusEndpoint {
                    info!("shutdown request processing");
                }
                return;
            }
        }
    }
}

/// Step 8: no new connections; those that are open may end by themselves, in time.
async fn drain(config: &Config, serving: Serving, intents: &Intents, log: &Log) -> ExitCode {
    let last_log = log.clone();
    intents.begin_drain(move |signal| {
        warn!(
            event = "shutdown_cut_short",
            "received {signal} while shutting down, exiting at once"
        );
        last_log.flush(LAST_LINES_OF_A_KILL);
    });
    serving.lifecycle.set_phase(Phase::Stopping);
    serving.drain.begin();
    info!("shutdown proxy, waiting for drain");
    let limit = config.lifecycle.shutdown_timeout.saturating_add(CLOSING);
    let drained = tokio::time::timeout(limit, serving.drain.drained()).await;
    if drained.is_err() {
        error!(
            event = "shutdown_forced",
            "graceful shutdown timeout: forcing exit"
        );
    }
    serving.reporting.finish().await;
    drained.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}
