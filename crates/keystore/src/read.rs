//! One front door to all formats.

use crate::der::{self, DerError};
use crate::detect::Format;
use crate::encryption::{Budget, ROUNDS};
use crate::entry::{Entry, EntryError};
use crate::jceks::{self, JceksError};
use crate::pem::{Block, blocks};
use crate::pkcs12::{self, Pkcs12Error};

/// Why a keystore cannot be read in its format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeystoreError {
    /// As PKCS#12.
    #[error("unable to read keystore: pkcs12: {0}")]
    Pkcs12(Pkcs12Error),
    /// As JCEKS or JKS.
    #[error("unable to parse keystore: {0}")]
    Jceks(JceksError),
    /// As certificates or PKCS#7.
    #[error("{0}")]
    Der(DerError),
}

impl KeystoreError {
    /// Whether another password may help.
    pub fn is_wrong_password(&self) -> bool {
        match self {
            Self::Pkcs12(error) => error.is_wrong_password(),
            Self::Jceks(error) => error.is_wrong_password(),
            Self::Der(_) => false,
        }
    }
}

/// What a keystore holds, in the order in which it counts. May be nothing. No password is an
/// empty one.
///
/// Costs at most a few seconds, whatever the file asks for.
pub fn read(format: Format, bytes: &[u8], password: &str) -> Result<Vec<Block>, KeystoreError> {
    read_within(format, bytes, password, ROUNDS)
}

/// The same for as much work as is given, in rounds of hashing.
pub fn read_within(
    format: Format,
    bytes: &[u8],
    password: &str,
    rounds: u64,
) -> Result<Vec<Block>, KeystoreError> {
    let budget = Budget::new(rounds);
    match format {
        Format::Pem => Ok(blocks(bytes)),
        Format::Pkcs12 => pkcs12::read(bytes, password, budget).map_err(KeystoreError::Pkcs12),
        Format::Jceks => jceks::read(bytes, password, budget).map_err(KeystoreError::Jceks),
        Format::Der => der::read(bytes).map_err(KeystoreError::Der),
    }
}

/// Makes a chain and its key of what [`read`] found.
///
/// The leaf comes first in PEM and DER. PKCS#12 and Java keystores have no order that all
/// programs respect.
pub fn entry(format: Format, blocks: Vec<Block>) -> Result<Entry, EntryError> {
    match format {
        Format::Pem | Format::Der => Entry::from_blocks(blocks),
        Format::Pkcs12 | Format::Jceks => Entry::in_any_order(blocks),
    }
}
