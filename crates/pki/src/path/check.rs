//! One certificate in its place: validity, authority, path length, usage.

use super::signature::SignatureError;
use super::{PathError, Usage};
use crate::certificate::Certificate;
use crate::extensions::ExtendedKeyUsage;
use crate::time::Time;

/// What every certificate of a chain must satisfy, anchors included.
pub(super) fn own(certificate: &Certificate, now: Time) -> Result<(), PathError> {
    if certificate.extensions().unhandled_critical {
        return Err(PathError::UnhandledCriticalExtension);
    }
    let (not_before, not_after) = certificate.validity();
    if now < not_before {
        return Err(PathError::NotYetValid { now, not_before });
    }
    if now > not_after {
        return Err(PathError::Expired { now, not_after });
    }
    Ok(())
}

/// Whether a certificate's key may sign other certificates at all. A certificate of version
/// 1 or 2 does not say; as an anchor it may, because the operator said so.
pub(super) fn may_sign(parent: &Certificate) -> Result<(), SignatureError> {
    let extensions = parent.extensions();
    let is_authority = match extensions.basic_constraints {
        Some(constraints) => constraints.is_ca,
        None => parent.version() < 3,
    };
    let has_usage = extensions.key_usage.is_none_or(|usage| usage.certificate_sign);
    if is_authority && has_usage {
        Ok(())
    } else {
        Err(SignatureError::NotAnAuthority)
    }
}

/// An intermediate must say that it is an authority.
pub(super) fn is_intermediate_authority(certificate: &Certificate) -> Result<(), PathError> {
    match certificate.extensions().basic_constraints {
        Some(constraints) if constraints.is_ca => Ok(()),
        _ => Err(PathError::NotAuthorizedToSign),
    }
}

/// Counts every intermediate below, self-issued ones too (unlike RFC 5280, section 6.1.4).
pub(super) fn path_length(authority: &Certificate, intermediates: usize) -> Result<(), PathError> {
    let limit = authority
        .extensions()
        .basic_constraints
        .and_then(|constraints| constraints.path_length);
    let below = u64::try_from(intermediates).unwrap_or(u64::MAX);
    if limit.is_some_and(|limit| below > limit) {
        Err(PathError::TooManyIntermediates)
    } else {
        Ok(())
    }
}

/// Whether every certificate of the chain, the anchor too, allows `usage`. One without
/// extended key usages allows all.
pub(super) fn allows_usage(chain: &[Certificate], usage: Usage) -> bool {
    let wanted = match usage {
        Usage::Any => return true,
        Usage::ClientAuth => ExtendedKeyUsage::ClientAuth,
        Usage::ServerAuth => ExtendedKeyUsage::ServerAuth,
    };
    chain.iter().all(|certificate| {
        let allowed = &certificate.extensions().extended_key_usage;
        allowed.is_empty() || allowed.contains(&ExtendedKeyUsage::Any) || allowed.contains(&wanted)
    })
}
