//! RFC 5280, section 6.1, clause by clause: for each, a chain that keeps it and one that breaks
//! it in nothing else.

mod forge;

use std::time::Duration;

use forge::{DNS, Draft, EMAIL, IP, POLICY_CONSTRAINTS, URI, authority, leaf, name, sequence, tlv};
use ghostunnel_pki::{Certificate, PathRequest, TrustAnchors, Usage, validate};
use rustls_pki_types::UnixTime;

const A: &[u8] = &[0x2a, 3, 4];
const B: &[u8] = &[0x2a, 3, 5];
const ANY_POLICY: &[u8] = &[0x55, 0x1d, 0x20, 0];
const POLICY_MAPPINGS: u8 = 33;
const INHIBIT_ANY_POLICY: u8 = 54;

/// Keys of root, upper and lower authority, leaf.
const KEYS: [u8; 4] = [1, 2, 3, 4];

/// root, upper, lower, leaf: each issued by the one before.
#[derive(Clone)]
struct Chain([Draft; 4]);

fn sound() -> Chain {
    let [root, upper, lower, peer] = KEYS;
    Chain([
        authority("root", root),
        authority("upper", upper),
        authority("lower", lower),
        leaf("leaf", peer),
    ])
}

impl Chain {
    fn with(mut self, place: usize, change: impl FnOnce(Draft) -> Draft) -> Self {
        self.0[place] = change(self.0[place].clone());
        self
    }

    fn certificates(&self) -> [Certificate; 4] {
        let Self([root, upper, lower, peer]) = self;
        [
            root.self_signed(KEYS[0]),
            upper.issued_by("root", KEYS[0]),
            lower.issued_by("upper", KEYS[1]),
            peer.issued_by("lower", KEYS[2]),
        ]
    }

    fn holds(&self) -> bool {
        holds(&self.certificates())
    }
}

fn holds([root, upper, lower, peer]: &[Certificate; 4]) -> bool {
    let presented = [peer.clone(), lower.clone(), upper.clone()];
    validate(&PathRequest {
        presented: &presented,
        anchors: &TrustAnchors::new(vec![root.clone()]),
        time: UnixTime::since_unix_epoch(Duration::from_secs(1_795_564_800)), // 2026-11-25
        usage: Usage::Any,
        server_name: None,
    })
    .is_ok()
}

const ROOT: usize = 0;
const UPPER: usize = 1;
const LOWER: usize = 2;
const LEAF: usize = 3;

/// Checks chains that differ in one respect.
fn assert_clause(clause: &str, cases: &[(&str, Chain, bool)]) {
    for (what, chain, expected) in cases {
        assert_eq!(chain.holds(), *expected, "{clause}: {what}");
    }
}

fn require_explicit(draft: Draft, skip: u8) -> Draft {
    draft.extension(POLICY_CONSTRAINTS, true, &sequence(&[tlv(0x80, &[skip])]))
}

fn inhibit_mapping(draft: Draft, skip: u8) -> Draft {
    draft.extension(POLICY_CONSTRAINTS, true, &sequence(&[tlv(0x81, &[skip])]))
}

fn inhibit_any(draft: Draft, skip: u8) -> Draft {
    draft.extension(INHIBIT_ANY_POLICY, true, &[2, 1, skip])
}

fn mapping(draft: Draft, issuer: &[u8], subject: &[u8]) -> Draft {
    let pair = sequence(&[tlv(6, issuer), tlv(6, subject)]);
    draft.extension(POLICY_MAPPINGS, true, &sequence(&[pair]))
}

#[test]
fn a_sound_chain_holds() {
    assert!(sound().holds());
}

#[test]
fn clause_6_1_3_a_1_the_signature_is_by_the_issuers_key() {
    let good = sound().certificates();
    for (place, key) in [(UPPER, 9), (LOWER, KEYS[0]), (LEAF, KEYS[1])] {
        let issuer = ["", "root", "upper", "lower"][place];
        let mut chain = good.clone();
        chain[place] = sound().0[place].issued_by(issuer, key);
        assert!(!holds(&chain), "{place} by key {key}");
    }
}

#[test]
fn clause_6_1_3_a_2_the_validity_includes_the_time() {
    for place in [ROOT, UPPER, LOWER, LEAF] {
        for (from, to, expected) in [
            ("261125000000Z", "261125000000Z", true),
            ("261125000001Z", "400101000000Z", false),
            ("200101000000Z", "261124235959Z", false),
        ] {
            let chain = sound().with(place, |draft| draft.valid(from, to));
            assert_eq!(chain.holds(), expected, "{place} from {from} to {to}");
        }
    }
}

#[test]
fn clause_6_1_3_a_4_the_issuer_is_the_subject_above() {
    let good = sound().certificates();
    let keys = [0, KEYS[0], KEYS[1], KEYS[2]];
    for place in [UPPER, LOWER, LEAF] {
        let mut chain = good.clone();
        chain[place] = sound().0[place].issued_by("somebody else", keys[place]);
        assert!(!holds(&chain), "{place}");
    }
}

#[test]
fn clause_6_1_3_b_and_6_1_4_g_1_names_are_in_every_permitted_subtree() {
    let permits =
        |place, subtrees: &[(u8, &[u8])]| sound().with(place, |draft| draft.constraints(subtrees, &[]));
    let named = |chain: Chain, kind, text: &[u8]| chain.with(LEAF, |draft| draft.names(&[(kind, text)]));
    let both = || {
        permits(UPPER, &[(DNS, b"example")])
            .with(LOWER, |draft| draft.constraints(&[(DNS, b"a.example")], &[]))
    };
    assert_clause(
        "permitted subtrees",
        &[
            (
                "inside",
                named(permits(ROOT, &[(DNS, b"example")]), DNS, b"x.example"),
                true,
            ),
            (
                "outside",
                named(permits(ROOT, &[(DNS, b"example")]), DNS, b"x.test"),
                false,
            ),
            (
                "a longer label",
                named(permits(UPPER, &[(DNS, b"example")]), DNS, b"xexample"),
                false,
            ),
            (
                "of the leaf's issuer",
                named(permits(LOWER, &[(DNS, b"example")]), DNS, b"x.test"),
                false,
            ),
            (
                "another kind",
                named(permits(UPPER, &[(DNS, b"example")]), EMAIL, b"a@x.test"),
                true,
            ),
            ("in both", named(both(), DNS, b"x.a.example"), true),
            ("in the upper one only", named(both(), DNS, b"x.example"), false),
            (
                "the lower one can't widen",
                named(
                    permits(UPPER, &[(DNS, b"a.example")])
                        .with(LOWER, |draft| draft.constraints(&[(DNS, b"example")], &[])),
                    DNS,
                    b"x.example",
                ),
                false,
            ),
            (
                "an address",
                named(
                    permits(UPPER, &[(IP, &[10, 0, 0, 0, 255, 0, 0, 0])]),
                    IP,
                    &[10, 1, 2, 3],
                ),
                true,
            ),
            (
                "another address",
                named(
                    permits(UPPER, &[(IP, &[10, 0, 0, 0, 255, 0, 0, 0])]),
                    IP,
                    &[11, 1, 2, 3],
                ),
                false,
            ),
            (
                "an address of the other family",
                named(
                    permits(UPPER, &[(IP, &[10, 0, 0, 0, 255, 0, 0, 0])]),
                    IP,
                    &[0; 16],
                ),
                false,
            ),
            (
                "a mailbox",
                named(permits(UPPER, &[(EMAIL, b"a@x.test")]), EMAIL, b"a@x.test"),
                true,
            ),
            (
                "another mailbox",
                named(permits(UPPER, &[(EMAIL, b"a@x.test")]), EMAIL, b"b@x.test"),
                false,
            ),
            (
                "a URI",
                named(permits(UPPER, &[(URI, b"td.test")]), URI, b"spiffe://td.test/a"),
                true,
            ),
            (
                "another URI",
                named(
                    permits(UPPER, &[(URI, b"td.test")]),
                    URI,
                    b"spiffe://x.test/td.test",
                ),
                false,
            ),
            (
                "names of an authority below",
                permits(ROOT, &[(DNS, b"example")]).with(LOWER, |draft| draft.names(&[(DNS, b"x.test")])),
                false,
            ),
        ],
    );
}

#[test]
fn clause_6_1_3_c_and_6_1_4_g_2_names_are_in_no_excluded_subtree() {
    let excludes =
        |place, subtrees: &[(u8, &[u8])]| sound().with(place, |draft| draft.constraints(&[], subtrees));
    let named = |chain: Chain, kind, text: &[u8]| chain.with(LEAF, |draft| draft.names(&[(kind, text)]));
    let both = || {
        excludes(UPPER, &[(DNS, b"a.test")]).with(LOWER, |draft| draft.constraints(&[], &[(DNS, b"b.test")]))
    };
    assert_clause(
        "excluded subtrees",
        &[
            (
                "outside",
                named(excludes(ROOT, &[(DNS, b"a.test")]), DNS, b"b.test"),
                true,
            ),
            (
                "inside",
                named(excludes(ROOT, &[(DNS, b"a.test")]), DNS, b"x.a.test"),
                false,
            ),
            (
                "in another letter case",
                named(excludes(ROOT, &[(DNS, b"a.test")]), DNS, b"X.A.TEST"),
                false,
            ),
            ("by the upper one", named(both(), DNS, b"x.a.test"), false),
            ("by the lower one", named(both(), DNS, b"x.b.test"), false),
            ("by none", named(both(), DNS, b"x.c.test"), true),
            (
                "permitted as well",
                named(
                    sound().with(UPPER, |draft| {
                        draft.constraints(&[(DNS, b"test")], &[(DNS, b"a.test")])
                    }),
                    DNS,
                    b"x.a.test",
                ),
                false,
            ),
            (
                "every address",
                named(excludes(UPPER, &[(IP, &[0; 8])]), IP, &[10, 1, 2, 3]),
                false,
            ),
        ],
    );
}

#[test]
fn clause_6_1_3_d_policies_go_through_every_certificate() {
    let asserting = |upper: &[&[u8]], lower: &[&[u8]], peer: &[&[u8]]| {
        sound()
            .with(UPPER, |draft| require_explicit(draft.policies(upper), 0))
            .with(LOWER, |draft| draft.policies(lower))
            .with(LEAF, |draft| draft.policies(peer))
    };
    assert_clause(
        "policies",
        &[
            (
                "(d)(1)(i) the same all the way",
                asserting(&[A], &[A], &[A]),
                true,
            ),
            (
                "(d)(1)(i) one of several",
                asserting(&[A, B], &[B], &[A, B]),
                true,
            ),
            (
                "(d)(1)(ii) below any",
                asserting(&[ANY_POLICY], &[ANY_POLICY], &[A]),
                true,
            ),
            (
                "(d)(2) any in the middle",
                asserting(&[A], &[ANY_POLICY], &[A]),
                true,
            ),
            ("(d)(3) pruned in the middle", asserting(&[A], &[B], &[A]), false),
            ("(d)(3) pruned at the end", asserting(&[A], &[A], &[B]), false),
        ],
    );
}

#[test]
fn clause_6_1_3_e_and_f_and_6_1_5_a_and_b_an_explicit_policy_must_be_there_when_required() {
    let asserting = || {
        sound()
            .with(UPPER, |draft| draft.policies(&[A]))
            .with(LOWER, |draft| draft.policies(&[A]))
    };
    let requiring = |place, skip| asserting().with(place, |draft| require_explicit(draft, skip));
    let with_policy = |chain: Chain| chain.with(LEAF, |draft| draft.policies(&[A]));
    assert_clause(
        "explicit policy",
        &[
            ("(e) nobody asks", asserting(), true),
            ("(f) at once, there", with_policy(requiring(UPPER, 0)), true),
            ("(f) at once, missing", requiring(UPPER, 0), false),
            ("6.1.4(h)(1) one certificate later", requiring(UPPER, 1), false),
            (
                "6.1.5(a) as many later as there are left",
                requiring(UPPER, 2),
                false,
            ),
            ("6.1.5(a) more than there are left", requiring(UPPER, 3), true),
            ("6.1.5(b) the leaf asks for itself", requiring(LEAF, 0), false),
            ("6.1.5(b) and has it", with_policy(requiring(LEAF, 0)), true),
            ("6.1.5(b) the leaf asks for later", requiring(LEAF, 1), true),
        ],
    );
}

#[test]
fn clause_6_1_4_a_and_b_mappings_translate_policies_but_never_any() {
    let mapped = |issuer, subject, inhibited: Option<u8>| {
        sound()
            .with(UPPER, |draft| {
                let draft = require_explicit(draft.policies(&[A]), 0);
                mapping(draft, issuer, subject)
            })
            .with(ROOT, |draft| match inhibited {
                Some(skip) => inhibit_mapping(draft.policies(&[A]), skip),
                None => draft,
            })
            .with(LOWER, |draft| draft.policies(&[B]))
            .with(LEAF, |draft| draft.policies(&[B]))
    };
    assert_clause(
        "mappings",
        &[
            ("(b)(1) translated", mapped(A, B, None), true),
            ("(b)(1) of another policy", mapped(B, A, None), false),
            ("(a) from any", mapped(ANY_POLICY, B, None), false),
            ("(a) to any", mapped(A, ANY_POLICY, None), false),
        ],
    );
}

#[test]
fn clause_6_1_4_j_any_policy_can_be_inhibited() {
    let chain = |skip| {
        sound()
            .with(UPPER, |draft| {
                inhibit_any(require_explicit(draft.policies(&[A]), 0), skip)
            })
            .with(LOWER, |draft| draft.policies(&[ANY_POLICY]))
            .with(LEAF, |draft| draft.policies(&[A]))
    };
    assert_clause(
        "inhibited any policy",
        &[
            ("at once", chain(0), false),
            ("one certificate later", chain(1), true),
        ],
    );
}

#[test]
fn clause_6_1_4_k_authorities_are_of_version_3_and_say_so() {
    let bare = |key| leaf("upper", key).key_usage(0b0000_0110);
    let not_ca = |draft: Draft| draft.extension(forge::BASIC_CONSTRAINTS, true, &sequence(&[]));
    assert_clause(
        "basic constraints",
        &[
            ("there", sound(), true),
            ("missing", sound().with(UPPER, |_| bare(KEYS[1])), false),
            (
                "no authority",
                sound().with(UPPER, |_| not_ca(bare(KEYS[1]))),
                false,
            ),
            (
                "version 1",
                sound().with(UPPER, |_| leaf("upper", KEYS[1]).version(1)),
                false,
            ),
            (
                "version 2",
                sound().with(UPPER, |_| leaf("upper", KEYS[1]).version(2)),
                false,
            ),
        ],
    );
}

#[test]
fn clause_6_1_4_l_and_m_paths_are_no_longer_than_allowed() {
    let limited = |place, common_name, length| {
        sound().with(place, |_| {
            leaf(common_name, KEYS[place])
                .ca(Some(length))
                .key_usage(0b0000_0110)
        })
    };
    assert_clause(
        "path length",
        &[
            ("one below, one allowed", limited(UPPER, "upper", 1), true),
            ("one below, none allowed", limited(UPPER, "upper", 0), false),
            ("none below, none allowed", limited(LOWER, "lower", 0), true),
            // Anchors are bound too, which RFC 5280 leaves open (section 6.1.1, d).
            (
                "two below the anchor, two allowed",
                limited(ROOT, "root", 2),
                true,
            ),
            (
                "two below the anchor, one allowed",
                limited(ROOT, "root", 1),
                false,
            ),
        ],
    );
}

#[test]
fn clause_6_1_4_n_authorities_may_sign_certificates() {
    let usage = |bits| sound().with(UPPER, |_| leaf("upper", KEYS[1]).ca(None).key_usage(bits));
    assert_clause(
        "key usage",
        &[
            ("keyCertSign", usage(0b0000_0100), true),
            ("cRLSign only", usage(0b0000_0010), false),
            ("digitalSignature only", usage(0b1000_0000), false),
            (
                "not restricted",
                sound().with(UPPER, |_| leaf("upper", KEYS[1]).ca(None)),
                true,
            ),
        ],
    );
}

#[test]
fn clause_6_1_4_o_and_6_1_5_f_critical_extensions_are_understood() {
    for place in [ROOT, UPPER, LOWER, LEAF] {
        for critical in [true, false] {
            let chain = sound().with(place, |draft| {
                draft.extension_of(&[0x2a, 3, 4, 5], critical, &[5, 0])
            });
            assert_eq!(chain.holds(), !critical, "{place}, critical: {critical}");
        }
    }
}

/// A name that is one in all its bytes but for the string's type is another name here: names are
/// compared as encoded, which is stricter than section 7.1.
#[test]
fn clause_7_1_names_are_compared_as_they_are_encoded() {
    let mut chain = sound().certificates();
    let printable = sequence(&[tlv(
        0x31,
        &sequence(&[tlv(6, &[0x55, 4, 3]), tlv(0x13, b"lower")]),
    )]);
    assert_ne!(printable, name(&["lower"]));
    chain[LEAF] = forge::parsed(&sound().0[LEAF].der(&printable, KEYS[2]));
    assert!(!holds(&chain));
}
