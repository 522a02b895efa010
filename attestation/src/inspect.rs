//! Evidence as it describes itself, for display.

use std::collections::BTreeMap;

use crate::cose::Envelope;
use crate::document::Fields;
use crate::hsm::{self, Token};
use crate::{Error, UnixMillis};

/// Reads a document of either format without verifying anything, for display.
///
/// # Errors
/// When the document is malformed, as [`verify_live`](crate::verify_live).
pub fn inspect(document: &[u8]) -> Result<Inspection, Error> {
    let of_nsm = match inspect_nsm(document) {
        Ok(inspection) => return Ok(inspection),
        Err(error) => error,
    };
    match inspect_hsm(document) {
        Ok(inspection) => Ok(inspection),
        // Beyond its first key it is evidence of an HSM, and what is wrong with it as such says more.
        Err(error) if hsm::looks_like_one(document) => Err(error),
        Err(_) => Err(of_nsm),
    }
}

fn inspect_nsm(document: &[u8]) -> Result<Inspection, Error> {
    let fields = Fields::parse(Envelope::parse(document)?.payload)?;
    Ok(Inspection {
        claimed_module_id: Some(fields.module_id.to_owned()),
        claimed_token: None,
        claimed_timestamp: UnixMillis(fields.timestamp),
        claimed_pcrs: fields.pcrs,
        claimed_public_key: fields.public_key.map(<[u8]>::to_vec),
        claimed_user_data: fields.user_data.map(<[u8]>::to_vec),
        claimed_nonce: fields.nonce.map(<[u8]>::to_vec),
        claimed_path: path(&fields.cabundle, fields.certificate),
    })
}

fn inspect_hsm(document: &[u8]) -> Result<Inspection, Error> {
    let (_, statement) = hsm::parse(document)?;
    Ok(Inspection {
        claimed_module_id: None,
        claimed_timestamp: statement.timestamp,
        claimed_pcrs: BTreeMap::new(),
        claimed_public_key: Some(statement.public_key.to_vec()),
        claimed_user_data: Some(statement.user_data.to_vec()),
        claimed_nonce: Some(statement.nonce.to_vec()),
        claimed_path: path(&statement.cabundle, statement.certificate),
        claimed_token: Some(statement.token),
    })
}

fn path(bundle: &[&[u8]], leaf: &[u8]) -> Vec<Vec<u8>> {
    let path = bundle.iter().copied().chain([leaf]);
    path.map(<[u8]>::to_vec).collect()
}

/// What a document claims. Nothing of it is verified: anybody can write such a document.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Names the enclave and its parent instance. Absent in evidence of an HSM.
    pub claimed_module_id: Option<String>,
    /// What an HSM's token says of itself. Absent in an NSM's document.
    pub claimed_token: Option<Token>,
    /// When the document was made.
    pub claimed_timestamp: UnixMillis,
    /// By index, 0 to 31. Empty in evidence of an HSM.
    pub claimed_pcrs: BTreeMap<u8, [u8; 48]>,
    /// Absent when the field is absent or null.
    pub claimed_public_key: Option<Vec<u8>>,
    /// Absent when the field is absent or null.
    pub claimed_user_data: Option<Vec<u8>>,
    /// Absent when the field is absent or null.
    pub claimed_nonce: Option<Vec<u8>>,
    /// DER certificates, root first, leaf last.
    pub claimed_path: Vec<Vec<u8>>,
}
