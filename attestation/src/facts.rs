//! What verified evidence says. The verifier alone makes these.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use crate::hsm::Token;
use crate::{Measurements, TrustClass, UnixMillis};

/// Evidence that [`verify_live`](crate::verify_live) found true: fresh, and bound to what the verifier expected.
#[derive(Clone, Debug)]
pub struct Evidence(pub(crate) Facts);

/// Evidence that [`verify_archive`](crate::verify_archive) found true at its own time.
#[derive(Clone, Debug)]
pub struct ArchivedEvidence(pub(crate) Facts);

impl Deref for Evidence {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.0
    }
}

impl Deref for ArchivedEvidence {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.0
    }
}

/// What verified evidence says. Reached through [`Evidence`] and [`ArchivedEvidence`].
#[derive(Clone)]
pub struct Facts {
    pub(crate) class: TrustClass,
    pub(crate) attester: Attester,
    pub(crate) timestamp: UnixMillis,
    pub(crate) not_after: UnixMillis,
    pub(crate) public_key: Option<Vec<u8>>,
    pub(crate) user_data: Option<Vec<u8>>,
    pub(crate) nonce: Option<Vec<u8>>,
    pub(crate) digest: [u8; 32],
}

/// What only one kind of attester has.
#[derive(Clone)]
pub(crate) enum Attester {
    Enclave {
        module_id: String,
        measurements: Measurements,
        pcrs: BTreeMap<u8, [u8; 48]>,
    },
    Hsm(Token),
}

impl Facts {
    /// The class that the verifier expected, and under whose roots it verified.
    pub fn class(&self) -> TrustClass {
        self.class
    }

    /// Names the enclave and its parent instance. An HSM has none.
    pub fn module_id(&self) -> Option<&str> {
        match &self.attester {
            Attester::Enclave { module_id, .. } => Some(module_id),
            Attester::Hsm(_) => None,
        }
    }

    /// When the document was made, by the attester's clock.
    pub fn timestamp(&self) -> UnixMillis {
        self.timestamp
    }

    /// Until when every certificate on the path is valid, that of the attester's signing key included.
    pub fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    /// PCR 0, 1 and 2: one of the reference values. Evidence of an HSM has none, since it does not say which code
    /// runs.
    pub fn measurements(&self) -> Option<&Measurements> {
        match &self.attester {
            Attester::Enclave { measurements, .. } => Some(measurements),
            Attester::Hsm(_) => None,
        }
    }

    /// Every PCR by index, 0 to 31. Only 0, 1 and 2 were compared with anything. Evidence of an HSM has none.
    pub fn pcrs(&self) -> Option<&BTreeMap<u8, [u8; 48]>> {
        match &self.attester {
            Attester::Enclave { pcrs, .. } => Some(pcrs),
            Attester::Hsm(_) => None,
        }
    }

    /// The token that holds the identity key, as the party describes it: nobody else vouches for that. An NSM's
    /// evidence has none.
    pub fn token(&self) -> Option<&Token> {
        match &self.attester {
            Attester::Enclave { .. } => None,
            Attester::Hsm(token) => Some(token),
        }
    }

    /// The key that the attester had included. Of an HSM, the one that signed.
    pub fn public_key(&self) -> Option<&[u8]> {
        self.public_key.as_deref()
    }

    /// What the attester had included: see [`binder`](crate::binder).
    pub fn user_data(&self) -> Option<&[u8]> {
        self.user_data.as_deref()
    }

    /// The verifier's nonce.
    pub fn nonce(&self) -> Option<&[u8]> {
        self.nonce.as_deref()
    }

    /// SHA-256 of the document's bytes, as `sha256sum` gives it: names this document in logs and certificates.
    ///
    /// # Security
    /// Identifies bytes, not a statement: ECDSA lets anybody make a second valid signature from the first.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut facts = f.debug_struct("Facts");
        facts.field("class", &self.class);
        match &self.attester {
            Attester::Enclave {
                module_id,
                measurements,
                ..
            } => facts
                .field("module_id", module_id)
                .field("measurements", measurements),
            Attester::Hsm(token) => facts.field("token", token),
        };
        facts
            .field("timestamp", &self.timestamp)
            .field("digest", &hex::encode(self.digest))
            .finish_non_exhaustive()
    }
}
