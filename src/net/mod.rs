//! Sockets: addresses, listeners, dialling, and one stream type over TCP and UNIX.
//!
//! Everything here speaks plain bytes. Listeners are bound and opened without a
//! runtime, so that `app` can do it while the process has one thread; accepting and
//! dialling belong to the runtime of the caller. Texts of errors are an interface:
//! they keep the phrases that operators of Ghostunnel 1.11.1 match on.

mod activation;
mod address;
mod dial;
mod error_text;
mod forward_proxy;
mod http_url;
mod listen;
mod resolve;
mod socket_file;
mod stale_socket;
mod stream;
mod url;

pub use activation::{ActivationError, Inherited};
pub use address::{AddressError, HostPort, Kind, ListenAddr, ListenKind, Reach, TargetAddr, UnixName};
pub use dial::{Destination, DialError, dial};
pub use forward_proxy::{ForwardProxy, ProxyError, SocksError, TalkError, UnknownScheme};
pub use http_url::{HttpUrl, HttpUrlError};
pub use listen::{Accepted, Acceptor, Bound, ListenError, Listener};
pub use resolve::{LookupError, Resolver, resolve_once};
pub use stale_socket::Obstacle;
pub use stream::{Label, Operation, Stream};
pub use url::{Login, Url, UrlError};
