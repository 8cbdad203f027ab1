//! One tunnel, put together from its configuration: credentials, TLS, proxy.

use std::sync::Arc;

use tracing::{info, warn};

use super::startup::StartError;
use crate::config::{Mode, Tunnel};
use crate::credentials::{Credentials, Identity, Selection, Store, Trust};
use crate::net::LookupError;
use crate::proxy::{Proxy, Side, Surroundings};
use crate::tls::{ClientConfigs, ServerConfigs};

/// A tunnel whose credentials are loaded; what a reload and the status port work on.
pub(super) struct Assembled {
    pub(super) config: Arc<Tunnel>,
    pub(super) proxy: Proxy,
    pub(super) store: Store,
    /// Trust anchors for a `--target-status` of `https://`.
    pub(super) status_trust: Option<Store>,
    side: Side,
}

impl Assembled {
    /// Reads credentials, looks the target up, builds the TLS configuration.
    pub(super) fn new(config: &Arc<Tunnel>, surroundings: Surroundings) -> Result<Self, StartError> {
        let store = load_credentials(config)?;
        check_target(config)?;
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
            status_trust: load_status_trust(config)?,
            side,
        })
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

fn load_credentials(config: &Tunnel) -> Result<Store, StartError> {
    let store = Store::load(&config.credentials)
        .map_err(|error| StartError::new("error: unable to load certificates", error))?;
    info!("{}", store.start_line());
    for warning in store.current().warnings() {
        warn!("warning: {warning}");
    }
    Ok(store)
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
