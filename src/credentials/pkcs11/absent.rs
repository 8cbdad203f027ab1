//! Builds without PKCS#11.

use std::sync::Arc;

use rustls::sign::SigningKey;

use super::{Pkcs11, Pkcs11Error};

/// Refuses. The command line has done so before.
pub(super) fn find_key(_settings: &Pkcs11, _spki: &[u8]) -> Result<Arc<dyn SigningKey>, Pkcs11Error> {
    Err(Pkcs11Error::NotBuilt)
}
