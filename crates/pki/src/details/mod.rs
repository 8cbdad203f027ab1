//! Everything that a certificate states, for those who describe certificates instead of
//! judging them: input of access policies, mostly.
//!
//! Read again from the certificate's own bytes, which [`Certificate::parse`] has found well
//! formed; what path validation needs is kept in its own, much smaller, form.

mod extensions;
mod numbers;

use std::net::IpAddr;

pub use extensions::{Extension, Network, PolicyMapping, Subtrees};
pub use numbers::{decimal, dotted};

use crate::algorithm::{Hash, SignatureAlgorithm};
use crate::certificate::Certificate;
use crate::der::{Reader, tag};
use crate::public_key::PublicKey;
pub use crate::uri::UriParts;

/// The contents of one certificate. Object identifiers are lists of arcs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// The bytes that the signature covers.
    pub tbs: Vec<u8>,
    /// The signature's bytes.
    pub signature: Vec<u8>,
    /// How it was signed.
    pub signature_kind: SignatureKind,
    /// The public key.
    pub public_key: KeyDetails,
    /// Attributes of the subject, in encoding order.
    pub subject: Vec<Attribute>,
    /// Attributes of the issuer, in encoding order.
    pub issuer: Vec<Attribute>,
    /// All extensions as encoded, in encoding order.
    pub extensions: Vec<Extension>,
    /// The nine bits of KeyUsage, digitalSignature lowest; zero without the extension.
    pub key_usage: u16,
    /// Whether it is an authority, and the longest path below it, if BasicConstraints is there.
    pub basic_constraints: Option<(bool, Option<u64>)>,
    /// Object identifiers of ExtendedKeyUsage, in encoding order.
    pub extended_key_usages: Vec<Vec<u64>>,
    /// SubjectKeyIdentifier.
    pub subject_key_id: Option<Vec<u8>>,
    /// The key identifier of AuthorityKeyIdentifier.
    pub authority_key_id: Option<Vec<u8>>,
    /// Where an OCSP responder is, by AuthorityInfoAccess.
    pub ocsp_servers: Vec<String>,
    /// Where the issuer's certificate is, by AuthorityInfoAccess.
    pub issuing_certificate_urls: Vec<String>,
    /// Where revocation lists are.
    pub crl_distribution_points: Vec<String>,
    /// DNS alternative names, as encoded.
    pub dns_names: Vec<String>,
    /// Mail alternative names, as encoded.
    pub email_addresses: Vec<String>,
    /// Address alternative names, as encoded.
    pub ip_addresses: Vec<IpAddr>,
    /// URI alternative names, in parts.
    pub uris: Vec<UriParts>,
    /// Whether NameConstraints is critical.
    pub name_constraints_critical: bool,
    /// Names that an authority may issue for.
    pub permitted: Subtrees,
    /// Names that it may not.
    pub excluded: Subtrees,
    /// Contents of the object identifiers of CertificatePolicies, whose arcs may be of any size.
    pub policies: Vec<Vec<u8>>,
    /// PolicyMappings, in the same form.
    pub policy_mappings: Vec<PolicyMapping>,
    /// InhibitAnyPolicy.
    pub inhibit_any_policy: Option<u64>,
    /// inhibitPolicyMapping of PolicyConstraints.
    pub inhibit_policy_mapping: Option<u64>,
    /// requireExplicitPolicy of PolicyConstraints.
    pub require_explicit_policy: Option<u64>,
}

/// One attribute of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// The type, as arcs.
    pub oid: Vec<u64>,
    /// The value, decoded.
    pub value: String,
}

/// How a certificate was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureKind {
    /// RSA with MD5.
    Md5Rsa,
    /// RSA with SHA-1.
    Sha1Rsa,
    /// RSA, PKCS #1 v1.5, with SHA-2 of this many bits.
    Rsa(u16),
    /// RSA-PSS with SHA-2 of this many bits.
    RsaPss(u16),
    /// ECDSA with SHA-1.
    Sha1Ecdsa,
    /// ECDSA with SHA-2 of this many bits.
    Ecdsa(u16),
    /// Ed25519.
    Ed25519,
    /// Anything else.
    Unknown,
}

/// A public key in parts; numbers are big endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyDetails {
    /// RSA.
    Rsa {
        /// Modulus.
        modulus: Vec<u8>,
        /// Public exponent.
        exponent: Vec<u8>,
    },
    /// A point on a named curve.
    Ecdsa {
        /// First coordinate.
        x: Vec<u8>,
        /// Second coordinate.
        y: Vec<u8>,
    },
    /// Ed25519.
    Ed25519(Vec<u8>),
    /// A kind that TLS does not authenticate with.
    Other,
}

impl Details {
    /// Reads the contents of `certificate`.
    pub fn of(certificate: &Certificate) -> Self {
        let attributes = |name: &crate::Name| {
            let attributes = name.attributes().map(|(oid, value)| Attribute {
                oid: numbers::arcs(oid),
                value: value.to_owned(),
            });
            attributes.collect()
        };
        let mut details = Self {
            tbs: certificate.tbs().to_vec(),
            signature: certificate.signature().to_vec(),
            signature_kind: signature_kind(certificate.signature_algorithm()),
            public_key: key_details(certificate),
            subject: attributes(certificate.subject()),
            issuer: attributes(certificate.issuer()),
            extensions: extensions::list(certificate.tbs()).unwrap_or_default(),
            key_usage: 0,
            basic_constraints: None,
            extended_key_usages: Vec::new(),
            subject_key_id: None,
            authority_key_id: None,
            ocsp_servers: Vec::new(),
            issuing_certificate_urls: Vec::new(),
            crl_distribution_points: Vec::new(),
            dns_names: certificate.dns_names().to_vec(),
            email_addresses: certificate.email_addresses().to_vec(),
            ip_addresses: certificate.ip_addresses().to_vec(),
            uris: Vec::new(),
            name_constraints_critical: false,
            permitted: Subtrees::default(),
            excluded: Subtrees::default(),
            policies: Vec::new(),
            policy_mappings: Vec::new(),
            inhibit_any_policy: None,
            inhibit_policy_mapping: None,
            require_explicit_policy: None,
        };
        for extension in details.extensions.clone() {
            // Certificate::parse has refused what can't be read here.
            let _well_formed = details.take(&extension);
        }
        details
    }
}

fn signature_kind(algorithm: SignatureAlgorithm) -> SignatureKind {
    let bits = |hash| match hash {
        Hash::Sha256 => 256,
        Hash::Sha384 => 384,
        Hash::Sha512 => 512,
    };
    match algorithm {
        SignatureAlgorithm::RsaPkcs1(hash) => SignatureKind::Rsa(bits(hash)),
        SignatureAlgorithm::RsaPss(hash) => SignatureKind::RsaPss(bits(hash)),
        SignatureAlgorithm::Ecdsa(hash) => SignatureKind::Ecdsa(bits(hash)),
        SignatureAlgorithm::Ed25519 => SignatureKind::Ed25519,
        SignatureAlgorithm::Insecure("MD5-RSA") => SignatureKind::Md5Rsa,
        SignatureAlgorithm::Insecure("SHA1-RSA") => SignatureKind::Sha1Rsa,
        SignatureAlgorithm::Insecure("ECDSA-SHA1") => SignatureKind::Sha1Ecdsa,
        SignatureAlgorithm::Insecure(_) | SignatureAlgorithm::Unknown => SignatureKind::Unknown,
    }
}

fn key_details(certificate: &Certificate) -> KeyDetails {
    let details = match certificate.public_key() {
        PublicKey::Rsa { der, .. } => rsa_details(der),
        PublicKey::Ecdsa(..) | PublicKey::Other("P-224") => point(certificate.subject_public_key_info()),
        PublicKey::Ed25519(key) => Some(KeyDetails::Ed25519(key.to_vec())),
        PublicKey::Other(_) => None,
    };
    details.unwrap_or(KeyDetails::Other)
}

fn rsa_details(der: &[u8]) -> Option<KeyDetails> {
    let mut numbers = Reader::new(der).nested(tag::SEQUENCE)?;
    Some(KeyDetails::Rsa {
        modulus: numbers.integer()?.to_vec(),
        exponent: numbers.integer()?.to_vec(),
    })
}

/// An uncompressed point (RFC 5480, section 2.2).
fn point(spki: &[u8]) -> Option<KeyDetails> {
    let mut fields = Reader::new(spki).nested(tag::SEQUENCE)?;
    fields.any()?;
    let coordinates = fields.whole_bit_string()?.strip_prefix(&[4])?;
    let (x, y) = coordinates.split_at_checked(coordinates.len() / 2)?;
    Some(KeyDetails::Ecdsa {
        x: x.to_vec(),
        y: y.to_vec(),
    })
}
