//! Sockets: addresses, listeners, dialling, and one stream type over TCP and UNIX.

mod address;

pub use address::{AddressError, HostPort, ListenAddr, Reach, TargetAddr, UnixName};
