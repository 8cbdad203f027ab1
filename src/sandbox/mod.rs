//! Confinement of the process: what was asked for, what the kernel enforces.

/// Which layers are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Landlock; off with `--disable-landlock`.
    pub landlock: bool,
}
