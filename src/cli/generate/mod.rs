//! What is made of the table of flags for others to read: man pages, completion in shells, and
//! the reference in `docs/`.

mod completion;
mod man;
mod reference;

pub(super) use completion::{candidates, completion_script};
pub(super) use man::man_page;
pub use reference::flag_reference;
