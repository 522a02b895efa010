//! The PKCS#11 module and the one token in it: finding, logging in, starting over.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arca_attestation::hsm::Token;
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error as CallError, RvError},
    session::{Session, UserType},
    slot::{Slot, TokenInfo},
};

use crate::{HsmError, config::TokenChoice, pin::Pin};

/// Some modules do not survive being initialised twice at a time, and none needs to be.
static LOADED: AtomicBool = AtomicBool::new(false);

/// The loaded module, initialised, with the token that was chosen.
pub(crate) struct Module {
    pkcs11: Pkcs11,
    path: PathBuf,
    choice: TokenChoice,
    pin: Option<Pin>,
    /// Held while logging in: two sessions must not try a PIN at the same time. What it holds is why nobody may try.
    login: Mutex<Option<HsmError>>,
}

impl Module {
    /// Loads and initialises it. Once a process.
    pub(crate) fn load(
        path: &Path,
        choice: &TokenChoice,
        pin: Option<Pin>,
    ) -> Result<Self, HsmError> {
        if LOADED.swap(true, Ordering::SeqCst) {
            return Err(HsmError::AlreadyLoaded);
        }
        let failed = |error: CallError| HsmError::Module {
            path: path.display().to_string(),
            cause: brief(&error),
        };
        let pkcs11 = Pkcs11::new(path).map_err(failed)?;
        // Never unloaded: threads that the module has started may outlive everything here.
        std::mem::forget(pkcs11.clone());
        let module = Self {
            pkcs11,
            path: path.to_owned(),
            choice: choice.clone(),
            pin,
            login: Mutex::new(None),
        };
        module.initialise()?;
        Ok(module)
    }

    fn initialise(&self) -> Result<(), HsmError> {
        let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        self.pkcs11
            .initialize(arguments)
            .map_err(|error| HsmError::Module {
                path: self.path.display().to_string(),
                cause: brief(&error),
            })
    }

    /// C_Finalize, then C_Initialize. No other call may be under way.
    pub(crate) fn start_over(&self) -> Result<(), HsmError> {
        if let Err(error) = self.pkcs11.clone().finalize() {
            tracing::debug!(error = brief(&error), "C_Finalize");
        }
        self.initialise()
    }

    pub(crate) fn pkcs11(&self) -> &Pkcs11 {
        &self.pkcs11
    }

    /// The one token that matches.
    pub(crate) fn find(&self) -> Result<(Slot, TokenInfo), HsmError> {
        let slots = self
            .pkcs11
            .get_slots_with_token()
            .map_err(|error| call("listing tokens", &error))?;
        let tokens = slots
            .into_iter()
            .filter_map(|slot| Some((slot, self.pkcs11.get_token_info(slot).ok()?)))
            .filter(|(_, token)| token.token_initialized());
        let (matching, others): (Vec<_>, Vec<_>) =
            tokens.partition(|(_, token)| match &self.choice {
                TokenChoice::Label(label) => token.label().trim_end() == label.trim_end(),
                TokenChoice::Serial(serial) => token.serial_number().trim() == serial.trim(),
            });
        let describe = |tokens: &[(Slot, TokenInfo)]| {
            let each = tokens.iter().map(|(_, token)| {
                format!(
                    "label `{}` serial `{}`",
                    token.label().trim_end(),
                    token.serial_number().trim()
                )
            });
            each.collect::<Vec<_>>().join(", ")
        };
        match <[_; 1]>::try_from(matching) {
            Ok([found]) => Ok(found),
            Err(none) if none.is_empty() => Err(HsmError::NoToken {
                wanted: self.choice.to_string(),
                found: match others.as_slice() {
                    [] => "there is none at all".to_owned(),
                    others => format!("there is {}", describe(others)),
                },
            }),
            Err(many) => Err(HsmError::ManyTokens {
                wanted: self.choice.to_string(),
                count: many.len(),
                found: describe(&many),
            }),
        }
    }

    /// A session with the token, logged in. `write` for making objects.
    pub(crate) fn open(&self, write: bool) -> Result<(Session, Slot), HsmError> {
        let (slot, _) = self.find()?;
        let session = if write {
            self.pkcs11.open_rw_session_no_drop(slot)
        } else {
            self.open_to_read(slot)
        }
        .map_err(|error| call("opening a session", &error))?;
        match self.log_in(&session, slot) {
            Ok(()) => Ok((session, slot)),
            Err(error) => {
                let _ = session.close();
                Err(error)
            }
        }
    }

    /// A session that makes no objects; where a module has only the other kind (AWS CloudHSM), that one.
    ///
    /// Sessions are closed by hand: a handle from before C_Finalize may name somebody else's session after it.
    pub(crate) fn open_to_read(&self, slot: Slot) -> Result<Session, CallError> {
        self.pkcs11
            .open_ro_session_no_drop(slot)
            .or_else(|_| self.pkcs11.open_rw_session_no_drop(slot))
    }

    /// Why nobody may try the PIN, once it was refused.
    pub(crate) fn pin_refused(&self) -> Option<HsmError> {
        self.login_state().clone()
    }

    fn login_state(&self) -> MutexGuard<'_, Option<HsmError>> {
        self.login.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs in unless another session of this process has. A PIN that was refused is not tried again, and none is
    /// tried on a token that would lock.
    fn log_in(&self, session: &Session, slot: Slot) -> Result<(), HsmError> {
        let Some(pin) = &self.pin else {
            return Ok(());
        };
        let mut refused = self.login_state();
        if let Some(error) = refused.as_ref() {
            return Err(error.clone());
        }
        let token = self
            .pkcs11
            .get_token_info(slot)
            .map_err(|error| call("reading the token's state", &error))?;
        let no = |cause, remedy| HsmError::Pin {
            token: format!("token {}", self.choice),
            cause,
            remedy,
        };
        let danger = if token.user_pin_locked() {
            Some(no(
                "the user's PIN is locked",
                "the security officer has to set a new one (C_InitPIN)",
            ))
        } else if token.user_pin_final_try() {
            Some(no(
                "one more wrong PIN locks the token, so none is tried",
                "log in once by the vendor's tool with the right PIN, which resets the count, and check the PIN file",
            ))
        } else if !token.user_pin_initialized() && token.login_required() {
            Some(no(
                "the token has no user PIN",
                "initialise it as docs/hsm.md says, then start again",
            ))
        } else {
            None
        };
        if let Some(error) = danger {
            *refused = Some(error.clone());
            return Err(error);
        }
        if token.user_pin_count_low() {
            tracing::warn!("a wrong PIN was tried on this token since the last login");
        }
        let outcome = session.login_with_raw(UserType::User, &pin.0);
        let cause = match outcome {
            Ok(()) | Err(CallError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => return Ok(()),
            Err(CallError::Pkcs11(error, _)) => match error {
                RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
                    "the PIN is wrong"
                }
                RvError::PinLocked => "the user's PIN is locked",
                RvError::PinExpired => "the PIN has expired",
                RvError::UserPinNotInitialized => "the token has no user PIN",
                _ => {
                    return Err(call(
                        "logging in",
                        &CallError::Pkcs11(error, cryptoki::context::Function::Login),
                    ));
                }
            },
            Err(error) => return Err(call("logging in", &error)),
        };
        let error = no(
            cause,
            "correct the PIN file, or have the security officer set a new PIN",
        );
        *refused = Some(error.clone());
        Err(error)
    }
}

/// What the token says of itself, as evidence states it.
pub(crate) fn stated(token: &TokenInfo) -> Token {
    let firmware = token.firmware_version();
    Token::new(
        token.manufacturer_id(),
        token.model(),
        token.serial_number(),
        &format!("{}.{}", firmware.major(), firmware.minor()),
    )
}

pub(crate) fn call(operation: &'static str, error: &CallError) -> HsmError {
    HsmError::Call {
        operation,
        cause: brief(error),
    }
}

/// The function and the code by the names of the standard; the crate's own text is a paragraph.
pub(crate) fn brief(error: &CallError) -> String {
    match error {
        CallError::Pkcs11(RvError::VendorDefined(code), function) => {
            format!("C_{function:?} returned the vendor's code 0x{code:08x}")
        }
        CallError::Pkcs11(code, function) => format!("C_{function:?} returned {}", name(*code)),
        other => other.to_string(),
    }
}

/// `SessionHandleInvalid` is CKR_SESSION_HANDLE_INVALID.
fn name(code: RvError) -> String {
    let mut name = "CKR".to_owned();
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}
