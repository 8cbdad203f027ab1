//! The document a policy sees: a certificate, field by field in the names that policies for
//! Ghostunnel 1.11.1 are written against.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ghostunnel_pki::{
    Attribute, Certificate, Details, Extension, KeyDetails, Network, PolicyMapping, SignatureKind, UriParts,
    decimal, dotted,
};
use regorus::Value;

use crate::builtins::bytes;

/// `{"certificate": …}`: the value of `input`.
pub fn document(certificate: &Certificate) -> Value {
    object([("certificate", describe(certificate))])
}

/// Attribute types that have a field of their own, all below 2.5.4.
const LISTS: [(u64, &str); 7] = [
    (6, "Country"),
    (10, "Organization"),
    (11, "OrganizationalUnit"),
    (7, "Locality"),
    (8, "Province"),
    (9, "StreetAddress"),
    (17, "PostalCode"),
];

fn describe(certificate: &Certificate) -> Value {
    let details = Details::of(certificate);
    let (not_before, not_after) = certificate.validity();
    let (public_key, public_key_algorithm) = public_key(&details.public_key);
    let (max_path, max_path_zero) = match details.basic_constraints {
        None => (0, false),
        Some((_, None)) => (-1, false),
        Some((_, Some(length))) => (i64::try_from(length).unwrap_or(i64::MAX), length == 0),
    };
    let (permitted, excluded) = (&details.permitted, &details.excluded);
    let mut fields = BTreeMap::new();
    let mut set = |name: &str, value: Value| fields.insert(Value::from(name), value);
    set("Raw", base64(certificate.der()));
    set("RawTBSCertificate", base64(&details.tbs));
    set(
        "RawSubjectPublicKeyInfo",
        base64(certificate.subject_public_key_info()),
    );
    set("RawSubject", base64(certificate.subject().der()));
    set("RawIssuer", base64(certificate.issuer().der()));
    set("Signature", base64(&details.signature));
    set(
        "SignatureAlgorithm",
        signature_algorithm(details.signature_kind).into(),
    );
    set("PublicKeyAlgorithm", public_key_algorithm.into());
    set("PublicKey", public_key);
    set("Version", u32::from(certificate.version()).into());
    set("SerialNumber", integer(certificate.serial()));
    set("Issuer", name(&details.issuer));
    set("Subject", name(&details.subject));
    set("NotBefore", not_before.to_string().into());
    set("NotAfter", not_after.to_string().into());
    set("KeyUsage", u32::from(details.key_usage).into());
    set("Extensions", list(&details.extensions, extension));
    set("ExtraExtensions", Value::Null);
    set("UnhandledCriticalExtensions", Value::Null);
    let (known, unknown): (Vec<_>, Vec<_>) = details
        .extended_key_usages
        .iter()
        .map(|oid| extended_key_usage(oid).ok_or(oid))
        .partition(Result::is_ok);
    let known: Vec<u32> = known.into_iter().filter_map(Result::ok).collect();
    let unknown: Vec<&Vec<u64>> = unknown.into_iter().filter_map(Result::err).collect();
    set("ExtKeyUsage", list(&known, |usage| (*usage).into()));
    set("UnknownExtKeyUsage", list(&unknown, |oid| arcs(oid)));
    set(
        "BasicConstraintsValid",
        details.basic_constraints.is_some().into(),
    );
    set(
        "IsCA",
        details.basic_constraints.is_some_and(|(is_ca, _)| is_ca).into(),
    );
    set("MaxPathLen", max_path.into());
    set("MaxPathLenZero", max_path_zero.into());
    set("SubjectKeyId", optional_base64(details.subject_key_id.as_deref()));
    set(
        "AuthorityKeyId",
        optional_base64(details.authority_key_id.as_deref()),
    );
    set("OCSPServer", strings(&details.ocsp_servers));
    set(
        "IssuingCertificateURL",
        strings(&details.issuing_certificate_urls),
    );
    set("CRLDistributionPoints", strings(&details.crl_distribution_points));
    set("DNSNames", strings(&details.dns_names));
    set("EmailAddresses", strings(&details.email_addresses));
    set("IPAddresses", list(&details.ip_addresses, address));
    set("URIs", list(&details.uris, uri));
    set(
        "PermittedDNSDomainsCritical",
        details.name_constraints_critical.into(),
    );
    set("PermittedDNSDomains", strings(&permitted.dns));
    set("ExcludedDNSDomains", strings(&excluded.dns));
    set("PermittedIPRanges", list(&permitted.ip, network));
    set("ExcludedIPRanges", list(&excluded.ip, network));
    set("PermittedEmailAddresses", strings(&permitted.email));
    set("ExcludedEmailAddresses", strings(&excluded.email));
    set("PermittedURIDomains", strings(&permitted.uri));
    set("ExcludedURIDomains", strings(&excluded.uri));
    set("PolicyIdentifiers", policy_identifiers(&details.policies));
    set("Policies", list(&details.policies, |oid| dotted(oid).into()));
    set("PolicyMappings", list(&details.policy_mappings, policy_mapping));
    for (name, value) in [
        ("InhibitAnyPolicy", details.inhibit_any_policy),
        ("InhibitPolicyMapping", details.inhibit_policy_mapping),
        ("RequireExplicitPolicy", details.require_explicit_policy),
    ] {
        set(name, value.unwrap_or_default().into());
        set(&format!("{name}Zero"), (value == Some(0)).into());
    }
    Value::from(fields)
}

fn signature_algorithm(kind: SignatureKind) -> u32 {
    match kind {
        SignatureKind::Unknown => 0,
        SignatureKind::Md5Rsa => 2,
        SignatureKind::Sha1Rsa => 3,
        SignatureKind::Rsa(256) => 4,
        SignatureKind::Rsa(384) => 5,
        SignatureKind::Rsa(_) => 6,
        SignatureKind::Sha1Ecdsa => 9,
        SignatureKind::Ecdsa(256) => 10,
        SignatureKind::Ecdsa(384) => 11,
        SignatureKind::Ecdsa(_) => 12,
        SignatureKind::RsaPss(256) => 13,
        SignatureKind::RsaPss(384) => 14,
        SignatureKind::RsaPss(_) => 15,
        SignatureKind::Ed25519 => 16,
    }
}

fn public_key(key: &KeyDetails) -> (Value, u32) {
    match key {
        KeyDetails::Rsa { modulus, exponent } => {
            let parts = [("N", integer(modulus)), ("E", integer(exponent))];
            (object(parts), 1)
        }
        KeyDetails::Ecdsa { x, y } => {
            let parts = [
                ("Curve", Value::new_object()),
                ("X", integer(x)),
                ("Y", integer(y)),
            ];
            (object(parts), 3)
        }
        KeyDetails::Ed25519(key) => (base64(key), 4),
        KeyDetails::Other => (Value::Null, 0),
    }
}

fn name(attributes: &[Attribute]) -> Value {
    let values = |arc| {
        attributes
            .iter()
            .filter(move |attribute| attribute.oid == [2, 5, 4, arc])
            .map(|attribute| text(&attribute.value))
    };
    let last = |arc| values(arc).next_back().unwrap_or_else(|| Value::from(""));
    let attribute =
        |attribute: &Attribute| object([("Type", arcs(&attribute.oid)), ("Value", text(&attribute.value))]);
    let singles = [
        ("CommonName", last(3)),
        ("SerialNumber", last(5)),
        ("Names", list(attributes, attribute)),
        ("ExtraNames", Value::Null),
    ];
    let lists = LISTS.map(|(arc, name)| (name, array_or_null(values(arc).collect())));
    object(singles.into_iter().chain(lists))
}

fn extension(extension: &Extension) -> Value {
    object([
        ("Id", arcs(&extension.oid)),
        ("Critical", extension.critical.into()),
        ("Value", base64(&extension.value)),
    ])
}

fn extended_key_usage(oid: &[u64]) -> Option<u32> {
    Some(match *oid {
        [2, 5, 29, 37, 0] => 0,
        [1, 3, 6, 1, 5, 5, 7, 3, usage @ 1..=9] => u32::try_from(usage).ok()?,
        [1, 3, 6, 1, 4, 1, 311, 10, 3, 3] => 10,
        [2, 16, 840, 1, 113_730, 4, 1] => 11,
        [1, 3, 6, 1, 4, 1, 311, 2, 1, 22] => 12,
        [1, 3, 6, 1, 4, 1, 311, 61, 1, 1] => 13,
        _ => return None,
    })
}

fn address(address: &IpAddr) -> Value {
    address.to_canonical().to_string().into()
}

fn network(network: &Network) -> Value {
    object([("IP", address(&network.address)), ("Mask", base64(&network.mask))])
}

fn uri(parts: &UriParts) -> Value {
    let user = if parts.has_user {
        Value::new_object()
    } else {
        Value::Null
    };
    object([
        ("Scheme", text(&parts.scheme)),
        ("Opaque", text(&parts.opaque)),
        ("User", user),
        ("Host", text(&parts.host)),
        ("Path", bytes_as_text(&parts.path)),
        ("RawPath", text(&parts.raw_path)),
        ("OmitHost", parts.omits_host.into()),
        ("ForceQuery", parts.has_empty_query.into()),
        ("RawQuery", text(&parts.raw_query)),
        ("Fragment", bytes_as_text(&parts.fragment)),
        ("RawFragment", text(&parts.raw_fragment)),
    ])
}

/// The policies whose arcs fit 31 bits, which is all that this older of two fields can hold.
fn policy_identifiers(policies: &[Vec<u8>]) -> Value {
    let fitting = policies.iter().filter_map(|oid| {
        let arcs = dotted(oid)
            .split('.')
            .map(|arc| arc.parse::<u32>().ok())
            .collect::<Option<Vec<_>>>()?;
        let fits = arcs.iter().all(|&arc| i32::try_from(arc).is_ok());
        fits.then(|| Value::from(arcs.into_iter().map(Value::from).collect::<Vec<_>>()))
    });
    array_or_null(fitting.collect())
}

fn policy_mapping(mapping: &PolicyMapping) -> Value {
    object([
        ("IssuerDomainPolicy", dotted(&mapping.issuer).into()),
        ("SubjectDomainPolicy", dotted(&mapping.subject).into()),
    ])
}

pub(crate) fn object<'a>(members: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let members = members
        .into_iter()
        .map(|(name, value)| (Value::from(name), value));
    Value::from(members.collect::<BTreeMap<_, _>>())
}

/// Absent lists are null, never empty.
fn list<T>(items: &[T], each: impl FnMut(&T) -> Value) -> Value {
    array_or_null(items.iter().map(each).collect())
}

fn array_or_null(items: Vec<Value>) -> Value {
    match items.is_empty() {
        true => Value::Null,
        false => Value::from(items),
    }
}

fn strings(items: &[String]) -> Value {
    list(items, |item| text(item))
}

fn arcs(oid: &[u64]) -> Value {
    Value::from(oid.iter().map(|&arc| Value::from(arc)).collect::<Vec<_>>())
}

fn text(text: &str) -> Value {
    Value::from(bytes::plain(text))
}

/// Bytes that need not be UTF-8: each one that is not becomes a replacement character.
fn bytes_as_text(bytes: &[u8]) -> Value {
    let mut decoded = String::new();
    for chunk in bytes.utf8_chunks() {
        decoded.push_str(chunk.valid());
        decoded.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text(&decoded)
}

fn base64(data: &[u8]) -> Value {
    Value::from(bytes::to_base64(data))
}

fn optional_base64(data: Option<&[u8]>) -> Value {
    data.map_or(Value::Null, base64)
}

/// A big-endian number of any size.
fn integer(data: &[u8]) -> Value {
    Value::from_numeric_string(&decimal(data)).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests;
