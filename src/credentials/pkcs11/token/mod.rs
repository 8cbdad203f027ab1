//! Keys on tokens, through the PKCS#11 module that the operator names.
//!
//! The module is code of somebody else in this process. It is loaded inside the sandbox, once,
//! and never unloaded: a thread may be in it at any time.

mod device;
mod failure;
mod key;
mod pool;
mod public_key;
mod signature;

use std::sync::Arc;

use rustls::sign::SigningKey;

use super::{Pkcs11, Pkcs11Error};
use key::TokenKey;
use public_key::PublicKey;

/// Finds the key for this SubjectPublicKeyInfo on the token, and has it sign once, so that a key
/// that cannot sign stops the start. Loads the module; blocks as long as the token takes.
pub(super) fn find_key(settings: &Pkcs11, spki: &[u8]) -> Result<Arc<dyn SigningKey>, Pkcs11Error> {
    let key = PublicKey::of(spki).and_then(|public_key| TokenKey::find(settings.clone(), public_key));
    let key = key.map_err(|failure| Pkcs11Error::Key {
        module: settings.module.clone(),
        token: settings.token_label.clone(),
        reason: failure.to_string(),
        remedy: failure.remedy(),
    })?;
    Ok(Arc::new(key))
}
