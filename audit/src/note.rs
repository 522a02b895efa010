//! Signed notes ([C2SP signed-note](https://c2sp.org/signed-note)): a text and lines of signatures under it.
//!
//! The two kinds of Ed25519 key that the log needs: its own, over the text as it stands, and a witness', over the text
//! and a time (see [`cosignature`]). Signatures of other kinds are kept and not judged, as
//! those of unknown keys are.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::{Error, cosignature, text};

/// The longest note, in bytes.
pub const MAX_NOTE: usize = 1 << 20;
/// The most signatures of a note.
pub const MAX_SIGNATURES: usize = 64;
/// The longest name of a key, in bytes.
pub const MAX_NAME: usize = 255;

/// What a line of a signature begins with.
const DASH: &str = "\u{2014} ";

const NAME: &str = "key name";
const KEY: &str = "verifier key";
const SIGNATURE: &str = "note signature";
const NOTE: &str = "signed note";

/// Name of a key, and origin of a log: not empty, without spaces, control characters and `+`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let forbidden = |c: char| c.is_whitespace() || c == '+' || c.is_ascii_control();
        if name.is_empty() {
            Err(Error::malformed(NAME, "it is empty"))
        } else if name.len() > MAX_NAME {
            Err(Error::malformed(NAME, "it is longer than 255 bytes"))
        } else if name.contains(forbidden) {
            Err(Error::malformed(
                NAME,
                "it has a space, a control character or a plus",
            ))
        } else {
            Ok(Self(name.to_owned()))
        }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// Ed25519 over the text: how a log signs.
    Ed25519,
    /// Ed25519 over a time and the text, `cosignature/v1`: how a witness signs.
    CosignatureV1,
}

impl KeyKind {
    /// The byte that stands for it in key ids and verifier keys.
    const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::CosignatureV1 => 0x04,
        }
    }
}

/// First four bytes of a hash of name, kind and key. With the name it says which key a signature is of; it is no
/// fingerprint of the key, for it is too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);

impl KeyId {
    fn new(name: &KeyName, kind: KeyKind, key: &[u8; 32]) -> Self {
        let hash = Sha256::new()
            .chain_update(name.as_str())
            .chain_update([b'\n', kind.byte()])
            .chain_update(key)
            .finalize();
        let mut id = [0; 4];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A public key with its name and how it signs. Written `name+id+key`: the id in hex, the key in base64 after the
/// byte of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    kind: KeyKind,
    id: KeyId,
    key: VerifyingKey,
}

impl VerifierKey {
    /// A key from its 32 bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] when the bytes are no point of the curve, or one of the few for which anybody can sign.
    pub fn new(name: KeyName, kind: KeyKind, key: &[u8; 32]) -> Result<Self, Error> {
        let key = VerifyingKey::from_bytes(key)
            .ok()
            .filter(|key| !key.is_weak())
            .ok_or(Error::malformed(KEY, "it is no Ed25519 public key"))?;
        Ok(Self::of(name, kind, key))
    }

    /// The public half of a key that signs.
    pub fn of_signing_key(name: KeyName, kind: KeyKind, key: &SigningKey) -> Self {
        // A signing key's scalar is never a multiple of the group's order, so its point is never a weak one.
        Self::of(name, kind, key.verifying_key())
    }

    fn of(name: KeyName, kind: KeyKind, key: VerifyingKey) -> Self {
        Self {
            id: KeyId::new(&name, kind, key.as_bytes()),
            name,
            kind,
            key,
        }
    }

    /// Its name; of a log's key, the origin.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// How it signs.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// What signatures of it carry beside the name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The Ed25519 public key, 32 bytes.
    pub fn key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Whether a signature says that it is of this key.
    pub fn is_of(&self, signature: &NoteSignature) -> bool {
        self.id == signature.id && self.name == signature.name
    }

    /// Checks a signature that says that it is of this key. Gives the time, in seconds since 1970, that a
    /// cosignature names.
    ///
    /// # Errors
    ///
    /// [`Error::BadSignature`], also when the signature names another key.
    pub fn verify(&self, text: &str, signature: &NoteSignature) -> Result<Option<u64>, Error> {
        if !self.is_of(signature) {
            return Err(Error::BadSignature);
        }
        match self.kind {
            KeyKind::Ed25519 => {
                let bytes = signature
                    .bytes
                    .as_slice()
                    .try_into()
                    .map_err(|_| Error::BadSignature)?;
                self.verify_bytes(text.as_bytes(), bytes)?;
                Ok(None)
            }
            KeyKind::CosignatureV1 => cosignature::verify(self, text, &signature.bytes).map(Some),
        }
    }

    /// The strict equation: one signature of a message under a key, and no key or nonce of small order.
    pub(crate) fn verify_bytes(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), Error> {
        self.key
            .verify_strict(message, &Signature::from_bytes(signature))
            .map_err(|_| Error::BadSignature)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![self.kind.byte()];
        bytes.extend(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, self.id, text::encode(&bytes))
    }
}

impl FromStr for VerifierKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = |reason| Error::malformed(KEY, reason);
        // Base64 has pluses of its own, names have none.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(bytes)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("it is not name+id+key"));
        };
        let bytes = text::decode(bytes).ok_or(malformed("its key is no base64"))?;
        let (kind, key) = bytes.split_first().ok_or(malformed("its key is empty"))?;
        let kind = [KeyKind::Ed25519, KeyKind::CosignatureV1]
            .into_iter()
            .find(|known| known.byte() == *kind)
            .ok_or(malformed("it is of a kind that is not known here"))?;
        let key = key
            .try_into()
            .map_err(|_| malformed("it is not 32 bytes"))?;
        let key = Self::new(name.parse()?, kind, key)?;
        if key.id.to_string() == id {
            Ok(key)
        } else {
            Err(malformed("its id is not that of its name and key"))
        }
    }
}

/// One line of signature: whose it says it is, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    name: KeyName,
    id: KeyId,
    bytes: Vec<u8>,
}

impl NoteSignature {
    pub(crate) fn new(name: KeyName, id: KeyId, bytes: Vec<u8>) -> Self {
        Self { name, id, bytes }
    }

    /// Name of the key.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Id of the key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The signature, in the format of the key's kind.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn is_of_same_key(&self, other: &Self) -> bool {
        self.id == other.id && self.name == other.name
    }
}

/// The line as it stands in a note, without its newline.
impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.id.0.to_vec();
        bytes.extend(&self.bytes);
        write!(f, "{DASH}{} {}", self.name, text::encode(&bytes))
    }
}

/// From a line without its newline.
impl FromStr for NoteSignature {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self, Error> {
        let malformed = |reason| Error::malformed(SIGNATURE, reason);
        let (name, bytes) = line
            .strip_prefix(DASH)
            .and_then(|line| line.split_once(' '))
            .ok_or(malformed("it is not a dash, a name and base64"))?;
        let bytes = text::decode(bytes).ok_or(malformed("it is no base64"))?;
        match bytes.split_first_chunk() {
            Some((id, signature)) if !signature.is_empty() => {
                Ok(Self::new(name.parse()?, KeyId(*id), signature.to_vec()))
            }
            _ => Err(malformed("it is shorter than 5 bytes")),
        }
    }
}

/// Signs a note's text with a log's key.
///
/// # Security
///
/// The text is signed as it is, without a domain tag: the key must sign nothing but notes.
pub fn sign(text: &str, name: &KeyName, key: &SigningKey) -> NoteSignature {
    let id = KeyId::new(name, KeyKind::Ed25519, key.verifying_key().as_bytes());
    let signature = key.sign(text.as_bytes()).to_bytes().to_vec();
    NoteSignature::new(name.clone(), id, signature)
}

/// A text with the signatures under it, none of which need be good.
///
/// # Security
///
/// Its text means nothing until [`verify`](Self::verify) has found a signature of a key that is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// Who signed a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    /// The key, one of those that were asked for.
    pub key: &'a VerifierKey,
    /// When, in seconds since 1970: with cosignatures.
    pub time: Option<u64>,
}

impl SignedNote {
    /// A note of a text and at least one signature.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] when it could not be written as a note, or not be read again.
    pub fn new(text: String, signatures: Vec<NoteSignature>) -> Result<Self, Error> {
        let malformed = |reason| Err(Error::malformed(NOTE, reason));
        if !text.ends_with('\n') {
            return malformed("its text does not end with a newline");
        }
        if text.chars().any(|c| c < ' ' && c != '\n') {
            return malformed("its text has a control character");
        }
        if signatures.is_empty() {
            return malformed("it has no signature");
        }
        if signatures.len() > MAX_SIGNATURES {
            return malformed("it has more than 64 signatures");
        }
        let note = Self { text, signatures };
        if note.to_string().len() > MAX_NOTE {
            return malformed("it is longer than 1 MiB");
        }
        Ok(note)
    }

    /// Of parts that are known to be those of a note.
    pub(crate) fn of_valid(text: String, signatures: Vec<NoteSignature>) -> Self {
        Self { text, signatures }
    }

    /// Reads a note; judges no signature.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`].
    pub fn parse(note: &[u8]) -> Result<Self, Error> {
        let malformed = |reason| Error::malformed(NOTE, reason);
        if note.len() > MAX_NOTE {
            return Err(malformed("it is longer than 1 MiB"));
        }
        let note = std::str::from_utf8(note).map_err(|_| malformed("it is not UTF-8"))?;
        // The text may have empty lines, signatures have none: the last one divides.
        let (text, lines) = note
            .rsplit_once("\n\n")
            .ok_or(malformed("no empty line divides text and signatures"))?;
        let lines = lines
            .strip_suffix('\n')
            .ok_or(malformed("it does not end with a newline"))?;
        // One more than allowed is enough to be refused.
        let signatures = lines
            .split('\n')
            .take(MAX_SIGNATURES + 1)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        Self::new(format!("{text}\n"), signatures)
    }

    /// The signed text, with its last newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All signatures in their order, good or not.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature; one of the same key gives way to it.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] when the note would grow too large; it is as before then.
    pub fn add(&mut self, signature: NoteSignature) -> Result<(), Error> {
        let mut signatures = self.signatures.clone();
        signatures.retain(|old| !old.is_of_same_key(&signature));
        signatures.push(signature);
        *self = Self::new(self.text.clone(), signatures)?;
        Ok(())
    }

    /// The same text with only those signatures that say they are of one of `keys`.
    ///
    /// # Errors
    ///
    /// [`Error::Unsigned`] when none does.
    pub fn only(&self, keys: &[VerifierKey]) -> Result<Self, Error> {
        let known = |signature: &&NoteSignature| keys.iter().any(|key| key.is_of(signature));
        let signatures: Vec<_> = self.signatures.iter().filter(known).cloned().collect();
        if signatures.is_empty() {
            return Err(Error::Unsigned);
        }
        Ok(Self {
            text: self.text.clone(),
            signatures,
        })
    }

    /// Those of `keys` that signed, in the order of `keys`. Signatures of other keys are ignored.
    ///
    /// # Errors
    ///
    /// [`Error::BadSignature`] when a signature says that it is of one of the keys and is not,
    /// [`Error::DuplicateSignature`] when there are two of one of them, [`Error::Unsigned`] when there is none of
    /// any.
    pub fn verify<'a>(&self, keys: &'a [VerifierKey]) -> Result<Vec<Signed<'a>>, Error> {
        let mut signed = Vec::new();
        for key in keys {
            let mut own = self.signatures.iter().filter(|line| key.is_of(line));
            let Some(signature) = own.next() else {
                continue;
            };
            if own.next().is_some() {
                return Err(Error::DuplicateSignature);
            }
            let time = key.verify(&self.text, signature)?;
            signed.push(Signed { key, time });
        }
        if signed.is_empty() {
            return Err(Error::Unsigned);
        }
        Ok(signed)
    }

    /// The note as bytes; [`parse`](Self::parse) gives it back.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures
            .iter()
            .try_for_each(|signature| writeln!(f, "{signature}"))
    }
}
