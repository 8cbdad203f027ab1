//! Wires the status port: what it shows of the tunnels, and the listener it accepts from.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::reporting;
use super::startup::StartError;
use super::tunnel::Assembled;
use crate::config::Mode;
use crate::lifecycle::{Drain, DrainGuard};
use crate::logging::Log;
use crate::metrics::{CertificateExpiry, Gauges, Wire};
use crate::net::{self, Acceptor, Listener, Resolver, Stream};
use crate::sandbox::{self, Outcome};
use crate::status::{
    self, CertificateView, ConfigSource, HealthCheck, Listen, Reach, SandboxView, Scheme, Settings,
    TlsConfig, Transport, TunnelView, WorkloadApiView,
};
use crate::tls;

/// No request for a target's status takes longer, whatever `--connect-timeout` is.
const LONGEST_CHECK: Duration = Duration::from_secs(24 * 3600);

/// What the status port says of a tunnel that listens on `listener`.
pub(super) fn view(tunnel: &Arc<Assembled>, listener: &Listener, resolver: &Resolver) -> TunnelView {
    TunnelView {
        listen: tunnel.config.listen.text().to_owned(),
        forward: tunnel.config.target.text().to_owned(),
        listening_on: Some(listener.address()),
        check: check(tunnel, resolver),
        certificate: certificate(tunnel),
        workload_api: workload_api(tunnel),
    }
}

/// What the status port says of the agent that the tunnel's certificate comes from.
fn workload_api(tunnel: &Arc<Assembled>) -> Rc<dyn Fn() -> Option<WorkloadApiView>> {
    let agent = tunnel.agent.clone();
    Rc::new(move || {
        let state = agent.as_ref()?.borrow();
        let agent = &state.agent;
        Some(WorkloadApiView {
            is_connected: agent.is_connected,
            spiffe_id: agent.spiffe_id.clone(),
            trust_domains: agent.trust_domains.clone(),
            updated_at: agent.updated_at,
            last_error: agent.last_error.clone(),
        })
    })
}

/// How the status port finds out whether the target is well.
fn check(tunnel: &Arc<Assembled>, resolver: &Resolver) -> HealthCheck {
    if let Mode::Server {
        target_status: Some(url),
        ..
    } = &tunnel.config.mode
    {
        let (url, reach) = (Arc::clone(url), reach(tunnel, resolver));
        return Rc::new(move || {
            let (url, reach) = (Arc::clone(&url), Rc::clone(&reach));
            Box::pin(async move { status::ask(&url, &reach).await })
        });
    }
    let proxy = tunnel.proxy.clone();
    Rc::new(move || {
        let proxy = proxy.clone();
        Box::pin(async move { proxy.probe().await })
    })
}

/// How a request for the target's status gets there. Its deadline is that of the whole check.
fn reach(tunnel: &Arc<Assembled>, resolver: &Resolver) -> Reach {
    let (tunnel, resolver) = (Arc::clone(tunnel), resolver.clone());
    Rc::new(move |name| {
        let (tunnel, resolver) = (Arc::clone(&tunnel), resolver.clone());
        Box::pin(async move {
            let limit = tunnel.config.limits.connect_timeout.min(LONGEST_CHECK);
            let dialled = net::dial(&tunnel.config.target, &resolver, Instant::now() + limit).await;
            let stream = dialled.map_err(|error| error.to_string())?;
            match (name, &tunnel.status_trust) {
                (None, _) => Ok(Box::new(stream) as Box<dyn Wire>),
                (Some(name), Some(trust)) => reporting::secure(stream, &name, &trust.current()).await,
                (Some(_), None) => Err("a redirect from http:// to https:// is not followed".to_owned()),
            }
        })
    })
}

/// What the status port says of the tunnel's own certificate.
fn certificate(tunnel: &Arc<Assembled>) -> Rc<dyn Fn() -> Option<CertificateView>> {
    let tunnel = Arc::clone(tunnel);
    Rc::new(move || {
        let credentials = tunnel.store.current();
        let own = credentials.identity()?;
        Some(CertificateView {
            subject: own.subject().to_owned(),
            serial: own.serial().to_owned(),
            not_after: own.not_after().to_string(),
        })
    })
}

/// What the status port says of the sandbox; `None` where it was not to be entered.
pub(super) fn sandbox_view(report: Option<&sandbox::Report>) -> SandboxView {
    let Some(report) = report else {
        return SandboxView {
            state: "disabled",
            ..SandboxView::default()
        };
    };
    let view = |state, reason| SandboxView {
        state,
        reason,
        rules_left_out: report.skipped.iter().map(ToString::to_string).collect(),
        ..SandboxView::default()
    };
    match &report.outcome {
        Outcome::Enforced { abi, tcp } => SandboxView {
            abi: Some(*abi),
            files: Some(true),
            tcp: Some(*tcp),
            ..view("enforced", None)
        },
        Outcome::Unsupported(reason) => view("unsupported", Some((*reason).to_owned())),
        Outcome::Failed(reason) => view("failed", Some(reason.clone())),
        Outcome::Absent => view("absent", None),
    }
}

/// How many tasks are busy with connections.
pub(super) fn busy(drain: &Drain) -> Rc<dyn Fn() -> usize> {
    let drain = drain.clone();
    Rc::new(move || drain.busy())
}

/// What the metrics show beside what was counted.
pub(super) fn gauges(tunnels: &[Arc<Assembled>], log: &Log) -> Rc<dyn Fn() -> Gauges> {
    let (tunnels, log) = (tunnels.to_vec(), log.clone());
    Rc::new(move || Gauges {
        certificates: tunnels.iter().filter_map(|tunnel| expiry(tunnel)).collect(),
        log_lines_dropped: log.dropped_lines(),
    })
}

fn expiry(tunnel: &Assembled) -> Option<CertificateExpiry> {
    let not_after = tunnel.store.current().identity()?.not_after();
    Some(CertificateExpiry {
        listen: tunnel.config.listen.text().to_owned(),
        not_after: not_after.unix_seconds(),
    })
}

/// What is spoken: TLS with the first tunnel's certificate, as it is at each connection; plain
/// HTTP where that was asked for, or where neither was asked for and there is no certificate.
pub(super) fn scheme(settings: &Settings, tunnels: &[Arc<Assembled>]) -> Result<Scheme, StartError> {
    let first = tunnels.first().cloned();
    let source: ConfigSource = Rc::new(move || {
        let first = first.as_ref()?;
        let credentials = first.store.current();
        Some(TlsConfig {
            config: tls::status_config(&credentials, first.config.tls)?,
            may_block: credentials.identity().is_some_and(|own| own.is_remote()),
        })
    });
    let address = settings.listen.text();
    match settings.transport {
        Transport::Http => Ok(Scheme::Http),
        Transport::Https | Transport::PreferHttps if source().is_some() => Ok(Scheme::Https(source)),
        Transport::PreferHttps => {
            warn!(
                "warning: status port speaks plain HTTP, as there is no certificate to serve with; give \
                 --status=http://{address} if that is meant"
            );
            Ok(Scheme::Http)
        }
        Transport::Https => Err(StartError::new(
            "error: unable to serve status port",
            format!(
                "--status=https://{address} needs a certificate with its key, and there is none; use http://"
            ),
        )),
    }
}

/// The status port's socket. The drain waits until it is closed, so that a UNIX path is gone
/// before the process is, unless it is to stay open during the drain.
pub(super) struct StatusListener {
    acceptor: Acceptor,
    _open: Option<DrainGuard>,
}

impl StatusListener {
    /// Watches the listener with the current runtime.
    pub(super) fn new(listener: Listener, open: Option<DrainGuard>) -> io::Result<Self> {
        Ok(Self {
            acceptor: listener.into_acceptor()?,
            _open: open,
        })
    }
}

impl Listen for StatusListener {
    type Stream = Stream;

    async fn accept(&mut self) -> io::Result<(Stream, String)> {
        let accepted = self.acceptor.accept().await?;
        let peer = accepted.peer().address().to_string();
        Ok((accepted.into_stream()?, peer))
    }

    fn accept_error_text(&self, error: &io::Error) -> String {
        self.acceptor.accept_error_text(error)
    }
}
