//! The search for chains: depth first, most plausible parents first, with a budget.

use std::collections::{HashMap, HashSet};

use super::signature::{self, SignatureError};
use super::{Hint, PathError, TrustAnchors, check, constraints};
use crate::certificate::Certificate;
use crate::time::Time;

/// Signatures checked for one peer. Without a limit, certificates that share names make
/// the search exponential.
const SIGNATURE_CHECKS: u32 = 100;

/// All chains from `leaf` to an anchor, or why there is none. At least one if `Ok`. Adds the
/// signatures that were checked to `verified`.
pub(super) fn chains(
    leaf: &Certificate,
    others: &[Certificate],
    anchors: &TrustAnchors,
    now: Time,
    verified: &mut u32,
) -> Result<Vec<Vec<Certificate>>, PathError> {
    let mut search = Search {
        anchors,
        others: by_subject(others),
        now,
        signature_checks: 0,
        verified,
        found: Vec::new(),
    };
    let failure = search.extend(&mut vec![leaf.clone()]);
    match failure {
        Some(error) if search.found.is_empty() => Err(error),
        _ => Ok(search.found),
    }
}

fn by_subject(certificates: &[Certificate]) -> HashMap<&[u8], Vec<&Certificate>> {
    let mut seen = HashSet::new();
    let mut by_subject: HashMap<&[u8], Vec<&Certificate>> = HashMap::new();
    for certificate in certificates
        .iter()
        .filter(|certificate| seen.insert(*certificate))
    {
        by_subject
            .entry(certificate.subject().der())
            .or_default()
            .push(certificate);
    }
    by_subject
}

struct Search<'a> {
    anchors: &'a TrustAnchors,
    /// What the peer sent besides the leaf, by subject.
    others: HashMap<&'a [u8], Vec<&'a Certificate>>,
    now: Time,
    /// Candidates looked at.
    signature_checks: u32,
    /// Those among them whose signature was worth checking.
    verified: &'a mut u32,
    found: Vec<Vec<Certificate>>,
}

/// What a candidate may become in the chain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Anchor,
    Intermediate,
}

/// Why a candidate is not the next certificate of the chain.
enum Rejection {
    /// It cannot have signed. That by itself is no more than a hint.
    NotSigner(SignatureError),
    /// It signed, but no chain leads through it.
    Unusable(PathError),
}

impl Search<'_> {
    /// Looks for parents of the last certificate of `chain`; `None` if a chain was found.
    ///
    /// Recursion is as deep as the chain, and each level costs a signature check.
    fn extend(&mut self, chain: &mut Vec<Certificate>) -> Option<PathError> {
        let child = chain.last()?.clone();
        let before = self.found.len();
        let mut hint = None;
        let mut failure = None;
        for (place, candidate) in self.candidates(&child) {
            if is_repeated(&candidate, chain) {
                continue;
            }
            match self.consider(place, &candidate, &child, chain) {
                Ok(()) => {}
                Err(Rejection::NotSigner(reason)) => {
                    hint.get_or_insert(Hint {
                        reason,
                        authority: candidate,
                    });
                }
                Err(Rejection::Unusable(error)) => failure = Some(error),
            }
        }
        if self.found.len() > before {
            return None;
        }
        Some(failure.unwrap_or(PathError::UnknownAuthority { hint }))
    }

    fn consider(
        &mut self,
        place: Place,
        candidate: &Certificate,
        child: &Certificate,
        chain: &mut Vec<Certificate>,
    ) -> Result<(), Rejection> {
        self.signature_checks = self.signature_checks.saturating_add(1);
        if self.signature_checks > SIGNATURE_CHECKS {
            return Err(Rejection::Unusable(PathError::SignatureLimit));
        }
        check::may_sign(candidate).map_err(Rejection::NotSigner)?;
        *self.verified = self.verified.saturating_add(1);
        signature::verify(child, candidate).map_err(Rejection::NotSigner)?;
        check::own(candidate, self.now).map_err(Rejection::Unusable)?;
        if place == Place::Intermediate {
            check::is_intermediate_authority(candidate).map_err(Rejection::Unusable)?;
        }
        let intermediates = chain.len().saturating_sub(1);
        check::path_length(candidate, intermediates).map_err(Rejection::Unusable)?;
        chain.push(candidate.clone());
        let failure = match place {
            Place::Anchor => self.complete(chain).err(),
            Place::Intermediate => self.extend(chain),
        };
        chain.pop();
        failure.map_or(Ok(()), |error| Err(Rejection::Unusable(error)))
    }

    /// Constraints come last: before that a stranger could have made them up, and
    /// comparing is work.
    fn complete(&mut self, chain: &[Certificate]) -> Result<(), PathError> {
        constraints::check(chain)?;
        self.found.push(chain.to_vec());
        Ok(())
    }

    /// Certificates with the name of the child's issuer: anchors first, and of each kind those
    /// whose key identifier matches, then those that cannot be compared, then the rest.
    fn candidates(&self, child: &Certificate) -> Vec<(Place, Certificate)> {
        let issuer = child.issuer().der();
        let anchors = self
            .anchors
            .with_subject(issuer)
            .map(|anchor| (Place::Anchor, anchor.clone()));
        let others = self.others.get(issuer).into_iter().flatten();
        let others = others.map(|&other| (Place::Intermediate, other.clone()));
        let mut candidates: Vec<_> = anchors.chain(others).collect();
        candidates.sort_by_key(|(place, candidate)| {
            (*place == Place::Intermediate, plausibility(child, candidate))
        });
        candidates
    }
}

/// 0 for matching key identifiers, 1 if only one certificate has one, 2 for a mismatch.
fn plausibility(child: &Certificate, parent: &Certificate) -> u8 {
    let wanted = &child.extensions().authority_key_id;
    let offered = &parent.extensions().subject_key_id;
    if wanted == offered {
        0
    } else if wanted.is_empty() || offered.is_empty() {
        1
    } else {
        2
    }
}

/// Whether the chain already has this subject with this key and these alternative names
/// (RFC 4158, section 5.2): going round in a circle proves nothing.
fn is_repeated(candidate: &Certificate, chain: &[Certificate]) -> bool {
    chain.iter().any(|certificate| {
        certificate.subject() == candidate.subject()
            && certificate.subject_public_key_info() == candidate.subject_public_key_info()
            && encoded_names(certificate) == encoded_names(candidate)
    })
}

fn encoded_names(certificate: &Certificate) -> Option<&[u8]> {
    certificate.alternative_names().map(|names| &*names.encoded)
}
