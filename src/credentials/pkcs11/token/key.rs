//! The key as rustls sees it.

use std::fmt;
use std::sync::Arc;

use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::SubjectPublicKeyInfoDer;

use super::super::Pkcs11;
use super::device::Token;
use super::failure::Failure;
use super::pool::Pool;
use super::public_key::PublicKey;
use super::signature::Method;

/// What a key signs to prove that it is the certificate's. No message of TLS begins like this.
const PROOF: &[u8] = b"ghostunnel: is this the key of the certificate?";

/// A key on a token.
pub(super) struct TokenKey {
    pool: Arc<Pool<Token>>,
    schemes: Vec<SignatureScheme>,
}

impl TokenKey {
    /// Finds the private half of this key, and lets it sign.
    pub(super) fn find(settings: Pkcs11, public_key: PublicKey) -> Result<Self, Failure> {
        let pool = Arc::new(Pool::new(Token::load(settings, public_key)?));
        // The first session tells whether there is a key at all.
        let wants_pin = pool.run(|session| Ok(session.wants_pin()))?;
        let schemes = schemes(pool.device(), wants_pin);
        let scheme = *schemes.first().ok_or(Failure::NoMechanism)?;
        let signature = sign(&pool, scheme, PROOF)?;
        if !pool.device().public_key().verifies(scheme, PROOF, &signature) {
            return Err(Failure::OtherKey);
        }
        Ok(Self { pool, schemes })
    }
}

/// What key and token can do. A token that does not tell is taken to do everything.
fn schemes(token: &Token, wants_pin: bool) -> Vec<SignatureScheme> {
    let mechanisms = token.mechanisms();
    let is_possible = |scheme: &SignatureScheme| {
        let method = Method::of(*scheme);
        mechanisms.is_empty() || method.is_some_and(|method| method.is_among(&mechanisms, wants_pin))
    };
    let all = token.public_key().schemes().iter().copied();
    all.filter(is_possible).collect()
}

fn sign(pool: &Pool<Token>, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, Failure> {
    let method = Method::of(scheme).ok_or(Failure::NoMechanism)?;
    pool.run(|session| pool.device().sign(session, method, message))
}

impl SigningKey for TokenKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = self.schemes.iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(TokenSigner {
            pool: Arc::clone(&self.pool),
            scheme: *scheme,
        }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.pool.device().public_key().spki())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.pool.device().public_key().algorithm()
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("schemes", &self.schemes)
            .finish_non_exhaustive()
    }
}

struct TokenSigner {
    pool: Arc<Pool<Token>>,
    scheme: SignatureScheme,
}

impl Signer for TokenSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        sign(&self.pool, self.scheme, message).map_err(|failure| Error::General(failure.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSigner")
            .field("scheme", &self.scheme)
            .finish_non_exhaustive()
    }
}
