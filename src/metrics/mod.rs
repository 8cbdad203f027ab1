//! Metrics: declared once in `registry`, rendered by one module per format.
//!
//! The proxy tells the registry what happens; the status port renders it on request.

mod instruments;
pub mod json;
mod process;
pub mod prometheus;
mod reasons;
mod registry;
mod reservoir;

pub use instruments::{Distribution, Reason, Timing};
pub use reasons::{DialFailure, HandshakeFailure, ReloadResult};
pub use registry::{
    CertificateExpiry, Declaration, Family, Gauges, Point, Points, Registry, Sample, Unit, Value,
};
pub use reservoir::Summary;

/// Names of metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `--metrics-prefix`, default `ghostunnel`; may be empty.
    pub prefix: String,
}
