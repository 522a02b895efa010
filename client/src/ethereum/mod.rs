//! Ethereum transactions: read as people have them, completed with the cluster's signature, and sent to a node.
//!
//! The unsigned transaction is the bytes whose Keccak-256 is signed: legacy with EIP-155's chain id, or type 1
//! (EIP-2930), 2 (EIP-1559), 3 (EIP-4844). What they mean is decoded by [`crate::verify::decode`], with the
//! parties' own code; what is here knows their outer shape alone.

mod json;
mod node;

pub use node::{Node, Receipt};

use alloy_rlp::{Encodable, Header};
use arca_policy::{Action, EthereumKind, EthereumTransaction, Intent};
use sha3::{Digest, Keccak256};

use crate::address;
use crate::ecdsa::{recover_secp256k1, verify_secp256k1};
use crate::error::{Error, Result};
use crate::resources::{EcdsaSigner, Signature};

/// What verifies a finished transaction here.
pub const VERIFIER: &str =
    "libsecp256k1: ECDSA with low s, and the sender recovered from the signed transaction";

/// An unsigned transaction, as far as its outer shape goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsigned {
    bytes: Vec<u8>,
    from: Option<[u8; 20]>,
}

impl Unsigned {
    /// Reads a transaction: binary, that in hex, or JSON with the fields of `eth_signTransaction`.
    ///
    /// # Errors
    /// [`Error::Input`] with what does not parse, and where.
    pub fn parse(input: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(input).ok().map(str::trim);
        let (bytes, from) = match text {
            Some(text) if text.starts_with('{') => {
                let (transaction, from) = json::parse(text)?;
                (transaction.unsigned_bytes(), from)
            }
            Some(text) if is_hex(text) => {
                let digits: String = text.split_whitespace().collect();
                let digits = digits.strip_prefix("0x").unwrap_or(&digits);
                let bytes = hex::decode(digits)
                    .map_err(|_| malformed("has an odd number of hex digits"))?;
                (bytes, None)
            }
            _ => (input.to_vec(), None),
        };
        match bytes.first() {
            Some(1..=3 | 0xc0..) => Ok(Self { bytes, from }),
            Some(4) => Err(malformed(
                "is of type 4 (EIP-7702), which gives the account's code away and is never signed",
            )),
            _ => Err(malformed(
                "is neither JSON, hex nor binary of a legacy (rlp) or typed (0x01, 0x02, 0x03) transaction",
            )),
        }
    }

    /// What is signed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// That the transaction names no other sender than the address of this key. Only JSON names one.
    ///
    /// # Errors
    /// [`Error::Input`] with both addresses.
    pub fn check_sender(&self, public_key: &[u8; 33]) -> Result<()> {
        let Some(from) = &self.from else {
            return Ok(());
        };
        let (from, own) = (
            arca_policy::ethereum_checksum(from),
            address::ethereum(public_key)?,
        );
        if from == own {
            return Ok(());
        }
        Err(malformed(format!(
            "is from {from}, and the key that was named signs for {own}: name the key and --path of the sender"
        )))
    }
}

/// A transaction with its signature, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// As `eth_sendRawTransaction` takes it. Of type 3 without the blobs' sidecar, which is not signed.
    pub raw: Vec<u8>,
    /// Its Keccak-256, by which it is known.
    pub hash: [u8; 32],
    /// The sender, recovered from the signature.
    pub from: [u8; 20],
    /// Who receives, or which contract is called; none makes a contract.
    pub to: Option<[u8; 20]>,
    /// The chain that it is valid on.
    pub chain_id: u64,
    /// legacy, EIP-2930, EIP-1559 or EIP-4844.
    pub kind: &'static str,
    /// Whether nodes want a sidecar of blobs with it.
    pub needs_sidecar: bool,
}

impl Signed {
    /// Puts the signature into the transaction that `intent` was decoded from, and verifies the outcome: the
    /// signature under `public_key`, and the sender that a node will recover.
    ///
    /// # Errors
    /// [`Error::Unverified`] when the signature is not that key's over this transaction.
    pub fn new(intent: &Intent, public_key: &[u8; 33], signature: &Signature) -> Result<Self> {
        let Action::Ethereum(transaction) = intent.action() else {
            return Err(Error::bug("the intent is none of an Ethereum transaction"));
        };
        let unsigned = transaction.unsigned_bytes();
        let digest: [u8; 32] = Keccak256::digest(&unsigned).into();
        let Some(EcdsaSigner { recovery_id, .. }) = signature.ecdsa else {
            return Err(unverified("its signature is not of ECDSA"));
        };
        let signer = EcdsaSigner {
            recovery_id,
            public_key: *public_key,
        };
        verify_secp256k1(&signer, &digest, &signature.signature)?;
        if recovery_id > 1 {
            // One signature in 2^127.
            return Err(unverified(
                "its nonce point cannot be written in a transaction; have it signed again under another request id",
            ));
        }
        let raw = complete(&unsigned, transaction, recovery_id, &signature.signature)?;
        let recovered = recover_secp256k1(&digest, &signature.signature, recovery_id)?;
        let from = arca_policy::ethereum_address(&recovered).map_err(Error::bug)?;
        if from != transaction.from {
            return Err(unverified("its sender is another account than the key's"));
        }
        Ok(Self {
            hash: Keccak256::digest(&raw).into(),
            raw,
            from,
            to: transaction.to,
            chain_id: transaction.chain_id,
            kind: kind(transaction),
            needs_sidecar: matches!(transaction.kind, EthereumKind::Blob { .. }),
        })
    }
}

/// The signed transaction: legacy ones end in v, r, s instead of chain id, 0, 0 (EIP-155), and typed ones in
/// yParity, r, s after all other fields.
fn complete(
    unsigned: &[u8],
    transaction: &EthereumTransaction,
    y_parity: u8,
    signature: &[u8; 64],
) -> Result<Vec<u8>> {
    let broken = || Error::bug("an unsigned transaction was encoded wrongly");
    let legacy = matches!(transaction.kind, EthereumKind::Legacy { .. });
    let (prefix, mut list) = unsigned
        .split_at_checked(usize::from(!legacy))
        .ok_or_else(broken)?;
    let mut fields = Header::decode_bytes(&mut list, true)
        .map_err(|_| broken())?
        .to_vec();
    let v = if legacy {
        let mut end = Vec::new();
        transaction.chain_id.encode(&mut end);
        end.extend_from_slice(&[alloy_rlp::EMPTY_STRING_CODE; 2]);
        let kept = fields
            .strip_suffix(end.as_slice())
            .ok_or_else(broken)?
            .len();
        fields.truncate(kept);
        u128::from(transaction.chain_id) * 2 + 35 + u128::from(y_parity)
    } else {
        y_parity.into()
    };
    v.encode(&mut fields);
    let (r, s) = signature.split_at(32);
    for number in [r, s] {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        number.get(zeros..).unwrap_or_default().encode(&mut fields);
    }
    let mut raw = prefix.to_vec();
    Header {
        list: true,
        payload_length: fields.len(),
    }
    .encode(&mut raw);
    raw.extend_from_slice(&fields);
    Ok(raw)
}

fn kind(transaction: &EthereumTransaction) -> &'static str {
    match transaction.kind {
        EthereumKind::Legacy { .. } => "legacy",
        EthereumKind::AccessList { .. } => "EIP-2930",
        EthereumKind::DynamicFee { .. } => "EIP-1559",
        EthereumKind::Blob { .. } => "EIP-4844",
        _ => "of another type",
    }
}

fn is_hex(text: &str) -> bool {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    !digits.is_empty()
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace())
}

fn malformed(problem: impl ToString) -> Error {
    Error::input("Ethereum transaction", problem)
}

fn unverified(problem: &str) -> Error {
    Error::unverified("Ethereum transaction", problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{Key, KeyState, Scheme};
    use crate::{DerivationPath, GroupKey, Payload, verify};
    use serde_json::Value;

    fn bytes(value: &Value) -> Vec<u8> {
        hex::decode(value.as_str().unwrap().trim_start_matches("0x")).unwrap()
    }

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/ethereum.json")).unwrap()
    }

    /// A key whose root is the vectors' account.
    fn key() -> Key {
        let public_key = bytes(&vectors()["public_key"]);
        Key {
            name: "keys/00".to_owned(),
            display_name: String::new(),
            scheme: Scheme::EcdsaSecp256k1,
            state: KeyState::Enabled,
            threshold: 2,
            parties: Vec::new(),
            public_key: GroupKey::new(Scheme::EcdsaSecp256k1, &public_key, &[7; 32]).unwrap(),
            epoch: 1,
            create_time: None,
            allow_raw_digest: false,
        }
    }

    fn decode(unsigned: &Unsigned) -> Result<Intent> {
        let payload = Payload::EthereumTransaction(unsigned.bytes().to_vec());
        verify::decode(&key(), &DerivationPath::root(), &payload)
    }

    fn signature(vector: &Value) -> Signature {
        let recovery_id = vector["recovery_id"].as_u64().unwrap();
        Signature {
            signature: bytes(&vector["signature"]).try_into().unwrap(),
            input: 0,
            ecdsa: Some(EcdsaSigner {
                recovery_id: u8::try_from(recovery_id).unwrap(),
                public_key: account(),
            }),
        }
    }

    fn account() -> [u8; 33] {
        bytes(&vectors()["public_key"]).try_into().unwrap()
    }

    /// What ethers and viem make of the same transaction and signature.
    #[test]
    fn transactions_are_completed_as_others_complete_them() {
        let vectors = vectors();
        let all = vectors["transactions"].as_array().unwrap();
        assert_eq!(all.len(), 7);
        for vector in all {
            let name = &vector["name"];
            let unsigned = Unsigned::parse(vector["json"].to_string().as_bytes())
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(unsigned.bytes(), bytes(&vector["unsigned"]), "{name}");
            let intent = decode(&unsigned).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(
                intent.signables()[0].message,
                bytes(&vector["signing_hash"]),
                "{name}"
            );
            let signed = Signed::new(&intent, &account(), &signature(vector)).unwrap();
            assert_eq!(
                hex::encode(&signed.raw),
                hex::encode(bytes(&vector["raw"])),
                "{name}"
            );
            assert_eq!(signed.hash.to_vec(), bytes(&vector["hash"]), "{name}");
            assert_eq!(
                arca_policy::ethereum_checksum(&signed.from),
                vectors["from"].as_str().unwrap()
            );
            assert_eq!(signed.needs_sidecar, signed.kind == "EIP-4844");
        }
    }

    #[test]
    fn every_form_of_a_transaction_is_read() {
        let vector = &vectors()["transactions"][0];
        let binary = bytes(&vector["unsigned"]);
        let expected = Unsigned::parse(&binary).unwrap();
        let text = hex::encode(&binary);
        for form in [
            text.clone(),
            format!("0x{text}\n"),
            text.to_uppercase(),
            format!("{}\n{}\n", &text[..20], &text[20..]),
        ] {
            assert_eq!(Unsigned::parse(form.as_bytes()).unwrap(), expected);
        }
        for garbage in [
            &b""[..],
            b"0x",
            b"0x0",
            b"05",
            b"{}",
            b"hello",
            b"\x00",
            b"\x7f",
        ] {
            assert!(
                matches!(Unsigned::parse(garbage), Err(Error::Input { .. })),
                "{garbage:?}"
            );
        }
        let error = Unsigned::parse(b"0x04c0").unwrap_err().to_string();
        assert!(error.contains("EIP-7702"), "{error}");
    }

    #[test]
    fn what_is_signed_already_is_declined() {
        for vector in vectors()["transactions"].as_array().unwrap() {
            let signed = Unsigned::parse(&bytes(&vector["raw"])).unwrap();
            let error = decode(&signed).unwrap_err();
            assert!(matches!(error, Error::Declined { .. }), "{error}");
        }
    }

    #[test]
    fn another_signature_makes_no_transaction() {
        let vectors = vectors();
        let [first, second] = [0, 4].map(|index| &vectors["transactions"][index]);
        let intent = decode(&Unsigned::parse(&bytes(&first["unsigned"])).unwrap()).unwrap();
        let refused = |signature: &Signature| {
            let outcome = Signed::new(&intent, &account(), signature);
            assert!(matches!(outcome, Err(Error::Unverified { .. })));
        };
        refused(&signature(second));
        let good = signature(first);
        let mut flipped = good.clone();
        flipped.ecdsa.as_mut().unwrap().recovery_id ^= 1;
        refused(&flipped);
        refused(&Signature {
            ecdsa: None,
            ..good
        });
    }

    #[test]
    fn a_sender_that_is_named_has_to_be_the_keys() {
        let mut json = vectors()["transactions"][0]["json"].clone();
        json["from"] = vectors()["from"].clone();
        let unsigned = Unsigned::parse(json.to_string().as_bytes()).unwrap();
        unsigned.check_sender(&account()).unwrap();
        json["from"] = "0x3535353535353535353535353535353535353535".into();
        let other = Unsigned::parse(json.to_string().as_bytes()).unwrap();
        let error = other.check_sender(&account()).unwrap_err().to_string();
        assert!(
            error.contains("0x3535") && error.contains("0x9d8A"),
            "{error}"
        );
    }
}
