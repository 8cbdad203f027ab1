//! Why well-formed flags are refused. The texts are those of Ghostunnel 1.11.1, since
//! scripts match on them, also where they name flags that this version does not have.

use std::fmt;

use crate::authorization::{SerialNumberError, SpkiPinError, UriPatternError};
use crate::credentials::workload_api::EndpointError;
use crate::net::{AddressError, HttpUrlError, UnknownScheme};
use crate::proxy::AnnouncersError;
use crate::tls::{CipherGroupsError, UnsupportedVersion};

/// A refusal that concerns the process as a whole, reported as a usage error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum GlobalError {
    #[error("--enable-pprof requires --status to be set")]
    PprofWithoutStatus,
    #[error("--enable-shutdown requires --status to be set")]
    ShutdownWithoutStatus,
    #[error("--drain-status requires --status to be set")]
    DrainStatusWithoutStatus,
    #[error("--metrics-url should start with http:// or https://")]
    MetricsUrlScheme,
    #[error("--target-status should start with http:// or https://")]
    TargetStatusScheme,
    #[error("invalid --metrics-url: {0}")]
    MetricsUrl(HttpUrlError),
    #[error("invalid --status address: {}{}", .0, .0.remedy())]
    StatusAddress(AddressError),
    #[error("invalid --status network {0:?}: http(s):// scheme requires a HOST:PORT target")]
    StatusNetwork(&'static str),
    #[error("invalid --status address: launchd socket activation is only supported on darwin")]
    StatusLaunchd,
    #[error("--connect-timeout duration must not be zero")]
    ZeroConnectTimeout,
    #[error("--use-workload-api-timeout duration must not be negative (use 0 to wait indefinitely)")]
    NegativeWorkloadApiTimeout,
}

/// Why flags that are well-formed do not make a tunnel. Displays as the whole reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A server without a certificate.
    #[error(
        "at least one of --keystore, --cert/--key, --auto-acme-cert, or --keychain-identity/issuer (if supported) \
         flags is required"
    )]
    NoServerCredentials,
    /// A server with more than one source of certificates.
    #[error(
        "--keystore, --cert/--key, --auto-acme-cert, and --keychain-identity/issuer flags are mutually \
         exclusive{0}"
    )]
    SeveralServerCredentials(FromEnvironment),
    /// A client with neither a certificate nor the wish to have none.
    #[error(
        "at least one of --keystore, --cert/--key, --keychain-identity/issuer (if supported), --use-workload-api or \
         --disable-authentication flags is required"
    )]
    NoClientCredentials,
    /// A client with more than one source of certificates.
    #[error(
        "--keystore, --cert/--key, --keychain-identity/issuer, --use-workload-api and --disable-authentication flags \
         are mutually exclusive{0}"
    )]
    SeveralClientCredentials(FromEnvironment),
    /// A certificate file without its key, or the other way round.
    #[error("--cert/--key must be set together, unless using PKCS11 for private key{0}")]
    HalfPair(FromEnvironment),
    /// An address of an agent that is none.
    #[error("{reason}{variables}")]
    WorkloadApiAddress {
        /// What is wrong with it.
        reason: EndpointError,
        /// Where it may have come from.
        variables: FromEnvironment,
    },
    /// Something that was left out when this program was built.
    #[error("--{flag} is not in this build, which was made without the cargo feature {feature:?}{variables}")]
    NotInBuild {
        /// The flag that asks for it.
        flag: &'static str,
        /// What it takes to have it.
        feature: &'static str,
        /// Where the wish may have come from.
        variables: FromEnvironment,
    },
    /// A password, and a file that has it.
    #[error("--storepass and --storepass-file are mutually exclusive{0}")]
    SeveralPasswords(FromEnvironment),
    /// A credential is named, but nobody hands any over.
    #[error(
        "--storepass-file=credential: needs $CREDENTIALS_DIRECTORY, which systemd sets for units with \
         LoadCredential= or SetCredential="
    )]
    NoCredentialsDirectory,
    /// A credential's name is none.
    #[error("--storepass-file=credential:{name}: a credential's name is a file name without slashes")]
    CredentialName {
        /// As typed.
        name: String,
    },
    /// A server that was not told whom to admit.
    #[error(
        "at least one access control flag (--allow-{{all,cn,ou,dns,uri,spki-pin}}, or OPA flags, or \
         --disable-authentication) is required"
    )]
    NoAccessRule,
    /// `--allow-all` beside narrower rules.
    #[error("--allow-all is mutually exclusive with other access control flags")]
    AllowAllWithOthers,
    /// `--disable-authentication` of a server beside access rules.
    #[error("--disable-authentication is mutually exclusive with other access control flags")]
    DisableAuthenticationWithOthers,
    /// Public key pins beside other rules.
    #[error("--{flag} is mutually exclusive with other {rules} flags")]
    PinsWithOthers {
        /// `allow-spki-pin` or `verify-spki-pin`.
        flag: &'static str,
        /// What the other rules are called.
        rules: &'static str,
    },
    /// Public key pins beside certificates that change their keys at any time.
    #[error("--{0} is mutually exclusive with --use-workload-api")]
    PinsWithWorkloadApi(&'static str),
    /// A public key pin that is none.
    #[error("--{flag}: invalid pin {text:?}: {reason}")]
    SpkiPin {
        /// `allow-spki-pin` or `verify-spki-pin`.
        flag: &'static str,
        /// The pin as typed.
        text: String,
        /// What is wrong with it.
        reason: SpkiPinError,
    },
    /// Conditions on certificates that nobody is asked for.
    #[error(
        "--require-* and --deny-* flags need client certificates, which --disable-authentication does without"
    )]
    NarrowingWithoutAuthentication,
    /// Conditions on names in certificates that anybody can have written.
    #[error(
        "--require-* flags are mutually exclusive with --{0}: without a chain to an authority the names in a \
         certificate prove nothing"
    )]
    RequirementsWithPins(&'static str),
    /// An exclusion of nobody; carries its kind.
    #[error("--deny-{0} with an empty value denies nobody: give a name, or leave the flag out")]
    EmptyExclusion(&'static str),
    /// An exclusion by something else than a serial number.
    #[error("--deny-serial: {0}")]
    SerialNumber(SerialNumberError),
    /// A server's target that plaintext could leave the machine for.
    #[error("--target must be unix:PATH or localhost:PORT (unless --unsafe-target is set)")]
    TargetNotLocal,
    /// A target that is no address.
    #[error("invalid --target address: {}{}", .0, .0.remedy())]
    TargetAddress(AddressError),
    /// A server's target that can only be listened on.
    #[error(
        "invalid --target network {0:?}: only tcp and unix targets are supported (systemd:/launchd: cannot be dialed)"
    )]
    ServerTargetNetwork(&'static str),
    /// A certificate by ACME without an address for the authority to write to.
    #[error("--auto-acme-cert was specified but no email address was provided with --auto-acme-email")]
    AcmeWithoutEmail,
    /// A certificate by ACME without consent to the authority's terms.
    #[error("--auto-acme-agree-to-tos was not specified and is required if --auto-acme-cert is specified")]
    AcmeWithoutConsent,
    /// A policy without a query, or the other way round; carries `allow` or `verify`.
    #[error("--{0}-policy and --{0}-query have to be used together")]
    HalfPolicy(&'static str),
    /// Two ways to ask for a PROXY protocol header.
    #[error("--proxy-protocol and --proxy-protocol-mode are mutually exclusive")]
    SeveralHeaders,
    /// A URL to ask a target's status at that is none.
    #[error("invalid --target-status: {0}")]
    TargetStatus(HttpUrlError),
    /// Senders of PROXY protocol headers that are nobody.
    #[error("invalid --proxy-protocol-accept: {0}")]
    Announcers(AnnouncersError),
    /// None of them can connect to a UNIX socket.
    #[error(
        "--proxy-protocol-accept names no peer that could connect to a UNIX socket: give \
         --proxy-protocol-accept=unix"
    )]
    AnnouncersNotUnix,
    /// None of them can connect to a TCP port.
    #[error(
        "--proxy-protocol-accept names no peer that could connect to a TCP port: give addresses or ranges"
    )]
    AnnouncersNotTcp,
    /// A choice of cipher suites that can't be made.
    #[error(transparent)]
    CipherSuites(CipherGroupsError),
    /// A maximum that is no version of TLS.
    #[error("invalid max TLS version: {0}")]
    MaxTlsVersion(UnsupportedVersion),
    /// A client's target that can only be listened on.
    #[error("invalid --target network {0:?}: client mode requires a HOST:PORT TCP target")]
    ClientTargetNetwork(&'static str),
    /// A client's listener that other machines could use.
    #[error(
        "--listen must be unix:PATH, localhost:PORT, systemd:NAME or launchd:NAME (unless --unsafe-listen is set)"
    )]
    ListenNotLocal,
    /// A listen address that is no address.
    #[error("invalid --listen address: {}{}", .0, .0.remedy())]
    ListenAddress(AddressError),
    /// A socket to be inherited from a service manager that does not exist here.
    #[error("launchd socket activation is only supported on darwin")]
    ListenLaunchd,
    /// One inherited socket for tunnel and status port; carries its name.
    #[error(
        "--listen and --status cannot both use systemd:{0}: give the sockets different names (FileDescriptorName=)"
    )]
    OneSocketForBoth(String),
    /// A client's target that does not name the server as a host does.
    #[error(
        "invalid --target network \"unix\": client mode requires a HOST:PORT TCP target (or, with unix:PATH, \
         --override-server-name and the name in the server's certificate)"
    )]
    UnixTargetWithoutName,
    /// A client whose target has no host whose name the server could prove.
    #[error(
        "--target {target} does not name the server: give the name in its certificate with --override-server-name"
    )]
    NoServerName {
        /// The target as typed.
        target: String,
    },
    /// A forward proxy of a kind that does not exist.
    #[error("error configuring proxy: {0}")]
    ProxyScheme(UnknownScheme),
    /// An access rule that is no pattern.
    #[error("invalid URI pattern in --{side}-uri flag ({reason})")]
    UriPattern {
        /// `allow` or `verify`.
        side: &'static str,
        /// What is wrong with it.
        reason: UriPatternError,
    },
    /// A key in a PKCS#11 token, in a build that cannot use one.
    #[error(
        "--pkcs11-module needs a build with PKCS#11, and this one was made without (cargo feature pkcs11){0}"
    )]
    NoPkcs11(FromEnvironment),
    /// A flag of Ghostunnel 1.11.1 whose work is not done by this version.
    #[error("--{flag} is a flag of ghostunnel 1.11.1 that this version does not have yet{variables}")]
    Unbuilt {
        /// The flag that asks for the work.
        flag: &'static str,
        /// Where the values come from, if they were not typed.
        variables: FromEnvironment,
    },
}

/// Environment variables that gave values. Whoever did not type what the message is about finds the
/// cause in this.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FromEnvironment(pub(super) Vec<&'static str>);

impl fmt::Display for FromEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => Ok(()),
            [one] => write!(f, " (the environment sets {one})"),
            [all @ .., last] => write!(f, " (the environment sets {} and {last})", all.join(", ")),
        }
    }
}
