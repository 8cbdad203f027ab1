//! Metrics: declared once in `registry`, rendered by one module per format.
//!
//! The proxy tells the registry what happens; the status port renders it on request, and
//! reporters send it to receivers that `app` has ways to.

mod complaints;
mod graphite;
mod http_post;
mod instruments;
pub mod json;
mod process;
pub mod prometheus;
mod push;
mod reasons;
mod registry;
mod reservoir;

use std::net::SocketAddr;
use std::time::Duration;

use crate::net::HttpUrl;

pub use http_post::{Connect, Wire, describe};
pub use instruments::{Distribution, Reason, Timing};
pub use push::{Content, GRAPHITE_INTERVAL, LAST_ATTEMPT, Reporter};
pub use reasons::{DialFailure, HandshakeFailure, HandshakeKind, ReloadResult};
pub use registry::{
    CertificateExpiry, Declaration, Family, Gauges, Point, Points, Registry, Sample, Unit, Value,
};
pub use reservoir::Summary;

/// Names of metrics, and who gets them without asking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `--metrics-prefix`, default `ghostunnel`; may be empty.
    pub prefix: String,
    /// `--metrics-graphite`, resolved.
    pub graphite: Option<SocketAddr>,
    /// `--metrics-url`.
    pub post: Option<HttpUrl>,
    /// `--metrics-interval`: how often to post; `None` (zero or negative) is never.
    pub interval: Option<Duration>,
}

impl Settings {
    /// Whether metrics are sent to somebody.
    pub fn is_pushed(&self) -> bool {
        self.graphite.is_some() || self.post.is_some()
    }
}

/// The name of this machine, as metrics and status tell it.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
