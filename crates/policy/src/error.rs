//! Why a policy does not load.

use crate::bundle::BundleError;
use crate::report::Faults;

/// Why a policy or query was refused. Displayed in the words that Ghostunnel 1.11.1 used where
/// it had some; may have several lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A policy file is not text of the language.
    #[error("{0}")]
    Parse(Faults),
    /// A bundle is not one, or is not allowed to hold what it holds.
    #[error("loading error: bundle {name}: {reason}")]
    Bundle {
        /// Its path.
        name: String,
        /// What is wrong.
        reason: BundleError,
    },
    /// Policy or query is well formed, but can't be evaluated.
    #[error("{0}")]
    Compile(Faults),
    /// The engine failed on it.
    #[error("the policy makes the engine fail")]
    Engine,
}
