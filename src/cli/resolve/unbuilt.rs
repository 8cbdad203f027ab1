//! What Ghostunnel 1.11.1 does and this version does not do yet: refused by name, and only after
//! every other check, so that nothing is silently left undone.

use super::{access, sources};
use crate::cli::ModeWord;
use crate::cli::errors::{ConfigError, FromEnvironment};
use crate::cli::flags::Args;

/// The refusal of this flag's work.
pub(super) fn flag(flag: &'static str, args: &Args) -> ConfigError {
    let concerns_sources = matches!(flag, "use-workload-api");
    ConfigError::Unbuilt {
        flag,
        variables: match concerns_sources {
            true => sources::variables(args),
            false => FromEnvironment::default(),
        },
    }
}

/// Refuses what is not refused where it would be done. Sources of certificates are, in
/// [`sources::selection`].
pub(super) fn refuse(mode: ModeWord, args: &Args) -> Result<(), ConfigError> {
    pins(mode, args)?;
    policy(mode, args)?;
    pprof(args)
}

fn pins(mode: ModeWord, args: &Args) -> Result<(), ConfigError> {
    let name = match mode {
        ModeWord::Server => "allow-spki-pin",
        ModeWord::Client => "verify-spki-pin",
    };
    match access::pins(name, args)?.is_empty() {
        true => Ok(()),
        false => Err(flag(name, args)),
    }
}

fn policy(mode: ModeWord, args: &Args) -> Result<(), ConfigError> {
    let name = match mode {
        ModeWord::Server => "allow-policy",
        ModeWord::Client => "verify-policy",
    };
    match access::has_policy(args) {
        true => Err(flag(name, args)),
        false => Ok(()),
    }
}

fn pprof(args: &Args) -> Result<(), ConfigError> {
    match args.enable_pprof {
        true => Err(flag("enable-pprof", args)),
        false => Ok(()),
    }
}

/// All flags and variables that belong to work not done yet, for the page that lists them.
#[cfg(test)]
pub(super) const NAMES: &[&[&str]] = &[
    // Certificates from the SPIFFE Workload API.
    &[
        "--use-workload-api",
        "--use-workload-api-addr",
        "--use-workload-api-timeout",
        "SPIFFE_ENDPOINT_SOCKET",
    ],
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
    // Public key pins.
    &["--allow-spki-pin", "--verify-spki-pin"],
    // Profiling.
    &["--enable-pprof"],
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
