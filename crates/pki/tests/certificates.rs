//! What is a certificate, what is not, and what it says about its owner.

mod forge;

use std::net::IpAddr;

use forge::{
    ALTERNATIVE_NAMES, DIRECTORY, DNS, Draft, EMAIL, IP, NAME_CONSTRAINTS, URI, leaf, name, sequence, tlv,
};
use ghostunnel_pki::{Certificate, Identity};

const KEY: u8 = 3;

/// The empty string for a certificate, else why it is none.
fn verdict(der: &[u8]) -> String {
    Certificate::parse(der).map_or_else(|error| error.to_string(), |_| String::new())
}

fn verdict_on(draft: &Draft) -> String {
    verdict(&draft.der(&name(&["ca"]), 1))
}

fn client() -> Draft {
    leaf("client", KEY)
}

#[test]
fn drafts_that_are_no_certificates_are_refused() {
    let san = |names: &[(u8, &[u8])]| client().names(names);
    let ext = |number: u8, value: &[u8]| client().extension(number, false, value);
    let ia5 = |base: u8, text: &[u8]| sequence(&[tlv(0xa0, &sequence(&[tlv(base, text)]))]);
    for (case, draft, expected) in [
        ("plain", client(), ""),
        ("version 4", client().version(4), "x509: invalid version"),
        (
            "serial of 25 bytes",
            Draft {
                serial: vec![1; 25],
                ..client()
            },
            "",
        ),
        (
            "serial zero",
            Draft {
                serial: vec![0],
                ..client()
            },
            "",
        ),
        (
            "negative serial",
            Draft {
                serial: vec![0x80],
                ..client()
            },
            "x509: negative serial number",
        ),
        (
            "serial with leading zeros",
            Draft {
                serial: vec![0, 1],
                ..client()
            },
            "x509: malformed serial number",
        ),
        (
            "empty serial",
            Draft {
                serial: vec![],
                ..client()
            },
            "x509: malformed serial number",
        ),
        (
            "empty subject",
            Draft {
                subject: sequence(&[]),
                ..client()
            },
            "",
        ),
        (
            "subject with a number",
            Draft {
                subject: sequence(&[tlv(0x31, &sequence(&[tlv(6, &[0x55, 4, 3]), tlv(2, &[1])]))]),
                ..client()
            },
            "x509: invalid distinguished name",
        ),
        (
            "time without zone",
            client().valid("200101000000", "400101000000Z"),
            "x509: malformed validity",
        ),
        (
            "30 February",
            client().valid("200230000000Z", "400101000000Z"),
            "x509: malformed validity",
        ),
        (
            "extensions in version 1",
            client().version(1).extension(99, false, &[]),
            "x509: malformed extensions",
        ),
        (
            "unique identifiers",
            Draft {
                rest: Some([tlv(0x81, &[0, 1]), tlv(0x82, &[0, 1])].concat()),
                ..client()
            },
            "",
        ),
        (
            "bytes behind the extensions",
            Draft {
                rest: Some([tlv(0xa3, &sequence(&[])), tlv(4, &[])].concat()),
                ..client()
            },
            "x509: malformed extensions",
        ),
        (
            "the same extension twice",
            client().extension(99, false, &[]).extension(99, false, &[1]),
            "x509: certificate contains duplicate extension with OID \"2.5.29.99\"",
        ),
        (
            "critical written as 1",
            {
                let broken = sequence(&[tlv(6, &[0x55, 0x1d, 99]), vec![1, 1, 1], tlv(4, &[])]);
                Draft {
                    extensions: vec![broken],
                    ..client()
                }
            },
            "x509: malformed extension critical field",
        ),
        (
            "explicitly not critical",
            {
                let explicit = sequence(&[tlv(6, &[0x55, 0x1d, 99]), vec![1, 1, 0], tlv(4, &[])]);
                Draft {
                    extensions: vec![explicit],
                    ..client()
                }
            },
            "",
        ),
        (
            "names of all kinds",
            san(&[
                (DNS, b"a"),
                (EMAIL, b"a@b"),
                (URI, b"urn:x"),
                (IP, &[1; 16]),
                (DIRECTORY, &[]),
                (0x88, &[1]),
            ]),
            "",
        ),
        (
            "DNS name beyond ASCII",
            san(&[(DNS, "ä".as_bytes())]),
            "x509: malformed SAN dNSName",
        ),
        (
            "mail address beyond ASCII",
            san(&[(EMAIL, b"\xff@b")]),
            "x509: malformed SAN rfc822Name",
        ),
        (
            "address of five bytes",
            san(&[(IP, &[1; 5])]),
            "x509: invalid length of IP address SAN",
        ),
        (
            "URI with a bad escape",
            san(&[(URI, b"spiffe://td/%zz")]),
            "x509: cannot parse URI \"spiffe://td/%zz\": invalid URL escape",
        ),
        (
            "URI with a line break",
            san(&[(URI, b"spiffe://td/\n")]),
            "x509: cannot parse URI \"spiffe://td/\\n\": net/url: invalid control character in URL",
        ),
        (
            "names that are no list",
            ext(ALTERNATIVE_NAMES, &[4, 0]),
            "x509: invalid subject alternative names",
        ),
        (
            "bytes behind the names",
            ext(ALTERNATIVE_NAMES, &[0x30, 0, 0]),
            "x509: invalid subject alternative names",
        ),
        ("basic constraints", ext(19, &[0x30, 6, 1, 1, 0xff, 2, 1, 3]), ""),
        (
            "negative path length",
            ext(19, &[0x30, 6, 1, 1, 0xff, 2, 1, 0xff]),
            "x509: invalid basic constraints",
        ),
        (
            "key usage with garbage bits",
            ext(15, &[3, 2, 5, 0xa1]),
            "x509: invalid key usage",
        ),
        (
            "usage list with a number",
            ext(37, &[0x30, 3, 2, 1, 1]),
            "x509: invalid extended key usages",
        ),
        (
            "critical subject key id",
            client().extension(14, true, &[4, 1, 1]),
            "x509: subject key identifier incorrectly marked critical",
        ),
        (
            "critical authority key id",
            client().extension(35, true, &[0x30, 0]),
            "x509: authority key identifier incorrectly marked critical",
        ),
        (
            "authority key id without key",
            ext(35, &[0x30, 3, 0x82, 1, 1]),
            "",
        ),
        (
            "the same policy twice",
            client().policies(&[&[0x2a], &[0x2a]]),
            "x509: invalid certificate policies",
        ),
        (
            "policy with a huge arc",
            client().policies(&[&[0x69, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]]),
            "",
        ),
        (
            "negative policy constraint",
            ext(36, &[0x30, 3, 0x80, 1, 0xff]),
            "x509: invalid policy constraints extension",
        ),
        (
            "policy mappings",
            ext(33, &sequence(&[sequence(&[tlv(6, &[0x2a]), tlv(6, &[0x2b])])])),
            "",
        ),
        (
            "half a policy mapping",
            ext(33, &sequence(&[sequence(&[tlv(6, &[0x2a])])])),
            "x509: invalid policy mappings extension",
        ),
        (
            "revocation list points",
            ext(
                31,
                &sequence(&[sequence(&[tlv(0xa0, &tlv(0xa0, &tlv(URI, b"http://x")))])]),
            ),
            "",
        ),
        (
            "revocation list points that are none",
            ext(31, &[0x30, 1, 0]),
            "x509: invalid CRL distribution points",
        ),
        (
            "name constraints without any",
            ext(NAME_CONSTRAINTS, &[0x30, 0]),
            "x509: invalid NameConstraints extension",
        ),
        (
            "name constraint on odd domains",
            ext(NAME_CONSTRAINTS, &ia5(DNS, b"a..b")),
            "x509: invalid domain in name constraint",
        ),
        (
            "name constraint on a dot",
            ext(NAME_CONSTRAINTS, &ia5(DNS, b".")),
            "x509: invalid domain in name constraint",
        ),
        (
            "name constraint on half an address",
            ext(NAME_CONSTRAINTS, &ia5(IP, &[1; 4])),
            "x509: invalid length of IP constraint",
        ),
        (
            "name constraint with holes in the mask",
            ext(NAME_CONSTRAINTS, &ia5(IP, &[1, 1, 1, 1, 255, 0, 255, 0])),
            "x509: invalid mask of IP constraint",
        ),
        (
            "name constraint with a split mask byte",
            ext(NAME_CONSTRAINTS, &ia5(IP, &[1, 1, 1, 1, 255, 0xf8, 0, 0])),
            "",
        ),
        (
            "name constraint with a bad mask byte",
            ext(NAME_CONSTRAINTS, &ia5(IP, &[1, 1, 1, 1, 255, 0x7f, 0, 0])),
            "x509: invalid mask of IP constraint",
        ),
        (
            "URI constraint on an address",
            ext(NAME_CONSTRAINTS, &ia5(URI, b"1.2.3.4")),
            "x509: invalid URI constraint",
        ),
        (
            "mail constraint with two at signs",
            ext(NAME_CONSTRAINTS, &ia5(EMAIL, b"a@")),
            "",
        ),
        (
            "mail constraint without a name",
            ext(NAME_CONSTRAINTS, &ia5(EMAIL, b"@a")),
            "x509: invalid rfc822Name constraint",
        ),
        (
            "critical authority information access",
            client().extension_of(&[0x2b, 6, 1, 5, 5, 7, 1, 1], true, &[0x30, 0]),
            "x509: authority info access incorrectly marked critical",
        ),
    ] {
        assert_eq!(verdict_on(&draft), expected, "{case}");
    }
}

#[test]
fn keys_that_are_none_are_refused() {
    let rsa = |parameters: &[u8], numbers: &[&[u8]]| {
        let oid = tlv(6, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1]);
        let numbers: Vec<_> = numbers.iter().map(|number| tlv(2, number)).collect();
        sequence(&[
            sequence(&[oid, parameters.to_vec()]),
            tlv(3, &[vec![0], sequence(&numbers)].concat()),
        ])
    };
    let ec = |curve: &[u8], point: &[u8]| {
        let oid = tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]);
        sequence(&[sequence(&[oid, tlv(6, curve)]), tlv(3, &[&[0], point].concat())])
    };
    let p256 = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    let other = sequence(&[sequence(&[tlv(6, &[0x2a, 3])]), tlv(3, &[0, 1])]);
    for (case, spki, expected) in [
        ("RSA", rsa(&[5, 0], &[&[0x7f; 128], &[3]]), ""),
        (
            "RSA without NULL",
            rsa(&[], &[&[0, 0xff], &[3]]),
            "x509: RSA key missing NULL parameters",
        ),
        (
            "negative modulus",
            rsa(&[5, 0], &[&[0xff, 1], &[3]]),
            "x509: RSA modulus is not a positive number",
        ),
        (
            "modulus zero",
            rsa(&[5, 0], &[&[0], &[3]]),
            "x509: RSA modulus is not a positive number",
        ),
        (
            "exponent zero",
            rsa(&[5, 0], &[&[9], &[0]]),
            "x509: RSA public exponent is not a positive number",
        ),
        (
            "huge exponent",
            rsa(&[5, 0], &[&[9], &[1; 9]]),
            "x509: invalid RSA public exponent",
        ),
        (
            "no exponent",
            rsa(&[5, 0], &[&[9]]),
            "x509: invalid RSA public exponent",
        ),
        (
            "a point beside the curve",
            ec(p256, &[4; 65]),
            "x509: failed to unmarshal elliptic curve point",
        ),
        (
            "a compressed point",
            ec(p256, &[2; 33]),
            "x509: failed to unmarshal elliptic curve point",
        ),
        (
            "another curve",
            ec(&[0x2b, 0x81, 4, 0, 10], &[4; 65]),
            "x509: unsupported elliptic curve",
        ),
        ("P-224", ec(&[0x2b, 0x81, 4, 0, 0x21], &[4; 57]), ""),
        (
            "half a point on P-224",
            ec(&[0x2b, 0x81, 4, 0, 0x21], &[4; 29]),
            "x509: failed to unmarshal elliptic curve point",
        ),
        (
            "short Ed25519",
            sequence(&[sequence(&[tlv(6, &[0x2b, 0x65, 0x70])]), tlv(3, &[0; 32])]),
            "x509: wrong Ed25519 public key size",
        ),
        (
            "Ed25519 with parameters",
            sequence(&[
                sequence(&[tlv(6, &[0x2b, 0x65, 0x70]), vec![5, 0]]),
                tlv(3, &[0; 33]),
            ]),
            "x509: Ed25519 key encoded with illegal parameters",
        ),
        ("unknown", other, ""),
        (
            "no bits",
            sequence(&[sequence(&[tlv(6, &[0x2a, 3])]), tlv(3, &[])]),
            "x509: malformed subjectPublicKey",
        ),
    ] {
        assert_eq!(verdict_on(&Draft { spki, ..client() }), expected, "{case}");
    }
}

#[test]
fn bytes_that_frame_no_certificate_are_refused() {
    let good = client().der(&name(&["ca"]), 1);
    assert_eq!(verdict(&good), "");
    assert_eq!(verdict(&[&good[..], &[0]].concat()), "x509: trailing data");
    assert_eq!(verdict(&good[..good.len() - 1]), "x509: malformed certificate");
    assert_eq!(verdict(&[]), "x509: malformed certificate");
    let certificate = Certificate::parse(&good).expect("good");
    let rsa = sequence(&[
        tlv(6, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11]),
        vec![5, 0],
    ]);
    let inner = Draft {
        algorithm: rsa.clone(),
        ..client()
    }
    .der(&name(&["ca"]), 1);
    assert_eq!(verdict(&inner), "");
    // The outer algorithm comes right before the signature of 64 bytes.
    let outer_at = good.len() - 67 - 7;
    let header = if good[1] == 0x81 { 3 } else { 4 };
    let mut outer = good[header..outer_at].to_vec();
    outer.extend([&rsa, &good[good.len() - 67..]].concat());
    assert_eq!(
        verdict(&tlv(0x30, &outer)),
        "x509: inner and outer signature algorithm identifiers don't match"
    );
    assert_eq!(certificate.der(), good);
}

#[test]
fn a_certificate_tells_what_is_in_it() {
    let draft = client()
        .names(&[
            (DNS, b"a.example"),
            (DNS, b"*.B.example"),
            (EMAIL, b"a@b"),
            (URI, b"SPIFFE://Td/a b"),
            (IP, &[127, 0, 0, 1]),
            (IP, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1]),
        ])
        .valid("200101000000Z", "400101000000Z");
    let draft = Draft {
        serial: vec![0, 0x80],
        subject: name(&["first", "last"]),
        ..draft
    };
    let certificate = draft.issued_by("ca", 1);
    assert_eq!(certificate.version(), 3);
    assert_eq!(certificate.serial(), [0, 0x80]);
    assert_eq!(certificate.issuer().to_string(), "CN=ca");
    assert_eq!(certificate.subject_public_key_info(), forge::spki(KEY));
    let (not_before, not_after) = certificate.validity();
    assert_eq!(not_before.unix_seconds(), 1_577_836_800);
    assert_eq!(not_after.to_string(), "2040-01-01T00:00:00Z");

    let identity = Identity::of(&certificate);
    assert_eq!(identity.common_name(), Some("last"));
    assert_eq!(identity.subject(), "CN=last");
    assert_eq!(identity.organizational_units(), [] as [String; 0]);
    assert_eq!(identity.dns_names(), ["a.example", "*.B.example"]);
    assert_eq!(identity.uris(), ["spiffe://Td/a%20b"]);
    let addresses: [IpAddr; 2] = [[127, 0, 0, 1].into(), [10, 0, 0, 1].into()];
    assert_eq!(identity.ip_addresses(), addresses);
    assert_eq!(identity.leaf(), &certificate);
    assert_eq!(certificate.email_addresses(), ["a@b"]);
    assert!(format!("{certificate:?}").starts_with("Certificate { subject: CN=last, issuer: CN=ca"));
}
