//! What an answer of the agent means: whole credentials, or a reason to keep the old ones.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use ghostunnel_pki::{
    Certificate, OwnSvidError, ParseError, SpiffeId, SpiffeIdError, TrustAnchors, TrustBundles, TrustDomain,
    check_own_svid, parse_concatenated,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::message::{Response, Svid, WireError};
use crate::credentials::{Credentials, KeyPairError, OwnIdentity, Warning};

/// Why an answer can't be used. None of it is put in force.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// It is no message of this protocol.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// It holds no identity.
    #[error("no SVIDs in response")]
    NoSvids,
    /// A name in it is no SPIFFE ID and no trust domain.
    #[error("malformed SPIFFE ID {text:?}: {error}")]
    Id {
        /// The name.
        text: String,
        /// What is wrong with it.
        error: SpiffeIdError,
    },
    /// The certificates of an identity can't be parsed.
    #[error("X509-SVID of {id}: {error}")]
    Chain {
        /// Whose.
        id: SpiffeId,
        /// What is wrong.
        error: ParseError,
    },
    /// The certificates of an identity are no SVID.
    #[error("X509-SVID of {id}: {error}")]
    Svid {
        /// Whose.
        id: SpiffeId,
        /// What is wrong.
        error: OwnSvidError,
    },
    /// An identity's certificate is that of another.
    #[error("X509-SVID of {id}: its certificate is that of {found}")]
    OtherId {
        /// Whose it should be.
        id: SpiffeId,
        /// Whose it is.
        found: SpiffeId,
    },
    /// An identity's key is not the one of its certificate.
    #[error("X509-SVID of {id}: {error}")]
    Key {
        /// Whose.
        id: SpiffeId,
        /// What is wrong.
        error: KeyPairError,
    },
    /// The authorities of a trust domain can't be parsed.
    #[error("X.509 bundle of trust domain {domain}: {error}")]
    Bundle {
        /// Whose.
        domain: TrustDomain,
        /// What is wrong.
        error: ParseError,
    },
    /// A trust domain has no authorities.
    #[error("empty X.509 bundle of trust domain {0}")]
    EmptyBundle(TrustDomain),
}

/// An answer that can be put in force.
#[derive(Debug)]
pub struct Update {
    pub(super) id: SpiffeId,
    pub(super) identity: OwnIdentity,
    pub(super) leaf: Certificate,
    pub(super) bundles: TrustBundles,
}

impl Update {
    /// Reads an answer. Every SVID and every bundle in it must be good, although only the first
    /// SVID is used: an agent that is wrong about one may be wrong about all.
    pub fn parse(bytes: &[u8]) -> Result<Self, ResponseError> {
        let response = Response::decode(bytes)?;
        let mut hints = HashSet::new();
        let mut first = None;
        for svid in &response.svids {
            // Of several with one hint the first counts.
            if svid.hint.is_empty() || hints.insert(svid.hint) {
                let own = own_svid(svid)?;
                first.get_or_insert(own);
            }
        }
        let (id, (identity, leaf)) = first.ok_or(ResponseError::NoSvids)?;
        Ok(Self {
            id,
            identity,
            leaf,
            bundles: bundles(&response)?,
        })
    }

    /// As credentials of a tunnel. Peers are shown the SVID where `is_presented`.
    pub(super) fn into_credentials(self, is_presented: bool, generation: u64) -> Credentials {
        let warnings = Warning::on_validity(&self.identity, &self.leaf, SystemTime::now());
        Credentials {
            identity: Some(Arc::new(self.identity)),
            is_presented,
            anchors: Arc::default(),
            bundles: Some(Arc::new(self.bundles)),
            warnings: warnings.into_iter().collect(),
            generation,
        }
    }

    /// Who the workload is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Whom it trusts.
    pub fn bundles(&self) -> &TrustBundles {
        &self.bundles
    }
}

fn own_svid(svid: &Svid<'_>) -> Result<(SpiffeId, (OwnIdentity, Certificate)), ResponseError> {
    let id = SpiffeId::parse(svid.spiffe_id).map_err(malformed(svid.spiffe_id))?;
    let chain = match parse_concatenated(svid.chain) {
        Ok(chain) => chain,
        Err(error) => return Err(ResponseError::Chain { id, error }),
    };
    match check_own_svid(&chain) {
        Ok(found) if found == id => {}
        Ok(found) => return Err(ResponseError::OtherId { id, found }),
        Err(error) => return Err(ResponseError::Svid { id, error }),
    }
    let chain = chain.iter().map(|one| CertificateDer::from(one.der().to_vec()));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.key));
    match OwnIdentity::from_der(chain.collect(), &key) {
        Ok(identity) => Ok((id, identity)),
        Err(error) => Err(ResponseError::Key { id, error }),
    }
}

/// The authorities of all trust domains; of two bundles for one domain the last one counts.
fn bundles(response: &Response<'_>) -> Result<TrustBundles, ResponseError> {
    let own = response.svids.iter().map(|svid| (svid.spiffe_id, svid.bundle));
    let federated = response.federated.iter().copied();
    let mut bundles = TrustBundles::default();
    for (name, der) in own.chain(federated) {
        let domain = TrustDomain::parse(name).map_err(malformed(name))?;
        let certificates = match parse_concatenated(der) {
            Ok(certificates) if certificates.is_empty() => return Err(ResponseError::EmptyBundle(domain)),
            Ok(certificates) => certificates,
            Err(error) => return Err(ResponseError::Bundle { domain, error }),
        };
        bundles.insert(domain, TrustAnchors::new(certificates));
    }
    Ok(bundles)
}

fn malformed(text: &str) -> impl FnOnce(SpiffeIdError) -> ResponseError {
    let text = text.to_owned();
    |error| ResponseError::Id { text, error }
}

#[cfg(test)]
mod tests {
    use ghostunnel_testing::{Authority, Identities, Issued, Request};

    use super::*;

    const ID: &str = "spiffe://one.test/a";

    fn issued(authority: &Authority, request: Request) -> Issued {
        authority.issue(&request)
    }

    fn refusal(answer: &Identities) -> String {
        Update::parse(&answer.encode()).expect_err("refused").to_string()
    }

    #[test]
    fn an_answer_has_the_first_identity_and_all_bundles() {
        let [one, two, three] = ["one", "two", "three"].map(Authority::new);
        let middle = one.intermediate(&Request::named("middle"));
        let first = issued(&middle, Request::unnamed().uri(ID));
        let second = issued(&two, Request::unnamed().uri("spiffe://two.test/b"));
        let answer = Identities::of(ID, &first, &one)
            .and("spiffe://two.test/b", &second, &two)
            .federated("spiffe://three.test", &three)
            .federated("one.test", &two);
        let update = Update::parse(&answer.encode()).expect("good");
        assert_eq!(update.id().text(), ID);
        assert_eq!(update.identity.chain(), first.chain());
        let bundles = update.bundles();
        let domains: Vec<&str> = bundles.trust_domains().map(TrustDomain::name).collect();
        assert_eq!(domains, ["one.test", "three.test", "two.test"]);
        // Of two bundles for one domain the last one counts.
        for (domain, authority) in [("one.test", &two), ("two.test", &two), ("three.test", &three)] {
            let domain = TrustDomain::parse(domain).expect("a trust domain");
            let anchors = bundles.of(&domain).expect("there");
            let [anchor] = anchors.certificates() else {
                panic!("one authority");
            };
            assert_eq!(anchor.der(), authority.der(), "{domain}");
        }
    }

    #[test]
    fn of_several_identities_with_one_hint_the_first_is_looked_at() {
        let one = Authority::new("one");
        let good = issued(&one, Request::unnamed().uri(ID));
        let bad = issued(&one, Request::named("no SVID"));
        let twice = |hint| {
            Identities::default()
                .hinted(hint, ID, &good, &one)
                .hinted(hint, ID, &bad, &one)
        };
        assert!(Update::parse(&twice("internal").encode()).is_ok());
        assert!(Update::parse(&twice("").encode()).is_err());
    }

    #[test]
    fn one_bad_thing_spoils_the_whole_answer() {
        let (one, two) = (Authority::new("one"), Authority::new("two"));
        let good = issued(&one, Request::unnamed().uri(ID));
        let other = issued(&one, Request::unnamed().uri("spiffe://one.test/b"));
        let svid = |svid: &Issued| Identities::of(ID, &good, &one).and(ID, svid, &one);
        let with = |request: Request| svid(&issued(&one, request));
        for (answer, expected) in [
            (Identities::default(), "no SVIDs in response"),
            (
                Identities::default().federated("two.test", &two),
                "no SVIDs in response",
            ),
            (
                Identities::of("one.test/a", &good, &one),
                "malformed SPIFFE ID \"one.test/a\": scheme is missing or invalid",
            ),
            (
                Identities::of(ID, &good, &one).federated("Two", &two),
                "malformed SPIFFE ID \"Two\": trust domain characters",
            ),
            (
                svid(&other),
                "X509-SVID of spiffe://one.test/a: its certificate is that of spiffe://one.test/b",
            ),
            (
                with(Request::unnamed().uri(ID).uri("spiffe://one.test/b")),
                "cannot get leaf certificate SPIFFE ID: certificate contains more than one URI SAN",
            ),
            (
                with(Request::unnamed().dns("one.test")),
                "certificate contains no URI SAN",
            ),
            (with(Request::unnamed().uri("spiffe://one.test")), "has no path"),
            (
                with(Request::unnamed().uri(ID).authority()),
                "x509svid: leaf certificate with CA flag set to true",
            ),
            (
                svid(&good.clone().followed_by(&[other.der()])),
                "signing certificate without CA flag",
            ),
            (
                svid(&good.clone().with_key_of(&other)),
                "tls: private key does not match public key",
            ),
            (
                svid(&good.clone().followed_by(&[b"no certificate"])),
                "x509: malformed certificate",
            ),
        ] {
            let error = refusal(&answer);
            assert!(error.contains(expected), "{error}");
        }
    }
}
