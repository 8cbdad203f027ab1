//! Buffers that belong to a worker, not to a connection.
//!
//! A connection that waits holds no buffer: it borrows the worker's for the moment between
//! a readable socket and the write that follows. What an idle connection costs is thereby
//! its keys and its sockets, and bulk transfer still moves 256 KiB at a time.

use std::cell::RefCell;

use crate::tls::SEAL_OVERHEAD;

/// The most that is read at a time. Fewer and larger system calls decide the cost of bulk
/// transfer, not the cipher (docs/benchmarks.md).
pub(super) const LARGEST_READ: usize = 256 * 1024;

/// Room in front of a read for what an earlier one left: an incomplete record, or what a
/// peer sent behind its handshake.
const LARGEST_LEFTOVER: usize = 64 * 1024;

/// One worker's buffers.
pub(super) struct Scratch {
    /// Bytes as read, records or plaintext: at least [`LARGEST_READ`] behind any leftover.
    pub(super) input: Vec<u8>,
    /// Plaintext of the records opened in this turn.
    pub(super) plain: Vec<u8>,
    /// Records sealed in this turn.
    pub(super) sealed: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; LARGEST_READ + LARGEST_LEFTOVER],
        plain: Vec::with_capacity(LARGEST_READ + LARGEST_LEFTOVER),
        sealed: vec![0; LARGEST_READ + SEAL_OVERHEAD],
    });
}

/// Lends the worker's buffers for the length of `work`, which can't await.
pub(super) fn with<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with(|scratch| work(&mut scratch.borrow_mut()))
}
