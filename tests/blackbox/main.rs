//! Promises to users, kept by the built binary: real files, sockets and peers.
//!
//! One test binary, so that it links once. `GHOSTUNNEL_BIN` names another binary to test.

mod access;
mod activation;
mod alerts;
mod choice;
mod client;
mod completion;
mod demo;
mod deployments;
mod every_flag;
mod every_refusal;
mod flags;
mod forward_proxy;
mod half_close;
mod hostile;
mod hostile_http;
mod keystores;
mod limits;
mod load;
mod local_users;
mod log_format;
mod log_injection;
mod logging;
mod man_page;
mod memory;
mod metrics;
mod narrowing;
mod notify;
mod operator;
mod pair;
mod pins;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod pprof;
mod prometheus;
mod proxy_protocol;
mod proxy_protocol_in;
mod push;
mod refusals;
mod reload;
mod resumption;
mod sandbox;
mod server;
mod shutdown;
mod sockets;
mod spiffe;
mod status;
mod status_more;
mod support;
mod syslog;
mod target_status;
mod tls_options;
mod vectors;
