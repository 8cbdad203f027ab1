//! Wires the status port: what it shows of the tunnels, and the listener it accepts from.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tracing::warn;

use super::startup::StartError;
use super::tunnel::Assembled;
use crate::lifecycle::DrainGuard;
use crate::logging::Log;
use crate::metrics::{CertificateExpiry, Gauges};
use crate::net::{Acceptor, Listener, Stream};
use crate::sandbox::{self, Outcome};
use crate::status::{
    CertificateView, ConfigSource, Listen, SandboxView, Scheme, Settings, Transport, TunnelView,
};
use crate::tls;

/// What the status port says of a tunnel that listens on `listener`.
pub(super) fn view(tunnel: &Arc<Assembled>, listener: &Listener) -> TunnelView {
    let proxy = tunnel.proxy.clone();
    TunnelView {
        listen: tunnel.config.listen.text().to_owned(),
        forward: tunnel.config.target.text().to_owned(),
        listening_on: Some(listener.address()),
        check: Rc::new(move || {
            let proxy = proxy.clone();
            Box::pin(async move { proxy.probe().await })
        }),
        certificate: certificate(tunnel),
    }
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
        tls::status_config(&first.store.current(), first.config.tls)
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
