//! TLS: configurations built from credentials, verification and authorization inside
//! the handshake, and the record layer after it.
//!
//! A handshake is a plain state machine over bytes ([`Handshake`]): no socket, no await, so
//! that a step of it can run on any thread. It ends in [`Established`], which carries the
//! proof that the peer was admitted; nothing else in this crate can make one. This room does
//! not read or write sockets; `proxy` does.

mod alert;
mod choice;
mod client;
mod evidence;
mod handshake;
mod hello;
mod options;
mod outgoing;
mod p521;
mod server;
mod session;
#[cfg(test)]
pub(crate) mod test_support;
mod tickets;
mod verify;

use crate::authorization::Rules;

pub use client::ClientConfigs;
pub use evidence::Evidence;
pub use handshake::{Established, Facts, Handshake, HandshakeError, Progress};
pub use options::{CipherGroups, CipherGroupsError, Newest, Options, UnsupportedVersion};
pub use outgoing::Outgoing;
pub use server::{NotServable, ServerConfigs, status_config};
pub use session::{CLOSE_NOTIFY_ROOM, Opened, SEAL_OVERHEAD, Session, SessionError};
pub use verify::PeerIdentity;

/// The name a server must prove, as typed (`--override-server-name`, or the host part of
/// `--target`). Built by `cli`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName {
    /// Host name or IP literal, without brackets and zone; case kept.
    pub text: String,
}

/// What a server tunnel asks of its peers.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each tunnel, and none is moved while it serves"
)]
#[derive(Debug, Clone)]
pub enum ClientAuth {
    /// A certificate that chains to the trust bundle and that these rules admit.
    Required(Rules),
    /// `--disable-authentication`: no certificate is even requested.
    Disabled,
}
