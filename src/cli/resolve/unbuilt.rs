//! What Ghostunnel 1.11.1 does and this version does not do yet: refused by name, and only after
//! every other check, so that nothing is silently left undone.

use super::access;
use crate::cli::ModeWord;
use crate::cli::errors::{ConfigError, FromEnvironment};
use crate::cli::flags::Args;

/// The refusal of this flag's work.
pub(super) fn flag(flag: &'static str) -> ConfigError {
    ConfigError::Unbuilt {
        flag,
        variables: FromEnvironment::default(),
    }
}

/// Refuses what is not refused where it would be done. Sources of certificates are, in
/// [`sources::selection`].
pub(super) fn refuse(mode: ModeWord, args: &Args) -> Result<(), ConfigError> {
    policy(mode, args)
}

fn policy(mode: ModeWord, args: &Args) -> Result<(), ConfigError> {
    let name = match mode {
        ModeWord::Server => "allow-policy",
        ModeWord::Client => "verify-policy",
    };
    match access::has_policy(args) {
        true => Err(flag(name)),
        false => Ok(()),
    }
}

/// All flags and variables that belong to work not done yet, for the page that lists them.
#[cfg(test)]
pub(super) const NAMES: &[&[&str]] = &[
    // Certificates by ACME.
    &[
        "--auto-acme-cert",
        "--auto-acme-email",
        "--auto-acme-agree-to-tos",
        "--auto-acme-ca",
        "--auto-acme-testca",
        "--auto-acme-renew-check-interval",
        "--auto-acme-alt-tls-alpn-port",
    ],
    // Access policies.
    &[
        "--allow-policy",
        "--allow-query",
        "--verify-policy",
        "--verify-query",
    ],
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::FLAGS;

    #[test]
    fn names_are_those_of_flags_and_variables() {
        for name in NAMES.iter().copied().flatten() {
            let is_known = FLAGS.iter().any(|flag| {
                name.strip_prefix("--") == Some(flag.name)
                    || flag.variable.is_some_and(|known| known == *name)
            });
            assert!(is_known, "{name}");
        }
    }
}
