//! The files in which the acceptance of a loss travels between administrators: the draft's JSON, byte for byte what is
//! signed, and signatures over it.

use std::path::Path;

use arca_attestation::loss::{Draft, SignedLossAcceptance, parse, signing_bytes};
use ed25519_dalek::{Signer as _, SigningKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha384};

use crate::error::{Error, Result};
use crate::manifest_file::{read_bytes, read_json, write_json};

/// One administrator's signature over one acceptance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossSignature {
    /// SHA-384 of the acceptance's bytes, so that a signature for another draft is seen for what it is.
    #[serde(with = "hex::serde")]
    pub accepted_loss: [u8; 48],
    /// Ed25519 public key.
    #[serde(with = "hex::serde")]
    pub administrator: [u8; 32],
    /// Over [`signing_bytes`] of the acceptance.
    #[serde(with = "hex::serde")]
    pub signature: [u8; 64],
}

/// Reads a draft: its bytes, and what they say.
///
/// # Errors
/// [`Error::Config`] when it cannot be read, [`Error::Unverified`] when no enclave would accept it.
pub fn read_draft(path: &Path) -> Result<(Vec<u8>, Draft)> {
    let bytes = read_bytes(path)?;
    let draft = parse(&bytes).map_err(|cause| Error::unverified(path.display(), cause))?;
    Ok((bytes, draft))
}

/// Signs an acceptance's bytes as an administrator.
pub fn sign(acceptance: &[u8], key: &SigningKey) -> LossSignature {
    LossSignature {
        accepted_loss: Sha384::digest(acceptance).into(),
        administrator: key.verifying_key().to_bytes(),
        signature: key.sign(&signing_bytes(acceptance)).to_bytes(),
    }
}

/// Reads an administrator's signature.
///
/// # Errors
/// [`Error::Config`] when the file cannot be read or is something else.
pub fn read_signature(path: &Path) -> Result<LossSignature> {
    read_json(
        path,
        "signature of an accepted loss",
        "name the file that `arca party accept-loss sign` wrote",
    )
}

/// Writes an administrator's signature to a new file.
///
/// # Errors
/// [`Error::Config`] when it exists or cannot be written.
pub fn write_signature(path: &Path, signature: &LossSignature) -> Result<()> {
    write_json(path, signature)
}

/// Puts an acceptance and its administrators' signatures together.
///
/// # Errors
/// [`Error::Unverified`] when a signature is for another draft.
pub fn assemble(bytes: Vec<u8>, signatures: &[LossSignature]) -> Result<SignedLossAcceptance> {
    let digest: [u8; 48] = Sha384::digest(&bytes).into();
    let other = signatures.iter().find(|one| one.accepted_loss != digest);
    if let Some(other) = other {
        let object = format!(
            "signature of administrator {}",
            hex::encode(other.administrator)
        );
        return Err(Error::unverified(object, "it is for another draft"));
    }
    Ok(SignedLossAcceptance {
        bytes,
        signatures: signatures
            .iter()
            .map(|one| (one.administrator, one.signature))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_for_another_draft_is_refused() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let signature = sign(b"one", &key);
        assert!(assemble(b"one".to_vec(), std::slice::from_ref(&signature)).is_ok());
        assert!(matches!(
            assemble(b"other".to_vec(), &[signature]),
            Err(Error::Unverified { .. })
        ));
    }

    #[test]
    fn a_signature_comes_back_and_is_no_manifests() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alice.json");
        let key = SigningKey::from_bytes(&[1; 32]);
        write_signature(&path, &sign(b"one", &key)).unwrap();
        assert_eq!(read_signature(&path).unwrap(), sign(b"one", &key));
        assert!(crate::manifest_file::read_signature(&path).is_err());
    }
}
