//! The module, the token in it, and sessions that have found the key.

use std::mem::ManuallyDrop;
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11 as Module};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;

use super::super::Pkcs11;
use super::failure::{Failure, Half, is_about_pin};
use super::pool::Device;
use super::public_key::PublicKey;
use super::signature::Method;

/// A token, and the key in it that is to sign.
pub(super) struct Token {
    settings: Pkcs11,
    public_key: PublicKey,
    /// Never unloaded: a thread may be in it, at the end of the process too.
    module: ManuallyDrop<Module>,
    /// Whether somebody else in this process had started the module, who will then end it.
    is_shared: bool,
    login: Mutex<Login>,
}

/// What the token has said to the PIN.
#[derive(Default)]
struct Login {
    is_refused: bool,
}

/// A session that is logged in and has found the key.
pub(super) struct KeySession {
    session: Session,
    key: ObjectHandle,
    /// The token wants the PIN for each signature (CKA_ALWAYS_AUTHENTICATE).
    wants_pin: bool,
}

impl Token {
    /// Loads and starts the module.
    pub(super) fn load(settings: Pkcs11, public_key: PublicKey) -> Result<Self, Failure> {
        let failure = |reason: String| Failure::Module {
            module: settings.module.clone(),
            reason,
        };
        // A name without a slash would be looked for where the system has its libraries.
        let path = std::path::absolute(&settings.module).unwrap_or_else(|_| settings.module.clone());
        let module = Module::new(path).map_err(|error| failure(loader_text(&error)))?;
        let module = ManuallyDrop::new(module);
        let is_shared = start(&module).map_err(|error| failure(super::failure::text(&error)))?;
        Ok(Self {
            settings,
            public_key,
            module,
            is_shared,
            login: Mutex::default(),
        })
    }

    pub(super) fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// What the token can compute; empty if it does not tell.
    pub(super) fn mechanisms(&self) -> Vec<MechanismType> {
        let slot = self.slot().map(|(slot, _)| slot);
        slot.ok()
            .and_then(|slot| self.module.get_mechanism_list(slot).ok())
            .unwrap_or_default()
    }

    /// Signs in a session that has the key.
    pub(super) fn sign(
        &self,
        session: &KeySession,
        method: Method,
        message: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let raw = if session.wants_pin {
            self.sign_with_pin(session, method, message)
        } else {
            let input = method.input(message);
            session.session.sign(&method.mechanism(), session.key, &input)
        };
        let raw = raw.map_err(|error| {
            if is_about_pin(&error) {
                self.refuse_pin();
            }
            Failure::Sign(error)
        })?;
        let length = raw.len();
        method.encode(raw).ok_or(Failure::NoSignature(length))
    }

    fn sign_with_pin(&self, session: &KeySession, method: Method, message: &[u8]) -> Result<Vec<u8>, Error> {
        let KeySession { session, key, .. } = session;
        session.sign_init(&method.hashing_mechanism(), *key)?;
        session.login(UserType::ContextSpecific, Some(&self.pin()))?;
        session.sign_update(message)?;
        session.sign_final()
    }

    /// The first slot whose token has the label.
    fn slot(&self) -> Result<(Slot, TokenInfo), Failure> {
        let slots = self.module.get_slots_with_token().map_err(Failure::Session)?;
        slots
            .into_iter()
            // A token that does not tell its label is not the one.
            .filter_map(|slot| Some((slot, self.module.get_token_info(slot).ok()?)))
            .find(|(_, token)| token.label() == self.settings.token_label)
            .ok_or_else(|| Failure::NoToken(self.settings.token_label.clone()))
    }

    /// Logs the process in, for all its sessions with this token.
    ///
    /// One at a time, and never again with a PIN that was refused: tokens count wrong PINs and
    /// lock themselves, and each handshake would be one more.
    fn login(&self, session: &Session, token: &TokenInfo) -> Result<(), Failure> {
        let mut login = self.login.lock().unwrap_or_else(PoisonError::into_inner);
        if login.is_refused {
            return Err(Failure::PinRefused);
        }
        let pin = self.pin();
        // A PIN is always shown, an empty one too, except where the reader has keys for it.
        let is_typed_there = token.protected_authentication_path() && self.settings.pin.expose().is_empty();
        let shown = (!is_typed_there).then_some(&pin);
        match session.login(UserType::User, shown) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(error) => {
                login.is_refused = is_about_pin(&error);
                Err(Failure::Session(error))
            }
        }
    }

    fn refuse_pin(&self) {
        self.login
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_refused = true;
    }

    /// In memory that is wiped when it is dropped.
    fn pin(&self) -> AuthPin {
        AuthPin::new(self.settings.pin.expose().into())
    }

    /// The private key with the CKA_ID of the certificate's public key.
    fn find_key(&self, session: &Session) -> Result<ObjectHandle, Failure> {
        for template in self.public_key.templates() {
            if let Some(public) = only_one(session, Half::Public, &template)? {
                let id = Attribute::Id(id(session, public)?);
                let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), id];
                let private = only_one(session, Half::Private, &template)?;
                return private.ok_or(Failure::NoKey(Half::Private));
            }
        }
        let private = match self.public_key.private_template() {
            Some(template) => only_one(session, Half::Private, &template)?,
            None => None,
        };
        private.ok_or(Failure::NoKey(Half::Public))
    }
}

impl Device for Token {
    type Session = KeySession;

    fn name(&self) -> String {
        format!(
            "token {:?} of module {:?}",
            self.settings.token_label, self.settings.module
        )
    }

    fn open(&self) -> Result<KeySession, Failure> {
        let (slot, token) = self.slot()?;
        let opened = self.module.open_ro_session_no_drop(slot);
        let session = opened.map_err(Failure::Session)?;
        let found = self
            .login(&session, &token)
            .and_then(|()| self.find_key(&session));
        match found {
            Ok(key) => Ok(KeySession {
                wants_pin: wants_pin(&session, key),
                session,
                key,
            }),
            Err(failure) => {
                let _may_be_gone = session.close();
                Err(failure)
            }
        }
    }

    fn close(&self, session: KeySession) {
        let _may_be_gone = session.session.close();
    }

    fn restart(&self) -> Result<(), Failure> {
        if self.is_shared {
            return Ok(());
        }
        // It may have been ended by whatever was lost.
        let _may_have_ended = Module::clone(&self.module).finalize();
        start(&self.module).map(drop).map_err(Failure::Session)
    }
}

/// Starts a module for use by several threads; says whether it was running already.
fn start(module: &Module) -> Result<bool, Error> {
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) => Ok(false),
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// The dynamic loader's words, which name the file that it did not find.
fn loader_text(error: &Error) -> String {
    match error {
        Error::LibraryLoading(error) => {
            let mut innermost: &dyn std::error::Error = error;
            while let Some(source) = innermost.source() {
                innermost = source;
            }
            innermost.to_string()
        }
        Error::MissingSymbol(name) => format!("it has no function {name}"),
        other => super::failure::text(other),
    }
}

/// The only object like this. `None` if there is none.
fn only_one(session: &Session, half: Half, template: &[Attribute]) -> Result<Option<ObjectHandle>, Failure> {
    let found = session
        .find_objects(template)
        .map_err(|error| Failure::LookUp { half, error })?;
    match found.as_slice() {
        [] => Ok(None),
        [object] => Ok(Some(*object)),
        _ => Err(Failure::ManyKeys(half)),
    }
}

fn id(session: &Session, object: ObjectHandle) -> Result<Vec<u8>, Failure> {
    let attributes = session
        .get_attributes(object, &[AttributeType::Id])
        .map_err(|error| Failure::LookUp {
            half: Half::Public,
            error,
        })?;
    match attributes.into_iter().next() {
        Some(Attribute::Id(id)) => Ok(id),
        _ => Ok(Vec::new()),
    }
}

/// Tokens that do not know the attribute do not want it.
fn wants_pin(session: &Session, key: ObjectHandle) -> bool {
    let attributes = session.get_attributes(key, &[AttributeType::AlwaysAuthenticate]);
    matches!(attributes.as_deref(), Ok([Attribute::AlwaysAuthenticate(true)]))
}

impl KeySession {
    /// Whether the token wants the PIN for each signature.
    pub(super) fn wants_pin(&self) -> bool {
        self.wants_pin
    }
}
