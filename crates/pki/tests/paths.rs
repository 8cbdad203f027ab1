//! Chains that hold and chains that do not, with the words for the latter.

mod forge;

use std::time::Duration;

use forge::{
    ANY_USAGE, CLIENT_AUTH, DIRECTORY, DNS, Draft, EMAIL, IP, POLICY_CONSTRAINTS, SERVER_AUTH, URI,
    authority, leaf, name, sequence, tlv,
};
use ghostunnel_pki::{Certificate, PathErrorKind, PathRequest, TrustAnchors, Usage, validate};
use rustls_pki_types::UnixTime;

const NOW: u64 = 1_795_564_800; // 2026-11-25T00:00:00Z

const ROOT: &str = "root";
const ROOT_KEY: u8 = 1;
const MIDDLE: &str = "middle";
const MIDDLE_KEY: u8 = 2;
const LEAF_KEY: u8 = 3;

const UNKNOWN: &str = "x509: certificate signed by unknown authority";
const NOT_AN_AUTHORITY: &str = "x509: certificate signed by unknown authority (possibly because of \"x509: invalid signature: parent certificate cannot sign this kind of certificate\" while trying to verify candidate authority certificate \"root\")";
const USAGE: &str = "x509: certificate specifies an incompatible key usage";
const UNHANDLED: &str = "x509: unhandled critical extension";

/// The length of the chain, or why there is none.
fn path_for(presented: &[Certificate], anchors: &[Certificate], usage: Usage) -> Result<usize, String> {
    let request = PathRequest {
        presented,
        anchors: &TrustAnchors::new(anchors.to_vec()),
        time: UnixTime::since_unix_epoch(Duration::from_secs(NOW)),
        usage,
        server_name: None,
    };
    validate(&request)
        .map(|path| path.chain().len())
        .map_err(|error| error.to_string())
}

fn path(presented: &[Certificate], anchors: &[Certificate]) -> Result<usize, String> {
    path_for(presented, anchors, Usage::ClientAuth)
}

fn root() -> Certificate {
    authority(ROOT, ROOT_KEY).self_signed(ROOT_KEY)
}

fn middle() -> Certificate {
    authority(MIDDLE, MIDDLE_KEY).issued_by(ROOT, ROOT_KEY)
}

fn client() -> Draft {
    leaf("client", LEAF_KEY)
}

fn refusal(text: &str) -> Result<usize, String> {
    Err(text.to_owned())
}

#[test]
fn leaves_may_be_of_many_kinds() {
    for (case, draft, expected) in [
        ("version 3 without extensions", client(), Ok(2)),
        ("version 1", client().version(1), Ok(2)),
        ("version 2", client().version(2), Ok(2)),
        ("an authority", client().ca(None), Ok(2)),
        ("an authority without path length", client().ca(Some(0)), Ok(2)),
        (
            "key usage without signatures",
            client().key_usage(0b0010_0000),
            Ok(2),
        ),
        (
            "any extended key usage",
            client().usages(&[SERVER_AUTH, ANY_USAGE]),
            Ok(2),
        ),
        ("an empty list of usages", client().usages(&[]), Ok(2)),
        (
            "for servers only",
            client().usages(&[SERVER_AUTH]),
            refusal(USAGE),
        ),
        ("for clients", client().usages(&[SERVER_AUTH, CLIENT_AUTH]), Ok(2)),
        ("unknown extension", client().extension(99, false, &[]), Ok(2)),
        (
            "unknown critical extension",
            client().extension(99, true, &[]),
            refusal(UNHANDLED),
        ),
        (
            "critical alternative names of no known kind",
            client().extension(17, true, &sequence(&[tlv(DIRECTORY, &name(&["x"]))])),
            refusal(UNHANDLED),
        ),
        (
            "expired",
            client().valid("200101000000Z", "261124235959Z"),
            refusal(
                "x509: certificate has expired or is not yet valid: current time 2026-11-25T00:00:00Z is after 2026-11-24T23:59:59Z",
            ),
        ),
        (
            "valid to this second",
            client().valid("200101000000Z", "261125000000Z"),
            Ok(2),
        ),
        (
            "valid from this second",
            client().valid("261125000000Z", "400101000000Z"),
            Ok(2),
        ),
        (
            "not yet valid",
            client().valid("261125000001Z", "400101000000Z"),
            refusal(
                "x509: certificate has expired or is not yet valid: current time 2026-11-25T00:00:00Z is before 2026-11-25T00:00:01Z",
            ),
        ),
    ] {
        assert_eq!(
            path(&[draft.issued_by(ROOT, ROOT_KEY)], &[root()]),
            expected,
            "{case}"
        );
    }
}

#[test]
fn anchors_are_checked_like_everybody_else() {
    let expired = "x509: certificate has expired or is not yet valid: current time 2026-11-25T00:00:00Z is after 2026-01-01T00:00:00Z";
    for (case, draft, expected) in [
        ("an authority", authority(ROOT, ROOT_KEY), Ok(2)),
        ("without key usage", leaf(ROOT, ROOT_KEY).ca(None), Ok(2)),
        ("version 1", leaf(ROOT, ROOT_KEY).version(1), Ok(2)),
        (
            "version 3 without basic constraints",
            leaf(ROOT, ROOT_KEY),
            refusal(NOT_AN_AUTHORITY),
        ),
        (
            "CA:FALSE",
            leaf(ROOT, ROOT_KEY).extension(19, true, &[0x30, 0]),
            refusal(NOT_AN_AUTHORITY),
        ),
        (
            "without keyCertSign",
            leaf(ROOT, ROOT_KEY).ca(None).key_usage(0b1000_0000),
            refusal(NOT_AN_AUTHORITY),
        ),
        (
            "with an empty key usage",
            leaf(ROOT, ROOT_KEY).ca(None).extension(15, true, &[3, 1, 0]),
            Ok(2),
        ),
        (
            "expired",
            authority(ROOT, ROOT_KEY).valid("200101000000Z", "260101000000Z"),
            refusal(expired),
        ),
        (
            "for servers only",
            authority(ROOT, ROOT_KEY).usages(&[SERVER_AUTH]),
            refusal(USAGE),
        ),
        (
            "unknown critical extension",
            authority(ROOT, ROOT_KEY).extension(99, true, &[]),
            refusal(UNHANDLED),
        ),
        ("path length 0", leaf(ROOT, ROOT_KEY).ca(Some(0)), Ok(2)),
    ] {
        let chain = [client().issued_by(ROOT, ROOT_KEY)];
        assert_eq!(path(&chain, &[draft.self_signed(ROOT_KEY)]), expected, "{case}");
    }
}

#[test]
fn intermediates_must_be_authorities() {
    let chain = |middle: Certificate| [client().issued_by(MIDDLE, MIDDLE_KEY), middle];
    let not_authorized = "x509: certificate is not authorized to sign other certificates";
    for (case, draft, expected) in [
        ("an authority", authority(MIDDLE, MIDDLE_KEY), Ok(3)),
        (
            "version 1",
            leaf(MIDDLE, MIDDLE_KEY).version(1),
            refusal(not_authorized),
        ),
        (
            "no basic constraints",
            leaf(MIDDLE, MIDDLE_KEY),
            refusal(&NOT_AN_AUTHORITY.replace("\"root\"", "\"middle\"")),
        ),
        (
            "for servers only",
            authority(MIDDLE, MIDDLE_KEY).usages(&[SERVER_AUTH]),
            refusal(USAGE),
        ),
    ] {
        assert_eq!(
            path(&chain(draft.issued_by(ROOT, ROOT_KEY)), &[root()]),
            expected,
            "{case}"
        );
    }
    assert_eq!(path(&chain(middle()), &[]), refusal(UNKNOWN));
    assert_eq!(
        path(&chain(middle()), &[middle()]),
        Ok(2),
        "an intermediate may be the anchor"
    );
}

#[test]
fn a_leaf_that_is_an_anchor_stands_alone() {
    for (case, draft, expected) in [
        ("a self-signed authority", authority("me", LEAF_KEY), Ok(1)),
        ("without CA:TRUE", leaf("me", LEAF_KEY), Ok(1)),
        ("version 1", leaf("me", LEAF_KEY).version(1), Ok(1)),
        (
            "wrong usage",
            leaf("me", LEAF_KEY).usages(&[SERVER_AUTH]),
            refusal(USAGE),
        ),
    ] {
        let me = draft.self_signed(LEAF_KEY);
        assert_eq!(
            path(std::slice::from_ref(&me), &[root(), me.clone()]),
            expected,
            "{case}"
        );
    }
    let orphan = client().issued_by("nobody", 9);
    assert_eq!(
        path(std::slice::from_ref(&orphan), std::slice::from_ref(&orphan)),
        Ok(1),
        "issuer unknown"
    );
    let twin = authority("me", LEAF_KEY)
        .valid("190101000000Z", "400101000000Z")
        .self_signed(LEAF_KEY);
    let me = authority("me", LEAF_KEY).self_signed(LEAF_KEY);
    assert_eq!(
        path(&[me], &[twin]),
        refusal(UNKNOWN),
        "the same name and key are not enough"
    );
}

#[test]
fn order_and_junk_do_not_matter() {
    let chain = [
        client().issued_by(MIDDLE, MIDDLE_KEY),
        leaf("junk", 7).self_signed(7),
        root(),
        authority(MIDDLE, 8).issued_by(ROOT, ROOT_KEY),
        middle(),
        middle(),
    ];
    assert_eq!(path(&chain, &[root()]), Ok(3));
    // Copies count once: they must not use up the signature checks.
    let mut chain = vec![client().issued_by(MIDDLE, MIDDLE_KEY)];
    chain.extend((0..150).map(|_| authority(MIDDLE, 8).issued_by(ROOT, ROOT_KEY)));
    chain.push(middle());
    assert_eq!(path(&chain, &[root()]), Ok(3));
}

#[test]
fn chains_may_be_long() {
    let names: Vec<String> = (0..40).map(|level| format!("level {level}")).collect();
    let mut chain = vec![client().issued_by(&names[39], 100 + 39)];
    let mut issuer = (ROOT.to_owned(), ROOT_KEY);
    for (name, key) in names.iter().zip(100..) {
        chain.push(authority(name, key).issued_by(&issuer.0, issuer.1));
        issuer = (name.clone(), key);
    }
    assert_eq!(path(&chain, &[root()]), Ok(42));
}

#[test]
fn path_lengths_count_every_intermediate() {
    let too_many = "x509: too many intermediates for path length constraint";
    let leaf = client().issued_by("low", 4);
    let low = authority("low", 4).issued_by(MIDDLE, MIDDLE_KEY);
    let high = |length| {
        forge::leaf(MIDDLE, MIDDLE_KEY)
            .ca(length)
            .issued_by(ROOT, ROOT_KEY)
    };
    for (case, high, expected) in [
        ("unlimited", high(None), Ok(4)),
        ("one", high(Some(1)), Ok(4)),
        ("none", high(Some(0)), refusal(too_many)),
    ] {
        assert_eq!(
            path(&[leaf.clone(), low.clone(), high], &[root()]),
            expected,
            "{case}"
        );
    }
    let self_issued = authority(MIDDLE, 5).issued_by(MIDDLE, MIDDLE_KEY);
    let chain = [client().issued_by(MIDDLE, 5), self_issued, high(Some(0))];
    assert_eq!(
        path(&chain, &[root()]),
        refusal(too_many),
        "self-issued ones count too"
    );
}

#[test]
fn another_key_of_the_same_name_is_named_as_a_hint() {
    let chain = [client().issued_by(ROOT, 9)];
    let expected = "x509: certificate signed by unknown authority (possibly because of \"x509: Ed25519 verification failure\" while trying to verify candidate authority certificate \"root\")";
    assert_eq!(path(&chain, &[root()]), refusal(expected));
    let nameless = Draft {
        subject: name(&[]),
        serial: vec![0x12, 0x34],
        ..authority("", 1)
    }
    .self_signed(1);
    let orphan = client();
    let orphan = forge::parsed(&orphan.der(&name(&[]), 9));
    let text = path(&[orphan], &[nameless]).expect_err("another key");
    assert!(
        text.ends_with("candidate authority certificate \"serial:4660\")"),
        "{text}"
    );
}

#[test]
fn candidates_with_the_right_key_identifier_come_first() {
    // More impostors than checks: only in the right order is the anchor found in time.
    let mut anchors: Vec<_> = (0u8..120)
        .map(|number| authority(ROOT, 9).key_ids(&[number, 1], &[]).self_signed(9))
        .collect();
    anchors.push(
        authority(ROOT, ROOT_KEY)
            .key_ids(&[7, 7, 7], &[])
            .self_signed(ROOT_KEY),
    );
    let with_id = client().key_ids(&[], &[7, 7, 7]).issued_by(ROOT, ROOT_KEY);
    assert_eq!(path(&[with_id], &anchors), Ok(2));
    let limit = "x509: signature check attempts limit reached while verifying certificate chain";
    assert_eq!(
        path(&[client().issued_by(ROOT, ROOT_KEY)], &anchors),
        refusal(limit)
    );
}

#[test]
fn circles_and_thickets_end() {
    let a = authority("a", 10).issued_by("b", 11);
    let b = authority("b", 11).issued_by("a", 10);
    assert_eq!(
        path(&[client().issued_by("a", 10), a, b], &[root()]),
        refusal(UNKNOWN)
    );
    // Every one of these could have signed every other.
    let thicket: Vec<_> = (0u8..60)
        .map(|key| authority("x", key).issued_by("x", key.wrapping_sub(1)))
        .collect();
    let mut presented = vec![client().issued_by("x", 30)];
    presented.extend(thicket);
    let limit = "x509: signature check attempts limit reached while verifying certificate chain";
    assert_eq!(path(&presented, &[root()]), refusal(limit));
}

#[test]
fn one_good_chain_among_bad_ones_is_enough() {
    let for_servers = authority(MIDDLE, MIDDLE_KEY)
        .usages(&[SERVER_AUTH])
        .issued_by(ROOT, ROOT_KEY);
    let expired = authority(MIDDLE, MIDDLE_KEY)
        .valid("200101000000Z", "210101000000Z")
        .issued_by(ROOT, ROOT_KEY);
    let constrained = authority(MIDDLE, MIDDLE_KEY)
        .constraints(&[(DNS, b"elsewhere")], &[])
        .issued_by(ROOT, ROOT_KEY);
    let leaf = client().names(&[(DNS, b"here")]).issued_by(MIDDLE, MIDDLE_KEY);
    for bad in [for_servers, expired, constrained] {
        assert_eq!(path(&[leaf.clone(), bad.clone(), middle()], &[root()]), Ok(3));
        assert_eq!(path(&[leaf.clone(), middle(), bad], &[root()]), Ok(3));
    }
}

#[test]
fn usages_nest() {
    let chain = |leaf: &[&[u8]], middle: &[&[u8]]| {
        [
            client().usages(leaf).issued_by(MIDDLE, MIDDLE_KEY),
            authority(MIDDLE, MIDDLE_KEY)
                .usages(middle)
                .issued_by(ROOT, ROOT_KEY),
        ]
    };
    let code_signing: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
    for (leaf, middle, usage, expected) in [
        (&[CLIENT_AUTH][..], &[CLIENT_AUTH][..], Usage::ClientAuth, Ok(3)),
        (&[CLIENT_AUTH], &[CLIENT_AUTH], Usage::ServerAuth, refusal(USAGE)),
        (&[CLIENT_AUTH], &[CLIENT_AUTH], Usage::Any, Ok(3)),
        (&[CLIENT_AUTH], &[ANY_USAGE], Usage::ClientAuth, Ok(3)),
        (&[ANY_USAGE], &[CLIENT_AUTH], Usage::ClientAuth, Ok(3)),
        (&[ANY_USAGE], &[code_signing], Usage::ClientAuth, refusal(USAGE)),
        (
            &[SERVER_AUTH, CLIENT_AUTH],
            &[SERVER_AUTH],
            Usage::ServerAuth,
            Ok(3),
        ),
    ] {
        let verdict = path_for(&chain(leaf, middle), &[root()], usage);
        assert_eq!(verdict, expected, "{leaf:x?} {middle:x?} {usage:?}");
    }
}

type Names<'a> = &'a [(u8, &'a [u8])];

#[test]
fn name_constraints_apply_to_all_names_below() {
    let prefix = "x509: a root or intermediate certificate is not authorized to sign for this name: ";
    let cases: &[(Names<'_>, Names<'_>, Names<'_>, Option<&str>)] = &[
        (&[(DNS, b"a.example")], &[], &[(DNS, b"A.Example")], None),
        (&[(DNS, b"example")], &[], &[(DNS, b"a.example")], None),
        (&[(DNS, b"example")], &[], &[(DNS, b"*.example")], None),
        (&[(DNS, b".example")], &[], &[(DNS, b"a.example")], None),
        (
            &[(DNS, b".example")],
            &[],
            &[(DNS, b"example")],
            Some("DNS name \"example\" is not permitted by any constraint"),
        ),
        (
            &[(DNS, b"example")],
            &[],
            &[(DNS, b"anexample")],
            Some("DNS name \"anexample\" is not permitted by any constraint"),
        ),
        (
            &[(DNS, b"x"), (DNS, b"example")],
            &[],
            &[(DNS, b"a.example")],
            None,
        ),
        (&[(DNS, b"")], &[], &[(DNS, b"whatever")], None),
        (
            &[],
            &[(DNS, b"")],
            &[(DNS, b"whatever")],
            Some("DNS name \"whatever\" is excluded by constraint \"\""),
        ),
        (&[], &[(DNS, b"b.example")], &[(DNS, b"a.example")], None),
        (
            &[],
            &[(DNS, b"B.example")],
            &[(DNS, b"a.b.example")],
            Some("DNS name \"a.b.example\" is excluded by constraint \"b.example\""),
        ),
        (
            &[],
            &[(DNS, b".b.example")],
            &[(DNS, b"a.b.example")],
            Some("DNS name \"a.b.example\" is excluded by constraint \".b.example\""),
        ),
        (
            &[],
            &[(DNS, b"b.example")],
            &[(DNS, b"*.Example")],
            Some("DNS name \"*.Example\" is excluded by constraint \"b.example\""),
        ),
        (&[], &[(DNS, b"a.b.example")], &[(DNS, b"*.example")], None),
        (&[], &[(DNS, b"b.example")], &[(DNS, b"*.a.example")], None),
        (
            &[(DNS, b"example")],
            &[(DNS, b"a.example")],
            &[(DNS, b"a.example")],
            Some("DNS name \"a.example\" is excluded by constraint \"a.example\""),
        ),
        (&[(DNS, b"example")], &[], &[], None),
        (
            &[(DNS, b"example")],
            &[],
            &[(IP, &[1, 2, 3, 4]), (EMAIL, b"a@b"), (URI, b"urn:x")],
            None,
        ),
        (
            &[(IP, &[10, 0, 0, 0, 255, 0, 0, 0])],
            &[],
            &[(IP, &[10, 1, 2, 3])],
            None,
        ),
        (
            &[(IP, &[10, 0, 0, 0, 255, 0, 0, 0])],
            &[],
            &[(IP, &[11, 1, 2, 3])],
            Some("IP address \"11.1.2.3\" is not permitted by any constraint"),
        ),
        (
            &[],
            &[(IP, &[10, 0, 0, 0, 255, 0, 0, 0])],
            &[(IP, &[10, 1, 2, 3])],
            Some("IP address \"10.1.2.3\" is excluded by constraint \"10.0.0.0/8\""),
        ),
        (
            &[(IP, &[10, 0, 0, 0, 255, 0, 0, 0])],
            &[],
            &[(IP, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 1, 2, 3])],
            Some("IP address \"10.1.2.3\" is not permitted by any constraint"),
        ),
        (
            &[(EMAIL, b"example")],
            &[],
            &[(EMAIL, b"a@Example"), (EMAIL, b"\"b c\"@x.example")],
            None,
        ),
        (
            &[(EMAIL, b".example")],
            &[],
            &[(EMAIL, b"a@example")],
            Some("email address \"a@example\" is not permitted by any constraint"),
        ),
        (&[(EMAIL, b"a@example")], &[], &[(EMAIL, b"\"a\"@EXAMPLE")], None),
        (
            &[(EMAIL, b"a@example")],
            &[],
            &[(EMAIL, b"A@example")],
            Some("email address \"A@example\" is not permitted by any constraint"),
        ),
        (
            &[],
            &[(EMAIL, b"a@example")],
            &[(EMAIL, b"a@example")],
            Some("email address \"a@example\" is excluded by constraint \"a@example\""),
        ),
        (
            &[(URI, b"td.example")],
            &[],
            &[(URI, b"spiffe://td.example:80/x")],
            None,
        ),
        (
            &[(URI, b".example")],
            &[],
            &[(URI, b"spiffe://td.example/x")],
            None,
        ),
        (
            &[(URI, b"td.example")],
            &[],
            &[(URI, b"spiffe://other/x")],
            Some("URI \"spiffe://other/x\" is not permitted by any constraint"),
        ),
        (
            &[(URI, b"td.example")],
            &[],
            &[(URI, b"spiffe://1.2.3.4/x")],
            Some("URI with IP (\"spiffe://1.2.3.4/x\") cannot be matched against constraints"),
        ),
        (
            &[(URI, b"td.example")],
            &[],
            &[(URI, b"spiffe://[::1]/x")],
            Some("URI with IP (\"spiffe://[::1]/x\") cannot be matched against constraints"),
        ),
        (
            &[],
            &[(URI, b"td.example")],
            &[(URI, b"urn:x")],
            Some("URI with empty host (\"urn:x\") cannot be matched against constraints"),
        ),
    ];
    for (permitted, excluded, names, expected) in cases {
        let expected = expected.map_or(Ok(3), |text| refusal(&format!("{prefix}{text}")));
        let root = authority(ROOT, ROOT_KEY)
            .constraints(permitted, excluded)
            .self_signed(ROOT_KEY);
        let client = if names.is_empty() {
            client()
        } else {
            client().names(names)
        };
        let leaf = client.issued_by(MIDDLE, MIDDLE_KEY);
        assert_eq!(
            path(&[leaf, middle()], &[root]),
            expected,
            "{permitted:x?} {excluded:x?} {names:x?}"
        );
    }
    let unparsable: &[(Names<'_>, &str)] = &[
        (&[(DNS, b"a..b")], "x509: cannot parse dnsName \"a..b\""),
        (&[(DNS, b"a.")], "x509: cannot parse dnsName \"a.\""),
        (&[(EMAIL, b"a")], "x509: cannot parse rfc822Name \"a\""),
        (&[(EMAIL, b".a@b")], "x509: cannot parse rfc822Name \".a@b\""),
        (&[(EMAIL, b"\"a@b")], "x509: cannot parse rfc822Name \"\\\"a@b\""),
    ];
    for (names, expected) in unparsable {
        let constrained = authority(ROOT, ROOT_KEY)
            .constraints(&[(IP, &[0; 8])], &[])
            .self_signed(ROOT_KEY);
        let leaf = client().names(names).issued_by(ROOT, ROOT_KEY);
        assert_eq!(
            path(std::slice::from_ref(&leaf), &[constrained]),
            refusal(expected),
            "{names:x?}"
        );
        assert_eq!(
            path(&[leaf], &[root()]),
            Ok(2),
            "without constraints {names:x?} is nobody's business"
        );
    }
}

#[test]
fn constraints_bind_intermediates_and_only_what_is_below() {
    let named = authority(MIDDLE, MIDDLE_KEY).names(&[(DNS, b"ca.other")]);
    let constrained = authority(ROOT, ROOT_KEY)
        .constraints(&[(DNS, b"example")], &[])
        .self_signed(ROOT_KEY);
    let leaf = client()
        .names(&[(DNS, b"a.example")])
        .issued_by(MIDDLE, MIDDLE_KEY);
    let expected = "x509: a root or intermediate certificate is not authorized to sign for this name: DNS name \"ca.other\" is not permitted by any constraint";
    let chain = [leaf.clone(), named.issued_by(ROOT, ROOT_KEY)];
    assert_eq!(
        path(&chain, std::slice::from_ref(&constrained)),
        refusal(expected)
    );
    let own = authority(MIDDLE, MIDDLE_KEY)
        .names(&[(DNS, b"ca.other")])
        .constraints(&[(DNS, b"example")], &[]);
    assert_eq!(path(&[leaf, own.issued_by(ROOT, ROOT_KEY)], &[root()]), Ok(3));
}

#[test]
fn constraints_of_unknown_kinds_matter_only_when_critical() {
    let directory = name(&["x"]);
    let value = sequence(&[tlv(0xa0, &sequence(&[tlv(DIRECTORY, &directory)]))]);
    let chain = [client().issued_by(ROOT, ROOT_KEY)];
    for (critical, expected) in [(true, refusal(UNHANDLED)), (false, Ok(2))] {
        let root = authority(ROOT, ROOT_KEY)
            .extension(30, critical, &value)
            .self_signed(ROOT_KEY);
        assert_eq!(path(&chain, &[root]), expected);
    }
}

#[test]
fn thousands_of_names_under_thousands_of_constraints_are_quick() {
    let domains: Vec<String> = (0..2000).map(|number| format!("t{number}.test")).collect();
    let domains: Vec<(u8, &[u8])> = domains.iter().map(|domain| (DNS, domain.as_bytes())).collect();
    let root = authority(ROOT, ROOT_KEY)
        .constraints(&domains, &[(DNS, b"x.test")])
        .self_signed(ROOT_KEY);
    let leaf = client().names(&domains).issued_by(ROOT, ROOT_KEY);
    assert_eq!(path(&[leaf], &[root]), Ok(2));

    let addresses: Vec<[u8; 4]> = (0u32..1000).map(u32::to_be_bytes).collect();
    let networks: Vec<Vec<u8>> = addresses
        .iter()
        .map(|address| [&address[..], &[255; 4]].concat())
        .collect();
    let networks: Vec<(u8, &[u8])> = networks.iter().map(|network| (IP, network.as_slice())).collect();
    let addresses: Vec<(u8, &[u8])> = addresses.iter().map(|address| (IP, address.as_slice())).collect();
    let root = authority(ROOT, ROOT_KEY)
        .constraints(&networks, &[])
        .self_signed(ROOT_KEY);
    let leaf = client().names(&addresses).issued_by(ROOT, ROOT_KEY);
    assert_eq!(
        path(&[leaf], &[root]),
        refusal("x509: too many name constraint comparisons")
    );
}

#[test]
fn required_policies_must_be_there() {
    let policy: &[u8] = &[0x2a, 3, 4];
    let requiring = authority(MIDDLE, MIDDLE_KEY)
        .policies(&[policy])
        .extension(POLICY_CONSTRAINTS, true, &sequence(&[tlv(0x80, &[0])]))
        .issued_by(ROOT, ROOT_KEY);
    let missing = "x509: no valid chains built: 1 candidate chains with invalid policies";
    for (leaf, expected) in [
        (client().policies(&[policy]), Ok(3)),
        (client().policies(&[&[0x2a, 3, 5]]), refusal(missing)),
        (client(), refusal(missing)),
    ] {
        let chain = [leaf.issued_by(MIDDLE, MIDDLE_KEY), requiring.clone()];
        assert_eq!(path(&chain, &[root()]), expected);
    }
}

#[test]
fn the_name_is_checked_before_the_chain_and_after_the_leaf() {
    let orphan = client().names(&[(DNS, b"a.example")]).issued_by("nobody", 9);
    let expired = client()
        .valid("200101000000Z", "210101000000Z")
        .issued_by("nobody", 9);
    let anchors = TrustAnchors::new(vec![root()]);
    for (leaf, name, kind) in [
        (&orphan, "b.example", PathErrorKind::NameMismatch),
        (&orphan, "a.example", PathErrorKind::UnknownAuthority),
        (&expired, "b.example", PathErrorKind::Expired),
        (&orphan, "", PathErrorKind::NameMismatch),
    ] {
        let request = PathRequest {
            presented: std::slice::from_ref(leaf),
            anchors: &anchors,
            time: UnixTime::since_unix_epoch(Duration::from_secs(NOW)),
            usage: Usage::ServerAuth,
            server_name: Some(name),
        };
        assert_eq!(
            validate(&request).map_err(|error| error.kind()),
            Err(kind),
            "{name}"
        );
    }
    let nothing = PathRequest {
        presented: &[],
        anchors: &anchors,
        time: UnixTime::since_unix_epoch(Duration::from_secs(NOW)),
        usage: Usage::Any,
        server_name: None,
    };
    assert!(validate(&nothing).is_err());
}

#[test]
fn anchors_are_listed_once() {
    let other = authority(ROOT, 9).self_signed(9);
    let anchors = TrustAnchors::new(vec![root(), other.clone(), root()]);
    assert_eq!(anchors.certificates(), [root(), other]);
    assert_eq!(anchors.subjects().collect::<Vec<_>>(), [name(&[ROOT]).as_slice()]);
    assert!(anchors.contains(&root()) && !anchors.contains(&middle()) && !anchors.is_empty());
    assert!(TrustAnchors::new(Vec::new()).is_empty());
}
