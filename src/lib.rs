//! A TLS proxy with mutual authentication, laid out in the order in which a
//! connection travels through it.
//!
//! `app` is the composition root: it turns the command line (`cli`) into a
//! [`config::Config`], opens sockets (`net`), locks the process down
//! (`sandbox`), reads certificates (`credentials`), and then hands accepted
//! connections to `proxy`, which lets `tls` do the handshake, `authorization`
//! decide who may enter, and `net` reach the backend. `lifecycle`, `status`,
//! `metrics` and `logging` serve the operator. Which room may use which is in
//! ARCHITECTURE.md and checked by `tests/architecture.rs`.
//!
//! The library exists for the binary, tests, benches and fuzzing; it promises no
//! interface to others.

pub mod app;
pub mod cli;
pub mod config;

pub mod proxy;
pub mod status;

pub mod tls;

pub mod credentials;

pub mod metrics;

pub mod authorization;
pub mod lifecycle;
pub mod logging;
pub mod net;
pub mod sandbox;

pub use app::run;
