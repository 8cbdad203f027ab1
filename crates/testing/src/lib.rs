//! Support for tests: authorities and certificates, peers on both sides of a tunnel,
//! and a handle on the running binary.
//!
//! It knows the wire and the command line, never the library, so that one suite can be
//! run against any binary that claims to be Ghostunnel (`GHOSTUNNEL_BIN`). Everything
//! here panics with a clear text instead of returning errors the test would unwrap, and
//! every wait ends at [`DEADLINE`].

mod backend;
mod ca;
mod der;
mod descriptors;
mod eventually;
mod forge;
mod hello;
mod hsm;
mod http;
mod inside;
mod openssl;
mod ports;
mod process;
mod stream;
mod tls;
mod workload_api;

pub use backend::{Backend, Behaviour, Connection};
pub use ca::{Attribute, Authority, Files, Issued, KeyKind, Pki, Request, Usage, oid, private_dir};
pub use descriptors::{
    Memory, Thread, descriptor_limits, descriptors, free_descriptors, memory, raise_descriptor_limit,
    sockets, threads,
};
pub use eventually::{DEADLINE, eventually, eventually_some, within};
pub use forge::{Content, Forger};
pub use hello::ClientHello;
pub use hsm::{PIN, SoftHsm, Wrapper};
pub use http::{Endpoint, Response};
pub use inside::{Attempt, Attempted, attempt};
pub use openssl::{curl, openssl, require_tool, s_client, s_server, skip};
pub use ports::{ReservedPort, is_listening, listening_ports};
pub use process::{Command, Exit, Line, Output, Process, ghostunnel};
pub use stream::{Address, End, Plain, read_to_end};
pub use tls::{ClientCertificates, TlsClient, TlsFacts, TlsPeer, TlsReceiver, TlsSender, TlsServer, Version};
pub use workload_api::{Agent, Answer, Identities};

/// Signals a test may send, so that it needs no crate of its own for their names.
pub use rustix::process::Signal;
/// The alerts a [`TlsPeer`] may receive, and key exchange groups for [`TlsClient::groups`].
pub use rustls::{AlertDescription, NamedGroup};
