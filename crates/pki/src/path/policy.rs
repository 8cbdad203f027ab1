//! Certificate policies (RFC 5280, section 6.1, as updated by RFC 9618).
//!
//! Nobody here asks for a particular policy, so the only question is whether any is left
//! where an authority requires one. For that the deepest level of the policy graph is
//! enough: it empties exactly when the graph does. So there is no graph to blow up.

use std::collections::{HashMap, HashSet};

use crate::certificate::Certificate;
use crate::extensions::{Policies, PolicyMapping};

const ANY_POLICY: &[u8] = &[0x55, 0x1d, 0x20, 0];

/// Whether the policies of a chain, leaf first and anchor last, are in order.
pub(super) fn holds(chain: &[Certificate]) -> bool {
    let Some((_anchor, below)) = chain.split_last() else {
        return false;
    };
    let Some((leaf, intermediates)) = below.split_first() else {
        return true;
    };
    let mut state = State::new(below.len());
    for certificate in intermediates.iter().rev() {
        let policies = &certificate.extensions().policies;
        let is_self_issued = certificate.issuer() == certificate.subject();
        state.assert(policies, is_self_issued);
        if !state.map(policies) {
            return false;
        }
        state.count(policies, is_self_issued);
    }
    let policies = &leaf.extensions().policies;
    state.assert(policies, false);
    let explicit = state.until_explicit <= 1 || policies.require_explicit == Some(0);
    !explicit || !state.expected.is_empty()
}

/// The state between two certificates, from the anchor down.
struct State<'a> {
    /// Policies that the next certificate may assert; `ANY_POLICY` allows every other.
    expected: HashSet<&'a [u8]>,
    /// Certificates to go until a policy is required, mapping is forbidden, `ANY_POLICY`
    /// no longer counts.
    until_explicit: u64,
    until_no_mapping: u64,
    until_no_any: u64,
}

impl<'a> State<'a> {
    fn new(length: usize) -> Self {
        let never = u64::try_from(length).unwrap_or(u64::MAX).saturating_add(1);
        Self {
            expected: HashSet::from([ANY_POLICY]),
            until_explicit: never,
            until_no_mapping: never,
            until_no_any: never,
        }
    }

    /// Section 6.1.3 (d) and (e): what remains is what the certificate asserts and its
    /// issuer expected. A certificate without policies ends it all.
    fn assert(&mut self, policies: &'a Policies, any_is_free: bool) {
        let asserted: HashSet<&[u8]> = policies.asserted.iter().map(AsRef::as_ref).collect();
        let any_counts = self.until_no_any > 0 || any_is_free;
        if asserted.contains(ANY_POLICY) && any_counts {
            // Everything expected goes on, and if anything was, so does everything asserted.
            if self.expected.contains(ANY_POLICY) {
                self.expected.extend(asserted);
            }
            return;
        }
        let any_expected = self.expected.contains(ANY_POLICY);
        self.expected = asserted
            .into_iter()
            .filter(|&policy| policy != ANY_POLICY && (any_expected || self.expected.contains(policy)))
            .collect();
    }

    /// Section 6.1.4 (a) and (b): the next certificate speaks of the subject's policies.
    /// `false` if the mapping itself is forbidden.
    fn map(&mut self, policies: &'a Policies) -> bool {
        let mut mappings: HashMap<&[u8], Vec<&[u8]>> = HashMap::new();
        for PolicyMapping { issuer, subject } in &policies.mappings {
            mappings.entry(issuer).or_default().push(subject);
        }
        let names_any = |(issuer, subjects): (&&[u8], &Vec<&[u8]>)| {
            *issuer == ANY_POLICY || subjects.contains(&ANY_POLICY)
        };
        if mappings.iter().any(names_any) {
            return false;
        }
        if self.until_no_mapping == 0 {
            self.expected.retain(|policy| !mappings.contains_key(policy));
            return true;
        }
        let any = self.expected.contains(ANY_POLICY);
        let valid = std::mem::take(&mut self.expected);
        let (mapped, unmapped): (HashSet<_>, HashSet<_>) = valid
            .into_iter()
            .partition(|policy| mappings.contains_key(policy));
        self.expected = unmapped;
        let apply = mappings
            .into_iter()
            .filter(|(issuer, _)| any || mapped.contains(issuer));
        self.expected.extend(apply.flat_map(|(_, subjects)| subjects));
        true
    }

    /// Section 6.1.4 (h) to (j).
    fn count(&mut self, policies: &Policies, is_self_issued: bool) {
        let step = u64::from(!is_self_issued);
        for (counter, limit) in [
            (&mut self.until_explicit, policies.require_explicit),
            (&mut self.until_no_mapping, policies.inhibit_mapping),
            (&mut self.until_no_any, policies.inhibit_any),
        ] {
            *counter = counter.saturating_sub(step).min(limit.unwrap_or(u64::MAX));
        }
    }
}
