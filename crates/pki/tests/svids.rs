//! SVIDs: whose bundle decides, and what may not be one.

mod forge;

use std::time::Duration;

use forge::{DNS, Draft, SERVER_AUTH, URI, authority, leaf, name};
use ghostunnel_pki::{
    Certificate, TrustAnchors, TrustBundles, TrustDomain, check_own_svid, parse_concatenated, validate_svid,
};
use rustls_pki_types::UnixTime;

const NOW: u64 = 1_795_564_800; // 2026-11-25T00:00:00Z

const DIGITAL_SIGNATURE: u8 = 0b1000_0000;
const CERT_SIGN: u8 = 0b0000_0100;
const CRL_SIGN: u8 = 0b0000_0010;

const UNKNOWN: &str =
    "x509svid: could not verify leaf certificate: x509: certificate signed by unknown authority";

/// An authority of a trust domain; number and name are one.
fn root(number: u8) -> Certificate {
    authority(&format!("root {number}"), number).self_signed(number)
}

fn issued(draft: &Draft, root: u8) -> Certificate {
    draft.issued_by(&format!("root {root}"), root)
}

fn uris(uris: &[&str]) -> Draft {
    let names: Vec<_> = uris.iter().map(|uri| (URI, uri.as_bytes())).collect();
    leaf("workload", 9).names(&names)
}

/// `one.test` has root 1, `two.test` has root 2.
fn bundles() -> TrustBundles {
    let mut bundles = TrustBundles::default();
    for (number, domain) in [(1, "one.test"), (2, "two.test")] {
        let domain = TrustDomain::parse(domain).expect("a trust domain");
        bundles.insert(domain, TrustAnchors::new(vec![root(number)]));
    }
    bundles
}

fn verdict(presented: &[Certificate]) -> Result<String, String> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    validate_svid(presented, &bundles(), now)
        .map(|(id, _)| id.text().to_owned())
        .map_err(|error| error.to_string())
}

#[test]
fn the_leaf_names_the_trust_domain_whose_bundle_decides() {
    for (uri, root, expected) in [
        ("spiffe://one.test/a", 1, Ok("spiffe://one.test/a")),
        ("spiffe://two.test/a/b", 2, Ok("spiffe://two.test/a/b")),
        ("spiffe://one.test", 1, Ok("spiffe://one.test")),
        // As rewritten after parsing, which is what access rules see too.
        ("SPIFFE://one.test/a", 1, Ok("spiffe://one.test/a")),
        ("spiffe://one.test/a", 2, Err(UNKNOWN)),
        ("spiffe://two.test/a", 1, Err(UNKNOWN)),
        ("spiffe://one.test/a", 3, Err(UNKNOWN)),
        (
            "spiffe://three.test/a",
            1,
            Err(
                "x509svid: could not get X509 bundle: x509bundle: no X.509 bundle for trust domain \"three.test\"",
            ),
        ),
        (
            "spiffe://ONE.test/a",
            1,
            Err(
                "x509svid: could not get leaf SPIFFE ID: trust domain characters are limited to lowercase letters, \
                 numbers, dots, dashes, and underscores",
            ),
        ),
        (
            "https://one.test/a",
            1,
            Err("x509svid: could not get leaf SPIFFE ID: scheme is missing or invalid"),
        ),
        (
            "spiffe://one.test/a/",
            1,
            Err("x509svid: could not get leaf SPIFFE ID: path cannot have a trailing slash"),
        ),
    ] {
        let found = verdict(&[issued(&uris(&[uri]), root)]);
        assert_eq!(
            found.as_deref().map_err(String::as_str),
            expected,
            "{uri} by root {root}"
        );
    }
}

#[test]
fn a_leaf_has_exactly_one_uri_and_is_no_authority() {
    let one = || uris(&["spiffe://one.test/a"]);
    for (draft, expected) in [
        (
            leaf("a", 9).names(&[(DNS, b"one.test")]),
            Err("x509svid: could not get leaf SPIFFE ID: certificate contains no URI SAN"),
        ),
        (
            leaf("a", 9),
            Err("x509svid: could not get leaf SPIFFE ID: certificate contains no URI SAN"),
        ),
        (
            uris(&["spiffe://one.test/a", "spiffe://one.test/b"]),
            Err("x509svid: could not get leaf SPIFFE ID: certificate contains more than one URI SAN"),
        ),
        (
            uris(&["spiffe://one.test/a", "https://one.test"]),
            Err("x509svid: could not get leaf SPIFFE ID: certificate contains more than one URI SAN"),
        ),
        (
            one().ca(None),
            Err("x509svid: leaf certificate with CA flag set to true"),
        ),
        (
            one().key_usage(DIGITAL_SIGNATURE | CERT_SIGN),
            Err("x509svid: leaf certificate with KeyCertSign key usage"),
        ),
        (
            one().key_usage(CRL_SIGN),
            Err("x509svid: leaf certificate with KeyCrlSign key usage"),
        ),
        (one().key_usage(DIGITAL_SIGNATURE), Ok("spiffe://one.test/a")),
        // Neither usages nor other names matter.
        (one().usages(&[SERVER_AUTH]), Ok("spiffe://one.test/a")),
        (
            one().valid("200101000000Z", "210101000000Z"),
            Err(
                "x509svid: could not verify leaf certificate: x509: certificate has expired or is not yet valid: \
                 current time 2026-11-25T00:00:00Z is after 2021-01-01T00:00:00Z",
            ),
        ),
    ] {
        let found = verdict(&[issued(&draft, 1)]);
        assert_eq!(found.as_deref().map_err(String::as_str), expected);
    }
}

#[test]
fn intermediates_of_another_trust_domain_prove_nothing() {
    let middle = |root: u8| authority("middle", 4).issued_by(&format!("root {root}"), root);
    let svid = uris(&["spiffe://one.test/a"]).issued_by("middle", 4);
    assert!(verdict(&[svid.clone(), middle(1)]).is_ok());
    let refused = verdict(&[svid.clone(), middle(2)]);
    assert!(refused.is_err_and(|text| text.starts_with(UNKNOWN)));
    // A root that the peer brings along is no anchor.
    assert!(verdict(&[svid, middle(3), root(3)]).is_err());
    assert_eq!(
        verdict(&[]),
        Err("x509svid: could not verify leaf certificate: x509: no certificate to verify".to_owned())
    );
}

#[test]
fn more_is_asked_of_the_own_svid() {
    let own = |uri| uris(&[uri]).key_usage(DIGITAL_SIGNATURE);
    let good = issued(&own("spiffe://one.test/a"), 1);
    let signer = |draft: Draft| draft.issued_by("root 1", 1);
    for (chain, expected) in [
        (vec![good.clone()], None),
        (vec![good.clone(), signer(authority("middle", 4))], None),
        (vec![], Some("no certificates found")),
        (
            vec![issued(&own("spiffe://one.test"), 1)],
            Some("leaf certificate SPIFFE ID has no path"),
        ),
        (
            vec![issued(&own("https://one.test/a"), 1)],
            Some("cannot get leaf certificate SPIFFE ID: scheme is missing or invalid"),
        ),
        (
            vec![issued(&uris(&["spiffe://one.test/a"]), 1)],
            Some("leaf certificate without digitalSignature key usage"),
        ),
        (
            vec![issued(&uris(&["spiffe://one.test/a"]).key_usage(0b0010_0000), 1)],
            Some("leaf certificate without digitalSignature key usage"),
        ),
        (
            vec![issued(&own("spiffe://one.test/a").ca(None), 1)],
            Some("x509svid: leaf certificate with CA flag set to true"),
        ),
        (
            vec![good.clone(), good.clone()],
            Some("signing certificate without CA flag"),
        ),
        (
            vec![good, signer(leaf("middle", 4).ca(None))],
            Some("signing certificate without keyCertSign key usage"),
        ),
    ] {
        let found = check_own_svid(&chain).err().map(|error| error.to_string());
        assert_eq!(found.as_deref(), expected);
    }
}

#[test]
fn certificates_in_a_row_are_taken_apart() {
    let (one, two) = (root(1), root(2));
    let both = [one.der(), two.der()].concat();
    assert_eq!(parse_concatenated(&both), Ok(vec![one.clone(), two]));
    assert_eq!(parse_concatenated(&[]), Ok(Vec::new()));
    assert!(parse_concatenated(&both[..both.len() - 1]).is_err());
    assert!(parse_concatenated(&[one.der(), &[0]].concat()).is_err());
    assert!(parse_concatenated(&name(&["no certificate"])).is_err());
}
