//! What is done once, by people: making the keys, asking for the certificate, probing a module.

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::Mechanism,
    session::{Session, UserType},
    types::AuthPin,
};
use sha2::{Digest as _, Sha256, Sha384};

use crate::{
    Config, HsmError, TokenChoice, ec,
    keys::{self, Handles, Known},
    module::{Module, call},
    pin::Pin,
    platform::{kek_id, names},
    probe::{self, Report},
    request::request as write_request,
};

/// The keys of a party, as people compare them.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Keys {
    /// The token, as it was chosen.
    pub token: String,
    /// Label of the key-encryption key.
    pub kek_label: String,
    /// What sealed blobs name the key-encryption key by.
    pub kek_id: String,
    /// Label of the identity key.
    pub identity_label: String,
    /// SHA-256 of the identity key's SubjectPublicKeyInfo.
    pub identity_sha256: String,
}

/// Initialises a free slot as the token of the configuration, with this PIN: for tokens in software. A vendor's own tools
/// do it for hardware. Use it once in a process.
///
/// # Errors
/// [`HsmError::Call`] with what the module said; also when the token is not chosen by label, or no slot is free.
pub fn make_token(config: &Config, so_pin: Pin, pin: Pin) -> Result<(), HsmError> {
    let failed = |cause: String| HsmError::Call {
        operation: "initialising a token",
        cause,
    };
    let said = |error: cryptoki::error::Error| failed(error.to_string());
    let TokenChoice::Label(label) = &config.token else {
        return Err(failed(
            "a new token has a label: token = { label = … }".to_owned(),
        ));
    };
    let pkcs11 = Pkcs11::new(&config.module).map_err(said)?;
    let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    pkcs11.initialize(arguments).map_err(said)?;
    let slots = || pkcs11.get_slots_with_token().map_err(said);
    let about = |slot| pkcs11.get_token_info(slot).map_err(said);
    let mut free = None;
    for slot in slots()? {
        let token = about(slot)?;
        if token.token_initialized() && token.label().trim_end() == label {
            return Err(failed(format!(
                "there is a token {label} already; nothing is replaced"
            )));
        }
        if !token.token_initialized() {
            free = Some(slot);
        }
    }
    let free = free.ok_or_else(|| failed("no slot is free for a new token".to_owned()))?;
    let so_pin = AuthPin::from(
        so_pin
            .text()
            .ok_or_else(|| failed("the SO PIN is no text".to_owned()))?,
    );
    pkcs11.init_token(free, &so_pin, label).map_err(said)?;
    // Some modules give the token another slot.
    for slot in slots()? {
        if about(slot)?.label().trim_end() == label {
            let session = pkcs11.open_rw_session(slot).map_err(said)?;
            session.login(UserType::So, Some(&so_pin)).map_err(said)?;
            let pin = pin
                .text()
                .ok_or_else(|| failed("the PIN is no text".to_owned()))?;
            session.init_pin(&AuthPin::from(pin)).map_err(said)?;
            return session.logout().map_err(said);
        }
    }
    Err(failed("the new token is not there".to_owned()))
}

/// Makes both keys in the token. Use it once in a process.
///
/// # Errors
/// [`HsmError::ObjectExists`] when the token has one of that label; nothing is ever replaced.
pub fn init(config: &Config, pin: Pin) -> Result<Keys, HsmError> {
    let module = Module::load(&config.module, &config.token, Some(pin))?;
    let (session, _) = module.open(true)?;
    let names = names(config);
    let known = keys::make(&session, &names)?;
    let (_, handles) = keys::find(&session, &names, Some(&known))?;
    sign(&session, handles, &known, &names.identity, b"init")?;
    let _ = session.close();
    Ok(Keys {
        token: names.token,
        kek_label: names.kek,
        kek_id: kek_id(&known.kek_id),
        identity_label: names.identity,
        identity_sha256: hex::encode(Sha256::digest(&known.spki)),
    })
}

/// The certification request for the identity key, PEM, signed by the token. Use it once in a process.
///
/// # Errors
/// [`HsmError`].
pub fn request(config: &Config, pin: Pin, cluster: &str, party: &str) -> Result<String, HsmError> {
    let module = Module::load(&config.module, &config.token, Some(pin))?;
    let (session, _) = module.open(false)?;
    let names = names(config);
    let (known, handles) = keys::find(&session, &names, None)?;
    let pem = write_request(cluster, party, &known.spki, |message| {
        sign(&session, handles, &known, &names.identity, message)
    })?;
    let _ = session.close();
    Ok(pem)
}

/// Asks the module what it can do; with a PIN, tries it. Use it once in a process.
///
/// # Errors
/// [`HsmError`] when the token cannot be asked; what is missing is in the report.
pub fn probe(
    module: &std::path::Path,
    token: &crate::config::TokenChoice,
    pin: Option<Pin>,
) -> Result<Report, HsmError> {
    let try_it = pin.is_some();
    let module = Module::load(module, token, pin)?;
    probe::probe(&module, try_it)
}

fn sign(
    session: &Session,
    handles: Handles,
    known: &Known,
    label: &str,
    message: &[u8],
) -> Result<Vec<u8>, HsmError> {
    let digest: [u8; 48] = Sha384::digest(message).into();
    let raw = session
        .sign(&Mechanism::Ecdsa, handles.identity, &digest)
        .map_err(|error| call("signing with the identity key", &error))?;
    ec::checked(&known.spki, &digest, &raw)
        .and_then(|raw| ec::der_signature(&raw))
        .ok_or_else(|| HsmError::WrongResult {
            label: label.to_owned(),
            what: "the token returned no signature of this key",
        })
}
