//! What is made of the table of flags, and kept in the repository, is what the table makes.
//!
//! `UPDATE_GENERATED=1 cargo test --test generated` writes it anew.

use std::path::Path;
use std::{env, fs};

#[test]
fn the_reference_of_flags_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/flags.md");
    let made = ghostunnel::cli::flag_reference();
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, &made).expect("writable");
        return;
    }
    let kept = fs::read_to_string(&path).expect("readable");
    let differs = made.lines().zip(kept.lines()).find(|(made, kept)| made != kept);
    assert!(
        made == kept,
        "docs/flags.md is not what the table makes: run UPDATE_GENERATED=1 cargo test --test generated; {differs:?}"
    );
}
