//! Wires the receivers of metrics that don't ask for them: Graphite, and a URL to post to.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tracing::info;

use super::startup::StartError;
use crate::config::Config;
use crate::credentials::{Credentials, Identity, Selection, Store};
use crate::metrics::{
    Connect, Content, GRAPHITE_INTERVAL, LAST_ATTEMPT, Registry, Reporter, Settings, Wire, hostname,
};
use crate::net::{self, HttpUrl, Resolver, TargetAddr};
use crate::tls::Outgoing;

/// How long connecting to a receiver of posts may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Tells the log where metrics go, and reads the trust anchors that an `https://` receiver is
/// verified with.
pub(super) fn prepare(config: &Config) -> Result<Option<Arc<Store>>, StartError> {
    let metrics = &config.metrics;
    if let Some(address) = metrics.graphite {
        info!("metrics enabled; reporting metrics via TCP to {address}");
    }
    if let Some(url) = &metrics.post {
        info!("metrics enabled; reporting metrics via POST to {url}");
    }
    let is_tls = metrics.post.as_ref().is_some_and(|url| url.tls_name().is_some());
    let trust = config.tunnels.first().filter(|_| is_tls).map(|tunnel| Selection {
        identity: Identity::None,
        trust: tunnel.credentials.trust.clone(),
    });
    let store = trust.map(|selection| Store::load(&selection)).transpose();
    store
        .map(|store| store.map(Arc::new))
        .map_err(|error| StartError::new("error: unable to build TLS config", error))
}

/// The reporters at work.
pub(super) struct Reporting {
    end: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Reporting {
    /// Starts a reporter for each receiver.
    pub(super) fn start(
        settings: &Settings,
        registry: &Arc<Registry>,
        resolver: &Resolver,
        trust: Option<Arc<Store>>,
    ) -> Self {
        let (end, ended) = watch::channel(false);
        let content = || Content {
            registry: Arc::clone(registry),
            prefix: settings.prefix.clone(),
            hostname: hostname(),
        };
        let mut tasks = Vec::new();
        if let Some(address) = settings.graphite {
            let target = TargetAddr::tcp(&address.to_string()).expect("an address is written as one");
            let reporter = Reporter::graphite(content(), target, resolver.clone());
            tasks.push(spawn_local(reporter.run(GRAPHITE_INTERVAL, ended.clone())));
        }
        if let Some((url, interval)) = settings.post.clone().zip(settings.interval) {
            let connect = connect(&url, resolver, trust);
            let reporter = Reporter::http(content(), url, connect);
            tasks.push(spawn_local(reporter.run(interval, ended)));
        }
        Self { end, tasks }
    }

    /// Sends the last values, which takes a moment at most.
    pub(super) async fn finish(self) {
        self.end.send_replace(true);
        let all = async {
            for task in self.tasks {
                let _ended_either_way = task.await;
            }
        };
        let _not_waited_for_longer = timeout(LAST_ATTEMPT, all).await;
    }
}

/// How to reach the receiver of posts.
fn connect(url: &HttpUrl, resolver: &Resolver, trust: Option<Arc<Store>>) -> Connect {
    let target = url.target().clone();
    let name = url.tls_name().map(str::to_owned);
    let resolver = resolver.clone();
    Rc::new(move || {
        let (target, resolver) = (target.clone(), resolver.clone());
        let secured = name
            .clone()
            .zip(trust.as_ref())
            .map(|(name, trust)| (name, trust.current()));
        Box::pin(async move {
            let dialled = net::dial(&target, &resolver, Instant::now() + CONNECT).await;
            let stream = dialled.map_err(|error| error.to_string())?;
            match secured {
                None => Ok(Box::new(stream) as Box<dyn Wire>),
                Some((name, credentials)) => secure(stream, &name, &credentials).await,
            }
        }) as Pin<Box<dyn Future<Output = _>>>
    })
}

/// Shakes hands with a server that must prove this name.
pub(super) async fn secure(
    stream: net::Stream,
    name: &str,
    credentials: &Credentials,
) -> Result<Box<dyn Wire>, String> {
    let outgoing = Outgoing::new(credentials, name).map_err(|error| format!("tls: {error}"))?;
    let connector = TlsConnector::from(outgoing.config());
    match connector.connect(outgoing.name(), stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(outgoing.explain(&error)),
    }
}
