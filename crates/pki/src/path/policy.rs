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
    let links: Vec<Link<'_>> = chain.iter().map(Link::of).collect();
    // The anchor's own policies do not count (RFC 5280, section 6.1.1).
    links
        .split_last()
        .is_some_and(|(_anchor, below)| below.is_empty() || process(below))
}

/// What matters about one certificate here.
struct Link<'a> {
    policies: &'a Policies,
    is_self_issued: bool,
}

impl<'a> Link<'a> {
    fn of(certificate: &'a Certificate) -> Self {
        Self {
            policies: &certificate.extensions().policies,
            is_self_issued: certificate.issuer() == certificate.subject(),
        }
    }
}

/// Walks from the certificate below the anchor to the leaf, which comes first.
fn process(links: &[Link<'_>]) -> bool {
    let Some((leaf, intermediates)) = links.split_first() else {
        return true;
    };
    let mut state = State::new(links.len());
    for link in intermediates.iter().rev() {
        state.assert(link.policies, link.is_self_issued);
        if !state.map(link.policies) {
            return false;
        }
        state.count(link);
    }
    state.assert(leaf.policies, false);
    let explicit = state.until_explicit <= 1 || leaf.policies.require_explicit == Some(0);
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
    fn count(&mut self, link: &Link<'_>) {
        let step = u64::from(!link.is_self_issued);
        let policies = link.policies;
        for (counter, limit) in [
            (&mut self.until_explicit, policies.require_explicit),
            (&mut self.until_no_mapping, policies.inhibit_mapping),
            (&mut self.until_no_any, policies.inhibit_any),
        ] {
            *counter = counter.saturating_sub(step).min(limit.unwrap_or(u64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &[u8] = &[0x2a, 1];
    const B: &[u8] = &[0x2a, 2];
    const C: &[u8] = &[0x2a, 3];

    fn asserting(policies: &[&[u8]]) -> Policies {
        Policies {
            asserted: policies.iter().map(|&policy| policy.into()).collect(),
            ..Policies::default()
        }
    }

    fn mapping(mut policies: Policies, from: &[u8], to: &[u8]) -> Policies {
        policies.mappings.push(PolicyMapping {
            issuer: from.into(),
            subject: to.into(),
        });
        policies
    }

    /// `below`: leaf first, none self-issued.
    fn valid(below: &[Policies]) -> bool {
        let links: Vec<_> = below
            .iter()
            .map(|policies| Link {
                policies,
                is_self_issued: false,
            })
            .collect();
        process(&links)
    }

    #[test]
    fn policies_are_processed_as_rfc_5280_says() {
        let require = |mut policies: Policies| {
            policies.require_explicit = Some(0);
            policies
        };
        let inhibit_any = |mut policies: Policies| {
            policies.inhibit_any = Some(0);
            policies
        };
        let inhibit_mapping = |mut policies: Policies| {
            policies.inhibit_mapping = Some(0);
            policies
        };
        let any = || asserting(&[ANY_POLICY]);
        for (case, below, expected) in [
            (
                "nothing asked, nothing said",
                vec![asserting(&[]), asserting(&[])],
                true,
            ),
            (
                "nothing asked, nothing in common",
                vec![asserting(&[B]), asserting(&[A])],
                true,
            ),
            (
                "required and kept",
                vec![asserting(&[A]), require(asserting(&[A]))],
                true,
            ),
            (
                "required and missing",
                vec![asserting(&[]), require(asserting(&[A]))],
                false,
            ),
            (
                "required and another",
                vec![asserting(&[B]), require(asserting(&[A]))],
                false,
            ),
            ("required under any", vec![asserting(&[B]), require(any())], true),
            (
                "the leaf requires what it lacks",
                vec![require(asserting(&[])), asserting(&[A])],
                false,
            ),
            ("any at the leaf", vec![any(), require(asserting(&[A]))], true),
            (
                "any at the leaf, inhibited",
                vec![any(), require(inhibit_any(asserting(&[A])))],
                false,
            ),
            (
                "mapped",
                vec![asserting(&[B]), require(mapping(asserting(&[A]), A, B))],
                true,
            ),
            (
                "mapped away",
                vec![asserting(&[A]), require(mapping(asserting(&[A]), A, B))],
                false,
            ),
            (
                "mapped from any",
                vec![asserting(&[C]), require(mapping(any(), A, C))],
                true,
            ),
            (
                "mapping names any",
                vec![any(), mapping(asserting(&[A]), A, ANY_POLICY)],
                false,
            ),
            (
                "mapping inhibited",
                vec![
                    asserting(&[B]),
                    mapping(asserting(&[A]), A, B),
                    require(inhibit_mapping(asserting(&[A]))),
                ],
                false,
            ),
        ] {
            assert_eq!(valid(&below), expected, "{case}");
        }
    }

    /// The valid policy tree of RFC 5280, section 6.1, node by node.
    fn reference(links: &[Link<'_>]) -> bool {
        #[derive(Clone)]
        struct Node {
            valid: Vec<u8>,
            expected: Vec<Vec<u8>>,
        }
        let length = u64::try_from(links.len()).expect("short");
        let mut tree = Some(vec![Node {
            valid: ANY_POLICY.to_vec(),
            expected: vec![ANY_POLICY.to_vec()],
        }]);
        let (mut explicit, mut no_map, mut no_any) = (length + 1, length + 1, length + 1);
        for (index, link) in links.iter().enumerate().rev() {
            let (policies, is_last) = (link.policies, index == 0);
            let asserted: Vec<Vec<u8>> = policies.asserted.iter().map(|policy| policy.to_vec()).collect();
            tree = tree.filter(|_| !asserted.is_empty()).map(|parents| {
                let mut nodes: Vec<Node> = Vec::new();
                let node = |policy: &Vec<u8>| Node {
                    valid: policy.clone(),
                    expected: vec![policy.clone()],
                };
                for policy in asserted.iter().filter(|policy| *policy != ANY_POLICY) {
                    let direct = parents.iter().any(|parent| parent.expected.contains(policy));
                    if direct || parents.iter().any(|parent| parent.valid == ANY_POLICY) {
                        nodes.push(node(policy));
                    }
                }
                if asserted.iter().any(|policy| policy == ANY_POLICY)
                    && (no_any > 0 || (!is_last && link.is_self_issued))
                {
                    for policy in parents.iter().flat_map(|parent| &parent.expected) {
                        if !nodes.iter().any(|node| node.valid == *policy) {
                            nodes.push(node(policy));
                        }
                    }
                }
                nodes
            });
            tree = tree.filter(|nodes| !nodes.is_empty());
            if explicit == 0 && tree.is_none() {
                return false;
            }
            if is_last {
                continue;
            }
            for mapping in &policies.mappings {
                if *mapping.issuer == *ANY_POLICY || *mapping.subject == *ANY_POLICY {
                    return false;
                }
            }
            if let Some(nodes) = &mut tree {
                let issuers: HashSet<&[u8]> =
                    policies.mappings.iter().map(|mapping| &*mapping.issuer).collect();
                for issuer in issuers {
                    let subjects = policies
                        .mappings
                        .iter()
                        .filter(|mapping| *mapping.issuer == *issuer);
                    let subjects: Vec<Vec<u8>> = subjects.map(|mapping| mapping.subject.to_vec()).collect();
                    if no_map == 0 {
                        nodes.retain(|node| node.valid != issuer);
                    } else if let Some(node) = nodes.iter_mut().find(|node| node.valid == issuer) {
                        node.expected = subjects;
                    } else if nodes.iter().any(|node| node.valid == ANY_POLICY) {
                        nodes.push(Node {
                            valid: issuer.to_vec(),
                            expected: subjects,
                        });
                    }
                }
            }
            tree = tree.filter(|nodes| !nodes.is_empty());
            let step = u64::from(!link.is_self_issued);
            for (counter, limit) in [
                (&mut explicit, policies.require_explicit),
                (&mut no_map, policies.inhibit_mapping),
                (&mut no_any, policies.inhibit_any),
            ] {
                *counter = counter.saturating_sub(step);
                *counter = limit.map_or(*counter, |limit| limit.min(*counter));
            }
        }
        explicit = explicit.saturating_sub(1);
        if links
            .first()
            .is_some_and(|leaf| leaf.policies.require_explicit == Some(0))
        {
            explicit = 0;
        }
        explicit > 0 || tree.is_some()
    }

    fn any_policies() -> impl Strategy<Value = Policies> {
        let policy = || {
            prop_oneof![4 => Just(A), 4 => Just(B), 3 => Just(C), 3 => Just(ANY_POLICY)]
                .prop_map(Box::<[u8]>::from)
        };
        let named = || prop_oneof![Just(A), Just(B), Just(C)].prop_map(Box::<[u8]>::from);
        let limit = || prop_oneof![3 => Just(None), 1 => (0u64..3).prop_map(Some)];
        let asserted = prop::collection::hash_set(policy(), 0..4);
        let mappings = prop::collection::vec((named(), named()), 0..3);
        (asserted, mappings, limit(), limit(), limit()).prop_map(
            |(asserted, mappings, require_explicit, inhibit_mapping, inhibit_any)| Policies {
                asserted: asserted.into_iter().collect(),
                mappings: mappings
                    .into_iter()
                    .map(|(issuer, subject)| PolicyMapping { issuer, subject })
                    .collect(),
                require_explicit,
                inhibit_mapping,
                inhibit_any,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn a_reference_tree_agrees(chain in prop::collection::vec((any_policies(), prop::bool::weighted(0.2)), 1..5)) {
            let links: Vec<_> = chain
                .iter()
                .map(|(policies, is_self_issued)| Link { policies, is_self_issued: *is_self_issued })
                .collect();
            prop_assert_eq!(process(&links), reference(&links));
        }
    }
}
