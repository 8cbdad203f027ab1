//! Counts and logs peers that were not served, with the reason by one vocabulary.
//!
//! The lines begin with the phrases of Ghostunnel 1.11.1. Where a TLS peer was refused, reason
//! and evidence follow in brackets; as fields they are there in every case.

use std::fmt;

use tracing::{error, warn};

use super::Shared;
use super::connection::via_field;
use super::handshake::Failure;
use super::upstream::Unreached;
use crate::logging::class;
use crate::metrics::{HandshakeFailure, Reason as _, Registry};
use crate::net::Stream;
use crate::tls::Evidence;

/// The handshake with an accepted peer failed.
pub(super) fn handshake_failed(metrics: &Registry, accepted: &Stream, failure: &Failure) {
    let peer = accepted.peer().address().to_string();
    let via = accepted.via();
    let Failure {
        reason,
        text,
        evidence,
    } = failure;
    metrics.handshake_failed(*reason);
    let evidence = evidence.as_deref();
    warn!(
        target: class::HANDSHAKE_ERRS,
        event = "handshake_failed",
        peer,
        via = via_field(via),
        reason = reason.label(),
        error = text,
        subject = evidence.map(|evidence| &*evidence.subject),
        serial = evidence.map(|evidence| &*evidence.serial),
        spki_pin = evidence.map(|evidence| &*evidence.pin),
        dns_names = evidence.and_then(|evidence| evidence.dns_names.as_deref()),
        ip_addresses = evidence.and_then(|evidence| evidence.ip_addresses.as_deref()),
        uris = evidence.and_then(|evidence| evidence.uris.as_deref()),
        rules = evidence.and_then(|evidence| evidence.rules.as_deref()),
        "error on TLS handshake from {peer}: {text}{}{}",
        via.map(|via| format!(" (via {via})")).unwrap_or_default(),
        Suffix(*reason, evidence)
    );
}

/// What an accepted peer said before its handshake does not tell who it speaks for.
pub(super) fn announcement_failed(metrics: &Registry, peer: &str, failure: &Failure) {
    let Failure { reason, text, .. } = failure;
    metrics.handshake_failed(*reason);
    warn!(
        target: class::HANDSHAKE_ERRS,
        event = "announcement_failed",
        peer,
        reason = reason.label(),
        error = text,
        "error on PROXY protocol header from {peer}: {text}{}",
        Suffix(*reason, None)
    );
}

/// The target was not reached, or is not the right one.
pub(super) fn dial_failed(shared: &Shared, accepted: &Stream, unreached: &Unreached) {
    let metrics = &shared.surroundings.metrics;
    metrics.dial_failed(unreached.reason);
    if let Some(reason) = unreached.handshake {
        metrics.target_handshake_failed(reason);
    }
    let evidence = unreached.evidence.as_deref();
    let suffix = unreached.handshake.map(|reason| Suffix(reason, evidence));
    error!(
        target: class::CONN_ERRS,
        event = "dial_failed",
        peer = %accepted.peer().address(),
        via = via_field(accepted.via()),
        target = shared.target.text(),
        reason = unreached.label(),
        error = unreached.text,
        subject = evidence.map(|evidence| &*evidence.subject),
        serial = evidence.map(|evidence| &*evidence.serial),
        spki_pin = evidence.map(|evidence| &*evidence.pin),
        dns_names = evidence.and_then(|evidence| evidence.dns_names.as_deref()),
        ip_addresses = evidence.and_then(|evidence| evidence.ip_addresses.as_deref()),
        uris = evidence.and_then(|evidence| evidence.uris.as_deref()),
        rules = evidence.and_then(|evidence| evidence.rules.as_deref()),
        "{}: {}{}",
        unreached.phrase(),
        unreached.text,
        suffix.map(|suffix| suffix.to_string()).unwrap_or_default()
    );
}

/// What follows the phrase: ` [reason=unknown-ca subject="CN=x" serial=01]`.
struct Suffix<'a>(HandshakeFailure, Option<&'a Evidence>);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(reason, evidence) = self;
        write!(f, " [reason={}", reason.label())?;
        if let Some(evidence) = evidence {
            write!(f, "{evidence}")?;
        }
        f.write_str("]")
    }
}
