//! Wires the status port: what it shows of the tunnels, and the listener it accepts from.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::tunnel::Assembled;
use crate::lifecycle::DrainGuard;
use crate::logging::Log;
use crate::metrics::{CertificateExpiry, Gauges};
use crate::net::{Acceptor, Listener, Stream};
use crate::status::{ConfigSource, Listen, Scheme, Transport, TunnelView};
use crate::tls;

/// What the status port says of a tunnel that listens on `listener`.
pub(super) fn view(tunnel: &Assembled, listener: &Listener) -> TunnelView {
    let proxy = tunnel.proxy.clone();
    TunnelView {
        listen: tunnel.config.listen.text().to_owned(),
        forward: tunnel.config.target.text().to_owned(),
        listening_on: Some(listener.address()),
        check: Rc::new(move || {
            let proxy = proxy.clone();
            Box::pin(async move { proxy.probe().await })
        }),
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
/// HTTP where that was asked for, or where there is no certificate to serve with.
pub(super) fn scheme(wanted: Transport, tunnels: &[Arc<Assembled>]) -> Scheme {
    let first = tunnels.first().cloned();
    let source: ConfigSource = Rc::new(move || tls::status_config(&first.as_ref()?.store.current()));
    match wanted {
        Transport::Https if source().is_some() => Scheme::Https(source),
        Transport::Https | Transport::Http => Scheme::Http,
    }
}

/// The status port's socket. The drain waits until it is closed, so that a UNIX path is gone
/// before the process is.
pub(super) struct StatusListener {
    acceptor: Acceptor,
    _open: DrainGuard,
}

impl StatusListener {
    /// Watches the listener with the current runtime.
    pub(super) fn new(listener: Listener, open: DrainGuard) -> io::Result<Self> {
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
