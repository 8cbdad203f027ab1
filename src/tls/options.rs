//! Versions, cipher suites and key exchange groups.

use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::version::TLS12;
use rustls::{
    ALL_VERSIONS, CipherSuite, NamedGroup, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
};

use super::p521::P521;

/// What a tunnel, and the status port beside it, may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// `--max-tls-version`.
    pub newest: Newest,
    /// `--cipher-suites`.
    pub groups: CipherGroups,
}

/// The newest version of TLS. The oldest is always 1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Newest {
    /// TLS 1.2, and nothing else therefore.
    Tls12,
    /// TLS 1.3.
    #[default]
    Tls13,
}

/// Which cipher suites of TLS 1.2 may be used. Those of TLS 1.3 always are, as in Ghostunnel
/// 1.11.1. Built only by [`CipherGroups::parse`], so that there is at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CipherGroups {
    aes: bool,
    chacha: bool,
    has_unsafe: bool,
}

/// Why cipher suites can't be chosen so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CipherGroupsError {
    /// A name that is not known, or not unlocked; possibly empty.
    #[error("invalid cipher suite '{0}' selected")]
    Unknown(String),
    /// Nothing but a group whose only suite does not exist here.
    #[error(
        "cipher suite 'UNSAFE-AZURE' is not supported: it is TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256, and suites with \
         CBC are never used; give --cipher-suites=AES,CHACHA, or leave the flag out"
    )]
    OnlyUnsafe,
}

/// No version of TLS that a maximum can be set to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unsupported TLS version: {0}")]
pub struct UnsupportedVersion(pub String);

impl Default for Options {
    fn default() -> Self {
        let (aes, chacha, has_unsafe) = (true, true, false);
        Self {
            newest: Newest::default(),
            groups: CipherGroups {
                aes,
                chacha,
                has_unsafe,
            },
        }
    }
}

impl Newest {
    /// Parses `TLS1.2` or `TLS1.3`, in any case.
    pub fn parse(text: &str) -> Result<Self, UnsupportedVersion> {
        if text.eq_ignore_ascii_case("TLS1.2") {
            Ok(Self::Tls12)
        } else if text.eq_ignore_ascii_case("TLS1.3") {
            Ok(Self::Tls13)
        } else {
            Err(UnsupportedVersion(text.to_owned()))
        }
    }
}

impl CipherGroups {
    /// Parses names between commas, with blanks around them or not. `UNSAFE-AZURE` must be
    /// unlocked, and then has no effect beside other groups.
    pub fn parse(text: &str, unsafe_is_unlocked: bool) -> Result<Self, CipherGroupsError> {
        let mut groups = Self {
            aes: false,
            chacha: false,
            has_unsafe: false,
        };
        for name in text.split(',').map(str::trim) {
            match name {
                "AES" => groups.aes = true,
                "CHACHA" => groups.chacha = true,
                "UNSAFE-AZURE" if unsafe_is_unlocked => groups.has_unsafe = true,
                _ => return Err(CipherGroupsError::Unknown(name.to_owned())),
            }
        }
        match groups.aes || groups.chacha {
            true => Ok(groups),
            false => Err(CipherGroupsError::OnlyUnsafe),
        }
    }

    /// Whether a suite was asked for that is not used.
    pub fn has_unsafe(self) -> bool {
        self.has_unsafe
    }

    fn admits(self, suite: CipherSuite) -> bool {
        match suite {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => self.chacha,
            _ => self.aes,
        }
    }
}

/// Options as rustls takes them.
#[derive(Debug, Clone)]
pub(super) struct Protocol {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
    pub(super) newest: Newest,
}

impl Protocol {
    pub(super) fn new(options: Options) -> Self {
        static UP_TO_TLS12: [&SupportedProtocolVersion; 1] = [&TLS12];
        if options == Options::default() {
            return Self {
                provider: provider(),
                versions: ALL_VERSIONS,
                newest: options.newest,
            };
        }
        let mut provider = CryptoProvider::clone(&provider());
        provider.cipher_suites.retain(|suite| match suite.tls13() {
            Some(_) => options.newest == Newest::Tls13,
            None => options.groups.admits(suite.suite()),
        });
        let versions = match options.newest {
            Newest::Tls12 => &UP_TO_TLS12,
            Newest::Tls13 => ALL_VERSIONS,
        };
        if options.newest == Newest::Tls12 {
            provider
                .kx_groups
                .retain(|group| group.name() != NamedGroup::X25519MLKEM768);
        }
        Self {
            provider: Arc::new(provider),
            versions,
            newest: options.newest,
        }
    }
}

/// TLS 1.2 with ECDHE and AEAD only, ECDSA before RSA and AES-128 before AES-256, then the
/// three suites of TLS 1.3: the order of Ghostunnel 1.11.1, in the client's hello and for
/// the server's choice alike. Where AES is slow, or a client prefers ChaCha20, that comes first.
const CIPHER_SUITES: [SupportedCipherSuite; 9] = [
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// The post-quantum hybrid first; rustls adds a key share for plain X25519 beside it.
const KEY_EXCHANGE_GROUPS: [&dyn SupportedKxGroup; 5] = [
    kx_group::X25519MLKEM768,
    kx_group::X25519,
    kx_group::SECP256R1,
    kx_group::SECP384R1,
    &P521,
];

pub(super) fn is_chacha(suite: u16) -> bool {
    matches!(suite, 0x1303 | 0xcca8 | 0xcca9)
}

/// Puts ChaCha20 first in either version and leaves the order as it is otherwise.
pub(super) fn prefer_chacha(suites: &mut [SupportedCipherSuite]) {
    suites.sort_by_key(|suite| (suite.tls13().is_some(), !is_chacha(suite.suite().into())));
}

/// Whether the processor has instructions for AES-GCM. Without, ChaCha20 is faster.
fn has_aes_instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq")
        && std::arch::is_x86_feature_detected!("sse4.1");
    #[cfg(target_arch = "aarch64")]
    let has =
        std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

/// What a peer may sign a handshake with, in the order of Ghostunnel 1.11.1: peers with several
/// keys choose by it. PKCS#1 is for TLS 1.2 only.
pub(super) const SIGNATURE_SCHEMES: [SignatureScheme; 10] = [
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
];

/// The cryptography provider of the process, for whatever options do not concern.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut cipher_suites = CIPHER_SUITES.to_vec();
        if !has_aes_instructions() {
            prefer_chacha(&mut cipher_suites);
        }
        Arc::new(CryptoProvider {
            cipher_suites,
            kx_groups: KEY_EXCHANGE_GROUPS.to_vec(),
            ..rustls::crypto::aws_lc_rs::default_provider()
        })
    });
    Arc::clone(&PROVIDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_names_between_commas() {
        let parsed = |text: &str, unlocked| {
            CipherGroups::parse(text, unlocked)
                .map(|groups| (groups.aes, groups.chacha, groups.has_unsafe))
                .map_err(|error| error.to_string())
        };
        for (text, expected) in [
            ("AES", (true, false, false)),
            ("CHACHA", (false, true, false)),
            ("AES,CHACHA", (true, true, false)),
            (" CHACHA , AES,AES", (true, true, false)),
        ] {
            assert_eq!(parsed(text, false), Ok(expected), "{text}");
        }
        assert_eq!(parsed("UNSAFE-AZURE,AES", true), Ok((true, false, true)));
        for (text, name) in [
            ("", ""),
            ("  ", ""),
            ("AES,", ""),
            (",AES", ""),
            ("aes", "aes"),
            ("AES,RC4 ", "RC4"),
            ("AES;CHACHA", "AES;CHACHA"),
            ("UNSAFE-AZURE", "UNSAFE-AZURE"),
        ] {
            let expected = format!("invalid cipher suite '{name}' selected");
            assert_eq!(parsed(text, false), Err(expected), "{text}");
        }
        assert_eq!(
            CipherGroups::parse("UNSAFE-AZURE", true),
            Err(CipherGroupsError::OnlyUnsafe)
        );
    }

    #[test]
    fn versions_are_named_in_any_case() {
        for (text, expected) in [
            ("TLS1.2", Newest::Tls12),
            ("tls1.2", Newest::Tls12),
            ("Tls1.3", Newest::Tls13),
        ] {
            assert_eq!(Newest::parse(text), Ok(expected), "{text}");
        }
        for text in ["TLS1.1", "1.2", "TLSv1.2", " TLS1.2", "SSL3"] {
            let error = Newest::parse(text).expect_err(text);
            assert_eq!(error.to_string(), format!("unsupported TLS version: {text}"));
        }
    }

    #[test]
    fn groups_choose_suites_of_tls_1_2_only() {
        let suites = |text: &str, newest| {
            let groups = CipherGroups::parse(text, false).expect("groups");
            let protocol = Protocol::new(Options { newest, groups });
            let suites = protocol.provider.cipher_suites.iter();
            let suites: Vec<u16> = suites.map(|suite| u16::from(suite.suite())).collect();
            let groups = protocol.provider.kx_groups.len();
            (suites, groups, protocol.versions.len())
        };
        let all = [
            0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0x1301, 0x1302, 0x1303,
        ];
        let some =
            |from: usize, to: usize| all[from..to].iter().chain(&all[6..]).copied().collect::<Vec<_>>();
        assert_eq!(suites("AES,CHACHA", Newest::Tls13), (all.to_vec(), 5, 2));
        assert_eq!(suites("CHACHA,AES", Newest::Tls13), (all.to_vec(), 5, 2));
        assert_eq!(suites("AES", Newest::Tls13), (some(0, 4), 5, 2));
        assert_eq!(suites("CHACHA", Newest::Tls13), (some(4, 6), 5, 2));
        // Without the hybrid group, which TLS 1.2 does not have.
        assert_eq!(suites("CHACHA", Newest::Tls12), (all[4..6].to_vec(), 4, 1));
    }
}
