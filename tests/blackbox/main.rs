//! Promises to users, kept by the built binary: real files, sockets and peers.
//!
//! One test binary, so that it links once. `GHOSTUNNEL_BIN` names another binary to test.

mod half_close;
mod limits;
mod pair;
mod support;
