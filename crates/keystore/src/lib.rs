//! From the bytes of a certificate, key or keystore file to a chain and its key.
//!
//! The crate does no I/O: callers read files and hand in their bytes. It does not look
//! into certificates either; whether a leaf parses and whether the key belongs to it is
//! judged by its callers. What it must get right is which bytes of a file are certificates,
//! which are the key, and that no copy of the key stays behind in freed memory.

#![forbid(unsafe_code)]

mod detect;
mod entry;
mod pem;

pub use detect::{DetectError, Format};
pub use entry::{Entry, EntryError};
pub use pem::{Block, blocks, trust_anchors};
