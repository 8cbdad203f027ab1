//! Flags, grammar, validation.
