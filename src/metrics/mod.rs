//! Metrics: declared once in `registry`, rendered by one module per format.
//!
//! The proxy tells the registry what happens; the status port renders it on request.

pub mod json;
mod registry;
mod reservoir;

pub use registry::{Declaration, Registry, Sample, Unit, Value};
pub use reservoir::Summary;

/// Names of metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `--metrics-prefix`, default `ghostunnel`; may be empty.
    pub prefix: String,
}
