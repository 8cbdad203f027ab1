//! Metrics: declared once in `registry`, rendered by one module per format.

/// Names of metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `--metrics-prefix`, default `ghostunnel`; may be empty.
    pub prefix: String,
}
