//! Promises to users, kept by the built binary: real files, sockets and peers.
//!
//! One test binary, so that it links once. `GHOSTUNNEL_BIN` names another binary to test.

mod access;
mod client;
mod server;
mod half_close;
mod pair;
mod load;
mod logging;
mod metrics;
mod operator;
mod reload;
mod shutdown;
mod status;
mod deployments;
mod local_users;
mod sandbox;
mod demo;
mod flags;
mod support;
