//! Where certificate, key and trust anchors come from, and how they are reloaded.

mod selection;

pub use selection::{Identity, Selection, Trust};
