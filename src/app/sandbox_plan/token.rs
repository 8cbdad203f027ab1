//! What a PKCS#11 module needs: it is code of somebody else in this process, and opens files,
//! locks and connections of its own.
//!
//! The program and its libraries are allowed to read `/etc` and the library directories, and to
//! talk to services in `/run`, which is all that most modules want (smart cards by way of
//! pcscd among them). Beyond that come the places of modules that are known, and what the
//! operator names with `--sandbox-allow-…`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{Draft, Files};
use crate::credentials::{Pkcs11, Role};
use crate::sandbox::Access;

/// Variables by which modules are told their files. They are followed for any module: it may
/// have another one inside.
pub(super) const VARIABLES: [&str; 5] = [SOFTHSM, "OPENSC_CONF", "YUBIHSM_PKCS11_CONF", TPM2, HOME];

const SOFTHSM: &str = "SOFTHSM2_CONF";
const TPM2: &str = "TPM2_PKCS11_STORE";
const HOME: &str = "HOME";

/// Where SoftHSM looks for its configuration without the variable.
const SOFTHSM_SYSTEM: &str = "/etc/softhsm/softhsm2.conf";
const SOFTHSM_USER: &str = ".config/softhsm2/softhsm2.conf";

impl<F: Files> Draft<'_, F> {
    /// A certificate file, and a module with its token.
    pub(super) fn token(&mut self, settings: &Pkcs11) {
        let flag = match settings.certificate_role {
            Role::Certificate | Role::Key => "--cert",
            Role::Keystore => "--keystore",
        };
        self.file(&settings.certificate, flag, false);
        self.file(&settings.module, "--pkcs11-module", false);
        for name in ["OPENSC_CONF", "YUBIHSM_PKCS11_CONF"] {
            if let Some(path) = self.variable(name) {
                self.file(&path, "configuration of the PKCS#11 module", true);
            }
        }
        if let Some(store) = self.variable(TPM2) {
            self.allow(&store, Access::ReadWrite, "TPM2_PKCS11_STORE", true);
        }
        self.softhsm(settings);
        if is_called(&settings.module, "p11-kit") {
            let modules = Path::new("/usr/share/p11-kit");
            self.allow(modules, Access::Read, "modules of p11-kit", true);
        }
    }

    /// SoftHSM keeps its tokens in files, and locks them by writing.
    fn softhsm(&mut self, settings: &Pkcs11) {
        let named = self.variable(SOFTHSM);
        let is_named = named.is_some();
        // Without the variable it may still be the module itself, or one of those that p11-kit
        // loads.
        if !is_named
            && !["softhsm", "p11-kit"]
                .iter()
                .any(|name| is_called(&settings.module, name))
        {
            return;
        }
        let of_user = self.variable(HOME).map(|home| home.join(SOFTHSM_USER));
        let places = named.map_or_else(
            || {
                of_user
                    .into_iter()
                    .chain([PathBuf::from(SOFTHSM_SYSTEM)])
                    .collect()
            },
            |named| vec![named],
        );
        for path in places {
            let Some(text) = self.environment.files.text(&path) else {
                continue;
            };
            self.file(&path, "configuration of SoftHSM", true);
            if let Some(tokens) = token_directory(&text) {
                let tokens = self.absolute(Path::new(tokens));
                self.allow(&tokens, Access::ReadWrite, "tokens of SoftHSM", !is_named);
            }
            // It reads the first that is there.
            return;
        }
    }

    fn variable(&self, name: &str) -> Option<PathBuf> {
        let set = self.environment.module_variables.iter();
        let (_, value) = set
            .clone()
            .find(|(set, value)| *set == name && !value.is_empty())?;
        Some(self.absolute(Path::new(value)))
    }
}

/// Whether the name of the file has this in it, links aside.
fn is_called(module: &Path, name: &str) -> bool {
    let file = module.file_name().and_then(OsStr::to_str);
    file.is_some_and(|file| file.to_ascii_lowercase().contains(name))
}

/// The value of `directories.tokendir`.
fn token_directory(configuration: &str) -> Option<&str> {
    configuration.lines().find_map(|line| {
        let line = line.split('#').next()?;
        let (name, value) = line.split_once('=')?;
        (name.trim() == "directories.tokendir")
            .then_some(value.trim())
            .filter(|value| !value.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::{Imagined, environment, own_rules, with_credentials};
    use super::super::{Environment, plan};
    use super::*;
    use crate::credentials::{Identity, Trust};

    /// The rules for a module, beyond those that every configuration gets.
    fn rules(module: &str, variables: &[(&'static str, &str)], files: Imagined) -> Vec<String> {
        let identity = Identity::Pkcs11(Pkcs11 {
            certificate: "/tls/chain.pem".into(),
            certificate_role: Role::Certificate,
            module: module.into(),
            token_label: "token".to_owned(),
            pin: "1234".to_owned().into(),
        });
        let config = with_credentials(identity, Trust::Bundle("/ca/bundle.pem".into()));
        let environment = Environment {
            module_variables: variables
                .iter()
                .map(|(name, value)| (*name, (*value).into()))
                .collect(),
            ..environment(files)
        };
        own_rules(&plan(&config, &environment))
    }

    fn with_texts(texts: &[(&'static str, &'static str)]) -> Imagined {
        Imagined {
            texts: BTreeMap::from_iter(texts.iter().copied()),
            ..Imagined::default()
        }
    }

    #[test]
    fn module_and_chain_are_read_in_their_directories() {
        let files = Imagined {
            links: BTreeMap::from([("/opt/hsm/libhsm.so", "/opt/hsm-2.1/lib/libhsm.so")]),
            ..Imagined::default()
        };
        assert_eq!(
            rules("/opt/hsm/libhsm.so", &[], files),
            ["read /tls", "read /opt/hsm", "read /opt/hsm-2.1/lib"]
        );
    }

    #[test]
    fn softhsm_writes_to_the_directory_that_its_configuration_names() {
        const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
        let default = with_texts(&[(
            "/etc/softhsm/softhsm2.conf",
            "# tokens\ndirectories.tokendir = /var/lib/softhsm/tokens/ # all\nlog.level = ERROR\n",
        )]);
        let own = ["read /tls", "read /usr/lib/softhsm"];
        let with = |more: &[&'static str]| [&own[..], more].concat();
        assert_eq!(
            rules(MODULE, &[], default.clone()),
            with(&["read /etc/softhsm", "read and write /var/lib/softhsm/tokens/"])
        );
        let mut files = default.clone();
        files.texts.insert(
            "/home/me/.config/softhsm2/softhsm2.conf",
            "directories.tokendir=/home/me/tokens",
        );
        files
            .texts
            .insert("/srv/hsm.conf", "directories.tokendir = tokens");
        assert_eq!(
            rules(MODULE, &[("HOME", "/home/me")], files.clone()),
            with(&["read /home/me/.config/softhsm2", "read and write /home/me/tokens"])
        );
        assert_eq!(
            rules(
                MODULE,
                &[("HOME", "/home/me"), ("SOFTHSM2_CONF", "/srv/hsm.conf")],
                files
            ),
            with(&["read /srv", "read and write /here/tokens"])
        );
        assert_eq!(
            rules("/opt/libother.so", &[], default),
            ["read /tls", "read /opt"]
        );
    }

    #[test]
    fn a_wrapper_around_softhsm_is_served_by_the_variable() {
        let files = with_texts(&[("/srv/hsm.conf", "directories.tokendir = /srv/tokens")]);
        assert_eq!(
            rules("/opt/spy.so", &[("SOFTHSM2_CONF", "/srv/hsm.conf")], files),
            [
                "read /tls",
                "read /opt",
                "read /srv",
                "read and write /srv/tokens"
            ]
        );
    }

    #[test]
    fn variables_of_other_modules_are_followed() {
        let variables = [
            ("OPENSC_CONF", "/a/opensc.conf"),
            ("YUBIHSM_PKCS11_CONF", "b/yubihsm.conf"),
            ("TPM2_PKCS11_STORE", "/c/store"),
        ];
        assert_eq!(
            rules("/opt/m.so", &variables, Imagined::default()),
            [
                "read /tls",
                "read /opt",
                "read /a",
                "read /here/b",
                "read and write /c/store"
            ]
        );
    }
}
