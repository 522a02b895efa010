//! Private keys of people and services, in files that nobody else can read.
//!
//! PKCS#8 in PEM, so that `openssl genpkey` makes such files too: Ed25519 for administrators, P-256 for
//! principals.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, spki::der::pem::LineEnding};
use rand_core::OsRng;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Makes an administrator's key in a new file and returns it.
///
/// # Errors
/// [`Error::Config`] when the file exists or cannot be written.
pub fn generate_administrator(path: &Path) -> Result<SigningKey> {
    let key = SigningKey::generate(&mut OsRng);
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(Error::bug)?;
    write_new(path, pem.as_bytes())?;
    Ok(key)
}

/// Reads an administrator's key.
///
/// # Errors
/// [`Error::Config`] when the file is missing, readable by others, or holds another kind of key.
pub fn read_administrator(path: &Path) -> Result<SigningKey> {
    let pem = read(path)?;
    SigningKey::from_pkcs8_pem(&pem).map_err(|_| {
        Error::config(
            path.display(),
            "is no Ed25519 private key in PKCS#8 PEM",
            "make one with `arca party enroll administrator-key`",
        )
    })
}

/// Makes a principal's key in a new file and returns it.
///
/// # Errors
/// As [`generate_administrator`].
pub fn generate_principal(path: &Path) -> Result<p256::SecretKey> {
    let key = p256::SecretKey::random(&mut OsRng);
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(Error::bug)?;
    write_new(path, pem.as_bytes())?;
    Ok(key)
}

/// Reads a principal's key.
///
/// # Errors
/// As [`read_administrator`].
pub fn read_principal(path: &Path) -> Result<p256::SecretKey> {
    let pem = read(path)?;
    p256::SecretKey::from_pkcs8_pem(&pem).map_err(|_| {
        Error::config(
            path.display(),
            "is no P-256 private key in PKCS#8 PEM",
            "make one with `arca party enroll principal-key`",
        )
    })
}

/// Larger files hold no key.
const MAX_BYTES: u64 = 16 * 1024;

pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>> {
    let unreadable = |cause: std::io::Error| {
        Error::config(
            path.display(),
            format!("cannot be read: {cause}"),
            "check the path",
        )
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(Error::config(
            path.display(),
            "is a private key that others on this machine can read",
            format!(
                "run `chmod 600 {}`, and consider the key known",
                path.display()
            ),
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    Ok(text)
}

pub(crate) fn write_new(path: &Path, contents: &[u8]) -> Result<()> {
    let unwritable = |cause: std::io::Error| {
        Error::config(
            path.display(),
            format!("cannot be written: {cause}"),
            "name a new file in a folder that exists; keys are never overwritten",
        )
    };
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(unwritable)?;
    file.write_all(contents)
        .and_then(|()| file.sync_all())
        .map_err(unwritable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("administrator.pem");
        let key = generate_administrator(&path).unwrap();
        assert_eq!(
            read_administrator(&path).unwrap().to_bytes(),
            key.to_bytes()
        );
        assert!(
            generate_administrator(&path).is_err(),
            "a key was overwritten"
        );
        assert!(read_principal(&path).is_err());

        let path = folder.path().join("principal.pem");
        let key = generate_principal(&path).unwrap();
        assert_eq!(read_principal(&path).unwrap(), key);
        assert!(read_administrator(&path).is_err());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("principal.pem");
        generate_principal(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_principal(&path).unwrap_err();
        assert!(error.to_string().contains("others on this machine"));
        assert!(error.advice().contains("chmod 600"));
    }
}
