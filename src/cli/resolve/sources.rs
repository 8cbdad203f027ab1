//! Where certificate, key and trust come from: exactly one source.

use std::path::PathBuf;

use super::{given, unbuilt};
use crate::cli::ModeWord;
use crate::cli::errors::{ConfigError, FromEnvironment};
use crate::cli::flags::Args;
use crate::credentials::workload_api::{self, Endpoint};
use crate::credentials::{HAS_PKCS11, Identity, Password, Pkcs11, Role, Selection, Trust};

/// The one source that was asked for.
pub(super) enum Source {
    /// `--cert` and `--key`.
    Pair { cert: PathBuf, key: PathBuf },
    /// `--keystore`, alone.
    Keystore(PathBuf),
    /// The key is in a PKCS#11 token; `--keystore`, else `--cert`, has the certificate.
    Pkcs11,
    /// The SPIFFE Workload API. In client mode `--disable-authentication` beside it means that no
    /// certificate is shown.
    WorkloadApi,
    /// `--auto-acme-cert`.
    Acme,
    /// `--disable-authentication` in client mode: no certificate at all.
    None,
}

/// Variables that name a source or a part of one.
const VARIABLES: [&str; 5] = [
    "KEYSTORE_PATH",
    "CERT_PATH",
    "KEY_PATH",
    "SPIFFE_ENDPOINT_SOCKET",
    "PKCS11_MODULE",
];

/// Variables that give a password.
const PASSWORD_VARIABLES: [&str; 2] = ["KEYSTORE_PASS", "KEYSTORE_PASS_FILE"];

/// Picks the source. Half a pair counts as none, so that it is named as such only beside
/// another source.
pub(super) fn choose(mode: ModeWord, args: &Args) -> Result<Source, ConfigError> {
    let pair = args.cert.clone().zip(args.key.clone());
    let has_module = args.pkcs11_module.is_some();
    let candidates = [
        args.keystore.clone().map(Source::Keystore),
        pair.map(|(cert, key)| Source::Pair { cert, key }),
        (args.cert.is_some() && has_module).then_some(Source::Pkcs11),
        uses_workload_api(args).then_some(Source::WorkloadApi),
        uses_acme(mode, args).then_some(Source::Acme),
        shows_none(mode, args).then_some(Source::None),
    ];
    let mut given = candidates.into_iter().flatten();
    let Some(source) = given.next() else {
        return Err(match mode {
            ModeWord::Server => ConfigError::NoServerCredentials,
            ModeWord::Client => ConfigError::NoClientCredentials,
        });
    };
    if given.next().is_some() {
        return Err(match mode {
            ModeWord::Server => ConfigError::SeveralServerCredentials(variables(args)),
            ModeWord::Client => ConfigError::SeveralClientCredentials(variables(args)),
        });
    }
    let is_half = match (&args.cert, &args.key) {
        (None, Some(_)) => true,
        (Some(_), None) => !has_module,
        (None, None) | (Some(_), Some(_)) => false,
    };
    match source {
        _ if is_half => Err(ConfigError::HalfPair(variables(args))),
        Source::Keystore(_) if has_module => Ok(Source::Pkcs11),
        source => Ok(source),
    }
}

/// An address counts as the wish itself, wherever it comes from.
pub(super) fn uses_workload_api(args: &Args) -> bool {
    args.use_workload_api || given(&args.workload_api_addr).is_some()
}

fn uses_acme(mode: ModeWord, args: &Args) -> bool {
    mode == ModeWord::Server && given(&args.acme_name).is_some()
}

fn shows_none(mode: ModeWord, args: &Args) -> bool {
    mode == ModeWord::Client && args.disable_authentication && !uses_workload_api(args)
}

/// Those of the variables of sources that were heeded.
pub(super) fn variables(args: &Args) -> FromEnvironment {
    heeded(&VARIABLES, args)
}

fn heeded(variables: &[&str], args: &Args) -> FromEnvironment {
    let heeded = args.variables.iter().copied();
    FromEnvironment(heeded.filter(|name| variables.contains(name)).collect())
}

/// What a certificate by ACME needs beside its name.
pub(super) fn check_acme(args: &Args) -> Result<(), ConfigError> {
    match given(&args.acme_name) {
        Some(_) if given(&args.acme_email).is_none() => Err(ConfigError::AcmeWithoutEmail),
        Some(_) if !args.acme_agree_to_tos => Err(ConfigError::AcmeWithoutConsent),
        Some(_) | None => Ok(()),
    }
}

/// The source with all that belongs to it. To be called after every check, since it
/// refuses sources that are not built yet.
pub(super) fn selection(source: Source, args: &Args) -> Result<Selection, ConfigError> {
    let identity = match source {
        Source::Pair { cert, key } => Identity::Pair {
            cert,
            key,
            password: password(args)?,
        },
        Source::Keystore(path) => Identity::Keystore {
            path,
            password: password(args)?,
        },
        Source::None => Identity::None,
        Source::WorkloadApi => Identity::WorkloadApi(workload_api(args)?),
        Source::Pkcs11 => Identity::Pkcs11(pkcs11(args)?),
        Source::Acme => return Err(unbuilt::flag("auto-acme-cert")),
    };
    let trust = args.cacert.clone().map_or(Trust::System, Trust::Bundle);
    Ok(Selection { identity, trust })
}

fn workload_api(args: &Args) -> Result<workload_api::Settings, ConfigError> {
    if !workload_api::IS_BUILT {
        return Err(ConfigError::NotInBuild {
            flag: "use-workload-api",
            feature: "spiffe",
            variables: variables(args),
        });
    }
    let address = given(&args.workload_api_addr).unwrap_or_default();
    let endpoint = Endpoint::parse(address).map_err(|reason| ConfigError::WorkloadApiAddress {
        reason,
        variables: variables(args),
    })?;
    Ok(workload_api::Settings {
        endpoint,
        first_answer_timeout: args.workload_api_timeout.positive(),
        is_presented: !args.disable_authentication,
    })
}

/// A key in a token, with the certificate of `--keystore`, else of `--cert`.
fn pkcs11(args: &Args) -> Result<Pkcs11, ConfigError> {
    let absent = || ConfigError::NoPkcs11(variables(args));
    let (certificate, certificate_role) = match (&args.keystore, &args.cert) {
        (Some(path), _) => (path, Role::Keystore),
        (None, Some(path)) => (path, Role::Certificate),
        // Not chosen without one of them.
        (None, None) => return Err(absent()),
    };
    let module = args.pkcs11_module.as_ref();
    Ok(Pkcs11 {
        certificate: certificate.clone(),
        certificate_role,
        module: module.filter(|_| HAS_PKCS11).ok_or_else(absent)?.clone(),
        token_label: args.pkcs11_token_label.clone().unwrap_or_default(),
        pin: given(&args.pkcs11_pin).unwrap_or_default().to_owned().into(),
    })
}

/// One password at most. The file may be one that the service manager hands over.
fn password(args: &Args) -> Result<Password, ConfigError> {
    const CREDENTIAL: &str = "credential:";
    match (given(&args.storepass), given(&args.storepass_file)) {
        (None, None) => Ok(Password::None),
        (Some(password), None) => Ok(Password::Given(password.to_owned().into())),
        (None, Some(path)) => Ok(Password::File(match path.strip_prefix(CREDENTIAL) {
            Some(name) => credential(name, args)?,
            None => path.into(),
        })),
        (Some(_), Some(_)) => Err(ConfigError::SeveralPasswords(heeded(&PASSWORD_VARIABLES, args))),
    }
}

/// Where systemd puts a credential of this name (systemd.exec(5), "Credentials").
fn credential(name: &str, args: &Args) -> Result<PathBuf, ConfigError> {
    let directory = args.credentials_directory.as_ref();
    let directory = directory.ok_or(ConfigError::NoCredentialsDirectory)?;
    if name.is_empty() || name.contains('/') || [".", ".."].contains(&name) {
        return Err(ConfigError::CredentialName {
            name: name.to_owned(),
        });
    }
    Ok(directory.join(name))
}
