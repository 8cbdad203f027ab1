//! Whether a peer may enter: its path through `pki`, then its identity through the access
//! rules, all before the handshake is over, so that a refusal is an alert and no backend
//! ever hears of the peer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ghostunnel_pki::{
    self as pki, PathErrorKind, PathRequest, SvidError, TrustAnchors, TrustBundles, Usage, ValidatedPath,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName as RustlsName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureScheme,
};

use super::evidence::Evidence;
use super::options;
use super::tickets::Proof;
use crate::authorization::{self, Admission, Decision, Rules};
use crate::metrics::HandshakeFailure;

/// What an admitted peer proved to be; `None` inside [`super::Established`] when no
/// certificate was asked for.
pub type PeerIdentity = Arc<pki::Identity>;

/// Filled in by the callbacks of one connection, read when its handshake has ended.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    outcome: Mutex<Option<Outcome>>,
    /// Whoever the ticket belongs to that was opened. Means something only if rustls then went
    /// on with that session.
    resumed: Mutex<Option<Admitted>>,
    /// What the next ticket will carry.
    proof: Mutex<Option<Proof>>,
    server_name: Mutex<Option<String>>,
}

type Admitted = (PeerIdentity, Admission);
pub(super) type Outcome = Result<Admitted, Refusal>;

/// Why the verifier refused a peer.
#[derive(Debug)]
pub(super) struct Refusal {
    /// In the words of the log.
    pub(super) text: String,
    /// For log and metrics.
    pub(super) reason: HandshakeFailure,
    /// Whether the certificate is none.
    pub(super) is_unparsable: bool,
    /// Who was refused, if that could be read.
    pub(super) evidence: Option<Box<Evidence>>,
}

impl Verdict {
    /// Takes the peer, if the verifier was asked and admitted it.
    pub(super) fn take_admitted(&self) -> Option<Admitted> {
        self.take_outcome()?.ok()
    }

    /// Takes the owner of the session that was resumed, whose leaf must be this one.
    pub(super) fn take_resumed(&self, leaf: &[u8]) -> Option<Admitted> {
        let resumed = lock(&self.resumed).take();
        resumed.filter(|(peer, _)| peer.leaf().der() == leaf)
    }

    pub(super) fn record_resumed(&self, admitted: Admitted, proof: Proof) {
        *lock(&self.resumed) = Some(admitted);
        *lock(&self.proof) = Some(proof);
    }

    pub(super) fn proof(&self) -> Option<Proof> {
        lock(&self.proof).clone()
    }

    /// Takes the reason for which the verifier refused the peer.
    pub(super) fn take_refusal(&self) -> Option<Refusal> {
        self.take_outcome()?.err()
    }

    /// Takes what the verifier said, if it was asked.
    pub(super) fn take_outcome(&self) -> Option<Outcome> {
        lock(&self.outcome).take()
    }

    /// Takes the name the client asked for, in lower case.
    pub(super) fn take_server_name(&self) -> Option<String> {
        lock(&self.server_name).take()
    }

    pub(super) fn record_server_name(&self, name: &str) {
        *lock(&self.server_name) = Some(name.to_owned());
    }

    fn record(&self, outcome: Outcome) {
        *lock(&self.outcome) = Some(outcome);
    }

    fn record_proof(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], now: UnixTime) {
        let chain = std::iter::once(leaf).chain(others);
        *lock(&self.proof) = Some(Proof {
            chain: chain
                .map(|certificate| certificate.clone().into_owned())
                .collect(),
            given_at: now,
        });
    }
}

fn lock<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Conditions a peer's certificate must meet, shared by all connections of one
/// configuration.
#[derive(Debug)]
pub(super) struct Conditions {
    pub(super) anchors: Arc<TrustAnchors>,
    /// With the Workload API: the peer's trust domain says which anchors count, and its SPIFFE
    /// ID takes the place of usage and server name.
    pub(super) bundles: Option<Arc<TrustBundles>>,
    pub(super) rules: Rules,
    pub(super) usage: Usage,
    /// The name a server must prove; `None` where peers are clients.
    pub(super) server_name: Option<String>,
}

/// The most bytes of certificates, a client's own and those of its authorities together.
const LARGEST_CHAIN: usize = 0xffff;

/// Why a chain was refused, with the error that makes rustls send the alert that Ghostunnel
/// 1.11.1 sends.
pub(super) struct Refused {
    refusal: Refusal,
    alert: CertificateError,
}

impl Conditions {
    /// Whether whoever owns this chain may enter at this moment: the one answer for full and
    /// resumed handshakes.
    pub(super) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Admitted, Refused> {
        let presented = std::iter::once(leaf)
            .chain(others)
            .map(|der| pki::Certificate::parse(der))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Refused::malformed(self.peer_word(), &error))?;
        let leaf = self.trusted_leaf(&presented, now)?;
        let identity = Arc::new(pki::Identity::of(&leaf));
        match self.rules.authorize(&identity) {
            Decision::Admitted(admission) => Ok((identity, admission)),
            Decision::Refused(refusal) => Err(self.refused(&identity, &refusal)),
        }
    }

    /// The leaf of a path that holds, or of any chain where rules know peers by their keys.
    fn trusted_leaf(
        &self,
        presented: &[pki::Certificate],
        now: UnixTime,
    ) -> Result<pki::Certificate, Refused> {
        if self.rules.replace_path()
            && let Some(leaf) = presented.first()
        {
            return Ok(leaf.clone());
        }
        let path = match &self.bundles {
            None => self.validate(presented, now)?,
            Some(bundles) => validate_svid(presented, bundles, now)?,
        };
        self.check_size(presented, path.chain())?;
        Ok(path.leaf().clone())
    }

    /// Ghostunnel 1.11.1 put a client's certificates and authorities into its session ticket,
    /// and failed the handshake where that became too long. Nobody relies on longer ones, so
    /// whoever hopes for slow work on them stays out here as well.
    fn check_size(&self, presented: &[pki::Certificate], path: &[pki::Certificate]) -> Result<(), Refused> {
        let authorities = path.iter().skip(1);
        let size: usize = presented
            .iter()
            .chain(authorities)
            .map(|one| one.der().len())
            .sum();
        if self.usage != Usage::ClientAuth || size <= LARGEST_CHAIN {
            return Ok(());
        }
        Err(Refused {
            refusal: Refusal {
                is_unparsable: false,
                text: format!(
                    "tls: failed to verify certificate: client and authorities have {size} bytes of certificates, \
                     more than {LARGEST_CHAIN}"
                ),
                reason: HandshakeFailure::InvalidChain,
                evidence: presented.first().map(|leaf| Box::new(Evidence::of(leaf))),
            },
            alert: CertificateError::BadEncoding,
        })
    }

    fn refused(&self, identity: &pki::Identity, refusal: &authorization::Refusal) -> Refused {
        let rules = refusal.compared_with(&self.rules);
        Refused {
            refusal: Refusal {
                is_unparsable: false,
                text: refusal.to_string(),
                reason: match refusal {
                    authorization::Refusal::NoMatch => HandshakeFailure::NotAllowed,
                    authorization::Refusal::WrongPin => HandshakeFailure::WrongPin,
                    authorization::Refusal::Denied { .. } => HandshakeFailure::Denied,
                    authorization::Refusal::Unmet { .. } => HandshakeFailure::RequirementUnmet,
                },
                evidence: Some(Box::new(Evidence::of(identity.leaf()).compared_with(rules))),
            },
            alert: CertificateError::BadEncoding,
        }
    }

    fn validate(&self, presented: &[pki::Certificate], now: UnixTime) -> Result<ValidatedPath, Refused> {
        pki::validate(&PathRequest {
            presented,
            anchors: &self.anchors,
            time: now,
            usage: self.usage,
            server_name: self.server_name.as_deref(),
        })
        .map_err(|error| Refused::no_path(presented.first(), &error))
    }

    fn peer_word(&self) -> &'static str {
        if self.server_name.is_some() {
            "server"
        } else {
            "client"
        }
    }
}

impl Refused {
    fn malformed(peer: &str, error: &pki::ParseError) -> Self {
        Self {
            refusal: Refusal {
                is_unparsable: true,
                text: format!("tls: failed to parse {peer} certificate: {error}"),
                reason: HandshakeFailure::MalformedCertificate,
                evidence: None,
            },
            alert: CertificateError::BadEncoding,
        }
    }

    fn no_path(leaf: Option<&pki::Certificate>, error: &pki::PathError) -> Self {
        Self {
            refusal: Refusal {
                is_unparsable: false,
                text: format!("tls: failed to verify certificate: {error}"),
                reason: reason_for(error.kind()),
                evidence: leaf.map(|leaf| Box::new(Evidence::of(leaf))),
            },
            alert: alert_for(error.kind()),
        }
    }
}

/// Whatever is wrong with an SVID, the alert is bad_certificate, as Ghostunnel 1.11.1 sent.
fn validate_svid(
    presented: &[pki::Certificate],
    bundles: &TrustBundles,
    now: UnixTime,
) -> Result<ValidatedPath, Refused> {
    let validated = pki::validate_svid(presented, bundles, now).map(|(_, path)| path);
    validated.map_err(|error| Refused {
        alert: CertificateError::BadEncoding,
        refusal: Refusal {
            is_unparsable: false,
            reason: match &error {
                SvidError::UnknownTrustDomain(_) => HandshakeFailure::UnknownAuthority,
                SvidError::Path(error) => reason_for(error.kind()),
                SvidError::Id(_) => HandshakeFailure::InvalidChain,
                SvidError::LeafIsAuthority
                | SvidError::LeafSignsCertificates
                | SvidError::LeafSignsRevocationLists => HandshakeFailure::BadUsage,
            },
            text: error.to_string(),
            evidence: presented.first().map(|leaf| Box::new(Evidence::of(leaf))),
        },
    })
}

fn reason_for(kind: PathErrorKind) -> HandshakeFailure {
    match kind {
        PathErrorKind::UnknownAuthority => HandshakeFailure::UnknownAuthority,
        PathErrorKind::Expired => HandshakeFailure::Expired,
        PathErrorKind::NotYetValid => HandshakeFailure::NotYetValid,
        PathErrorKind::NameMismatch => HandshakeFailure::WrongName,
        PathErrorKind::IncompatibleUsage => HandshakeFailure::BadUsage,
        PathErrorKind::NameConstraint => HandshakeFailure::NameConstraint,
        PathErrorKind::Other => HandshakeFailure::InvalidChain,
    }
}

/// unknown_ca and certificate_expired where these are the reason, bad_certificate (which
/// rustls sends for `BadEncoding`) for everything else.
fn alert_for(kind: PathErrorKind) -> CertificateError {
    match kind {
        PathErrorKind::UnknownAuthority => CertificateError::UnknownIssuer,
        PathErrorKind::Expired | PathErrorKind::NotYetValid => CertificateError::Expired,
        PathErrorKind::NameMismatch
        | PathErrorKind::IncompatibleUsage
        | PathErrorKind::NameConstraint
        | PathErrorKind::Other => CertificateError::BadEncoding,
    }
}

/// Verifies the clients of one connection to a server tunnel.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub(super) conditions: Arc<Conditions>,
    pub(super) hints: Arc<[DistinguishedName]>,
    pub(super) verdict: Arc<Verdict>,
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.conditions.judge(end_entity, intermediates, now) {
            Ok(admitted) => {
                self.verdict.record(Ok(admitted));
                self.verdict.record_proof(end_entity, intermediates, now);
                Ok(ClientCertVerified::assertion())
            }
            Err(refused) => {
                self.verdict.record(Err(refused.refusal));
                Err(Error::InvalidCertificate(refused.alert))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        options::SIGNATURE_SCHEMES.to_vec()
    }
}

/// Verifies the server of one connection of a client tunnel. Whatever the reason of a
/// refusal, the server is told bad_certificate, as Ghostunnel 1.11.1 does.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub(super) conditions: Arc<Conditions>,
    pub(super) verdict: Arc<Verdict>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &RustlsName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.conditions.judge(end_entity, intermediates, now) {
            Ok(admitted) => {
                self.verdict.record(Ok(admitted));
                Ok(ServerCertVerified::assertion())
            }
            Err(refused) => {
                self.verdict.record(Err(refused.refusal));
                Err(Error::InvalidCertificate(CertificateError::BadEncoding))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        options::SIGNATURE_SCHEMES.to_vec()
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    options::provider().signature_verification_algorithms
}

// Both checks take the public key out of our own parse of the certificate: rustls' ready-made
// helpers parse it again, and refuse the X.509 v1 certificates that many private CAs issue.

fn public_key(cert: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    let parsed = pki::Certificate::parse(cert).map_err(|_| CertificateError::BadEncoding)?;
    Ok(SubjectPublicKeyInfoDer::from(
        parsed.subject_public_key_info().to_vec(),
    ))
}

fn verify_tls13_signature(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    rustls::crypto::verify_tls13_signature_with_raw_key(message, &public_key(cert)?, dss, &algorithms())
}

fn verify_tls12_signature(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let spki = public_key(cert)?;
    let key = webpki::RawPublicKeyEntity::try_from(&spki).map_err(|_| CertificateError::BadEncoding)?;
    let algorithms = algorithms();
    // One scheme of TLS 1.2 stands for several curves (RFC 5246, section 7.4.1.4.1): the
    // first that fits the key decides.
    let candidates = algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == dss.scheme)
        .map(|(_, candidates)| *candidates)
        .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    for algorithm in candidates {
        match key.verify_signature(*algorithm, message, dss.signature()) {
            Ok(()) => return Ok(HandshakeSignatureValid::assertion()),
            Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => continue,
            Err(_) => break,
        }
    }
    Err(CertificateError::BadSignature.into())
}
