//! From the bytes of a certificate, key or keystore file to a chain and its key.
//!
//! The crate does no I/O: callers read files and hand in their bytes. It does not look
//! into certificates either; whether a leaf parses and whether the key belongs to it is
//! judged by its callers. What it must get right is which bytes of a file are certificates,
//! which are the key, that no copy of the key stays behind in freed memory, and that no file
//! costs more time than somebody would wait for.

#![forbid(unsafe_code)]

mod asn1;
mod der;
mod detect;
mod encryption;
mod entry;
mod jceks;
mod pem;
mod pkcs12;
mod pkcs7;
mod read;

pub use der::DerError;
pub use detect::{DetectError, Format};
pub use encryption::EncryptionError;
pub use entry::{Entry, EntryError};
pub use jceks::{JavaKeyError, JceksError, Place};
pub use pem::{Block, blocks, trust_anchors};
pub use pkcs12::Pkcs12Error;
pub use read::{KeystoreError, entry, read, read_within};
