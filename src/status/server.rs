//! The status server: accepts connections, answers requests, ends with the process.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinSet, LocalSet, yield_now};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::check::SharedCheck;
use super::deadline::{DeadlineStream, Progress, WHOLE_REQUEST};
use super::health::{self, SandboxView, Snapshot, TunnelView};
use super::pprof::{self, Answer, Census};
use super::routes::{self, Route, route};
use super::seats::{Seat, Seats};
use super::secure::{self, Secured, TlsConfig};
use super::{Settings, apart};
use crate::lifecycle::{Intent, Lifecycle, Phase, ShutdownTrigger};
use crate::metrics::{Gauges, Registry, hostname, json, prometheus};

/// How many status connections are served at once; more wait in the backlog. Far above
/// what monitoring needs, and a bound on what strangers can make the process hold, since
/// `--max-concurrent-conns` is about the proxy only.
pub(super) const MAX_CONNECTIONS: usize = 256;

/// The library's buffer for reading; a longer head is refused with status 431.
const READ_BUFFER: usize = 16 * 1024;

/// How much of a request's body is read away before the answer. No endpoint wants a
/// body; unread, it would turn the end of the connection into a reset.
const MAX_BODY: u64 = 256 * 1024;

/// How long requests may go on once the process stops.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// How long to wait for a place before looking again who could leave one.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Pause after a failure to accept: doubles from the first to the second.
const ACCEPT_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const BYTES: &str = "application/octet-stream";

/// Gives the TLS configuration for the next connection: today's certificate, no client
/// authentication, no ALPN. `None` when there is no certificate to serve with.
pub type ConfigSource = Rc<dyn Fn() -> Option<TlsConfig>>;

/// What is spoken on the status port.
#[derive(Clone)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https(ConfigSource),
}

/// What the status port shows and does.
pub struct Sources {
    /// The tunnels, in order; the first one is shown on top.
    pub tunnels: Vec<TunnelView>,
    /// Phase and last reload.
    pub lifecycle: Lifecycle,
    /// The metrics.
    pub metrics: Arc<Registry>,
    /// What their names begin with.
    pub metrics_prefix: String,
    /// Gives what others than the metrics' registry know.
    pub gauges: Rc<dyn Fn() -> Gauges>,
    /// What became of the sandbox.
    pub sandbox: SandboxView,
    /// Gives the number of tasks that are busy with connections.
    pub busy: Rc<dyn Fn() -> usize>,
    /// Gets the shutdown that `POST /_shutdown` asks for. One place is enough.
    pub shutdown: mpsc::Sender<Intent>,
    /// Limit for reading a request's head, for the TLS handshake and for a health check:
    /// the connect timeout. Zero stands for none of its own.
    pub request_head_timeout: Duration,
}

/// Where status connections come from.
pub trait Listen {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;

    /// Waits for the next connection; also gives its peer's address for the log.
    /// Must be cancel-safe.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, String)>>;

    /// How the log tells of a failed [`Listen::accept`]:
    /// `accept tcp 127.0.0.1:8080: accept4: too many open files`.
    fn accept_error_text(&self, error: &io::Error) -> String;
}

/// Serves the status port until the process stops: then the listener closes at once, and
/// requests in progress get a few seconds. If it is to stay open, it does for good.
///
/// Runs on the caller's thread. Dropping the future closes everything.
pub async fn serve<L: Listen>(listener: L, settings: &Settings, scheme: Scheme, sources: Sources) {
    let head_limit = match sources.request_head_timeout {
        Duration::ZERO => WHOLE_REQUEST,
        limit => limit.min(WHOLE_REQUEST),
    };
    let check_limit = match sources.request_head_timeout {
        Duration::ZERO => WHOLE_REQUEST,
        limit => limit,
    };
    let checks = sources
        .tunnels
        .iter()
        .map(|tunnel| SharedCheck::new(Rc::clone(&tunnel.check), check_limit));
    let site = Rc::new(Site {
        hostname: hostname(),
        stays_open: settings.stays_open,
        checks: checks.collect(),
        scheme,
        has_shutdown: settings.enable_shutdown,
        profiles: settings.profiles.clone(),
        visits: Cell::new(0),
        seats: Seats::default(),
        head_limit,
        apart: Arc::new(Semaphore::new(apart::AT_ONCE)),
        sources,
    });
    LocalSet::new().run_until(site.serve(listener)).await;
}

/// All that connections share.
struct Site {
    hostname: String,
    scheme: Scheme,
    has_shutdown: bool,
    /// The command line to be shown, if profiles are served.
    profiles: Option<Vec<u8>>,
    /// Connections to this port that are open now.
    visits: Cell<usize>,
    seats: Seats,
    stays_open: bool,
    head_limit: Duration,
    /// Places for handshakes that may take long.
    apart: Arc<Semaphore>,
    checks: Vec<SharedCheck>,
    sources: Sources,
}

impl Site {
    async fn serve<L: Listen>(self: Rc<Self>, listener: L) {
        let mut entrance = Entrance::new(listener);
        let mut connections = JoinSet::new();
        let mut stopping = pin!(self.stopping());
        loop {
            tokio::select! {
                () = &mut stopping => break,
                Some(_) = connections.join_next() => {}
                (stream, peer, permit) = entrance.next(&self.seats) => {
                    let site = Rc::clone(&self);
                    connections.spawn_local(async move {
                        site.connection(stream, &peer).await;
                        drop(permit);
                    });
                }
            }
        }
        drop(entrance);
        let rest = async { while connections.join_next().await.is_some() {} };
        // Those that are not done by then are closed with the set.
        let _ = timeout(LAST_ANSWERS, rest).await;
    }

    /// The moment to close.
    async fn stopping(&self) {
        if self.stays_open {
            return std::future::pending().await;
        }
        self.sources
            .lifecycle
            .phase_becomes(|phase| phase == Phase::Stopping)
            .await;
    }

    async fn connection<S>(self: Rc<Self>, stream: S, peer: &str)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let _counted = Counted::new(&self.visits);
        let seat = self.seats.take();
        tokio::select! {
            () = self.speak(stream, peer, &seat) => {}
            () = seat.told_to_leave() => {}
        }
    }

    async fn speak<S>(self: &Rc<Self>, stream: S, peer: &str, seat: &Seat)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        match &self.scheme {
            Scheme::Http => self.http(stream, seat).await,
            Scheme::Https(config) => match secure::handshake(stream, config(), self.head_limit, &self.apart)
                .await
            {
                Ok(Secured::Here(stream)) => self.http(stream, seat).await,
                Ok(Secured::Apart(stream, carrier)) => {
                    tokio::join!(self.http(stream, seat), carrier);
                }
                Err(error) => tracing::warn!(peer, error, "http: TLS handshake error from {peer}: {error}"),
            },
        }
    }

    /// Speaks HTTP until either side closes.
    async fn http<S>(self: &Rc<Self>, stream: S, seat: &Seat)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let progress = Progress::new(self.head_limit);
        seat.follow(&progress);
        let stream = DeadlineStream::new(stream, Rc::clone(&progress));
        let visit = Rc::new(Visit {
            site: Rc::clone(self),
            progress,
            wants_shutdown: Cell::new(false),
        });
        let service = service_fn(|request| {
            let visit = Rc::clone(&visit);
            async move { Ok::<_, Infallible>(visit.serve(request).await) }
        });
        let connection = http1::Builder::new()
            .half_close(true) // `printf ... | nc` closes its side before it reads
            .title_case_headers(true)
            .max_buf_size(READ_BUFFER)
            .header_read_timeout(None) // see DeadlineStream
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        // What goes wrong here is the peer's affair: it left, or it does not speak HTTP.
        let is_over = tokio::select! {
            _ = connection.as_mut() => true,
            () = self.stopping() => false,
        };
        if !is_over {
            connection.as_mut().graceful_shutdown();
            let _ = connection.as_mut().await;
        }
        // Not before the answer is out: the process may end at once.
        if visit.wants_shutdown.get() {
            let _ = self
                .sources
                .shutdown
                .try_send(Intent::Shutdown(ShutdownTrigger::StatusEndpoint));
        }
    }

    async fn status(&self) -> Response<Full<Bytes>> {
        let sources = &self.sources;
        sources
            .lifecycle
            .phase_becomes(|phase| phase != Phase::Initializing)
            .await;
        let results = health::check_all(&self.checks).await;
        let (ok, text) = health::report(&Snapshot {
            tunnels: &sources.tunnels,
            results: &results,
            state: &sources.lifecycle.state(),
            connections_open: sources.metrics.open_connections(),
            sandbox: &sources.sandbox,
            hostname: &self.hostname,
            now: SystemTime::now(),
        });
        let status = if ok {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        answer(status, JSON, text)
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let samples = self.sources.metrics.samples();
        let text = json::render(
            &samples,
            &self.sources.metrics_prefix,
            &self.hostname,
            SystemTime::now(),
        );
        answer(StatusCode::OK, TEXT, text)
    }

    async fn profile(&self, page: pprof::Page) -> Response<Full<Bytes>> {
        let command_line = self.profiles.as_deref().unwrap_or_default();
        let census = Census {
            tasks: vec![
                ("connections and listeners", (self.sources.busy)()),
                ("connections to the status port", self.visits.get()),
                ("status port", 1),
                ("main task", 1),
            ],
        };
        match pprof::answer(page, command_line, &census).await {
            Answer::Text(text) => answer(StatusCode::OK, TEXT, text),
            Answer::Html(text) => answer(StatusCode::OK, HTML, text),
            Answer::Bytes(bytes) => answer(StatusCode::OK, TEXT, bytes),
            Answer::Profile(profile) => answer(StatusCode::OK, BYTES, profile),
            Answer::NotImplemented(why) => answer(StatusCode::NOT_IMPLEMENTED, TEXT, why),
            Answer::Failed(why) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, why),
            Answer::NotFound => answer(StatusCode::NOT_FOUND, TEXT, "Unknown profile\n"),
        }
    }

    fn prometheus(&self) -> Response<Full<Bytes>> {
        let sources = &self.sources;
        let text = prometheus::render(&sources.metrics, &(sources.gauges)(), &sources.metrics_prefix);
        answer(StatusCode::OK, prometheus::CONTENT_TYPE, text)
    }
}

/// One of several, for as long as it lives.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get().saturating_add(1));
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// One connection, as its requests see it.
struct Visit {
    site: Rc<Site>,
    progress: Rc<Progress>,
    wants_shutdown: Cell<bool>,
}

impl Visit {
    async fn serve(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let deadline = self.progress.service_begins();
        // Whoever sends many requests at once takes turns with others.
        yield_now().await;
        let (head, body) = request.into_parts();
        let (path, query) = (head.uri.path(), head.uri.query());
        let profile = self
            .site
            .profiles
            .as_ref()
            .and_then(|_| routes::profile(path, query));
        let route = profile.unwrap_or_else(|| route(&head.method, path, query, self.site.has_shutdown));
        let mut response = match timeout_at(deadline, read_away(body)).await {
            Ok(true) => self.answer(route).await,
            Ok(false) => closing(self.answer(route).await),
            Err(_) => closing(empty(StatusCode::REQUEST_TIMEOUT)),
        };
        if self.wants_shutdown.get() {
            response = closing(response);
        }
        self.progress.service_ends();
        response
    }

    async fn answer(&self, route: Route) -> Response<Full<Bytes>> {
        match route {
            Route::Status => self.site.status().await,
            Route::Metrics => self.site.metrics(),
            Route::Prometheus => self.site.prometheus(),
            Route::Profile(page) => self.site.profile(page).await,
            Route::Shutdown => {
                self.wants_shutdown.set(true);
                empty(StatusCode::OK)
            }
            Route::ShutdownByOtherMethod => empty(StatusCode::METHOD_NOT_ALLOWED),
            Route::Unclean(target) => redirect(&target),
            Route::Unknown => not_found(),
        }
    }
}

/// Reads the body to its end, and says whether it got there within [`MAX_BODY`].
async fn read_away(mut body: Incoming) -> bool {
    if body.size_hint().lower() > MAX_BODY {
        return false;
    }
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return false;
        };
        length += frame.data_ref().map_or(0, Bytes::len) as u64;
        if length > MAX_BODY {
            return false;
        }
    }
    true
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn answer(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = empty(status);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    *response.body_mut() = Full::new(text.into());
    response
}

fn closing(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn not_found() -> Response<Full<Bytes>> {
    let mut response = answer(StatusCode::NOT_FOUND, TEXT, "404 page not found\n");
    let name = HeaderName::from_static("x-content-type-options");
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static("nosniff"));
    response
}

fn redirect(target: &str) -> Response<Full<Bytes>> {
    // The parts of a parsed request are valid in a header; else there is nothing to find.
    HeaderValue::from_str(target).map_or_else(
        |_| not_found(),
        |target| {
            let mut response = empty(StatusCode::TEMPORARY_REDIRECT);
            response.headers_mut().insert(LOCATION, target);
            response
        },
    )
}

/// The listener with its connection limit and its pauses after failures.
struct Entrance<L: Listen> {
    listener: L,
    permits: Arc<Semaphore>,
    /// Accepted, and not yet given a permit.
    arrived: Option<(L::Stream, String)>,
    pause: Duration,
    not_before: Option<Instant>,
}

impl<L: Listen> Entrance<L> {
    fn new(listener: L) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self {
            listener,
            permits,
            arrived: None,
            pause: ACCEPT_PAUSES.0,
            not_before: None,
        }
    }

    /// Waits for the next connection, however long accepting fails, and for a permit. Cancel-safe.
    async fn next(&mut self, seats: &Seats) -> (L::Stream, String, OwnedSemaphorePermit) {
        loop {
            if let Some(moment) = self.not_before {
                sleep_until(moment).await;
            }
            if self.arrived.is_none() {
                match self.listener.accept().await {
                    Ok(arrived) => {
                        (self.pause, self.not_before) = (ACCEPT_PAUSES.0, None);
                        self.arrived = Some(arrived);
                    }
                    Err(error) => self.failed(&error),
                }
                continue;
            }
            if self.permits.available_permits() == 0 {
                seats.make_room();
            }
            let permit = Arc::clone(&self.permits).acquire_owned();
            // Where all were busy, one may be waiting by then.
            if let Ok(permit) = timeout(LOOK_AGAIN, permit).await
                && let Some((stream, peer)) = self.arrived.take()
            {
                return (stream, peer, permit.expect("the semaphore is never closed"));
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        let pause = self.pause;
        let text = self.listener.accept_error_text(error);
        tracing::error!(error = text, "http: Accept error: {text}; retrying in {pause:?}");
        self.not_before = Some(Instant::now() + pause);
        self.pause = (pause * 2).min(ACCEPT_PAUSES.1);
    }
}
