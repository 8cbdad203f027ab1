//! Promises to users, kept by the built binary: real files, sockets and peers.
//!
//! One test binary, so that it links once. `GHOSTUNNEL_BIN` names another binary to test.

mod demo;
mod flags;
mod support;
