//! What goes wrong with a token, in the words that operators know.

use std::path::PathBuf;

use cryptoki::error::{Error, RvError};

/// Why there is no key, or no signature.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The module is no module, or does not start.
    #[error("pkcs11key: failed to load module '{}'", .module.display())]
    Module {
        /// The file.
        module: PathBuf,
        /// What the dynamic loader or the module says.
        reason: String,
    },
    /// No slot has a token of this name.
    #[error("pkcs11key: pkcs11key: opening session: no slot found matching token label {0:?}")]
    NoToken(String),
    /// A session could not be opened or logged in.
    #[error("pkcs11key: pkcs11key: opening session: {}", text(.0))]
    Session(Error),
    /// The PIN was refused before; it is not shown to the token again.
    #[error(
        "pkcs11key: pkcs11key: opening session: the PIN was refused before, and is not tried again lest the \
         token be locked; restart with the right one"
    )]
    PinRefused,
    /// There is nothing on the token that could be the key.
    #[error("pkcs11key: looking up {0} key: no objects found")]
    NoKey(Half),
    /// There are several.
    #[error("pkcs11key: looking up {0} key: too many objects returned from FindObjects")]
    ManyKeys(Half),
    /// Looking for it failed.
    #[error("pkcs11key: looking up {half} key: {}", text(.error))]
    LookUp {
        /// Which half of the key was looked for.
        half: Half,
        /// What the module answered.
        error: Error,
    },
    /// The certificate's key is of a kind that is not used through tokens.
    #[error("pkcs11key: looking up public key: unsupported public key of type {0}")]
    Unsupported(&'static str),
    /// The token has the key, but none of the mechanisms to sign with it in TLS.
    #[error("pkcs11key: the token has no mechanism to sign with this key")]
    NoMechanism,
    /// The token has signed, but not with the certificate's key.
    #[error("pkcs11key: the private key does not sign for the certificate")]
    OtherKey,
    /// The token did not sign.
    #[error("pkcs11key: signing: {}", text(.0))]
    Sign(Error),
    /// What the token gave is no signature.
    #[error("pkcs11key: signing: the token returned {0} bytes, which is no signature of this key")]
    NoSignature(usize),
    /// All sessions are in use, and none came free in time.
    #[error("pkcs11key: signing: all {0} sessions of the token are busy")]
    Busy(usize),
}

/// One half of a key pair, each an object of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Public,
    Private,
}

impl std::fmt::Display for Half {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Private => "private",
        })
    }
}

impl Failure {
    /// Whether a new session, or a module started anew, might help. No for what the token
    /// has understood and refuses.
    pub(super) fn is_loss(&self) -> bool {
        match self {
            Self::NoToken(_) | Self::NoKey(_) | Self::NoSignature(_) => true,
            Self::Session(error) | Self::LookUp { error, .. } | Self::Sign(error) => !is_refusal(error),
            Self::Module { .. }
            | Self::PinRefused
            | Self::ManyKeys(_)
            | Self::Unsupported(_)
            | Self::NoMechanism
            | Self::OtherKey
            | Self::Busy(_) => false,
        }
    }

    /// Whether the token lets nobody open one more session now.
    pub(super) fn is_shortage(&self) -> bool {
        matches!(self, Self::Session(Error::Pkcs11(RvError::SessionCount, _)))
    }

    /// Whether the session's handle is void, so that it must not be closed: another session
    /// may have got the same by now.
    pub(super) fn voids_session(&self) -> bool {
        use RvError::{CryptokiNotInitialized, SessionClosed, SessionHandleInvalid};
        let (Self::LookUp { error, .. } | Self::Sign(error)) = self else {
            return false;
        };
        matches!(
            error,
            Error::Pkcs11(CryptokiNotInitialized | SessionClosed | SessionHandleInvalid, _)
        )
    }

    /// What to change, as the end of a message at the start.
    pub(super) fn remedy(&self) -> String {
        let text = match self {
            Self::Module { reason, .. } => {
                return format!(
                    ": {reason}; --pkcs11-module must name the shared library of a PKCS#11 module. If it needs \
                     files or ports of its own, name them with --sandbox-allow-read, --sandbox-allow-write and \
                     --sandbox-allow-connect"
                );
            }
            Self::NoToken(_) => {
                "; --pkcs11-token-label must be the label of a token that is there. If the module needs files \
                 or ports of its own to find it, name them with --sandbox-allow-read, --sandbox-allow-write \
                 and --sandbox-allow-connect"
            }
            Self::Session(Error::Pkcs11(RvError::PinIncorrect | RvError::PinLenRange, _)) => {
                "; --pkcs11-pin must be the user's PIN"
            }
            Self::NoKey(_) => {
                "; the token must hold public and private key, with the same CKA_ID, of the first certificate"
            }
            Self::ManyKeys(_) => "; the token must hold the key once, with a CKA_ID of its own",
            Self::OtherKey => "; CKA_ID must tell which private key belongs to the certificate's public key",
            Self::Unsupported(_) => {
                "; through tokens it must be RSA of 2048 to 8192 bits, or ECDSA on P-256, P-384 or P-521"
            }
            Self::Session(_)
            | Self::PinRefused
            | Self::LookUp { .. }
            | Self::NoMechanism
            | Self::Sign(_)
            | Self::NoSignature(_)
            | Self::Busy(_) => "",
        };
        text.to_owned()
    }
}

/// What the token will answer again, however often it is asked.
fn is_refusal(error: &Error) -> bool {
    use RvError::{
        DataInvalid, DataLenRange, FunctionNotSupported, KeyFunctionNotPermitted, KeySizeRange,
        KeyTypeInconsistent, MechanismInvalid, MechanismParamInvalid, PinExpired, PinIncorrect, PinInvalid,
        PinLenRange, PinLocked, SessionCount, UserPinNotInitialized,
    };
    match error {
        Error::Pkcs11(code, _) => matches!(
            code,
            DataInvalid
                | DataLenRange
                | FunctionNotSupported
                | KeyFunctionNotPermitted
                | KeySizeRange
                | KeyTypeInconsistent
                | MechanismInvalid
                | MechanismParamInvalid
                | PinExpired
                | PinIncorrect
                | PinInvalid
                | PinLenRange
                | PinLocked
                | SessionCount
                | UserPinNotInitialized
        ),
        _ => true,
    }
}

/// Whether the token has looked at the PIN and does not take it.
pub(super) fn is_about_pin(error: &Error) -> bool {
    use RvError::{PinExpired, PinIncorrect, PinInvalid, PinLenRange, PinLocked};
    matches!(
        error,
        Error::Pkcs11(
            PinExpired | PinIncorrect | PinInvalid | PinLenRange | PinLocked,
            _
        )
    )
}

/// `pkcs11: 0xA0: CKR_PIN_INCORRECT`, as Ghostunnel 1.11.1 has it and vendors document it.
pub(super) fn text(error: &Error) -> String {
    match error {
        Error::Pkcs11(RvError::VendorDefined(code), function) => {
            let function = function.to_string();
            let function = function.trim_start_matches("Function::");
            format!("pkcs11: 0x{code:X}: vendor's code, from C_{function}")
        }
        Error::Pkcs11(code, _) => {
            let name = name(*code);
            let number = CODES.iter().find(|(_, known)| known == code);
            number.map_or_else(
                || format!("pkcs11: {name}"),
                |(number, _)| format!("pkcs11: 0x{number:X}: {name}"),
            )
        }
        other => format!("pkcs11: {other}"),
    }
}

/// `CKR_PIN_INCORRECT` of `PinIncorrect`.
fn name(code: RvError) -> String {
    let mut name = "CKR".to_owned();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// Numbers of the codes that occur (PKCS#11 3.0, header pkcs11t.h).
const CODES: [(u32, RvError); 42] = [
    (0x02, RvError::HostMemory),
    (0x03, RvError::SlotIdInvalid),
    (0x05, RvError::GeneralError),
    (0x06, RvError::FunctionFailed),
    (0x07, RvError::ArgumentsBad),
    (0x09, RvError::NeedToCreateThreads),
    (0x0a, RvError::CantLock),
    (0x11, RvError::AttributeSensitive),
    (0x12, RvError::AttributeTypeInvalid),
    (0x13, RvError::AttributeValueInvalid),
    (0x20, RvError::DataInvalid),
    (0x21, RvError::DataLenRange),
    (0x30, RvError::DeviceError),
    (0x31, RvError::DeviceMemory),
    (0x32, RvError::DeviceRemoved),
    (0x50, RvError::FunctionCanceled),
    (0x54, RvError::FunctionNotSupported),
    (0x60, RvError::KeyHandleInvalid),
    (0x62, RvError::KeySizeRange),
    (0x63, RvError::KeyTypeInconsistent),
    (0x68, RvError::KeyFunctionNotPermitted),
    (0x70, RvError::MechanismInvalid),
    (0x71, RvError::MechanismParamInvalid),
    (0x82, RvError::ObjectHandleInvalid),
    (0x90, RvError::OperationActive),
    (0x91, RvError::OperationNotInitialized),
    (0xa0, RvError::PinIncorrect),
    (0xa1, RvError::PinInvalid),
    (0xa2, RvError::PinLenRange),
    (0xa3, RvError::PinExpired),
    (0xa4, RvError::PinLocked),
    (0xb0, RvError::SessionClosed),
    (0xb1, RvError::SessionCount),
    (0xb3, RvError::SessionHandleInvalid),
    (0xe0, RvError::TokenNotPresent),
    (0xe1, RvError::TokenNotRecognized),
    (0x100, RvError::UserAlreadyLoggedIn),
    (0x101, RvError::UserNotLoggedIn),
    (0x102, RvError::UserPinNotInitialized),
    (0x104, RvError::UserAnotherAlreadyLoggedIn),
    (0x190, RvError::CryptokiNotInitialized),
    (0x191, RvError::CryptokiAlreadyInitialized),
];

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn codes_read_as_vendors_document_them() {
        for (code, expected) in [
            (RvError::PinIncorrect, "pkcs11: 0xA0: CKR_PIN_INCORRECT"),
            (
                RvError::SessionHandleInvalid,
                "pkcs11: 0xB3: CKR_SESSION_HANDLE_INVALID",
            ),
            (
                RvError::CryptokiNotInitialized,
                "pkcs11: 0x190: CKR_CRYPTOKI_NOT_INITIALIZED",
            ),
            // No number is known here.
            (RvError::NextOtp, "pkcs11: CKR_NEXT_OTP"),
            (
                RvError::VendorDefined(0x8000_0001),
                "pkcs11: 0x80000001: vendor's code, from C_Login",
            ),
        ] {
            assert_eq!(text(&Error::Pkcs11(code, Function::Login)), expected);
        }
    }

    #[test]
    fn what_the_token_refuses_is_no_loss_and_the_rest_is() {
        let failure = |code| Failure::Sign(Error::Pkcs11(code, Function::Sign));
        for code in [
            RvError::SessionHandleInvalid,
            RvError::SessionClosed,
            RvError::DeviceRemoved,
            RvError::DeviceError,
            RvError::TokenNotPresent,
            RvError::UserNotLoggedIn,
            RvError::ObjectHandleInvalid,
            RvError::KeyHandleInvalid,
            RvError::CryptokiNotInitialized,
            RvError::GeneralError,
            RvError::VendorDefined(0x8000_0001),
        ] {
            assert!(failure(code).is_loss(), "{code:?}");
        }
        for code in [
            RvError::PinIncorrect,
            RvError::PinLocked,
            RvError::KeyFunctionNotPermitted,
            RvError::MechanismInvalid,
        ] {
            assert!(!failure(code).is_loss(), "{code:?}");
        }
        assert!(Failure::NoToken(String::new()).is_loss());
        assert!(!Failure::PinRefused.is_loss());
    }
}
