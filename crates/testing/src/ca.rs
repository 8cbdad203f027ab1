//! Authorities, and certificates ordinary and odd.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, RsaKeySize, SanType, SerialNumber, SigningKey,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use tempfile::TempDir;

use crate::der;

const HOUR: Duration = Duration::from_secs(3600);

/// Object identifiers of subject attributes, for [`Attribute`].
pub mod oid {
    /// commonName
    pub const COMMON_NAME: &str = "2.5.4.3";
    /// countryName
    pub const COUNTRY: &str = "2.5.4.6";
    /// organizationName
    pub const ORGANIZATION: &str = "2.5.4.10";
    /// organizationalUnitName
    pub const ORGANIZATIONAL_UNIT: &str = "2.5.4.11";
}

/// A certificate authority: a root, or an intermediate below one.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
    /// What a peer must send to lead from a leaf to the root; empty for a root.
    intermediates: Vec<Vec<u8>>,
}

impl Authority {
    /// A new root with a P-256 key.
    pub fn new(name: &str) -> Self {
        Self::root(&Request::named(name))
    }

    /// A new root of any kind. Of its subject only the common name is used.
    pub fn root(request: &Request) -> Self {
        let key = request.key.generate();
        let params = authority_params(request);
        let certificate = params
            .self_signed(&key)
            .expect("a root can sign itself")
            .der()
            .to_vec();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
            intermediates: Vec::new(),
        }
    }

    /// A new authority below this one. Its certificate is part of the chain of what it issues.
    /// Of its subject only the common name is used.
    pub fn intermediate(&self, request: &Request) -> Self {
        self.below(request, authority_params(request))
    }

    /// Somebody with an ordinary certificate of this authority who issues certificates with
    /// it, to which it gives no right.
    pub fn misused_leaf(&self, request: &Request) -> Self {
        self.below(request, request.params())
    }

    fn below(&self, request: &Request, params: CertificateParams) -> Self {
        let key = request.key.generate();
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("an authority can sign")
            .der()
            .to_vec();
        let mut intermediates = vec![certificate.clone()];
        intermediates.extend_from_slice(&self.intermediates);
        Self {
            issuer: Issuer::new(params, key),
            certificate,
            intermediates,
        }
    }

    /// Issues a certificate with a fresh key.
    pub fn issue(&self, request: &Request) -> Issued {
        let key = request.key.generate();
        let certificate = request
            .params()
            .signed_by(&key, &self.issuer)
            .expect("an authority can sign");
        let certificate = request.rewrite_subject(certificate.der().to_vec(), self.issuer.key());
        Issued {
            certificate,
            intermediates: self.intermediates.clone(),
            key: request.key.encode(&key),
            key_form: pkcs8,
        }
    }

    /// Issues another certificate for a key that has one.
    pub fn reissue(&self, request: &Request, issued: &Issued) -> Issued {
        let key = KeyPair::try_from(issued.key.as_slice()).expect("a key that was made here");
        let certificate = request
            .params()
            .signed_by(&key, &self.issuer)
            .expect("an authority can sign");
        let certificate = request.rewrite_subject(certificate.der().to_vec(), self.issuer.key());
        Issued {
            certificate,
            intermediates: self.intermediates.clone(),
            key: issued.key.clone(),
            key_form: issued.key_form,
        }
    }

    /// The authority's own certificate.
    pub fn der(&self) -> &[u8] {
        &self.certificate
    }

    /// The authority's own certificate as PEM.
    pub fn pem(&self) -> String {
        der::pem("CERTIFICATE", &self.certificate)
    }

    pub(crate) fn trust_anchor(&self) -> CertificateDer<'static> {
        self.certificate.clone().into()
    }
}

fn authority_params(request: &Request) -> CertificateParams {
    let mut params = request.clone().authority().params();
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The key of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// Ed25519.
    Ed25519,
    /// RSA with 2048 bits.
    Rsa2048,
}

impl KeyKind {
    /// The key as PKCS#8 of version 1 (RFC 5208): OpenSSL 3.0 does not read the version with
    /// the public key inside, which is what Ed25519 keys come in.
    fn encode(self, key: &KeyPair) -> Vec<u8> {
        let encoded = key.serialize_der();
        if self != Self::Ed25519 {
            return encoded;
        }
        let parts = der::children(&encoded);
        let version_1 = der::element(der::INTEGER, &[0]);
        der::element(der::SEQUENCE, &[&version_1[..], &parts[1], &parts[2]].concat())
    }

    fn generate(self) -> KeyPair {
        match self {
            Self::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::P521 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            Self::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        }
        .expect("the provider makes keys of every listed kind")
    }
}

/// Extended key usages of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// TLS client and server.
    Both,
    /// TLS client only.
    Client,
    /// TLS server only.
    Server,
    /// Neither: code signing.
    Unrelated,
    /// anyExtendedKeyUsage, which permits everything.
    Anything,
    /// No such extension, which permits everything.
    Unrestricted,
}

/// One attribute of a subject, as raw as it will be encoded: no check of tag or bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Dotted decimal, for example [`oid::COMMON_NAME`].
    pub oid: &'static str,
    /// The ASN.1 tag of the string.
    pub tag: u8,
    /// The string's bytes.
    pub value: Vec<u8>,
}

impl Attribute {
    /// A UTF8String attribute. The text may hold control characters.
    pub fn text(oid: &'static str, value: impl AsRef<str>) -> Self {
        Self {
            oid,
            tag: 0x0c,
            value: value.as_ref().as_bytes().to_vec(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let pair = [
            der::object_identifier(self.oid),
            der::element(self.tag, &self.value),
        ];
        der::element(der::SEQUENCE, &pair.concat())
    }
}

/// What a certificate shall say. Starts valid from an hour ago until tomorrow, with a P-256
/// key and both TLS usages.
#[derive(Debug, Clone)]
#[must_use]
pub struct Request {
    /// Relative distinguished names, mostly of one attribute each.
    subject: Vec<Vec<Attribute>>,
    is_version_1: bool,
    names: Vec<SanType>,
    usage: Usage,
    key: KeyKind,
    is_authority: bool,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: Option<Vec<u8>>,
    extensions: Vec<CustomExtension>,
}

impl Request {
    /// A certificate with an empty subject.
    pub fn unnamed() -> Self {
        let now = SystemTime::now();
        Self {
            subject: Vec::new(),
            is_version_1: false,
            names: Vec::new(),
            usage: Usage::Both,
            key: KeyKind::P256,
            is_authority: false,
            not_before: now - HOUR,
            not_after: now + 24 * HOUR,
            serial: None,
            extensions: Vec::new(),
        }
    }

    /// A certificate with this subject common name.
    pub fn named(common_name: &str) -> Self {
        Self::unnamed().attribute(Attribute::text(oid::COMMON_NAME, common_name))
    }

    /// Adds an organizational unit; repeatable.
    pub fn organizational_unit(self, name: &str) -> Self {
        self.attribute(Attribute::text(oid::ORGANIZATIONAL_UNIT, name))
    }

    /// Adds any subject attribute, in order of the calls; repeatable.
    pub fn attribute(self, attribute: Attribute) -> Self {
        self.attributes(vec![attribute])
    }

    /// Adds several subject attributes that share one relative distinguished name.
    pub fn attributes(mut self, attributes: Vec<Attribute>) -> Self {
        self.subject.push(attributes);
        self
    }

    /// Makes it an X.509 v1 certificate, which has no extensions: no names, no usages.
    pub fn version_1(mut self) -> Self {
        self.is_version_1 = true;
        self
    }

    /// Adds a DNS alternative name.
    pub fn dns(mut self, name: &str) -> Self {
        self.names
            .push(SanType::DnsName(name.try_into().expect("a DNS name is ASCII")));
        self
    }

    /// Adds an IP alternative name.
    pub fn ip(mut self, address: impl Into<IpAddr>) -> Self {
        self.names.push(SanType::IpAddress(address.into()));
        self
    }

    /// Adds a URI alternative name.
    pub fn uri(mut self, uri: &str) -> Self {
        self.names
            .push(SanType::URI(uri.try_into().expect("a URI is ASCII")));
        self
    }

    /// Sets the extended key usages.
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// Sets the kind of key.
    pub fn key(mut self, key: KeyKind) -> Self {
        self.key = key;
        self
    }

    /// Marks the certificate as an authority (basic constraints).
    pub fn authority(mut self) -> Self {
        self.is_authority = true;
        self.usage = Usage::Unrestricted;
        self
    }

    /// Sets the time of validity.
    pub fn valid(mut self, not_before: SystemTime, not_after: SystemTime) -> Self {
        self.not_before = not_before;
        self.not_after = not_after;
        self
    }

    /// Makes it expired: valid until an hour ago.
    pub fn expired(self) -> Self {
        let now = SystemTime::now();
        self.valid(now - 24 * HOUR, now - HOUR)
    }

    /// Makes it not yet valid: valid from an hour ahead.
    pub fn not_yet_valid(self) -> Self {
        let now = SystemTime::now();
        self.valid(now + HOUR, now + 24 * HOUR)
    }

    /// Sets the serial number, big-endian.
    pub fn serial(mut self, bytes: &[u8]) -> Self {
        self.serial = Some(bytes.to_vec());
        self
    }

    /// Adds an extension with this DER content.
    pub fn extension(mut self, oid: &[u64], critical: bool, content: Vec<u8>) -> Self {
        let mut extension = CustomExtension::from_oid_content(oid, content);
        extension.set_criticality(critical);
        self.extensions.push(extension);
        self
    }

    /// Signs the certificate with its own key.
    pub fn self_signed(&self) -> Issued {
        let key = self.key.generate();
        let certificate = self
            .params()
            .self_signed(&key)
            .expect("a certificate can sign itself");
        let certificate = self.rewrite_subject(certificate.der().to_vec(), &key);
        Issued {
            certificate,
            intermediates: Vec::new(),
            key: self.key.encode(&key),
            key_form: pkcs8,
        }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = self.plain_subject();
        params.subject_alt_names.clone_from(&self.names);
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(self.not_before);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(self.not_after);
        params.serial_number = self.serial.clone().map(SerialNumber::from);
        params.use_authority_key_identifier_extension = true;
        params.custom_extensions.clone_from(&self.extensions);
        params.extended_key_usages = extended_key_usages(self.usage);
        if self.is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        } else {
            params.is_ca = IsCa::ExplicitNoCa;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        }
        params
    }

    /// The subject as far as rcgen can express it; an authority's is always that plain.
    fn plain_subject(&self) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        for attribute in self.subject.iter().flatten() {
            if attribute.oid == oid::COMMON_NAME {
                name.push(
                    DnType::CommonName,
                    String::from_utf8_lossy(&attribute.value).into_owned(),
                );
            }
        }
        name
    }

    /// Puts the subject in as asked for and signs again: rcgen knows one attribute of each
    /// type only, and no malformed ones.
    fn rewrite_subject(&self, certificate: Vec<u8>, signer: &KeyPair) -> Vec<u8> {
        const SUBJECT: usize = 5;
        let [tbs, algorithm, _] = <[Vec<u8>; 3]>::try_from(der::children(&certificate))
            .expect("a certificate has three parts (RFC 5280, section 4.1)");
        let mut fields = der::children(&tbs);
        let names = self.subject.iter().map(|attributes| {
            let attributes: Vec<Vec<u8>> = attributes.iter().map(Attribute::encode).collect();
            der::element(der::SET, &attributes.concat())
        });
        fields[SUBJECT] = der::element(der::SEQUENCE, &names.collect::<Vec<_>>().concat());
        if self.is_version_1 {
            fields.retain(|field| !matches!(field[0], der::VERSION | der::EXTENSIONS));
        }
        let tbs = der::element(der::SEQUENCE, &fields.concat());
        let signature = signer.sign(&tbs).expect("the authority's key signs");
        let signature = der::element(der::BIT_STRING, &[vec![0], signature].concat());
        der::element(der::SEQUENCE, &[tbs, algorithm, signature].concat())
    }
}

fn extended_key_usages(usage: Usage) -> Vec<ExtendedKeyUsagePurpose> {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    match usage {
        Usage::Both => vec![ServerAuth, ClientAuth],
        Usage::Client => vec![ClientAuth],
        Usage::Server => vec![ServerAuth],
        Usage::Unrelated => vec![CodeSigning],
        Usage::Anything => vec![Any],
        Usage::Unrestricted => vec![],
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH)
        .expect("certificates of tests are younger than 1970")
}

/// A certificate with its key and what leads from it to its root.
#[derive(Clone)]
pub struct Issued {
    certificate: Vec<u8>,
    intermediates: Vec<Vec<u8>>,
    key: Vec<u8>,
    key_form: fn(Vec<u8>) -> PrivateKeyDer<'static>,
}

fn pkcs8(key: Vec<u8>) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key).into()
}

impl Issued {
    /// Somebody else's certificates, leaf first, and the key of the leaf in any form.
    pub fn from_pem(chain: &str, key: &str) -> Self {
        let mut chain = CertificateDer::pem_slice_iter(chain.as_bytes())
            .map(|certificate| certificate.expect("a certificate as PEM").to_vec());
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key as PEM");
        Self {
            certificate: chain.next().expect("a leaf"),
            intermediates: chain.collect(),
            key: key.secret_der().to_vec(),
            key_form: match key {
                PrivateKeyDer::Pkcs1(_) => |key| PrivatePkcs1KeyDer::from(key).into(),
                PrivateKeyDer::Sec1(_) => |key| PrivateSec1KeyDer::from(key).into(),
                _ => pkcs8,
            },
        }
    }

    /// Whether peers of this crate can sign with the key; others are a matter for OpenSSL.
    pub fn can_sign(&self) -> bool {
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&self.private_key()).is_ok()
    }

    /// The leaf.
    pub fn der(&self) -> &[u8] {
        &self.certificate
    }

    /// The key; PKCS#8 unless it came in another form.
    pub fn key_der(&self) -> &[u8] {
        &self.key
    }

    /// The leaf as PEM, without intermediates.
    pub fn leaf_pem(&self) -> String {
        der::pem("CERTIFICATE", &self.certificate)
    }

    /// Leaf and intermediates as PEM, in the order TLS sends them.
    pub fn chain_pem(&self) -> String {
        self.chain()
            .iter()
            .map(|certificate| der::pem("CERTIFICATE", certificate))
            .collect()
    }

    /// The key as PEM.
    pub fn key_pem(&self) -> String {
        let label = match self.private_key() {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        der::pem(label, &self.key)
    }

    /// Leaf and intermediates, in the order TLS sends them.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let whole = std::iter::once(&self.certificate).chain(&self.intermediates);
        whole.map(|certificate| certificate.clone().into()).collect()
    }

    /// Writes `NAME-cert.pem`, `NAME-key.pem` and `NAME-keystore.pem` (both in one).
    pub fn write_to(&self, dir: &Path, name: &str) -> Files {
        let files = Files {
            certificate: dir.join(format!("{name}-cert.pem")),
            key: dir.join(format!("{name}-key.pem")),
            keystore: dir.join(format!("{name}-keystore.pem")),
        };
        write(&files.certificate, &self.chain_pem());
        write(&files.key, &self.key_pem());
        write(&files.keystore, &(self.chain_pem() + &self.key_pem()));
        files
    }

    /// The same certificate with these certificates sent behind it, whatever they are.
    #[must_use]
    pub fn followed_by(mut self, others: &[&[u8]]) -> Self {
        self.intermediates = others.iter().map(|other| other.to_vec()).collect();
        self
    }

    /// The same certificate in the hands of somebody who has another key.
    #[must_use]
    pub fn with_key_of(mut self, other: &Self) -> Self {
        self.key.clone_from(&other.key);
        self.key_form = other.key_form;
        self
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        (self.key_form)(self.key.clone())
    }
}

/// Where [`Issued::write_to`] put things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The chain, leaf first (`--cert`).
    pub certificate: PathBuf,
    /// The key (`--key`).
    pub key: PathBuf,
    /// Chain and key in one file (`--keystore`).
    pub keystore: PathBuf,
}

/// What most tests need, in a private directory that goes away with it: an authority with a
/// server and a client, and another authority with a client of its own.
pub struct Pki {
    dir: TempDir,
    /// Trusted by both ends.
    pub authority: Authority,
    /// Trusted by nobody.
    pub other_authority: Authority,
    /// `CN=server`, good for `localhost`, `127.0.0.1` and `::1`.
    pub server: Issued,
    /// `CN=client,OU=clients` with the names `client.test` and `spiffe://test/client`.
    pub client: Issued,
    /// Like `client`, but from the other authority.
    pub stranger: Issued,
    /// The authority's certificate (`--cacert`).
    pub ca_file: PathBuf,
    /// The other authority's certificate.
    pub other_ca_file: PathBuf,
    /// The files of `server`.
    pub server_files: Files,
    /// The files of `client`.
    pub client_files: Files,
    /// The files of `stranger`.
    pub stranger_files: Files,
}

impl Pki {
    /// Makes everything anew: no test shares keys or files with another.
    #[expect(
        clippy::new_without_default,
        reason = "a default that generates keys and writes files surprises"
    )]
    pub fn new() -> Self {
        let dir = private_dir();
        let (authority, other_authority) = (Authority::new("test root"), Authority::new("other root"));
        let server = authority.issue(&Self::server_request());
        let client = authority.issue(&Self::client_request());
        let stranger = other_authority.issue(&Self::client_request());
        let (ca_file, other_ca_file) = (dir.path().join("ca.pem"), dir.path().join("other-ca.pem"));
        write(&ca_file, &authority.pem());
        write(&other_ca_file, &other_authority.pem());
        Self {
            server_files: server.write_to(dir.path(), "server"),
            client_files: client.write_to(dir.path(), "client"),
            stranger_files: stranger.write_to(dir.path(), "stranger"),
            dir,
            authority,
            other_authority,
            server,
            client,
            stranger,
            ca_file,
            other_ca_file,
        }
    }

    /// What the server's certificate says.
    pub fn server_request() -> Request {
        Request::named("server")
            .dns("localhost")
            .ip(Ipv4Addr::LOCALHOST)
            .ip(Ipv6Addr::LOCALHOST)
    }

    /// What the client's certificate says.
    pub fn client_request() -> Request {
        Request::named("client")
            .organizational_unit("clients")
            .dns("client.test")
            .uri("spiffe://test/client")
    }

    /// The directory, for further files and sockets.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a further file into the directory.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        write(&path, text);
        path
    }
}

/// A directory for one test. Not below `/tmp`: the sandbox of the tested program always
/// allows the temp directory, which would hide a missing rule.
pub fn private_dir() -> TempDir {
    tempfile::Builder::new()
        .prefix("ghostunnel-test-")
        .tempdir_in("/var/tmp")
        .expect("/var/tmp is writable")
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_keep_repeated_and_malformed_attributes() {
        let odd = Attribute {
            oid: oid::ORGANIZATION,
            tag: 0x13,
            value: b"a\nb\0\xff".to_vec(),
        };
        let request = Request::named("x\r\ny")
            .organizational_unit("one")
            .organizational_unit("two")
            .attribute(odd);
        let issued = Authority::new("root").issue(&request);
        for needle in [b"x\r\ny".as_slice(), b"one", b"two", b"a\nb\0\xff"] {
            assert!(
                issued.der().windows(needle.len()).any(|window| window == needle),
                "{needle:?}"
            );
        }
    }

    #[test]
    fn certificates_of_version_1_have_neither_version_nor_extensions() {
        let issued = Authority::new("root").issue(&Request::named("old").dns("old.test").version_1());
        let [tbs, ..] = <[Vec<u8>; 3]>::try_from(der::children(issued.der())).expect("three parts");
        let tags: Vec<u8> = der::children(&tbs).iter().map(|field| field[0]).collect();
        assert_eq!(tags, [0x02, 0x30, 0x30, 0x30, 0x30, 0x30]);
    }

    #[test]
    fn chain_leads_through_every_intermediate() {
        let root = Authority::new("root");
        let first = root.intermediate(&Request::named("first"));
        let second = first.intermediate(&Request::named("second"));
        let lengths = [&root, &first, &second].map(|from| from.issue(&Request::named("leaf")).chain().len());
        assert_eq!(lengths, [1, 2, 3]);
    }

    #[test]
    fn fixture_files_lie_outside_the_temp_directory_and_vanish() {
        let pki = Pki::new();
        let file = pki.server_files.keystore.clone();
        assert!(file.starts_with("/var/tmp"));
        assert_eq!(
            fs::read_to_string(&file)
                .expect("written")
                .matches("BEGIN")
                .count(),
            2
        );
        drop(pki);
        assert!(!file.exists());
    }
}
