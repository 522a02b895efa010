//! The files in which a manifest travels between administrators, parties and clients.
//!
//! The draft itself is the manifest's JSON, byte for byte what is signed. A signature and the signed manifest
//! are small JSON files around it.

use std::fs;
use std::path::Path;

use arca_attestation::manifest::{Draft, SignedManifest, parse, signing_bytes};
use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha384};

use crate::error::{Error, Result};

/// One administrator's signature over one manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestSignature {
    /// SHA-384 of the manifest's bytes, so that a signature for another draft is seen for what it is.
    #[serde(with = "hex::serde")]
    pub manifest: [u8; 48],
    /// Ed25519 public key.
    #[serde(with = "hex::serde")]
    pub administrator: [u8; 32],
    /// Over [`signing_bytes`] of the manifest.
    #[serde(with = "hex::serde")]
    pub signature: [u8; 64],
}

/// What stands in a signed manifest's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedFile {
    /// The manifest's exact text.
    manifest: String,
    signatures: Vec<SignatureEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureEntry {
    #[serde(with = "hex::serde")]
    administrator: [u8; 32],
    #[serde(with = "hex::serde")]
    signature: [u8; 64],
}

/// Larger files hold no manifest: 64 KiB of JSON, escaped, and 64 signatures.
const MAX_BYTES: u64 = 512 * 1024;

/// Reads a signed manifest. Nothing is verified yet.
///
/// # Errors
/// [`Error::Config`] when the file cannot be read or is something else.
pub fn read(path: &Path) -> Result<SignedManifest> {
    let file: SignedFile = read_json(path, "signed manifest", ENROLLED)?;
    Ok(SignedManifest {
        bytes: file.manifest.into_bytes(),
        signatures: file
            .signatures
            .into_iter()
            .map(|entry| (entry.administrator, entry.signature))
            .collect(),
    })
}

/// Writes a signed manifest to a new file.
///
/// # Errors
/// [`Error::Config`] when it exists or cannot be written.
pub fn write(path: &Path, manifest: &SignedManifest) -> Result<()> {
    let file = SignedFile {
        manifest: String::from_utf8(manifest.bytes.clone())
            .map_err(|_| Error::input(path.display(), "a manifest has to be text"))?,
        signatures: manifest
            .signatures
            .iter()
            .map(|(administrator, signature)| SignatureEntry {
                administrator: *administrator,
                signature: *signature,
            })
            .collect(),
    };
    write_json(path, &file)
}

/// Reads a draft: its bytes, and what they say.
///
/// # Errors
/// [`Error::Config`] when it cannot be read, [`Error::Unverified`] when no verifier would accept it.
pub fn read_draft(path: &Path) -> Result<(Vec<u8>, Draft)> {
    let bytes = read_bytes(path)?;
    let draft = parse(&bytes).map_err(|cause| Error::unverified(path.display(), cause))?;
    Ok((bytes, draft))
}

/// Reads an administrator's signature.
///
/// # Errors
/// As [`read`].
pub fn read_signature(path: &Path) -> Result<ManifestSignature> {
    read_json(path, "manifest signature", ENROLLED)
}

/// Writes an administrator's signature to a new file.
///
/// # Errors
/// As [`write()`].
pub fn write_signature(path: &Path, signature: &ManifestSignature) -> Result<()> {
    write_json(path, signature)
}

/// Signs a manifest's bytes as an administrator.
pub fn sign(manifest: &[u8], key: &SigningKey) -> ManifestSignature {
    ManifestSignature {
        manifest: Sha384::digest(manifest).into(),
        administrator: key.verifying_key().to_bytes(),
        signature: key.sign(&signing_bytes(manifest)).to_bytes(),
    }
}

/// Puts a manifest and its administrators' signatures together.
///
/// # Errors
/// [`Error::Unverified`] when a signature is for another manifest.
pub fn assemble(manifest: Vec<u8>, signatures: &[ManifestSignature]) -> Result<SignedManifest> {
    let digest: [u8; 48] = Sha384::digest(&manifest).into();
    if let Some(other) = signatures
        .iter()
        .find(|signature| signature.manifest != digest)
    {
        return Err(Error::unverified(
            format!(
                "signature of administrator {}",
                hex::encode(other.administrator)
            ),
            "it is for another manifest",
        ));
    }
    Ok(SignedManifest {
        bytes: manifest,
        signatures: signatures
            .iter()
            .map(|signature| (signature.administrator, signature.signature))
            .collect(),
    })
}

/// Writes `contents` to a file that does not exist yet.
pub(crate) fn write_new(path: &Path, contents: &[u8]) -> Result<()> {
    use std::io::Write;
    fs::File::create_new(path)
        .and_then(|mut file| file.write_all(contents))
        .map_err(|cause| {
            Error::config(
                path.display(),
                format!("cannot be written: {cause}"),
                "name a new file in a folder that exists; nothing is overwritten",
            )
        })
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(Error::bug)?;
    text.push(b'\n');
    write_new(path, &text)
}

pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(
    path: &Path,
    what: &str,
    advice: &str,
) -> Result<T> {
    serde_json::from_slice(&read_bytes(path)?)
        .map_err(|cause| Error::config(path.display(), format!("is no {what}: {cause}"), advice))
}

/// What to name instead of something else.
const ENROLLED: &str = "name the file that `arca party enroll` wrote";

pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let unreadable = |cause: std::io::Error| {
        Error::config(
            path.display(),
            format!("cannot be read: {cause}"),
            "check the path",
        )
    };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::config(
            path.display(),
            "is too large",
            "check the path",
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_manifest_comes_back_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.signed.json");
        let text = "{\n  \"cluster\": \"sim-\\u0061\",\t\"x\": \"é\"\r\n}"
            .as_bytes()
            .to_vec();
        let key = SigningKey::from_bytes(&[1; 32]);
        let signed = assemble(text.clone(), &[sign(&text, &key)]).unwrap();
        write(&path, &signed).unwrap();
        assert_eq!(read(&path).unwrap(), signed);
        assert!(write(&path, &signed).is_err(), "a manifest was overwritten");
    }

    #[test]
    fn a_signature_for_another_draft_is_refused() {
        let signature = sign(b"one", &SigningKey::from_bytes(&[1; 32]));
        assert!(matches!(
            assemble(b"other".to_vec(), &[signature]),
            Err(Error::Unverified { .. })
        ));
    }

    #[test]
    fn unknown_fields_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.signed.json");
        fs::write(&path, r#"{"manifest": "", "signatures": [], "more": 1}"#).unwrap();
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .contains("unknown field")
        );
    }
}
