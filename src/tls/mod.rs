//! TLS: configurations built from credentials, verification and authorization inside
//! the handshake, and the byte stream after it.

/// The name a server must prove, as typed (`--override-server-name`, or the host part of
/// `--target`). Built by `cli`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName {
    /// Host name or IP literal, without brackets and zone; case kept.
    pub text: String,
}
