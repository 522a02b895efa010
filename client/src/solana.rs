//! Solana messages and transactions, as far as a signer needs them.
//!
//! Format: the Solana documentation's "Transactions" page: a transaction is a compact array of 64-byte
//! signatures and the message; a message starts with an optional version byte (0x80 for version 0), three
//! counts, and the compact array of account keys, the signers first.

use bitcoin::base64::Engine;
use bitcoin::base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};

use crate::error::{Error, Result};

/// What verifies a finished transaction here.
pub const VERIFIER: &str = "Ed25519, strict (RFC 8032 without malleable or small-order encodings)";

/// Largest transaction of the network: one packet.
const PACKET: usize = 1232;

/// A message with its signers, parsed only as far as that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    bytes: Vec<u8>,
    signers: Vec<[u8; 32]>,
}

impl Message {
    /// Reads a message: binary, or that in base64 or hex.
    ///
    /// # Errors
    /// [`Error::Input`] with what does not parse.
    pub fn parse(input: &[u8]) -> Result<Self> {
        // No binary message is all base64 text: it contains zero bytes or its version byte.
        let text = std::str::from_utf8(input)
            .ok()
            .map(|text| text.split_whitespace().collect::<String>())
            .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()));
        let bytes = match text {
            None => input.to_vec(),
            Some(text) => match hex::decode(&text) {
                Ok(bytes) => bytes,
                Err(_) => STANDARD.decode(&text).map_err(|_| {
                    Error::input("Solana message", "is neither binary, base64 nor hex")
                })?,
            },
        };
        Self::from_bytes(bytes)
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        let malformed = |problem: &str| Error::input("Solana message", problem);
        if bytes.len() > PACKET {
            return Err(malformed("is longer than a packet, 1232 bytes"));
        }
        let rest = match bytes.first() {
            Some(0x80) => bytes.get(1..),
            Some(version) if version & 0x80 != 0 => {
                return Err(malformed("has a version other than 0"));
            }
            _ => Some(bytes.as_slice()),
        };
        let Some([signers, _, _, rest @ ..]) = rest else {
            return Err(malformed("ends in its header"));
        };
        let (accounts, rest) =
            compact_u16(rest).ok_or_else(|| malformed("has no valid count of accounts"))?;
        let signers = usize::from(*signers);
        if signers == 0 || signers > usize::from(accounts) {
            return Err(malformed("has no signer, or more signers than accounts"));
        }
        let (keys, _) = rest.as_chunks::<32>();
        let signers = keys
            .get(..signers)
            .filter(|_| keys.len() >= usize::from(accounts))
            .ok_or_else(|| malformed("ends in its accounts"))?
            .to_vec();
        Ok(Self { bytes, signers })
    }

    /// The message's bytes: what is signed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Accounts that have to sign, the payer of the fee first.
    pub fn signers(&self) -> &[[u8; 32]] {
        &self.signers
    }

    /// Puts `signature` of `key` into a transaction, after verifying it.
    ///
    /// # Errors
    /// [`Error::Unverified`] when the signature is not that key's over this message, or the message does not
    /// ask for it.
    pub fn into_transaction(self, key: &[u8; 32], signature: &[u8; 64]) -> Result<Transaction> {
        verify(key, &self.bytes, signature)?;
        let place = self
            .signers
            .iter()
            .position(|signer| signer == key)
            .ok_or_else(|| {
                Error::unverified(
                    "Solana transaction",
                    "the message does not ask for this key",
                )
            })?;
        let mut signatures = vec![[0; 64]; self.signers.len()];
        if let Some(entry) = signatures.get_mut(place) {
            *entry = *signature;
        }
        Ok(Transaction {
            missing: self
                .signers
                .iter()
                .filter(|signer| *signer != key)
                .copied()
                .collect(),
            message: self,
            signatures,
        })
    }
}

/// A message with its signatures.
#[derive(Clone, Debug)]
pub struct Transaction {
    message: Message,
    signatures: Vec<[u8; 64]>,
    /// Signers whose signatures are still zero.
    pub missing: Vec<[u8; 32]>,
}

impl Transaction {
    /// As `sendTransaction` takes it with encoding base64.
    pub fn base64(&self) -> String {
        let mut bytes = Vec::with_capacity(PACKET);
        push_compact_u16(&mut bytes, self.signatures.len());
        self.signatures
            .iter()
            .for_each(|signature| bytes.extend_from_slice(signature));
        bytes.extend_from_slice(&self.message.bytes);
        STANDARD.encode(bytes)
    }

    /// The transaction's id: its first signature, which the payer of the fee makes. None while that is missing.
    pub fn id(&self) -> Option<String> {
        self.signatures
            .first()
            .filter(|signature| signature.iter().any(|byte| *byte != 0))
            .map(|signature| bs58::encode(signature).into_string())
    }
}

/// Verifies an Ed25519 signature strictly.
///
/// # Errors
/// [`Error::Unverified`] when it does not verify, [`Error::Input`] when the key is no point.
pub fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Result<()> {
    VerifyingKey::from_bytes(key)
        .map_err(|_| Error::input("public key", "is not an Ed25519 public key"))?
        .verify_strict(message, &Signature::from_bytes(signature))
        .map_err(|_| {
            Error::unverified(
                "Ed25519 signature",
                "it is not this key's over this message",
            )
        })
}

/// A legacy message with one transfer of the system program.
pub fn transfer(
    from: &[u8; 32],
    to: &[u8; 32],
    lamports: u64,
    recent_blockhash: &[u8; 32],
) -> Message {
    const SYSTEM_PROGRAM: [u8; 32] = [0; 32];
    // SystemInstruction::Transfer, as the program's interface numbers its instructions.
    const TRANSFER: u32 = 2;
    let mut bytes = vec![1, 0, 1, 3];
    bytes.extend_from_slice(from);
    bytes.extend_from_slice(to);
    bytes.extend_from_slice(&SYSTEM_PROGRAM);
    bytes.extend_from_slice(recent_blockhash);
    // One instruction: program index 2, accounts 0 and 1, twelve bytes of arguments.
    bytes.extend_from_slice(&[1, 2, 2, 0, 1, 12]);
    bytes.extend_from_slice(&TRANSFER.to_le_bytes());
    bytes.extend_from_slice(&lamports.to_le_bytes());
    Message {
        bytes,
        signers: vec![*from],
    }
}

/// Little-endian base 128, one to three bytes, shortest form only.
fn compact_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let mut value = 0u32;
    for index in 0..3u32 {
        let byte = *bytes.get(usize::try_from(index).ok()?)?;
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return None;
            }
            let rest = bytes.get(usize::try_from(index).ok()? + 1..)?;
            return Some((u16::try_from(value).ok()?, rest));
        }
    }
    None
}

fn push_compact_u16(bytes: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = (value & 0x7f).to_le_bytes()[0];
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn public() -> [u8; 32] {
        key().verifying_key().to_bytes()
    }

    #[test]
    fn a_transfer_becomes_a_transaction() {
        let message = transfer(&public(), &[9; 32], 1_500_000, &[4; 32]);
        assert_eq!(Message::parse(message.bytes()).unwrap(), message);
        let signature = key().sign(message.bytes()).to_bytes();
        let transaction = message
            .clone()
            .into_transaction(&public(), &signature)
            .unwrap();
        assert!(transaction.missing.is_empty());
        let bytes = STANDARD.decode(transaction.base64()).unwrap();
        assert_eq!(bytes[0], 1);
        assert_eq!(bytes[1..65], signature);
        assert_eq!(&bytes[65..], message.bytes());
        assert_eq!(
            transaction.id().unwrap(),
            bs58::encode(signature).into_string()
        );
    }

    #[test]
    fn text_forms_and_version_0_are_read() {
        let legacy = transfer(&public(), &[9; 32], 1, &[4; 32]);
        let hex = hex::encode(legacy.bytes());
        assert_eq!(Message::parse(hex.as_bytes()).unwrap(), legacy);
        let base64 = format!("{}\n", STANDARD.encode(legacy.bytes()));
        assert_eq!(Message::parse(base64.as_bytes()).unwrap(), legacy);

        let mut versioned = vec![0x80];
        versioned.extend_from_slice(legacy.bytes());
        assert_eq!(Message::parse(&versioned).unwrap().signers(), [public()]);
        versioned[0] = 0x81;
        assert!(Message::parse(&versioned).is_err());
    }

    #[test]
    fn malformed_messages_are_refused() {
        let good = transfer(&public(), &[9; 32], 1, &[4; 32]).bytes;
        for length in 0..100 {
            assert!(
                Message::from_bytes(good[..length].to_vec()).is_err(),
                "{length} bytes"
            );
        }
        let mut no_signer = good.clone();
        no_signer[0] = 0;
        assert!(Message::from_bytes(no_signer).is_err());
        let mut too_many = good;
        too_many[0] = 4;
        assert!(Message::from_bytes(too_many).is_err());
        assert!(Message::from_bytes(vec![1; PACKET + 1]).is_err());
    }

    #[test]
    fn a_wrong_signature_or_key_is_refused() {
        let message = transfer(&public(), &[9; 32], 1, &[4; 32]);
        let mut signature = key().sign(message.bytes()).to_bytes();
        let stranger = SigningKey::from_bytes(&[5; 32]);
        let strange = stranger.sign(message.bytes()).to_bytes();
        let strange_key = stranger.verifying_key().to_bytes();
        assert!(
            message
                .clone()
                .into_transaction(&strange_key, &strange)
                .is_err()
        );
        signature[2] ^= 1;
        assert!(message.into_transaction(&public(), &signature).is_err());
    }

    #[test]
    fn counts_are_compact() {
        for (value, bytes) in [
            (0u16, &[0u8][..]),
            (0x7f, &[0x7f]),
            (0x80, &[0x80, 1]),
            (0xffff, &[0xff, 0xff, 3]),
        ] {
            let mut pushed = Vec::new();
            push_compact_u16(&mut pushed, usize::from(value));
            assert_eq!(pushed, bytes);
            assert_eq!(compact_u16(bytes), Some((value, &[][..])));
        }
        for bad in [
            &[][..],
            &[0x80],
            &[0x80, 0],
            &[0xff, 0xff, 4],
            &[0x80, 0x80, 0x80],
        ] {
            assert_eq!(compact_u16(bad), None);
        }
    }
}
