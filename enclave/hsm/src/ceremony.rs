//! What is done once, by people: making the keys, asking for the certificate, probing a module.

use cryptoki::{mechanism::Mechanism, session::Session};
use sha2::{Digest as _, Sha256, Sha384};

use crate::{
    Config, HsmError, ec,
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
