//! What one reload request reaches, in order, and its one result for log and status.

use std::sync::Arc;
use std::time::SystemTime;

use tracing::{error, info, warn};

use super::tunnel::Assembled;
use crate::credentials::Store;
use crate::lifecycle::{Lifecycle, Phase};
use crate::metrics::{Registry, ReloadResult};

/// Reads the credentials of all tunnels again. A tunnel takes its new ones whole or keeps its
/// old ones whole; the new ones are in force before the status port shows that a reload has
/// happened.
///
/// `trust` are the anchors for receivers of metrics; a failure to read them again has shown
/// with the tunnel, which has the same.
pub(super) fn reload(
    tunnels: &[Arc<Assembled>],
    trust: Option<&Store>,
    lifecycle: &Lifecycle,
    metrics: &Registry,
) {
    let at = SystemTime::now();
    lifecycle.set_phase(Phase::Reloading);
    let mut failures = Vec::new();
    for tunnel in tunnels {
        if let Err(error) = renew(tunnel) {
            error!(
                event = "reload_failed",
                error, "error reloading TLS configuration: {error}"
            );
            failures.push(error);
        }
    }
    if let Some(trust) = trust
        && let Ok(fresh) = trust.prepare_reload()
    {
        trust.publish(fresh);
    }
    info!(event = "reload_complete", "reloading configuration complete");
    let result = if failures.is_empty() {
        metrics.reload_finished(ReloadResult::Success);
        Ok(())
    } else {
        metrics.reload_finished(ReloadResult::Failure);
        Err(failures.join("; "))
    };
    lifecycle.reload_finished(at, result);
}

fn renew(tunnel: &Assembled) -> Result<(), String> {
    if tunnel.store.is_pushed() {
        // Whatever there is has come by itself.
        return Ok(());
    }
    let fresh = tunnel.store.prepare_reload().map_err(|error| error.to_string())?;
    let loaded = fresh.identity().map(|own| own.subject().to_owned());
    let warnings = fresh.warnings().to_vec();
    tunnel.renew(fresh)?;
    if let Some(subject) = loaded {
        info!(
            event = "certificate_loaded",
            subject, "loaded certificate: {subject}"
        );
    }
    for warning in warnings {
        warn!("warning: {warning}");
    }
    Ok(())
}
