//! The certificate path of the identity key, as the operator's files have it.

use std::path::{Path, PathBuf};

use der::{Decode as _, Encode as _};
use x509_cert::Certificate;

use crate::HsmError;

/// Larger than any path, smaller than a mistake.
const MAX_FILE: u64 = 256 * 1024;
const MAX_FILES: usize = 32;

/// The path in the order of evidence.
pub(crate) struct CertificatePath {
    /// Of the identity key, DER.
    pub(crate) leaf: Vec<u8>,
    /// Root first, the leaf's issuer last, DER.
    pub(crate) bundle: Vec<Vec<u8>>,
}

impl CertificatePath {
    /// Reads the files and puts in order what leads from the key `spki` up to a self-signed root. Whether it holds is
    /// for verifiers to say.
    pub(crate) fn load(places: &[PathBuf], spki: &[u8]) -> Result<Self, HsmError> {
        let mut all = Vec::new();
        for file in files(places)? {
            read(&file, &mut all)?;
        }
        let bad = |what: String| HsmError::Certificates(what);
        let encoded = |certificate: &Certificate| {
            certificate.to_der().map_err(|error| bad(error.to_string()))
        };
        let is_ours = |certificate: &&Certificate| {
            let key = &certificate.tbs_certificate.subject_public_key_info;
            key.to_der().is_ok_and(|key| key == spki)
        };
        // A renewed certificate may lie beside the old one.
        let newest = all
            .iter()
            .filter(is_ours)
            .max_by_key(|one| one.tbs_certificate.validity.not_after.to_unix_duration());
        let Some(leaf) = newest else {
            return Err(bad(format!(
                "none of the {} is for this token's identity key; `arca-enclave-hsm request` asks for one, and the \
                 answer belongs into one of the configured files",
                all.len()
            )));
        };
        let mut bundle = Vec::new();
        let mut below = leaf;
        loop {
            let issuer = &below.tbs_certificate.issuer;
            let Some(above) = all
                .iter()
                .find(|one| one.tbs_certificate.subject == *issuer)
            else {
                return Err(bad(format!(
                    "the authority `{issuer}` is missing; add its certificate, and those above it up to the root"
                )));
            };
            bundle.push(encoded(above)?);
            if above.tbs_certificate.subject == above.tbs_certificate.issuer {
                break;
            }
            if bundle.len() > all.len() {
                return Err(bad("they issue each other in a circle".to_owned()));
            }
            below = above;
        }
        bundle.reverse();
        Ok(Self {
            leaf: encoded(leaf)?,
            bundle,
        })
    }

    pub(crate) fn root(&self) -> Vec<u8> {
        self.bundle.first().cloned().unwrap_or_default()
    }
}

fn files(places: &[PathBuf]) -> Result<Vec<PathBuf>, HsmError> {
    let mut files = Vec::new();
    for place in places {
        let at = |error| HsmError::file(place, &error);
        if !std::fs::metadata(place).map_err(at)?.is_dir() {
            files.push(place.clone());
            continue;
        }
        for entry in std::fs::read_dir(place).map_err(at)? {
            let path = entry.map_err(at)?.path();
            let ending = path.extension().and_then(|ending| ending.to_str());
            if matches!(ending, Some("pem" | "crt" | "cer" | "der")) {
                files.push(path);
            }
        }
    }
    files.sort();
    if files.is_empty() || files.len() > MAX_FILES {
        return Err(HsmError::Certificates(format!(
            "{} files; there must be 1 to {MAX_FILES} (in a folder those that end in .pem, .crt, .cer or .der count)",
            files.len()
        )));
    }
    Ok(files)
}

fn read(path: &Path, into: &mut Vec<Certificate>) -> Result<(), HsmError> {
    let at = |error| HsmError::file(path, &error);
    if std::fs::metadata(path).map_err(at)?.len() > MAX_FILE {
        return Err(HsmError::Certificates(format!(
            "{}: more than {MAX_FILE} bytes",
            path.display()
        )));
    }
    let bytes = std::fs::read(path).map_err(at)?;
    let bad = |error: der::Error| {
        HsmError::Certificates(format!(
            "{}: no X.509 certificate in PEM or DER: {error}",
            path.display()
        ))
    };
    if bytes.starts_with(&[0x30]) {
        into.push(Certificate::from_der(&bytes).map_err(bad)?);
    } else {
        into.extend(Certificate::load_pem_chain(&bytes).map_err(bad)?);
    }
    Ok(())
}
