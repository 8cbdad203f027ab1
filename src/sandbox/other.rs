//! Systems without a mechanism.

use super::{Outcome, Plan, Report};

/// Does nothing, and says nothing but that.
pub(super) fn enter(_plan: &Plan) -> Report {
    Report {
        outcome: Outcome::Absent,
        skipped: Vec::new(),
    }
}
