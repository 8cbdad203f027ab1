//! One tunnel, put together from its configuration: credentials, TLS, proxy.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::spawn_local;
use tracing::{error, info, warn};

use super::startup::StartError;
use crate::config::{Mode, Tunnel};
use crate::credentials::workload_api::{self, Watch};
use crate::credentials::{Credentials, Identity, Selection, Store, Trust};
use crate::net::{LookupError, Resolver};
use crate::proxy::{Proxy, Side, Surroundings};
use crate::tls::{ClientConfigs, ServerConfigs};

/// A tunnel whose credentials are loaded; what a reload and the status port work on.
pub(super) struct Assembled {
    pub(super) config: Arc<Tunnel>,
    pub(super) proxy: Proxy,
    pub(super) store: Store,
    /// What the agent of a Workload API pushes.
    pub(super) agent: Option<watch::Receiver<workload_api::State>>,
    /// Trust anchors for a `--target-status` of `https://`.
    pub(super) status_trust: Option<Store>,
    side: Side,
}

impl Assembled {
    /// Reads credentials, or waits for them; looks the target up, builds the TLS configuration.
    pub(super) async fn new(config: &Arc<Tunnel>, surroundings: Surroundings) -> Result<Self, StartError> {
        let source = Source::open(config, &surroundings.resolver)?;
        check_target(config)?;
        let (store, agent) = source.first(config).await?;
        let side = side(config, &store.current())?;
        let proxy = Proxy::new(
            side.clone(),
            config.target.clone(),
            config.limits.clone(),
            surroundings,
        );
        Ok(Self {
            config: Arc::clone(config),
            proxy,
            store,
            agent,
            status_trust: load_status_trust(config)?,
            side,
        })
    }

    /// Puts in force what is pushed, for as long as anything is.
    pub(super) async fn follow(self: Arc<Self>, mut agent: watch::Receiver<workload_api::State>) {
        loop {
            let seen = agent.borrow_and_update().clone();
            let in_force = self.store.current().generation();
            if let Some(fresh) = seen.credentials.filter(|fresh| fresh.generation() > in_force) {
                match self.renew(Arc::clone(&fresh)) {
                    Ok(()) => tell_of(&fresh, &seen.agent),
                    Err(error) => error!("error reloading TLS configuration: {error}"),
                }
            }
            if agent.changed().await.is_err() {
                return;
            }
        }
    }

    /// Makes the next handshakes use these credentials.
    pub(super) fn renew(&self, fresh: Arc<Credentials>) -> Result<(), String> {
        match &self.side {
            Side::Server { tls, .. } => tls.renew(&fresh).map_err(|error| error.to_string())?,
            Side::Client(configs) => configs.renew(&fresh),
        }
        self.store.publish(fresh);
        Ok(())
    }
}

/// Where credentials come from: files have been read, an agent has been asked.
enum Source {
    Read(Store),
    Asked(workload_api::Settings, watch::Receiver<workload_api::State>),
}

impl Source {
    fn open(config: &Tunnel, resolver: &Resolver) -> Result<Self, StartError> {
        let source = match &config.credentials.identity {
            Identity::WorkloadApi(settings) => {
                let (watch, state) = Watch::new(settings.clone(), resolver.clone());
                // Ends with the process, which owes the agent no farewell.
                spawn_local(watch.run());
                Self::Asked(settings.clone(), state)
            }
            Identity::Pair { .. } | Identity::Keystore { .. } | Identity::Pkcs11(_) | Identity::None => {
                let store = Store::load(&config.credentials)
                    .map_err(|error| StartError::new("error: unable to load certificates", error))?;
                Self::Read(store)
            }
        };
        info!("{}", config.credentials.start_line());
        match &source {
            Self::Read(store) => warn_of(&store.current()),
            Self::Asked(settings, _) if settings.endpoint.is_exposed() => warn!(
                "warning: --use-workload-api-addr leads over a network, where anybody on the way can read the \
                 private key; use a unix: address"
            ),
            Self::Asked(..) => {}
        }
        Ok(source)
    }

    /// The credentials to start with.
    async fn first(
        self,
        config: &Tunnel,
    ) -> Result<(Store, Option<watch::Receiver<workload_api::State>>), StartError> {
        match self {
            Self::Read(store) => Ok((store, None)),
            Self::Asked(settings, mut state) => {
                let first = workload_api::first_answer(&mut state, settings.first_answer_timeout).await;
                let first = first.map_err(|error| match config.mode {
                    Mode::Server { .. } => StartError::new("error: unable to get server TLS config", error)
                        .also("error from server listen"),
                    Mode::Client { .. } => {
                        let cause = format!("unable to get client TLS config: {error}");
                        StartError::new("error: unable to build dialer", cause)
                    }
                })?;
                tell_of(&first, &state.borrow().agent);
                Ok((Store::pushed(&config.credentials, first), Some(state)))
            }
        }
    }
}

/// Says what has come, once it is in force.
fn tell_of(credentials: &Credentials, agent: &workload_api::AgentState) {
    let id = agent.spiffe_id.as_deref().unwrap_or_default();
    let end = credentials.identity().map(|own| own.not_after().to_string());
    let end = end.unwrap_or_default();
    info!(
        event = "svid_received",
        spiffe_id = id,
        not_after = end,
        "spiffe/info: received SVID {id}, valid until {end}, and bundles of {}",
        agent.trust_domains.join(", ")
    );
    warn_of(credentials);
}

fn warn_of(credentials: &Credentials) {
    for warning in credentials.warnings() {
        warn!("warning: {warning}");
    }
}

/// The system's, whatever `--cacert` says: that is about the tunnel's peers.
fn load_status_trust(config: &Tunnel) -> Result<Option<Store>, StartError> {
    let Mode::Server {
        target_status: Some(url),
        ..
    } = &config.mode
    else {
        return Ok(None);
    };
    let selection = url.tls_name().map(|_| Selection {
        identity: Identity::None,
        trust: Trust::System,
    });
    let store = selection.map(|selection| Store::load(&selection)).transpose();
    store.map_err(|error| StartError::new("error: unable to build TLS config", error))
}

fn check_target(config: &Tunnel) -> Result<(), StartError> {
    if config.resolve_at_start {
        let checked = config.target.check_resolves();
        checked.map_err(|error| {
            let cause = format!("{error}{}", target_remedy(&error));
            StartError::new("error: invalid target address", cause)
        })?;
    }
    info!("using target address {}", config.target.text());
    if let Some(proxy) = config.target.proxy() {
        info!("using proxy URL {proxy}");
    }
    Ok(())
}

/// What to change when the target has no address, as the end of a message.
fn target_remedy(error: &LookupError) -> &'static str {
    match error {
        LookupError::Port(error) => error.remedy(),
        LookupError::NoSuchHost(_) | LookupError::Failed { .. } => {
            " (correct the host in --target, or start without this check by --skip-resolve)"
        }
        LookupError::NoSuchZone(_) | LookupError::NotLoopback { .. } => "",
    }
}

fn side(config: &Tunnel, credentials: &Credentials) -> Result<Side, StartError> {
    Ok(match &config.mode {
        Mode::Server {
            client_auth,
            header,
            announcers,
            ..
        } => Side::Server {
            tls: Arc::new(
                ServerConfigs::new(credentials, client_auth.clone(), config.tls)
                    .map_err(|error| StartError::new("error: unable to get server TLS config", error))?,
            ),
            header: *header,
            announcers: announcers.clone(),
        },
        Mode::Client { server_name, verify } => Side::Client(Arc::new(ClientConfigs::new(
            credentials,
            server_name.clone(),
            verify.clone(),
            config.tls,
        ))),
    })
}
