//! Access policies in Rego: from the bytes of policy files to an answer about one certificate.
//!
//! The crate does no I/O: callers read files and hand in their bytes ([`Files`]). [`Policy::load`]
//! finds out everything that can be known without evaluating, so that a policy that loads is one
//! that can answer; [`Policy::evaluate`] answers before a deadline, or not at all.
//!
//! The language is evaluated by `regorus`. What it leaves open is closed here: `bundle` with
//! `archive` and `manifest` read bundles; `check` walks the syntax tree for what the engine would
//! only meet while evaluating (unknown functions, recursion, conflicts); `builtins` bounds the
//! functions whose cost is not bounded by their arguments, and adds missing ones; `input` is the
//! certificate as a document; `json` reads numbers exactly.

#![forbid(unsafe_code)]

mod archive;
mod builtins;
mod bundle;
mod check;
mod error;
mod evaluate;
mod input;
mod json;
mod manifest;
mod report;

pub use archive::ArchiveError;
pub use bundle::{BundleError, File, Files};
pub use error::LoadError;
pub use evaluate::{EvaluationError, Policy};
pub use input::document;
pub use report::Faults;
