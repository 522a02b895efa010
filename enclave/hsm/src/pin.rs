//! The PIN: from a private file or an inherited descriptor, never from the command line or the environment.

use std::{
    fs::{File, OpenOptions},
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use cryptoki::types::RawAuthPin;
use nix::{fcntl::OFlag, unistd::geteuid};
use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

use crate::HsmError;

/// PKCS#11 tokens take some 4 to 255 bytes.
const MAX_PIN: usize = 256;

/// Where the PIN is read from, once, at the start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum PinSource {
    /// A file of this user alone: mode 0600 or 0400.
    File(PathBuf),
    /// A descriptor that whoever starts this program has opened, 3 or above: a pipe, say. It is closed after reading.
    Descriptor(i32),
}

/// The user's PIN. Zeroised when dropped, never printed.
pub struct Pin(pub(crate) RawAuthPin);

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pin(redacted)")
    }
}

impl Pin {
    /// As cryptoki wants the PINs of a new token; `None` when it is no UTF-8.
    pub(crate) fn text(&self) -> Option<String> {
        use secrecy::ExposeSecret as _;
        std::str::from_utf8(self.0.expose_secret())
            .ok()
            .map(str::to_owned)
    }
}

impl PinSource {
    /// Reads the PIN; one line feed at its end is not part of it. Call it before the process is hardened: afterwards
    /// an inherited descriptor may be out of reach.
    ///
    /// # Errors
    /// [`HsmError::PinSource`], also when a file is not private.
    pub fn read(&self) -> Result<Pin, HsmError> {
        let bad = |what: String| HsmError::PinSource {
            source_name: self.name(),
            what,
        };
        let file = match self {
            Self::File(path) => open_private(path).map_err(bad)?,
            Self::Descriptor(number) if *number < 3 => {
                return Err(bad(
                    "0, 1 and 2 are standard input, output and error; take 3 or above".to_owned(),
                ));
            }
            Self::Descriptor(number) => File::open(format!("/proc/self/fd/{number}"))
                .map_err(|error| bad(format!("{error}; is it open when this program starts?")))?,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PIN + 1));
        let limit = u64::try_from(MAX_PIN).unwrap_or(u64::MAX);
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| bad(error.to_string()))?;
        if let Self::Descriptor(number) = self {
            let _ = nix::unistd::close(*number);
        }
        if bytes.len() > MAX_PIN {
            return Err(bad(format!("is longer than {MAX_PIN} bytes: no PIN")));
        }
        let mut end = bytes.len();
        if bytes.last() == Some(&b'\n') {
            end = end.saturating_sub(1);
            if end > 0 && bytes.get(end.saturating_sub(1)) == Some(&b'\r') {
                end = end.saturating_sub(1);
            }
        }
        let pin = bytes.get(..end).unwrap_or_default().to_vec();
        if pin.is_empty() {
            return Err(bad("is empty: no PIN".to_owned()));
        }
        bytes.zeroize();
        Ok(Pin(RawAuthPin::new(Box::new(pin))))
    }

    fn name(&self) -> String {
        match self {
            Self::File(path) => format!("PIN file {}", path.display()),
            Self::Descriptor(number) => format!("PIN descriptor {number}"),
        }
    }
}

/// Judges the file that is open, not the one that has its name by then.
fn open_private(path: &Path) -> Result<File, String> {
    let file = OpenOptions::new()
        .read(true)
        // A pipe without a writer would block the start.
        .custom_flags(OFlag::O_NONBLOCK.bits() | OFlag::O_CLOEXEC.bits())
        .open(path)
        .map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("is no file; a pipe is given as `pin = { descriptor = N }`".to_owned());
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(format!(
            "belongs to user {}; it must belong to the user of this program: chown it",
            metadata.uid()
        ));
    }
    if metadata.mode() & 0o177 != 0 {
        return Err(format!(
            "has mode {:04o}; nobody else may read it: chmod 0600 it, and take another PIN if somebody has",
            metadata.mode() & 0o7777
        ));
    }
    Ok(file)
}
